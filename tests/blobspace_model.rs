//! The blobspace against a plain map: random operations with restarts, many writers at
//! once, and kill -9 of a process at random moments. Seeds are printed; `BLOBSERVE_SEED` repeats one.

#![allow(clippy::unwrap_used)]

use blobserve::blobspace::{
    Blobspace, BlobspaceError, Content, Key, Lease, Pin, RecordKind, Reservation, Tuning, WeakLease,
};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// What sources may take.
const SOURCES: u64 = 512 << 10;

/// Bytes that say themselves whether they are whole: their seed and length, then what the seed makes.
struct Made {
    bytes: Vec<u8>,
    _file: File,
}

fn make(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = seed.to_le_bytes().to_vec();
    bytes.extend((length as u64).to_le_bytes());
    let mut random = fastrand::Rng::with_seed(seed);
    while bytes.len() < length {
        bytes.extend(random.u64(..).to_le_bytes());
    }
    bytes.truncate(length.max(16));
    bytes
}

impl Content for Made {
    fn open(mut file: File) -> Result<Made, String> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        let word = |at: usize| {
            bytes
                .get(at..at + 8)?
                .try_into()
                .ok()
                .map(u64::from_le_bytes)
        };
        match (word(0), word(8)) {
            (Some(seed), Some(length)) if make(seed, length as usize) == bytes => {
                Ok(Made { bytes, _file: file })
            }
            _ => Err("torn".into()),
        }
    }
}

type Store = Arc<Blobspace<Made>>;

fn seed() -> u64 {
    let given = std::env::var("BLOBSERVE_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    println!("BLOBSERVE_SEED={seed}");
    seed
}

fn open(location: &Path, bound: u64, space_wait: u64) -> Store {
    let tuning = Tuning {
        space_wait: Duration::from_millis(space_wait),
        source_bytes: SOURCES,
        record_protection: Duration::ZERO,
        open_mappings: 8,
        records: 20,
        ..Tuning::default()
    };
    Blobspace::open_tuned(location, bound, tuning).unwrap()
}

/// Writes a source in the background, as a tee does: gives way as soon as it is told. None: it is not kept.
fn write_source(
    mut reservation: Reservation<Made>,
    bytes: &[u8],
    pause: Duration,
) -> Option<Lease<Made>> {
    let told = reservation.gives_way();
    for chunk in bytes.chunks(16 << 10) {
        std::thread::sleep(pause);
        if told.load(Relaxed) {
            return None;
        }
        reservation.write_all(chunk).ok()?;
    }
    reservation.commit().ok()
}

fn write(mut reservation: Reservation<Made>, bytes: &[u8]) -> Result<Lease<Made>, BlobspaceError> {
    for chunk in bytes.chunks(16 << 10) {
        reservation
            .write_all(chunk)
            .map_err(|e| BlobspaceError::of(&e).unwrap().clone())?;
    }
    reservation.commit()
}

/// Each file under our directory: inode and birth, so that a file keeps its identity over a
/// rename and a reused inode does not, and bytes by what the file system says.
fn files(location: &Path) -> HashMap<(u64, Option<SystemTime>), u64> {
    let mut files = HashMap::new();
    let root = location.join("blobserve-v1");
    let mut directories = ["packs", "tmp", "records"]
        .map(|name| root.join(name))
        .to_vec();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => directories.push(entry.path()),
                Ok(found) => {
                    files.insert((found.ino(), found.created().ok()), found.blocks() * 512);
                }
                // It vanished meanwhile.
                Err(_) => {}
            }
        }
    }
    files
}

/// Bytes on disk at one moment, at least. A walk is no snapshot: what it saw first may have made room for
/// what it saw last. But what two walks saw was there between them, and files only grow.
fn on_disk(location: &Path) -> u64 {
    let (first, second) = (files(location), files(location));
    let both = first
        .iter()
        .filter_map(|(file, bytes)| Some(*bytes.min(second.get(file)?)));
    both.sum()
}

