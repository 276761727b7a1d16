//! The accept loop and the life of a connection: HTTP/1.1 and HTTP/2, in cleartext or over TLS.
//!
//! What a caller may rely on: no client holds a connection by silence or slowness (see
//! [`socket`](super::socket) for the times); one connection too many is told so; a failing accept
//! neither ends nor spins the loop; from [`Phase::Draining`] on answers ask for a new connection
//! elsewhere, from [`Phase::Stopping`] on nothing is accepted, and what is in flight ends within a limit.

use super::access::Visit;
use super::body::Body;
use super::http1;
use super::reactors::Reactors;
use super::remembered;
use super::respond::{MOST_HEAD, Respond};
use super::socket::{Answering, HEAD_TIMEOUT, LAST_WORD, Pulse, Socket};
use super::streams::{self, Piece, Streams, Taken};
use super::transport::{Protocol, Transport};
use crate::metrics::Metrics;
use crate::shutdown::{Lifecycle, Phase};
use bytes::Bytes;
use http::header::{self, Entry, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Streams of one HTTP/2 connection at once.
const MOST_STREAMS: u32 = 128;
/// Streams that a client reset before we looked at them, and faults of its own, after which it is sent away
/// (CVE-2023-44487, CVE-2025-8671). A reset stream's answer is dropped at once, so work stays bounded by the above.
const MOST_RESETS: usize = 20;
const MOST_ERRORS: usize = 256;
/// Silence after which an HTTP/2 peer is asked whether it is there, and the time it has to answer.
const PING: Duration = Duration::from_secs(30);
/// The time of a silent connection when we stop: for a head that is on its way to come.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pauses after an accept that failed for want of descriptors or memory: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Clients at once that are being told that there are too many, and the time that takes at most.
const MOST_REFUSALS: usize = 256;
const REFUSAL_TIME: Duration = Duration::from_secs(1);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\
Retry-After: 1\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntimeout";

/// How a listener is run.
pub(crate) struct Listen {
    /// One for each connection; where there is none left, a connection is refused with a 503.
    pub(crate) places: Arc<Semaphore>,
    /// Watched for draining and stopping.
    pub(crate) lifecycle: Lifecycle,
    /// How long requests in flight may go on after accepting has ended.
    pub(crate) limit: Duration,
    /// Where connections live; None: on the runtime that accepts.
    pub(crate) reactors: Option<Arc<Reactors>>,
    /// Shakes hands with every client; None: cleartext.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Counts connections, where wanted.
    pub(crate) metrics: Option<Arc<Metrics>>,
}

/// What every connection of a listener is under.
#[derive(Clone)]
struct Terms {
    lifecycle: Lifecycle,
    tls: Option<TlsAcceptor>,
    metrics: Option<Arc<Metrics>>,
}

impl Listen {
    /// Accepts until the phase is [`Phase::Stopping`]; returns when the last connection has ended, or
    /// the limit later. Dropping the future closes everything at once.
    pub(crate) async fn run(self, listener: TcpListener, respond: Arc<impl Respond>) {
        let terms = Terms {
            lifecycle: self.lifecycle.clone(),
            tls: self.tls.clone(),
            metrics: self.metrics.clone(),
        };
        let refusals = Arc::new(Semaphore::new(MOST_REFUSALS));
        let mut connections = JoinSet::new();
        let mut stopping = pin!(self.lifecycle.reached(Phase::Stopping));
        let mut pause = PAUSES.0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // What has ended is let go of.
                Some(_) = connections.join_next() => continue,
                () = &mut stopping => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if concerns_one(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections, trying again in {pause:?}");
                    tokio::time::sleep(pause).await;
                    pause = PAUSES.1.min(pause * 2);
                    continue;
                }
            };
            pause = PAUSES.0;
            // A socket that cannot be tuned still works.
            let _ = stream.set_nodelay(true);
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                if let Some(metrics) = &self.metrics {
                    metrics.connection_refused();
                }
                // Over TLS it could be told only after a handshake, which is what there is no room for.
                if self.tls.is_none()
                    && let Ok(refusal) = refusals.clone().try_acquire_owned()
                {
                    connections.spawn(async move {
                        refuse(stream).await;
                        drop(refusal);
                    });
                }
                continue;
            };
            let open = self.metrics.as_ref().map(|metrics| metrics.connection());
            let (respond, terms) = (respond.clone(), terms.clone());
            let cpu = rustix::net::sockopt::socket_incoming_cpu(&stream).ok();
            match self.reactors.as_deref().map(|all| all.place(cpu)) {
                None => connections.spawn(async move {
                    converse(stream, respond, terms).await;
                    drop((place, open));
                }),
                Some((reactor, seat)) => {
                    let Ok(stream) = stream.into_std() else {
                        continue;
                    };
                    let connection = async move {
                        // A socket that the reactor cannot watch is closed; its client tries again.
                        if let Ok(stream) = TcpStream::from_std(stream) {
                            converse(stream, respond, terms).await;
                        }
                        drop((place, open, seat));
                    };
                    connections.spawn_on(connection, reactor)
                }
            };
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limit, all).await.is_err() {
            let left = connections.len();
            tracing::warn!(left, "connections closed that did not end in time");
        }
    }
}

