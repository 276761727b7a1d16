//! Sources: when they are kept, and what they give way to.

use super::*;
use std::sync::mpsc;

fn keeping(bytes: usize) -> Tuning {
    Tuning {
        source_bytes: bytes as u64,
        ..quick()
    }
}

/// Seals the source of a base, if there is room for it.
fn keep(store: &Store, name: &str, length: usize) -> bool {
    let Some(mut reservation) = store.reserve_source(&base(name), length as u64) else {
        return false;
    };
    reservation.write_all(&pack(length, 3)).unwrap();
    drop(reservation.commit().unwrap());
    true
}

/// What is there: packs by name, sources with a star.
fn here(location: &TempDir) -> String {
    let names = names(own(location).join("packs"));
    let short = names.iter().map(|name| {
        let name = name.strip_suffix(".pack").unwrap();
        match name.strip_prefix("source-") {
            Some(base) => format!("{base}*"),
            None => name.to_owned(),
        }
    });
    let mut short: Vec<_> = short.collect();
    short.sort();
    short.join(" ")
}

#[test]
fn none_is_kept_unless_the_tuning_says_how_much() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    assert_eq!(store.source_bound(), 0);
    assert!(!keep(&store, "a", KIB));
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
}

#[test]
fn packs_go_before_sources_and_those_before_a_pack_that_is_read() {
    // Each step: what is written (a star: with a source of 128 KiB; packs are 256 KiB) or read; what is there then.
    let steps = [
        ("put a*", "a a*"),
        ("put b*", "a a* b b*"),
        // 256 KiB are free.
        ("put c", "a a* b b* c"),
        ("put d", "a* b b* c d"),
        ("put e", "a* b* c d e"),
        ("get c", "a* b* c d e"),
        ("put f", "a* b* c e f"),
        ("hold c", "a* b* c e f"),
        ("hold e", "a* b* c e f"),
        ("hold f", "a* b* c e f"),
        ("put g", "c e f g"),
    ];
    let mut held = Vec::new();
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(MIB));
    for (step, after) in steps {
        let (what, name) = step.split_once(' ').unwrap();
        let (name, starred) = match name.strip_suffix('*') {
            Some(name) => (name, true),
            None => (name, false),
        };
        match what {
            "put" => put(&store, &base(name), 256 * KIB),
            "get" => drop(store.get(&base(name)).unwrap()),
            _ => held.push(store.get(&base(name)).unwrap()),
        }
        assert!(!starred || keep(&store, name, 128 * KIB), "{step}");
        assert_eq!(here(&location), after, "{step}");
        let usage = settled(&store);
        assert!(usage.sealed_bytes + usage.leased_bytes <= MIB as u64);
        let sources = after.matches('*').count() * 128 * KIB;
        assert_eq!(usage.source_bytes, sources as u64, "{step}");
    }
}

#[test]
fn sources_take_no_more_than_they_may_and_the_oldest_makes_room_for_the_next() {
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(300 * KIB));
    for name in ["a", "b", "c"] {
        put(&store, &base(name), 64 * KIB);
    }
    assert!(keep(&store, "a", 128 * KIB) && keep(&store, "b", 128 * KIB));
    assert!(!keep(&store, "a", 128 * KIB), "it is here");
    assert!(
        !keep(&store, "c", 301 * KIB),
        "larger than all of them may be"
    );
    assert_eq!(here(&location), "a a* b b* c");
    // A use of the pack is one of its source.
    drop(store.get(&base("a")).unwrap());
    assert!(keep(&store, "c", 128 * KIB));
    assert_eq!(here(&location), "a a* b c c*");
}

#[test]
fn the_source_of_a_pinned_pack_is_the_first_to_go() {
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(MIB));
    put(&store, &base("old"), 128 * KIB);
    put(&store, &base("a"), 256 * KIB);
    assert!(keep(&store, "a", 256 * KIB));
    let pin = Pin {
        packs: vec![base("a")],
        records: vec![],
    };
    store.pin("p", pin).unwrap();
    put(&store, &base("b"), 512 * KIB);
    assert_eq!(here(&location), "a b old");
}

#[test]
fn a_source_evicts_what_is_idle_and_nothing_that_is_read() {
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(MIB));
    let read = write(&store, &base("a"), &pack(512 * KIB, 1)).unwrap();
    put(&store, &base("b"), 256 * KIB);
    put(&store, &base("c"), 128 * KIB);
    assert!(!keep(&store, "a", 600 * KIB));
    assert_eq!(here(&location), "a b c", "nothing goes for nothing");
    assert!(keep(&store, "a", 256 * KIB));
    assert_eq!(here(&location), "a a* c");
    assert!(!read.evicted());
}

#[test]
fn bytes_that_do_not_come_cost_nobody_anything() {
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(512 * KIB));
    for name in ["a", "b"] {
        put(&store, &base(name), 256 * KIB);
        assert!(keep(&store, name, 256 * KIB));
    }
    // All that sources may take is promised, and one byte of it comes.
    let mut source = store.reserve_source(&base("c"), 512 * KIB as u64).unwrap();
    assert_eq!(here(&location), "a a* b b*");
    let bytes = pack(512 * KIB, 3);
    source.write_all(&bytes[..1]).unwrap();
    assert_eq!(here(&location), "a b b*", "no more than a step");
    assert!(store.reserve_source(&base("d"), 4096).is_none());
    source.write_all(&bytes[1..]).unwrap();
    drop(source.commit().unwrap());
    assert_eq!(here(&location), "a b c*");
}

