//! A client's socket and the clock that runs beside it.
//!
//! hyper's HTTP/1 has one timer, for heads, and starts it anew (with an allocation) for each request; it also
//! counts the pause between requests. Here the socket notes what it is doing on a [`Pulse`], two
//! numbers, and the connection's one timer looks at them when it fires or when they call for less
//! time than it was set to: a request in steady state touches no timer.

use super::frames::Frames;
use super::transport::{Protocol, Transport};
use crate::images::FileNode;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::time::Instant;

/// Who sends no whole head is closed so long after the accept, or after a head's first byte.
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// What is said to a client that is closed for slowness (HTTP/2: GOAWAY) has gone out after that.
pub(super) const LAST_WORD: Duration = Duration::from_millis(500);
/// When closing begins, so that it has ended within [`HEAD_LIMIT`], late timers included.
pub(super) const HEAD_TIMEOUT: Duration = head_timeout(HEAD_LIMIT, LAST_WORD);
/// Between requests.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Without one byte taken by a client that is being answered.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The same once the connection is to end.
pub(super) const LAST_STALL: Duration = Duration::from_secs(10);
/// RFC 9113 §3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A limit without what closing takes, and as much again for timers and a busy machine.
const fn head_timeout(limit: Duration, closing: Duration) -> Duration {
    limit.saturating_sub(closing.saturating_mul(2))
}

/// What a connection is doing, as far as its deadlines care. Times are milliseconds since the
/// accept, plus one; 0: not so.
pub(super) struct Pulse {
    accepted: Instant,
    /// Requests being answered.
    answering: AtomicU32,
    /// A request's head is expected, or comes, since.
    head: AtomicU64,
    /// No request is there since.
    idle: AtomicU64,
    /// A write waits for the client since.
    blocked: AtomicU64,
    /// Bodies that wait for the client to take more of them (HTTP/2: by its windows).
    offered: AtomicU32,
    /// Some of a body was last offered or taken.
    taken: AtomicU64,
    /// It is to end: who takes nothing is not waited for.
    ending: AtomicBool,
}

