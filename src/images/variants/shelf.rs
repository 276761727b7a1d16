//! What is known of one base: which variants lie in which of its side packs, which are being made,
//! which are not worth it. Memory only; the side packs are the truth, and are read when work is done.

use super::{Found, index};
use crate::blobspace::WeakLease;
use crate::encode::Coding;
use crate::images::view::FileNode;
use crate::pack::{Kind, Pack};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// The content of a file, within one base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Content {
    /// XXH3-128.
    hash: u128,
    /// Bytes.
    pub(super) length: u64,
}

impl Content {
    pub(super) fn of(file: &FileNode) -> Content {
        Content {
            hash: file.hash,
            length: file.length,
        }
    }
}

/// Where in a side pack a file's content in that coding lies; None: content that is not worth encoding.
pub(super) fn path_of(content: Content, coding: Option<Coding>) -> String {
    let directory = coding.map_or("none", Coding::token);
    format!("{directory}/{:032x}-{}", content.hash, content.length)
}

fn read_path(path: &[u8]) -> Option<(Content, Option<Coding>)> {
    let (directory, name) = std::str::from_utf8(path).ok()?.split_once('/')?;
    let (hash, length) = name.split_once('-')?;
    let content = Content {
        hash: u128::from_str_radix(hash, 16).ok()?,
        length: length.parse().ok()?,
    };
    if directory == "none" {
        return Some((content, None));
    }
    let coding = Coding::ALL.into_iter().find(|it| it.token() == directory)?;
    Some((content, Some(coding)))
}

/// See the module.
#[derive(Default)]
pub(super) struct Shelf {
    /// When it was last used, see `Shared::uses`.
    pub(super) used: AtomicU64,
    /// Held for one look-up or change; by the worker while it takes over the index of a side pack.
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<Content, Slot>,
    /// Side packs by number.
    packs: BTreeMap<u64, WeakLease<Pack>>,
    /// Nothing is made before that.
    rests_until: Option<Instant>,
}

/// One content.
#[derive(Default)]
struct Slot {
    made: [Option<Made>; 3],
    asked: [bool; 3],
    worthless: bool,
}

#[derive(Clone, Copy)]
struct Made {
    /// Number of the side pack.
    pack: u64,
    offset: u64,
    length: u64,
    hash: u128,
}

impl Shelf {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn files(&self) -> usize {
        self.read().files.len()
    }

    /// What can be sent now, and whether anything is worth it.
    pub(super) fn find(&self, file: &FileNode) -> Found {
        let state = self.read();
        let Some(slot) = state.files.get(&Content::of(file)) else {
            return Found::default();
        };
        let node = |made: Option<Made>| {
            let made = made?;
            let pack = state.packs.get(&made.pack)?.upgrade()?;
            (!pack.poisoned()).then(|| FileNode {
                pack,
                offset: made.offset,
                length: made.length,
                hash: made.hash,
                mtime: file.mtime,
            })
        };
        Found {
            ready: slot.made.map(node),
            worthless: slot.worthless,
        }
    }

    /// Marks it as asked for. False: it is already, or is not worth it, or this base rests, or too much is
    /// remembered of it.
    pub(super) fn ask(&self, content: Content, coding: Coding, most_files: usize) -> bool {
        let mut state = self.write();
        let resting = state.rests_until.is_some_and(|end| end > Instant::now());
        if resting || (state.files.len() >= most_files && !state.files.contains_key(&content)) {
            return false;
        }
        let slot = state.files.entry(content).or_default();
        !slot.worthless && !std::mem::replace(&mut slot.asked[index(coding)], true)
    }

    /// Whether it is being made, or waits for that.
    pub(super) fn is_asked(&self, content: Content, coding: Coding) -> bool {
        let state = self.read();
        let slot = state.files.get(&content);
        slot.is_some_and(|slot| slot.asked[index(coding)])
    }

    /// Nothing is made of it any more while this shelf stands.
    pub(super) fn give_up(&self, content: Content) {
        self.write().files.entry(content).or_default().worthless = true;
    }

