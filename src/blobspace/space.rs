//! The state of a blobspace: which packs there are, and whose every byte of the bound is.

use super::disk::{self, Disk};
use super::key::Key;
use super::lease::{Clock, Lease, Opened, Stored};
use super::pins::Pins;
use super::records::RecordIndex;
use super::{Content, PackFacts, Tuning, Usage};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;

/// How often [`Space::get`] starts over when the pack it opens is replaced meanwhile.
const GET_TRIES: usize = 4;

/// What the store, its reservations and its background thread share.
pub(super) struct Space<C: Content> {
    /// Bytes; `u64::MAX` for unbounded.
    pub(super) bound: u64,
    pub(super) tuning: Tuning,
    pub(super) disk: Disk,
    pub(super) clock: Arc<Clock>,
    /// Protects the table, the sums, the writers and the record index; and is held while a name
    /// is given or taken (one rename or unlink), so that disk and table agree on names. Never
    /// held while bytes are read, written, synced or freed, nor while content is opened. No
    /// `Arc` of an `Opened` or `Stored` may be dropped while it is held: their end takes it.
    state: Mutex<State<C>>,
    /// Goes with `state`: space came back, a writer was told to give way, records are known.
    pub(super) freed: Condvar,
    /// Goes with `state`: there is something for the background thread to do.
    pub(super) work: Condvar,
    /// Changes when a writer finds no room that is free: see [`super::Blobspace::pressure`].
    pub(super) pressure: watch::Sender<()>,
    /// Released when the last of store, reservations and background thread is gone: nobody
    /// else empties `tmp` under a writer.
    _lock: File,
}

/// See [`Space::lock`].
pub(super) struct State<C: Content> {
    pub(super) table: BTreeMap<Key, Entry<C>>,
    /// Active reservations by age.
    pub(super) writers: BTreeMap<u64, Writer>,
    pub(super) records: RecordIndex,
    pub(super) pins: Pins,
    /// Bytes of the packs in `table`.
    pub(super) sealed: u64,
    /// The part of `sealed` that is sources.
    pub(super) sources: u64,
    /// Bytes of packs that are unlinked and not freed yet.
    pub(super) evicted: u64,
    /// The part of `evicted` that no lease holds back.
    pub(super) falling: u64,
    /// Bytes that `writers` hold.
    pub(super) reserved: u64,
    /// Entries of `table` that hold their content open.
    pub(super) mappings: usize,
    /// Packs evicted to make room, since the start.
    pub(super) evictions: u64,
    /// Sizes and last uses of the packs found at start are known. Before that nothing is evicted.
    pub(super) measured: bool,
    /// The packs on disk are in `table`.
    pub(super) found: bool,
    /// Sealed, and not known to be durable.
    pub(super) unsynced: Vec<Key>,
    pub(super) stop: Stop,
    next_serial: u64,
}

/// A sealed pack.
pub(super) struct Entry<C: Content> {
    pub(super) stored: Arc<Stored<C>>,
    /// Kept open for the next reader, under [`Tuning::open_mappings`].
    opened: Option<Arc<Opened<C>>>,
    /// Finds content that only leases keep open.
    weak: Weak<Opened<C>>,
    /// Could not be unlinked: no use trying to evict it again.
    pub(super) stuck: bool,
}

impl<C: Content> Entry<C> {
    pub(super) fn leased(&self) -> bool {
        self.weak.strong_count() > usize::from(self.opened.is_some())
    }
    fn live(&self) -> Option<Arc<Opened<C>>> {
        self.weak.upgrade()
    }
}

/// A reservation, as others see it.
pub(super) struct Writer {
    pub(super) key: Key,
    pub(super) reserved: u64,
    /// What the pack will take, at least, as far as that is known: what it asked for, and what it said is ahead.
    pub(super) needs: u64,
    /// Told to give way to older ones; read on every write.
    pub(super) yields: Arc<AtomicBool>,
    /// For a side pack: its base, which stays as long as this is written.
    pub(super) base: Option<Key>,
    /// See [`super::Reservation::made_of`].
    pub(super) made_of: Option<Key>,
}

/// Whether the background thread goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// After syncing and writing last uses.
    Flushed,
    Now,
}

/// An evicted pack on its way out. Drop it without the lock: that frees the bytes on disk, and then in the sums.
pub(super) struct Evicted<C: Content> {
    _opened: Option<Arc<Opened<C>>>,
    _file: Option<File>,
    _stored: Arc<Stored<C>>,
}

