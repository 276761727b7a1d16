use super::*;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;
use tempfile::TempDir;

const MARKER: &[u8] = b"PACK";
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A file that begins with a marker.
#[derive(Debug)]
struct Marked {
    bytes: Vec<u8>,
}

static OPENED: AtomicUsize = AtomicUsize::new(0);

impl Content for Marked {
    fn open(mut file: File) -> Result<Marked, String> {
        OPENED.fetch_add(1, SeqCst);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if !bytes.starts_with(MARKER) {
            return Err("no marker".into());
        }
        Ok(Marked { bytes })
    }
}

type Store = Arc<Blobspace<Marked>>;

fn quick() -> Tuning {
    Tuning {
        lock_wait: Duration::from_millis(100),
        space_wait: Duration::from_millis(300),
        ..Tuning::default()
    }
}

fn open(location: &TempDir, bound: usize) -> Store {
    open_with(location, bound, quick())
}

fn open_with(location: &TempDir, bound: usize, tuning: Tuning) -> Store {
    Blobspace::open_tuned(location.path(), bound as u64, tuning).unwrap()
}

fn pack(length: usize, fill: u8) -> Vec<u8> {
    let mut bytes = MARKER.to_vec();
    bytes.resize(length, fill);
    bytes
}

fn write(store: &Store, key: &Key, bytes: &[u8]) -> Result<Lease<Marked>, BlobspaceError> {
    let mut reservation = store.reserve(key)?;
    for chunk in bytes.chunks(32 * KIB) {
        reservation
            .write_all(chunk)
            .map_err(|e| BlobspaceError::of(&e).unwrap().clone())?;
    }
    reservation.commit()
}

/// Seals a pack that nobody leases.
fn put(store: &Store, key: &Key, length: usize) {
    write(store, key, &pack(length, 7)).unwrap();
}

fn own(location: &TempDir) -> PathBuf {
    location.path().join("blobserve-v1")
}

