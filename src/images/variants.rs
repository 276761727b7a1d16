//! Our own encoded variants of files.
//!
//! What a caller may rely on: [`Variants::find`] and [`Variants::demand`] never wait for a disk or an
//! encoder; [`Variants::get`] does, without holding up a thread. A variant is made on demand, on one thread of low priority, never twice while it is here, and
//! from the bytes that are served (so from the modified ones of a modified file). It lies in a side pack of
//! the base that its file came from: it counts in the bound, goes before the base and never outlives it.
//!
//! A variant is named by coding, content hash and length *within one base*: hard links, names and rules do not matter to it,
//! and no image can put bytes into another's (XXH3 is no cryptographic hash, whoever finds a collision
//! harms the image that holds both files).
//!
//! `shelf` is what is known of one base, `pile` which side packs to merge, `writing` makes side packs,
//! `work` is the queue and the thread.

mod pile;
mod shelf;
#[cfg(test)]
mod tests;
mod work;
mod writing;

use super::ImageError;
use super::view::FileNode;
use crate::blobspace::{Blobspace, Key, WeakLease};
use crate::encode::Coding;
use crate::metrics::Metrics;
use crate::pack::Pack;
use dashmap::DashMap;
use shelf::{Content, Shelf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use tokio::sync::Notify;
use work::Queue;

/// Bytes of a file that is worth a variant: less fits the first packets with its headers anyway.
const LEAST_BYTES: u64 = 512;
/// Bytes of a file at most, and the part of `memoryLimit` that one may be: an encoder holds up to
/// the result and some windows.
const MOST_BYTES: u64 = 32 << 20;
const PART_OF_MEMORY: u64 = 8;
/// Bases with something known of them; and files in all, some 200 bytes each.
const MOST_SHELVES: usize = 1_000;
const MOST_FILES: usize = 100_000;
/// How often who waits for a variant has it made, should it be evicted before it is seen.
const MOST_ASKS: u32 = 3;

/// All variants. One per process; ends its thread when it is dropped.
pub(super) struct Variants(Arc<Shared>);

struct Shared {
    blobspace: Arc<Blobspace<Pack>>,
    metrics: Arc<Metrics>,
    most_bytes: u64,
    /// By the key of the base.
    shelves: DashMap<Key, Arc<Shelf>>,
    /// Counts uses of shelves, to tell which was used least recently.
    uses: AtomicU64,
    /// Held to put a job in or to take some out.
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Told after each batch of jobs, and at the end.
    done: Notify,
    /// No more work is begun, and what is under way is given up.
    ending: AtomicBool,
}

/// What is known of a file's variants.
#[derive(Default)]
pub struct Found {
    /// Those that can be sent, by [`Coding::ALL`].
    pub ready: [Option<FileNode>; 3],
    /// It was tried, and saves too little.
    pub worthless: bool,
}

/// One variant that is to be made.
struct Job {
    base: Key,
    shelf: Arc<Shelf>,
    /// Does not keep the pack: if it is evicted meanwhile, there is nothing to encode for.
    pack: WeakLease<Pack>,
    offset: u64,
    content: Content,
    coding: Coding,
}

impl Variants {
    pub(super) fn new(
        blobspace: Arc<Blobspace<Pack>>,
        metrics: Arc<Metrics>,
        memory_limit: u64,
    ) -> Variants {
        Variants(Arc::new(Shared {
            blobspace,
            metrics,
            most_bytes: MOST_BYTES.min(memory_limit / PART_OF_MEMORY),
            shelves: DashMap::new(),
            uses: AtomicU64::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
            done: Notify::new(),
            ending: AtomicBool::new(false),
        }))
    }

    /// Whether a file of so many bytes may have variants.
    pub(super) fn takes(&self, bytes: u64) -> bool {
        (LEAST_BYTES..=self.0.most_bytes).contains(&bytes)
    }

    /// What is known now.
    pub(super) fn find(&self, file: &FileNode) -> Found {
        match self.0.shelves.get(file.pack.base()) {
            Some(shelf) => shelf.find(file),
            None => Found::default(),
        }
    }

    /// Has the variant made, unless that is under way already, or was given up a moment ago.
    pub(super) fn demand(&self, file: &FileNode, coding: Coding) {
        if self.0.ending.load(Relaxed) || !self.takes(file.length) {
            return;
        }
        let shelf = self.0.shelf(file.pack.base());
        // Too many wait: the next request asks again.
        let _ = self.push(&shelf, file, coding);
    }

    /// The variant, made now if need be, before what nobody waits for. Dropping the future does not stop
    /// the work. None: none can come now, since it saves too little, or space is short.
    ///
    /// # Errors
    /// [`ImageError::Busy`]: too many wait, or the process ends.
    pub(super) async fn get(
        &self,
        file: &FileNode,
        coding: Coding,
    ) -> Result<Option<FileNode>, ImageError> {
        if !self.takes(file.length) {
            return Ok(None);
        }
        let content = Content::of(file);
        let shelf = self.0.shelf(file.pack.base());
        let mut asks = MOST_ASKS;
        loop {
            // Before the look: what is told after it is not missed.
            let mut done = pin!(self.0.done.notified());
            done.as_mut().enable();
            if self.0.ending.load(Relaxed) {
                return Err(ImageError::Busy("shutting down".into()));
            }
            let mut found = shelf.find(file);
            if let Some(variant) = found.ready[index(coding)].take() {
                return Ok(Some(variant));
            }
            if found.worthless {
                return Ok(None);
            }
            if !shelf.is_asked(content, coding) {
                if asks == 0 || shelf.rests() {
                    return Ok(None);
                }
                asks -= 1;
                self.push(&shelf, file, coding)?;
                // Refused, or made meanwhile: that is looked at again.
                if !shelf.is_asked(content, coding) {
                    continue;
                }
            }
            work::hasten(&self.0, &shelf, content, coding);
            done.await;
        }
    }

    /// Queues it, unless it is queued or is not to be made.
    fn push(&self, shelf: &Arc<Shelf>, file: &FileNode, coding: Coding) -> Result<(), ImageError> {
        let content = Content::of(file);
        if !shelf.ask(content, coding, MOST_FILES) {
            return Ok(());
        }
        let base = file.pack.base();
        let job = Job {
            base: base.clone(),
            shelf: shelf.clone(),
            pack: file.pack.downgrade(),
            offset: file.offset,
            content,
            coding,
        };
        if !work::push(&self.0, job) {
            shelf.answered(content, coding);
            // Another may have begun to wait for it meanwhile.
            self.0.done.notify_waiters();
            let text = "too many files wait to be encoded, try again later";
            return Err(ImageError::Busy(text.into()));
        }
        Ok(())
    }

    /// Gives up what is under way and begins nothing any more. Does not wait.
    pub(super) fn end(&self) {
        self.0.ending.store(true, Relaxed);
        self.0.wake.notify_all();
        self.0.done.notify_waiters();
    }
}

impl Drop for Variants {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// The base's shelf, with room made for it.
    fn shelf(&self, base: &Key) -> Arc<Shelf> {
        let now = self.uses.fetch_add(1, Relaxed);
        if let Some(shelf) = self.shelves.get(base) {
            shelf.used.store(now, Relaxed);
            return shelf.clone();
        }
        let files: usize = self.shelves.iter().map(|shelf| shelf.files()).sum();
        if self.shelves.len() >= MOST_SHELVES || files >= MOST_FILES {
            let oldest = self.shelves.iter().min_by_key(|it| it.used.load(Relaxed));
            let oldest = oldest.map(|it| it.key().clone());
            if let Some(oldest) = oldest {
                self.shelves.remove(&oldest);
            }
        }
        let shelf = self.shelves.entry(base.clone()).or_default();
        shelf.used.store(now, Relaxed);
        shelf.clone()
    }
}

fn index(coding: Coding) -> usize {
    match coding {
        Coding::Br => 0,
        Coding::Zstd => 1,
        Coding::Gzip => 2,
    }
}
