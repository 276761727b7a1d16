//! A connection of HTTP/1.1, as most clients speak it: GET and HEAD without a body, one after another.
//!
//! hyper is right about everything and costs some thousand instructions an answer; most answers differ
//! in nothing but the date. So the loop here reads a head ([`head`]), and
//! 1. where it is no plain GET or HEAD, gives all its bytes back for hyper, which has the connection from then on;
//! 2. where the same question was answered a moment ago and nothing has changed, sends the same answer
//!    ([`remembered`]): no allocation, one system call;
//! 3. else asks the recipe ([`Respond`]), sends what it says ([`render`]), and remembers it if it will stand.
//!
//! Decides nothing about an answer. Bytes are read into one buffer a thread: an idle connection holds none.

mod head;

use super::access::Visit;
use super::body::{Body, Piece};
use super::plain::Plain;
use super::remembered::{self, Answer, Key, Remembered};
use super::render::{self, Date};
use super::respond::{MOST_HEAD, Respond};
use super::socket::{Pulse, Socket};
use crate::access_log::{Answered, Asked, Cache};
use crate::shutdown::{Lifecycle, Phase};
use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use head::{Head, Room, Told};
use http::header;
use http::request::Parts;
use http::{Response, StatusCode, Version};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

/// A body of up to so many bytes is copied behind its head: one buffer is cheaper to send than two.
const COPIED: usize = 4 << 10;
/// Bytes of a remembered file that are sent together with the head.
const FIRST: u64 = super::body::WINDOW;

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk::default());
}

/// What the connections of one thread share. Borrowed while one of them is polled, never across an await.
struct Desk {
    input: Box<[u8]>,
    output: Vec<u8>,
    date: Date,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            input: vec![0; MOST_HEAD].into(),
            output: Vec::with_capacity(8 << 10),
            date: Date::new(),
        }
    }
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The connection is over.
    Closed,
    /// The bytes that were not answered are in the socket again, for hyper.
    Other,
}

/// One connection.
struct Conversation<'a, R> {
    socket: &'a mut Socket,
    pulse: &'a Arc<Pulse>,
    lifecycle: &'a Lifecycle,
    respond: &'a R,
    /// The client, where there is an access log.
    remote: Option<IpAddr>,
    /// Bytes that were read and not answered: mostly none.
    unread: Vec<u8>,
}

/// What has to be waited for, outside of the desk.
enum Turn {
    Ended(Ended),
    /// The recipe has to be asked; the answer may be remembered by the key.
    Ask(Box<Parts>, Option<Key>, bool),
    /// A remembered answer that the socket has not taken whole: what is left of it.
    Rest(Bytes, Body, bool),
}

/// Drives a connection until it ends, or until hyper has to take it.
pub(super) async fn converse<R: Respond>(
    socket: &mut Socket,
    pulse: &Arc<Pulse>,
    lifecycle: &Lifecycle,
    respond: &R,
) -> Ended {
    let remote = respond.access_log().map(|_| socket.remote());
    let mut conversation = Conversation {
        socket,
        remote,
        pulse,
        lifecycle,
        respond,
        unread: Vec::new(),
    };
    let ended = conversation.run().await;
    match ended {
        Ok(ended) => ended,
        // The client is gone, or a disk does not give what was announced: there is nobody to tell.
        Err(_) => Ended::Closed,
    }
}

