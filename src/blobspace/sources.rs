//! Sources: what packs are made of, kept so that they can be made again without the network. A source is had again
//! elsewhere, so it takes no more than [`Tuning::source_bytes`](super::Tuning), waits for nobody, and is given up
//! while it is written as soon as a pack needs its space.
//!
//! Room for one is free space, then older sources where all of them would take too much, then what is idle, in
//! the order in which [`lru`] has it: without that a blobspace that is full, as every one is some day, would keep none.
//! One that has no room for all its bytes is not begun, so it costs nobody anything. It takes them in steps, as packs
//! do: how many there will be is only what a manifest says, and nobody goes for bytes that never come.

use super::BlobspaceError;
use super::Content;
use super::disk;
use super::key::Key;
use super::lru::{self, Candidate};
use super::reservation::Reservation;
use super::room::with_step;
use super::space::{Evicted, Space, State};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long it may take until what was evicted is free: the background thread may be syncing it.
const PATIENCE: Duration = Duration::from_secs(1);

impl<C: Content> Space<C> {
    /// See [`super::Blobspace::reserve_source`].
    pub(super) fn reserve_source(
        self: &Arc<Self>,
        base: &Key,
        bytes: u64,
    ) -> Option<Reservation<C>> {
        let (key, bytes) = (Key::source(base), disk::blocks(bytes));
        if bytes > self.tuning.source_bytes || self.facts(&key).is_some() {
            return None;
        }
        // A full disk: nobody goes for this.
        let (path, file) = self.disk.create().ok()?;
        let reservation = self.writer(&key, path, file);
        self.promise(reservation.number(), bytes)
            .then_some(reservation)
    }

    /// Whether so many bytes could be had now for the source of that writer, beside what others are to get.
    fn promise(&self, number: u64, bytes: u64) -> bool {
        let mut state = self.when_records_known(self.lock());
        let sources = state.writers.values().filter(|it| it.key.is_source());
        let (needs, has) = sources.fold((0_u64, 0_u64), |(needs, has), writer| {
            (needs.saturating_add(writer.needs), has + writer.reserved)
        });
        let order = lru::order(&state.table, |key| state.pins.has_pack(key));
        let (mut idle, mut idle_sources) = (0, 0);
        for candidate in self.idle(&state, &order) {
            idle += candidate.bytes;
            idle_sources += match candidate.key.is_source() {
                true => candidate.bytes,
                false => 0,
            };
        }
        let stay = state.sources.saturating_sub(idle_sources);
        let all = stay.saturating_add(needs).saturating_add(bytes);
        let free = self.bound.saturating_sub(state.used());
        let room = free.saturating_add(state.falling).saturating_add(idle);
        let fits = all <= self.tuning.source_bytes
            && needs.saturating_sub(has).saturating_add(bytes) <= room;
        if fits && let Some(me) = state.writers.get_mut(&number) {
            me.needs = bytes;
        }
        fits
    }

    /// Gives the writer of a source at least `need` bytes in all, if they are to be had without waiting for anybody.
    /// Returns what it has then.
    pub(super) fn grow_source(&self, number: u64, need: u64) -> Result<u64, BlobspaceError> {
        let (have, most) = match self.lock().writers.get(&number) {
            Some(me) => (me.reserved, me.needs),
            None => return Err(BlobspaceError::Contended),
        };
        if need > most {
            return Err(BlobspaceError::Full("more than was promised".into()));
        }
        let want = with_step(self.bound, have, need).min(most);
        if self.take_idle(number, want - have) {
            return Ok(want);
        }
        match self.take_idle(number, need - have) {
            true => Ok(need),
            false => Err(BlobspaceError::Contended),
        }
    }

    /// Gives the writer of a source more bytes, if they are to be had without waiting for anybody.
    fn take_idle(&self, number: u64, bytes: u64) -> bool {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            // Declared before the guard, so dropped after it.
            let mut evicted = Vec::new();
            let mut state = self.when_records_known(self.lock());
            let me = state.writers.get(&number);
            if me.is_none_or(|me| me.yields.load(Relaxed)) {
                return false;
            }
            let most = self.tuning.source_bytes;
            let over = (state.sources + state.source_writers() + bytes).saturating_sub(most);
            if over > 0 {
                let order = lru::order_of_sources(&state.table, |key| state.pins.has_pack(key));
                if !self.evict_idle(&mut state, &order, over, &mut evicted) {
                    return false;
                }
            }
            let free = self.bound.saturating_sub(state.used());
            if free >= bytes {
                state.reserved += bytes;
                if let Some(me) = state.writers.get_mut(&number) {
                    me.reserved += bytes;
                }
                return true;
            }
            let missing = (bytes - free).saturating_sub(state.falling);
            if missing > 0 {
                let order = lru::order(&state.table, |key| state.pins.has_pack(key));
                if !self.evict_idle(&mut state, &order, missing, &mut evicted) {
                    return false;
                }
            } else if evicted.is_empty() {
                self.pause(state);
            }
        }
        false
    }

    /// Those that nobody needs now.
    fn idle<'a>(&self, state: &State<C>, candidates: &'a [Candidate]) -> Vec<&'a Candidate> {
        let kept = state.never_evicted();
        (candidates.iter())
            .filter(|it| !it.leased && !kept.contains(&it.key) && !state.pins.has_pack(&it.key))
            .collect()
    }

    /// Evicts so many bytes of these that nobody needs now; nothing if they do not come to that.
    fn evict_idle(
        &self,
        state: &mut State<C>,
        candidates: &[Candidate],
        bytes: u64,
        evicted: &mut Vec<Evicted<C>>,
    ) -> bool {
        let idle = self.idle(state, candidates);
        if idle.iter().map(|it| it.bytes).sum::<u64>() < bytes {
            return false;
        }
        let mut sum = 0;
        for candidate in idle {
            if sum >= bytes {
                break;
            }
            let before = evicted.len();
            sum += self.evict(state, &candidate.key, evicted);
            state.evictions += (evicted.len() - before) as u64;
        }
        sum >= bytes
    }

    /// Evicts sources until they take no more than they may: that may be less than at the last start.
    pub(super) fn shrink_sources(&self) {
        let mut evicted = Vec::new();
        let mut state = self.lock();
        let mut over = state.sources.saturating_sub(self.tuning.source_bytes);
        for source in lru::order_of_sources(&state.table, |key| state.pins.has_pack(key)) {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(self.evict(&mut state, &source.key, &mut evicted));
        }
        drop(state);
    }

    /// Tells the writers of sources to give way. Returns the bytes that come free when they do, within moments.
    pub(super) fn end_source_writers(&self, state: &State<C>) -> u64 {
        let mut told = false;
        for writer in state
            .writers
            .values()
            .filter(|writer| writer.key.is_source())
        {
            told |= !writer.yields.swap(true, Relaxed);
        }
        if told {
            self.freed.notify_all();
        }
        state.source_writers()
    }

    /// A base pack goes: from now on its source is of use.
    pub(super) fn source_needed(&self, state: &State<C>, gone: &Key) {
        if state.sources > 0
            && gone.is_base()
            && let Some(source) = state.table.get(&Key::source(gone))
        {
            source.stored.touch(self.clock.advance());
        }
    }
}

impl<C: Content> State<C> {
    /// Bytes that writers of sources hold.
    pub(super) fn source_writers(&self) -> u64 {
        let writers = self
            .writers
            .values()
            .filter(|writer| writer.key.is_source());
        writers.map(|writer| writer.reserved).sum()
    }
}
