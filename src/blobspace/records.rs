//! Records: small named values beside the packs. A record's file is 16 bytes of header
//! (`bsrec-1\n`, then XXH3-64 of the rest, little endian) and the value, so that one torn
//! by a power cut or rotten reads as absent. Not synced: what is lost is fetched again.

use super::disk;
use super::space::{Space, State};
use super::{BlobspaceError, Content, RecordKind, Tuning};
use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"bsrec-1\n";
const HEADER: usize = 16;
/// Most bytes of all records, whatever the bound.
const MOST_BYTES: u64 = 64 << 20;

/// The records on disk. Bytes being written count already.
pub(super) struct RecordIndex {
    map: HashMap<(RecordKind, Box<str>), Record>,
    pub(super) bytes: u64,
    /// The scan of the directory, in the background after a start, has ended.
    pub(super) known: bool,
    most: usize,
    most_bytes: u64,
    next_generation: u64,
}

#[derive(Clone, Copy)]
struct Record {
    bytes: u64,
    /// [`super::lease::Clock`] time.
    last_use: u64,
    /// The last use that the file's mtime holds.
    written_last_use: u64,
    /// Another for each write under the name.
    generation: u64,
}

impl RecordIndex {
    pub(super) fn new(bound: u64, tuning: &Tuning) -> RecordIndex {
        RecordIndex {
            map: HashMap::new(),
            bytes: 0,
            known: false,
            most: tuning.records,
            most_bytes: MOST_BYTES.min(bound / 8),
            next_generation: 0,
        }
    }
    fn get_mut(&mut self, kind: RecordKind, name: &str) -> Option<&mut Record> {
        self.map.get_mut(&(kind, Box::from(name)))
    }
    /// Bytes of a record on disk; 0: there is none.
    pub(super) fn bytes_of(&self, of: &(RecordKind, Box<str>)) -> u64 {
        self.map.get(of).map_or(0, |record| record.bytes)
    }
    fn insert(&mut self, kind: RecordKind, name: &str, bytes: u64, last_use: u64, written: u64) {
        self.next_generation += 1;
        let record = Record {
            bytes,
            last_use,
            written_last_use: written,
            generation: self.next_generation,
        };
        // The caller has counted `bytes`; what lay under the name is gone.
        if let Some(old) = self.map.insert((kind, name.into()), record) {
            self.bytes -= old.bytes;
        }
    }
    /// Names and times of records whose last use is not on disk yet; takes them as written.
    pub(super) fn take_unwritten(&mut self) -> Vec<(RecordKind, Box<str>, u64)> {
        let mut unwritten = Vec::new();
        for ((kind, name), record) in &mut self.map {
            if record.written_last_use < record.last_use {
                record.written_last_use = record.last_use;
                unwritten.push((*kind, name.clone(), record.last_use));
            }
        }
        unwritten
    }
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

pub(super) fn body(file: &[u8]) -> Option<&[u8]> {
    let (header, body) = file.split_at_checked(HEADER)?;
    let sum = header.strip_prefix(MAGIC)?;
    (sum == xxh3_64(body).to_le_bytes()).then_some(body)
}

impl<C: Content> Space<C> {
    fn record_path(&self, kind: RecordKind, name: &str) -> PathBuf {
        self.disk.records(kind).join(name)
    }

    /// See [`super::Blobspace::record`].
    pub(super) fn record(&self, kind: RecordKind, name: &str) -> Option<Vec<u8>> {
        if !is_name(name) {
            return None;
        }
        let generation = {
            let now = self.clock.advance();
            let mut state = self.when_records_known(self.lock());
            let record = state.records.get_mut(kind, name)?;
            record.last_use = now;
            record.generation
        };
        let path = self.record_path(kind, name);
        let mut bytes = Vec::new();
        let read = disk::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        let why = match read {
            Ok(_) if body(&bytes).is_some() => {
                bytes.drain(..HEADER);
                return Some(bytes);
            }
            Ok(_) => "its checksum does not match".to_owned(),
            // Out of descriptors or memory: no fault of the record.
            Err(e)
                if !matches!(e.kind(), ErrorKind::NotFound)
                    && e.raw_os_error() != Some(libc::EIO) =>
            {
                tracing::warn!(path = %path.display(), error = %e, "cannot read a record");
                return None;
            }
            Err(error) => error.to_string(),
        };
        let mut state = self.lock();
        let same = state.records.get_mut(kind, name);
        if same.is_some_and(|record| record.generation == generation) {
            self.unlink_record(&mut state, kind, name);
            drop(state);
            tracing::warn!(path = %path.display(), why, "removed a record that cannot be used");
        }
        None
    }

