//! A batch of jobs becomes a side pack.

use super::shelf::{Content, Shelf, path_of};
use super::{Job, Shared, pile};
use crate::blobspace::{BlobspaceError, Key, Lease, Reservation};
use crate::encode::encode;
use crate::pack::{EntryHeader, Kind, Origin, Pack, PackError, Writer};
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What a side pack's name begins with: raise the number when other bytes are to be made of the same files.
const NAME: &str = "encoded-1-";
/// A variant that saves less than one part in so many is not kept.
const LEAST_SAVING: u64 = 16;
/// Pauses of a base: its variants were evicted, so space is short; older writers need the space;
/// there is none; the disk fails.
const EVICTED: Duration = Duration::from_secs(60);
const CONTENDED: Duration = Duration::from_secs(5);
const FULL: Duration = Duration::from_secs(600);
const FAILED: Duration = Duration::from_secs(60);

/// Makes what is not there yet and publishes it. Blocking. What fails is logged, and the base rests.
pub(super) fn make(shared: &Shared, jobs: &[Job]) {
    let Some(Job { base, shelf, .. }) = jobs.first() else {
        return;
    };
    let there = refresh(shared, base, shelf);
    let wanted = |job: &&Job| !shelf.has(job.content, job.coding);
    let jobs: Vec<&Job> = jobs.iter().filter(wanted).collect();
    if jobs.is_empty() || shelf.rests() {
        return;
    }
    if let Err(error) = write(shared, base, shelf, &jobs, &there) {
        let pause = match blobspace_error(&error) {
            Some(BlobspaceError::Contended) => CONTENDED,
            Some(
                BlobspaceError::LargerThanBound { .. }
                | BlobspaceError::Pinned { .. }
                | BlobspaceError::Full(_),
            ) => FULL,
            Some(BlobspaceError::Io(_)) | None => {
                tracing::error!(pack = base.as_str(), %error, "variants could not be written");
                FAILED
            }
        };
        shelf.rest(pause);
    }
}

fn key_of(base: &Key, number: u64) -> Key {
    Key::side(base, &format!("{NAME}{number}"))
}

fn blobspace_error(error: &PackError) -> Option<&BlobspaceError> {
    match error {
        PackError::Io(error) => BlobspaceError::of(error),
        _ => None,
    }
}

fn failed(error: BlobspaceError) -> PackError {
    PackError::Io(std::io::Error::other(error))
}

/// Brings the shelf up to date with the disk: side packs of an earlier run, those that were evicted.
/// Returns the side packs there are, newest first.
fn refresh(shared: &Shared, base: &Key, shelf: &Shelf) -> Vec<(u64, Lease<Pack>)> {
    let known = shelf.open_packs();
    let mut there: Vec<(u64, Lease<Pack>)> = Vec::new();
    for key in shared.blobspace.sides(base) {
        let name = key.side_name().and_then(|name| name.strip_prefix(NAME));
        let Some(number) = name.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let Some(pack) = shared.blobspace.get(&key) else {
            continue;
        };
        if pack.poisoned() {
            shared.blobspace.discard(&key);
            continue;
        }
        there.push((number, pack));
    }
    there.sort_unstable_by_key(|(number, _)| *number);
    let numbers: Vec<u64> = there.iter().map(|(number, _)| *number).collect();
    if shelf.retain(&numbers) > 0 {
        shelf.rest(EVICTED);
    }
    for (number, pack) in &there {
        if !known.contains(number) {
            shelf.adopt(*number, pack, pack.downgrade());
        }
    }
    there.reverse();
    there
}

