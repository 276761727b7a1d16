//! `layers/cases.json`: containerd's break-out tests; here those of one layer.

use super::tar::unpack_layer;
use blobserve::pack::{Kind, Pack};
use blobserve::unpack::Threads;
use serde_json::Value;

fn content<'a>(pack: &'a Pack, path: &str) -> Option<&'a [u8]> {
    let entry = pack
        .resolve(path.as_bytes())
        .ok()
        .filter(|e| e.kind == Kind::File)?;
    pack.bytes()
        .get(entry.offset as usize..(entry.offset + entry.length) as usize)
}

#[test]
fn single_layers_make_the_tree_that_containerd_makes() {
    let dir = super::cases_dir().join("layers");
    let table: Value =
        serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
    let mut seen = 0;
    for case in table.as_array().unwrap() {
        let files = case["files"].as_array().unwrap();
        let [file] = files.as_slice() else { continue };
        seen += 1;
        let id = case["id"].as_str().unwrap();
        let bytes = std::fs::read(dir.join(file.as_str().unwrap())).unwrap();
        let result = unpack_layer(&bytes, Threads::One);
        if case["upstream"]["reject"] == true {
            assert!(result.is_err(), "{id}: must be refused");
            continue;
        }
        let pack = result.unwrap_or_else(|error| panic!("{id}: {error}"));
        for (path, expected) in case["upstream"]["files"].as_object().unwrap() {
            let got = content(&pack, path);
            assert_eq!(
                got,
                Some(expected.as_str().unwrap().as_bytes()),
                "{id}: {path}"
            );
        }
        for path in case["upstream"]["absent"].as_array().unwrap() {
            assert!(
                pack.lookup(path.as_str().unwrap().as_bytes()).is_none(),
                "{id}: {path}"
            );
        }
    }
    assert!(seen >= 20, "only {seen} cases of one layer");
}