    /// See [`super::Blobspace::record_names`].
    pub(super) fn record_names(&self, kind: RecordKind) -> Vec<String> {
        let state = self.when_records_known(self.lock());
        let all = state.records.map.keys();
        let mut names: Vec<String> = all
            .filter(|(of, _)| *of == kind)
            .map(|(_, name)| name.to_string())
            .collect();
        names.sort_unstable();
        names
    }

    /// See [`super::Blobspace::peek_record`].
    pub(super) fn peek_record(&self, kind: RecordKind, name: &str) -> Option<Vec<u8>> {
        if !is_name(name) {
            return None;
        }
        let mut bytes = Vec::new();
        let mut file = disk::open(&self.record_path(kind, name)).ok()?;
        file.read_to_end(&mut bytes).ok()?;
        body(&bytes).map(<[u8]>::to_vec)
    }

    /// See [`super::Blobspace::record_use`].
    pub(super) fn record_use(&self, kind: RecordKind, name: &str) -> Option<u64> {
        let mut state = self.when_records_known(self.lock());
        Some(state.records.get_mut(kind, name)?.last_use)
    }

    /// See [`super::Blobspace::touch_record`].
    pub(super) fn touch_record(&self, kind: RecordKind, name: &str, at: u64) {
        let at = at.min(self.clock.advance());
        let mut state = self.when_records_known(self.lock());
        if let Some(record) = state.records.get_mut(kind, name) {
            record.last_use = record.last_use.max(at);
        }
    }

    /// See [`super::Blobspace::put_record`].
    pub(super) fn put_record(
        &self,
        kind: RecordKind,
        name: &str,
        value: &[u8],
    ) -> Result<(), BlobspaceError> {
        if !is_name(name) {
            return Err(BlobspaceError::Io(format!(
                "{name:?} cannot name a record: at most 128 of A-Z a-z 0-9 . _ -"
            )));
        }
        let mut file = Vec::with_capacity(HEADER + value.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&xxh3_64(value).to_le_bytes());
        file.extend_from_slice(value);
        let bytes = disk::blocks(file.len() as u64);
        self.admit_record(kind, name, bytes)?;
        let written = self.write_record(&file);
        let path = self.record_path(kind, name);
        let now = self.clock.advance();
        let mut state = self.lock();
        let renamed = written.and_then(|tmp| {
            self.disk.rename(&tmp, &path).map_err(|e| {
                let _ = disk::remove(&tmp);
                self.disk.error("cannot write", &path, &e)
            })
        });
        match &renamed {
            Ok(()) => state.records.insert(kind, name, bytes, now, now),
            Err(_) => state.records.bytes -= bytes,
        }
        drop(state);
        self.freed.notify_all();
        renamed
    }

    /// Counts the bytes of a record to be written, evicting others for it.
    fn admit_record(&self, kind: RecordKind, name: &str, bytes: u64) -> Result<(), BlobspaceError> {
        let mut state = self.when_records_known(self.lock());
        let limit = state.records.most_bytes;
        if bytes > limit {
            return Err(BlobspaceError::LargerThanBound { bound: self.bound });
        }
        let over_bytes = (state.records.bytes + bytes).saturating_sub(limit);
        let new = state.records.get_mut(kind, name).is_none();
        let count = state.records.map.len() + usize::from(new);
        let over_count = count.saturating_sub(state.records.most);
        self.evict_oldest_records(&mut state, over_bytes, over_count);
        let count = state.records.map.len() + usize::from(new);
        if state.records.bytes + bytes > limit || count > state.records.most {
            return Err(BlobspaceError::Full(
                "more manifests are in use than the blobspace keeps".into(),
            ));
        }
        drop(state);
        let mut state = self.make_room(bytes)?;
        state.records.bytes += bytes;
        Ok(())
    }