/// An accept that failed for its client only.
fn concerns_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Says 503 and waits for the client to close: closing with unread bytes would take the answer back.
async fn refuse(mut stream: TcpStream) {
    let told = async {
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that does not read its refusal gets none.
    let _ = tokio::time::timeout(REFUSAL_TIME, told).await;
}

/// One connection, from its first byte to its last.
async fn converse(stream: TcpStream, respond: Arc<impl Respond>, terms: Terms) {
    let pulse = Pulse::new();
    let lifecycle = terms.lifecycle.clone();
    let silent = async {
        lifecycle.reached(Phase::Stopping).await;
        tokio::time::sleep(FAREWELL).await;
    };
    let opened = tokio::select! {
        opened = open(stream, &terms, &pulse) => opened.ok(),
        () = tokio::time::sleep(HEAD_TIMEOUT) => None,
        () = silent => None,
    };
    let Some((mut socket, protocol)) = opened else {
        return;
    };
    match protocol {
        Protocol::Http1 => {
            let conversation = http1::converse(&mut socket, &pulse, &lifecycle, &*respond);
            let mut conversation = pin!(conversation);
            // Until then a request on an idle connection is answered, with `Connection: close`.
            let ending = lifecycle.reached(Phase::Stopping);
            let watched = watch(&pulse, conversation.as_mut(), ending).await;
            if watched == Ended::Asked && !pulse.idle() {
                finish(&pulse, conversation).await;
            }
        }
        // What few connections need is not room that all of them hold.
        Protocol::Http2 => Box::pin(http2(socket, pulse, respond, lifecycle)).await,
    }
}

/// A connection of HTTP/2, by hyper.
async fn http2(
    socket: Socket,
    pulse: Arc<Pulse>,
    respond: Arc<impl Respond>,
    lifecycle: Lifecycle,
) {
    let asked = Arc::new(Notify::new());
    let remote = respond.access_log().map(|_| socket.remote());
    let service = {
        let (pulse, asked) = (pulse.clone(), asked.clone());
        service_fn(move |request: Request<Incoming>| {
            let mut answering = pulse.answer();
            asked.notify_one();
            let respond = respond.clone();
            // Boxed: hyper moves it several times, and spawns it for each stream of HTTP/2.
            Box::pin(async move {
                let (mut request, _) = request.into_parts();
                if let (Some(log), Some(remote)) = (respond.access_log(), remote) {
                    let now = Instant::now().into_std();
                    Visit::begin(log, remote, now, &mut request);
                }
                let mut response = answered(&*respond, &request).await;
                measure(&mut response);
                Ok::<_, Infallible>(response.map(|body| {
                    answering.offers(!body.is_end_stream());
                    Watched::new(body, answering)
                }))
            })
        })
    };
    let connection = conn::http2::Builder::new(Streams)
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MOST_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(MOST_STREAMS)
        .max_pending_accept_reset_streams(MOST_RESETS)
        .max_local_error_reset_streams(MOST_ERRORS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ending = async {
        lifecycle.reached(Phase::Draining).await;
        // One that was opened meanwhile is answered before it is sent elsewhere.
        tokio::select! {
            () = asked.notified() => {}
            () = lifecycle.reached(Phase::Stopping) => {}
        }
    };
    match watch(&pulse, connection.as_mut(), ending).await {
        Ended::Closed => {}
        Ended::Asked => {
            connection.as_mut().graceful_shutdown();
            finish(&pulse, connection).await;
        }
        Ended::Due => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST_WORD, connection).await;
        }
    }
}

/// Says of a body of nothing that it is one (RFC 9110 §8.6): hyper ends such a stream with its head and
/// leaves it at that, so that a client cannot tell it from a body that was cut.
fn measure(response: &mut Response<Body>) {
    let status = response.status();
    let none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let empty = response.body().is_measured() && response.body().length() == 0;
    if empty && !none && !status.is_informational() {
        let headers = response.headers_mut();
        if let Entry::Vacant(entry) = headers.entry(header::CONTENT_LENGTH) {
            entry.insert(HeaderValue::from(0));
        }
    }
}

