//! Tests of the format, the tree and the mapping.

mod model;

use super::format::{FOOTER_LEN, Footer};
use super::*;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};
use zerocopy::{FromBytes, IntoBytes};

type Spec<'a> = (Kind, &'a str, &'a str);
/// Name, entries, and the tree that they make (path, [`tree`]'s text).
type TreeRow<'a> = (&'a str, &'a [Spec<'a>], &'a [(&'a str, &'a str)]);

fn header<'a>(kind: Kind, path: &'a str, link: &'a str) -> EntryHeader<'a> {
    EntryHeader {
        path: path.as_bytes(),
        kind,
        link: link.as_bytes(),
        mode: 0o644,
        mtime: 1,
    }
}

fn origin() -> Origin {
    let digest = |text: &[u8]| crate::digest::Digest::sha256(text);
    Origin {
        digest: digest(b"layer"),
        size: 5,
        diff_id: digest(b"tar"),
    }
}

/// Writes entries; for files the third part is the content.
fn write(entries: &[Spec<'_>]) -> Result<Vec<u8>, PackError> {
    let mut writer = Writer::new(Vec::new());
    for (kind, path, rest) in entries {
        let (link, content) = if *kind == Kind::File {
            ("", *rest)
        } else {
            (*rest, "")
        };
        writer.entry(&header(*kind, path, link), content.len() as u64)?;
        // In two pieces: one-shot and streaming hashes must agree.
        let (a, b) = content.as_bytes().split_at(content.len() / 3);
        writer.content(a)?;
        writer.content(b)?;
    }
    Ok(writer.finish(&origin())?.0)
}

fn open(bytes: &[u8]) -> Result<Pack, PackError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    Pack::open(file)
}

fn content<'a>(pack: &'a Pack, entry: &Entry<'_>) -> &'a [u8] {
    &pack.bytes()[entry.offset as usize..(entry.offset + entry.length) as usize]
}

/// The tree as text: `path kind link-or-content`.
fn tree(pack: &Pack) -> BTreeMap<String, String> {
    pack.nodes()
        .map(|node| {
            let rest = match node.kind {
                Kind::File => String::from_utf8_lossy(content(pack, &node)),
                _ => String::from_utf8_lossy(node.link),
            };
            let path = String::from_utf8_lossy(node.path).into_owned();
            (path, format!("{:?} {rest}", node.kind))
        })
        .collect()
}

use Kind::{Directory as D, File as F, HardLink as H, Opaque, Special, Symlink as S, Whiteout};