    fn write_record(&self, file: &[u8]) -> Result<PathBuf, BlobspaceError> {
        let write = || {
            let (path, out) = self.disk.create()?;
            let mut done = 0;
            while done < file.len() {
                match (self.tuning.write_at)(&out, &file[done..], done as u64) {
                    Ok(written) if written > 0 => done += written,
                    failed => {
                        let error = failed.err().unwrap_or(ErrorKind::WriteZero.into());
                        let _ = disk::remove(&path);
                        return Err(error);
                    }
                }
            }
            Ok(path)
        };
        self.with_disk_space(file.len() as u64, write)
            .map_err(|e| self.disk.error("cannot write in", &self.disk.tmp, &e))
    }

    /// See [`super::Blobspace::remove_record`].
    pub(super) fn remove_record(&self, kind: RecordKind, name: &str) {
        if is_name(name) {
            let mut state = self.when_records_known(self.lock());
            self.unlink_record(&mut state, kind, name);
            drop(state);
            self.freed.notify_all();
        }
    }

    fn unlink_record(&self, state: &mut State<C>, kind: RecordKind, name: &str) -> u64 {
        let path = self.record_path(kind, name);
        if let Err(error) = disk::remove(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a record");
            return 0;
        }
        let gone = state.records.map.remove(&(kind, Box::from(name)));
        let bytes = gone.map_or(0, |record| record.bytes);
        state.records.bytes -= bytes;
        bytes
    }

    /// Evicts records that nobody used for a while until `bytes` are free. Returns how many were freed.
    pub(super) fn evict_records(&self, state: &mut State<C>, bytes: u64) -> u64 {
        self.evict_oldest_records(state, bytes, 0)
    }

    fn evict_oldest_records(&self, state: &mut State<C>, bytes: u64, count: usize) -> u64 {
        if bytes == 0 && count == 0 {
            return 0;
        }
        let protection = self.tuning.record_protection.as_micros() as u64;
        let now = self.clock.advance();
        let mut idle: Vec<(u64, RecordKind, Box<str>)> = state
            .records
            .map
            .iter()
            .filter(|(of, record)| {
                record.last_use.saturating_add(protection) <= now && !state.pins.has_record(of)
            })
            .map(|((kind, name), record)| (record.last_use, *kind, name.clone()))
            .collect();
        idle.sort_unstable_by_key(|(last_use, ..)| *last_use);
        // Some more than asked for, since finding them costs a look at all.
        let count = if count == 0 {
            0
        } else {
            count + state.records.most / 64
        };
        let (mut freed, mut gone) = (0, 0);
        for (_, kind, name) in idle {
            if freed >= bytes && gone >= count {
                break;
            }
            freed += self.unlink_record(state, kind, &name);
            gone += 1;
        }
        freed
    }

    /// Counts the records on disk, once, after a start. Opens none.
    pub(super) fn scan_records(&self) {
        let mut found = Vec::new();
        for kind in RecordKind::ALL {
            scan_directory(&self.disk.records(kind), |name, bytes, mtime| {
                found.push((kind, name, bytes, mtime));
            });
        }
        let now = self.clock.advance();
        let mut state = self.lock();
        for (kind, name, bytes, mtime) in found {
            state.records.bytes += bytes;
            let last_use = mtime.min(now);
            state.records.insert(kind, &name, bytes, last_use, last_use);
        }
        let records = &state.records;
        let over_bytes = records.bytes.saturating_sub(records.most_bytes);
        let over_count = records.map.len().saturating_sub(records.most);
        self.evict_oldest_records(&mut state, over_bytes, over_count);
        drop(state);
        self.shrink_sources();
        self.shrink_to_bound();
        self.lock().records.known = true;
        self.freed.notify_all();
    }
}

fn scan_directory(path: &Path, mut each: impl FnMut(String, u64, u64)) {
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().into_string().ok().filter(|n| is_name(n));
        match (name, entry.metadata()) {
            (Some(name), Ok(found)) if found.is_file() => {
                let mtime = found
                    .modified()
                    .ok()
                    .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
                let mtime = mtime.map_or(0, |age| age.as_micros() as u64);
                each(name, disk::bytes_on_disk(&found), mtime);
            }
            _ => {
                let path = entry.path();
                tracing::warn!(path = %path.display(), "removing what is no record of ours");
                let _ = disk::remove_any(&path);
            }
        }
    }
}