impl<C: Content> State<C> {
    pub(super) fn used(&self) -> u64 {
        self.sealed + self.evicted + self.reserved + self.records.bytes
    }
    /// The side packs of a base, in order; none for a side pack.
    fn sides(&self, base: &Key) -> Vec<Key> {
        let behind = self
            .table
            .range::<Key, _>((Bound::Excluded(base), Bound::Unbounded));
        behind
            .map(|(side, _)| side)
            .take_while(|side| side.is_side_of(base))
            .cloned()
            .collect()
    }
    /// Puts a sealed pack into the table.
    pub(super) fn insert(
        &mut self,
        key: Key,
        stored: Arc<Stored<C>>,
        opened: Option<Arc<Opened<C>>>,
    ) {
        let bytes = stored.bytes.load(Relaxed);
        self.sealed += bytes;
        let weak = opened.as_ref().map_or_else(Weak::new, Arc::downgrade);
        // A source is read once in a while, from end to end: it takes no mapping from packs.
        let opened = opened.filter(|_| !key.is_source());
        self.sources += if key.is_source() { bytes } else { 0 };
        self.mappings += usize::from(opened.is_some());
        let entry = Entry {
            stored,
            opened,
            weak,
            stuck: false,
        };
        self.table.insert(key, entry);
    }
    pub(super) fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }
    /// Takes mappings over the cap out of the table, the least recently used of those that
    /// nobody leases, and some more so that this is rare. Drop them without the lock.
    #[must_use]
    pub(super) fn close_surplus(&mut self, cap: usize) -> Vec<Arc<Opened<C>>> {
        if self.mappings <= cap {
            return Vec::new();
        }
        let surplus = self.mappings - cap + cap / 16;
        let mut idle: Vec<(u64, &mut Entry<C>)> = self
            .table
            .values_mut()
            .filter(|entry| entry.opened.is_some() && !entry.leased())
            .map(|entry| (entry.stored.last_use.load(Relaxed), entry))
            .collect();
        idle.sort_unstable_by_key(|(last_use, _)| *last_use);
        let closed: Vec<_> = idle
            .into_iter()
            .take(surplus)
            .filter_map(|(_, entry)| entry.opened.take())
            .collect();
        self.mappings -= closed.len();
        closed
    }
}