impl<R: Respond> Conversation<'_, R> {
    async fn run(&mut self) -> io::Result<Ended> {
        loop {
            let turn =
                poll_fn(|context| DESK.with_borrow_mut(|desk| self.poll_turn(context, desk)));
            let close = match turn.await? {
                Turn::Ended(ended) => return Ok(ended),
                Turn::Ask(mut request, key, close) => {
                    self.note(&mut request, Instant::now());
                    let pulse = self.pulse.clone();
                    let _answering = pulse.answer();
                    let response = self.respond.respond(&request).await;
                    let learn = response.status() == StatusCode::NOT_MODIFIED
                        && response.body().settled().is_some();
                    let (learning, key) = match learn {
                        true => (key, None),
                        false => (None, key),
                    };
                    let close = self.send(response, key, close).await?;
                    if let Some(key) = learning {
                        self.learn(*request, key);
                    }
                    close
                }
                Turn::Rest(head, body, close) => {
                    let pulse = self.pulse.clone();
                    let _answering = pulse.answer();
                    self.write(head, body).await?;
                    close
                }
            };
            if close {
                self.socket.shutdown().await?;
                return Ok(Ended::Closed);
            }
            if !self.unread.is_empty() {
                // The start of the next head came with the last one.
                self.pulse.read();
            }
        }
    }

    /// Answers from memory as long as that can be done at once.
    fn poll_turn(&mut self, context: &mut Context<'_>, desk: &mut Desk) -> Poll<io::Result<Turn>> {
        let Desk {
            input,
            output,
            date,
        } = desk;
        let (mut start, mut end) = (0, self.unread.len());
        input[..end].copy_from_slice(&self.unread);
        self.unread.clear();
        loop {
            let mut room = Room::new();
            let (head, length) = match head::read(&input[start..end], &mut room) {
                Told::Head(head, length) => (head, length),
                Told::Other => {
                    self.socket.give_back(&input[start..end]);
                    return Poll::Ready(Ok(Turn::Ended(Ended::Other)));
                }
                Told::Incomplete if end - start == input.len() => {
                    self.socket.give_back(&input[start..end]);
                    return Poll::Ready(Ok(Turn::Ended(Ended::Other)));
                }
                Told::Incomplete => {
                    input.copy_within(start..end, 0);
                    (start, end) = (0, end - start);
                    let mut free = ReadBuf::new(&mut input[end..]);
                    match self.socket.poll_take(context, &mut free) {
                        Poll::Ready(Ok(())) if free.filled().is_empty() => {
                            return Poll::Ready(Ok(Turn::Ended(Ended::Closed)));
                        }
                        Poll::Ready(Ok(())) => end += free.filled().len(),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            if end > 0 {
                                self.pulse.read();
                                self.unread.extend_from_slice(&input[..end]);
                            }
                            return Poll::Pending;
                        }
                    }
                    continue;
                }
            };
            let close = head.close || self.lifecycle.phase() >= Phase::Draining;
            let turn = match head.plain {
                Some(plain) if !close => {
                    let paper = (&mut *output, &mut *date);
                    remembered::with(|memory| {
                        self.remembered(context, &head, &plain, memory, paper)
                    })?
                }
                _ => None,
            };
            let turn = match turn {
                Some(Done::Whole) => {
                    start += length;
                    continue;
                }
                Some(Done::Part(rest, body)) => Turn::Rest(rest, body, close),
                None => {
                    let Some(request) = head.request() else {
                        self.socket.give_back(&input[start..end]);
                        return Poll::Ready(Ok(Turn::Ended(Ended::Other)));
                    };
                    let key = head.plain.and_then(|plain| Key::of(head.target, &plain));
                    Turn::Ask(Box::new(request), key, close)
                }
            };
            self.unread.extend_from_slice(&input[start + length..end]);
            return Poll::Ready(Ok(turn));
        }
    }
}

/// A remembered answer, sent.
enum Done {
    Whole,
    /// All but this.
    Part(Bytes, Body),
}

