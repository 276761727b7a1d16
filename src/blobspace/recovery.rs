//! What a start finds, and makes of it. Looks at names, then at sizes; opens no pack.

use super::disk;
use super::key::Key;
use super::lock::OWN;
use super::space::Space;
use super::{BlobspaceError, Content, io_error};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

/// What belongs directly into our directory.
const KNOWN: [&str; 6] = ["lock", "control", "boot-id", "packs", "tmp", "records"];
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Cleans the directory up. At packs it looks only when the machine was started since we last wrote here;
/// else [`find`] and [`measure`] do, in the background, so that a start takes no longer with a thousand packs.
pub(super) fn recover<C: Content>(space: &Arc<Space<C>>) -> Result<(), BlobspaceError> {
    sweep(space)?;
    space.read_pins();
    if booted_since(space) {
        list(space, true)?;
        // Before anything is written: that may have to evict.
        measure(space);
        remember_boot(space);
    }
    Ok(())
}

/// Fills the table with the packs that are on disk, once, after a start. Whoever asks for a pack waits for this.
pub(super) fn find<C: Content>(space: &Arc<Space<C>>) {
    if !space.lock().found
        && let Err(error) = list(space, false)
    {
        // Nothing is reused; what is fetched again replaces it.
        tracing::error!(%error, "the packs on disk cannot be listed");
        space.lock().found = true;
        space.freed.notify_all();
    }
}

fn list<C: Content>(space: &Arc<Space<C>>, booted: bool) -> Result<(), BlobspaceError> {
    let mut found = scan(space)?;
    if booted {
        // Written before a power cut or restart of the machine, and never synced: may be torn.
        drop_where(
            space,
            &mut found,
            "it was not durable yet when the machine stopped",
            |key, _| !fs::symlink_metadata(space.disk.pack(key)).is_ok_and(|data| durable(&data)),
        )?;
    }
    drop_where(space, &mut found, "its base is gone", |key, all| {
        let base = key.base_key();
        base.is_some_and(|base| all.binary_search(&base).is_err())
    })?;
    if space.tuning.source_bytes == 0 {
        let why = "sources of packs are not kept any more";
        drop_where(space, &mut found, why, |key, _| key.is_source())?;
    }
    let mut state = space.lock();
    for key in found {
        let serial = state.serial();
        state.insert(key, Arc::new(space.stored(0, serial, 0)), None);
    }
    state.found = true;
    drop(state);
    space.freed.notify_all();
    Ok(())
}

/// Finds out sizes, last uses and which packs are not durable, once, after a start. Opens none.
pub(super) fn measure<C: Content>(space: &Arc<Space<C>>) {
    let packs: Vec<_> = {
        let state = space.lock();
        if state.measured {
            return;
        }
        let each = state.table.iter();
        each.map(|(key, entry)| (key.clone(), entry.stored.clone()))
            .collect()
    };
    let found = packs.iter().map(|(key, _)| {
        // One that is gone has no bytes; whoever asks for it finds out.
        fs::symlink_metadata(space.disk.pack(key)).ok()
    });
    let found: Vec<Option<Metadata>> = found.collect();
    let now = space.clock.advance();
    let mut state = space.lock();
    for ((key, stored), data) in packs.iter().zip(found) {
        let Some(data) = data else { continue };
        let mtime = data
            .modified()
            .ok()
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let mtime = mtime.map_or(0, |age| age.as_micros() as u64).min(now);
        let bytes = disk::bytes_on_disk(&data);
        stored.bytes.store(bytes, Relaxed);
        stored.written_last_use.store(mtime, Relaxed);
        stored.touch(mtime);
        state.sealed += bytes;
        state.sources += if key.is_source() { bytes } else { 0 };
        if !durable(&data) {
            state.unsynced.push(key.clone());
        }
    }
    state.measured = true;
    drop(state);
    space.freed.notify_all();
}

/// The mode says so.
fn durable(found: &Metadata) -> bool {
    found.mode() & 0o200 == 0
}

/// Empties `tmp`, and removes what is not ours from where only we write: it could not be counted.
fn sweep<C: Content>(space: &Space<C>) -> Result<(), BlobspaceError> {
    let disk = &space.disk;
    let failed = |path, e| io_error("cannot read", path, &e);
    for entry in fs::read_dir(&disk.tmp)
        .map_err(|e| failed(&disk.tmp, e))?
        .flatten()
    {
        let path = entry.path();
        disk::remove_any(&path).map_err(|e| io_error("cannot remove", &path, &e))?;
    }
    for entry in fs::read_dir(&disk.root)
        .map_err(|e| failed(&disk.root, e))?
        .flatten()
    {
        let name = entry.file_name();
        if !KNOWN.iter().any(|known| name == *known) {
            let path = entry.path();
            tracing::warn!(path = %path.display(), "removing what does not belong in {OWN}");
            disk::remove_any(&path).map_err(|e| io_error("cannot remove", &path, &e))?;
        }
    }
    Ok(())
}

/// The keys of the sealed packs, sorted.
fn scan<C: Content>(space: &Space<C>) -> Result<Vec<Key>, BlobspaceError> {
    let packs = &space.disk.packs;
    let mut found = Vec::new();
    for entry in fs::read_dir(packs)
        .map_err(|e| io_error("cannot read", packs, &e))?
        .flatten()
    {
        let key = entry.file_name().to_str().and_then(Key::of_file_name);
        match (key, entry.file_type()) {
            (Some(key), Ok(kind)) if kind.is_file() => found.push(key),
            _ => {
                let path = entry.path();
                tracing::warn!(path = %path.display(), "removing what is no pack of ours");
                disk::remove_any(&path).map_err(|e| io_error("cannot remove", &path, &e))?;
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn drop_where<C: Content>(
    space: &Space<C>,
    found: &mut Vec<Key>,
    why: &str,
    bad: impl Fn(&Key, &[Key]) -> bool,
) -> Result<(), BlobspaceError> {
    let verdicts: Vec<bool> = found.iter().map(|key| bad(key, found)).collect();
    for (key, _) in found.iter().zip(&verdicts).filter(|(_, bad)| **bad) {
        let path = space.disk.pack(key);
        tracing::info!(path = %path.display(), "removing a pack: {why}");
        disk::remove(&path).map_err(|e| io_error("cannot remove", &path, &e))?;
    }
    let mut verdicts = verdicts.into_iter();
    found.retain(|_| verdicts.next() != Some(true));
    Ok(())
}

/// Whether the machine was started since we last wrote here. When that is not known: yes.
fn booted_since<C: Content>(space: &Space<C>) -> bool {
    let now = fs::read(BOOT_ID);
    let then = fs::read(space.disk.root.join("boot-id"));
    match (now, then) {
        (Ok(now), Ok(then)) => now != then,
        _ => true,
    }
}

/// Only after the packs that are not durable were dropped: killed in between, the next start
/// drops them. Without it the next start drops more than it has to, which is no reason not to run.
fn remember_boot<C: Content>(space: &Space<C>) {
    let Ok(boot) = fs::read(BOOT_ID) else {
        return;
    };
    let target = space.disk.root.join("boot-id");
    let stored = space.with_disk_space(boot.len() as u64, || {
        let (path, file) = space.disk.create()?;
        let stored = (space.tuning.write_at)(&file, &boot, 0);
        stored
            .and_then(|_| fs::rename(&path, &target))
            .inspect_err(|_| {
                let _ = disk::remove(&path);
            })
    });
    if let Err(error) = stored {
        tracing::warn!(path = %target.display(), %error, "cannot remember this boot");
    }
}
