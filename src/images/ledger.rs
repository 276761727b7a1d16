//! What is remembered on disk of images: documents by digest, what a tag meant and when,
//! and which repository may use what. All through the blobspace's records, off the reactor.
//!
//! A *claim* says that bytes with this digest came from a host, or that a repository of
//! that host showed (with its own credentials) that it has them. Without a claim, naming a
//! digest gets nobody at what others fetched.

mod referrers;

use crate::blobspace::{Blobspace, RecordKind};
use crate::digest::Digest;
use crate::pack::Pack;
use crate::reference::{Reference, Repository};
pub(super) use referrers::{Kept, Subject};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// See the module.
#[derive(Clone)]
pub(super) struct Ledger {
    blobspace: Arc<Blobspace<Pack>>,
}

/// What a tag meant when its registry was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownTag {
    pub(super) digest: Digest,
    pub(super) validated: SystemTime,
}

impl KnownTag {
    /// Time since the registry was asked; None where the clock went back, so that nobody knows.
    pub(super) fn age(&self) -> Option<Duration> {
        self.validated.elapsed().ok()
    }
}

#[derive(Serialize, Deserialize)]
struct TagRecord {
    reference: String,
    digest: String,
    /// Milliseconds since 1970.
    validated: u64,
}

/// Layers remembered for one diff ID.
const MOST_LAYERS: usize = 8;

#[derive(Serialize, Deserialize)]
struct DiffIdRecord {
    diff_id: String,
    /// Digests, the newest last.
    layers: Vec<String>,
}

impl Ledger {
    pub(super) fn new(blobspace: Arc<Blobspace<Pack>>) -> Ledger {
        Ledger { blobspace }
    }

    /// Manifest, index or configuration bytes, verified again against their digest.
    pub(super) async fn document(&self, digest: Digest) -> Option<Vec<u8>> {
        let blobspace = self.blobspace.clone();
        let read = blocking(move || {
            let bytes = blobspace.record(RecordKind::Document, &name_of(&digest))?;
            let mut hasher = digest.hasher();
            hasher.update(&bytes);
            (hasher.finish() == digest).then_some(bytes)
        });
        read.await.flatten()
    }

    pub(super) async fn put_document(&self, digest: Digest, bytes: Vec<u8>) {
        self.write(RecordKind::Document, name_of(&digest), bytes)
            .await;
    }

    pub(super) async fn tag(&self, reference: &Reference) -> Option<KnownTag> {
        let bytes = self
            .read(RecordKind::Tag, hashed(&reference.to_string()))
            .await?;
        let record: TagRecord = serde_json::from_slice(&bytes).ok()?;
        if record.reference != reference.to_string() {
            return None;
        }
        let validated = UNIX_EPOCH + Duration::from_millis(record.validated);
        Some(KnownTag {
            digest: record.digest.parse().ok()?,
            validated,
        })
    }

    pub(super) async fn put_tag(&self, reference: &Reference, known: &KnownTag) {
        let validated = known
            .validated
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let record = TagRecord {
            reference: reference.to_string(),
            digest: known.digest.to_string(),
            validated: u64::try_from(validated.as_millis()).unwrap_or(u64::MAX),
        };
        if let Ok(bytes) = serde_json::to_vec(&record) {
            self.write(RecordKind::Tag, hashed(&record.reference), bytes)
                .await;
        }
    }

    pub(super) async fn remove_tag(&self, reference: &Reference) {
        let (blobspace, name) = (self.blobspace.clone(), hashed(&reference.to_string()));
        blocking(move || blobspace.remove_record(RecordKind::Tag, &name)).await;
    }

    /// What the label of an origin stands for.
    pub(super) async fn origin(&self, label: &str) -> Option<Reference> {
        let bytes = self.read(RecordKind::Origin, label.to_owned()).await?;
        Reference::parse(std::str::from_utf8(&bytes).ok()?).ok()
    }

    pub(super) async fn put_origin(&self, label: &str, reference: &Reference) {
        let bytes = reference.to_string().into_bytes();
        self.write(RecordKind::Origin, label.to_owned(), bytes)
            .await;
    }

