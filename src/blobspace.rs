//! The size-bounded directory that holds packs and records. Does not know what a pack
//! contains: it is generic over what a sealed file opens as ([`Content`]).
//!
//! ```text
//! <location>/blobserve-v1/          ours, 0700, under an exclusive lock on `lock`
//!   lock                            holds the number of the process that has it
//!   control                         socket of the server that has the lock (see `control`); left behind by kill -9, replaced
//!   boot-id                         of the machine's boot that last wrote here
//!   packs/<key>.pack                sealed: complete and verified; 0400 once known to be durable, 0600 until then
//!   packs/source-<key>.pack         what that pack is made of, where sources are kept
//!   tmp/<number>                    being written; emptied at start
//!   records/<kind>/<name>           manifests, configurations, resolved tags, claims, origins, diff IDs, names of images, referrers, pins
//! ```
//!
//! What a caller may rely on: nothing partial is ever visible under a final name; the sum
//! of sealed, leased-though-evicted and reserved bytes never exceeds the bound; eviction
//! disturbs no reader; after kill -9 at any point `open` starts clean and reuses every sealed pack.
//!
//! Changes on disk, in the order in which they are made, so that any prefix of them is a state that `open` understands:
//!
//! - a pack: create `tmp/<number>` · write · rename to `packs/<key>.pack` · (in the background)
//!   fdatasync it · fsync `packs` · chmod 0400. Up to the rename it is swept with `tmp`;
//!   from then on it is whole for as long as this boot lasts, and after the chmod for good;
//! - an eviction: unlink the side packs · unlink the base. Bytes leave the sums after the kernel has freed them;
//! - a record: create `tmp/<number>` · write · rename. A checksum finds one that a power cut tore;
//! - a start: sweep `tmp` · if the boot is another one, unlink packs that are not 0400 · unlink side
//!   packs without base, and sources where none are kept · rename a new `boot-id` into place · (in the background)
//!   evict down to the bounds.
//!
//! kill -9 forgets which packs and records were used in the last minute, nothing else: the order of eviction is kept in
//! mtimes, written every 60 s and by [`Blobspace::close`].

mod disk;
mod key;
mod lease;
mod lock;
mod lru;
mod pins;
mod records;
mod recovery;
mod reservation;
mod room;
mod sources;
mod space;
mod sync;
#[cfg(test)]
mod tests;

pub use key::Key;
pub use lease::{Lease, WeakLease};
pub use pins::Pin;
pub use reservation::Reservation;

use space::{Space, Stop};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// What a sealed file opens as.
pub trait Content: Sized + Send + Sync + 'static {
    /// Opens a sealed file. An error means that the file is unusable: it is deleted and counts as absent.
    fn open(file: File) -> Result<Self, String>;
}

/// Why the blobspace cannot do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BlobspaceError {
    /// Larger than the whole bound: no eviction can help (507).
    #[error("needs more than maxSizeBytes, {bound} bytes")]
    LargerThanBound {
        /// The bound in bytes.
        bound: u64,
    },
    /// What is pinned leaves less than is needed, and is never evicted (507).
    #[error(
        "pinned images hold {pinned} of maxSizeBytes, {bound} bytes: unpin one (or `retain` fewer), or raise the bound"
    )]
    Pinned {
        /// Bytes of pinned packs.
        pinned: u64,
        /// The bound in bytes.
        bound: u64,
    },
    /// No space is left now, and older writers need what there is: drop the reservation, start again later.
    #[error("no space is left while older downloads are being written")]
    Contended,
    /// All space is held by readers and writers, for longer than a writer waits; or the disk is full.
    #[error("no space is left: {0}")]
    Full(String),
    /// The directory could not be used; names the path, says what to do.
    #[error("{0}")]
    Io(String),
}

impl BlobspaceError {
    /// The error inside of what [`Reservation`]'s `Write` returned.
    pub fn of(error: &io::Error) -> Option<&BlobspaceError> {
        error.get_ref()?.downcast_ref()
    }
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> BlobspaceError {
    BlobspaceError::Io(format!("{what} {}: {error}", path.display()))
}

/// Waits and limits. The defaults are what BEHAVIOUR says; tests shorten them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How long `open` waits for the lock: 30 s.
    pub lock_wait: Duration,
    /// How long a writer waits for readers to let go of evicted packs: 30 s.
    pub space_wait: Duration,
    /// Most bytes of the bound that sources may take, see [`Blobspace::reserve_source`]: 0, none are kept.
    pub source_bytes: u64,
    /// How many packs stay open for the next reader: 1,024, well below the 65,530 mappings that
    /// Linux gives a process (`vm.max_map_count`). Leases keep more open if they must.
    pub open_mappings: usize,
    /// How many records are kept: 10,000.
    pub records: usize,
    /// How long its use protects a record from eviction: 120 s.
    pub record_protection: Duration,
    /// How often last uses are written to disk: 60 s.
    pub last_use_interval: Duration,
    /// Whether what a writer may take is allocated before it is written: where the file system would else allocate more.
    pub allocate: fn(&File) -> bool,
    /// Writes bytes at an offset: `pwrite`. Tests make it fail as a full disk does.
    pub write_at: fn(&File, &[u8], u64) -> io::Result<usize>,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            lock_wait: Duration::from_secs(30),
            space_wait: Duration::from_secs(30),
            source_bytes: 0,
            open_mappings: 1024,
            records: 10_000,
            record_protection: Duration::from_secs(120),
            last_use_interval: Duration::from_secs(60),
            allocate: disk::allocates_ahead,
            write_at: |file, bytes, offset| file.write_at(bytes, offset),
        }
    }
}

