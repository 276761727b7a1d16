//! Manifests and blobs, from registries (OCI distribution specification) and from
//! OCI image layouts, in directories and in archives. Knows no tar and no layout of our own disk.
//!
//! What a caller may rely on: manifests and configurations are returned only when
//! their bytes match the digest asked for and stay within the size allowed; what can
//! pass (5xx, 429, resets) is retried here with backoff, so an error that comes out is
//! final for this attempt; credentials go where BEHAVIOUR, Security lets them go, and
//! nowhere else. Layer bytes are *not* verified here: `unpack` does that.
//!
//! A host is a registry or, with `registries.<host>.layout` or `.archive`, a directory or a file. From the outside in:
//!
//! | file | decides |
//! |---|---|
//! | `site` | scheme, API host, mirrors and trust roots of a host; which hosts the operator named |
//! | `client` | sources in order, authorization, redirects, verification |
//! | `referrers` | what refers to a digest: lists, page by page, or the tag schema |
//! | `blob` | downloads that resume, and go on elsewhere |
//! | `layout`, `store` | what an OCI layout says; what holds its files: the border of all that is no registry |
//! | `retry` | what can pass, and how long to wait |
//! | `auth`, `realm`, `challenge`, `credentials` | who gets which credential |
//! | `transport`, `address` | one exchange: which addresses, how long |
//!
//! Invariants: a mirror is only asked for what a digest names (tags too, with `mirrorTags`); a credential leaves through
//! `client` (to the host it is for) and `auth` (to a realm that `realm` trusts), nowhere else; a
//! layer's `urls` are never read.

mod address;
mod attached;
mod auth;
mod blob;
mod challenge;
mod client;
mod credentials;
mod error;
mod layout;
mod realm;
mod referrers;
mod retry;
mod site;
mod store;
mod transport;

use crate::config::Config;
use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::reference::{Repository, Version};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::sync::Arc;

pub use challenge::{Challenge, parse_challenges};
pub use realm::{Realm, RealmRules, judge_realm};
pub use referrers::Listed;
pub use retry::Retries;
pub use transport::Timeouts;

use client::{Call, Client, Expected};
use layout::Layout;

/// All configured sources. Cheap to share; one per process.
#[derive(Clone)]
pub struct Registries {
    client: Arc<Client>,
}

/// A manifest, index or configuration as fetched: verified bytes.
#[derive(Clone, Debug)]
pub struct Document {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// `Content-Type`, where the source said one.
    pub media_type: Option<String>,
    /// Exactly the bytes that the digest names.
    pub bytes: Bytes,
}

/// Why a source did not give what was asked. Cloneable: every waiter gets the same one.
/// The text names registry, repository and what was asked; never a credential, never an
/// internal address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RegistryError {
    /// What the caller may branch on.
    pub kind: RegistryErrorKind,
    /// One line.
    pub message: Arc<str>,
}

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryErrorKind {
    /// The registry says that there is no such thing (404).
    NotFound,
    /// The registry refuses (401 after authentication, 403), or we may not contact it.
    Denied,
    /// No connection, no first byte, or no further byte in time.
    Silent,
    /// The registry answers wrongly: bytes that do not match their digest, an answer that is none.
    Wrong,
    /// 5xx, 429 or broken connections, after all retries.
    Failing {
        /// From Retry-After, in seconds.
        retry_after: Option<u64>,
    },
}

/// A blob's bytes as they come. Torn connections are resumed by Range inside `next`
/// (the resumed bytes continue exactly where the last ended).
pub struct Blob(blob::Stream);

impl Blob {
    /// Returns the next piece (any size), or None at the end. Waits up to the stall timeout;
    /// never returns more bytes in all than the descriptor's size plus one.
    /// Cancel safe: a call that is dropped loses no bytes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        self.0.next().await
    }

    /// Ends it; who gave its bytes.
    pub fn into_source(self) -> BlobSource {
        self.0.source()
    }
}

/// Who gave the bytes of a blob, for when they turn out to be others than its digest names.
pub struct BlobSource {
    client: Option<Arc<Client>>,
    mirrors: Vec<Arc<str>>,
}

impl BlobSource {
    /// The bytes were wrong. Adds the mirrors that gave any of them to those that are `avoided`, and leaves them
    /// alone for a while; false if there were none, so that it is the registry itself that is wrong.
    pub fn distrust(self, avoided: &mut Vec<Arc<str>>) -> bool {
        let Some(client) = self.client else {
            return false;
        };
        for mirror in &self.mirrors {
            client.mirror_lied(mirror);
        }
        let any = !self.mirrors.is_empty();
        avoided.extend(self.mirrors);
        any
    }
}

impl Registries {
    /// Prepares the sources. Opens no connection.
    pub fn new(
        config: &Config,
        metrics: Arc<crate::metrics::Metrics>,
    ) -> Result<Registries, crate::config::ConfigError> {
        Registries::with_timeouts(config, metrics, Timeouts::default())
    }

    /// The same with other timeouts than the default ones.
    pub fn with_timeouts(
        config: &Config,
        metrics: Arc<crate::metrics::Metrics>,
        timeouts: Timeouts,
    ) -> Result<Registries, crate::config::ConfigError> {
        Ok(Registries {
            client: Arc::new(Client::new(config, metrics, timeouts)?),
        })
    }

