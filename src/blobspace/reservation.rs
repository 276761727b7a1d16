//! Writing a pack: space first, then bytes, then the name.

use super::disk;
use super::key::Key;
use super::lease::{Lease, Opened};
use super::space::{Space, Writer};
use super::{BlobspaceError, Content};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Space, and a file under a temporary name. `Write` takes more space as it needs it (steps that
/// double, up to 16 MiB; a [`BlobspaceError`] is inside the io::Error, see [`BlobspaceError::of`]).
/// It may block, for room. Dropped without `commit`, file and space are given back.
pub struct Reservation<C: Content> {
    space: Arc<Space<C>>,
    key: Key,
    /// Age: a smaller number is older.
    number: u64,
    /// Some until commit or drop.
    file: Option<File>,
    path: PathBuf,
    length: u64,
    reserved: u64,
    /// What is reserved is allocated on disk as well.
    allocates: bool,
    yields: Arc<AtomicBool>,
    /// See [`Reservation::expect`].
    ahead: Arc<AtomicU64>,
    /// The file lies under its final name.
    renamed: bool,
}

impl<C: Content> Reservation<C> {
    /// Its writer's, among those of the store.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl<C: Content> Space<C> {
    /// See [`super::Blobspace::reserve`].
    pub(super) fn reserve(self: &Arc<Self>, key: &Key) -> Result<Reservation<C>, BlobspaceError> {
        let (path, file) = self
            .with_disk_space(1, || self.disk.create())
            .map_err(|e| self.disk.error("cannot write in", &self.disk.tmp, &e))?;
        let reservation = self.writer(key, path, file);
        let base = key.base_key();
        if base.is_some_and(|base| !self.lock().table.contains_key(&base)) {
            return Err(BlobspaceError::Contended);
        }
        Ok(reservation)
    }

    /// Starts a pack in that file, without any space yet.
    pub(super) fn writer(self: &Arc<Self>, key: &Key, path: PathBuf, file: File) -> Reservation<C> {
        let allocates = (self.tuning.allocate)(&file);
        let yields = Arc::new(AtomicBool::new(false));
        let mut state = self.when_found(self.lock());
        let number = state.serial();
        let writer = Writer {
            key: key.clone(),
            reserved: 0,
            needs: 0,
            yields: yields.clone(),
            base: key.base_key(),
            made_of: None,
        };
        state.writers.insert(number, writer);
        drop(state);
        Reservation {
            space: self.clone(),
            key: key.clone(),
            number,
            file: Some(file),
            path,
            length: 0,
            reserved: 0,
            allocates,
            yields,
            ahead: Arc::default(),
            renamed: false,
        }
    }
}

impl<C: Content> Reservation<C> {
    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that will be written beyond those that were, at least; whoever knows keeps the number up to date. So
    /// what cannot fit is refused before others are evicted for it.
    pub fn expect(&mut self, ahead: Arc<AtomicU64>) {
        self.ahead = ahead;
    }

    /// The pack is made of that one, which whoever writes this leases: should that have to go as well, both have no
    /// room together, and the error is [`BlobspaceError::Contended`] at once.
    pub fn made_of(&mut self, source: &Key) {
        if let Some(me) = self.space.lock().writers.get_mut(&self.number) {
            me.made_of = Some(source.clone());
        }
    }

    /// Becomes true when others need the space: drop the reservation then. Whoever writes is told by an error;
    /// this is for who has nothing to write now.
    pub fn gives_way(&self) -> Arc<AtomicBool> {
        self.yields.clone()
    }

    fn write_some(&mut self, bytes: &[u8]) -> Result<usize, BlobspaceError> {
        if self.yields.load(Relaxed) {
            return Err(BlobspaceError::Contended);
        }
        let need = disk::blocks(self.length + bytes.len() as u64);
        let had = self.reserved;
        if need > self.reserved && self.key.is_source() {
            self.reserved = self.space.grow_source(self.number, need)?;
        }
        if need > self.reserved {
            let ahead = self.ahead.load(Relaxed);
            self.reserved = self.space.grow(self.number, need, ahead)?;
        }
        let Some(file) = &self.file else {
            return Err(BlobspaceError::Contended);
        };
        if self.allocates && self.reserved > had {
            disk::allocate(file, self.reserved);
        }
        let write = || (self.space.tuning.write_at)(file, bytes, self.length);
        let written = if self.key.is_source() {
            // Nobody goes for it, and it is no fault that it is not kept.
            write().map_err(|error| BlobspaceError::Full(error.to_string()))?
        } else {
            let written = self.space.with_disk_space(bytes.len() as u64, write);
            written.map_err(|e| self.space.disk.error("cannot write", &self.path, &e))?
        };
        self.length += written as u64;
        Ok(written)
    }

    /// Seals: rename, publish. The pack is complete and verified by the caller. When the key was
    /// sealed by somebody else meanwhile, that one stays, and the lease is on it. A side pack whose base was
    /// evicted meanwhile is [`BlobspaceError::Contended`]. Whatever the error, nothing is left.
    pub fn commit(mut self) -> Result<Lease<C>, BlobspaceError> {
        let space = self.space.clone();
        let failed = |what: &str, path: &PathBuf, e: &io::Error| space.disk.error(what, path, e);
        // 1. True up: what the file takes, rather than what was reserved.
        let file = disk::open(&self.path).map_err(|e| match e.kind() {
            // Removed under our hands: another attempt makes another file.
            io::ErrorKind::NotFound => BlobspaceError::Contended,
            _ => failed("cannot read", &self.path, &e),
        })?;
        if self.allocates
            && let Some(written) = &self.file
        {
            // Its length as it is, and nothing allocated beyond.
            let trimmed = written.set_len(self.length);
            trimmed.map_err(|e| failed("cannot trim", &self.path, &e))?;
        }
        let found = file
            .metadata()
            .map_err(|e| failed("cannot read", &self.path, &e))?;
        let bytes = disk::bytes_on_disk(&found);
        if bytes > self.reserved && self.key.is_source() {
            self.reserved = self.space.grow_source(self.number, bytes)?;
        }
        if bytes > self.reserved {
            self.reserved = self.space.grow(self.number, bytes, 0)?;
        }
        // 2. Open, so that what cannot be opened never gets the name.
        let content = C::open(file).map_err(|e| {
            BlobspaceError::Io(format!("{} cannot be used: {e}", self.path.display()))
        })?;
        let now = space.clock.advance();
        let serial = self.number;
        let opened = Arc::new(Opened {
            content,
            base: self.key.base_key().unwrap_or_else(|| self.key.clone()),
            stored: Arc::new(space.stored(bytes, serial, now)),
            clock: space.clock.clone(),
        });
        // 3. Name and table change together.
        let surplus;
        {
            let mut state = space.lock();
            if state.table.contains_key(&self.key) {
                drop(state);
                drop(opened);
                return space.get(&self.key).ok_or(BlobspaceError::Contended);
            }
            let base = self.key.base_key();
            if base.is_some_and(|base| !state.table.contains_key(&base)) {
                return Err(BlobspaceError::Contended);
            }
            space
                .disk
                .rename(&self.path, &space.disk.pack(&self.key))
                .map_err(|e| failed("cannot seal", &self.path, &e))?;
            self.renamed = true;
            let me = state.writers.remove(&self.number);
            state.reserved -= me.map_or(0, |me| me.reserved);
            let stored = opened.stored.clone();
            state.insert(self.key.clone(), stored, Some(opened.clone()));
            state.unsynced.push(self.key.clone());
            surplus = state.close_surplus(space.tuning.open_mappings);
        }
        space.freed.notify_all();
        space.work.notify_one();
        drop(surplus);
        Ok(Lease(opened))
    }
}

impl<C: Content> Write for Reservation<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_some(bytes).map_err(io::Error::other)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<C: Content> Drop for Reservation<C> {
    fn drop(&mut self) {
        if self.renamed {
            return;
        }
        // Unlinked and closed first: only then are the blocks free to be given to others.
        if let Err(error) = disk::remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
        self.file = None;
        let mut state = self.space.lock();
        let me = state.writers.remove(&self.number);
        state.reserved -= me.map_or(0, |me| me.reserved);
        drop(state);
        self.space.freed.notify_all();
    }
}
