//! Variants on a real blobspace, without a server.

use super::*;
use crate::blobspace::{Lease, Tuning};
use crate::digest::Digest;
use crate::pack::{EntryHeader, Kind, Origin, Writer};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Store {
    blobspace: Arc<Blobspace<Pack>>,
    metrics: Arc<Metrics>,
    variants: Variants,
    base: Lease<Pack>,
}

fn key() -> Key {
    Key::base("layer-v1")
}

/// Opens the blobspace in a directory; its one base has `files` files.
fn open(location: &TempDir, files: u8, open_mappings: usize) -> Store {
    let tuning = Tuning {
        open_mappings,
        ..Tuning::default()
    };
    let blobspace = Blobspace::open_tuned(location.path(), 0, tuning).unwrap();
    let base = blobspace.get(&key()).unwrap_or_else(|| {
        let mut writer = Writer::new(blobspace.reserve(&key()).unwrap());
        for number in 0..files {
            let header = EntryHeader {
                path: &[b'a' + number],
                kind: Kind::File,
                link: b"",
                mode: 0o644,
                mtime: 7,
            };
            let content = format!("{number}: the same words\n").repeat(200 + usize::from(number));
            writer.entry(&header, content.len() as u64).unwrap();
            writer.content(content.as_bytes()).unwrap();
        }
        let digest = Digest::sha256(b"");
        let origin = Origin {
            digest,
            size: 0,
            diff_id: digest,
        };
        writer.finish(&origin).unwrap().0.commit().unwrap()
    });
    let metrics = Arc::new(Metrics::new());
    Store {
        variants: Variants::new(blobspace.clone(), metrics.clone(), 1 << 30),
        blobspace,
        metrics,
        base,
    }
}

impl Store {
    fn file(&self, number: u8) -> FileNode {
        let entry = self.base.lookup(&[b'a' + number]).unwrap();
        FileNode::new(&self.base, &entry, Some(entry.mtime))
    }

    fn ready(&self, number: u8, coding: Coding) -> Option<FileNode> {
        self.variants.find(&self.file(number)).ready[index(coding)].take()
    }

