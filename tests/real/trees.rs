//! What is served is what umoci, the reference for unpacking, makes of the same image.

use crate::binary::{Blobserve, Home};
use crate::layouts::Layout;
use crate::registries::{Access, Registry};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Longest chain of links that is followed.
const MOST_LINKS: usize = 40;
/// Paths that are asked for side by side.
const AT_ONCE: usize = 8;

/// What is at a path, links followed inside the image.
#[derive(Debug)]
enum Found {
    /// Its path on this machine.
    File(PathBuf),
    /// Its path in the image.
    Directory(PathBuf),
    /// Nor is a device anything that is served.
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
    let blobserve = home.serve(&json!({
        "listing": true,
        "repos": {format!("{}/team/app", registry.host()): {}},
    }));

    let compared = is_the_tree(&blobserve, &prefix, &root).await;
    // The site has them all: the comparison was one.
    let Compared {
        files,
        directories,
        nothing,
    } = compared;
    assert!(
        files > 500 && directories >= 12 && nothing >= 4,
        "{compared:?}"
    );
}

/// How many paths a comparison came by, by what is there, links followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    pub files: usize,
    pub directories: usize,
    pub nothing: usize,
}

/// Asks for every path below `root` at `prefix`: files are byte for byte there, and every directory
/// lists what is in it and nothing else, with sizes and digests. Listings have to be on.
pub async fn is_the_tree(blobserve: &Blobserve, prefix: &str, root: &Path) -> Compared {
    let mut paths = Vec::new();
    walk(root, Path::new(""), &mut paths);
    lists(blobserve, prefix, root, Path::new("")).await;
    let asked = paths
        .iter()
        .map(|path| is_there(blobserve, prefix, root, path));
    let found = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
    let add = async |mut sum: Compared, found| {
        match found {
            Found::File(_) => sum.files += 1,
            Found::Directory(_) => sum.directories += 1,
            Found::Nothing => sum.nothing += 1,
        }
        sum
    };
    let compared = found.fold(Compared::default(), add).await;
    println!("{compared:?}");
    compared
}

/// What `root` has at the path is what is served; what that is.
async fn is_there(blobserve: &Blobserve, prefix: &str, root: &Path, path: &Path) -> Found {
    let url = format!("{prefix}{}", encoded(path));
    let found = find(root, path);
    match &found {
        Found::File(file) => {
            let expected = read(file);
            let response = blobserve.get_expecting(200, &url).await;
            assert!(
                response.body == expected,
                "{url} has {} bytes, and is not {}",
                response.body.len(),
                file.display()
            );
        }
        Found::Directory(at) => {
            let redirect = blobserve.get_expecting(301, &url).await;
            let name = encoded(Path::new(path.file_name().expect("a name")));
            let expected = format!("{}/", name.trim_start_matches('/'));
            assert_eq!(
                decoded(redirect.header("location").expect("Location")),
                decoded(&expected),
                "{url}"
            );
            // One that a link leads to is listed under its own name.
            if at == path {
                lists(blobserve, prefix, root, path).await;
            }
        }
        Found::Nothing => {
            blobserve.get(&url).await.expect_error(404);
        }
    }
    found
}

/// The listing of a directory has the entries that `root` has there, with what they are.
async fn lists(blobserve: &Blobserve, prefix: &str, root: &Path, directory: &Path) {
    let mut expected = BTreeMap::new();
    for entry in std::fs::read_dir(root.join(directory)).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        let is = match find(root, &directory.join(&name)) {
            Found::File(file) => {
                let bytes = read(&file);
                let digest = STANDARD.encode(Sha256::digest(&bytes));
                json!(["file", bytes.len(), format!("sha256-{digest}")])
            }
            Found::Directory(_) => json!(["directory", null, null]),
            // A dead link is not listed.
            Found::Nothing => continue,
        };
        expected.insert(name.as_bytes().to_vec(), is);
    }
    let url = format!("{prefix}{}/?format=json&integrity=1", encoded(directory));
    let listing = blobserve.get_expecting(200, &url).await.body;
    let listing: Vec<Value> = serde_json::from_slice(&listing).expect("JSON");
    let mut listed = BTreeMap::new();
    for entry in &listing {
        let href = entry["href"].as_str().expect("a text");
        let name = decoded(href.trim_end_matches('/'));
        let is = json!([entry["type"], entry["size"], entry["integrity"]]);
        let first = listed.insert(name, is);
        assert!(first.is_none(), "{url}: {href} is there twice");
    }
    assert!(
        listed == expected,
        "{url}: listed, but not there or not so: {:?}; there, but not listed so: {:?}",
        only_in(&listed, &expected),
        only_in(&expected, &listed),
    );
}

/// What `other` does not have, or has otherwise.
fn only_in<'a>(
    one: &'a BTreeMap<Vec<u8>, Value>,
    other: &BTreeMap<Vec<u8>, Value>,
) -> Vec<(String, &'a Value)> {
    one.iter()
        .filter(|(name, is)| other.get(*name) != Some(*is))
        .map(|(name, is)| (String::from_utf8_lossy(name).into_owned(), is))
        .collect()
}

fn read(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
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
        Found::Directory(at)
    } else if found.is_file() {
        Found::File(found)
    } else {
        Found::Nothing
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
