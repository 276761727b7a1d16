//! Who goes, who waits, who gives way.

use super::*;

static ROOM: AtomicU64 = AtomicU64::new(u64::MAX);

/// A disk that is full while the packs are larger than `ROOM`, by what the test says.
fn write_on_full_disk(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    if ROOM.load(SeqCst) == 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    ROOM.fetch_sub(1, SeqCst);
    file.write_at(bytes, offset)
}

#[test]
fn the_least_recently_used_pack_goes_first() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    for name in ["a", "b", "c"] {
        put(&store, &base(name), 256 * KIB);
    }
    drop(store.get(&base("a")).unwrap());
    // A quarter is free; one pack more is enough, and no more go.
    put(&store, &base("d"), 512 * KIB);
    assert_eq!(
        names(own(&location).join("packs")),
        ["a.pack", "c.pack", "d.pack"]
    );
    assert!(store.get(&base("b")).is_none());
}

#[test]
fn a_side_pack_goes_before_its_base_and_with_it() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let side = Key::side(&base("a"), "x");
    put(&store, &base("a"), 256 * KIB);
    put(&store, &side, 256 * KIB);
    put(&store, &base("b"), 128 * KIB);
    // The side pack is older than b, and so is its base; the side pack alone is enough.
    put(&store, &base("c"), 512 * KIB);
    assert_eq!(
        names(own(&location).join("packs")),
        ["a.pack", "b.pack", "c.pack"]
    );
    put(&store, &side, 64 * KIB);
    store.discard(&base("a"));
    assert!(store.get(&side).is_none());
    assert_eq!(names(own(&location).join("packs")), ["b.pack", "c.pack"]);
    assert_eq!(settled(&store).leased_bytes, 0);
}

#[test]
fn a_leased_side_pack_keeps_its_base_while_another_pack_can_go() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let side = Key::side(&base("a"), "x");
    put(&store, &base("a"), 256 * KIB);
    let _lease = write(&store, &side, &pack(256 * KIB, 1)).unwrap();
    put(&store, &base("b"), 256 * KIB);
    put(&store, &base("c"), 512 * KIB);
    assert!(store.get(&base("a")).is_some() && store.get(&side).is_some());
}

#[test]
fn an_evicted_pack_stays_readable_and_counts_until_its_last_lease_ends() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let bytes = pack(768 * KIB, 9);
    let lease = write(&store, &base("a"), &bytes).unwrap();
    let weak = lease.downgrade();
    let clone = lease.clone();
    drop(lease);
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || write(&store, &base("b"), &pack(512 * KIB, 1)).map(drop))
    };
    while !clone.evicted() {
        std::thread::yield_now();
    }
    assert_eq!(store.usage().leased_bytes, 768 * KIB as u64);
    assert!(weak.upgrade().is_none() && store.get(&base("a")).is_none());
    assert_eq!(clone.bytes, bytes);
    drop(clone);
    writer.join().unwrap().unwrap();
    assert_eq!(settled(&store).leased_bytes, 0);
}

#[test]
fn a_writer_waits_for_readers_only_so_long() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let _lease = write(&store, &base("a"), &pack(768 * KIB, 9)).unwrap();
    let error = write(&store, &base("b"), &pack(512 * KIB, 1)).err();
    assert!(matches!(error, Some(BlobspaceError::Full(_))), "{error:?}");
    assert_eq!(store.usage().reserved_bytes, 0);
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
}

#[test]
fn a_pack_larger_than_the_bound_is_refused_and_one_as_large_fits() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let error = write(&store, &base("a"), &pack(MIB + 1, 1)).err();
    assert!(
        matches!(error, Some(BlobspaceError::LargerThanBound { bound }) if bound == MIB as u64),
        "{error:?}"
    );
    put(&store, &base("a"), MIB);
    let side = write(&store, &Key::side(&base("a"), "x"), &pack(10, 1)).err();
    assert!(
        matches!(side, Some(BlobspaceError::LargerThanBound { .. })),
        "a side pack cannot do without its base: {side:?}"
    );
    assert!(store.get(&base("a")).is_some());
}

