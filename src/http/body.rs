//! What is sent: bytes as they are, or windows of a file, read ahead off the reactor where they are
//! not in memory.

use super::access::Visit;
use super::archive::Stream;
use crate::images::{FileNode, ViewInfo};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Bytes sent, and checked for residency, at a time.
pub(super) const WINDOW: u64 = 256 << 10;

/// A response's body: of exactly known length, unless it is made while it is sent.
#[derive(Default)]
pub(crate) struct Body {
    /// Bytes that are left.
    left: u64,
    /// The part being sent. The first part stands here, so that a body of one allocates nothing.
    current: Option<Part>,
    later: VecDeque<Part>,
    /// The next window is being read in.
    reading: Option<(Range<u64>, JoinHandle<io::Result<()>>)>,
    whole: Option<Box<Whole>>,
    made: Option<Box<Made>>,
    /// Is told how much of the body was taken.
    visit: Option<Arc<Visit>>,
    using: Option<Using>,
}

/// Whoever takes the body uses the image that long.
struct Using(Arc<ViewInfo>);

impl Drop for Using {
    fn drop(&mut self) {
        self.0.end_use();
    }
}

/// A body that is one whole file, or would be without the condition that made it a 304, and that the same
/// request gets again as long as the view is current and the file can be had.
pub(super) struct Whole {
    pub(super) view: Arc<ViewInfo>,
    pub(super) file: Arc<FileNode>,
}

/// Bytes of which nobody knows how many will come.
#[derive(Default)]
struct Made {
    /// None: at the end, or never wanted.
    stream: Option<Stream>,
}

enum Part {
    Bytes(Bytes),
    File(Arc<FileNode>, Range<u64>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes left)", self.left)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        let mut body = Body::default();
        body.push_bytes(bytes);
        body
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Bytes::from(text).into()
    }
}

impl Body {
    pub(super) fn push_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.left += bytes.len() as u64;
            self.push(Part::Bytes(bytes));
        }
    }

    pub(super) fn push_file(&mut self, file: &Arc<FileNode>, range: Range<u64>) {
        if !range.is_empty() {
            self.left += range.end - range.start;
            self.push(Part::File(file.clone(), range));
        }
    }

    fn push(&mut self, part: Part) {
        match self.current {
            None => self.current = Some(part),
            Some(_) => self.later.push_back(part),
        }
    }

    /// Says that the body is `whole`.
    pub(super) fn settle(&mut self, whole: Whole) {
        self.whole = Some(Box::new(whole));
    }

    /// The same request may be answered otherwise a moment later.
    pub(super) fn unsettle(&mut self) {
        self.whole = None;
    }

    /// What may be remembered of the answer, if anything.
    pub(super) fn settled(&self) -> Option<&Whole> {
        self.whole.as_deref()
    }

    /// The body is of files of this view, whose use ends with it.
    pub(super) fn uses(&mut self, view: &Arc<ViewInfo>) {
        if self.left > 0 || self.made.is_some() {
            self.using = Some(Using(view.clone()));
        }
    }

    /// The body belongs to the answer to this request, which will be logged.
    pub(super) fn belongs_to(&mut self, visit: Arc<Visit>) {
        self.visit = Some(visit);
    }

    /// The request that it belongs to, if that will be logged.
    pub(super) fn visit(&self) -> Option<&Visit> {
        self.visit.as_deref()
    }

    /// So much of it is on its way.
    fn taken(&mut self, bytes: u64) {
        self.left -= bytes;
        if let Some(visit) = &self.visit {
            visit.sent(bytes);
        }
    }

    /// What HEAD says of a body that is not made: only its length is to be used.
    pub(super) fn of_length(length: u64) -> Body {
        Body {
            left: length,
            ..Body::default()
        }
    }

    /// What is made while it is sent. Not for the loop of HTTP/1.1 ([`super::http1`]), which sends lengths.
    pub(super) fn of_stream(stream: Stream) -> Body {
        let made = Made {
            stream: Some(stream),
        };
        Body {
            made: Some(Box::new(made)),
            ..Body::default()
        }
    }

    /// What HEAD says of such a body.
    pub(super) fn unmeasured() -> Body {
        Body {
            made: Some(Box::default()),
            ..Body::default()
        }
    }

    /// Its length is known.
    pub(super) fn is_measured(&self) -> bool {
        self.made.is_none()
    }

    /// Bytes of the whole body, before anything was sent.
    pub(super) fn length(&self) -> u64 {
        self.left
    }

    /// The next piece, its pages in memory. Who takes it has it: [`Body::length`] is what is left.
    pub(super) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Piece>>> {
        if let Some(made) = &mut self.made
            && let Some(stream) = &mut made.stream
        {
            let piece = match ready!(stream.poll_recv(context)) {
                Some(Ok(Some(bytes))) => {
                    if let Some(visit) = &self.visit {
                        visit.sent(bytes.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Piece::Bytes(bytes))));
                }
                Some(Ok(None)) => None,
                Some(Err(error)) => Some(Err(error)),
                None => Some(Err(io::Error::other("what makes the body has ended early"))),
            };
            made.stream = None;
            return Poll::Ready(piece);
        }
        let Some(part) = &mut self.current else {
            return Poll::Ready(None);
        };
        let (file, rest) = match part {
            Part::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.current = self.later.pop_front();
                self.taken(bytes.len() as u64);
                return Poll::Ready(Some(Ok(Piece::Bytes(bytes))));
            }
            Part::File(file, rest) => (file, rest),
        };
        let window = match &mut self.reading {
            Some((window, reading)) => {
                let read = ready!(Pin::new(reading).poll(context));
                let window = window.clone();
                self.reading = None;
                if let Err(error) = read.map_err(io::Error::other).and_then(|read| read) {
                    return Poll::Ready(Some(Err(error)));
                }
                window
            }
            None => {
                let window = rest.start..rest.end.min(rest.start + WINDOW);
                if !file.resident(window.clone()) {
                    let (file, ahead) = (file.clone(), window.clone());
                    self.reading = Some((
                        window,
                        tokio::task::spawn_blocking(move || file.populate(ahead)),
                    ));
                    return self.poll_piece(context);
                }
                window
            }
        };
        let file = file.clone();
        rest.start = window.end;
        if rest.is_empty() {
            self.current = self.later.pop_front();
        }
        if file.poisoned() {
            return Poll::Ready(Some(Err(unreadable())));
        }
        self.taken(window.end - window.start);
        Poll::Ready(Some(Ok(Piece::File(file, window))))
    }
}

/// What is to be sent next.
pub(super) enum Piece {
    Bytes(Bytes),
    /// A part of a file.
    File(Arc<FileNode>, Range<u64>),
}

impl Piece {
    /// The piece as bytes.
    ///
    /// # Errors
    /// A page of the pack cannot be read.
    pub(super) fn bytes(self) -> io::Result<Bytes> {
        match self {
            Piece::Bytes(bytes) => Ok(bytes),
            Piece::File(file, range) => {
                let bytes = file.bytes(range);
                match file.poisoned() {
                    true => Err(unreadable()),
                    false => Ok(bytes),
                }
            }
        }
    }
}

fn unreadable() -> io::Error {
    io::Error::other("a page of the pack cannot be read")
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(self.poll_piece(context));
        Poll::Ready(piece.map(|piece| piece.and_then(Piece::bytes).map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.made.as_ref().is_none_or(|made| made.stream.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_measured() {
            true => SizeHint::with_exact(self.left),
            false => SizeHint::default(),
        }
    }
}
