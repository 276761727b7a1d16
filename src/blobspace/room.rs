//! Finding room under the bound: who has to go, who has to wait, who gives way.
//!
//! In this order: packs that nobody reads, least recently used first; sources; whoever writes a source; records that were not used for a while; packs that are read (no more of them than are needed; their bytes come back
//! when their leases end, so the writer waits); the youngest writers. A writer that is itself the youngest
//! is told so at once ([`BlobspaceError::Contended`]).
//!
//! Before anybody has to go: a writer that cannot fit beside what is never evicted (pins, its own base) is told
//! so, counting what it has said is still to come. So a layer that outgrows the bound while it is unpacked stops
//! where that is certain, not where all others are gone.

use super::disk;
use super::key::Key;
use super::lru;
use super::space::{Evicted, Space, State};
use super::{BlobspaceError, Content};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Largest step in which a writer takes space, bytes.
const STEP: u64 = 16 << 20;
/// Smallest, bytes.
const FIRST_STEP: u64 = 64 << 10;
/// A writer that waits for readers this part of its patience makes the youngest give way as well.
const GRACE: u32 = 4;

/// What a writer takes when it needs `need` bytes in all: twice what it has, within the steps,
/// so that small packs evict little and stalled downloads sit on little.
pub(super) fn with_step(bound: u64, have: u64, need: u64) -> u64 {
    let largest = (bound / 16).clamp(FIRST_STEP, STEP);
    let step = have.clamp(FIRST_STEP, largest);
    need.max((have + step).min(bound))
}

/// Which packs may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spare {
    Leased,
    None,
}

