//! The two ways to run the stages: one after another on the caller's thread, or on three.
//!
//! ```text
//! source (thread) ─┬─ compressed ─▶ hashes (thread): layer digest, diff ID
//!                  └─ plain, shared by Arc ─▶ hashes, and ─▶ sink (caller): tar, pack
//! ```
//! Every queue is short and every buffer comes back: at most [`PLAIN_CHUNKS`] MiB and
//! [`COMPRESSED_CHUNKS`] quarters of one are in use, however fast a stage is.

use super::memory::Memory;
use super::sink::Sink;
use super::source::{COMPRESSED, Chunk, Ended, Gone, Next, PLAIN, run};
use super::{Expected, UnpackError};
use crate::config::Limits;
use crate::digest::{Algorithm, Digest, Hasher};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const PLAIN_CHUNKS: usize = 6;
const COMPRESSED_CHUNKS: usize = 8;

/// What the stream turned out to be.
pub(super) struct Outcome {
    pub(super) ended: Ended,
    pub(super) digest: Digest,
    /// SHA-256 when the image says no diff ID.
    pub(super) diff_id: Digest,
}

/// The digests being computed.
struct Hashes {
    layer: Hasher,
    diff: Hasher,
}

impl Hashes {
    fn new(expected: &Expected) -> Hashes {
        Hashes {
            layer: expected.digest.hasher(),
            diff: match &expected.diff_id {
                Some(diff_id) => diff_id.hasher(),
                None => Hasher::new(Algorithm::Sha256),
            },
        }
    }

    fn plain(&mut self, bytes: &[u8]) {
        self.diff.update(bytes);
    }

    fn outcome(self, ended: Ended) -> Outcome {
        Outcome {
            ended,
            digest: self.layer.finish(),
            diff_id: self.diff.finish(),
        }
    }
}

/// All stages on this thread.
struct Inline<'s, 'a, W> {
    hashes: Hashes,
    sink: &'s mut Sink<'a, W>,
    failed: Option<UnpackError>,
}

impl<W: Write> Next for Inline<'_, '_, W> {
    fn compressed(&mut self, chunk: Chunk) -> Result<Chunk, Gone> {
        self.hashes.layer.update(chunk.data());
        Ok(chunk)
    }

    fn plain(&mut self, chunk: Chunk) -> Result<Chunk, Gone> {
        self.hashes.plain(chunk.data());
        match self.sink.feed(chunk.data()) {
            Ok(()) => Ok(chunk),
            Err(error) => {
                self.failed = Some(error);
                Err(Gone)
            }
        }
    }

    fn wants_plain(&self) -> bool {
        !self.sink.is_refused()
    }
}

/// Runs all stages on the caller's thread.
pub(super) fn one_thread<R: Read, W: Write>(
    blob: R,
    expected: &Expected,
    limits: &Limits,
    memory: &Memory,
    sink: &mut Sink<'_, W>,
) -> Result<Outcome, UnpackError> {
    let mut next = Inline {
        hashes: Hashes::new(expected),
        sink,
        failed: None,
    };
    let ended = run(blob, expected, limits, memory, &mut next);
    match next.failed {
        Some(error) => Err(error),
        None => Ok(next.hashes.outcome(ended)),
    }
}

enum ToHash {
    Compressed(Chunk),
    Plain(Arc<Chunk>),
}

/// The source's end of the queues.
struct Queues<'a> {
    hash: SyncSender<ToHash>,
    sink: SyncSender<Arc<Chunk>>,
    compressed_back: Receiver<Chunk>,
    plain_back: Receiver<Chunk>,
    /// The tar is refused: only hash from now on.
    refused: &'a AtomicBool,
    /// The sink failed: stop.
    abandoned: &'a AtomicBool,
}

impl Next for Queues<'_> {
    fn compressed(&mut self, chunk: Chunk) -> Result<Chunk, Gone> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Gone);
        }
        self.hash
            .send(ToHash::Compressed(chunk))
            .map_err(|_| Gone)?;
        self.compressed_back.recv().map_err(|_| Gone)
    }

    fn plain(&mut self, chunk: Chunk) -> Result<Chunk, Gone> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Gone);
        }
        let chunk = Arc::new(chunk);
        self.hash
            .send(ToHash::Plain(Arc::clone(&chunk)))
            .map_err(|_| Gone)?;
        self.sink.send(chunk).map_err(|_| Gone)?;
        let mut chunk = self.plain_back.recv().map_err(|_| Gone)?;
        chunk.filled = 0;
        Ok(chunk)
    }

    fn wants_plain(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }
}

/// Gives a buffer back if this was its last user. The queue has room for all buffers, and
/// when the source is gone nobody needs them.
fn give_back(chunk: Arc<Chunk>, back: &SyncSender<Chunk>) {
    if let Some(chunk) = Arc::into_inner(chunk) {
        let _ = back.send(chunk);
    }
}

/// Runs source and hashes on threads of their own, parser and writer on the caller's.
pub(super) fn three_threads<R: Read + Send, W: Write>(
    blob: R,
    expected: &Expected,
    limits: &Limits,
    memory: &Memory,
    sink: &mut Sink<'_, W>,
) -> Result<Outcome, UnpackError> {
    let (to_hash, hash_queue) = sync_channel(PLAIN_CHUNKS + COMPRESSED_CHUNKS);
    let (to_sink, sink_queue) = sync_channel::<Arc<Chunk>>(PLAIN_CHUNKS);
    let (compressed_back, compressed) = sync_channel(COMPRESSED_CHUNKS);
    let (plain_back, plain) = sync_channel(PLAIN_CHUNKS);
    for _ in 1..COMPRESSED_CHUNKS {
        let _ = compressed_back.send(Chunk::new(COMPRESSED));
    }
    for _ in 1..PLAIN_CHUNKS {
        let _ = plain_back.send(Chunk::new(PLAIN));
    }
    let refused = AtomicBool::new(false);
    let abandoned = AtomicBool::new(false);
    let mut queues = Queues {
        hash: to_hash,
        sink: to_sink,
        compressed_back: compressed,
        plain_back: plain,
        refused: &refused,
        abandoned: &abandoned,
    };
    let sink_plain_back = plain_back.clone();
    std::thread::scope(|scope| {
        let source = scope.spawn(move || run(blob, expected, limits, memory, &mut queues));
        let hasher = scope.spawn(move || {
            let mut hashes = Hashes::new(expected);
            for message in hash_queue {
                match message {
                    ToHash::Compressed(chunk) => {
                        hashes.layer.update(chunk.data());
                        let _ = compressed_back.send(chunk);
                    }
                    ToHash::Plain(chunk) => {
                        hashes.plain(chunk.data());
                        give_back(chunk, &plain_back);
                    }
                }
            }
            hashes
        });
        let mut failed = None;
        // Every buffer goes back even after a failure, so that no stage waits for one.
        for chunk in sink_queue {
            if failed.is_none() {
                if let Err(error) = sink.feed(chunk.data()) {
                    failed = Some(error);
                    abandoned.store(true, Ordering::Relaxed);
                }
                refused.store(sink.is_refused(), Ordering::Relaxed);
            }
            give_back(chunk, &sink_plain_back);
        }
        let ended = source
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let hashes = hasher
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match failed {
            Some(error) => Err(error),
            None => Ok(hashes.outcome(ended)),
        }
    })
}
