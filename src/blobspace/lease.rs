//! Leases: who keeps a sealed pack's bytes on disk, and since when it was used.

use super::Content;
use super::key::Key;
use super::space::Space;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, never going back. Reading it is one load; the background thread
/// moves it every 100 ms, and so does every operation that takes the lock anyway.
#[derive(Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    /// The time, at most some 100 ms old.
    pub(super) fn coarse(&self) -> u64 {
        self.0.load(Relaxed)
    }
    /// Asks the system, and returns the time now.
    pub(super) fn advance(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_micros() as u64);
        self.0.fetch_max(now, Relaxed).max(now)
    }
}

/// A sealed pack's bytes. Held by the table, by every opened content and by whoever is
/// evicting it; when the last of them lets go of an evicted pack, the space is given back.
pub(super) struct Stored<C: Content> {
    /// On disk, in whole blocks; 0 until [`super::recovery::measure`] has looked. Set under the lock.
    pub(super) bytes: AtomicU64,
    /// Order of arrival; decides between equal last uses.
    pub(super) serial: u64,
    /// [`Clock`] time.
    pub(super) last_use: AtomicU64,
    /// The last use that the file's mtime holds.
    pub(super) written_last_use: AtomicU64,
    /// Unlinked. Set under the lock, never cleared.
    pub(super) evicted: AtomicBool,
    /// Evicted when nobody leased it: its bytes come back in a moment. Set under the lock.
    pub(super) falling: AtomicBool,
    pub(super) space: Weak<Space<C>>,
}

impl<C: Content> Stored<C> {
    pub(super) fn touch(&self, now: u64) {
        // A store to a line that other cores read costs more than a look at it.
        if self.last_use.load(Relaxed) < now {
            self.last_use.store(now, Relaxed);
        }
    }
}

impl<C: Content> Drop for Stored<C> {
    fn drop(&mut self) {
        if *self.evicted.get_mut()
            && let Some(space) = self.space.upgrade()
        {
            let bytes = *self.bytes.get_mut();
            let mut state = space.lock();
            state.evicted -= bytes;
            if *self.falling.get_mut() {
                state.falling -= bytes;
            }
            drop(state);
            space.freed.notify_all();
        }
    }
}

/// A pack's content, opened. Fields drop in this order: first the mapping, then the claim on the bytes.
pub(super) struct Opened<C: Content> {
    pub(super) content: C,
    /// The pack's own name, or for a side pack its base's.
    pub(super) base: Key,
    pub(super) stored: Arc<Stored<C>>,
    pub(super) clock: Arc<Clock>,
}

/// Keeps a sealed file open and readable, evicted or not; its bytes count until the last lease ends.
pub struct Lease<C: Content>(pub(super) Arc<Opened<C>>);
/// Remembers a pack without keeping it: `upgrade` gives a lease while the pack is not evicted, and moves its last use.
pub struct WeakLease<C: Content>(Weak<Opened<C>>);

impl<C: Content> Clone for Lease<C> {
    fn clone(&self) -> Self {
        Lease(self.0.clone())
    }
}
impl<C: Content> Drop for Lease<C> {
    /// The end of a lease is a use: one load and one store, at most, every 100 ms.
    fn drop(&mut self) {
        self.0.stored.touch(self.0.clock.coarse());
    }
}
impl<C: Content> std::ops::Deref for Lease<C> {
    type Target = C;
    fn deref(&self) -> &C {
        &self.0.content
    }
}
impl<C: Content> Clone for WeakLease<C> {
    fn clone(&self) -> Self {
        WeakLease(self.0.clone())
    }
}

impl<C: Content> Lease<C> {
    /// See [`WeakLease`].
    pub fn downgrade(&self) -> WeakLease<C> {
        WeakLease(Arc::downgrade(&self.0))
    }
    /// Tells the packs of this process apart: no other has it, not even the same one when it is fetched
    /// again after its eviction.
    pub fn number(&self) -> u64 {
        self.0.stored.serial
    }
    /// The pack's own key, or for a side pack its base's.
    pub fn base(&self) -> &Key {
        &self.0.base
    }
    /// True once the pack was evicted or discarded; the lease goes on being readable.
    pub fn evicted(&self) -> bool {
        self.0.stored.evicted.load(Relaxed)
    }
    /// Bytes on disk, in whole blocks. 0 in the first milliseconds after a start, before it is known.
    pub fn disk_bytes(&self) -> u64 {
        self.0.stored.bytes.load(Relaxed)
    }
}

impl<C: Content> WeakLease<C> {
    /// Cheap (two atomic operations); None once the pack is evicted or its mapping was closed to save
    /// mappings: ask [`super::Blobspace::get`] then.
    pub fn upgrade(&self) -> Option<Lease<C>> {
        let opened = self.0.upgrade()?;
        if opened.stored.evicted.load(Relaxed) {
            return None;
        }
        opened.stored.touch(opened.clock.coarse());
        Some(Lease(opened))
    }
}
