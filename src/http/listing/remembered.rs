//! Rendered listings: rendered off the reactor, a few at once, and remembered within a bound.

use super::super::represent;
use crate::digest::Digest;
use crate::reference::Repository;
use bytes::Bytes;
use http::HeaderValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of listings, and of what they are known by, in one of two generations.
const MOST: usize = 8 << 20;
/// What an entry costs beside its text and its key's.
const OVERHEAD: usize = 512;

/// What makes a listing: the same for the same key, as long as the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Key {
    pub(in super::super) repository: Repository,
    /// Of the manifest.
    pub(in super::super) digest: Digest,
    pub(in super::super) workdir: Vec<u8>,
    /// Below the workdir.
    pub(in super::super) path: Vec<u8>,
    pub(in super::super) depth: usize,
    /// Files of rules that are honoured, and so not shown.
    pub(in super::super) hidden: (bool, bool),
    pub(in super::super) options: super::Options,
}

/// A listing as it is sent.
#[derive(Clone, Debug)]
pub(in super::super) struct Rendered {
    pub(in super::super) text: Bytes,
    pub(in super::super) etag: HeaderValue,
}

impl From<String> for Rendered {
    fn from(text: String) -> Rendered {
        Rendered {
            etag: represent::etag(xxh3_128(text.as_bytes())),
            text: text.into(),
        }
    }
}

/// See the module. One per listener.
pub(in super::super) struct Listings {
    /// Held for one look-up or insert.
    known: Mutex<Known>,
    /// Listings in the making: a directory may have a million entries.
    turns: Semaphore,
}

/// Two generations: when the young one is full it becomes the old one, whose entries are dropped unless
/// they were asked for again.
#[derive(Default)]
struct Known {
    young: HashMap<Arc<Key>, Rendered>,
    bytes: usize,
    old: HashMap<Arc<Key>, Rendered>,
}

impl Known {
    fn get(&mut self, key: &Key) -> Option<Rendered> {
        if let Some(rendered) = self.young.get(key) {
            return Some(rendered.clone());
        }
        let (key, rendered) = self.old.remove_entry(key)?;
        self.put(key, rendered.clone());
        Some(rendered)
    }

    fn put(&mut self, key: Arc<Key>, rendered: Rendered) {
        let bytes = rendered.text.len() + key.path.len() + key.workdir.len() + OVERHEAD;
        // One that drives all others out is made anew each time.
        if bytes > MOST / 4 {
            return;
        }
        if self.bytes + bytes > MOST {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(key, rendered).is_none() {
            self.bytes += bytes;
        }
    }
}

impl Listings {
    pub(in super::super) fn new() -> Listings {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Listings {
            known: Mutex::default(),
            turns: Semaphore::new(cores.max(2)),
        }
    }

    /// The listing, if it was made lately. Never waits.
    pub(in super::super) fn known(&self, key: &Key) -> Option<Rendered> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key)
    }

    pub(in super::super) fn remember(&self, key: Key, rendered: Rendered) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.put(Arc::new(key), rendered);
    }

    /// A turn to make one in.
    pub(in super::super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Options, Sort};
    use super::*;

    fn key(path: &str) -> Key {
        Key {
            repository: crate::reference::Reference::parse("h.example/app:v1")
                .unwrap()
                .repository,
            digest: Digest::sha256(b""),
            workdir: Vec::new(),
            path: path.into(),
            depth: 0,
            hidden: (false, false),
            options: Options {
                format: Format::Json,
                sort: Sort::Name,
                descending: false,
                integrity: false,
            },
        }
    }

    #[test]
    fn what_is_asked_for_stays_and_the_bytes_are_bounded() {
        let listings = Listings::new();
        let text = "x".repeat(MOST / 16);
        for number in 0..100 {
            listings.remember(key(&number.to_string()), text.clone().into());
            assert!(listings.known(&key("0")).is_some(), "{number}");
        }
        assert!(listings.known(&key("1")).is_none());
        assert!(listings.known(&key("99")).is_some());
        let known = listings.known.lock().unwrap();
        let held = |generation: &HashMap<_, Rendered>| -> usize {
            generation
                .values()
                .map(|rendered| rendered.text.len())
                .sum()
        };
        assert!(held(&known.young) <= known.bytes && known.bytes <= MOST);
        assert!(held(&known.old) <= MOST);
    }

    #[test]
    fn a_listing_that_would_drive_out_all_others_is_not_remembered() {
        let listings = Listings::new();
        listings.remember(key("small"), "x".to_owned().into());
        listings.remember(key("large"), "x".repeat(MOST / 2).into());
        assert!(listings.known(&key("large")).is_none());
        assert!(listings.known(&key("small")).is_some());
    }
}
