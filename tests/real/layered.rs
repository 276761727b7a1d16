//! Images of several layers, merged: what umoci makes of the same image, path by path, byte by byte.

use crate::binary::{Blobserve, Home};
use crate::layouts::Layout;
use crate::trees::is_the_tree;
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Serves all layers of the layout's image.
fn serve(home: &Home, layout: &Layout) -> Blobserve {
    home.serve(&json!({
        "registries": {"layers.test": {"layout": layout.oci()}},
        "repos": {"layers.test/image": {"layers": "all"}},
    }))
}

/// Everything below `root`, links not followed.
fn below(root: &Path, paths: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(root).expect("a directory");
    let mut entries: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let metadata = path.symlink_metadata().expect("metadata");
        paths.push(path.clone());
        if metadata.is_dir() {
            below(&path, paths);
        }
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path).expect("removed"),
        Ok(_) => std::fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

/// Does some of all that a layer can do to those below it.
fn change(root: &Path, random: &mut fastrand::Rng) {
    for _ in 0..30 {
        let mut paths = Vec::new();
        below(root, &mut paths);
        let path = paths[random.usize(..paths.len())].clone();
        let is_dir = path.symlink_metadata().expect("metadata").is_dir();
        // Near the root, or of much of the tree, a change leaves too little.
        let within = paths.iter().filter(|one| one.starts_with(&path)).count();
        let depth = path.strip_prefix(root).expect("below").components().count();
        if is_dir && (depth < 3 || within > paths.len() / 10) {
            continue;
        }
        let content = random.u64(..).to_string();
        let parent = path.parent().expect("a parent");
        let fresh = |name: &str| parent.join(format!("{name}-{content}"));
        match random.u8(..9) {
            0 => remove(&path),
            1 => {
                remove(&path);
                std::fs::write(&path, &content).expect("written");
            }
            2 => {
                remove(&path);
                std::fs::create_dir(&path).expect("a directory");
                std::fs::write(path.join("inside"), &content).expect("written");
            }
            // Not a directory: umoci writes whiteouts of what was in it, through the link.
            3 if !is_dir => {
                let target = paths[random.usize(..paths.len())].clone();
                let target = Path::new("/").join(target.strip_prefix(root).expect("below"));
                remove(&path);
                symlink(target, &path).expect("a link");
            }
            4 => std::fs::write(fresh("new"), &content).expect("written"),
            5 if path.symlink_metadata().expect("metadata").is_file() => {
                std::fs::hard_link(&path, fresh("hard")).expect("a hard link");
            }
            6 => std::fs::rename(&path, fresh("moved")).expect("moved"),
            7 if is_dir => {
                remove(&path);
                std::fs::create_dir(&path).expect("a directory");
            }
            _ => symlink(path.file_name().expect("a name"), fresh("link")).expect("a link"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_layers_are_merged_as_umoci_unpacks_them() {
    let seed = std::env::var("BLOBSERVE_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BLOBSERVE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let layout = Layout::of_a_site("ten");
    layout.add_layers(9, |root| change(root, &mut random));
    let root = layout.unpacked();
    let home = Home::new();
    let blobserve = serve(&home, &layout);
    let (files, directories, nothing) =
        is_the_tree(&blobserve, "/layers.test/image:v1", &root).await;
    println!("{files} files, {directories} directories, {nothing} dead links");
    assert!(
        files > 20 && directories >= 3,
        "{files} files, {directories} directories"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debian_root_file_system_is_merged_as_umoci_unpacks_it() {
    let directories = [
        "/etc",
        "/usr/sbin",
        "/usr/share/perl5",
        "/usr/share/zoneinfo",
        "/var/lib/dpkg",
    ];
    let layout = Layout::of_this_machine(&directories);
    let mut layer = 0;
    layout.add_layers(3, |root| {
        layer += 1;
        match layer {
            // As installing and removing packages does.
            1 => {
                std::fs::write(root.join("etc/hostname"), "image\n").expect("written");
                remove(&root.join("usr/share/zoneinfo/Asia"));
            }
            2 => {
                let usr = root.join("usr");
                std::fs::rename(usr.join("share/perl5"), usr.join("perl5")).expect("moved");
                symlink("../perl5", usr.join("share/perl5")).expect("a link");
            }
            _ => std::fs::write(root.join("sbin/new"), "through a link\n").expect("written"),
        }
    });
    let root = layout.unpacked();
    let home = Home::new();
    let blobserve = serve(&home, &layout);
    let (files, directories, nothing) =
        is_the_tree(&blobserve, "/layers.test/image:v1", &root).await;
    println!("{files} files, {directories} directories, {nothing} dead links");
    assert!(
        files > 1000 && directories > 50,
        "{files} files, {directories} directories"
    );
}
