//! SHA-256 of files, on demand: for `Repr-Digest` and for the SRI of listings.
//!
//! What a caller may rely on: nothing is hashed on the reactor; one computation a file however many
//! ask at once, in turns with all others, so that a huge file holds up none for long; the results
//! of late are remembered, [`MOST`] twice at most. They are keyed by the file's place in its pack:
//! XXH3 is no cryptographic hash, so files of two images may be made to share one.

use super::flight::Flights;
use super::ledger::blocking;
use super::{FileNode, ImageError};
use crate::digest::{Algorithm, Digest, Hasher};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Digests remembered since the table was last turned over; as many from before are kept beside them.
const MOST: usize = 32_768;
/// Bytes hashed in one turn: some 40 ms.
const TURN: u64 = 64 << 20;
/// Bytes read in, and hashed, at a time.
const WINDOW: u64 = 1 << 20;

/// What a file counts in a turn beside its bytes.
const LEAST: u64 = 4096;

/// A file by its place: the number of its pack in this process, offset, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) pack: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// See the module. One per process; clones share.
#[derive(Clone)]
pub struct Integrity(Arc<Shared>);

struct Shared {
    /// Held for one look-up or insert.
    known: Mutex<Known>,
    flights: Flights<Place, Digest>,
    /// Computations at once: half of the cores, so that serving goes on.
    turns: Semaphore,
}

/// Two generations: when the young one is full it becomes the old one, whose entries are dropped
/// unless they were asked for again.
#[derive(Default)]
struct Known {
    young: HashMap<Place, Digest>,
    old: HashMap<Place, Digest>,
}

impl Known {
    fn get(&mut self, place: &Place) -> Option<Digest> {
        if let Some(digest) = self.young.get(place) {
            return Some(*digest);
        }
        let digest = *self.old.get(place)?;
        self.put(*place, digest);
        Some(digest)
    }

    fn put(&mut self, place: Place, digest: Digest) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(place, digest);
    }
}

impl Integrity {
    /// Computations run on the runtime that this is called on.
    pub(super) fn new() -> Integrity {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Integrity(Arc::new(Shared {
            known: Mutex::default(),
            flights: Flights::new(),
            turns: Semaphore::new((cores / 2).max(1)),
        }))
    }

    /// The digest, if it was computed lately. Never waits.
    pub fn known(&self, file: &FileNode) -> Option<Digest> {
        self.0.known(file)
    }

    /// The file's SHA-256, computed if need be: some 0.6 s a GB. Goes on when the caller leaves.
    ///
    /// # Errors
    /// [`ImageError::Internal`]: the disk cannot read the file; [`ImageError::Busy`].
    pub async fn sha256(&self, file: &Arc<FileNode>) -> Result<Digest, ImageError> {
        if let Some(digest) = self.known(file) {
            return Ok(digest);
        }
        let (shared, file) = (self.0.clone(), file.clone());
        let place = file.place();
        let job = || async move {
            let mut digests = shared.compute(VecDeque::from([file])).await?;
            digests.pop().ok_or_else(unreadable)
        };
        self.0.flights.join(place, job).await
    }

    /// The SHA-256 of each, in their order. Ends soon after the caller leaves; what is done by then is
    /// remembered.
    ///
    /// # Errors
    /// As [`Integrity::sha256`], for all if for one.
    pub async fn sha256_of_all(
        &self,
        files: Vec<Arc<FileNode>>,
    ) -> Result<Vec<Digest>, ImageError> {
        self.0.clone().compute(files.into()).await
    }
}

impl Shared {
    fn known(&self, file: &FileNode) -> Option<Digest> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&file.place())
    }

    fn remember(&self, file: &FileNode, digest: Digest) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.put(file.place(), digest);
    }

    async fn compute(
        self: Arc<Self>,
        files: VecDeque<Arc<FileNode>>,
    ) -> Result<Vec<Digest>, ImageError> {
        let mut work = Work {
            files,
            partial: None,
            digests: Vec::new(),
        };
        while !work.files.is_empty() {
            // It is never closed.
            let _turn = self.turns.acquire().await;
            let shared = self.clone();
            work = blocking(move || work.turn(&shared).map(|()| work))
                .await
                .ok_or_else(unreadable)??;
        }
        Ok(work.digests)
    }
}

/// Files to hash, and how far that is.
struct Work {
    files: VecDeque<Arc<FileNode>>,
    /// Of the first file: what is hashed, and how many bytes that is.
    partial: Option<(Hasher, u64)>,
    digests: Vec<Digest>,
}