#[test]
fn entries_make_the_tree_that_containerd_makes() {
    let table: &[TreeRow<'_>] = &[
        (
            "missing_parents_are_implied",
            &[(F, "a/b/c", "x")],
            &[
                ("a", "Directory "),
                ("a/b", "Directory "),
                ("a/b/c", "File x"),
            ],
        ),
        (
            "a_later_file_replaces_an_earlier_one",
            &[(F, "a", "1"), (F, "a", "2")],
            &[("a", "File 2")],
        ),
        (
            "a_file_over_a_directory_removes_all_below_it",
            &[(F, "a/b/c", "1"), (F, "a/d", "1"), (F, "a", "2")],
            &[("a", "File 2")],
        ),
        (
            "a_directory_over_a_directory_keeps_its_content",
            &[(F, "a/b", "1"), (D, "a", "")],
            &[("a", "Directory "), ("a/b", "File 1")],
        ),
        (
            "a_directory_over_a_file_replaces_it",
            &[(F, "a", "1"), (D, "a", ""), (F, "a/b", "2")],
            &[("a", "Directory "), ("a/b", "File 2")],
        ),
        (
            "an_entry_below_a_link_lands_at_its_target",
            &[(D, "etc", ""), (S, "l", "/etc"), (F, "l/x", "1")],
            &[
                ("etc", "Directory "),
                ("etc/x", "File 1"),
                ("l", "Symlink /etc"),
            ],
        ),
        (
            "a_link_to_nothing_has_its_target_made",
            &[(S, "a/l", "../new/dir"), (F, "a/l/x", "1")],
            &[
                ("a", "Directory "),
                ("a/l", "Symlink ../new/dir"),
                ("new", "Directory "),
                ("new/dir", "Directory "),
                ("new/dir/x", "File 1"),
            ],
        ),
        (
            "a_link_that_climbs_out_stops_at_the_root",
            &[(S, "l", "../../../etc"), (F, "l/x", "1")],
            &[
                ("etc", "Directory "),
                ("etc/x", "File 1"),
                ("l", "Symlink ../../../etc"),
            ],
        ),
        (
            "the_last_component_is_not_followed",
            &[(F, "t", "1"), (S, "l", "t"), (F, "l", "2")],
            &[("l", "File 2"), ("t", "File 1")],
        ),
        (
            "a_hard_link_keeps_the_content_of_its_time",
            &[(F, "a", "1"), (H, "b", "a"), (F, "a", "2"), (H, "c", "/b")],
            &[("a", "File 2"), ("b", "File 1"), ("c", "File 1")],
        ),
        (
            "a_hard_link_to_a_link_is_that_link",
            &[(S, "l", "t"), (H, "h", "l")],
            &[("h", "Symlink t"), ("l", "Symlink t")],
        ),
        (
            "entries_below_a_hard_linked_link_follow_it",
            &[(S, "l", "t"), (H, "h", "l"), (F, "h/x", "1")],
            &[
                ("h", "Symlink t"),
                ("l", "Symlink t"),
                ("t", "Directory "),
                ("t/x", "File 1"),
            ],
        ),
        (
            "whiteouts_are_not_in_the_tree",
            &[(F, "a", "1"), (Whiteout, "a", ""), (Opaque, "d", "")],
            &[("a", "File 1")],
        ),
        (
            "special_files_are_nodes",
            &[(Special, "dev/null", "")],
            &[("dev", "Directory "), ("dev/null", "Special ")],
        ),
        (
            "the_root_may_be_an_entry",
            &[(F, "a", "1"), (D, "", ""), (F, "b", "2")],
            &[("a", "File 1"), ("b", "File 2")],
        ),
    ];
    for (name, entries, expected) in table {
        let pack = open(&write(entries).unwrap()).unwrap();
        let mut expected: BTreeMap<String, String> = expected
            .iter()
            .map(|(p, t)| ((*p).to_owned(), (*t).to_owned()))
            .collect();
        expected.insert(String::new(), "Directory ".into());
        assert_eq!(tree(&pack), expected, "{name}");
        let log = pack
            .log()
            .filter(|e| e.kind != D || !e.path.is_empty() || e.mtime == 1)
            .count();
        assert_eq!(log, entries.len(), "{name}");
        pack.verify_contents().unwrap();
    }
}