    /// Asks until it is there.
    fn wanted(&self, number: u8, coding: Coding) -> FileNode {
        let since = Instant::now();
        loop {
            if let Some(file) = self.ready(number, coding) {
                return file;
            }
            self.variants.demand(&self.file(number), coding);
            assert!(
                since.elapsed() < Duration::from_secs(30),
                "{number} never comes"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The side packs, when there are as many as `count`: those that were merged go after what they were merged into is there.
    fn sides(&self, count: usize) -> Vec<Key> {
        let since = Instant::now();
        loop {
            let sides = self.blobspace.sides(&key());
            if sides.len() == count {
                return sides;
            }
            assert!(
                since.elapsed() < Duration::from_secs(30),
                "{sides:?}, not {count}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn made(&self) -> u64 {
        let text = self.metrics.render();
        let lines = text.lines();
        let values = lines.filter(|it| it.starts_with("blobserve_variants_made_total{"));
        values
            .map(|it| it.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

#[test]
fn each_is_made_once_however_often_it_is_asked_for() {
    let location = TempDir::new().unwrap();
    let store = open(&location, 20, 1024);
    assert!(store.ready(0, Coding::Br).is_none());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..20 {
                    for coding in Coding::ALL {
                        let file = store.wanted(number, coding);
                        assert!(file.length < store.file(number).length);
                        assert_eq!(file.mtime, Some(7));
                    }
                }
            });
        }
    });
    assert_eq!(store.made(), 60);
    assert!(
        store.blobspace.sides(&key()).len() <= 2,
        "small ones are merged"
    );
}

#[test]
fn what_a_crash_left_twice_is_used_and_nothing_is_made_again() {
    let location = TempDir::new().unwrap();
    let store = open(&location, 3, 1024);
    let first = store.wanted(0, Coding::Br);
    let sides = store.sides(1);
    let packs = location.path().join("blobserve-v1/packs");
    let path = |key: &Key| packs.join(format!("{}.pack", key.as_str()));
    let kept = std::fs::read(path(&sides[0])).unwrap();
    store.wanted(1, Coding::Br);
    let merged = store.sides(1);
    assert_ne!(merged, sides, "the first was merged into the second");
    let hash = first.hash;
    drop(first);
    store.blobspace.close();
    drop(store);

    // As if the process had ended between the commit of the one and the removal of the other.
    std::fs::write(path(&sides[0]), kept).unwrap();
    let store = open(&location, 3, 1024);
    assert_eq!(store.blobspace.sides(&key()).len(), 2);
    assert_eq!(store.wanted(0, Coding::Br).hash, hash);
    store.wanted(1, Coding::Br);
    assert_eq!(store.made(), 0);
    store.wanted(2, Coding::Br);
    assert_eq!(store.made(), 1);
    store.sides(1);
}

#[test]
fn a_side_pack_that_was_closed_is_opened_and_one_that_was_evicted_rests() {
    let location = TempDir::new().unwrap();
    let store = open(&location, 3, 1);
    drop(store.wanted(0, Coding::Gzip));
    // Another pack takes the one place among the open ones.
    let other = Key::base("other");
    let mut writer = Writer::new(store.blobspace.reserve(&other).unwrap());
    let header = EntryHeader {
        path: b"x",
        kind: Kind::File,
        link: b"",
        mode: 0o644,
        mtime: 7,
    };
    writer.entry(&header, 1).unwrap();
    writer.content(b"x").unwrap();
    let written = writer.finish(&store.base.origin()).unwrap().0;
    drop(written.commit().unwrap());
    drop(store.wanted(0, Coding::Gzip));
    assert_eq!(store.made(), 1, "it was on disk all the time");

    for side in store.blobspace.sides(&key()) {
        store.blobspace.discard(&side);
    }
    assert!(store.ready(0, Coding::Gzip).is_none());
    for _ in 0..20 {
        store.variants.demand(&store.file(0), Coding::Gzip);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(store.made(), 1, "space is short: not at once again");
    assert!(store.ready(0, Coding::Gzip).is_none());
}

#[test]
fn nothing_is_made_after_the_end_and_nothing_of_what_is_too_small_or_gone() {
    let location = TempDir::new().unwrap();
    let store = open(&location, 2, 1024);
    for (bytes, taken) in [
        (511, false),
        (512, true),
        (32 << 20, true),
        (33 << 20, false),
    ] {
        assert_eq!(store.variants.takes(bytes), taken, "{bytes}");
    }
    let file = store.file(0);
    store.blobspace.discard(&key());
    for _ in 0..10 {
        store.variants.demand(&file, Coding::Br);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(store.blobspace.sides(&key()).is_empty());
    assert_eq!(store.blobspace.usage().packs, 0, "it outlives no base");
    store.variants.end();
    store.variants.demand(&file, Coding::Zstd);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(store.made(), 0);
}

#[test]
fn what_is_remembered_of_bases_is_bounded() {
    let location = TempDir::new().unwrap();
    let store = open(&location, 1, 1024);
    for number in 0..MOST_SHELVES + 10 {
        store
            .variants
            .0
            .shelf(&Key::base(&format!("base-{number}")));
    }
    let shelves = &store.variants.0.shelves;
    assert!(shelves.len() <= MOST_SHELVES, "{}", shelves.len());
    assert!(shelves.contains_key(&Key::base(&format!("base-{}", MOST_SHELVES + 9))));
    assert!(!shelves.contains_key(&Key::base("base-0")), "the oldest");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_what_is_made_once_or_hears_that_nothing_comes() {
    let location = TempDir::new().unwrap();
    let store = Arc::new(open(&location, 20, 1024));
    // A queue that those who wait go before.
    for number in 0..20 {
        store.variants.demand(&store.file(number), Coding::Br);
    }
    let waiting = (0..40).map(|at| {
        let store = store.clone();
        tokio::spawn(async move {
            let file = store.file(at % 20);
            let made = store.variants.get(&file, Coding::Gzip).await.unwrap();
            assert!(made.unwrap().length < file.length);
        })
    });
    for one in waiting.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    for number in 0..20 {
        assert!(store.ready(number, Coding::Gzip).is_some());
    }
    tokio::task::block_in_place(|| {
        (0..20).for_each(|number| drop(store.wanted(number, Coding::Br)));
    });
    assert_eq!(store.made(), 40);
    // While a base rests, and once the process ends, nothing comes.
    let file = store.file(0);
    store
        .variants
        .0
        .shelf(file.pack.base())
        .rest(Duration::from_secs(60));
    let none = store.variants.get(&file, Coding::Zstd).await.unwrap();
    assert!(none.is_none());
    assert!(
        store
            .variants
            .get(&file, Coding::Br)
            .await
            .unwrap()
            .is_some()
    );
    store.variants.end();
    let ended = store.variants.get(&file, Coding::Zstd).await;
    assert!(matches!(ended, Err(ImageError::Busy(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_when_the_process_ends() {
    let location = TempDir::new().unwrap();
    let store = Arc::new(open(&location, 1, 1024));
    let file = store.file(0);
    // Under way for ever: nobody works on it.
    let shelf = store.variants.0.shelf(file.pack.base());
    assert!(shelf.ask(Content::of(&file), Coding::Br, 10));
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .variants
                .get(&store.file(0), Coding::Br)
                .await
                .is_err()
        })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    store.variants.end();
    assert!(waiting.await.unwrap());
}
