//! One exchange: address policy, scheme, timeouts, and what a broken connection means. Follows
//! no redirect, knows no credential, asks once.
//!
//! HTTP/1.1 only: every download then has a connection, and its own flow control. On a shared
//! HTTP/2 connection a few readers that wait (for memory, for a disk) hold the window that all
//! others of that registry need.

use super::address::{Guard, OutOfReach, Reach};
use super::error::Failure;
use super::retry::Retries;
use super::site::{Sites, is_loopback, literal, origin};
use crate::metrics::Metrics;
use bytes::{Bytes, BytesMut};
use reqwest::{Client, Request, Response};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a source may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a connection is there: name, TCP, TLS.
    pub connect: Duration,
    /// Until the headers of an answer are there, connecting included.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
    /// The whole body of a manifest, configuration or token.
    pub document: Duration,
    /// Until a name resolves, for readiness.
    pub name: Duration,
    /// How long a mirror that failed is left alone.
    pub mirror: Duration,
    /// How often a request is repeated, and after what.
    pub retries: Retries,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            document: Duration::from_secs(60),
            name: Duration::from_secs(1),
            mirror: Duration::from_secs(30),
            retries: Retries::default(),
        }
    }
}

/// Connections to all hosts.
pub(super) struct Transport {
    pub(super) sites: Arc<Sites>,
    pub(super) timeouts: Timeouts,
    allow_private: bool,
    proxies: Arc<HashSet<String>>,
    metrics: Arc<Metrics>,
    /// One connection pool per policy, made when first used. Held for the look-up only.
    clients: Mutex<HashMap<Policy, Client>>,
}

/// What a connection pool must not mix.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Policy {
    reach: Reach,
    /// Further trust roots: the registry's on whose behalf we ask, wherever it sends us.
    ca: Option<PathBuf>,
    /// Past the proxies of the environment.
    direct: bool,
}

impl Transport {
    pub(super) fn new(
        sites: Arc<Sites>,
        allow_private: bool,
        timeouts: Timeouts,
        metrics: Arc<Metrics>,
    ) -> Transport {
        let proxies = Arc::new(proxy_hosts());
        let clients = Mutex::default();
        Transport {
            sites,
            timeouts,
            allow_private,
            proxies,
            metrics,
            clients,
        }
    }

    /// Sends `request`, and returns when the headers of the answer are there. `public`: only to a
    /// public address, whoever named the host.
    pub(super) async fn send(
        &self,
        ca: Option<&Path>,
        public: bool,
        request: Request,
    ) -> Result<Response, Failure> {
        let client = self.client(ca, public, &request)?;
        let method = request.method().clone();
        let start = Instant::now();
        let answer = tokio::time::timeout(self.timeouts.first_byte, client.execute(request)).await;
        match answer {
            Ok(Ok(response)) => {
                self.metrics
                    .fetched(&method, response.status(), start.elapsed());
                Ok(response)
            }
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => {
                let seconds = self.timeouts.first_byte.as_secs_f32();
                Err(Failure::silent(format!("no answer within {seconds} s")))
            }
        }
    }

