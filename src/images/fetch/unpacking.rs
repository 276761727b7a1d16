//! One unpack into the blobspace: from bytes, wherever they come from, to the sealed pack.

use crate::blobspace::{Blobspace, BlobspaceError, Key, Lease};
use crate::config::Limits;
use crate::images::ledger::Ledger;
use crate::pack::Pack;
use crate::reference::Repository;
use crate::unpack::{Expected, Resources, Threads, UnpackError, unpack};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What an unpack needs beside its bytes.
pub(super) struct Unpacking {
    pub(super) blobspace: Arc<Blobspace<Pack>>,
    pub(super) limits: Limits,
    pub(super) layer: Expected,
    pub(super) index_bytes: u64,
    pub(super) cores: usize,
    /// Unpacks under way.
    pub(super) unpacking: Arc<AtomicUsize>,
}

/// Where the bytes come from.
pub(super) enum Supply {
    /// The registry delivers them for that repository: written down before the pack is sealed.
    Registry(Ledger, Repository),
    /// They are kept here, under this key.
    Kept(Key),
}

impl Unpacking {
    /// Blocking.
    pub(super) fn run<R: Read + Send>(
        self,
        bytes: R,
        key: &Key,
        from: &Supply,
    ) -> Result<Lease<Pack>, UnpackError> {
        let layer = &self.layer;
        let left = Arc::new(AtomicU64::new(layer.size));
        let bytes = Counted {
            bytes,
            left: left.clone(),
        };
        let busy = Busy::new(&self.unpacking);
        let resources = Resources {
            threads: match busy.count() < self.cores {
                true => Threads::Three,
                false => Threads::One,
            },
            index_bytes: self.index_bytes,
        };
        let mut reservation = self.blobspace.reserve(key).map_err(as_write)?;
        reservation.expect(left);
        if let Supply::Kept(source) = from {
            reservation.made_of(source);
        }
        let (reservation, _) = unpack(bytes, layer, &self.limits, &resources, reservation)?;
        if let Supply::Registry(ledger, owner) = from {
            ledger.claim_before_seal(owner, layer.digest);
        }
        reservation.commit().map_err(as_write)
    }
}

/// Says how many compressed bytes are still to come. Packs are not compressed: theirs will be no fewer.
struct Counted<R> {
    bytes: R,
    left: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        let left = self.left.load(Ordering::Relaxed);
        let left = left.saturating_sub(count as u64);
        self.left.store(left, Ordering::Relaxed);
        Ok(count)
    }
}

/// Counts an unpack under way.
struct Busy<'a>(&'a AtomicUsize, usize);

impl<'a> Busy<'a> {
    fn new(unpacking: &'a AtomicUsize) -> Busy<'a> {
        Busy(unpacking, unpacking.fetch_add(1, Ordering::Relaxed))
    }

    /// Unpacks that were under way already.
    fn count(&self) -> usize {
        self.1 + 1
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn as_write(error: BlobspaceError) -> UnpackError {
    UnpackError::Write(io::Error::other(error))
}