fn names(directory: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Usage once the background thread has let go of what it was syncing when that was evicted.
fn settled(store: &Store) -> Usage {
    let since = Instant::now();
    loop {
        let usage = store.usage();
        if usage.leased_bytes == 0 || since.elapsed() > Duration::from_secs(5) {
            return usage;
        }
        std::thread::yield_now();
    }
}

fn base(name: &str) -> Key {
    Key::base(name)
}

#[test]
fn a_committed_pack_is_read_back_exactly_also_after_a_restart() {
    let location = TempDir::new().unwrap();
    let bytes = pack(100_001, 3);
    let store = open(&location, MIB);
    assert!(store.get(&base("a")).is_none());
    assert_eq!(write(&store, &base("a"), &bytes).unwrap().bytes, bytes);
    assert_eq!(store.get(&base("a")).unwrap().bytes, bytes);
    let usage = store.usage();
    assert_eq!((usage.packs, usage.sealed_bytes), (1, 102_400));
    assert_eq!((usage.reserved_bytes, usage.leased_bytes), (0, 0));
    drop(store);
    let store = open(&location, MIB);
    assert_eq!(store.get(&base("a")).unwrap().bytes, bytes);
    assert_eq!(store.usage().sealed_bytes, 102_400);
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
    assert_eq!(fs::metadata(own(&location)).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_second_store_on_the_same_location_says_who_holds_the_lock() {
    let location = TempDir::new().unwrap();
    let _first = open(&location, MIB);
    let error = Blobspace::<Marked>::open_tuned(location.path(), 0, quick())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("blobserve-v1/lock"), "{error}");
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
}

#[test]
fn a_link_or_a_file_in_place_of_the_directory_is_refused() {
    for make in [
        (|path| std::os::unix::fs::symlink("/tmp", path)) as fn(&Path) -> io::Result<()>,
        |path| fs::write(path, b""),
    ] {
        let location = TempDir::new().unwrap();
        make(&own(&location)).unwrap();
        let error = Blobspace::<Marked>::open_tuned(location.path(), 0, quick());
        let error = error.err().unwrap().to_string();
        assert!(error.contains("is not a directory"), "{error}");
    }
}

#[test]
fn what_lies_beside_our_directory_stays_and_what_strayed_into_it_goes() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    put(&store, &base("a"), 10);
    put(&store, &Key::side(&base("a"), "br"), 10);
    drop(store);
    let root = own(&location);
    fs::write(location.path().join("theirs"), b"x").unwrap();
    fs::write(root.join("tmp/5"), b"x").unwrap();
    fs::create_dir_all(root.join("tmp/d/e")).unwrap();
    fs::write(root.join("odd"), b"x").unwrap();
    fs::write(root.join("packs/UPPER.pack"), b"x").unwrap();
    fs::create_dir(root.join("packs/b.pack")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("packs/c.pack")).unwrap();
    fs::write(root.join("packs/gone+br.pack"), b"PACK").unwrap();
    fs::write(root.join("records/tags/a b"), b"x").unwrap();
    let store = open(&location, MIB);
    assert_eq!(store.usage().packs, 2);
    assert_eq!(names(root.join("packs")), ["a+br.pack", "a.pack"]);
    assert_eq!(names(root.join("tmp")), [""; 0]);
    assert_eq!(names(root.join("records/tags")), [""; 0]);
    assert_eq!(names(root), ["boot-id", "lock", "packs", "records", "tmp"]);
    assert!(location.path().join("theirs").exists());
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
        match young.write(&[]) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(matches!(
        BlobspaceError::of(&error),
        Some(BlobspaceError::Contended)
    ));
    drop(young);
    assert_eq!(older.join().unwrap(), 896 * KIB);
}

#[test]
fn a_reservation_that_is_dropped_leaves_nothing_even_by_panic() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let mut reservation = store.reserve(&base("a")).unwrap();
    reservation.write_all(&pack(100 * KIB, 1)).unwrap();
    assert!(store.usage().reserved_bytes >= 100 * KIB as u64);
    drop(reservation);
    let panicking = store.clone();
    let thread = std::thread::spawn(move || {
        let mut reservation = panicking.reserve(&base("a")).unwrap();
        reservation.write_all(&pack(100 * KIB, 1)).unwrap();
        std::panic::resume_unwind(Box::new("while writing"));
    });
    assert!(thread.join().is_err());
    assert_eq!(settled(&store), Usage::default());
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
}

#[test]
fn of_two_commits_for_one_key_the_first_stays() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let mut second = store.reserve(&base("a")).unwrap();
    second.write_all(&pack(1000, 2)).unwrap();
    let first = write(&store, &base("a"), &pack(1000, 1)).unwrap();
    assert_eq!(second.commit().unwrap().bytes, first.bytes);
    assert_eq!(store.usage().packs, 1);
    assert_eq!(store.usage().reserved_bytes, 0);
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
}

#[test]
fn a_side_pack_whose_base_is_gone_is_not_sealed() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let side = Key::side(&base("a"), "x");
    assert!(matches!(
        store.reserve(&side).err(),
        Some(BlobspaceError::Contended)
    ));
    put(&store, &base("a"), 100);
    let mut reservation = store.reserve(&side).unwrap();
    reservation.write_all(&pack(100, 1)).unwrap();
    store.discard(&base("a"));
    assert!(matches!(
        reservation.commit().err(),
        Some(BlobspaceError::Contended)
    ));
    assert_eq!(settled(&store), Usage::default());
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
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
fn a_file_that_cannot_be_used_is_removed_and_absent() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    assert!(matches!(
        write(&store, &base("a"), b"none").err(),
        Some(BlobspaceError::Io(_))
    ));
    drop(store);
    fs::write(own(&location).join("packs/a.pack"), b"none").unwrap();
    let store = open(&location, MIB);
    assert_eq!(store.usage().packs, 1);
    assert!(store.get(&base("a")).is_none());
    assert_eq!(settled(&store), Usage::default());
    assert_eq!(names(own(&location).join("packs")), [""; 0]);
}

