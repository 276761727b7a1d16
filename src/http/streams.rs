//! The streams of an HTTP/2 connection, each by itself: one whose client takes nothing of its body for
//! [`STREAM_STALL`] is reset (RST_STREAM, CANCEL), whatever else that client takes. That a connection as a
//! whole stands still is for its [`Pulse`](super::socket::Pulse) to say.
//!
//! hyper runs each stream as a future of its own ([`Streams`]). The body tells it, while it is polled, that
//! it handed something on ([`handed_on`]); from then on it waits for windows until it is polled again, or
//! until bytes of a [`Piece`] are written. Dropping the future resets the stream.

use super::socket::STALL_TIMEOUT;
use bytes::{Buf, Bytes};
use hyper::rt::Executor;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A little longer than a connection has, so that one that stands still as a whole is closed, not emptied.
const STREAM_STALL: Duration = STALL_TIMEOUT.saturating_add(Duration::from_secs(1));
/// A body of more bytes has its last byte in a piece of its own: hyper lets go of a stream with its last
/// piece, and then nobody could reset it. What is left unwatched is at most so much of a stream.
pub(super) const WATCHED: u64 = 1024;

thread_local! {
    /// What the body of the stream that is being polled told last.
    static TOLD: Cell<Option<Told>> = const { Cell::new(None) };
}

struct Told {
    /// A piece waits for the client; else the body waits for us.
    waits: bool,
    taken: Option<Taken>,
}

/// Counts what was written of a stream's body; shared by its pieces.
pub(super) type Taken = Arc<AtomicU64>;

/// To be called by a body when it was polled. `waits`: it gave a piece, which is the client's to take.
pub(super) fn handed_on(waits: bool, taken: Option<&Taken>) {
    let told = Told {
        waits,
        taken: taken.cloned(),
    };
    TOLD.set(Some(told));
}

/// Some of a body.
pub(super) struct Piece {
    bytes: Bytes,
    taken: Option<Taken>,
}

impl Piece {
    pub(super) fn new(bytes: Bytes, taken: Option<&Taken>) -> Piece {
        Piece {
            bytes,
            taken: taken.cloned(),
        }
    }

    fn took(&self, count: usize) {
        if let Some(taken) = &self.taken {
            taken.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.took(count);
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.took(count);
        self.bytes.copy_to_bytes(count)
    }
}

/// Runs the streams of a connection where it runs itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(watched(stream));
    }
}

/// The stream, until it ends or its client does not take what is there for it.
async fn watched(stream: impl Future<Output = ()>) {
    let mut stream = pin!(stream);
    let mut watch = Watch::default();
    poll_fn(|context| {
        TOLD.take();
        let polled = stream.as_mut().poll(context);
        let told = TOLD.take();
        match polled {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => watch.poll(told, context),
        }
    })
    .await;
}

/// Of one stream.
#[derive(Default)]
struct Watch {
    waits: bool,
    taken: Option<Taken>,
    /// Set when it first waits: few streams ever do.
    timer: Option<Pin<Box<Sleep>>>,
    /// What was written when the timer was set.
    written: u64,
    /// The body was polled since.
    polled: bool,
}

impl Watch {
    /// Ready: it is to be reset.
    fn poll(&mut self, told: Option<Told>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(told) = told {
            self.waits = told.waits;
            self.taken = told.taken.or(self.taken.take());
            self.polled = true;
        }
        if !self.waits {
            // Who makes the body may take any time.
            self.timer = None;
            return Poll::Pending;
        }
        let written = self
            .taken
            .as_ref()
            .map_or(0, |it| it.load(Ordering::Relaxed));
        let Some(timer) = &mut self.timer else {
            self.set(written);
            return self.poll(None, context);
        };
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if written == self.written && !self.polled {
            tracing::debug!("a stream whose client takes nothing of it is reset");
            return Poll::Ready(());
        }
        self.set(written);
        self.poll(None, context)
    }

    fn set(&mut self, written: u64) {
        (self.written, self.polled) = (written, false);
        let end = Instant::now() + STREAM_STALL;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(end),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(end))),
        }
    }
}