    /// Layers, in whatever compression, that were unpacked here to a tar with this digest. That is a fact
    /// about their bytes, and gives nobody a right to them.
    pub(super) async fn layers_of(&self, diff_id: Digest) -> Vec<Digest> {
        let Some(bytes) = self.read(RecordKind::DiffId, name_of(&diff_id)).await else {
            return Vec::new();
        };
        match serde_json::from_slice::<DiffIdRecord>(&bytes) {
            Ok(record) if record.diff_id == diff_id.to_string() => {
                let layers = record.layers.iter().filter_map(|layer| layer.parse().ok());
                layers.collect()
            }
            _ => Vec::new(),
        }
    }

    /// The layer was unpacked to a tar with this digest.
    pub(super) async fn put_layer_of(&self, diff_id: Digest, layer: Digest) {
        let mut layers = self.layers_of(diff_id).await;
        if layers.contains(&layer) {
            return;
        }
        layers.push(layer);
        let surplus = layers.len().saturating_sub(MOST_LAYERS);
        let record = DiffIdRecord {
            diff_id: diff_id.to_string(),
            layers: (layers.iter().skip(surplus))
                .map(Digest::to_string)
                .collect(),
        };
        if let Ok(bytes) = serde_json::to_vec(&record) {
            self.write(RecordKind::DiffId, name_of(&diff_id), bytes)
                .await;
        }
    }

    /// Whether the repository has shown that it has these bytes.
    pub(super) async fn repository_has(&self, repository: &Repository, digest: Digest) -> bool {
        self.claimed(format!("{repository}@{digest}")).await
    }

    /// Whether the host has delivered these bytes, to whichever repository.
    pub(super) async fn host_delivered(&self, host: &str, digest: Digest) -> bool {
        self.claimed(format!("{host} {digest}")).await
    }

    /// The repository has shown that it has these bytes.
    pub(super) async fn claim(&self, repository: &Repository, digest: Digest) {
        self.put_claim(format!("{repository}@{digest}")).await;
    }

    /// The host has delivered these bytes for the repository.
    pub(super) async fn claim_delivered(&self, repository: &Repository, digest: Digest) {
        for claim in delivered(repository, digest) {
            self.put_claim(claim).await;
        }
    }

    /// [`Ledger::claim_delivered`] of bytes that are verified and not sealed yet: a process that is killed
    /// right behind the seal has said already whose the pack is. Blocking. What cannot be written now is left
    /// to `claim_delivered`, when the writer's space is free.
    pub(super) fn claim_before_seal(&self, repository: &Repository, digest: Digest) {
        for claim in delivered(repository, digest) {
            let name = hashed(&claim);
            if let Err(error) =
                self.blobspace
                    .put_record(RecordKind::Claim, &name, claim.as_bytes())
            {
                tracing::debug!(%error, "claim not written before its pack");
            }
        }
    }

    async fn claimed(&self, claim: String) -> bool {
        self.read(RecordKind::Claim, hashed(&claim))
            .await
            .is_some_and(|bytes| bytes == claim.as_bytes())
    }

    async fn put_claim(&self, claim: String) {
        if !self.claimed(claim.clone()).await {
            self.write(RecordKind::Claim, hashed(&claim), claim.into_bytes())
                .await;
        }
    }

    async fn read(&self, kind: RecordKind, name: String) -> Option<Vec<u8>> {
        let blobspace = self.blobspace.clone();
        blocking(move || blobspace.record(kind, &name))
            .await
            .flatten()
    }

    /// A record that cannot be written costs a repeated download later, not this answer: logged, not returned.
    async fn write(&self, kind: RecordKind, name: String, bytes: Vec<u8>) {
        let blobspace = self.blobspace.clone();
        let written = blocking(move || blobspace.put_record(kind, &name, &bytes)).await;
        if let Some(Err(error)) = written {
            tracing::warn!(%error, ?kind, "record not written");
        }
    }
}

/// Runs blocking work off the reactor. None if it panicked or the runtime is ending.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// `sha256-<hex>`: a digest as a file name.
pub(super) fn name_of(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

/// The claims of a delivery: the host's and the repository's.
pub(super) fn delivered(repository: &Repository, digest: Digest) -> [String; 2] {
    [
        format!("{} {digest}", repository.host()),
        format!("{repository}@{digest}"),
    ]
}

pub(super) fn hashed(text: &str) -> String {
    Digest::sha256(text.as_bytes()).hex()
}