#[test]
fn another_boot_drops_what_was_not_durable_and_keeps_the_rest() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    put(&store, &base("a"), 100);
    put(&store, &base("b"), 100);
    put(&store, &Key::side(&base("a"), "x"), 100);
    store.close();
    drop(store);
    let packs = own(&location).join("packs");
    for name in names(packs.clone()) {
        assert!(sync::is_durable(&packs.join(name)));
    }
    fs::set_permissions(packs.join("a.pack"), fs::Permissions::from_mode(0o600)).unwrap();
    // The same boot keeps it, and makes it durable.
    let store = open(&location, MIB);
    assert_eq!(store.usage().packs, 3);
    store.close();
    drop(store);
    assert!(sync::is_durable(&packs.join("a.pack")));
    fs::set_permissions(packs.join("a.pack"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(own(&location).join("boot-id"), b"another\n").unwrap();
    let store = open(&location, MIB);
    assert_eq!(names(packs), ["b.pack"]);
    assert_eq!(store.usage().packs, 1);
    assert_eq!(
        fs::read(own(&location).join("boot-id")).unwrap(),
        fs::read("/proc/sys/kernel/random/boot_id").unwrap()
    );
}

#[test]
fn the_order_of_use_outlives_a_restart_and_a_lower_bound_evicts_by_it() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    for name in ["a", "b", "c"] {
        put(&store, &base(name), 256 * KIB);
    }
    drop(store.get(&base("a")).unwrap());
    store.close();
    drop(store);
    let store = open(&location, 600 * KIB);
    assert_eq!(names(own(&location).join("packs")), ["a.pack", "c.pack"]);
    assert_eq!(store.usage().sealed_bytes, 512 * KIB as u64);
}

#[test]
fn mappings_over_the_cap_are_closed_and_opened_again_when_asked_for() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        open_mappings: 2,
        ..quick()
    };
    let store = open_with(&location, 0, tuning);
    let held = write(&store, &base("held"), &pack(10, 1)).unwrap();
    let held_weak = held.downgrade();
    let weak: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| {
            write(&store, &base(name), &pack(10, 1))
                .unwrap()
                .downgrade()
        })
        .collect();
    let open: Vec<bool> = weak.iter().map(|weak| weak.upgrade().is_some()).collect();
    assert_eq!(open, [false, false, true]);
    assert!(held_weak.upgrade().is_some());
    assert!(store.get(&base("a")).is_some());
    assert_eq!(store.usage().packs, 4);
}

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
    assert!(text.contains("the disk under") && text.contains("is full"));
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
fn a_start_opens_no_pack_however_many_there_are() {
    let location = TempDir::new().unwrap();
    let mut took = Vec::new();
    for count in [1, 1000] {
        drop(open(&location, 0));
        for number in 0..count {
            let path = own(&location).join(format!("packs/p{number}.pack"));
            fs::write(path, b"PACK").unwrap();
        }
        let mut times: Vec<Duration> = (0..5)
            .map(|_| {
                let since = Instant::now();
                let store = open(&location, 0);
                let took = since.elapsed();
                assert_eq!(store.usage().packs, count);
                took
            })
            .collect();
        times.sort();
        took.push(times[2]);
    }
    println!("open: {:?} with 1 pack, {:?} with 1,000", took[0], took[1]);
    let store = open(&location, 0);
    assert!(store.get(&base("p999")).is_some());
    assert_eq!(store.space.lock().mappings, 1);
}

#[test]
fn a_weak_lease_moves_the_last_use() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let weak = write(&store, &base("a"), &pack(400 * KIB, 1))
        .unwrap()
        .downgrade();
    put(&store, &base("b"), 400 * KIB);
    store.space.clock.advance();
    assert_eq!(weak.upgrade().unwrap().bytes.len(), 400 * KIB);
    put(&store, &base("c"), 400 * KIB);
    assert!(weak.upgrade().is_some() && store.get(&base("b")).is_none());
    let since = Instant::now();
    for _ in 0..100_000 {
        assert!(weak.upgrade().is_some());
    }
    println!("upgrade and drop: {:?}", since.elapsed() / 100_000);
}

