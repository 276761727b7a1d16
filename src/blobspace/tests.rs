mod records;
mod room;
mod sources;
mod start;

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

#[test]
fn directories_that_are_removed_meanwhile_are_made_again() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    for removed in ["packs", "tmp", "records", "records/tags"] {
        put(&store, &base(removed.rsplit('/').next().unwrap()), 10 * KIB);
        store.put_record(RecordKind::Tag, "old", b"1").unwrap();
        fs::remove_dir_all(own(&location).join(removed)).unwrap();
        let lease = write(
            &store,
            &base(&format!("after-{}", removed.len())),
            &pack(10, 1),
        );
        assert_eq!(lease.unwrap().bytes.len(), 10, "{removed}");
        store.put_record(RecordKind::Tag, "new", b"2").unwrap();
        let found = store.record(RecordKind::Tag, "new");
        assert_eq!(found.as_deref(), Some(&b"2"[..]), "{removed}");
    }
    // A file that is being written is lost with its directory; another attempt makes another.
    let mut reservation = store.reserve(&base("torn")).unwrap();
    reservation.write_all(&pack(10, 1)).unwrap();
    fs::remove_dir_all(own(&location).join("tmp")).unwrap();
    assert!(matches!(
        reservation.commit(),
        Err(BlobspaceError::Contended)
    ));
    write(&store, &base("torn"), &pack(10, 1)).unwrap();
    // Not what holds the lock.
    fs::remove_dir_all(own(&location)).unwrap();
    assert!(matches!(
        store.reserve(&base("x")),
        Err(BlobspaceError::Io(_))
    ));
    assert!(!own(&location).exists());
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
