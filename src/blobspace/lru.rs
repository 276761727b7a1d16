//! In which order packs are evicted.

use super::Content;
use super::key::Key;
use super::space::Entry;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// A pack that could be evicted; a base stands for its side packs too, since they go with it.
pub(super) struct Candidate {
    pub(super) key: Key,
    /// Somebody reads it (or, for a base, one of its side packs).
    pub(super) leased: bool,
    last_use: u64,
    is_base: bool,
    serial: u64,
}

/// All packs, least recently used first. A base counts as used when a side pack of it was,
/// and comes behind them.
pub(super) fn order<C: Content>(table: &BTreeMap<Key, Entry<C>>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::with_capacity(table.len());
    let mut base: Option<usize> = None;
    for (key, entry) in table {
        if entry.stuck {
            continue;
        }
        let candidate = Candidate {
            key: key.clone(),
            leased: entry.leased(),
            last_use: entry.stored.last_use.load(Relaxed),
            is_base: key.base_key().is_none(),
            serial: entry.stored.serial,
        };
        if candidate.is_base {
            base = Some(candidates.len());
        } else if let Some(base) = base.map(|index| &mut candidates[index])
            && key.is_side_of(&base.key)
        {
            base.leased |= candidate.leased;
            base.last_use = base.last_use.max(candidate.last_use);
        }
        candidates.push(candidate);
    }
    candidates.sort_unstable_by_key(|c| (c.last_use, c.is_base, c.serial));
    candidates
}
