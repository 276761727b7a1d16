//! The conversation with a registry: OCI distribution specification, "Pull".
//!
//! From the outside in: mirrors, then retries, then authorization, then redirects, then one
//! exchange ([`super::transport`]).

use super::address::Reach;
use super::auth::{Subject, Tokens};
use super::challenge::challenges;
use super::credentials::{Credential, Credentials};
use super::error::Failure;
use super::retry::{Retries, refusal};
use super::site::{Site, Sites, origin};
use super::transport::{Timeouts, Transport};
use super::{Document, RegistryError, RegistryErrorKind};
use crate::config::{Config, ConfigError};
use crate::digest::{Algorithm, Digest};
use crate::metrics::Metrics;
use crate::reference::Repository;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use url::Url;

/// Redirects of one request.
const REDIRECTS: usize = 5;

/// All that the registries share.
pub(super) struct Client {
    pub(super) sites: Arc<Sites>,
    pub(super) transport: Transport,
    credentials: Arc<Credentials>,
    tokens: Tokens,
    /// Repositories whose credentials may be used; None: all.
    trusted: Option<HashSet<Repository>>,
    /// `limits.manifestBytes`.
    pub(super) manifest_bytes: u64,
    allow_private: bool,
    /// Mirrors that failed, and when. Held for the look-up only; as many as are configured.
    failed: Mutex<HashMap<Arc<str>, Instant>>,
}

/// A request within a repository.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// `manifests/<tag>`, `blobs/<digest>`.
    pub(super) path: String,
    pub(super) accept: Option<&'static str>,
    /// First byte wanted.
    pub(super) from: u64,
}

/// What bytes have to be.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) digest: Option<Digest>,
    pub(super) size: Option<u64>,
}

impl Call {
    pub(super) fn new(method: Method, path: String) -> Call {
        Call {
            method,
            path,
            accept: None,
            from: 0,
        }
    }
}