    fn layout(&self, repository: &Repository) -> Option<Layout> {
        let store = self.client.sites.store(repository.host())?;
        Some(Layout::new(store, repository, self.client.manifest_bytes))
    }

    /// Whether the repository's blobs are files on this machine.
    pub fn is_local(&self, repository: &Repository) -> bool {
        self.client.sites.store(repository.host()).is_some()
    }

    /// Asks what a tag means now (HEAD; GET where a registry does not answer HEAD with a digest).
    pub async fn resolve(
        &self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Digest, RegistryError> {
        if let Some(layout) = self.layout(repository) {
            return layout.resolve(tag).await;
        }
        let client = &*self.client;
        let sources = client.sources_of_tags(repository)?;
        let mut call = Call::new(Method::HEAD, format!("manifests/{tag}"));
        call.accept = Some(oci::ACCEPT);
        let call = &call;
        let version = Version::Tag(tag.into());
        for (i, site) in sources.iter().enumerate() {
            let once = || async move {
                let response = client.authorized(site, repository, call).await?;
                match response.status() {
                    StatusCode::OK => Ok(client::content_digest(&response)),
                    // No HEAD here: the GET below tells.
                    StatusCode::NOT_IMPLEMENTED => Ok(None),
                    status => match retry::refusal(status, response.headers()) {
                        failure if failure.kind == RegistryErrorKind::Wrong => Ok(None),
                        failure => Err(failure),
                    },
                }
            };
            match client.patience(site).run(once).await {
                Ok(Some(digest)) => return Ok(digest),
                Ok(None) => break,
                Err((failure, _)) if i + 1 < sources.len() => client.mirror_failed(site, &failure),
                Err((failure, attempts)) => {
                    let what = manifest_of(repository, &version);
                    return Err(failure.name(&site.host, &what, attempts));
                }
            }
        }
        let document = self.manifest(repository, &version).await;
        document.map(|document| document.digest)
    }

    /// Fetches a manifest or index, by tag or by digest, of at most `limits.manifestBytes`.
    pub async fn manifest(
        &self,
        repository: &Repository,
        version: &Version,
    ) -> Result<Document, RegistryError> {
        if let Some(layout) = self.layout(repository) {
            return layout.manifest(version).await;
        }
        let (digest, sources, name) = match version {
            Version::Tag(tag) => {
                let sources = self.client.sources_of_tags(repository)?;
                (None, sources, tag.to_string())
            }
            Version::Digest(digest) => (
                Some(*digest),
                self.client.sources(repository)?,
                digest.to_string(),
            ),
        };
        let mut call = Call::new(Method::GET, format!("manifests/{name}"));
        call.accept = Some(oci::ACCEPT);
        let (expected, what) = (
            Expected { digest, size: None },
            manifest_of(repository, version),
        );
        self.client
            .document(&sources, repository, &call, expected, &what)
            .await
    }

    /// Fetches a small blob whole (an image configuration), verified, of at most `limits.manifestBytes`.
    pub async fn small_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Document, RegistryError> {
        let Descriptor { digest, size, .. } = descriptor;
        let (what, limit) = (
            format!("blob {digest} of `{repository}`"),
            self.client.manifest_bytes,
        );
        if *size > limit {
            let text = format!(
                "is {size} bytes by its descriptor, more than limits.manifestBytes ({limit})"
            );
            return Err(error::Failure::wrong(text).name(repository.host(), &what, 1));
        }
        if let Some(layout) = self.layout(repository) {
            return layout.small_blob(descriptor).await;
        }
        let sources = self.client.sources(repository)?;
        let call = Call::new(Method::GET, format!("blobs/{digest}"));
        let expected = Expected {
            digest: Some(*digest),
            size: Some(*size),
        };
        self.client
            .document(&sources, repository, &call, expected, &what)
            .await
    }

    /// Starts a download. Returns before the first byte of the body has come, after the headers have.
    /// Mirrors that are to be `avoided` are not asked, see [`BlobSource::distrust`].
    pub async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        avoided: &[Arc<str>],
    ) -> Result<Blob, RegistryError> {
        if let Some(layout) = self.layout(repository) {
            let file = layout.blob(descriptor).await?;
            return Ok(Blob(blob::Stream::file(file, descriptor.size)));
        }
        let (client, repository) = (self.client.clone(), repository.clone());
        blob::Stream::start(client, repository, descriptor.clone(), avoided.to_vec())
            .await
            .map(Blob)
    }

    /// Asks (HEAD) whether this repository, with its own credentials, has the blob: Ok, or NotFound / Denied.
    pub async fn probe_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        match self.layout(repository) {
            Some(layout) => layout.probe(digest).await,
            None => blob::probe(&self.client, repository, digest).await,
        }
    }

    /// For readiness: the host's name resolves (1 s) and `/v2/` answers at all.
    pub async fn check(&self, host: &str) -> Result<(), RegistryError> {
        match self.client.sites.store(host) {
            Some(store) => layout::check(host, store).await,
            None => self.client.check(host).await,
        }
    }
}

/// What an error calls a manifest.
fn manifest_of(repository: &Repository, version: &Version) -> String {
    match version {
        Version::Tag(tag) => format!("manifest of `{repository}:{tag}`"),
        Version::Digest(digest) => format!("manifest of `{repository}@{digest}`"),
    }
}

#[cfg(test)]
mod tests;
