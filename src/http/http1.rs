//! A connection of HTTP/1, in cleartext or over TLS: requests one after another.
//!
//! Most answers differ in nothing but the date, and a general server costs some thousand instructions an
//! answer. So the loop here reads a head ([`head`]), and
//! 1. where the same question was answered a moment ago and nothing has changed, sends the same answer
//!    ([`remembered`]): no allocation, one system call;
//! 2. else asks the recipe ([`Respond`]), sends what it says ([`render`]), and remembers it if it will stand;
//! 3. where it cannot be told where the request ends, says so and closes ([`refuse`]).
//!
//! Decides nothing about an answer. No body is looked at: a short one is skipped, a long one is the last of its
//! connection ([`framing`]). Bytes are read into one buffer a thread: an idle connection holds none.

mod framing;
mod head;
mod refuse;

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
use framing::{After, Refusal};
use futures_util::FutureExt;
use head::{Head, Room, Told};
use http::header;
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
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

/// What of a request decides how its answer is sent.
#[derive(Clone, Copy)]
struct Manner {
    after: After,
    /// HEAD.
    bodiless: bool,
    /// A body of unknown length is sent in chunks (RFC 9112 §7.1); else it ends with the connection.
    chunks: bool,
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
    Ended,
    /// The recipe has to be asked; the answer may be remembered by the key.
    Ask(Box<Parts>, Option<Key>, Manner),
    /// A remembered answer that the socket has not taken whole: what is left of it.
    Rest(Bytes, Body),
    /// There is no telling where the next request begins. With the start of what came.
    Refuse(Refusal, Vec<u8>),
}

/// Drives a connection until it ends.
pub(super) async fn converse<R: Respond>(
    socket: &mut Socket,
    pulse: &Arc<Pulse>,
    lifecycle: &Lifecycle,
    respond: &R,
) {
    let remote = respond.access_log().map(|_| socket.remote());
    let mut conversation = Conversation {
        socket,
        remote,
        pulse,
        lifecycle,
        respond,
        unread: Vec::new(),
    };
    // The client is gone, or a disk does not give what was announced: there is nobody to tell.
    let _ = conversation.run().await;
}

impl<R: Respond> Conversation<'_, R> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let turn =
                poll_fn(|context| DESK.with_borrow_mut(|desk| self.poll_turn(context, desk)));
            let after = match turn.await? {
                Turn::Ended => return Ok(()),
                Turn::Refuse(refusal, start) => {
                    return Box::pin(self.refuse(refusal, &start)).await;
                }
                Turn::Ask(mut request, key, manner) => {
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
                    let after = self.send(response, key, manner).await?;
                    if let Some(key) = learning {
                        self.learn(*request, key);
                    }
                    after
                }
                Turn::Rest(head, body) => {
                    let pulse = self.pulse.clone();
                    let _answering = pulse.answer();
                    self.write(head, body).await?;
                    After::Next
                }
            };
            match after {
                After::Next | After::NextIfTold => {}
                After::NextPast(body) => Box::pin(self.skip(body)).await?,
                After::End => return self.socket.shutdown().await,
                After::EndUnread => return Box::pin(self.linger()).await,
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
                Told::Refused(refusal) => return refused(refusal, &input[start..end]),
                Told::Incomplete if end - start == input.len() => {
                    let refusal = Refusal::of_length(&input[start..end]);
                    return refused(refusal, &input[start..end]);
                }
                Told::Incomplete => {
                    input.copy_within(start..end, 0);
                    (start, end) = (0, end - start);
                    let mut free = ReadBuf::new(&mut input[end..]);
                    match self.socket.poll_take(context, &mut free) {
                        Poll::Ready(Ok(())) if free.filled().is_empty() => {
                            return Poll::Ready(Ok(Turn::Ended));
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
            let stays = head.after == After::Next && self.lifecycle.phase() < Phase::Draining;
            let turn = match head.plain {
                Some(plain) if stays => {
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
                Some(Done::Part(rest, body)) => Turn::Rest(rest, body),
                None => {
                    let request = match head.request() {
                        Ok(request) => request,
                        Err(refusal) => return refused(refusal, &input[start..end]),
                    };
                    let key = head.plain.and_then(|plain| Key::of(head.target, &plain));
                    let manner = Manner {
                        after: head.after,
                        bodiless: request.method == Method::HEAD,
                        chunks: request.version == Version::HTTP_11,
                    };
                    Turn::Ask(Box::new(request), key, manner)
                }
            };
            self.unread.extend_from_slice(&input[start + length..end]);
            return Poll::Ready(Ok(turn));
        }
    }
}

/// With as much of what came as tells what it was.
fn refused(refusal: Refusal, came: &[u8]) -> Poll<io::Result<Turn>> {
    let start = &came[..came.len().min(refuse::MOST_LINE)];
    Poll::Ready(Ok(Turn::Refuse(refusal, start.to_vec())))
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
        self.respond.answered(&Method::GET, status, ended - now);
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
        let mut request = request.request().ok()?;
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

    /// Sends what the recipe says, and remembers it if it will stand.
    async fn send(
        &mut self,
        response: Response<Body>,
        key: Option<Key>,
        manner: Manner,
    ) -> io::Result<After> {
        let (head, body) = response.into_parts();
        let mut after = manner.after;
        let unmeasured = !body.is_measured() && !manner.bodiless;
        let chunks = unmeasured && manner.chunks;
        if unmeasured && !chunks || self.lifecycle.phase() >= Phase::Draining {
            after = after.max(After::End);
        }
        let bodiless = matches!(
            head.status,
            StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT
        );
        let mut out = Vec::with_capacity(512);
        render::status_and_fields(&mut out, head.status, &head.headers);
        if chunks {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if !bodiless
            && body.is_measured()
            && !head.headers.contains_key(header::CONTENT_LENGTH)
        {
            render::content_length(&mut out, body.length());
        }
        if after == After::NextIfTold {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        DESK.with_borrow_mut(|desk| {
            let now = Instant::now().into_std();
            render::end(&mut out, desk.date.text(now), after >= After::End);
        });
        if let (Some(key), Some(whole)) = (key, body.settled())
            && let Some(answer) = Answer::of(head.status, &head.headers, whole, body.visit())
        {
            remembered::with(|memory| memory.put(key, answer));
        }
        if unmeasured {
            Box::pin(self.write_unmeasured(out.into(), body, chunks)).await?;
        } else {
            self.write(out.into(), body).await?;
        }
        Ok(after)
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

    /// What nobody knows the length of: in chunks, or to the end of the connection.
    async fn write_unmeasured(
        &mut self,
        head: Bytes,
        mut body: Body,
        chunks: bool,
    ) -> io::Result<()> {
        self.socket.write_all(&head).await?;
        while let Some(piece) = poll_fn(|context| body.poll_piece(context)).await {
            let bytes = piece?.bytes()?;
            if bytes.is_empty() {
                // In chunks this would be the end.
                continue;
            }
            if chunks {
                let size = format!("{:x}\r\n", bytes.len());
                let mut chunk = size.as_bytes().chain(bytes).chain(&b"\r\n"[..]);
                self.socket.write_all_buf(&mut chunk).await?;
            } else {
                self.socket.write_all(&bytes).await?;
            }
            self.socket.flush().await?;
        }
        if chunks {
            self.socket.write_all(b"0\r\n\r\n").await?;
        }
        self.socket.flush().await
    }
}

#[cfg(test)]
mod tests;
