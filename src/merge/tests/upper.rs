//! The top layers alone: what they say must be so whatever the lower ones are.

use super::Put::{Clear, Dir, Hard, Hide, Link};
use super::model::random_put;
use super::*;
use crate::pack::ResolveError;

/// The tree of the top layers, over others that are not here.
fn upper(layers: &[Arc<Pack>]) -> Result<Tree<Arc<Pack>>, PackError> {
    let (file, _) = merge_upper(layers, u64::MAX, tempfile::tempfile().unwrap())?;
    let index = Pack::open(file)?;
    Ok(Tree::merged(Arc::new(index), layers.into()).expect("as many layers"))
}

/// What a path leads to: `=content`, `/`, `none`, `below`.
fn answer(tree: &Tree<Arc<Pack>>, path: &str) -> String {
    match tree.resolve(path.as_bytes()) {
        Ok(entry) if entry.kind == Kind::Directory => {
            format!("{}/", String::from_utf8_lossy(entry.path))
        }
        Ok(entry) => {
            let content = tree.content(&entry).expect("content");
            let path = String::from_utf8_lossy(entry.path);
            let content = String::from_utf8_lossy(content);
            let (mtime, mode) = (entry.mtime, entry.mode);
            format!("{path}={content} of {mtime}, {mode:o}")
        }
        Err(ResolveError::NotFound) => "none".into(),
        Err(ResolveError::TooManyLinks) => "loop".into(),
        Err(ResolveError::Below) => "below".into(),
    }
}

#[test]
fn upper_layers_say_what_no_lower_layer_can_change() {
    type Row = (
        &'static str,
        Vec<Vec<Put>>,
        &'static [(&'static str, &'static str)],
    );
    let f = file;
    let table: Vec<Row> = vec![
        (
            "a_file_in_a_directory_that_the_layer_has",
            vec![vec![f("a", "1"), Dir("d"), f("d/x", "1")]],
            &[
                ("a", "a=1"),
                ("d", "d/"),
                ("d/x", "d/x=1"),
                ("d/y", "below"),
                ("b", "below"),
                ("a/x", "none"),
                ("", "/"),
            ],
        ),
        (
            "the_upper_of_two_decides",
            vec![
                vec![f("a", "1"), f("b", "1"), f("c", "1")],
                vec![f("a", "2"), Hide("b")],
            ],
            &[("a", "a=2"), ("b", "none"), ("b/x", "none"), ("c", "c=1")],
        ),
        (
            "what_whiteouts_and_opaque_directories_remove_is_not_there",
            vec![vec![
                Hide("gone"),
                Dir("d"),
                Clear("d"),
                f("d/x", "1"),
                Dir("d/e"),
                Dir("w"),
                Hide("w"),
                Dir("k"),
                Hide("k/gone"),
            ]],
            &[
                ("gone", "none"),
                ("gone/x", "none"),
                ("d/x", "d/x=1"),
                ("d/y", "none"),
                ("d/e/y", "none"),
                ("w", "w/"),
                ("w/y", "none"),
                ("k/gone", "none"),
                ("k/y", "below"),
            ],
        ),
        (
            "a_directory_in_place_of_something_else_is_empty",
            vec![
                vec![f("a", "1"), Hide("b"), Link("l", "a"), Dir("d"), Clear("d")],
                vec![
                    Dir("a"),
                    Dir("b"),
                    Dir("l"),
                    f("d/e/x", "2"),
                    f("b/c/x", "2"),
                ],
            ],
            &[
                ("a/y", "none"),
                ("b/y", "none"),
                ("b/c/x", "b/c/x=2"),
                ("l/y", "none"),
                ("d/e/x", "d/e/x=2"),
                ("d/e/y", "none"),
            ],
        ),
        (
            "a_parent_that_nobody_names_may_be_a_link_to_anywhere",
            vec![
                vec![f("a", "1")],
                vec![f("d/x", "2"), f("b", "2")],
                vec![f("c", "3")],
            ],
            &[
                ("a", "below"),
                ("b", "below"),
                ("d/x", "below"),
                ("c", "c=3"),
            ],
        ),
        (
            "whiteouts_below_such_a_parent_may_hide_anything_too",
            vec![vec![f("a", "1")], vec![Hide("d/x")], vec![f("c", "3")]],
            &[("a", "below"), ("d/x", "below"), ("c", "c=3")],
        ),
        (
            "opaque_markers_of_such_a_directory_too",
            vec![vec![f("a", "1")], vec![Clear("d")]],
            &[("a", "below"), ("d", "below")],
        ),
        (
            "links_are_followed_as_far_as_the_upper_layers_know",
            vec![vec![
                Dir("d"),
                f("d/x", "1"),
                Link("l", "d"),
                Link("m", "e/x"),
                Link("n", "none"),
                Hide("none"),
                Link("o", "o"),
                f("l/y", "1"),
            ]],
            &[
                ("l/x", "d/x=1"),
                ("d/y", "d/y=1"),
                ("l/z", "below"),
                ("m", "below"),
                ("n", "none"),
                ("o", "loop"),
            ],
        ),
        (
            "a_hard_link_is_what_its_target_is_if_that_is_here",
            vec![vec![
                f("a", "1"),
                Hard("h", "a"),
                Hard("i", "lower"),
                Hard("j", "i"),
                f("b", "1"),
            ]],
            &[
                ("h", "h=1"),
                ("i", "below"),
                ("i/x", "below"),
                ("j", "below"),
                ("b", "b=1"),
            ],
        ),
        (
            "what_replaces_such_a_hard_link_is_here_again",
            vec![
                vec![Hard("i", "lower"), Hard("j", "lower"), Hard("k", "lower")],
                vec![f("i", "2"), Dir("j"), Hide("k")],
            ],
            &[("i", "i=2"), ("j/x", "none"), ("k", "none")],
        ),
        (
            "an_opaque_root_leaves_nothing_open",
            vec![vec![Clear(""), f("a/x", "1")]],
            &[("a/x", "a/x=1"), ("a/y", "none"), ("b", "none")],
        ),
    ];
    for (name, layers, expected) in table {
        let packs: Vec<_> = layers
            .iter()
            .map(|layer| Arc::new(pack(layer).unwrap()))
            .collect();
        let tree = upper(&packs).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (path, expected) in expected {
            let found = answer(&tree, path);
            let found = found.split(" of ").next().unwrap();
            assert_eq!(found, *expected, "{name}: {path:?}");
        }
    }
}