impl<C: Content> Space<C> {
    /// Waits until the packs on disk are known: a few milliseconds after a start.
    pub(super) fn when_found<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<C>>,
    ) -> MutexGuard<'a, State<C>> {
        while !state.found {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Waits until the sizes and last uses of the packs are known: some milliseconds after a start.
    pub(super) fn when_measured<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<C>>,
    ) -> MutexGuard<'a, State<C>> {
        while !state.measured {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Waits until the packs are measured and the records on disk counted: some milliseconds after a start.
    pub(super) fn when_records_known<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<C>>,
    ) -> MutexGuard<'a, State<C>> {
        while !state.records.known {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Gives a writer at least `need` bytes in all, blocking. Returns what it has then. `ahead`: bytes that it
    /// will need beyond those, at least.
    pub(super) fn grow(&self, number: u64, need: u64, ahead: u64) -> Result<u64, BlobspaceError> {
        let in_all = need.saturating_add(ahead);
        let since = Instant::now();
        let patience = self.tuning.space_wait;
        loop {
            // Declared before the guard, so dropped after it.
            let mut evicted = Vec::new();
            let mut state = self.when_records_known(self.lock());
            let Some(me) = state.writers.get_mut(&number) else {
                return Err(BlobspaceError::Contended);
            };
            me.needs = me.needs.max(in_all);
            if me.yields.load(Relaxed) {
                return Err(BlobspaceError::Contended);
            }
            let have = me.reserved;
            let (base, source) = (me.base.iter().cloned().collect(), me.made_of.clone());
            let is_gone = |source: &Key| !state.table.contains_key(source);
            if source.as_ref().is_some_and(is_gone) {
                // Its reader has it still, and that is who asks: waiting for it would not end.
                return Err(BlobspaceError::Contended);
            }
            state.check_fits(self.bound, &base, in_all)?;
            let want = with_step(self.bound, have, need);
            let free = self.bound.saturating_sub(state.used());
            if have + free >= need {
                let take = want.min(have + free) - have;
                state.reserved += take;
                if let Some(me) = state.writers.get_mut(&number) {
                    me.reserved += take;
                }
                return Ok(have + take);
            }
            self.pressure.send_replace(());
            let short = need - have - free;
            let wanted = want - have - free;
            if state.falling < short {
                let missing = wanted - state.falling.min(wanted);
                if self.evict_packs(&mut state, missing, Spare::Leased, &mut evicted) > 0 {
                    drop(state);
                    continue;
                }
                let coming = state.falling + self.end_source_writers(&state);
                let missing = short.saturating_sub(coming);
                if self.evict_records(&mut state, missing) > 0 {
                    continue;
                }
                if missing > 0 {
                    if let Some(source) = source {
                        // Before anybody's pack goes: what it has can be had elsewhere.
                        self.evict(&mut state, &source, &mut evicted);
                        drop(state);
                        return Err(BlobspaceError::Contended);
                    }
                    let displaced = self.displace(&mut state, number, short, &since, &mut evicted);
                    if let Some(error) = displaced {
                        return Err(error);
                    }
                }
            }
            if since.elapsed() >= patience {
                return Err(out_of_patience(&state, number, patience));
            }
            // What was just evicted is leased; the leases, not this, keep its bytes. But the
            // table's own hold on it must go before waiting for the rest.
            if !evicted.is_empty() {
                drop(state);
                drop(evicted);
                continue;
            }
            let (grace, elapsed) = (patience / GRACE, since.elapsed());
            let until = if elapsed < grace { grace } else { patience };
            let pause = until.saturating_sub(elapsed);
            drop(
                self.freed
                    .wait_timeout(state, pause.max(Duration::from_millis(1)))
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// See [`super::Blobspace::check_room`].
    pub(super) fn check_room(&self, packs: &mut BTreeMap<Key, u64>) -> Result<(), BlobspaceError> {
        let state = self.when_records_known(self.lock());
        for writer in state.writers.values() {
            if let Some(least) = packs.get_mut(&writer.key) {
                *least = writer.needs.max(*least);
            }
        }
        let (mut here, mut more) = (BTreeSet::new(), 0_u64);
        for (key, least) in packs.iter() {
            match state.table.contains_key(key) {
                true => drop(here.insert(key.clone())),
                false => more = more.saturating_add(*least),
            }
        }
        state.check_fits(self.bound, &here, more)
    }

    /// Nothing idle is left: evicts packs that are read, and tells younger writers to give way,
    /// as far as what is already on its way does not do. An error if the asking one has to go.
    fn displace(
        &self,
        state: &mut State<C>,
        number: u64,
        short: u64,
        since: &Instant,
        evicted: &mut Vec<Evicted<C>>,
    ) -> Option<BlobspaceError> {
        let mut coming = state.evicted + state.source_writers();
        if coming < short {
            coming += self.evict_packs(state, short - coming, Spare::None, evicted);
        }
        let patient = since.elapsed() < self.tuning.space_wait / GRACE;
        if coming >= short && patient {
            return None;
        }
        let mut missing = short.saturating_sub(coming);
        if !patient {
            missing = short;
        }
        for (_, writer) in state.writers.range(number + 1..).rev() {
            if missing == 0 {
                break;
            }
            if writer.reserved > 0 && !writer.yields.swap(true, Relaxed) {
                self.freed.notify_all();
            }
            missing = missing.saturating_sub(writer.reserved);
        }
        let mut older = state.writers.range(..number);
        let older = older.any(|(_, other)| other.reserved > 0 && !other.key.is_source());
        let covered = coming >= short;
        (missing > 0 && older && !covered).then_some(BlobspaceError::Contended)
    }

    /// Evicts least recently used packs until `bytes` are on their way. Returns how many are.
    fn evict_packs(
        &self,
        state: &mut State<C>,
        bytes: u64,
        spare: Spare,
        evicted: &mut Vec<Evicted<C>>,
    ) -> u64 {
        let pinned = state.never_evicted();
        let mut sum = 0;
        for candidate in lru::order(&state.table, |key| state.pins.has_pack(key)) {
            if sum >= bytes {
                break;
            }
            let spared = candidate.leased && spare == Spare::Leased;
            let kept = pinned.contains(&candidate.key) || state.pins.has_pack(&candidate.key);
            if !spared && !kept {
                let before = evicted.len();
                sum += self.evict(state, &candidate.key, evicted);
                state.evictions += (evicted.len() - before) as u64;
            }
        }
        sum
    }

    /// Evicts idle packs, and if that does not do records, until no more than the bound is used.
    /// For a bound that was lowered between two starts.
    pub(super) fn shrink_to_bound(&self) {
        let mut evicted = Vec::new();
        let mut state = self.lock();
        let over = state.used().saturating_sub(self.bound);
        let gone = self.evict_packs(&mut state, over, Spare::Leased, &mut evicted);
        self.evict_records(&mut state, over.saturating_sub(gone));
        drop(state);
    }

    /// Makes room for a small thing without waiting for anybody. The caller holds no space.
    pub(super) fn make_room(&self, bytes: u64) -> Result<MutexGuard<'_, State<C>>, BlobspaceError> {
        let since = Instant::now();
        loop {
            let mut evicted = Vec::new();
            let mut state = self.when_records_known(self.lock());
            let free = self.bound.saturating_sub(state.used());
            if free >= bytes {
                return Ok(state);
            }
            let short = bytes - free;
            if state.falling < short {
                let missing = short - state.falling;
                let gone = self.evict_packs(&mut state, missing, Spare::Leased, &mut evicted);
                let patient = since.elapsed() < self.tuning.space_wait;
                if gone == 0 && patient && self.end_source_writers(&state) > 0 {
                    self.pause(state);
                    continue;
                }
                if gone == 0 && self.evict_records(&mut state, missing) == 0 {
                    state.check_fits(self.bound, &BTreeSet::new(), bytes)?;
                    return Err(BlobspaceError::Full(
                        "readers and writers hold all of maxSizeBytes".into(),
                    ));
                }
                drop(state);
            } else if since.elapsed() >= self.tuning.space_wait {
                return Err(out_of_patience(&state, u64::MAX, self.tuning.space_wait));
            } else {
                self.pause(state);
            }
        }
    }

    /// Lets others free what they are about to.
    pub(super) fn pause(&self, state: MutexGuard<'_, State<C>>) {
        let waited = self.freed.wait_timeout(state, Duration::from_millis(50));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Runs something that takes space on disk; as long as the disk is full, evicts idle packs
    /// (some of `bytes` each time) and runs it again.
    pub(super) fn with_disk_space<T>(
        &self,
        bytes: u64,
        mut work: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let since = Instant::now();
        loop {
            match work() {
                Err(error) if disk::is_full(&error) => {
                    let mut evicted = Vec::new();
                    let mut state = self.when_measured(self.lock());
                    if self.evict_packs(&mut state, bytes, Spare::Leased, &mut evicted) > 0 {
                        drop(state);
                    } else if state.falling + self.end_source_writers(&state) > 0
                        && since.elapsed() < self.tuning.space_wait
                    {
                        // Another thread is freeing what it has evicted, or has written of a source.
                        self.pause(state);
                    } else {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }
}

impl<C: Content> State<C> {
    /// Packs that stay, whatever is needed, besides those that are pinned: bases of side packs that are being written.
    pub(super) fn never_evicted(&self) -> HashSet<Key> {
        let writers = self.writers.values();
        writers.filter_map(|writer| writer.base.clone()).collect()
    }

    /// Whether `more` bytes can ever be had while these packs stay and nothing pinned goes: no eviction
    /// helps where they cannot.
    fn check_fits(
        &self,
        bound: u64,
        packs: &BTreeSet<Key>,
        more: u64,
    ) -> Result<(), BlobspaceError> {
        let here = packs.iter().filter_map(|key| self.table.get(key));
        let staying: u64 = here.map(|entry| entry.stored.bytes.load(Relaxed)).sum();
        let need = staying.saturating_add(more);
        if need > bound {
            return Err(BlobspaceError::LargerThanBound { bound });
        }
        let others = self.pinned_beside(packs);
        match others.saturating_add(need) > bound {
            true if others > 0 => Err(BlobspaceError::Pinned {
                pinned: self.pinned(),
                bound,
            }),
            _ => Ok(()),
        }
    }
}

fn out_of_patience<C: Content>(
    state: &State<C>,
    number: u64,
    patience: Duration,
) -> BlobspaceError {
    let others = state
        .writers
        .iter()
        .any(|(other, writer)| *other != number && writer.reserved > 0);
    if others {
        return BlobspaceError::Contended;
    }
    BlobspaceError::Full(format!(
        "readers have held all of maxSizeBytes for {} s",
        patience.as_secs()
    ))
}
