//! The background thread: finds and measures the packs and counts the records after a start, moves the clock, makes packs
//! durable, writes last uses to mtimes.

use super::disk;
use super::key::Key;
use super::recovery;
use super::space::{Space, Stop};
use super::{Content, RecordKind};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How exact last uses are.
const TICK: Duration = Duration::from_millis(100);

/// The thread's life.
pub(super) fn run<C: Content>(space: &Arc<Space<C>>) {
    recovery::find(space);
    recovery::measure(space);
    space.scan_records();
    let mut written = Instant::now();
    loop {
        let (unsynced, stop) = {
            let mut state = space.lock();
            if state.stop == Stop::No && state.unsynced.is_empty() {
                let waited = space.work.wait_timeout(state, TICK);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            (std::mem::take(&mut state.unsynced), state.stop)
        };
        if stop == Stop::Now {
            return;
        }
        space.clock.advance();
        make_durable(space, unsynced);
        if stop == Stop::Flushed || written.elapsed() >= space.tuning.last_use_interval {
            write_last_uses(space);
            written = Instant::now();
        }
        if stop == Stop::Flushed && space.lock().unsynced.is_empty() {
            return;
        }
    }
}

/// Contents first, then the names, and only then the mode that says so.
fn make_durable<C: Content>(space: &Arc<Space<C>>, keys: Vec<Key>) {
    if keys.is_empty() {
        return;
    }
    // Each file with its claim on the space: closed before that is given back.
    let mut files = Vec::new();
    for key in keys {
        if space.lock().stop == Stop::Now {
            return;
        }
        let path = space.disk.pack(&key);
        let Some(stored) = space
            .lock()
            .table
            .get(&key)
            .map(|entry| entry.stored.clone())
        else {
            continue;
        };
        let synced = disk::open(&path).and_then(|file| {
            rustix::fs::fdatasync(&file)?;
            Ok(file)
        });
        match synced {
            Ok(file) => files.push((path, file, stored)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                // The kernel may have dropped the pages that it could not write: what is read now may not be read later.
                tracing::warn!(path = %path.display(), %error, "cannot make a pack durable: removing it");
                space.remove(&key, Some(&stored));
            }
        }
    }
    let packs = &space.disk.packs;
    if let Err(error) = File::open(packs).and_then(|directory| directory.sync_all()) {
        tracing::warn!(path = %packs.display(), %error, "cannot sync the directory of packs");
        return;
    }
    for (path, file, _stored) in files {
        if let Err(error) = file.set_permissions(Permissions::from_mode(0o400)) {
            tracing::warn!(path = %path.display(), %error, "cannot mark a pack as durable");
        }
    }
}

/// Last uses go into mtimes, so that the order of eviction outlives a restart. What was used
/// since the last time this ran is forgotten by kill -9: at most a minute's order.
fn write_last_uses<C: Content>(space: &Arc<Space<C>>) {
    let (packs, records) = {
        let mut state = space.lock();
        let mut packs: Vec<(Key, u64)> = Vec::new();
        for (key, entry) in &state.table {
            let last_use = entry.stored.last_use.load(Relaxed);
            if entry.stored.written_last_use.swap(last_use, Relaxed) < last_use {
                packs.push((key.clone(), last_use));
            }
        }
        (packs, state.records.take_unwritten())
    };
    let packs = packs
        .into_iter()
        .map(|(key, time)| (space.disk.pack(&key), time));
    let directory = |kind: RecordKind| space.disk.records(kind);
    let records = records
        .into_iter()
        .map(|(kind, name, time)| (directory(kind).join(&*name), time));
    for (path, time) in packs.chain(records) {
        match set_mtime(&path, time) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(path = %path.display(), %error, "cannot write a last use");
            }
            _ => {}
        }
    }
}

fn set_mtime(path: &Path, micros: u64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: (micros / 1_000_000) as i64,
            tv_nsec: (micros % 1_000_000 * 1000) as _,
        },
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// What a test wants to know: whether a sealed file is marked as durable.
#[cfg(test)]
pub(super) fn is_durable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o777 == 0o400)
}
