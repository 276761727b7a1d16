//! In which order packs are evicted.
//!
//! Sources come behind packs: a pack that has one is made again without the network, and a source is as good as lost.
//! They cannot crowd packs out, being bounded together ([`super::Tuning::source_bytes`]); and did they go before packs,
//! none would ever be there when its pack has made room for others, which is what they are kept for.

use super::Content;
use super::key::Key;
use super::space::Entry;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// When a pack's turn comes, before its last use decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// A source whose pack is never evicted: it will hardly be needed.
    Idle,
    /// A pack.
    Pack,
    /// A source.
    Source,
}

/// A pack that could be evicted; a base stands for its side packs too, since they go with it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) key: Key,
    /// Somebody reads it (or, for a base, one of its side packs).
    pub(super) leased: bool,
    /// On disk, without side packs.
    pub(super) bytes: u64,
    turn: Turn,
    last_use: u64,
    is_base: bool,
    serial: u64,
}

impl Candidate {
    fn by_use(&self, other: &Candidate) -> Ordering {
        let of = |c: &Candidate| (c.last_use, c.is_base, c.serial);
        of(self).cmp(&of(other))
    }
}

/// All packs and then all sources, the least recently used first. A base counts as used when a side pack of it was,
/// and comes behind them; a source when its pack was, and when that went.
pub(super) fn order<C: Content>(
    table: &BTreeMap<Key, Entry<C>>,
    is_pinned: impl Fn(&Key) -> bool,
) -> Vec<Candidate> {
    let mut candidates = all(table, is_pinned);
    candidates.sort_unstable_by(|a, b| a.turn.cmp(&b.turn).then_with(|| a.by_use(b)));
    candidates
}

/// The sources alone, in the order in which they make room for each other.
pub(super) fn order_of_sources<C: Content>(
    table: &BTreeMap<Key, Entry<C>>,
    is_pinned: impl Fn(&Key) -> bool,
) -> Vec<Candidate> {
    let mut sources = order(table, is_pinned);
    sources.retain(|candidate| candidate.key.is_source());
    sources
}

fn all<C: Content>(
    table: &BTreeMap<Key, Entry<C>>,
    is_pinned: impl Fn(&Key) -> bool,
) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::with_capacity(table.len());
    let mut base: Option<usize> = None;
    for (key, entry) in table {
        if entry.stuck {
            continue;
        }
        let candidate = Candidate {
            key: key.clone(),
            leased: entry.leased(),
            bytes: entry.stored.bytes.load(Relaxed),
            turn: Turn::Pack,
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
    // They are still in the order of their keys.
    for number in 0..candidates.len() {
        let Some(made) = candidates[number].key.made_of_it() else {
            continue;
        };
        let found = candidates.binary_search_by(|other| other.key.cmp(&made));
        let pack = found.ok().map(|found| candidates[found].last_use);
        let source = &mut candidates[number];
        source.last_use = source.last_use.max(pack.unwrap_or(0));
        source.turn = match pack.is_some() && is_pinned(&made) {
            true => Turn::Idle,
            false => Turn::Source,
        };
    }
    candidates
}