fn count(location: &Path, directory: &str) -> usize {
    let path = location.join("blobserve-v1").join(directory);
    fs::read_dir(path).unwrap().count()
}

struct Model {
    store: Store,
    location: TempDir,
    bound: u64,
    random: fastrand::Rng,
    /// What was committed last under each key; the store may have evicted it.
    committed: BTreeMap<Key, Vec<u8>>,
    records: HashMap<String, Vec<u8>>,
    leases: Vec<(Key, Vec<u8>, Lease<Made>)>,
    weak: Vec<(Key, Vec<u8>, WeakLease<Made>)>,
    /// By the pin's name.
    pins: BTreeMap<String, Key>,
}

impl Model {
    fn key(&mut self) -> Key {
        let base = Key::base(&format!("k{}", self.random.u8(..12)));
        match self.random.u8(..4) {
            1 => Key::source(&base),
            0 => Key::side(&base, &format!("s{}", self.random.u8(..2))),
            _ => base,
        }
    }
    fn commit(&mut self) {
        let key = self.key();
        if key.is_source() {
            return self.keep();
        }
        let bytes = make(self.random.u64(..), self.random.usize(16..300 << 10));
        let present = self.store.get(&key).map(|lease| lease.bytes.clone());
        let Ok(reservation) = self.store.reserve(&key) else {
            let base = key.base_key().expect("only a side pack is refused early");
            assert!(self.store.get(&base).is_none());
            return;
        };
        if self.random.u8(..8) == 0 {
            return drop(reservation);
        }
        match write(reservation, &bytes) {
            Ok(lease) => {
                // Room may have been made by evicting what was present.
                let kept = present.as_ref() == Some(&lease.bytes);
                assert!(kept || lease.bytes == bytes, "{key:?}");
                self.committed.insert(key.clone(), lease.bytes.clone());
                self.hold(key, lease);
            }
            Err(BlobspaceError::Full(_)) => {
                assert!(!self.leases.is_empty(), "full of nothing");
            }
            Err(BlobspaceError::Pinned { pinned, bound }) => {
                assert_eq!((pinned, bound), (self.pinned(), self.bound));
                assert!(pinned > 0 && pinned + (300 << 10) + (64 << 10) > bound);
            }
            Err(error) => panic!("{key:?}: {error}"),
        }
    }
    fn keep(&mut self) {
        let base = Key::base(&format!("k{}", self.random.u8(..12)));
        let (key, is_here) = (Key::source(&base), self.store.facts(&Key::source(&base)));
        let bytes = make(self.random.u64(..), self.random.usize(16..200 << 10));
        let leased: Vec<bool> = self.leases.iter().map(|(.., it)| it.evicted()).collect();
        let reservation = self.store.reserve_source(&base, bytes.len() as u64);
        assert!(reservation.is_none() || is_here.is_none());
        let after: Vec<bool> = self.leases.iter().map(|(.., it)| it.evicted()).collect();
        assert_eq!(leased, after, "what is read stays");
        let Some(reservation) = reservation else {
            return;
        };
        // Nobody else needs the space meanwhile.
        let lease = write_source(reservation, &bytes, Duration::ZERO).unwrap();
        assert_eq!(lease.bytes, bytes);
        self.committed.insert(key.clone(), bytes);
        self.hold(key, lease);
    }
    fn hold(&mut self, key: Key, lease: Lease<Made>) {
        let bytes = lease.bytes.clone();
        match self.random.u8(..4) {
            0 => self.leases.push((key, bytes, lease)),
            1 => self.weak.push((key, bytes, lease.downgrade())),
            _ => {}
        }
    }
    fn step(&mut self) {
        match self.random.u8(..100) {
            0..=39 => self.commit(),
            40..=59 => {
                let key = self.key();
                if let Some(lease) = self.store.get(&key) {
                    assert_eq!(Some(&lease.bytes), self.committed.get(&key), "{key:?}");
                    self.hold(key, lease);
                }
            }
            60..=74 => {
                let keep = self.random.usize(..=self.leases.len());
                self.leases.truncate(keep);
            }
            75..=79 => {
                let key = self.key();
                self.store.discard(&key);
                assert!(self.store.get(&key).is_none());
                self.committed
                    .retain(|other, _| *other != key && other.base_key().as_ref() != Some(&key));
            }
            80..=87 => {
                let name = self.random.u8(..40).to_string();
                let value = make(1, self.random.usize(16..8 << 10));
                if self
                    .store
                    .put_record(RecordKind::Tag, &name, &value)
                    .is_ok()
                {
                    self.records.insert(name, value);
                }
            }
            88..=93 => {
                let name = self.random.u8(..40).to_string();
                if let Some(value) = self.store.record(RecordKind::Tag, &name) {
                    assert_eq!(Some(&value), self.records.get(&name), "{name}");
                }
            }
            94..=95 => {
                let name = self.random.u8(..40).to_string();
                self.store.remove_record(RecordKind::Tag, &name);
                assert_eq!(self.store.record(RecordKind::Tag, &name), None);
                self.records.remove(&name);
            }
            96 => self.restart(),
            98 => {
                let name = format!("p{}", self.random.u8(..4));
                let key = Key::base(&format!("k{}", self.random.u8(..12)));
                let pin = Pin {
                    packs: vec![key.clone()],
                    records: vec![],
                };
                if self.store.pin(&name, pin).is_ok() {
                    self.pins.insert(name, key);
                }
            }
            99 => self.unpin(),
            _ => self.weak.truncate(3),
        }
    }
    fn unpin(&mut self) {
        if let Some((name, _)) = self.pins.pop_first() {
            self.store.unpin(&name);
        }
    }
    /// Pinned packs that are here.
    fn kept(&self) -> BTreeMap<Key, u64> {
        let pinned = self.pins.values();
        let here = pinned.filter_map(|key| Some((key.clone(), self.store.facts(key)?.bytes)));
        here.collect()
    }
    fn pinned(&self) -> u64 {
        self.kept().values().sum()
    }
    /// A step that evicts no pinned pack. One may be discarded as bad.
    fn step_keeping_pins(&mut self) {
        let before = self.kept();
        let committed: Vec<Key> = self.committed.keys().cloned().collect();
        self.step();
        let after = self.kept();
        for key in before.keys() {
            let discarded = committed.contains(key) && !self.committed.contains_key(key);
            let unpinned = !self.pins.values().any(|pinned| pinned == key);
            let kept = after.contains_key(key);
            assert!(kept || discarded || unpinned, "{key:?} was evicted, pinned");
        }
    }
    /// With a clean end or without one; leases of the old store go on being readable.
    fn restart(&mut self) {
        self.bound = self.random.u64(1..4) * MIB;
        // A bound that is lowered below what is pinned is exceeded: no step of this test.
        while self.pinned() > self.bound / 2 {
            self.unpin();
        }
        let before = self.store.usage();
        if self.random.bool() {
            self.store.close();
        }
        let elsewhere = TempDir::new().unwrap();
        self.store = open(elsewhere.path(), 0, 0);
        self.store = open(self.location.path(), self.bound, 100);
        let after = self.store.usage();
        if before.sealed_bytes + before.record_bytes <= self.bound {
            assert_eq!(before.packs, after.packs, "every sealed pack is reused");
            // Records have an eighth of the bound, which may be lower now than what they came to.
            if before.record_bytes <= self.bound / 8 {
                assert_eq!(before.record_bytes, after.record_bytes);
            } else {
                assert!(after.record_bytes <= self.bound / 8, "{after:?}");
            }
        }
        assert_eq!(after.leased_bytes + after.reserved_bytes, 0);
        // Their bytes were this store's business only as long as it lived.
        self.leases.clear();
    }
    fn check(&self) {
        let usage = self.store.usage();
        let counted = usage.sealed_bytes + usage.record_bytes + usage.reserved_bytes;
        assert!(counted + usage.leased_bytes <= self.bound, "{usage:?}");
        let sources = (self.committed.keys().filter(|key| key.is_source()))
            .filter_map(|key| Some(self.store.facts(key)?.bytes));
        assert_eq!(usage.source_bytes, sources.sum::<u64>());
        assert!(usage.source_bytes <= SOURCES, "{usage:?}");
        let mut zombies = HashMap::new();
        for (key, bytes, lease) in &self.leases {
            assert_eq!(&lease.bytes, bytes, "a lease of {key:?} changed");
            if lease.evicted() {
                let identity: *const Made = &**lease;
                zombies.insert(identity, lease.disk_bytes());
            }
        }
        // The background thread may be syncing what was just evicted: that ends by itself.
        let leased = zombies.values().sum::<u64>();
        for _ in 0..5000 {
            if self.store.usage().leased_bytes == leased {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.store.usage().leased_bytes, leased);
        let disk = on_disk(self.location.path());
        assert!(disk + usage.leased_bytes <= self.bound, "{disk}, {usage:?}");
        assert_eq!(usage.packs as usize, count(self.location.path(), "packs"));
        assert_eq!(count(self.location.path(), "tmp"), 0);
        for (key, bytes, weak) in &self.weak {
            if let Some(lease) = weak.upgrade() {
                assert_eq!(&lease.bytes, bytes, "{key:?}");
                assert!(!lease.evicted());
            }
        }
    }
}

#[test]
fn random_operations_agree_with_a_plain_map_and_keep_the_bound() {
    let seed = seed();
    let location = TempDir::new().unwrap();
    let mut model = Model {
        store: open(location.path(), 2 * MIB, 100),
        location,
        bound: 2 * MIB,
        random: fastrand::Rng::with_seed(seed),
        committed: BTreeMap::new(),
        records: HashMap::new(),
        leases: Vec::new(),
        weak: Vec::new(),
        pins: BTreeMap::new(),
    };
    for _ in 0..1500 {
        model.step_keeping_pins();
        model.check();
    }
}

#[test]
fn sixteen_writers_of_ten_times_the_bound_keep_it_and_all_get_through() {
    let seed = seed();
    let location = TempDir::new().unwrap();
    let bound = 4 * MIB;
    let store = open(location.path(), bound, 20_000);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !ended.load(Relaxed) {
                let disk = on_disk(location.path());
                assert!(disk <= bound, "{disk} bytes on disk");
                let usage = store.usage();
                let sum = usage.sealed_bytes + usage.leased_bytes + usage.reserved_bytes;
                assert!(sum + usage.record_bytes <= bound, "{usage:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let writers: Vec<_> = (0..16u64)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed ^ thread);
                    let mut contended = 0;
                    for number in 0..5 {
                        let key = Key::base(&format!("t{thread}-{number}"));
                        let bytes = make(random.u64(..), random.usize(256 << 10..768 << 10));
                        loop {
                            let source = store.reserve_source(&key, 100 << 10);
                            if let Some(source) = source {
                                let kept = make(number, 100 << 10);
                                let pause = Duration::from_millis(number);
                                scope.spawn(move || drop(write_source(source, &kept, pause)));
                            }
                            match store.reserve(&key).and_then(|r| write(r, &bytes)) {
                                Ok(lease) => {
                                    assert_eq!(lease.bytes, bytes);
                                    break;
                                }
                                Err(BlobspaceError::Contended) => {
                                    contended += 1;
                                    std::thread::sleep(Duration::from_millis(random.u64(1..20)));
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                    contended
                })
            })
            .collect();
        let contended: u32 = writers.into_iter().map(|w| w.join().unwrap()).sum();
        println!("{contended} times a writer gave way");
        ended.store(true, Relaxed);
        watcher.join().unwrap();
    });
    let usage = store.usage();
    assert_eq!(usage.reserved_bytes + usage.leased_bytes, 0);
    assert!(usage.source_bytes <= SOURCES, "{usage:?}");
    assert_eq!(count(location.path(), "tmp"), 0);
}

const CRASH_LOCATION: &str = "BLOBSERVE_TEST_CRASH_LOCATION";
const CRASH_BOUND: u64 = 2 * MIB;

/// Not a test of its own: what [`killed_at_random_moments_it_starts_clean`] starts and kills.
/// Writes packs and records, side packs and discards among them, until it is killed.
#[test]
fn crash_child() {
    let Ok(location) = std::env::var(CRASH_LOCATION) else {
        return;
    };
    let store = open(Path::new(&location), CRASH_BOUND, 5_000);
    println!("started");
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let store = &store;
            scope.spawn(move || {
                let mut random = fastrand::Rng::new();
                loop {
                    let base = Key::base(&format!("c{}-{thread}", random.u8(..20)));
                    let key = match random.u8(..4) {
                        0 => Key::side(&base, "x"),
                        _ => base,
                    };
                    let bytes = make(random.u64(..), random.usize(16..200 << 10));
                    if random.u8(..3) == 0 {
                        let source = (key.base_key().is_none())
                            .then(|| store.reserve_source(&key, bytes.len() as u64));
                        let source = source.flatten();
                        drop(source.and_then(|it| write_source(it, &bytes, Duration::ZERO)));
                    }
                    let _ = store.reserve(&key).and_then(|r| write(r, &bytes));
                    let name = random.u8(..60).to_string();
                    let value = make(random.u64(..), 500);
                    let _ = store.put_record(RecordKind::Document, &name, &value);
                    if random.u8(..10) == 0 {
                        store.discard(&key);
                    }
                }
            });
        }
    });
}