fn write(
    shared: &Shared,
    base: &Key,
    shelf: &Shelf,
    jobs: &[&Job],
    there: &[(u64, Lease<Pack>)],
) -> Result<(), PackError> {
    let number = there.first().map_or(1, |(newest, _)| newest + 1);
    let key = key_of(base, number);
    let mut batch = Batch {
        shared,
        writer: Writer::new(shared.blobspace.reserve(&key).map_err(failed)?),
        written: HashSet::new(),
        bytes: 0,
        origin: None,
    };
    let mut worthless: HashSet<Content> = HashSet::new();
    for job in jobs {
        // One coding that saves too little speaks for the others.
        if !worthless.contains(&job.content) && !batch.encode(job, &mut worthless)? {
            return Ok(());
        }
    }
    let sizes: Vec<u64> = there.iter().map(|(_, pack)| pack.disk_bytes()).collect();
    let older = &there[..pile::taken_over(batch.bytes, &sizes)];
    for (_, pack) in older {
        batch.copy(pack)?;
    }
    let Batch {
        writer,
        origin: Some(origin),
        ..
    } = batch
    else {
        // Every file's pack was evicted meanwhile.
        return Ok(());
    };
    let (reservation, _) = writer.finish(&origin)?;
    let pack = reservation.commit().map_err(failed)?;
    shelf.adopt(number, &pack, pack.downgrade());
    let mut left: Vec<u64> = there[older.len()..].iter().map(|(it, _)| *it).collect();
    left.push(number);
    shelf.retain(&left);
    for (older, _) in older {
        shared.blobspace.discard(&key_of(base, *older));
    }
    Ok(())
}

/// A side pack that is being written.
struct Batch<'a> {
    shared: &'a Shared,
    writer: Writer<Reservation<Pack>>,
    /// Paths in it.
    written: HashSet<Vec<u8>>,
    bytes: u64,
    /// Of the layer, once a file of it was read.
    origin: Option<Origin>,
}

impl Batch<'_> {
    /// Encodes one file. False: the process ends.
    fn encode(&mut self, job: &Job, worthless: &mut HashSet<Content>) -> Result<bool, PackError> {
        // Gone meanwhile: there is nothing to encode, and nobody to encode for.
        let Some(pack) = job.pack.upgrade() else {
            return Ok(true);
        };
        pack.populate(job.offset, job.content.length)?;
        let range = job.offset as usize..(job.offset + job.content.length) as usize;
        let Some(source) = pack.bytes().get(range) else {
            return Ok(true);
        };
        let most = source.len() - source.len() / LEAST_SAVING as usize;
        let ending = || self.shared.ending.load(Relaxed);
        let made = encode(job.coding, source, most, ending)?;
        if ending() {
            return Ok(false);
        }
        if pack.poisoned() {
            return Ok(true);
        }
        self.origin = Some(pack.origin());
        match made {
            Some(bytes) => {
                let metrics = &self.shared.metrics;
                metrics.encoded(job.coding.token(), job.content.length, bytes.len() as u64);
                self.add(&path_of(job.content, Some(job.coding)), &bytes)?;
            }
            None => {
                worthless.insert(job.content);
                self.add(&path_of(job.content, None), &[])?;
            }
        }
        Ok(true)
    }

    /// Takes over what another side pack holds.
    fn copy(&mut self, pack: &Pack) -> Result<(), PackError> {
        for node in pack.nodes().filter(|node| node.kind == Kind::File) {
            pack.populate(node.offset, node.length)?;
            let range = node.offset as usize..(node.offset + node.length) as usize;
            if let (Some(bytes), Ok(path)) =
                (pack.bytes().get(range), std::str::from_utf8(node.path))
            {
                self.add(path, bytes)?;
            }
        }
        if pack.poisoned() {
            let text = "a page of a side pack could not be read";
            return Err(PackError::Io(std::io::Error::other(text)));
        }
        Ok(())
    }

    /// The first of a path counts: what is new goes before what is copied.
    fn add(&mut self, path: &str, bytes: &[u8]) -> Result<(), PackError> {
        if !self.written.insert(path.as_bytes().to_vec()) {
            return Ok(());
        }
        let header = EntryHeader {
            path: path.as_bytes(),
            kind: Kind::File,
            link: b"",
            mode: 0o444,
            mtime: 0,
        };
        self.bytes += bytes.len() as u64;
        self.writer.entry(&header, bytes.len() as u64)?;
        self.writer.content(bytes)
    }
}