#[test]
fn a_record_is_read_back_and_a_torn_or_rotten_one_is_absent_and_removed() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let path = own(&location).join("records/documents/sha256-ab");
    for damage in [
        (|_| Vec::new()) as fn(Vec<u8>) -> Vec<u8>,
        |bytes| bytes[..bytes.len() - 1].to_vec(),
        |mut bytes| {
            bytes[20] ^= 1;
            bytes
        },
    ] {
        store
            .put_record(RecordKind::Document, "sha256-ab", b"old")
            .unwrap();
        store
            .put_record(RecordKind::Document, "sha256-ab", b"value")
            .unwrap();
        assert_eq!(store.usage().record_bytes, 4096);
        let read = store.record(RecordKind::Document, "sha256-ab");
        assert_eq!(read.as_deref(), Some(&b"value"[..]));
        assert_eq!(store.record(RecordKind::Tag, "sha256-ab"), None);
        fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();
        assert_eq!(store.record(RecordKind::Document, "sha256-ab"), None);
        assert!(!path.exists());
        assert_eq!(store.usage().record_bytes, 0);
    }
    store.put_record(RecordKind::Tag, "t", b"1").unwrap();
    drop(store);
    let store = open(&location, MIB);
    assert_eq!(
        store.record(RecordKind::Tag, "t").as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(store.usage().record_bytes, 4096);
    store.remove_record(RecordKind::Tag, "t");
    assert_eq!(store.record(RecordKind::Tag, "t"), None);
    for wrong in ["", ".", "..", "a/b", "a b", &"x".repeat(129)] {
        assert!(
            store.put_record(RecordKind::Tag, wrong, b"").is_err(),
            "{wrong:?}"
        );
        assert_eq!(store.record(RecordKind::Tag, wrong), None);
    }
    assert_eq!(settled(&store), Usage::default());
}

#[test]
fn the_oldest_records_go_by_count_and_by_bytes_but_not_while_they_are_protected() {
    let unprotected = Tuning {
        records: 4,
        record_protection: Duration::ZERO,
        ..quick()
    };
    // A bound of 1 MiB leaves 128 KiB for records.
    for (tuning, value, kept) in [
        (unprotected.clone(), 10, 4),
        (
            Tuning {
                records: 100,
                ..unprotected.clone()
            },
            32 * KIB - 16,
            4,
        ),
    ] {
        let location = TempDir::new().unwrap();
        let store = open_with(&location, MIB, tuning);
        for number in 0..10 {
            let name = number.to_string();
            store
                .put_record(RecordKind::Document, &name, &vec![1; value])
                .unwrap();
            assert!(store.record(RecordKind::Document, "0").is_some());
        }
        let left = names(own(&location).join("records/documents"));
        assert_eq!(left.len(), kept, "{left:?}");
        assert_eq!((left[0].as_str(), left[kept - 1].as_str()), ("0", "9"));
    }
    let location = TempDir::new().unwrap();
    let protected = Tuning {
        record_protection: Duration::from_secs(120),
        ..unprotected
    };
    let store = open_with(&location, MIB, protected);
    let results: Vec<bool> = (0..6)
        .map(|n| {
            store
                .put_record(RecordKind::Tag, &n.to_string(), b"")
                .is_ok()
        })
        .collect();
    assert_eq!(results, [true, true, true, true, false, false]);
}

#[test]
fn records_and_packs_share_the_bound_and_idle_records_make_room() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        record_protection: Duration::ZERO,
        ..quick()
    };
    let store = open_with(&location, MIB, tuning);
    put(&store, &base("a"), MIB);
    store.put_record(RecordKind::Tag, "t", b"1").unwrap();
    assert!(
        store.get(&base("a")).is_none(),
        "a pack made room for a record"
    );
    put(&store, &base("a"), MIB);
    assert_eq!(
        store.usage().record_bytes,
        0,
        "a record made room for a pack"
    );
    let _lease = store.get(&base("a")).unwrap();
    let error = store.put_record(RecordKind::Tag, "t", b"1").err();
    assert!(matches!(error, Some(BlobspaceError::Full(_))), "{error:?}");
}
