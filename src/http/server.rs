//! Listener and connections: HTTP/1.1 and HTTP/2 by prior knowledge, on an accept loop of our own.

use super::serve::Serve;
use crate::config::{Config, Mode};
use crate::images::Images;
use crate::metrics::Metrics;
use crate::shutdown::{Lifecycle, Phase};
use http::header::{self, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// From accept to the end of a request's head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a connection that has sent part of the HTTP/2 preface is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);
/// RFC 9113 §3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Connections at once; one more is refused with a 503.
const MOST_CONNECTIONS: u32 = 20_000;
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\n\
Content-Length: 7\r\nConnection: close\r\n\r\ntimeout";
/// Bytes of a request's head at most.
const MOST_HEAD: usize = 64 << 10;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on one listener. Clones share.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    serve: Serve,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Puts it together. Starts nothing.
    pub fn new(config: &Config, images: Images, metrics: Arc<Metrics>, lifecycle: Lifecycle) -> Server {
        let serve = Serve {
            images,
            timeout: config.timeout,
            head_any_path: config.head_any_path,
            sandbox_unconfigured: config.mode == Mode::Serve,
        };
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS as usize));
        Server(Arc::new(Shared { serve, metrics, lifecycle, connections }))
    }

    /// Accepts until the phase is [`Phase::Stopping`]; returns when the last connection has ended, `limit` later
    /// at the latest.
    pub async fn run(self, listener: TcpListener, limit: Duration) {
        let mut stopping = pin!(self.0.lifecycle.reached(Phase::Stopping));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stopping => break,
            };
            match accepted {
                Ok((stream, _)) => self.connection(stream, limit),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        // Every connection has ended when every permit is back; each ends itself at the limit.
        let _ended = self.0.connections.acquire_many(MOST_CONNECTIONS).await;
    }

    fn connection(&self, stream: TcpStream, limit: Duration) {
        let Ok(permit) = self.0.connections.clone().try_acquire_owned() else {
            tokio::spawn(refuse(stream));
            return;
        };
        let shared = self.0.clone();
        tokio::spawn(async move {
            // A connection that cannot be tuned still works; one that breaks concerns its client only.
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HEAD_TIMEOUT, is_http2(&stream)).await {
                Ok(Ok(true)) => shared.http2(stream, limit).await,
                Ok(Ok(false)) => shared.http1(stream, limit).await,
                Ok(Err(_)) | Err(_) => {}
            }
            drop(permit);
        });
    }
}

impl Shared {
    async fn http1(self: Arc<Self>, stream: TcpStream, limit: Duration) {
        let lifecycle = self.lifecycle.clone();
        let service = service_fn(move |request| self.clone().answer(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MOST_HEAD)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            () = lifecycle.reached(Phase::Stopping) => connection.as_mut().graceful_shutdown(),
        }
        let _ = tokio::time::timeout(limit, connection).await;
    }

    async fn http2(self: Arc<Self>, stream: TcpStream, limit: Duration) {
        let lifecycle = self.lifecycle.clone();
        let service = service_fn(move |request| self.clone().answer(request));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(MOST_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(HEAD_TIMEOUT)
            .keep_alive_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            // GOAWAY at once: the client opens another connection, elsewhere if it can.
            () = lifecycle.reached(Phase::Draining) => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = &mut connection => return,
            () = lifecycle.reached(Phase::Stopping) => {}
        }
        let _ = tokio::time::timeout(limit, connection).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<super::Body>, Infallible> {
        let started = Instant::now();
        let (request, _) = request.into_parts();
        let mut response = self.serve.answer(&request).await;
        let draining = self.lifecycle.phase() >= Phase::Draining;
        if draining && request.version <= Version::HTTP_11 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.served(&request.method, response.status(), started.elapsed());
        Ok(response)
    }
}

/// Looks at the first bytes without taking them.
async fn is_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut start).await?;
        if count == 0 || start[..count] != PREFACE[..count] {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

async fn refuse(mut stream: TcpStream) {
    // A client that does not read the refusal gets none.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(REFUSAL)).await;
}
