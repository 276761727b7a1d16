//! `layers/cases.json`: containerd's break-out and whiteout tests, of one layer and of several.

use super::tar::unpack_layer;
use blobserve::merge::{Tree, merge};
use blobserve::pack::{Kind, Pack, PackError};
use blobserve::unpack::Threads;
use serde_json::Value;
use std::sync::Arc;

/// The tree of the layers: of one by its own pack, of several by their merged index.
fn tree(layers: Vec<Pack>) -> Result<Tree<Arc<Pack>>, String> {
    let layers: Arc<[Arc<Pack>]> = layers.into_iter().map(Arc::new).collect();
    if let [layer] = &*layers {
        return match layer.incomplete() {
            Some(why) => Err(why),
            None => Ok(Tree::of_layer(layer.clone())),
        };
    }
    let out = tempfile::tempfile().expect("a temporary file");
    let (file, _) = merge(&layers, u64::MAX, out).map_err(|error: PackError| error.to_string())?;
    let index = Arc::new(Pack::open(file).expect("an index just written opens"));
    Ok(Tree::merged(index, layers).expect("as many layers"))
}

fn content<'a>(tree: &'a Tree<Arc<Pack>>, path: &str) -> Option<&'a [u8]> {
    let entry = tree.resolve(path.as_bytes()).ok();
    let entry = entry.filter(|entry| entry.kind == Kind::File)?;
    tree.content(&entry)
}

#[test]
fn layers_make_the_tree_that_containerd_makes() {
    let dir = super::cases_dir().join("layers");
    let table: Value =
        serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
    let (mut seen, mut several) = (0, 0);
    for case in table.as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let files = case["files"].as_array().unwrap();
        seen += 1;
        several += usize::from(files.len() > 1);
        let unpacked: Result<Vec<Pack>, String> = files
            .iter()
            .map(|file| {
                let bytes = std::fs::read(dir.join(file.as_str().unwrap())).unwrap();
                unpack_layer(&bytes, Threads::One).map_err(|error| error.to_string())
            })
            .collect();
        let result = unpacked.and_then(tree);
        if case["upstream"]["reject"] == true {
            assert!(result.is_err(), "{id}: must be refused");
            continue;
        }
        let tree = result.unwrap_or_else(|error| panic!("{id}: {error}"));
        for (path, expected) in case["upstream"]["files"].as_object().unwrap() {
            let expected = expected.as_str().unwrap().as_bytes();
            assert_eq!(content(&tree, path), Some(expected), "{id}: {path}");
        }
        for path in case["upstream"]["absent"].as_array().unwrap() {
            let path = path.as_str().unwrap();
            assert!(tree.lookup(path.as_bytes()).is_none(), "{id}: {path}");
        }
    }
    assert!(
        seen >= 34 && several >= 10,
        "{seen} cases, {several} of several layers"
    );
}