#[test]
fn a_source_without_room_for_all_of_it_is_not_begun() {
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(512 * KIB));
    let read = write(&store, &base("a"), &pack(640 * KIB, 1)).unwrap();
    assert!(keep(&store, "a", 128 * KIB) && keep(&store, "b", 128 * KIB));
    // One of the others would have to go for its bound, both do not make room enough.
    assert!(store.reserve_source(&base("c"), 448 * KIB as u64).is_none());
    assert_eq!(here(&location), "a a* b*");
    assert!(!read.evicted());
}

#[test]
fn whoever_writes_a_source_gives_way_to_a_pack_at_once() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        space_wait: Duration::from_secs(20),
        ..keeping(MIB)
    };
    let store = open_with(&location, MIB, tuning);
    let lease = write(&store, &base("a"), &pack(512 * KIB, 1)).unwrap();
    // Older than the writer that needs its space.
    let mut source = store.reserve_source(&base("b"), 384 * KIB as u64).unwrap();
    source.write_all(&pack(384 * KIB, 3)).unwrap();
    let told = source.gives_way();
    let (end, ended) = mpsc::channel();
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            let written = write(&store, &base("b"), &pack(384 * KIB, 1));
            end.send(()).unwrap();
            written.map(drop)
        })
    };
    while !told.load(SeqCst) {
        std::thread::yield_now();
    }
    assert!(ended.try_recv().is_err(), "the bound is hard");
    drop(source);
    writer.join().unwrap().unwrap();
    assert!(!lease.evicted(), "a pack that is read stays");
    assert_eq!(here(&location), "a b");
}

#[test]
fn a_pack_that_has_no_room_beside_its_own_source_is_told_so_at_once() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        space_wait: Duration::from_secs(20),
        ..keeping(MIB)
    };
    let store = open_with(&location, MIB, tuning);
    let other = write(&store, &base("a"), &pack(256 * KIB, 1)).unwrap();
    assert!(keep(&store, "b", 512 * KIB));
    let source = store.get(&Key::source(&base("b"))).unwrap();
    let mut reservation = store.reserve(&base("b")).unwrap();
    reservation.made_of(&Key::source(&base("b")));
    let since = Instant::now();
    let error = reservation.write_all(&pack(512 * KIB, 1)).unwrap_err();
    assert!(
        matches!(BlobspaceError::of(&error), Some(BlobspaceError::Contended)),
        "{error}"
    );
    assert!(since.elapsed() < Duration::from_secs(10));
    assert!(source.evicted() && !other.evicted());
}

#[test]
fn the_source_of_a_pack_that_is_found_bad_stays() {
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(MIB));
    put(&store, &base("a"), 64 * KIB);
    assert!(keep(&store, "a", 64 * KIB));
    store.discard(&base("a"));
    assert_eq!(here(&location), "a*");
    let lease = store.get(&Key::source(&base("a"))).unwrap();
    assert_eq!(lease.bytes, pack(64 * KIB, 3));
    store.discard(&Key::source(&base("a")));
    assert_eq!(here(&location), "");
    assert!(lease.evicted());
    drop(lease);
    assert_eq!(settled(&store), Usage::default());
}

#[test]
fn a_restart_keeps_sources_as_far_as_they_may_be_kept() {
    for (may, left) in [
        (MIB, "a a* b b* c*"),
        (300 * KIB, "a b b* c*"),
        (200 * KIB, "a b c*"),
        (0, "a b"),
    ] {
        let location = TempDir::new().unwrap();
        let store = open_with(&location, MIB, keeping(MIB));
        for name in ["a", "b", "c"] {
            put(&store, &base(name), 64 * KIB);
            assert!(keep(&store, name, 128 * KIB));
        }
        store.discard(&base("c"));
        store.close();
        drop(store);
        let store = open_with(&location, MIB, keeping(may));
        let usage = settled(&store);
        assert_eq!(here(&location), left, "{may}");
        let sources = left.matches('*').count() * 128 * KIB;
        assert_eq!(usage.source_bytes, sources as u64, "{may}");
    }
}

#[test]
fn a_full_disk_costs_a_source_and_no_pack() {
    fn full_for_sources(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match bytes.contains(&3) {
            true => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            false => file.write_at(bytes, offset),
        }
    }
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        write_at: full_for_sources,
        ..keeping(MIB)
    };
    let store = open_with(&location, MIB, tuning);
    put(&store, &base("a"), 64 * KIB);
    let mut source = store.reserve_source(&base("b"), 64 * KIB as u64).unwrap();
    let error = source.write_all(&pack(64 * KIB, 3)).unwrap_err();
    let error = BlobspaceError::of(&error);
    assert!(matches!(error, Some(BlobspaceError::Full(_))), "{error:?}");
    drop(source);
    assert_eq!(here(&location), "a");
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
}

#[test]
fn a_source_that_outgrows_what_was_reserved_is_not_kept() {
    let location = TempDir::new().unwrap();
    let store = open_with(&location, MIB, keeping(MIB));
    let mut source = store.reserve_source(&base("a"), 8 * KIB as u64).unwrap();
    source.write_all(&pack(8 * KIB, 3)).unwrap();
    assert!(source.write_all(&[3]).is_err());
}