impl<C: Content> Space<C> {
    pub(super) fn new(bound: u64, tuning: Tuning, disk: Disk, lock: File) -> Space<C> {
        let clock = Arc::new(Clock::default());
        clock.advance();
        let records = RecordIndex::new(bound, &tuning);
        Space {
            bound,
            tuning,
            disk,
            clock,
            state: Mutex::new(State {
                table: BTreeMap::new(),
                writers: BTreeMap::new(),
                records,
                pins: Pins::default(),
                sealed: 0,
                sources: 0,
                evicted: 0,
                falling: 0,
                reserved: 0,
                mappings: 0,
                evictions: 0,
                measured: false,
                found: false,
                unsynced: Vec::new(),
                stop: Stop::No,
                next_serial: 0,
            }),
            freed: Condvar::new(),
            pressure: watch::Sender::new(()),
            work: Condvar::new(),
            _lock: lock,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<C>> {
        // Nothing in here panics half-way through a change; a poisoned lock is as good as new.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stored(self: &Arc<Self>, bytes: u64, serial: u64, last_use: u64) -> Stored<C> {
        Stored {
            bytes: AtomicU64::new(bytes),
            serial,
            last_use: AtomicU64::new(last_use),
            written_last_use: AtomicU64::new(last_use),
            evicted: AtomicBool::new(false),
            falling: AtomicBool::new(false),
            space: Arc::downgrade(self),
        }
    }

    /// See [`super::Blobspace::get`].
    pub(super) fn get(&self, key: &Key) -> Option<Lease<C>> {
        let now = self.clock.advance();
        for _ in 0..GET_TRIES {
            let stored = {
                let state = self.when_found(self.lock());
                let entry = state.table.get(key)?;
                entry.stored.touch(now);
                if let Some(opened) = entry.live() {
                    return Some(Lease(opened));
                }
                entry.stored.clone()
            };
            let path = self.disk.pack(key);
            let content = match disk::open(&path) {
                Ok(file) => C::open(file),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(error.to_string()),
                Err(error) => {
                    // Out of descriptors, for one: no fault of the pack.
                    tracing::warn!(path = %path.display(), %error, "cannot open a pack");
                    return None;
                }
            };
            match content {
                Ok(content) => {
                    let clock = self.clock.clone();
                    let opened = Arc::new(Opened {
                        content,
                        base: key.base_key().unwrap_or_else(|| key.clone()),
                        stored,
                        clock,
                    });
                    if let Some(lease) = self.publish(key, &opened) {
                        return Some(lease);
                    }
                }
                Err(error) => {
                    if self.remove(key, Some(&stored)) {
                        tracing::warn!(path = %path.display(), error, "removed a pack that cannot be used");
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Shares opened content through the table. None when the pack is not there any more; another
    /// thread's if that was quicker.
    fn publish(&self, key: &Key, opened: &Arc<Opened<C>>) -> Option<Lease<C>> {
        let surplus;
        let lease = {
            let mut state = self.lock();
            let entry = state.table.get_mut(key)?;
            if !Arc::ptr_eq(&entry.stored, &opened.stored) {
                return None;
            }
            let shared = entry.live().unwrap_or_else(|| opened.clone());
            if key.is_source() {
                entry.weak = Arc::downgrade(&shared);
            } else if entry.opened.is_none() {
                entry.weak = Arc::downgrade(&shared);
                entry.opened = Some(shared.clone());
                state.mappings += 1;
            }
            surplus = state.close_surplus(self.tuning.open_mappings);
            Lease(shared)
        };
        drop(surplus);
        Some(lease)
    }

    /// Unlinks a pack with its side packs, if it is there (and still `only` that one).
    pub(super) fn remove(&self, key: &Key, only: Option<&Arc<Stored<C>>>) -> bool {
        let mut evicted = Vec::new();
        let mut state = self.when_measured(self.lock());
        let there = state
            .table
            .get(key)
            .is_some_and(|entry| only.is_none_or(|only| Arc::ptr_eq(only, &entry.stored)));
        if there {
            self.evict(&mut state, key, &mut evicted);
        }
        drop(state);
        there
    }

    /// Unlinks a pack, its side packs first. Adds them to `out`, to be dropped without the lock.
    /// Returns their bytes.
    pub(super) fn evict(&self, state: &mut State<C>, key: &Key, out: &mut Vec<Evicted<C>>) -> u64 {
        let sides = state.sides(key);
        let mut bytes = 0;
        for side in &sides {
            bytes += self.unlink(state, side, out);
        }
        if sides.iter().any(|side| state.table.contains_key(side)) {
            // A side pack that cannot be unlinked must not outlive its base.
            return bytes;
        }
        bytes + self.unlink(state, key, out)
    }

    fn unlink(&self, state: &mut State<C>, key: &Key, out: &mut Vec<Evicted<C>>) -> u64 {
        let Some(entry) = state.table.get_mut(key) else {
            return 0;
        };
        let path = self.disk.pack(key);
        // Held open over the unlink, so that the file system frees the blocks (milliseconds
        // for a large file) when this is closed, without the lock.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(&path)
            .ok();
        if let Err(error) = disk::remove(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a pack");
            entry.stuck = true;
            return 0;
        }
        let leased = entry.leased();
        let Some(entry) = state.table.remove(key) else {
            return 0;
        };
        let bytes = entry.stored.bytes.load(Relaxed);
        entry.stored.evicted.store(true, Relaxed);
        state.sealed -= bytes;
        state.sources -= if key.is_source() { bytes } else { 0 };
        state.evicted += bytes;
        self.source_needed(state, key);
        if !leased {
            entry.stored.falling.store(true, Relaxed);
            state.falling += bytes;
        }
        state.mappings -= usize::from(entry.opened.is_some());
        out.push(Evicted {
            _opened: entry.opened,
            _file: file,
            _stored: entry.stored,
        });
        bytes
    }

    /// See [`super::Blobspace::sides`].
    pub(super) fn sides(&self, base: &Key) -> Vec<Key> {
        let state = self.when_found(self.lock());
        state.sides(base)
    }

    /// See [`super::Blobspace::facts`].
    pub(super) fn facts(&self, key: &Key) -> Option<PackFacts> {
        let state = self.when_measured(self.lock());
        let stored = &state.table.get(key)?.stored;
        Some(PackFacts {
            bytes: stored.bytes.load(Relaxed),
            last_use: stored.last_use.load(Relaxed),
        })
    }

    pub(super) fn usage(&self) -> Usage {
        let state = self.when_records_known(self.lock());
        Usage {
            packs: state.table.len() as u64,
            sealed_bytes: state.sealed,
            source_bytes: state.sources,
            leased_bytes: state.evicted,
            reserved_bytes: state.reserved,
            record_bytes: state.records.bytes,
            evictions: state.evictions,
        }
    }
}