#[test]
fn killed_at_random_moments_it_starts_clean() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let location = TempDir::new().unwrap();
    let mut survivors = 0;
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_child", "--nocapture"])
            .env(CRASH_LOCATION, location.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut started = String::new();
        let mut out = child.stdout.take().unwrap();
        while !started.contains("started") {
            let mut some = [0; 256];
            let read = out.read(&mut some).unwrap();
            assert_ne!(read, 0, "the child ended by itself: {started}");
            started.push_str(&String::from_utf8_lossy(&some[..read]));
        }
        std::thread::sleep(Duration::from_micros(random.u64(..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();

        let packs = location.path().join("blobserve-v1/packs");
        let names: Vec<String> = fs::read_dir(&packs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let store = open(location.path(), CRASH_BOUND, 100);
        let usage = store.usage();
        assert_eq!(
            usage.packs as usize,
            names.len(),
            "round {round}: every sealed pack is reused"
        );
        assert_eq!(usage.reserved_bytes + usage.leased_bytes, 0);
        assert!(usage.sealed_bytes + usage.record_bytes <= CRASH_BOUND);
        assert_eq!(count(location.path(), "tmp"), 0);
        assert_eq!(
            on_disk(location.path()),
            usage.sealed_bytes + usage.record_bytes
        );
        for name in &names {
            let name = name.strip_suffix(".pack").unwrap();
            let key = match (name.split_once('+'), name.strip_prefix("source-")) {
                (Some((base, side)), _) => Key::side(&Key::base(base), side),
                (None, Some(base)) => Key::source(&Key::base(base)),
                (None, None) => Key::base(name),
            };
            // `Made` checks every byte.
            assert!(store.get(&key).is_some(), "round {round}: {name}");
        }
        for number in 0..60 {
            let name = number.to_string();
            let path = location
                .path()
                .join("blobserve-v1/records/documents")
                .join(&name);
            let value = store.record(RecordKind::Document, &name);
            assert_eq!(
                value.is_some(),
                path.exists(),
                "round {round}: record {name}"
            );
        }
        survivors += names.len();
    }
    assert!(survivors > 20, "the child had no time to write anything");
}