impl Pulse {
    pub(super) fn new() -> Arc<Pulse> {
        Arc::new(Pulse {
            accepted: Instant::now(),
            answering: AtomicU32::new(0),
            head: AtomicU64::new(1),
            idle: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            offered: AtomicU32::new(0),
            taken: AtomicU64::new(1),
            ending: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        1 + u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn at(&self, since: u64) -> Instant {
        self.accepted + Duration::from_millis(since - 1)
    }

    /// A request's head has come whole: it is being answered until the guard is dropped.
    pub(super) fn answer(self: &Arc<Pulse>) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        self.idle.store(0, Ordering::Relaxed);
        Answering {
            pulse: self.clone(),
            offers: false,
        }
    }

    /// When the connection is to be closed if nothing more happens; None: not for what it does now.
    pub(super) fn due(&self) -> Option<Instant> {
        let blocked = self.blocked.load(Ordering::Relaxed);
        if self.answering.load(Ordering::Relaxed) > 0 {
            let offered = self.offered.load(Ordering::Relaxed) > 0;
            let taken = offered.then(|| self.taken.load(Ordering::Relaxed));
            let since = taken
                .into_iter()
                .chain((blocked > 0).then_some(blocked))
                .min();
            let patience = match self.ending.load(Ordering::Relaxed) {
                true => LAST_STALL,
                false => STALL_TIMEOUT,
            };
            return since.map(|since| self.at(since) + patience);
        }
        match self.head.load(Ordering::Relaxed) {
            0 => {}
            head => return Some(self.at(head) + HEAD_TIMEOUT),
        }
        match self.idle.load(Ordering::Relaxed) {
            0 => None,
            idle => Some(self.at(idle) + IDLE_TIMEOUT),
        }
    }

    /// The connection is to end: from now on a client that takes nothing has [`LAST_STALL`].
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Something is being answered, or waits for the client to take it.
    pub(super) fn busy(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0 || self.blocked.load(Ordering::Relaxed) > 0
    }

    /// The start of a head came in HTTP/1, or of the next one while one is being answered.
    pub(super) fn read(&self) {
        if self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A head came whole and was answered at once.
    pub(super) fn exchanged(&self, now: Instant) {
        let now = now.saturating_duration_since(self.accepted).as_millis();
        self.head.store(0, Ordering::Relaxed);
        self.idle
            .store(1 + u64::try_from(now).unwrap_or(0), Ordering::Relaxed);
    }

    /// Between requests, with nothing on its way.
    pub(super) fn idle(&self) -> bool {
        !self.busy() && self.head.load(Ordering::Relaxed) == 0
    }

    /// The client takes a body.
    fn progressed(&self) {
        let now = self.now();
        self.taken.store(now, Ordering::Relaxed);
        if self.idle.load(Ordering::Relaxed) > 0 {
            // The last one's end, held back by windows.
            self.idle.store(now, Ordering::Relaxed);
        }
    }

    fn wrote(&self, blocked: bool) {
        match (blocked, self.blocked.load(Ordering::Relaxed)) {
            (true, 0) => self.blocked.store(self.now(), Ordering::Relaxed),
            (true, _) | (false, 0) => {}
            (false, _) => {
                self.blocked.store(0, Ordering::Relaxed);
                if self.idle.load(Ordering::Relaxed) > 0 {
                    // The end of an answer that was held back: the pause begins when it is taken.
                    self.idle.store(self.now(), Ordering::Relaxed);
                }
            }
        }
    }
}

/// Held while a request is answered: by the future, then by the body.
pub(super) struct Answering {
    pulse: Arc<Pulse>,
    offers: bool,
}

impl Answering {
    /// For HTTP/2. True: some of the body is there for the client to take, or was just handed on to be sent.
    /// False: it waits for us.
    pub(super) fn offers(&mut self, offers: bool) {
        if offers {
            self.pulse.taken.store(self.pulse.now(), Ordering::Relaxed);
        }
        match (std::mem::replace(&mut self.offers, offers), offers) {
            (false, true) => drop(self.pulse.offered.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.pulse.offered.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.offers(false);
        if self.pulse.answering.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = self.pulse.now();
            self.pulse.idle.store(now, Ordering::Relaxed);
            // The next head's time is counted from when it can be read.
            if self.pulse.head.load(Ordering::Relaxed) > 0 {
                self.pulse.head.store(now, Ordering::Relaxed);
            }
        }
    }
}

/// The socket; notes on its pulse what it does, and gives back the bytes that [`Socket::protocol`] took.
pub(super) struct Socket {
    stream: Transport,
    pulse: Arc<Pulse>,
    start: [u8; PREFACE.len()],
    /// Bytes of `start` that were read, and those of them that were given back.
    taken: usize,
    given: usize,
    /// What is being written, in HTTP/2.
    frames: Option<Box<Frames>>,
}

impl Socket {
    pub(super) fn new(stream: Transport, pulse: Arc<Pulse>) -> Socket {
        Socket {
            stream,
            pulse,
            start: [0; PREFACE.len()],
            taken: 0,
            given: 0,
            frames: None,
        }
    }

    /// Reads; the bytes that told the protocol come again.
    pub(super) fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given < self.taken {
            let count = into.remaining().min(self.taken - self.given);
            into.put_slice(&self.start[self.given..self.given + count]);
            self.given += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }

    /// Writes one slice, then the other, as far as can be done now. What was written may still have to be
    /// flushed: see [`Socket::keeps_back`].
    pub(super) fn poll_write_both(
        &mut self,
        context: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(self);
        if second.is_empty() {
            return socket.poll_write(context, first);
        }
        let both = [io::IoSlice::new(first), io::IoSlice::new(second)];
        socket.as_mut().poll_write_vectored(context, &both)
    }

    /// So many bytes of the slices were written.
    fn pass(&mut self, slices: &[io::IoSlice<'_>], mut count: usize) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        let mut data = false;
        for slice in slices {
            let written = &slice[..count.min(slice.len())];
            data |= frames.pass(written);
            count -= written.len();
        }
        if data {
            self.pulse.progressed();
        }
    }

    /// Whether the system can send parts of files: not under TLS, where they are to be encrypted here.
    pub(super) fn sends_files(&self) -> bool {
        self.stream.plain().is_some()
    }

    /// Sends a part of a file, which the system copies no more than it must.
    ///
    /// # Errors
    /// The client is gone, or the disk does not give the file.
    pub(super) async fn send_file(&mut self, file: &FileNode, range: Range<u64>) -> io::Result<()> {
        let mut rest = range;
        while !rest.is_empty() {
            let sent = poll_fn(|context| {
                let Some(stream) = self.stream.plain() else {
                    return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
                };
                let sent = loop {
                    if stream.poll_write_ready(context)?.is_pending() {
                        break Poll::Pending;
                    }
                    let sent =
                        stream.try_io(Interest::WRITABLE, || file.send(stream, rest.clone()));
                    match sent {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        sent => break Poll::Ready(sent),
                    }
                };
                self.pulse.wrote(sent.is_pending());
                sent
            });
            match sent.await? {
                // Shorter than when it was mapped.
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                sent => rest.start += sent,
            }
        }
        Ok(())
    }

    /// Whether something that was written has not been given to the system, and cannot be now.
    pub(super) fn keeps_back(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => flushed.map(|()| false),
            Poll::Pending => Ok(true),
        }
    }

    /// The client's address.
    pub(super) fn remote(&self) -> IpAddr {
        self.stream.remote()
    }

    /// What the client speaks: as ALPN agreed, else as its first bytes say, which are read until they do.
    /// Bounded by nothing: the caller has the deadline.
    pub(super) async fn protocol(&mut self) -> io::Result<Protocol> {
        let protocol = self.spoken().await?;
        self.frames = (protocol == Protocol::Http2).then(Box::default);
        Ok(protocol)
    }

    async fn spoken(&mut self) -> io::Result<Protocol> {
        if let Some(agreed) = self.stream.agreed() {
            return Ok(agreed);
        }
        while self.start[..self.taken] == PREFACE[..self.taken] {
            if self.taken == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
            match self.stream.read(&mut self.start[self.taken..]).await? {
                0 => break,
                read => self.taken += read,
            }
        }
        Ok(Protocol::Http1)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_take(context, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.pulse.wrote(written.is_pending());
        if let Poll::Ready(Ok(count)) = &written {
            self.pass(&[io::IoSlice::new(bytes)], *count);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.pulse.wrote(written.is_pending());
        if let Poll::Ready(Ok(count)) = &written {
            self.pass(slices, *count);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(self.stream, Transport::Tls(_)) {
            // What TLS has taken is not what the client has taken.
            self.pulse.wrote(flushed.is_pending());
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    /// Time until the connection is closed, from now, in whole seconds (rounded); None: not closed.
    fn left(pulse: &Pulse) -> Option<u64> {
        let due = pulse.due()?;
        Some((due - Instant::now() + Duration::from_millis(500)).as_secs())
    }

    #[test]
    fn the_clock_runs_by_what_the_connection_does() {
        let pulse = Pulse::new();
        assert_eq!(left(&pulse), Some(14), "after the accept");
        pulse.read();
        let answering = pulse.answer();
        assert_eq!(left(&pulse), None, "while it is answered");
        pulse.wrote(true);
        assert_eq!(left(&pulse), Some(60), "while the client takes nothing");
        pulse.wrote(false);
        assert_eq!(left(&pulse), None, "once it takes something");
        let last = Pulse::new();
        let one = last.answer();
        last.end();
        assert_eq!(left(&last), None, "the last answer has its time");
        last.wrote(true);
        assert_eq!(left(&last), Some(10), "unless nobody takes it");
        drop(one);
        drop(answering);
        assert_eq!(left(&pulse), Some(75), "between requests");
        pulse.read();
        assert_eq!(left(&pulse), Some(14), "the next head has begun");
        let answering = pulse.answer();
        pulse.read();
        drop(answering);
        assert_eq!(left(&pulse), Some(14), "part of the next head came early");
        let streams = [pulse.answer(), pulse.answer()];
        for mut stream in streams {
            assert_eq!(left(&pulse), None);
            stream.offers(true);
            assert_eq!(left(&pulse), Some(60), "while a window is closed");
            stream.offers(false);
            assert_eq!(left(&pulse), None, "while the body waits for us");
            stream.offers(true);
            pulse.taken.store(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
            let due = pulse.due();
            pulse.progressed();
            assert!(
                pulse.due() > due,
                "a client that takes something has its time anew"
            );
            stream.offers(true);
            drop(stream);
        }
        assert_eq!(left(&pulse), Some(75), "the last stream has ended");
    }

    #[test]
    fn a_slow_client_is_gone_before_the_limit() {
        let ms = Duration::from_millis;
        for (limit, closing, begins) in [
            (15_000, 500, 14_000),
            (15_000, 0, 15_000),
            (1_000, 200, 600),
            (1_000, 700, 0),
        ] {
            assert_eq!(head_timeout(ms(limit), ms(closing)), ms(begins));
        }
        assert!(HEAD_TIMEOUT + LAST_WORD < HEAD_LIMIT);
    }

    #[test]
    fn a_head_that_drips_gets_no_more_time() {
        let pulse = Pulse::new();
        drop(pulse.answer());
        pulse.read();
        let due = pulse.due();
        std::thread::sleep(Duration::from_millis(20));
        pulse.read();
        assert_eq!(pulse.due(), due);
    }

    #[tokio::test]
    async fn the_protocol_is_told_by_the_first_bytes_and_none_is_lost() {
        use tokio::io::AsyncWriteExt;
        let cases: [(&[&[u8]], Protocol); 5] = [
            (&[b"GET / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"], Protocol::Http2),
            (
                &[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n", b"\r\n"],
                Protocol::Http2,
            ),
            (&[b"PRI"], Protocol::Http1),
        ];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (pieces, protocol) in cases {
            let client = tokio::spawn(async move {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.set_nodelay(true).unwrap();
                for piece in pieces {
                    client.write_all(piece).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = Socket::new(Transport::Plain(stream), Pulse::new());
            assert_eq!(socket.protocol().await.unwrap(), protocol, "{pieces:?}");
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, pieces.concat());
            client.await.unwrap();
        }
    }
}