/// The store. Share it by `Arc`. Dropped without [`Blobspace::close`] it ends as by kill -9,
/// except that reservations that are still held keep the lock until they end.
pub struct Blobspace<C: Content> {
    space: Arc<Space<C>>,
    /// The background thread, until `close` or drop waits for it. Held while waiting, so that
    /// a second `close` returns when the first is done.
    background: Mutex<Option<JoinHandle<()>>>,
}

/// Kinds of records; each has a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Manifest, index or configuration bytes, by digest.
    Document,
    /// What a tag meant, and when.
    Tag,
    /// That a repository may use a layer.
    Claim,
    /// What the label of an origin stands for.
    Origin,
    /// Which layers have a diff ID.
    DiffId,
    /// Which image a reference means: the catalogue's.
    Name,
    /// What refers to a manifest, as its registry listed it last.
    Referrers,
    /// What is never evicted: see [`Blobspace::pin`].
    Pin,
}

impl RecordKind {
    const ALL: [RecordKind; 8] = [
        RecordKind::Document,
        RecordKind::Tag,
        RecordKind::Claim,
        RecordKind::Origin,
        RecordKind::DiffId,
        RecordKind::Name,
        RecordKind::Referrers,
        RecordKind::Pin,
    ];

    fn directory(self) -> &'static str {
        match self {
            RecordKind::Document => "documents",
            RecordKind::Tag => "tags",
            RecordKind::Claim => "claims",
            RecordKind::Origin => "origins",
            RecordKind::DiffId => "diff-ids",
            RecordKind::Name => "names",
            RecordKind::Referrers => "referrers",
            RecordKind::Pin => "pins",
        }
    }
}

/// A sealed pack, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackFacts {
    /// On disk, in whole blocks.
    pub bytes: u64,
    /// End of the last lease, or its last beginning where one lasts; microseconds since 1970.
    pub last_use: u64,
}

/// Sizes, for metrics and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sealed packs.
    pub packs: u64,
    /// Their bytes on disk.
    pub sealed_bytes: u64,
    /// The part of those that is sources.
    pub source_bytes: u64,
    /// Bytes of packs that are evicted and still leased.
    pub leased_bytes: u64,
    /// Bytes that writers have reserved.
    pub reserved_bytes: u64,
    /// Bytes of records.
    pub record_bytes: u64,
    /// Packs evicted to make room, since the start.
    pub evictions: u64,
}