    /// Reads the next piece of a body; None at its end.
    pub(super) async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        match tokio::time::timeout(self.timeouts.stall, response.chunk()).await {
            Ok(piece) => piece.map_err(|error| self.explain(&error)),
            Err(_) => Err(Failure::silent(self.stalled())),
        }
    }

    /// Reads a whole body of at most `limit` bytes. `what` it is, for messages.
    pub(super) async fn whole(
        &self,
        response: &mut Response,
        limit: u64,
        what: &str,
    ) -> Result<Bytes, Failure> {
        let too_large = || Failure::wrong(format!("{what} is larger than {limit} bytes"));
        if response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Err(too_large());
        }
        let body = async {
            let mut bytes = BytesMut::new();
            while let Some(piece) = self.piece(response).await? {
                if bytes.len() as u64 + piece.len() as u64 > limit {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes.freeze())
        };
        let time = self.timeouts.document;
        tokio::time::timeout(time, body).await.unwrap_or_else(|_| {
            Err(Failure::silent(format!(
                "{what} did not arrive within {} s",
                time.as_secs_f32()
            )))
        })
    }

    /// The text for a body that stopped.
    pub(super) fn stalled(&self) -> String {
        format!(
            "no further byte within {} s",
            self.timeouts.stall.as_secs_f32()
        )
    }

    fn client(
        &self,
        ca: Option<&Path>,
        public: bool,
        request: &Request,
    ) -> Result<Client, Failure> {
        let url = request.url();
        let host = url.host_str().unwrap_or_default();
        if url.scheme() != "https" && !(url.scheme() == "http" && self.sites.plain_url(url)) {
            let (host, port) = origin(url).unwrap_or_default();
            return Err(Failure::denied(format!(
                "would be asked without TLS at {host:?}; set registries.\"{host}:{port}\".plainHttp to allow that"
            )));
        }
        let reach = match (public, self.sites.named(url), self.allow_private) {
            (true, ..) => Reach::Public,
            (_, true, _) => Reach::Named,
            (_, _, true) => Reach::Private,
            _ => Reach::Public,
        };
        let within = match literal(url) {
            Some(address) => reach.covers(address),
            // The guard lets the proxies' own names pass, so they are no target.
            None => reach == Reach::Named || !self.proxies.contains(host),
        };
        if !within {
            return Err(Failure::denied(OutOfReach.to_string()));
        }
        let policy = Policy {
            reach,
            ca: ca.map(Path::to_owned),
            direct: is_loopback(host),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&policy) {
            return Ok(client.clone());
        }
        let client = self.build(&policy).map_err(|error| {
            Failure::wrong(format!("cannot set up connections: {}", root_cause(&error)))
        })?;
        clients.insert(policy, client.clone());
        Ok(client)
    }

    fn build(&self, policy: &Policy) -> Result<Client, reqwest::Error> {
        let roots = policy
            .ca
            .as_ref()
            .and_then(|path| self.sites.roots.get(path));
        let roots = roots.cloned().unwrap_or_default();
        let builder = || {
            let builder = Client::builder()
                .user_agent(concat!("blobserve/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .http1_only()
                .connect_timeout(self.timeouts.connect)
                .pool_idle_timeout(Duration::from_secs(30))
                .pool_max_idle_per_host(8)
                .dns_resolver(Guard {
                    reach: policy.reach,
                    proxies: self.proxies.clone(),
                });
            if policy.direct {
                builder.no_proxy()
            } else {
                builder
            }
        };
        // Roots of the system, SSL_CERT_FILE and SSL_CERT_DIR honoured (rustls-native-certs).
        builder()
            .tls_certs_merge(roots.clone())
            .build()
            .or_else(|error| {
                // A machine without any root can still speak plain HTTP.
                tracing::warn!("no trust roots of the system: {}", root_cause(&error));
                builder().tls_certs_only(roots).build()
            })
    }

    /// What an error of the connection means. Tells no address and no text of the far side.
    fn explain(&self, error: &reqwest::Error) -> Failure {
        for cause in chain(error) {
            if cause.is::<OutOfReach>() {
                return Failure::denied(OutOfReach.to_string());
            }
            match cause.downcast_ref::<rustls::Error>() {
                None => {}
                Some(rustls::Error::InvalidCertificate(why)) => {
                    return Failure::wrong(certificate(&why.to_string()));
                }
                Some(rustls::Error::InvalidMessage(_)) => {
                    return Failure::wrong("does not speak TLS; `plainHttp` allows to do without");
                }
                Some(why) => return Failure::wrong(format!("TLS fails: {why}")),
            }
        }
        if error.is_timeout() {
            let seconds = self.timeouts.connect.as_secs_f32();
            return Failure::silent(format!("no connection within {seconds} s"));
        }
        if error.is_dns() {
            return Failure::passing("its name does not resolve");
        }
        let kinds = chain(error).filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        let mut kinds = kinds
            .map(std::io::Error::kind)
            .filter(|kind| *kind != ErrorKind::Other);
        let why = kinds
            .next()
            .map_or("closed early or not HTTP".to_owned(), |kind| {
                kind.to_string()
            });
        match error.is_connect() {
            true => Failure::passing(format!("no connection: {why}")),
            false => Failure::passing(format!("connection broke: {why}")),
        }
    }
}

/// What to do about a certificate that is not accepted, and why it is not.
fn certificate(why: &str) -> String {
    let next = match why {
        why if why.contains("CaUsedAsEndEntity") => {
            "it is a CA's own certificate (CA:TRUE); have that CA issue one for the server"
        }
        why if why.contains("UnknownIssuer") || why.contains("BadSignature") => {
            "put the PEM file of a private CA into `ca`"
        }
        _ => "the registry needs another one",
    };
    format!(
        "its certificate is not accepted ({}): {next}",
        why.escape_default()
    )
}

/// An error and its causes. What an `io::Error` wraps is its cause, too; its `source` skips it.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => (*error).source(),
        }
    })
}

fn root_cause(error: &reqwest::Error) -> String {
    chain(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Host names of the proxies that reqwest takes from the environment.
fn proxy_hosts() -> HashSet<String> {
    [
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "https_proxy",
        "http_proxy",
        "all_proxy",
    ]
    .iter()
    .filter_map(|name| std::env::var(name).ok())
    .filter_map(|value| {
        let url = url::Url::parse(&value).ok().filter(url::Url::has_host);
        let url = url.or_else(|| url::Url::parse(&format!("http://{value}")).ok())?;
        url.host_str().map(str::to_owned)
    })
    .collect()
}
