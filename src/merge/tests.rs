//! Tables of what layers make, and a random model: a naive file system that applies them.

mod model;
mod upper;

use super::*;
use crate::pack::{EntryHeader, Kind, Writer};

/// One entry of a layer: path as in an archive, cleaned; `.wh.` names are whiteouts.
#[derive(Clone, Debug)]
pub(super) enum Put {
    File(&'static str, String),
    Dir(&'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Hide(&'static str),
    Clear(&'static str),
}

use Put::{Clear, Dir, Hard, Hide, Link};

fn file(path: &'static str, content: &str) -> Put {
    Put::File(path, content.to_owned())
}

/// The layer's pack. Err: the layer alone is refused.
fn pack(entries: &[Put]) -> Result<Pack, PackError> {
    let mut writer = Writer::new(tempfile::tempfile().unwrap());
    for (number, entry) in entries.iter().enumerate() {
        let (path, kind, link, content) = match entry {
            Put::File(path, content) => (*path, Kind::File, "", content.as_str()),
            Dir(path) => (*path, Kind::Directory, "", ""),
            Link(path, to) => (*path, Kind::Symlink, *to, ""),
            Hard(path, to) => (*path, Kind::HardLink, *to, ""),
            Hide(path) => (*path, Kind::Whiteout, "", ""),
            Clear(path) => (*path, Kind::Opaque, "", ""),
        };
        let header = EntryHeader {
            path: path.as_bytes(),
            kind,
            link: link.as_bytes(),
            mode: 0o644,
            mtime: number as i64,
        };
        writer.entry(&header, content.len() as u64)?;
        writer.content(content.as_bytes())?;
    }
    let name = format!("{entries:?}");
    let origin = Origin {
        digest: Digest::sha256(name.as_bytes()),
        size: 1,
        diff_id: Digest::sha256(name.as_bytes()),
    };
    let (file, _) = writer.finish(&origin)?;
    Pack::open(file)
}

/// The merged tree of the layers.
fn merged(layers: Vec<Pack>) -> Result<Tree<Arc<Pack>>, PackError> {
    let layers: Arc<[Arc<Pack>]> = layers.into_iter().map(Arc::new).collect();
    let (file, summary) = merge(&layers, u64::MAX, tempfile::tempfile().unwrap())?;
    let index = Pack::open(file)?;
    assert_eq!(summary.content_bytes, 0, "no content is copied");
    Ok(Tree::merged(Arc::new(index), layers).expect("as many layers"))
}

/// `path`, `path/` or `path -> target`, each with its content, sorted.
fn listing(tree: &Tree<Arc<Pack>>) -> Vec<String> {
    let mut lines = Vec::new();
    for node in tree.nodes() {
        let path = String::from_utf8_lossy(node.path).into_owned();
        // Each way to the node agrees.
        assert_eq!(tree.lookup(node.path).map(|found| found.id), Some(node.id));
        match node.kind {
            Kind::Directory => {
                if !path.is_empty() {
                    lines.push(format!("{path}/"));
                }
                for child in tree.children(node.id) {
                    let slash = child.path.iter().rposition(|b| *b == b'/');
                    assert_eq!(&child.path[..slash.unwrap_or(0)], node.path);
                }
            }
            Kind::Symlink => {
                let to = String::from_utf8_lossy(node.link);
                lines.push(format!("{path} -> {to}"));
            }
            _ => {
                let content = tree.content(&node).expect("content");
                lines.push(format!("{path}={}", String::from_utf8_lossy(content)));
            }
        }
    }
    lines.sort();
    let reached: usize = tree
        .nodes()
        .map(|node| tree.children(node.id).count())
        .sum();
    assert_eq!(reached, lines.len(), "every node is one directory's child");
    lines
}

#[test]
fn layers_make_the_tree_that_a_runtime_makes() {
    type Row = (&'static str, Vec<Vec<Put>>, &'static [&'static str]);
    let f = file;
    let table: Vec<Row> = vec![
        (
            "an_upper_file_replaces_a_lower_one",
            vec![vec![f("a", "1"), f("b", "1")], vec![f("a", "2")]],
            &["a=2", "b=1"],
        ),
        (
            "a_whiteout_hides_a_file_and_a_tree",
            vec![
                vec![f("a", "1"), f("d/x", "1"), f("d/e/y", "1"), f("k", "1")],
                vec![Hide("a"), Hide("d")],
            ],
            &["k=1"],
        ),
        (
            "a_whiteout_hides_nothing_of_its_own_layer_wherever_it_stands",
            vec![
                vec![f("a", "1"), f("d/x", "1"), f("e/x", "1")],
                vec![
                    Hide("a"),
                    f("a", "2"),
                    f("d/y", "2"),
                    Hide("d"),
                    Hide("e"),
                    Dir("e"),
                ],
            ],
            &["a=2", "d/", "d/y=2", "e/"],
        ),
        (
            "an_opaque_directory_keeps_what_its_own_layer_put_before_and_after",
            vec![
                vec![f("d/x", "1"), f("d/e/y", "1"), f("d/e/z", "1")],
                vec![f("d/e/z", "2"), Clear("d"), f("d/w", "2")],
            ],
            &["d/", "d/e/", "d/e/z=2", "d/w=2"],
        ),
        (
            "an_opaque_directory_is_filled_again_by_an_upper_layer",
            vec![
                vec![f("d/x", "1")],
                vec![Dir("d"), Clear("d")],
                vec![f("d/y", "3")],
            ],
            &["d/", "d/y=3"],
        ),
        (
            "an_opaque_root",
            vec![
                vec![f("a", "1"), f("d/x", "1")],
                vec![Clear(""), f("b", "2")],
            ],
            &["b=2"],
        ),
        (
            "a_directory_becomes_a_file_and_a_directory_again",
            vec![
                vec![f("d/x", "1")],
                vec![f("d", "2")],
                vec![Dir("d"), f("d/z", "3")],
            ],
            &["d/", "d/z=3"],
        ),
        (
            "a_link_becomes_an_opaque_directory_and_its_target_stays",
            vec![
                vec![f("b/x", "1"), Link("a", "b")],
                vec![Dir("a"), Clear("a"), f("a/y", "2")],
            ],
            &["a/", "a/y=2", "b/", "b/x=1"],
        ),
        (
            "parents_that_are_links_of_lower_layers_are_followed",
            vec![
                vec![
                    f("usr/lib/x", "1"),
                    Link("lib", "usr/lib"),
                    Link("up", "/../usr"),
                ],
                vec![f("lib/y", "2"), f("up/lib/x", "2"), Hide("lib/none")],
            ],
            &[
                "lib -> usr/lib",
                "up -> /../usr",
                "usr/",
                "usr/lib/",
                "usr/lib/x=2",
                "usr/lib/y=2",
            ],
        ),
        (
            "a_hard_link_to_a_file_of_a_lower_layer_outlives_it",
            vec![
                vec![f("a", "1"), Link("s", "a")],
                vec![Hard("d/h", "a"), Hard("t", "s")],
                vec![Hide("a"), f("x", "3")],
            ],
            &["d/", "d/h=1", "s -> a", "t -> a", "x=3"],
        ),
        (
            "a_whiteout_through_a_link",
            vec![
                vec![f("etc/gone", "1"), f("etc/kept", "1"), Link("l", "/etc")],
                vec![Hide("l/gone")],
            ],
            &["etc/", "etc/kept=1", "l -> /etc"],
        ),
        (
            "a_whiteout_below_a_file_or_nothing_hides_nothing",
            vec![
                vec![f("a", "1"), Link("l", "none")],
                vec![
                    Hide("a/x"),
                    Hide("l/a"),
                    Hide("no/a"),
                    Clear("a"),
                    Clear("no"),
                ],
            ],
            &["a=1", "l -> none"],
        ),
    ];
    for (name, layers, expected) in table {
        let packs = layers.iter().map(|layer| pack(layer).unwrap()).collect();
        let tree = merged(packs).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(listing(&tree), expected, "{name}");
    }
}

#[test]
fn layers_that_do_not_fit_are_refused_by_name() {
    let table: Vec<(Vec<Vec<Put>>, &str)> = vec![
        (
            vec![vec![file("a", "1")], vec![Hard("h", "b")]],
            "hard link `h` to `b`: the target does not exist",
        ),
        (
            vec![vec![Dir("a")], vec![Hard("h", "a")]],
            "the target is a directory",
        ),
        (
            vec![vec![file("a", "1")], vec![file("a/b", "2")]],
            "`a` is not a directory",
        ),
        (
            vec![vec![Link("a", "b"), Link("b", "a")], vec![file("a/b", "2")]],
            "more than 40 links",
        ),
    ];
    for (layers, expected) in table {
        let packs = layers.iter().map(|layer| pack(layer).unwrap()).collect();
        let error = merged(packs).err().expect("refused").to_string();
        assert!(error.contains(expected), "{layers:?}: {error}");
    }
}

#[test]
fn a_layer_alone_says_what_it_lacks() {
    let layer = pack(&[Hard("h", "lower"), file("a", "1"), Hard("i", "h")]).unwrap();
    let why = layer.incomplete().expect("incomplete");
    assert!(why.contains("`h` to `lower`"), "{why}");
    assert!(layer.lookup(b"h").is_none() && layer.lookup(b"a").is_some());
    assert_eq!(layer.log().count(), 3);
    let whole = pack(&[file("a", "1"), Hard("h", "a")]).unwrap();
    assert_eq!(whole.incomplete(), None);
}

#[test]
fn a_chain_is_named_as_the_specification_says() {
    let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::sha256(text));
    assert_eq!(chain_id([]), None);
    assert_eq!(chain_id([a]), Some(a));
    let two = Digest::sha256(format!("{a} {b}").as_bytes());
    assert_eq!(chain_id([a, b]), Some(two));
    let three = Digest::sha256(format!("{two} {c}").as_bytes());
    assert_eq!(chain_id([a, b, c]), Some(three));
    let tree = merged(vec![pack(&[file("a", "1")]).unwrap(), pack(&[]).unwrap()]).unwrap();
    let layers = tree.layers().unwrap();
    let chain = chain_id(layers.iter().map(|layer| layer.origin().diff_id));
    assert_eq!(Some(tree.origin().diff_id), chain);
}

#[test]
fn an_index_shows_nothing_with_packs_that_are_not_its_own() {
    let layers = || {
        vec![
            pack(&[file("a", "long content")]).unwrap(),
            pack(&[]).unwrap(),
        ]
    };
    let tree = merged(layers()).unwrap();
    let index = tree.index().clone();
    let empty: Arc<[Arc<Pack>]> = (0..2).map(|_| Arc::new(pack(&[]).unwrap())).collect();
    assert!(Tree::merged(index.clone(), empty[..1].iter().cloned().collect()).is_none());
    let wrong = Tree::merged(index, empty).unwrap();
    let entry = wrong.lookup(b"a").unwrap();
    assert!(wrong.content(&entry).is_none());
}

#[test]
fn memory_is_bounded_and_its_bound_known_before() {
    let names: Vec<&'static str> = (0..2000)
        .map(|n| &*Box::leak(format!("some/long/directory/{}/{n}", n % 50).into_boxed_str()))
        .collect();
    let layer = |from: usize| {
        let files: Vec<Put> = names[from..from + 1000]
            .iter()
            .map(|n| file(n, ""))
            .collect();
        Arc::new(pack(&files).unwrap())
    };
    let layers = [layer(0), layer(500), layer(1000)];
    let out = || tempfile::tempfile().unwrap();
    merge(&layers, memory(&layers), out()).unwrap();
    let error = merge(&layers, 100_000, out()).unwrap_err();
    assert!(matches!(error, PackError::TooLarge(_)), "{error}");
}

/// Ten times as many layers take ten times as long, not a hundred times: of this thread's own time, whoever else
/// the machine serves. Each replaces files of the one below, and has its own.
#[test]
fn merging_five_hundred_layers_is_linear() {
    let worked = || -> u64 {
        let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        said.split(' ').next().unwrap().parse().unwrap()
    };
    let layer = |number: usize| {
        let mut writer = Writer::new(tempfile::tempfile().unwrap());
        for file in 0..200 {
            let owner = number.saturating_sub(usize::from(file % 10 == 0));
            let path = format!("usr/lib/{owner}/{}/file-{file}", file % 7);
            let header = EntryHeader {
                path: path.as_bytes(),
                kind: Kind::File,
                link: b"",
                mode: 0o644,
                mtime: 0,
            };
            writer.entry(&header, 0).unwrap();
        }
        let name = Digest::sha256(&number.to_le_bytes());
        let origin = Origin {
            digest: name,
            size: 1,
            diff_id: name,
        };
        Arc::new(Pack::open(writer.finish(&origin).unwrap().0).unwrap())
    };
    let layers: Vec<Arc<Pack>> = (0..500).map(layer).collect();
    let times = [50, 500].map(|count| {
        let rounds = [(); 2].map(|()| {
            let (before, out) = (worked(), tempfile::tempfile().unwrap());
            merge(&layers[..count], u64::MAX, out).unwrap();
            worked() - before
        });
        rounds.into_iter().min().unwrap()
    });
    assert!(times[1] < 30 * times[0], "{times:?} ns");
}