#[test]
fn the_youngest_writer_gives_way_and_the_older_one_goes_on() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        space_wait: Duration::from_secs(20),
        ..quick()
    };
    let store = open_with(&location, MIB, tuning);
    let mut old = store.reserve(&base("old")).unwrap();
    let mut young = store.reserve(&base("young")).unwrap();
    old.write_all(&pack(256 * KIB, 1)).unwrap();
    young.write_all(&pack(512 * KIB, 1)).unwrap();
    // The youngest itself finds no room: it is told at once.
    let error = young.write_all(&pack(512 * KIB, 1)).unwrap_err();
    assert!(matches!(
        BlobspaceError::of(&error),
        Some(BlobspaceError::Contended)
    ));
    drop(young);
    let mut young = store.reserve(&base("young")).unwrap();
    young.write_all(&pack(512 * KIB, 1)).unwrap();
    let older = std::thread::spawn(move || {
        old.write_all(&[1; 640 * KIB]).unwrap();
        old.commit().map(|lease| lease.bytes.len()).unwrap()
    });
    let error = loop {
        // Writes nothing new: room is not what it lacks.
        let written = young.write(&[]);
        if let Err(error) = written {
            break error;
        }
        std::thread::yield_now();
    };
    assert!(matches!(
        BlobspaceError::of(&error),
        Some(BlobspaceError::Contended)
    ));
    drop(young);
    assert_eq!(older.join().unwrap(), 896 * KIB);
}

#[test]
fn a_base_stays_while_its_side_pack_is_written() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    put(&store, &base("a"), 512 * KIB);
    put(&store, &base("b"), 256 * KIB);
    put(&store, &Key::side(&base("a"), "x"), 384 * KIB);
    assert!(store.get(&base("a")).is_some() && store.get(&base("b")).is_none());
}

#[test]
fn a_full_disk_evicts_what_is_idle_and_is_an_error_when_nothing_is() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        write_at: write_on_full_disk,
        ..quick()
    };
    let store = open_with(&location, 0, tuning);
    put(&store, &base("idle"), 100);
    put(&store, &base("idle-too"), 100);
    let _lease = store.get(&base("idle")).unwrap();
    ROOM.store(0, SeqCst);
    let error = write(&store, &base("a"), &pack(10, 1)).err();
    let Some(BlobspaceError::Full(text)) = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("the disk is full"), "{text}");
    assert_eq!(names(own(&location).join("packs")), ["idle.pack"]);
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
    let error = store.put_record(RecordKind::Tag, "a", b"x").err();
    assert!(matches!(error, Some(BlobspaceError::Full(_))), "{error:?}");
    assert_eq!(store.usage().record_bytes, 0);
    ROOM.store(u64::MAX, SeqCst);
    put(&store, &base("a"), 100);
    assert_eq!(store.usage().packs, 2);
}

#[test]
fn a_writer_that_will_not_fit_is_refused_while_others_are_still_there() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    put(&store, &base("a"), 256 * KIB);
    put(&store, &base("b"), 256 * KIB);
    let mut reservation = store.reserve(&base("c")).unwrap();
    let ahead = Arc::new(AtomicU64::new(900 * KIB as u64));
    reservation.expect(ahead.clone());
    reservation.write_all(&pack(100 * KIB, 1)).unwrap();
    ahead.store(850 * KIB as u64, SeqCst);
    // 100 KiB were written, 100 are to be, and of what follows 850 are known.
    let error = reservation.write_all(&pack(100 * KIB, 1)).unwrap_err();
    let error = BlobspaceError::of(&error);
    assert!(
        matches!(error, Some(BlobspaceError::LargerThanBound { .. })),
        "{error:?}"
    );
    drop(reservation);
    assert_eq!(store.usage().evictions, 0);
}

