//! From the thread that makes an archive to the connection that sends it.

use super::{CHUNK, WAITING};
use bytes::Bytes;
use std::io::{self, Write};
use tokio::sync::mpsc;

/// A piece; None: that was all. An end without it is no end.
pub(in super::super) type Stream = mpsc::Receiver<io::Result<Option<Bytes>>>;

/// Writes wait for the client; they fail once it is gone.
pub(super) struct Chunks {
    sender: mpsc::Sender<io::Result<Option<Bytes>>>,
    buffer: Vec<u8>,
    /// Bytes written in all.
    written: u64,
}

pub(super) fn pair() -> (Chunks, Stream) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let chunks = Chunks {
        sender,
        buffer: Vec::with_capacity(CHUNK),
        written: 0,
    };
    (chunks, receiver)
}

impl Chunks {
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Does the work and says how it ended.
    pub(super) fn end(mut self, work: impl FnOnce(&mut Chunks) -> io::Result<()>) {
        let outcome = work(&mut self).and_then(|()| self.flush());
        if let Err(error) = &outcome
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::error!(%error, "an archive was not made to its end");
        }
        // Nobody to tell, if the client is gone.
        let _ = self.sender.blocking_send(outcome.map(|()| None));
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.written += taken as u64;
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        let sent = self.sender.blocking_send(Ok(Some(full.into())));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
