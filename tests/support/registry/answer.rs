//! How the registry answers: log, credentials, faults, then the distribution API.

use super::{Auth, Fault, Inner, Logged, Target};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(super) type Body = BoxBody<Bytes, io::Error>;

/// Bytes of a body that are sent at a time.
const PIECE: usize = 16 * 1024;

/// Serves until it is aborted; its connections end with it.
pub async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, inner: Arc<Inner>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let (tls, inner) = (tls.clone(), inner.clone());
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let inner = inner.clone();
                async move { Ok::<_, Infallible>(handle(&inner, &request).await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            // A connection that breaks is the client's business, or a fault that was asked for.
            match tls {
                None => drop(http.serve_connection(TokioIo::new(socket), service).await),
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        drop(http.serve_connection(TokioIo::new(socket), service).await);
                    }
                }
            }
        });
    }
}

async fn handle(inner: &Inner, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().to_string();
    let headers = request.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    let logged = Logged {
        method: request.method().to_string(),
        path: path.clone(),
        headers: headers.collect(),
        status: 0,
    };
    let number = {
        let mut state = inner.state();
        state.log.push(logged);
        state.log.len() - 1
    };
    let method = request.method().as_str();
    let response = respond(inner, method, &path, request.headers()).await;
    inner.state().log[number].status = response.status().as_u16();
    response
}

async fn respond(inner: &Inner, method: &str, path: &str, headers: &HeaderMap) -> Response<Body> {
    let thing = Thing::parse(path);
    let fault = inner.take_fault(method, &thing);
    match &fault {
        Some(Fault::StallBeforeHeaders(Some(hold))) => tokio::time::sleep(*hold).await,
        Some(Fault::StallBeforeHeaders(None)) => std::future::pending().await,
        Some(Fault::Gate(open)) => {
            let open = &mut open.clone();
            // A test that has ended opens it, too.
            let _ = open.wait_for(|open| *open).await;
        }
        Some(Fault::Status { code, retry_after }) => {
            let mut response = plain(*code, "a fault that the test asked for");
            if let Some(seconds) = retry_after {
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, (*seconds).into());
            }
            return response;
        }
        _ => {}
    }
    if matches!(thing, Thing::Token) {
        return inner.token(headers);
    }
    if let Some(challenge) = inner.challenge(headers) {
        return challenge;
    }
    if let Some(Fault::RedirectTo(base)) = &fault {
        let mut response = plain(307, "elsewhere");
        let location = format!("{base}{path}").parse().expect("a header value");
        response.headers_mut().insert(header::LOCATION, location);
        return response;
    }
    let (media_type, digest, bytes) = match &thing {
        Thing::Root => return plain(200, "{}"),
        Thing::Manifest(repository, version) => {
            let key = (repository.clone(), version.clone());
            match inner.state().manifests.get(&key) {
                None => return plain(404, "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}"),
                Some((media_type, bytes)) => {
                    let digest = crate::support::image::sha256(bytes);
                    (media_type.clone(), digest, Arc::new(bytes.clone()))
                }
            }
        }
        Thing::Blob(repository, digest) => {
            let key = (repository.clone(), digest.clone());
            match inner.state().blobs.get(&key) {
                None => return plain(404, "{\"errors\":[{\"code\":\"BLOB_UNKNOWN\"}]}"),
                Some(bytes) => {
                    let media_type = "application/octet-stream".to_owned();
                    (media_type, digest.clone(), bytes.clone())
                }
            }
        }
        Thing::Referrers(repository, digest) => {
            let bytes = match &fault {
                Some(Fault::Bytes(bytes)) => Some(bytes.as_slice()),
                _ => None,
            };
            return inner.referrers(repository, digest, path, bytes);
        }
        Thing::Token | Thing::Unknown => return plain(404, "no such thing"),
    };
    let bytes = match &fault {
        Some(Fault::Bytes(bytes)) if method == "GET" => Arc::new(bytes.clone()),
        _ => bytes,
    };
    let honour_range = !matches!(fault, Some(Fault::IgnoreRange));
    let start = headers.get(header::RANGE).filter(|_| honour_range);
    let start = start.and_then(|range| {
        let range = range.to_str().ok()?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse::<usize>().ok()
    });
    if start.is_some_and(|start| start >= bytes.len()) {
        return plain(416, "no such range");
    }
    let total = bytes.len();
    let content = Bytes::copy_from_slice(&bytes[start.unwrap_or(0)..]);
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, content.len())
        .header("docker-content-digest", digest)
        .header(header::ACCEPT_RANGES, "bytes");
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{total}", total - 1);
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, range);
    }
    let body = if method == "HEAD" {
        full("")
    } else {
        faulty(content, fault.as_ref())
    };
    response.body(body).expect("valid headers")
}

/// What a path asks for.
enum Thing {
    Root,
    Referrers(String, String),
    Token,
    Manifest(String, String),
    Blob(String, String),
    Unknown,
}