#[test]
fn what_fits_beside_pins_is_known_before_anything_is_written() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    put(&store, &base("a"), 512 * KIB);
    put(&store, &base("b"), 256 * KIB);
    let (a, b, c) = (base("a"), base("b"), base("c"));
    let kib = |count: usize| (count * KIB) as u64;
    let check = |packs: &[&Key], more| {
        let mut packs: BTreeMap<Key, u64> = packs.iter().map(|key| ((*key).clone(), 1)).collect();
        packs.insert(base("more"), more);
        match store.check_room(&mut packs) {
            Ok(()) => "fits",
            Err(BlobspaceError::LargerThanBound { .. }) => "larger",
            Err(BlobspaceError::Pinned { .. }) => "pinned",
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(check(&[], kib(1024)), "fits");
    assert_eq!(check(&[], kib(1025)), "larger");
    assert_eq!(check(&[&a, &c], kib(511)), "fits", "c is not here");
    assert_eq!(check(&[&a, &a, &b], kib(260)), "larger");
    let pin = Pin {
        packs: vec![a.clone()],
        records: vec![],
    };
    store.pin("p", pin).unwrap();
    // The pin's own record takes a block.
    assert_eq!(check(&[&b], kib(252)), "fits");
    assert_eq!(check(&[&b], kib(256)), "pinned");
    assert_eq!(check(&[&a, &b], kib(252)), "fits", "pinned, and its own");
    store.unpin("p");
    assert_eq!(check(&[&b], kib(256)), "fits");
}

#[test]
fn what_is_being_written_counts_with_what_it_has_shown_to_need() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let kib = |count: usize| (count * KIB) as u64;
    let (a, b) = (base("a"), base("b"));
    let mut packs = BTreeMap::from([(a.clone(), kib(100)), (b.clone(), kib(500))]);
    let mut pressure = store.pressure();
    let mut reservation = store.reserve(&a).unwrap();
    reservation.expect(Arc::new(AtomicU64::new(kib(300))));
    reservation.write_all(&pack(200 * KIB, 1)).unwrap();
    store.check_room(&mut packs).unwrap();
    assert_eq!(packs[&a], kib(500));
    assert_eq!(packs[&b], kib(500));
    reservation.write_all(&pack(100 * KIB, 1)).unwrap();
    assert!(!pressure.has_changed().unwrap());
    let error = store.check_room(&mut packs).unwrap_err();
    assert!(
        matches!(error, BlobspaceError::LargerThanBound { .. }),
        "{error}"
    );
    // What it needed once it needs in the next attempt.
    drop(reservation);
    store.check_room(&mut packs).unwrap_err();
    put(&store, &b, 512 * KIB);
    let mut reservation = store.reserve(&a).unwrap();
    reservation.write_all(&pack(600 * KIB, 1)).unwrap();
    assert!(pressure.has_changed().unwrap());
    pressure.mark_unchanged();
    assert_eq!(packs[&a], kib(600));
}

#[test]
fn what_is_reserved_is_allocated_where_the_file_system_would_allocate_more() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        allocate: |_| true,
        ..Tuning::default()
    };
    let store = open_with(&location, 64 * MIB, tuning);
    let on_disk = |directory: &str| {
        let files = fs::read_dir(own(&location).join(directory)).unwrap();
        let found = files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512);
        found.sum::<u64>()
    };
    let bytes = pack(3 * MIB, 1);
    let mut reservation = store.reserve(&base("a")).unwrap();
    for piece in bytes.chunks(100_000) {
        reservation.write_all(piece).unwrap();
        // ext4 adds blocks for its own list of a file's parts.
        let beyond = on_disk("tmp").checked_sub(store.usage().reserved_bytes);
        assert!(beyond.is_some_and(|bytes| bytes <= 16 << 10), "{beyond:?}");
    }
    assert!(store.usage().reserved_bytes > bytes.len() as u64);
    let lease = reservation.commit().unwrap();
    let beyond = on_disk("packs") - disk::blocks(bytes.len() as u64);
    assert!(beyond <= 16 << 10, "{beyond} bytes are still allocated");
    assert_eq!(store.usage().sealed_bytes, on_disk("packs"));
    drop(lease);
}
