//! Pins: lists of packs and records that are never evicted. A pin is a record itself, of kind
//! [`RecordKind::Pin`], so that it outlasts a restart; the lists are read before anything can be evicted.
//!
//! What a pin names need not be there: it holds from the moment at which it is sealed or written. A pack
//! that is found bad goes all the same.

use super::records;
use super::space::{Space, State};
use super::{BlobspaceError, Content, Key, RecordKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What one pin keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// Base packs, here or not. Their side packs are not kept: they are made again without the network.
    pub packs: Vec<Key>,
    /// Records, here or not.
    pub records: Vec<(RecordKind, String)>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    packs: Vec<String>,
    /// Directory and name.
    records: Vec<(String, String)>,
}

impl Pin {
    fn to_bytes(&self) -> Vec<u8> {
        let written = Written {
            packs: (self.packs.iter())
                .map(|key| key.as_str().to_owned())
                .collect(),
            records: (self.records.iter())
                .map(|(kind, name)| (kind.directory().to_owned(), name.clone()))
                .collect(),
        };
        // Texts only: there is nothing in it that JSON cannot say.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    fn of_bytes(bytes: &[u8]) -> Option<Pin> {
        let written: Written = serde_json::from_slice(bytes).ok()?;
        let packs = written.packs.iter();
        let records = written.records.into_iter();
        Some(Pin {
            packs: packs.filter_map(|name| Key::of_name(name)).collect(),
            records: records
                .filter_map(|(directory, name)| {
                    let kind = RecordKind::ALL
                        .into_iter()
                        .find(|kind| kind.directory() == directory)?;
                    Some((kind, name))
                })
                .collect(),
        })
    }
}

/// The pins, and what they come to together.
#[derive(Default)]
pub(super) struct Pins {
    all: BTreeMap<String, Pin>,
    packs: HashSet<Key>,
    records: HashSet<(RecordKind, Box<str>)>,
}

impl Pins {
    pub(super) fn has_pack(&self, key: &Key) -> bool {
        self.packs.contains(key)
    }
    pub(super) fn has_record(&self, of: &(RecordKind, Box<str>)) -> bool {
        of.0 == RecordKind::Pin || self.records.contains(of)
    }
    fn set(&mut self, name: &str, pin: Option<Pin>) {
        match pin {
            Some(pin) => drop(self.all.insert(name.to_owned(), pin)),
            None => drop(self.all.remove(name)),
        }
        let all = || self.all.values();
        self.packs = all().flat_map(|pin| pin.packs.iter().cloned()).collect();
        self.records = all()
            .flat_map(|pin| pin.records.iter())
            .map(|(kind, name)| (*kind, name.as_str().into()))
            .collect();
    }
}

impl<C: Content> State<C> {
    /// Bytes of pinned packs that are here.
    pub(super) fn pinned(&self) -> u64 {
        let here = self.pins.packs.iter().filter_map(|key| self.table.get(key));
        here.map(|entry| entry.stored.bytes.load(Relaxed)).sum()
    }

    /// Bytes of what is pinned, records too, without these packs.
    pub(super) fn pinned_beside(&self, packs: &BTreeSet<Key>) -> u64 {
        let others = self.pins.packs.iter().filter(|key| !packs.contains(*key));
        let here = others.filter_map(|key| self.table.get(key));
        let bytes: u64 = here.map(|entry| entry.stored.bytes.load(Relaxed)).sum();
        let pins = self.pins.all.keys();
        let pins = pins.map(|name| (RecordKind::Pin, Box::from(name.as_str())));
        let records = pins.chain(self.pins.records.iter().cloned());
        bytes + records.map(|of| self.records.bytes_of(&of)).sum::<u64>()
    }
}

impl<C: Content> Space<C> {
    /// Reads the pins on disk, at a start.
    pub(super) fn read_pins(self: &Arc<Self>) {
        let directory = self.disk.records(RecordKind::Pin);
        let Ok(entries) = std::fs::read_dir(&directory) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let read = std::fs::read(&path).ok();
            let pin = read
                .as_deref()
                .and_then(records::body)
                .and_then(Pin::of_bytes);
            match (entry.file_name().into_string(), pin) {
                (Ok(name), Some(pin)) => self.lock().pins.set(&name, Some(pin)),
                _ => {
                    tracing::warn!(path = %path.display(), "a pin cannot be read: it keeps nothing");
                }
            }
        }
    }

    /// See [`super::Blobspace::pin`].
    pub(super) fn pin(&self, name: &str, pin: Pin) -> Result<(), BlobspaceError> {
        self.put_record(RecordKind::Pin, name, &pin.to_bytes())?;
        self.lock().pins.set(name, Some(pin));
        Ok(())
    }

    /// See [`super::Blobspace::unpin`].
    pub(super) fn unpin(&self, name: &str) {
        self.remove_record(RecordKind::Pin, name);
        self.lock().pins.set(name, None);
        self.freed.notify_all();
    }

    /// See [`super::Blobspace::is_pinned`].
    pub(super) fn is_pinned(&self, name: &str) -> bool {
        self.lock().pins.all.contains_key(name)
    }
}