impl Thing {
    fn parse(path: &str) -> Thing {
        let path = path.split('?').next().unwrap_or(path);
        let Some(rest) = path.strip_prefix("/v2/") else {
            return if path == "/token" {
                Thing::Token
            } else {
                Thing::Unknown
            };
        };
        if rest.is_empty() {
            return Thing::Root;
        }
        let owned = |(a, b): (&str, &str)| (a.to_owned(), b.replace("%3A", ":"));
        if let Some((repository, digest)) = rest.split_once("/referrers/").map(owned) {
            return Thing::Referrers(repository, digest);
        }
        if let Some((repository, version)) = rest.split_once("/manifests/").map(owned) {
            return Thing::Manifest(repository, version);
        }
        match rest.split_once("/blobs/").map(owned) {
            Some((repository, digest)) => Thing::Blob(repository, digest),
            None => Thing::Unknown,
        }
    }
    fn fits(&self, target: &Target) -> bool {
        match (target, self) {
            (Target::Anything, _)
            | (Target::Token, Thing::Token)
            | (Target::Referrers, Thing::Referrers(..)) => true,
            (Target::Repository(name), Thing::Manifest(repository, _))
            | (Target::Repository(name), Thing::Referrers(repository, _))
            | (Target::Repository(name), Thing::Blob(repository, _)) => name == repository,
            (Target::Blob(digest), Thing::Blob(_, asked)) => digest == asked,
            (Target::Manifest(version), Thing::Manifest(_, asked)) => version == asked,
            _ => false,
        }
    }
}

impl Inner {
    fn take_fault(&self, method: &str, thing: &Thing) -> Option<Fault> {
        let mut state = self.state();
        let rule = state.rules.iter_mut().find(|rule| {
            rule.left != Some(0)
                && rule.method.as_deref().is_none_or(|only| only == method)
                && thing.fits(&rule.target)
        })?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.fault.clone())
    }

    /// The 401 that this request deserves, if any.
    fn challenge(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()).unwrap_or("");
        let challenge = match &self.auth {
            Auth::None => return None,
            Auth::Basic { user, password } => {
                if given == basic(user, password) {
                    return None;
                }
                "Basic realm=\"test\"".to_owned()
            }
            Auth::Bearer { realm, .. } => {
                let token = given.strip_prefix("Bearer ").unwrap_or("");
                let tokens = self.tokens.lock().expect("no holder panics");
                if tokens.get(token).is_some_and(|end| Instant::now() < *end) {
                    return None;
                }
                let own = format!("{}://{}", self.scheme, self.address);
                let base = realm.as_ref().unwrap_or(&own);
                format!("Bearer realm=\"{base}/token\",service=\"test\",scope=\"pull\"")
            }
        };
        let mut response = plain(401, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}");
        let challenge = challenge.parse().expect("a header value");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        Some(response)
    }

    fn token(&self, headers: &HeaderMap) -> Response<Body> {
        let (lifetime, login) = match &self.auth {
            Auth::Bearer {
                lifetime, login, ..
            } => (*lifetime, login.clone()),
            _ => (Duration::from_secs(60), None),
        };
        if let Some((user, password)) = login {
            let given = headers.get(header::AUTHORIZATION);
            if given.is_none_or(|given| given.as_bytes() != basic(&user, &password).as_bytes()) {
                return plain(401, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}");
            }
        }
        let mut tokens = self.tokens.lock().expect("no holder panics");
        let token = format!("token-{}", tokens.len());
        tokens.insert(token.clone(), Instant::now() + lifetime);
        let seconds = lifetime.as_secs().max(1);
        plain(
            200,
            &format!("{{\"token\":\"{token}\",\"expires_in\":{seconds}}}"),
        )
    }
}

fn basic(user: &str, password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}

pub(super) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

pub(super) fn plain(code: u16, text: &str) -> Response<Body> {
    Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json")
        .body(full(text.to_owned()))
        .expect("valid headers")
}

/// A body that comes as the fault has it.
fn faulty(content: Bytes, fault: Option<&Fault>) -> Body {
    let (until, hold, tear) = match fault {
        Some(Fault::StallAfter { bytes, hold }) => (*bytes, Some(*hold), false),
        Some(Fault::TearAfter { bytes }) => (*bytes, None, true),
        Some(Fault::Throttle { bytes_per_second }) => {
            // Ten pieces a second.
            let piece = (bytes_per_second / 10).max(1);
            let pieces = stream::unfold(content, move |mut left| async move {
                if left.is_empty() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = left.split_to(piece.min(left.len()));
                Some((Ok(Frame::data(now)), left))
            });
            return BodyExt::boxed(StreamBody::new(pieces));
        }
        _ => return full(content),
    };
    let start = (content, 0usize, hold);
    let pieces = stream::unfold(start, move |(mut left, sent, mut hold)| async move {
        if sent >= until {
            if tear {
                // What was sent has to reach the socket before the connection ends.
                tokio::time::sleep(Duration::from_millis(30)).await;
                let error = io::Error::other("torn, as the test asked for");
                return Some((Err(error), (left, sent, hold)));
            }
            match hold.take() {
                Some(Some(hold)) => tokio::time::sleep(hold).await,
                Some(None) => std::future::pending().await,
                None => {}
            }
        }
        if left.is_empty() {
            return None;
        }
        let room = if sent < until { until - sent } else { PIECE };
        let now = left.split_to(room.min(PIECE).min(left.len()));
        let sent = sent + now.len();
        Some((Ok(Frame::data(now)), (left, sent, hold)))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}
