//! Manifests and blobs, from registries (OCI distribution specification) and from
//! OCI image layout directories. Knows no tar and no layout of our own disk.
//!
//! What a caller may rely on: manifests and configurations are returned only when
//! their bytes match the digest asked for and stay within the size allowed; what can
//! pass (5xx, 429, resets) is retried here with backoff, so an error that comes out is
//! final for this attempt; credentials go where BEHAVIOUR, Security lets them go, and
//! nowhere else. Layer bytes are *not* verified here: `unpack` does that.

use crate::config::Config;
use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::reference::{Repository, Version};
use bytes::Bytes;
use std::sync::Arc;

/// All configured sources. Cheap to share; one per process.
pub struct Registries(());

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
pub struct Blob(());

impl Blob {
    /// Returns the next piece (any size), or None at the end. Waits up to the stall timeout;
    /// never returns more bytes in all than the descriptor's size plus one.
    /// Cancel safe: a call that is dropped loses no bytes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        todo!()
    }
}

impl Registries {
    /// Prepares the sources. Opens no connection.
    pub fn new(
        config: &Config,
        metrics: Arc<crate::metrics::Metrics>,
    ) -> Result<Registries, crate::config::ConfigError> {
        let _ = (config, metrics);
        todo!()
    }

    /// Asks what a tag means now (HEAD; GET where a registry does not answer HEAD with a digest).
    pub async fn resolve(
        &self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Digest, RegistryError> {
        let _ = (repository, tag);
        todo!()
    }

    /// Fetches a manifest or index, by tag or by digest, of at most `limits.manifestBytes`.
    pub async fn manifest(
        &self,
        repository: &Repository,
        version: &Version,
    ) -> Result<Document, RegistryError> {
        let _ = (repository, version);
        todo!()
    }

    /// Fetches a small blob whole (an image configuration), verified, of at most `limits.manifestBytes`.
    pub async fn small_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Document, RegistryError> {
        let _ = (repository, descriptor);
        todo!()
    }

    /// Starts a download. Returns before the first byte of the body has come, after the headers have.
    pub async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Blob, RegistryError> {
        let _ = (repository, descriptor);
        todo!()
    }

    /// Asks (HEAD) whether this repository, with its own credentials, has the blob: Ok, or NotFound / Denied.
    pub async fn probe_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let _ = (repository, digest);
        todo!()
    }

    /// For readiness: the host's name resolves (1 s) and `/v2/` answers at all.
    pub async fn check(&self, host: &str) -> Result<(), RegistryError> {
        let _ = host;
        todo!()
    }
}
