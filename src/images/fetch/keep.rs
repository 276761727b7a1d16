//! Keeping the compressed blob of a layer, where `blobSpace.keepCompressedBytes` says so: a tee of the download,
//! written by a thread of its own as the one file of a pack.
//!
//! The download never waits for it: what is behind by more than a window, has no room, or cannot be written is not
//! kept, and nobody else hears of that. It is sealed when the unpack has verified the same bytes, and not before.

use super::{WINDOW, base_key};
use crate::blobspace::{Blobspace, BlobspaceError};
use crate::pack::{EntryHeader, Kind, Origin, Pack, PackError, Writer};
use crate::unpack::Expected;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// The one file of such a pack.
pub(super) const BLOB: &[u8] = b"blob";
/// What a pack of one file has beside its bytes, at most.
const OVERHEAD: u64 = 4096;
/// How often it is looked whether others need the space, while no byte comes.
const LOOK: Duration = Duration::from_millis(50);

/// The end into which a download is copied. Dropped without [`Tee::seal`], nothing is kept.
pub(super) struct Tee {
    told: mpsc::Sender<Told>,
    /// Bytes that were offered and are not written.
    backlog: Arc<AtomicUsize>,
}

enum Told {
    Piece(Bytes),
    /// These were all, and they are verified.
    Whole,
}

impl Tee {
    /// To be called on a runtime. Looks for room in the background.
    pub(super) fn start(blobspace: Arc<Blobspace<Pack>>, layer: Expected) -> Tee {
        let (told, pieces) = mpsc::channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let behind = backlog.clone();
        tokio::task::spawn_blocking(move || {
            let digest = layer.digest;
            match write(&blobspace, &layer, &pieces, &behind).or_else(no_fault) {
                Ok(Kept::Sealed) => tracing::debug!(%digest, "compressed blob kept"),
                Ok(Kept::Not(why)) => tracing::debug!(%digest, "compressed blob not kept: {why}"),
                Err(error) => tracing::warn!(%digest, %error, "compressed blob not kept"),
            }
        });
        Tee { told, backlog }
    }

    /// Copies a piece, which costs a reference to it. False: nothing is kept, drop it.
    pub(super) fn offer(&self, piece: &Bytes) -> bool {
        let behind = self.backlog.fetch_add(piece.len(), Ordering::Relaxed);
        // One piece may be larger than the window.
        let fits = behind == 0 || behind + piece.len() <= WINDOW;
        fits && self.told.send(Told::Piece(piece.clone())).is_ok()
    }

    /// All was offered, and is what the digest names.
    pub(super) fn seal(self) {
        // One that is not kept needs no end.
        let _ = self.told.send(Told::Whole);
    }
}

enum Kept {
    Sealed,
    Not(&'static str),
}

/// To give way is no fault, also where a write is told so first.
fn no_fault(error: PackError) -> Result<Kept, PackError> {
    match &error {
        PackError::Io(io) => match BlobspaceError::of(io) {
            Some(BlobspaceError::Contended) => Ok(Kept::Not("a pack needs the space")),
            _ => Err(error),
        },
        _ => Err(error),
    }
}

/// Blocking.
fn write(
    blobspace: &Arc<Blobspace<Pack>>,
    layer: &Expected,
    pieces: &Receiver<Told>,
    backlog: &AtomicUsize,
) -> Result<Kept, PackError> {
    let bytes = layer.size.saturating_add(OVERHEAD);
    let Some(reservation) = blobspace.reserve_source(&base_key(&layer.identity()), bytes) else {
        return Ok(Kept::Not("it is here, or there is no room"));
    };
    let gives_way: Arc<AtomicBool> = reservation.gives_way();
    let mut writer = Writer::new(reservation);
    let header = EntryHeader {
        path: BLOB,
        kind: Kind::File,
        link: b"",
        mode: 0o444,
        mtime: 0,
    };
    writer.entry(&header, layer.size)?;
    loop {
        if gives_way.load(Ordering::Relaxed) {
            return Ok(Kept::Not("a pack needs the space"));
        }
        match pieces.recv_timeout(LOOK) {
            Ok(Told::Piece(piece)) => {
                writer.content(&piece)?;
                backlog.fetch_sub(piece.len(), Ordering::Relaxed);
            }
            Ok(Told::Whole) => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Kept::Not("its download or unpack did not end well"));
            }
        }
    }
    let (reservation, _) = writer.finish(&Origin {
        digest: layer.digest,
        size: layer.size,
        diff_id: layer.digest,
    })?;
    match reservation.commit() {
        Ok(_) => Ok(Kept::Sealed),
        Err(error) => Err(PackError::Io(std::io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn to_give_way_is_no_fault_and_anything_else_is() {
        let wrapped = |error: BlobspaceError| PackError::Io(io::Error::other(error));
        assert!(no_fault(wrapped(BlobspaceError::Contended)).is_ok());
        let others = [
            wrapped(BlobspaceError::Full("disk".into())),
            PackError::Io(io::Error::from_raw_os_error(5)),
            PackError::TooLarge(String::new()),
        ];
        for error in others {
            assert!(no_fault(error).is_err());
        }
    }
}