impl Client {
    pub(super) fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        timeouts: Timeouts,
    ) -> Result<Client, ConfigError> {
        let sites = Arc::new(Sites::new(config)?);
        let transport = Transport::new(sites.clone(), config.allow_private, timeouts, metrics);
        let trusted = config.repos.keys().cloned().collect();
        Ok(Client {
            sites,
            transport,
            credentials: Arc::new(Credentials::new(config.docker_auth.clone())),
            tokens: Tokens::default(),
            trusted: if config.any_repo_credentials {
                None
            } else {
                Some(trusted)
            },
            manifest_bytes: config.limits.manifest_bytes,
            allow_private: config.allow_private,
            failed: Mutex::default(),
        })
    }

    pub(super) fn retries(&self) -> Retries {
        self.transport.timeouts.retries
    }

    /// The registry of `repository` itself.
    pub(super) fn site(&self, repository: &Repository) -> Result<Site, RegistryError> {
        let host = repository.host();
        self.sites
            .site(host)
            .map_err(|error| Failure::denied(error).name(host, "registry", 1))
    }

    /// Where what a digest names may be had: mirrors that did not just fail, then the registry.
    pub(super) fn sources(&self, repository: &Repository) -> Result<Vec<Site>, RegistryError> {
        let mut sources = self.sites.mirrors(repository.host());
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = self.transport.timeouts.mirror;
        sources.retain(|mirror| {
            failed
                .get(&mirror.host)
                .is_none_or(|when| when.elapsed() >= pause)
        });
        drop(failed);
        sources.push(self.site(repository)?);
        Ok(sources)
    }

    /// Who says what a tag means: the registry itself, since a mirror may be late; before it its mirrors, if
    /// they were configured so.
    pub(super) fn sources_of_tags(
        &self,
        repository: &Repository,
    ) -> Result<Vec<Site>, RegistryError> {
        match self.sites.mirrors_tags(repository.host()) {
            true => self.sources(repository),
            false => Ok(vec![self.site(repository)?]),
        }
    }

    /// Notes that a mirror failed; one that only lacks the thing did not.
    pub(super) fn mirror_failed(&self, site: &Site, failure: &Failure) {
        tracing::debug!("mirror {}: {}", site.host, failure.text);
        if failure.kind != RegistryErrorKind::NotFound {
            self.leave_alone(&site.host);
        }
    }

    /// Notes that a mirror gave other bytes than a digest names.
    pub(super) fn mirror_lied(&self, host: &Arc<str>) {
        tracing::warn!("mirror {host}: gave other bytes than the digest names, asking elsewhere");
        self.leave_alone(host);
    }

    fn leave_alone(&self, host: &Arc<str>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert(host.clone(), Instant::now());
    }

    /// A mirror is asked once, the registry itself as often as it takes.
    pub(super) fn patience(&self, site: &Site) -> Retries {
        if site.mirrors.is_some() {
            self.retries().none()
        } else {
            self.retries()
        }
    }

    /// Fetches a document from the first source that has it.
    pub(super) async fn document(
        &self,
        sources: &[Site],
        repository: &Repository,
        call: &Call,
        expected: Expected,
        what: &str,
    ) -> Result<Document, RegistryError> {
        for (i, site) in sources.iter().enumerate() {
            let once = || self.document_once(site, repository, call, expected);
            match self.patience(site).run(once).await {
                Ok(document) => return Ok(document),
                Err((failure, _)) if i + 1 < sources.len() => self.mirror_failed(site, &failure),
                Err((failure, attempts)) => return Err(failure.name(&site.host, what, attempts)),
            }
        }
        Err(Failure::wrong("no source").name(repository.host(), what, 1))
    }

    async fn document_once(
        &self,
        site: &Site,
        repository: &Repository,
        call: &Call,
        expected: Expected,
    ) -> Result<Document, Failure> {
        let mut response = self.authorized(site, repository, call).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response.status(), response.headers()));
        }
        let said = content_digest(&response);
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let read = self
            .transport
            .whole(&mut response, self.manifest_bytes, "document");
        let bytes = read.await?;
        verified(bytes, media_type, expected, said).await
    }

    /// Sends a call with the authorization that it needs: what is known, then what the challenge
    /// asks for, once.
    pub(super) async fn authorized(
        &self,
        site: &Site,
        repository: &Repository,
        call: &Call,
    ) -> Result<Response, Failure> {
        let path = repository.path();
        let credential = self.credential(site, repository, false).await?;
        let mut subject = Subject {
            site,
            path,
            credential,
        };
        let known = self.tokens.cached(&subject).await;
        let response = self.followed(site, path, call, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED
            || origin(response.url()) != origin(&site.base)
        {
            return Ok(response);
        }
        let challenges = challenges(response.headers());
        drop(response);
        if known.is_some() && subject.credential.is_some() {
            // A password that was just changed is refused before the file is looked at again.
            subject.credential = self.credential(site, repository, true).await?;
        }
        let fresh = self
            .tokens
            .renew(&self.transport, &subject, known.as_ref(), &challenges)
            .await?;
        let response = self.followed(site, path, call, Some(&fresh)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let with = match (&subject.credential, self.may_use_credentials(repository)) {
                (Some(_), _) => "with the credential of `dockerAuth`",
                (None, true) => "anonymously; `dockerAuth` has no credential for this repository",
                (None, false) => "anonymously; credentials are for repositories in `repos` only",
            };
            return Err(Failure::denied(format!("401 Unauthorized {with}")));
        }
        Ok(response)
    }

    fn may_use_credentials(&self, repository: &Repository) -> bool {
        self.trusted
            .as_ref()
            .is_none_or(|trusted| trusted.contains(repository))
    }

    async fn credential(
        &self,
        site: &Site,
        repository: &Repository,
        fresh: bool,
    ) -> Result<Option<Credential>, Failure> {
        if !self.may_use_credentials(repository) {
            return Ok(None);
        }
        self.credentials
            .find(&site.host, repository.path(), fresh)
            .await
    }

    /// Sends a call and follows its redirects. The authorization does not follow to another host,
    /// port or scheme, nor back from there.
    async fn followed(
        &self,
        site: &Site,
        path: &str,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut url = site
            .base
            .join(&format!("v2/{path}/{}", call.path))
            .map_err(|_| Failure::wrong("its URL cannot be built"))?;
        if let Some(host) = &site.mirrors {
            url.query_pairs_mut().append_pair("ns", host);
        }
        let mut authorization = authorization.cloned();
        for _ in 0..=REDIRECTS {
            let request = request(call, url.clone(), authorization.clone());
            let response = self
                .transport
                .send(site.ca.as_deref(), false, request)
                .await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(header::LOCATION)
                .and_then(|to| to.to_str().ok());
            let target = target
                .and_then(|to| url.join(to).ok())
                .filter(Url::has_host);
            let Some(target) = target else {
                return Err(Failure::wrong(format!(
                    "{} with no usable Location",
                    response.status()
                )));
            };
            if target.scheme() != url.scheme() || origin(&target) != origin(&url) {
                authorization = None;
            }
            url = target;
            // User information in a Location would become an Authorization of the far side's choice.
            let _ = url.set_username("");
            let _ = url.set_password(None);
        }
        Err(Failure::wrong(format!("more than {REDIRECTS} redirects")))
    }

    /// For readiness.
    pub(super) async fn check(&self, host: &str) -> Result<(), RegistryError> {
        let what = "readiness";
        let site = self
            .sites
            .site(host)
            .map_err(|error| Failure::denied(error).name(host, what, 1))?;
        let (name, port) = origin(&site.base).unwrap_or_default();
        let name = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let proxied = std::env::var_os("HTTPS_PROXY")
            .or(std::env::var_os("https_proxy"))
            .is_some();
        // Behind a proxy it is the proxy that resolves names.
        if !proxied {
            let lookup = tokio::net::lookup_host((name.as_str(), port));
            let found = tokio::time::timeout(self.transport.timeouts.name, lookup).await;
            let found: Vec<SocketAddr> = match found {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(_)) => Vec::new(),
                Err(_) => {
                    let seconds = self.transport.timeouts.name.as_secs_f32();
                    let text = format!("its name does not resolve within {seconds} s");
                    return Err(Failure::silent(text).name(host, what, 1));
                }
            };
            let reach = if self.allow_private {
                Reach::Private
            } else {
                Reach::Public
            };
            let reach = if self.sites.named(&site.base) {
                Reach::Named
            } else {
                reach
            };
            if !found.iter().any(|address| reach.covers(address.ip())) {
                let text = "its name does not resolve to an address that may be contacted";
                return Err(Failure::passing(text).name(host, what, 1));
            }
        }
        let url = site
            .base
            .join("v2/")
            .map_err(|_| Failure::wrong("bad name").name(host, what, 1))?;
        let request = reqwest::Request::new(Method::GET, url);
        let answer = self
            .transport
            .send(site.ca.as_deref(), false, request)
            .await;
        let answer = answer.and_then(|response| match response.status().is_server_error() {
            true => Err(refusal(response.status(), response.headers())),
            false => Ok(()),
        });
        answer.map_err(|failure| failure.name(host, what, 1))
    }
}