#[test]
fn entries_that_make_no_tree_are_refused() {
    let loops: Vec<String> = (0..50).map(|i| format!("l{i}")).collect();
    let mut chain: Vec<Spec<'_>> = (0..49)
        .map(|i| (S, loops[i].as_str(), loops[i + 1].as_str()))
        .collect();
    chain.push((F, "l0/x", "1"));
    let table: &[(&str, &[Spec<'_>])] = &[
        ("parent_is_a_file", &[(F, "a", "1"), (F, "a/b", "2")]),
        (
            "parent_link_leads_to_a_file",
            &[(F, "a", "1"), (S, "l", "a"), (F, "l/b", "2")],
        ),
        ("hard_link_to_nothing", &[(H, "a", "b")]),
        ("hard_link_to_a_directory", &[(D, "b", ""), (H, "a", "b")]),
        ("hard_link_to_the_root", &[(H, "a", "/")]),
        ("hard_link_to_itself", &[(F, "a", "1"), (H, "a", "a")]),
        (
            "hard_link_over_its_targets_directory",
            &[(F, "a/b", "1"), (H, "a", "a/b")],
        ),
        (
            "link_to_itself_as_parent",
            &[(S, "l", "l"), (F, "l/x", "1")],
        ),
        ("more_than_40_links", &chain),
        ("file_over_the_root", &[(F, "", "1")]),
    ];
    for (name, entries) in table {
        match write(entries) {
            Err(error) => assert!(matches!(error, PackError::Layer(_)), "{name}: {error}"),
            // A lower layer may have the target.
            Ok(bytes) => assert!(open(&bytes).unwrap().incomplete().is_some(), "{name}"),
        }
    }
}

#[test]
fn resolve_follows_links_inside_the_root() {
    let pack = open(
        &write(&[
            (F, "www/index.html", "1"),
            (S, "abs", "/www"),
            (S, "out", "../../www/./index.html"),
            (S, "www/up", ".."),
            (S, "loop", "loop"),
            (S, "slash", "www/"),
            (S, "dangling", "nowhere"),
            (S, "file-as-dir", "www/index.html/x"),
            (Special, "fifo", ""),
        ])
        .unwrap(),
    )
    .unwrap();
    let table: &[(&str, Result<&str, ResolveError>)] = &[
        ("www/index.html", Ok("www/index.html")),
        ("abs/index.html", Ok("www/index.html")),
        ("out", Ok("www/index.html")),
        ("abs/up/abs", Ok("www")),
        ("www/up", Ok("")),
        ("slash", Ok("www")),
        ("", Ok("")),
        ("fifo", Ok("fifo")),
        ("loop", Err(ResolveError::TooManyLinks)),
        ("dangling", Err(ResolveError::NotFound)),
        ("file-as-dir", Err(ResolveError::NotFound)),
        ("www/index.html/x", Err(ResolveError::NotFound)),
        ("nowhere", Err(ResolveError::NotFound)),
    ];
    for (path, expected) in table {
        let got = pack
            .resolve(path.as_bytes())
            .map(|e| String::from_utf8_lossy(e.path).into_owned());
        assert_eq!(got.as_deref().map_err(|e| *e), *expected, "{path}");
    }
    let root = pack.lookup(b"").unwrap().id;
    let names: Vec<&[u8]> = pack.children(root).map(|e| e.path).collect();
    assert!(names.is_sorted());
    assert_eq!(names.len(), 8);
    assert!(
        names
            .iter()
            .all(|name| pack.node(pack.lookup(name).unwrap().id).is_some())
    );
}

fn golden() -> Vec<u8> {
    write(&[
        (D, "etc", ""),
        (F, "etc/passwd", "root"),
        (S, "l", "/etc"),
        (F, "l/x", "moved"),
        (H, "hard", "etc/x"),
        (F, "etc/passwd", "root2"),
        (Whiteout, "gone", ""),
        (Opaque, "etc", ""),
        (F, "a/b/c", ""),
    ])
    .unwrap()
}

#[test]
fn the_bytes_on_disk_are_frozen() {
    let bytes = golden();
    let found = format!("{} bytes, xxh3 {:032x}", bytes.len(), xxh3_128(&bytes));
    let frozen = "1240 bytes, xxh3 75636a5fca5b0d98ba60294acb9ab887";
    assert_eq!(found, frozen, "the pack format changed, raise its version");
    assert_eq!(&bytes[..12], b"blobpack\x02\0\0\0");
}

#[test]
fn hashes_are_those_of_the_content_whatever_the_pieces() {
    let pack = open(&golden()).unwrap();
    assert_eq!(pack.origin(), origin());
    let entry = pack.lookup(b"hard").unwrap();
    assert_eq!((entry.kind, entry.hash), (F, xxh3_128(b"moved")));
    assert_eq!(pack.lookup(b"a/b/c").unwrap().hash, xxh3_128(b""));
}

/// Seed of random tests: from `BLOBSERVE_SEED`, else new; printed either way.
fn random() -> fastrand::Rng {
    let seed = std::env::var("BLOBSERVE_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BLOBSERVE_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Calls everything that reads.
fn read_all(pack: &Pack) {
    for id in 0..64 {
        let _ = pack.node(id);
        let _ = pack.children(id).map(|e| e.path.len()).sum::<usize>();
    }
    for path in ["", "etc", "etc/passwd", "l/x", "hard", "a/b/c", "no"] {
        let _ = pack.lookup(path.as_bytes());
        let _ = pack.resolve(path.as_bytes());
    }
    for entry in pack.log().chain(pack.nodes()) {
        // Of an index of other packs the contents are theirs.
        if pack.sources() == 0 || pack.holds(entry.offset, entry.length) {
            let _ = content(pack, &entry);
        }
    }
    let _ = pack.verify_contents();
    assert!(pack.resident(u64::MAX, u64::MAX));
    pack.populate(0, u64::MAX).unwrap();
}

#[test]
fn a_damaged_pack_is_refused_or_read_without_a_panic() {
    let good = golden();
    let mut random = random();
    let mut refused = 0;
    for round in 0..600 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] ^= random.u8(1..);
        }
        if round % 3 == 1 {
            bytes.truncate(random.usize(..bytes.len()));
        } else if round % 3 == 2 {
            fix_checksums(&mut bytes);
        }
        match open(&bytes) {
            Ok(pack) => read_all(&pack),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 200, "only {refused} were refused");
}

/// Makes the checksums of damaged bytes right, so that the checks behind them are reached.
fn fix_checksums(bytes: &mut [u8]) {
    let end = bytes.len() - FOOTER_LEN;
    let mut footer = Footer::read_from_bytes(&bytes[end..]).unwrap();
    if let Some(index) = bytes.get(footer.records.get() as usize..end) {
        footer.index_checksum = xxh3_64(index).into();
    }
    footer.footer_checksum = xxh3_64(&footer.as_bytes()[..FOOTER_LEN - 8]).into();
    bytes[end..].copy_from_slice(footer.as_bytes());
}

#[test]
fn a_pack_cut_short_while_mapped_is_poisoned_and_the_process_lives() {
    let big = "x".repeat(3 << 20);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&write(&[(F, "a", &big)]).unwrap()).unwrap();
    let pack = Pack::open(file.reopen().unwrap()).unwrap();
    let other = open(&golden()).unwrap();
    pack.populate(0, 3 << 20).unwrap();
    assert!(pack.resident(0, 1 << 20) && !pack.poisoned());
    file.as_file().set_len(4096).unwrap();
    // The kernel says so where it reads the page...
    assert!(pack.populate(1 << 20, 1 << 20).is_err());
    assert!(pack.poisoned());
    // ...and where our code does, there are zeros instead of the end of the process.
    assert_eq!(pack.bytes()[2 << 20], 0);
    assert!(pack.poisoned() && !other.poisoned());
    drop(pack);
    let next = open(&golden()).unwrap();
    assert!(!next.poisoned(), "a new mapping inherits nothing");
}

#[test]
fn touching_a_lost_page_first_poisons_too() {
    let big = "x".repeat(1 << 20);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&write(&[(F, "a", &big)]).unwrap()).unwrap();
    let pack = Pack::open(file.reopen().unwrap()).unwrap();
    file.as_file().set_len(0).unwrap();
    assert_eq!(pack.bytes()[512 << 10], 0);
    assert!(pack.poisoned());
    assert!(pack.lookup(b"a").is_none());
}