impl<R: Respond> Conversation<'_, R> {
    /// Sends the remembered answer; None: there is none that still stands.
    fn remembered(
        &mut self,
        context: &mut Context<'_>,
        request: &Head<'_>,
        plain: &Plain<'_>,
        memory: &mut Remembered,
        (output, date): (&mut Vec<u8>, &mut Date),
    ) -> io::Result<Option<Done>> {
        let Some(answer) = memory.get(request.target, plain) else {
            return Ok(None);
        };
        let now = Instant::now();
        let Some(file) = answer.current(now.into_std()) else {
            memory.forget();
            return Ok(None);
        };
        let (status, head, length) = match plain.if_none_match {
            None => (StatusCode::OK, &answer.head, file.length),
            Some(etag) if answer.is(etag) => (StatusCode::NOT_MODIFIED, &answer.not_modified, 0),
            Some(_) => return Ok(None),
        };
        let first = length.min(FIRST);
        if first > 0 && !file.resident(0..first) {
            return Ok(None);
        }
        output.clear();
        output.extend_from_slice(head);
        render::end(output, date.text(now.into_std()), false);
        let head = output.len();
        let mut body = file.slice(0..first);
        if body.len() <= COPIED {
            output.extend_from_slice(body);
            body = &[];
            if file.poisoned() {
                return Ok(None);
            }
        }
        let sent = match self.socket.poll_write_both(context, output, body) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        let ended = Instant::now();
        self.respond.remembered(status, ended - now);
        let from = (sent.saturating_sub(head) as u64).min(length);
        if sent >= head && from == length && !self.socket.keeps_back(context)? {
            self.pulse.exchanged(ended);
            self.log(request, answer, (status, length, ended - now));
            return Ok(Some(Done::Whole));
        }
        let rest = Bytes::copy_from_slice(&output[sent.min(head)..head]);
        let mut body = Body::default();
        body.push_file(&Arc::new(file), from..length);
        body.uses(answer.view());
        if let Some(visit) = self.visit(request, answer, now) {
            visit.answered(status);
            visit.sent(from);
            body.belongs_to(visit);
        }
        Ok(Some(Done::Part(rest, body)))
    }

    /// Where there is an access log, the request will be in it.
    fn note(&self, request: &mut Parts, began: Instant) {
        if let (Some(log), Some(remote)) = (self.respond.access_log(), self.remote) {
            Visit::begin(log, remote, began.into_std(), request);
        }
    }

    /// The same for a request that is being answered from memory.
    fn visit(&self, request: &Head<'_>, answer: &Answer, began: Instant) -> Option<Arc<Visit>> {
        self.remote?;
        let mut request = request.request()?;
        self.note(&mut request, began);
        let visit = Visit::of(&request.extensions)?;
        visit.asks(&answer.reference);
        Some(visit.clone())
    }

    /// The same for one that was answered from memory: status, bytes, duration.
    fn log(&self, request: &Head<'_>, answer: &Answer, told: (StatusCode, u64, Duration)) {
        let (Some(log), Some(remote)) = (self.respond.access_log(), self.remote) else {
            return;
        };
        let (status, bytes, duration) = told;
        let asked = Asked {
            remote,
            method: request.method.as_str().as_bytes(),
            target: request.target.as_bytes(),
            version: Version::HTTP_11,
            host: request.field("host"),
            referer: request.field("referer"),
            user_agent: request.field("user-agent"),
        };
        let answered = Answered {
            status: status.as_u16(),
            bytes,
            duration,
            reference: Some(&answer.reference),
            cache: Some(Cache::Warm),
        };
        log.write(&asked, &answered);
    }

    /// Sends what the recipe says, and remembers it if it will stand. Whether the connection is to be closed.
    async fn send(
        &mut self,
        response: Response<Body>,
        key: Option<Key>,
        close: bool,
    ) -> io::Result<bool> {
        let close = close || self.lifecycle.phase() >= Phase::Draining;
        let (head, body) = response.into_parts();
        let bodiless = matches!(
            head.status,
            StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT
        );
        let mut out = Vec::with_capacity(512);
        render::status_and_fields(&mut out, head.status, &head.headers);
        if !bodiless && !head.headers.contains_key(header::CONTENT_LENGTH) {
            render::content_length(&mut out, body.length());
        }
        DESK.with_borrow_mut(|desk| {
            let now = Instant::now().into_std();
            render::end(&mut out, desk.date.text(now), close);
        });
        if let (Some(key), Some(whole)) = (key, body.settled())
            && let Some(answer) = Answer::of(head.status, &head.headers, whole, body.visit())
        {
            remembered::with(|memory| memory.put(key, answer));
        }
        self.write(out.into(), body).await?;
        Ok(close)
    }

    /// Remembers what a client that asked whether it has the file would have got otherwise: browsers that
    /// come back ask nothing else. Not when it cannot be told at once.
    fn learn(&self, mut request: Parts, key: Key) {
        request.headers.remove(header::IF_NONE_MATCH);
        let Some(response) = self.respond.rehearse(&request).now_or_never() else {
            return;
        };
        let (head, body) = response.into_parts();
        let visit = Visit::of(&request.extensions).map(|visit| &**visit);
        let answer = body
            .settled()
            .and_then(|whole| Answer::of(head.status, &head.headers, whole, visit));
        if let Some(answer) = answer {
            remembered::with(|memory| memory.put(key, answer));
        }
    }

    async fn write(&mut self, mut head: Bytes, mut body: Body) -> io::Result<()> {
        loop {
            let piece = match poll_fn(|context| body.poll_piece(context)).await {
                Some(piece) => piece?,
                None => Piece::Bytes(Bytes::new()),
            };
            match piece {
                // Behind the head, so that the two fill their packets.
                Piece::File(file, range) if head.is_empty() && self.socket.sends_files() => {
                    self.socket.send_file(&file, range).await?;
                }
                piece => {
                    let mut both = (&mut head).chain(piece.bytes()?);
                    self.socket.write_all_buf(&mut both).await?;
                }
            }
            if body.length() == 0 {
                return self.socket.flush().await;
            }
            // Others on this reactor are not to wait for the end of a large file.
            tokio::task::yield_now().await;
        }
    }
}