/// HTTP/2 out of memory where that can be done; else as the recipe says.
async fn answered(respond: &impl Respond, request: &Parts) -> Response<Body> {
    // With an access log each answer is accounted for by the recipe.
    if request.version != Version::HTTP_2 || respond.access_log().is_some() {
        return respond.respond(request).await;
    }
    let began = Instant::now();
    if let Some(response) = remembered::recall(request) {
        respond.answered(&Method::GET, response.status(), began.elapsed());
        return response;
    }
    let response = respond.respond(request).await;
    remembered::remember(request, &response);
    response
}

/// Shakes hands, where there is TLS, and finds out what the client speaks.
async fn open(
    stream: TcpStream,
    terms: &Terms,
    pulse: &Arc<Pulse>,
) -> io::Result<(Socket, Protocol)> {
    // Counts a handshake as failed unless it comes to its end; who leaves without a byte has tried none.
    let mut shaking = None;
    if terms.tls.is_some() && stream.peek(&mut [0]).await? > 0 {
        shaking = terms.metrics.as_ref().map(|metrics| metrics.handshake());
    }
    let transport = Transport::open(stream, terms.tls.as_ref()).await?;
    if let Some(handshake) = shaking {
        handshake.succeeded();
    }
    let mut socket = Socket::new(transport, pulse.clone());
    let protocol = socket.protocol().await?;
    Ok((socket, protocol))
}

/// How [`watch`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The connection is over.
    Closed,
    /// It is to be closed: the client took too long.
    Due,
    /// `ending` was ready.
    Asked,
}

/// Drives a connection, and its one timer by what its pulse says.
async fn watch<C: Future>(
    pulse: &Pulse,
    mut connection: Pin<&mut C>,
    ending: impl Future<Output = ()>,
) -> Ended {
    let mut ending = pin!(ending);
    let mut armed = pulse.due().unwrap_or_else(|| Instant::now() + HEAD_TIMEOUT);
    let mut timer = pin!(tokio::time::sleep_until(armed));
    poll_fn(|context| {
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ended::Closed);
        }
        if ending.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ended::Asked);
        }
        if let Some(due) = pulse.due().filter(|due| *due < armed) {
            armed = due;
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(context).is_ready() {
            let due = pulse.due();
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return Poll::Ready(Ended::Due);
            }
            armed = due.unwrap_or(now + super::socket::IDLE_TIMEOUT);
            timer.as_mut().reset(armed);
        }
        Poll::Pending
    })
    .await
}

/// The end of a connection that was asked to end: what is being answered is answered in full; one that is
/// silent (browsers open some to have them ready) is not waited for, nor for long one that takes nothing.
async fn finish<C: Future>(pulse: &Pulse, mut connection: Pin<&mut C>) {
    pulse.end();
    let silent = tokio::time::sleep(FAREWELL);
    if watch(pulse, connection.as_mut(), silent).await == Ended::Asked && pulse.busy() {
        watch(pulse, connection, std::future::pending()).await;
    }
}

/// A body of HTTP/2, which clients take by windows: counts as being answered until it is dropped.
struct Watched {
    body: Body,
    answering: Answering,
    /// Counts what it takes, where that may last.
    taken: Option<Taken>,
    /// The last byte, see [`streams::WATCHED`].
    last: Option<Bytes>,
}

impl Watched {
    fn new(body: Body, answering: Answering) -> Watched {
        let lasts = !body.is_measured() || body.length() > streams::WATCHED;
        Watched {
            body,
            answering,
            taken: lasts.then(Taken::default),
            last: None,
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(last) = self.last.take() {
            return Poll::Ready(Some(Ok(last)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        Poll::Ready(match std::task::ready!(polled) {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(frame)) => {
                // There are no trailers.
                let mut bytes = frame.into_data().unwrap_or_default();
                if self.taken.is_some() && self.body.is_end_stream() && bytes.len() > 1 {
                    self.last = Some(bytes.split_off(bytes.len() - 1));
                }
                Some(Ok(bytes))
            }
        })
    }
}

impl http_body::Body for Watched {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let polled = self.poll_piece(context);
        self.answering.offers(polled.is_ready());
        streams::handed_on(polled.is_ready(), self.taken.as_ref());
        polled.map_ok(|bytes| Frame::data(Piece::new(bytes, self.taken.as_ref())))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let (Some(last), Some(left)) = (&self.last, hint.exact()) {
            hint.set_exact(left + last.len() as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests;
