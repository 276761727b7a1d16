//! What is served is what umoci, the reference for unpacking, makes of the same image.

use crate::binary::{Blobserve, Home};
use crate::layouts::Layout;
use crate::registries::{Access, Registry};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Longest chain of links that is followed.
const MOST_LINKS: usize = 40;

/// What is at a path, links followed inside the image.
#[derive(Debug)]
enum Found {
    File(PathBuf),
    Directory,
    Nothing,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_is_served_as_umoci_unpacks_it() {
    let layout = Layout::of_a_site("tree");
    let root = layout.unpacked();
    let registry = Registry::start(&Access::Open);
    registry.push(&layout, "team/app:v1", "oci");
    let prefix = format!("/{}/team/app:v1", registry.host());
    let home = Home::new();
    let blobserve = home.serve(&json!({"repos": {format!("{}/team/app", registry.host()): {}}}));

    let (files, directories, nothing) = is_the_tree(&blobserve, &prefix, &root).await;
    // The site has them all: the comparison was one.
    assert!(
        files > 500 && directories >= 12 && nothing >= 4,
        "{files} files, {directories} directories, {nothing} dead links"
    );
}

/// Asks for every path below `root` at `prefix`, and for nothing that is not there. How many files,
/// directories, and links that lead nowhere there are.
pub async fn is_the_tree(
    blobserve: &Blobserve,
    prefix: &str,
    root: &Path,
) -> (usize, usize, usize) {
    let mut paths = Vec::new();
    walk(root, Path::new(""), &mut paths);
    let (mut files, mut directories, mut nothing) = (0, 0, 0);
    for path in &paths {
        let url = format!("{prefix}{}", encoded(path));
        match find(root, path) {
            Found::File(file) => {
                is_served(blobserve, &url, &file).await;
                files += 1;
            }
            Found::Directory => {
                let redirect = blobserve.get_expecting(301, &url).await;
                let name = encoded(Path::new(path.file_name().expect("a name")));
                let expected = format!("{}/", name.trim_start_matches('/'));
                assert_eq!(
                    decoded(redirect.header("location").expect("Location")),
                    decoded(&expected),
                    "{url}"
                );
                directories += 1;
            }
            Found::Nothing => {
                blobserve.get(&url).await.expect_error(404);
                nothing += 1;
            }
        }
    }
    (files, directories, nothing)
}

/// The body has the bytes and the length of `file`.
async fn is_served(blobserve: &Blobserve, url: &str, file: &Path) {
    let expected =
        std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let response = blobserve.get_expecting(200, url).await;
    let length = expected.len().to_string();
    assert_eq!(
        response.header("content-length"),
        Some(length.as_str()),
        "{url}"
    );
    assert_eq!(
        Sha256::digest(&response.body),
        Sha256::digest(&expected),
        "{url} is not {}",
        file.display()
    );
}

/// Every path below `root` but `root` itself; links are not followed.
fn walk(root: &Path, below: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root.join(below)).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        paths.push(path.clone());
        if entry.file_type().expect("a type").is_dir() {
            walk(root, &path, paths);
        }
    }
}

/// Follows `path` with `root` as the root directory, as a container would.
fn find(root: &Path, path: &Path) -> Found {
    let mut links = 0;
    let mut left: Vec<PathBuf> = components(path);
    let mut at = PathBuf::new();
    while let Some(name) = left.pop() {
        if name == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let Ok(metadata) = root.join(&next).symlink_metadata() else {
            return Found::Nothing;
        };
        if !metadata.is_symlink() {
            if !metadata.is_dir() && !left.is_empty() {
                return Found::Nothing;
            }
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Found::Nothing;
        }
        let target = std::fs::read_link(root.join(&next)).expect("a link");
        if target.is_absolute() {
            at = PathBuf::new();
        }
        left.extend(components(&target));
    }
    let found = root.join(&at);
    if found.is_dir() {
        Found::Directory
    } else {
        Found::File(found)
    }
}

/// Last first: names, and `..` where it goes up.
fn components(path: &Path) -> Vec<PathBuf> {
    let part = |component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

/// `/a/b%20c` of `a/b c`.
fn encoded(path: &Path) -> String {
    let parts = components(path);
    parts
        .iter()
        .rev()
        .map(|part| {
            format!(
                "/{}",
                percent_encode(part.as_os_str().as_bytes(), NON_ALPHANUMERIC)
            )
        })
        .collect()
}

fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text.trim_start_matches("./")).collect()
}