impl<C: Content> Blobspace<C> {
    /// Takes the lock (waits 30 s), recovers, and starts the background work (sync, last-use times).
    /// Blocking. `max_size_bytes` 0: unbounded.
    pub fn open(location: &Path, max_size_bytes: u64) -> Result<Arc<Blobspace<C>>, BlobspaceError> {
        Blobspace::open_tuned(location, max_size_bytes, Tuning::default())
    }
    /// [`Blobspace::open`] with other waits and limits.
    pub fn open_tuned(
        location: &Path,
        max_size_bytes: u64,
        tuning: Tuning,
    ) -> Result<Arc<Blobspace<C>>, BlobspaceError> {
        let bound = match max_size_bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        let (root, lock) = lock::take(location, tuning.lock_wait)?;
        let space = Arc::new(Space::new(bound, tuning, disk::Disk::new(root)?, lock));
        recovery::recover(&space)?;
        let background = {
            let space = space.clone();
            std::thread::Builder::new()
                .name("blobspace".into())
                .spawn(move || sync::run(&space))
                .map_err(|e| io_error("cannot start a thread for", location, &e))?
        };
        Ok(Arc::new(Blobspace {
            space,
            background: Mutex::new(Some(background)),
        }))
    }
    /// Returns a lease on the sealed pack for this key, and moves its last use. Does not download;
    /// see [`crate::images`]. Opens the file if it is not open: some 20 µs.
    pub fn get(&self, key: &Key) -> Option<Lease<C>> {
        self.space.get(key)
    }
    /// The keys of a base's side packs, in order; nothing if the base is not there. Waits for the list
    /// of packs in the first milliseconds after a start.
    pub fn sides(&self, base: &Key) -> Vec<Key> {
        self.space.sides(base)
    }
    /// Starts a pack. Reservations are ordered by age: the youngest gives way. A side pack's base
    /// is not evicted while this lasts; if it is not there, the error is [`BlobspaceError::Contended`].
    pub fn reserve(self: &Arc<Self>, key: &Key) -> Result<Reservation<C>, BlobspaceError> {
        self.space.reserve(key)
    }
    /// Starts the source of a base pack: what that is made of, to be had again elsewhere, and kept only so that the
    /// pack can be made again without. `bytes` is an upper limit. None: so many are not to be had now, of free and idle
    /// space and within [`Tuning::source_bytes`], or it is here. They are taken as they are written, and waited for
    /// never: the error is [`BlobspaceError::Contended`] when there are none any more, or when a pack needs what was
    /// taken, see [`Reservation::gives_way`]. A source counts as used when its pack goes.
    pub fn reserve_source(self: &Arc<Self>, base: &Key, bytes: u64) -> Option<Reservation<C>> {
        self.space.reserve_source(base, bytes)
    }
    /// Most bytes that sources may take; 0: none are kept.
    pub fn source_bound(&self) -> u64 {
        self.space.tuning.source_bytes
    }
    /// Whether these packs can be here together, those that are not (yet, or any more) with so many bytes at least:
    /// asks nobody to go, reserves nothing. Raises those bytes to what their writers, if there are any, have shown to need.
    /// An error is for as long as no pin ends.
    pub fn check_room(&self, packs: &mut BTreeMap<Key, u64>) -> Result<(), BlobspaceError> {
        self.space.check_room(packs)
    }
    /// Changes each time a writer finds no room that is free: when to call [`Blobspace::check_room`] again.
    pub fn pressure(&self) -> watch::Receiver<()> {
        self.space.pressure.subscribe()
    }
    /// Removes a pack that was found bad (a page that cannot be read), with its side packs.
    /// No weak lease on it can be upgraded any more; its bytes count until the last lease ends.
    pub fn discard(&self, key: &Key) {
        self.space.remove(key, None);
    }
    /// Reads a record; its use protects it from eviction for 120 s. None if absent or unreadable.
    pub fn record(&self, kind: RecordKind, name: &str) -> Option<Vec<u8>> {
        self.space.record(kind, name)
    }
    /// Writes a record, atomically. LRU by count (10,000) and bytes (64 MiB, or an eighth of the
    /// bound if that is less). `name`: `[A-Za-z0-9._-]{1,128}`.
    pub fn put_record(
        &self,
        kind: RecordKind,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), BlobspaceError> {
        self.space.put_record(kind, name, bytes)
    }
    /// Removes a record, if it is there.
    pub fn remove_record(&self, kind: RecordKind, name: &str) {
        self.space.remove_record(kind, name);
    }
    /// Names of the records of a kind, sorted. No use of them.
    pub fn record_names(&self, kind: RecordKind) -> Vec<String> {
        self.space.record_names(kind)
    }
    /// [`Blobspace::record`] that is no use of the record, and removes nothing.
    pub fn peek_record(&self, kind: RecordKind, name: &str) -> Option<Vec<u8>> {
        self.space.peek_record(kind, name)
    }
    /// Last use of a record, microseconds since 1970. No use of it. None: there is none of that name.
    pub fn record_use(&self, kind: RecordKind, name: &str) -> Option<u64> {
        self.space.record_use(kind, name)
    }
    /// The record was used at that time (microseconds since 1970); its last use never moves back.
    pub fn touch_record(&self, kind: RecordKind, name: &str, at: u64) {
        self.space.touch_record(kind, name, at);
    }
    /// What is known of a sealed pack without opening it. No use of it.
    pub fn facts(&self, key: &Key) -> Option<PackFacts> {
        self.space.facts(key)
    }
    /// Keeps packs and records from eviction, over restarts, until [`Blobspace::unpin`] of the same name
    /// (a record's name). Replaces what the name kept before. They count in the bound.
    pub fn pin(&self, name: &str, pin: Pin) -> Result<(), BlobspaceError> {
        self.space.pin(name, pin)
    }
    /// Ends a pin, if there is one of that name.
    pub fn unpin(&self, name: &str) {
        self.space.unpin(name);
    }
    /// Whether there is a pin of that name.
    pub fn is_pinned(&self, name: &str) -> bool {
        self.space.is_pinned(name)
    }
    /// The directory that is ours.
    pub fn root(&self) -> &Path {
        &self.space.disk.root
    }
    /// Most bytes that may be in use.
    pub fn bound(&self) -> u64 {
        self.space.bound
    }
    /// What is in use now.
    pub fn usage(&self) -> Usage {
        self.space.usage()
    }
    /// Ends background work: syncs what is not durable, writes last-use times. Blocking.
    pub fn close(&self) {
        self.stop(Stop::Flushed);
    }

    fn stop(&self, how: Stop) {
        let mut background = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = background.take() {
            self.space.lock().stop = how;
            self.space.work.notify_all();
            // It does not panic; and if it did, there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl<C: Content> Drop for Blobspace<C> {
    fn drop(&mut self) {
        self.stop(Stop::Now);
    }
}