#[test]
fn what_the_upper_layers_alone_refuse_no_lower_layer_mends() {
    for layers in [
        vec![vec![file("a", "1")], vec![file("a/b", "2")]],
        vec![vec![Hide("b")], vec![Hard("h", "b")]],
    ] {
        let packs: Vec<_> = layers
            .iter()
            .map(|layer| Arc::new(pack(layer).unwrap()))
            .collect();
        assert!(upper(&packs).is_err(), "{layers:?}");
        assert!(merge(&packs, u64::MAX, Vec::new()).is_err(), "{layers:?}");
    }
}

/// Entries as image builders write them: the directories above each first; or anything.
fn random_layer(random: &mut fastrand::Rng, number: &mut usize) -> Vec<Put> {
    let tidy = random.u8(..4) > 0;
    let mut entries = Vec::new();
    for _ in 0..random.usize(..7) {
        *number += 1;
        let put = random_put(random, *number);
        let (Put::File(path, _)
        | Dir(path)
        | Link(path, _)
        | Hard(path, _)
        | Hide(path)
        | Clear(path)) = put;
        for (slash, _) in path.match_indices('/').filter(|_| tidy) {
            let parent = &path[..slash];
            let is_there =
                |put: &Put| matches!(put, Dir(there) | Link(there, _) if *there == parent);
            if !entries.iter().any(is_there) {
                entries.push(Dir(parent));
            }
        }
        entries.push(put);
    }
    entries
}

#[test]
fn random_upper_layers_say_what_all_layers_say() {
    let seed = std::env::var("BLOBSERVE_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BLOBSERVE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut number, mut found, mut absent, mut below) = (0, 0, 0, 0);
    let mut paths: Vec<String> = vec![String::new()];
    for one in ["a", "b", "c"] {
        paths.push(one.into());
        for two in ["a", "b", "c"] {
            paths.push(format!("{one}/{two}"));
            paths.extend(["a", "b", "c"].map(|three| format!("{one}/{two}/{three}")));
        }
    }
    for _ in 0..4000 {
        let mut puts = Vec::new();
        let mut packs = Vec::new();
        for _ in 0..random.usize(2..6) {
            let entries = random_layer(&mut random, &mut number);
            if let Ok(pack) = pack(&entries) {
                packs.push(Arc::new(pack));
                puts.push(entries);
            }
        }
        let all = match merge(&packs, u64::MAX, tempfile::tempfile().unwrap()) {
            Ok((file, _)) => {
                let index = Arc::new(Pack::open(file).unwrap());
                Tree::merged(index, packs.as_slice().into()).expect("as many layers")
            }
            Err(_) => continue,
        };
        for from in 1..packs.len() {
            let tree = upper(&packs[from..])
                .unwrap_or_else(|error| panic!("{puts:?} from {from}: {error}"));
            for path in &paths {
                let here = answer(&tree, path);
                match here.as_str() {
                    "below" => below += 1,
                    said => {
                        let all = answer(&all, path);
                        assert_eq!(said, all, "{path:?} of {puts:?} from {from}");
                        match said {
                            "none" | "loop" => absent += 1,
                            _ if !path.is_empty() => found += 1,
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    assert!(
        found > 5_000 && absent > 5_000 && below > 5_000,
        "{found}, {absent}, {below}"
    );
}