/// Behind a file's new end its last page reads as zeros, and no signal is sent.
#[test]
fn a_pack_cut_short_within_its_last_page_is_poisoned() {
    for kept in [0, 1, 100] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&write(&[(F, "a", "text")]).unwrap())
            .unwrap();
        let pack = Pack::open(file.reopen().unwrap()).unwrap();
        assert!(!pack.poisoned());
        file.as_file().set_len(kept).unwrap();
        assert!(pack.poisoned(), "{kept} bytes kept");
        assert!(pack.lookup(b"a").is_none());
    }
}

#[test]
fn the_index_stays_small_while_it_is_built() {
    let mut writer = Writer::new(io::sink());
    let count = 20_000;
    for i in 0..count {
        let path = format!("usr/lib/node_modules/package-{}/dist/file-{i}.js", i / 20);
        writer.entry(&header(F, &path, ""), 0).unwrap();
    }
    let each = writer.index_bytes() / count;
    assert!(each <= 160, "{each} bytes an entry");
}

/// Deep paths and links again and again must not cost a walk each.
#[test]
fn deep_directories_and_large_removals_are_not_quadratic() {
    let start = std::time::Instant::now();
    let mut writer = Writer::new(io::sink());
    let deep = vec!["d"; 1000].join("/");
    writer.entry(&header(S, "l", &deep), 0).unwrap();
    for i in 0..5_000 {
        writer.entry(&header(F, &format!("l/x{i}"), ""), 0).unwrap();
    }
    for _ in 0..200 {
        writer.entry(&header(F, "d", ""), 0).unwrap();
        writer
            .entry(&header(F, &format!("{deep}/y"), ""), 0)
            .unwrap_err();
        writer.entry(&header(D, "d", ""), 0).unwrap();
        writer
            .entry(&header(F, &format!("{deep}/y"), ""), 0)
            .unwrap();
    }
    writer.finish(&origin()).unwrap();
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