fn request(call: &Call, url: Url, authorization: Option<HeaderValue>) -> reqwest::Request {
    let mut request = reqwest::Request::new(call.method.clone(), url);
    let headers = request.headers_mut();
    // Bytes are verified as they are stored; nobody may recode them on the way.
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    let accept = call.accept.unwrap_or("*/*");
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization);
    }
    if call.from > 0
        && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", call.from))
    {
        headers.insert(header::RANGE, range);
    }
    request
}

/// `Docker-Content-Digest`, if it is one.
pub(super) fn content_digest(response: &Response) -> Option<Digest> {
    response
        .headers()
        .get("docker-content-digest")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Checks bytes against what was asked for and what the source says; hashes off the reactor.
pub(super) async fn verified(
    bytes: Bytes,
    media_type: Option<String>,
    expected: Expected,
    said: Option<Digest>,
) -> Result<Document, Failure> {
    if let Some(size) = expected.size
        && size != bytes.len() as u64
    {
        return Err(Failure::wrong(format!(
            "has {} bytes, its descriptor says {size}",
            bytes.len()
        )));
    }
    let named = expected.digest.or(said);
    let algorithm = named.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let hash = {
        let bytes = bytes.clone();
        move || {
            let mut hasher = crate::digest::Hasher::new(algorithm);
            hasher.update(&bytes);
            hasher.finish()
        }
    };
    let digest = match bytes.len() {
        0..0x1_0000 => hash(),
        _ => tokio::task::spawn_blocking(hash)
            .await
            .map_err(|_| Failure::passing("verification was cancelled"))?,
    };
    match named {
        Some(named) if named != digest => Err(Failure::wrong(format!(
            "its bytes are {digest}, not {named}"
        ))),
        _ => Ok(Document {
            digest,
            media_type,
            bytes,
        }),
    }
}