impl Work {
    /// Hashes [`TURN`] bytes, or to the end. Blocking.
    fn turn(&mut self, shared: &Shared) -> Result<(), ImageError> {
        let mut left = TURN;
        while let Some(file) = self.files.front()
            && left > 0
        {
            if self.partial.is_none()
                && let Some(digest) = shared.known(file)
            {
                self.digests.push(digest);
                self.files.pop_front();
                continue;
            }
            let fresh = || (Hasher::new(Algorithm::Sha256), 0);
            let (mut hasher, mut at) = self.partial.take().unwrap_or_else(fresh);
            // A file costs something, however small.
            left = left.saturating_sub(LEAST);
            while at < file.length && left > 0 {
                let end = file.length.min(at + WINDOW.min(left));
                if !file.resident(at..end) {
                    file.populate(at..end).map_err(|error| {
                        tracing::error!(%error, "reading a pack failed");
                        unreadable()
                    })?;
                }
                hasher.update(file.slice(at..end));
                left -= end - at;
                at = end;
            }
            // Bytes of a page that could not be read look like zeros.
            if file.poisoned() {
                return Err(unreadable());
            }
            if at < file.length {
                self.partial = Some((hasher, at));
                return Ok(());
            }
            let digest = hasher.finish();
            shared.remember(file, digest);
            self.digests.push(digest);
            self.files.pop_front();
        }
        Ok(())
    }
}

fn unreadable() -> ImageError {
    ImageError::Internal("the disk cannot read this file, try again".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobspace::{Blobspace, Key};
    use crate::pack::{EntryHeader, Kind, Origin, Pack, Writer};

    fn place(number: u64) -> Place {
        Place {
            pack: 1,
            offset: number,
            length: 1,
        }
    }

    /// A sealed pack of these files, and the nodes of them.
    fn files(
        contents: &[Vec<u8>],
    ) -> (tempfile::TempDir, Arc<Blobspace<Pack>>, Vec<Arc<FileNode>>) {
        let directory = tempfile::tempdir().unwrap();
        let blobspace = Blobspace::<Pack>::open(directory.path(), 0).unwrap();
        let key = Key::base("sha256-ab.v1");
        let mut writer = Writer::new(blobspace.reserve(&key).unwrap());
        for (number, content) in contents.iter().enumerate() {
            let path = format!("f{number}");
            let header = EntryHeader {
                path: path.as_bytes(),
                kind: Kind::File,
                link: b"",
                mode: 0o644,
                mtime: 0,
            };
            writer.entry(&header, content.len() as u64).unwrap();
            writer.content(content).unwrap();
        }
        let digest = Digest::sha256(b"layer");
        let origin = Origin {
            digest,
            size: 1,
            diff_id: digest,
        };
        let lease = writer.finish(&origin).unwrap().0.commit().unwrap();
        let node = |number: usize| {
            let entry = lease.lookup(format!("f{number}").as_bytes()).unwrap();
            Arc::new(FileNode::new(&lease, &entry, None))
        };
        let nodes = (0..contents.len()).map(node).collect();
        (directory, blobspace, nodes)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_file_has_the_digest_of_its_own_bytes() {
        // Over the border of a turn, within one window, nothing.
        let large = vec![7; TURN as usize + 12_345];
        let contents = [b"small".to_vec(), large, Vec::new(), b"last".to_vec()];
        let (_directory, _blobspace, nodes) = files(&contents);
        let integrity = Integrity::new();
        let wanted: Vec<Digest> = contents
            .iter()
            .map(|content| Digest::sha256(content))
            .collect();
        assert_eq!(integrity.known(&nodes[1]), None);
        let (one, all) = tokio::join!(
            integrity.sha256(&nodes[1]),
            integrity.sha256_of_all(nodes.clone())
        );
        assert_eq!((one.unwrap(), all.unwrap()), (wanted[1], wanted.clone()));
        for (node, digest) in nodes.iter().zip(wanted) {
            assert_eq!(integrity.known(node), Some(digest));
            assert_eq!(integrity.sha256(node).await.unwrap(), digest);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_computation_goes_on_when_its_caller_leaves() {
        let (_directory, _blobspace, nodes) = files(&[vec![1; 8 << 20]]);
        let integrity = Integrity::new();
        // It cannot end before its caller leaves: all turns are taken until then.
        let turns = &integrity.0.turns;
        let all = u32::try_from(turns.available_permits()).unwrap();
        let taken = turns.acquire_many(all).await.unwrap();
        let hurry = std::time::Duration::from_millis(1);
        let left = tokio::time::timeout(hurry, integrity.sha256(&nodes[0])).await;
        assert!(left.is_err());
        drop(taken);
        for _ in 0..1000 {
            if integrity.known(&nodes[0]).is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it was never computed");
    }

    #[test]
    fn what_is_asked_for_stays_and_the_table_is_bounded() {
        let mut known = Known::default();
        let digest = Digest::sha256(b"x");
        for number in 0..3 * MOST as u64 {
            known.put(place(number), digest);
            assert!(known.get(&place(0)).is_some(), "{number}");
        }
        assert!(known.young.len() <= MOST && known.old.len() <= MOST);
        assert_eq!(known.get(&place(1)), None);
    }
}
