//! From an async download to a blocking reader, bounded by bytes (never by the number of
//! messages: the network's pieces are of any size). A full pipe is backpressure on TCP.

use bytes::Bytes;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc;
use tokio::sync::Semaphore;

/// The async end. Dropped without [`Sender::end`], the reader sees a broken pipe, not an end.
pub(super) struct Sender {
    pieces: mpsc::Sender<Option<Bytes>>,
    space: Arc<Semaphore>,
    window: usize,
}

/// The blocking end.
pub(super) struct Reader {
    pieces: mpsc::Receiver<Option<Bytes>>,
    space: Arc<Semaphore>,
    window: usize,
    piece: Bytes,
    /// What `piece` holds of the window.
    held: usize,
    ended: bool,
}

/// The reader is gone: it needs no more bytes.
#[derive(Debug)]
pub(super) struct Closed;

/// A pipe that holds up to `window` bytes (or one piece, if that is larger).
pub(super) fn pipe(window: usize) -> (Sender, Reader) {
    let (sender, receiver) = mpsc::channel();
    let space = Arc::new(Semaphore::new(window));
    let reader = Reader {
        pieces: receiver,
        space: space.clone(),
        window,
        piece: Bytes::new(),
        held: 0,
        ended: false,
    };
    (
        Sender {
            pieces: sender,
            space,
            window,
        },
        reader,
    )
}

impl Sender {
    /// Waits for space, then hands the piece on.
    pub(super) async fn send(&self, piece: Bytes) -> Result<(), Closed> {
        let held = u32::try_from(piece.len().min(self.window)).map_err(|_| Closed)?;
        let permit = self.space.acquire_many(held).await.map_err(|_| Closed)?;
        permit.forget();
        self.pieces.send(Some(piece)).map_err(|_| Closed)
    }

    /// All bytes were sent.
    pub(super) fn end(self) {
        // A reader that is gone needs no end.
        let _ = self.pieces.send(None);
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            self.space.add_permits(std::mem::take(&mut self.held));
            match self.pieces.recv() {
                Ok(Some(piece)) => {
                    self.held = piece.len().min(self.window);
                    self.piece = piece;
                }
                Ok(None) => self.ended = true,
                Err(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::BrokenPipe,
                        "the download was given up",
                    ));
                }
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.space.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_and_a_full_pipe_waits() {
        let (sender, mut reader) = pipe(10);
        sender.send(Bytes::from_static(b"12345678")).await.unwrap();
        let full = sender.send(Bytes::from_static(b"abc"));
        assert!(
            tokio::time::timeout(Duration::from_millis(20), full)
                .await
                .is_err()
        );
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        sender.send(Bytes::from(vec![b'x'; 100])).await.unwrap();
        sender.end();
        assert_eq!(reading.await.unwrap().unwrap().len(), 108);
    }

    #[tokio::test]
    async fn a_sender_that_is_dropped_is_no_end() {
        let (sender, mut reader) = pipe(10);
        sender.send(Bytes::from_static(b"1")).await.unwrap();
        drop(sender);
        let mut all = Vec::new();
        let error = tokio::task::spawn_blocking(move || reader.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_sender_notices_that_the_reader_is_gone() {
        let (sender, reader) = pipe(2);
        sender.send(Bytes::from_static(b"12")).await.unwrap();
        let waiting = tokio::spawn(async move { sender.send(Bytes::from_static(b"34")).await });
        drop(reader);
        assert!(waiting.await.unwrap().is_err());
    }
}
