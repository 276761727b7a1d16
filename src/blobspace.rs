//! The size-bounded directory that holds packs and records. Does not know what a pack
//! contains: it is generic over what a sealed file opens as ([`Content`]).
//!
//! ```text
//! <location>/blobserve-v1/          ours, 0700, under an exclusive lock on `lock`
//!   lock
//!   boot-id                         of the machine's boot that last wrote here
//!   packs/<key>.pack                sealed: complete and verified; 0400 once known to be durable, 0600 until then
//!   tmp/<number>                    being written; emptied at start
//!   records/<kind>/<name>           manifests, configurations, resolved tags, claims
//! ```
//!
//! What a caller may rely on: nothing partial is ever visible under a final name; the sum
//! of sealed, leased-though-evicted and reserved bytes never exceeds the bound; eviction
//! disturbs no reader; after kill -9 at any point `open` starts clean and reuses every sealed pack.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::Arc;

/// What a sealed file opens as.
pub trait Content: Sized + Send + Sync + 'static {
    /// Opens a sealed file. An error means that the file is unusable: it is deleted and counts as absent.
    fn open(file: File) -> Result<Self, String>;
}

/// Names a pack: `[a-z0-9.-]+`, and for a side pack `<base>+[a-z0-9.-]+`.
/// A side pack is evicted before its base and never outlives it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(Arc<str>);

impl Key {
    /// A base pack's key. Panics on a name outside the grammar: keys are made by code, not by users.
    pub fn base(name: &str) -> Key {
        let _ = name;
        todo!()
    }
    /// A side pack's key.
    pub fn side(base: &Key, name: &str) -> Key {
        let _ = (base, name);
        todo!()
    }
    /// The key of the base pack, for a side pack.
    pub fn base_key(&self) -> Option<Key> {
        todo!()
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
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

/// The store. Share it by `Arc`.
pub struct Blobspace<C: Content>(PhantomData<C>);

/// Keeps a sealed file open and readable, evicted or not; its bytes count until the last lease ends.
pub struct Lease<C: Content>(Arc<C>);
/// Remembers a pack without keeping it: `upgrade` gives a lease while the pack is not evicted, and moves its last use.
pub struct WeakLease<C: Content>(PhantomData<C>);
/// Space, and a file under a temporary name. `Write` takes more space as it needs it (steps
/// of 16 MiB; a [`BlobspaceError`] is inside the io::Error). Dropped without `commit`, file and space are given back.
pub struct Reservation<C: Content>(PhantomData<C>);

impl<C: Content> Clone for Lease<C> {
    fn clone(&self) -> Self {
        Lease(self.0.clone())
    }
}
impl<C: Content> std::ops::Deref for Lease<C> {
    type Target = C;
    fn deref(&self) -> &C {
        &self.0
    }
}
impl<C: Content> Clone for WeakLease<C> {
    fn clone(&self) -> Self {
        WeakLease(PhantomData)
    }
}

impl<C: Content> Lease<C> {
    /// See [`WeakLease`].
    pub fn downgrade(&self) -> WeakLease<C> {
        todo!()
    }
}
impl<C: Content> WeakLease<C> {
    /// Cheap (two atomic operations); None once the pack is evicted or its mapping was closed to save
    /// mappings: ask [`Blobspace::get`] then.
    pub fn upgrade(&self) -> Option<Lease<C>> {
        todo!()
    }
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
}

/// Sizes, for metrics and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sealed packs.
    pub packs: u64,
    /// Their bytes on disk.
    pub sealed_bytes: u64,
    /// Bytes of packs that are evicted and still leased.
    pub leased_bytes: u64,
    /// Bytes that writers have reserved.
    pub reserved_bytes: u64,
    /// Bytes of records.
    pub record_bytes: u64,
}

impl<C: Content> Blobspace<C> {
    /// Takes the lock (waits 30 s), recovers, and starts the background work (sync, last-use times).
    /// Blocking. `max_size_bytes` 0: unbounded.
    pub fn open(
        location: &std::path::Path,
        max_size_bytes: u64,
    ) -> Result<Arc<Blobspace<C>>, BlobspaceError> {
        let _ = (location, max_size_bytes);
        todo!()
    }
    /// Returns a lease on the sealed pack for this key, and moves its last use. Does not download;
    /// see [`crate::images`]. Opens the file if it is not open: some 20 µs.
    pub fn get(&self, key: &Key) -> Option<Lease<C>> {
        let _ = key;
        todo!()
    }
    /// Starts a pack. Reservations are ordered by age: the youngest gives way.
    pub fn reserve(self: &Arc<Self>, key: &Key) -> Result<Reservation<C>, BlobspaceError> {
        let _ = key;
        todo!()
    }
    /// Removes a pack that was found bad (a page that cannot be read), with its side packs.
    pub fn discard(&self, key: &Key) {
        let _ = key;
        todo!()
    }
    /// Reads a record; its use protects it from eviction for 120 s. None if absent or unreadable.
    pub fn record(&self, kind: RecordKind, name: &str) -> Option<Vec<u8>> {
        let _ = (kind, name);
        todo!()
    }
    /// Writes a record, atomically. LRU by count (10,000) and bytes.
    pub fn put_record(
        &self,
        kind: RecordKind,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), BlobspaceError> {
        let _ = (kind, name, bytes);
        todo!()
    }
    /// Removes a record, if it is there.
    pub fn remove_record(&self, kind: RecordKind, name: &str) {
        let _ = (kind, name);
        todo!()
    }
    /// What is in use now.
    pub fn usage(&self) -> Usage {
        todo!()
    }
    /// Ends background work: syncs what is not durable, writes last-use times. Blocking.
    pub fn close(&self) {
        todo!()
    }
}

impl<C: Content> Write for Reservation<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = bytes;
        todo!()
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl<C: Content> Reservation<C> {
    /// Seals: rename, publish, evict down to the bound. The pack is complete and verified by the caller.
    pub fn commit(self) -> Result<Lease<C>, BlobspaceError> {
        todo!()
    }
}
