//! Images of several layers, merged: what umoci makes of the same image, path by path, byte by byte.

use crate::binary::Home;
use crate::layouts::Layout;
use crate::parts::installed;
use crate::registries::{Access, Registry};
use crate::support::Layer;
use crate::trees::{Compared, is_the_tree};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Pushes the image, serves all its layers, and compares that with what umoci makes of it.
async fn is_merged_as_umoci_unpacks_it(layout: &Layout) -> Compared {
    let registry = Registry::start(&Access::Open);
    registry.push(layout, "team/image:v1", "oci");
    let repository = format!("{}/team/image", registry.host());
    let home = Home::new();
    let blobserve = home.serve(&json!({
        "listing": true,
        "repos": {&repository: {"layers": "all"}},
    }));
    is_the_tree(&blobserve, &format!("/{repository}:v1"), &layout.unpacked()).await
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
    assert_eq!(layout.layers(), 10);
    let compared = is_merged_as_umoci_unpacks_it(&layout).await;
    assert!(
        compared.files > 20 && compared.directories >= 3,
        "{compared:?}"
    );
}

/// As people build: packages go, directories are replaced and moved, what was one kind becomes
/// another and comes back. buildah writes opaque directories and whiteouts for it.
const DEBIAN: &str = r"FROM scratch
ADD root.tar /
RUN rm -r /usr/share/doc /usr/share/man && mkdir /usr/share/doc && echo new >/usr/share/doc/README
RUN dpkg --purge --force-all mount perl-base
RUN mv /usr/share/perl5 /usr/perl5 && ln -s ../perl5 /usr/share/perl5
RUN rm /etc/issue && mkdir /etc/issue && echo text >/etc/issue/text
RUN ln /etc/passwd /etc/passwd-hard && ln -s passwd /etc/passwd-link && ln /bin/bash /bin/sh-again
RUN rm -r /etc/issue && echo back >/etc/issue && chmod 0600 /etc/issue
RUN rm /usr/share/perl5 && mkdir /usr/share/perl5 && ln -s /usr/perl5/Debconf /usr/share/perl5/Debconf
RUN echo changed >>/etc/passwd && rm -r /usr/perl5/Debconf/Element
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debian_root_file_system_is_merged_as_umoci_unpacks_it() {
    installed();
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    let layout = Layout::of_a_build(DEBIAN, &context);
    // As only a hand writes them: opaque directories beside what is in them, before and after it;
    // a directory that is gone and there in one layer; names through links of lower layers.
    layout.add_tar(
        &Layer::new()
            .opaque("usr/share/locale")
            .file("usr/share/locale/one", "one")
            .file("usr/lib/locale/two", "two")
            .opaque("usr/lib/locale")
            .whiteout("usr/share/bash-completion")
            .hardlink("etc/hard-across", "etc/debian_version")
            .tar(),
    );
    layout.add_tar(
        &Layer::new()
            .file("sbin/through-a-link", "in /usr/sbin")
            .whiteout("etc/passwd")
            .dir("usr/share/bash-completion")
            .symlink("usr/share/bash-completion/up", "../../lib/locale")
            .tar(),
    );
    assert_eq!(layout.layers(), 11);
    let compared = is_merged_as_umoci_unpacks_it(&layout).await;
    assert!(
        compared.files > 2000 && compared.directories > 200 && compared.nothing > 1,
        "{compared:?}"
    );
}