    /// The end of what [`Shelf::ask`] began, however it ended.
    pub(super) fn answered(&self, content: Content, coding: Coding) {
        let mut state = self.write();
        if let Some(slot) = state.files.get_mut(&content) {
            slot.asked[index(coding)] = false;
            let empty = !slot.worthless
                && slot.asked == [false; 3]
                && slot.made.iter().all(Option::is_none);
            if empty {
                state.files.remove(&content);
            }
        }
    }

    /// Nothing is made for so long.
    pub(super) fn rest(&self, pause: Duration) {
        self.write().rests_until = Some(Instant::now() + pause);
    }

    pub(super) fn rests(&self) -> bool {
        self.read()
            .rests_until
            .is_some_and(|end| end > Instant::now())
    }

    /// Whether there is nothing to be made any more: it is there, or not worth it.
    pub(super) fn has(&self, content: Content, coding: Coding) -> bool {
        let state = self.read();
        state.files.get(&content).is_some_and(|slot| {
            let made = slot.made[index(coding)];
            let held = made.and_then(|made| state.packs.get(&made.pack));
            slot.worthless || held.is_some_and(|pack| pack.upgrade().is_some())
        })
    }

    /// The side packs that are known and open.
    pub(super) fn open_packs(&self) -> Vec<u64> {
        let state = self.read();
        let open = state
            .packs
            .iter()
            .filter(|(_, pack)| pack.upgrade().is_some());
        open.map(|(number, _)| *number).collect()
    }

    /// Takes over the index of a side pack; what it holds goes before what older ones do.
    pub(super) fn adopt(&self, number: u64, pack: &Pack, weak: WeakLease<Pack>) {
        let mut state = self.write();
        state.packs.insert(number, weak);
        for node in pack.nodes().filter(|node| node.kind == Kind::File) {
            let Some((content, coding)) = read_path(node.path) else {
                continue;
            };
            let slot = state.files.entry(content).or_default();
            match coding {
                None => slot.worthless = true,
                Some(coding) => {
                    slot.made[index(coding)] = Some(Made {
                        pack: number,
                        offset: node.offset,
                        length: node.length,
                        hash: node.hash,
                    });
                }
            }
        }
    }

    /// Forgets the side packs that are not among these. Returns how many were forgotten.
    pub(super) fn retain(&self, numbers: &[u64]) -> usize {
        let mut state = self.write();
        let before = state.packs.len();
        state.packs.retain(|number, _| numbers.contains(number));
        let forgotten = before - state.packs.len();
        if forgotten > 0 {
            let State { files, packs, .. } = &mut *state;
            files.retain(|_, slot| {
                for made in &mut slot.made {
                    *made = made.filter(|made| packs.contains_key(&made.pack));
                }
                slot.worthless || slot.asked != [false; 3] || slot.made.iter().any(Option::is_some)
            });
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_side_pack_leads_back_to_what_it_was_made_of() {
        let content = Content {
            hash: 0x1f,
            length: 700,
        };
        for coding in [
            None,
            Some(Coding::Br),
            Some(Coding::Zstd),
            Some(Coding::Gzip),
        ] {
            let path = path_of(content, coding);
            assert_eq!(
                read_path(path.as_bytes()),
                Some((content, coding)),
                "{path}"
            );
        }
        for wrong in [
            "br",
            "br/1f",
            "lzma/1f-2",
            "br/1g-2",
            "br/1f-x",
            "\u{fc}/1f-2",
        ] {
            assert_eq!(read_path(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn one_is_asked_for_once_until_it_is_answered_and_never_while_the_base_rests() {
        let shelf = Shelf::default();
        let content = |hash| Content { hash, length: 700 };
        assert!(shelf.ask(content(1), Coding::Br, 2));
        assert!(!shelf.ask(content(1), Coding::Br, 2), "under way");
        assert!(shelf.ask(content(1), Coding::Gzip, 2));
        assert!(shelf.ask(content(2), Coding::Br, 2));
        assert!(!shelf.ask(content(3), Coding::Br, 2), "too many");
        shelf.answered(content(1), Coding::Br);
        assert_eq!(shelf.files(), 2, "its other coding is under way");
        shelf.answered(content(1), Coding::Gzip);
        assert_eq!(shelf.files(), 1);
        assert!(shelf.ask(content(1), Coding::Br, 2));
        shelf.rest(Duration::from_secs(60));
        assert!(shelf.rests() && !shelf.ask(content(2), Coding::Zstd, 2));
    }
}
