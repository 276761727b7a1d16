//! From a digest to leased packs: manifest, configuration, first layer, replacements.
//! Each step looks on disk first, then flies; and nobody gets at bytes that others fetched
//! without showing that it has them too.

use super::ImageError;
use super::fetch::{Failed, Fetcher, base_key};
use super::flight::Flights;
use super::ledger::{Ledger, blocking};
use super::memory::Failures;
use super::policy::Policy;
use crate::blobspace::{Blobspace, BlobspaceError, Key, Lease};
use crate::digest::Digest;
use crate::metrics::Metrics;
use crate::modify::Rules;
use crate::oci::{self, Descriptor, Document, ImageConfig, Manifest, Platform};
use crate::pack::{Pack, PackError};
use crate::reference::{Reference, Repository, Version};
use crate::registry::Registries;
use crate::unpack::Expected;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Indexes within indexes.
const INDEX_DEPTH: usize = 4;
/// Rounds of "join the flight of another repository, then show that we may".
const ROUNDS: usize = 4;
/// Attempts to write a side pack while older writers need the space.
const SIDE_PACK_ATTEMPTS: u32 = 8;
/// How long a fault of verified bytes is remembered.
const FAULT_LASTS: Duration = Duration::from_secs(600);

/// An image as its manifest and configuration describe it.
#[derive(Debug)]
pub(super) struct Image {
    /// Of the manifest that was chosen.
    pub(super) digest: Digest,
    pub(super) config: ImageConfig,
    /// The layer that is served.
    layer: Expected,
    layers: usize,
}

/// An image whose packs are here.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) image: Arc<Image>,
    pub(super) base: Lease<Pack>,
    pub(super) modified: Option<Lease<Pack>>,
}

/// What a flight for shared bytes returns: for whom they were fetched (whose credentials, whose promises),
/// and the outcome, which is for that one only: another shows first that it may have the bytes, and
/// need not share every error.
type Delivery<L, T> = (L, Result<T, ImageError>);
type DocumentDelivery = Delivery<Repository, Arc<Vec<u8>>>;
type LayerDelivery = Delivery<(Repository, Expected), Lease<Pack>>;
/// The unit of download: a registry host, and what it is to deliver.
type HostDigest = (String, Digest);

/// See the module. One per process.
pub(super) struct Preparer {
    pub(super) ledger: Ledger,
    registries: Arc<Registries>,
    blobspace: Arc<Blobspace<Pack>>,
    metrics: Arc<Metrics>,
    fetcher: Fetcher,
    platform: Platform,
    documents: Flights<HostDigest, DocumentDelivery>,
    layers: Flights<HostDigest, LayerDelivery>,
    side_packs: Flights<Key, Lease<Pack>>,
    /// By registry host and all that was promised: one repository's promises are no other's fault.
    faults: Failures<(String, Expected)>,
}

/// What kind of document is asked for: they come from different places of a registry.
#[derive(Clone)]
enum Wanted {
    Manifest(Digest),
    Config(Descriptor),
}

impl Wanted {
    fn digest(&self) -> Digest {
        match self {
            Wanted::Manifest(digest) => *digest,
            Wanted::Config(descriptor) => descriptor.digest,
        }
    }
}

impl Preparer {
    pub(super) fn new(
        ledger: Ledger,
        registries: Arc<Registries>,
        blobspace: Arc<Blobspace<Pack>>,
        metrics: Arc<Metrics>,
        fetcher: Fetcher,
        platform: Platform,
    ) -> Preparer {
        Preparer {
            ledger,
            registries,
            blobspace,
            metrics,
            fetcher,
            platform,
            documents: Flights::new(),
            layers: Flights::new(),
            side_packs: Flights::new(),
            faults: Failures::new(FAULT_LASTS),
        }
    }

    /// The image by that digest (of a manifest or an index), with its packs leased. `reference` is what was asked for: its
    /// repository counts, the rest is for the log.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
        policy: &Policy,
    ) -> Result<Prepared, ImageError> {
        let repository = &reference.repository;
        let image = self.image(repository, digest).await.inspect_err(
            |error| tracing::warn!(%repository, %digest, %error, "manifest not usable"),
        )?;
        let image = Arc::new(image);
        if image.layers > 1 {
            tracing::warn!(%repository, digest = %image.digest, layers = image.layers, "only the first layer is served");
        }
        let base = self.layer(reference, &image.layer).await?;
        let modified = match &policy.rules {
            None => None,
            Some(_) => Some(self.modified(&image.layer.digest, &base, policy).await?),
        };
        Ok(Prepared {
            image,
            base,
            modified,
        })
    }

    /// Whether the repository's manifest of that digest is on disk.
    pub(super) async fn is_known(&self, repository: &Repository, digest: Digest) -> bool {
        self.ledger.repository_has(repository, digest).await
            && self.ledger.document(digest).await.is_some()
    }

    /// The tag means this digest, says the registry with the repository's credentials: if the host has
    /// delivered these bytes before, the repository may use them.
    pub(super) async fn tag_means(&self, repository: &Repository, digest: Digest) {
        if self.ledger.host_delivered(repository.host(), digest).await {
            self.ledger.claim(repository, digest).await;
        }
    }

    async fn image(
        self: &Arc<Self>,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Image, ImageError> {
        let mut digest = digest;
        for _ in 0..=INDEX_DEPTH {
            let bytes = self.document(repository, Wanted::Manifest(digest)).await?;
            let named = |text: &dyn std::fmt::Display| {
                format!("manifest {digest} of `{repository}`: {text}")
            };
            let wrong = |text: &dyn std::fmt::Display| ImageError::Wrong(named(text).into());
            match oci::parse_document(None, &bytes).map_err(|error| wrong(&error))? {
                Document::Manifest(manifest) => {
                    return self.described(repository, digest, &manifest).await;
                }
                Document::Index(entries) => {
                    let chosen = oci::choose(&entries, &self.platform).map_err(|there_are| {
                        let text = named(&format_args!(
                            "no image for {}, there are: {}",
                            self.platform,
                            there_are.join(", ")
                        ));
                        ImageError::NotFound(text.into())
                    })?;
                    digest = chosen.descriptor.digest;
                }
            }
        }
        let text = format!(
            "manifest {digest} of `{repository}`: more than {INDEX_DEPTH} indexes within each other"
        );
        Err(ImageError::Wrong(text.into()))
    }

    async fn described(
        self: &Arc<Self>,
        repository: &Repository,
        digest: Digest,
        manifest: &Manifest,
    ) -> Result<Image, ImageError> {
        let wrong = |text: String| {
            ImageError::Wrong(format!("image {digest} of `{repository}`: {text}").into())
        };
        let Some(layer) = manifest.layers.first() else {
            return Err(ImageError::NotFound(
                format!("image {digest} of `{repository}` has no layers").into(),
            ));
        };
        let mut config = ImageConfig::default();
        let mut diff_id = None;
        if oci::is_image_config(&manifest.config.media_type) {
            let bytes = self
                .document(repository, Wanted::Config(manifest.config.clone()))
                .await?;
            config = oci::parse_config(&bytes).map_err(|error| wrong(error.to_string()))?;
            let (diff_ids, layers) = (config.diff_ids.len(), manifest.layers.len());
            if diff_ids != layers {
                return Err(wrong(format!(
                    "its configuration has {diff_ids} diff IDs for {layers} layers"
                )));
            }
            diff_id = config.diff_ids.first().copied();
        }
        let layer = Expected {
            digest: layer.digest,
            size: layer.size,
            media_type: layer.media_type.clone(),
            diff_id,
        };
        Ok(Image {
            digest,
            config,
            layer,
            layers: manifest.layers.len(),
        })
    }

    async fn document(
        self: &Arc<Self>,
        repository: &Repository,
        wanted: Wanted,
    ) -> Result<Arc<Vec<u8>>, ImageError> {
        for _ in 0..ROUNDS {
            if let Some(bytes) = self.held_document(repository, &wanted).await? {
                return Ok(bytes);
            }
            let key = (repository.host().to_owned(), wanted.digest());
            let (preparer, leader, wanted) = (self.clone(), repository.clone(), wanted.clone());
            let fetch = || async move {
                // Another flight may have ended since we looked.
                let delivered = match preparer.held_document(&leader, &wanted).await {
                    Ok(Some(bytes)) => Ok(bytes),
                    Ok(None) => preparer.fetch_document(&leader, &wanted).await,
                    Err(error) => Err(error),
                };
                Ok((leader, delivered))
            };
            let (leader, delivered) = self.documents.join(key, fetch).await?;
            if leader == *repository {
                return delivered;
            }
            if let Err(error) = delivered
                && !is_own_affair(&error)
            {
                return Err(error.retold(&leader, repository));
            }
        }
        Err(crowded(repository, &wanted.digest()))
    }

    /// The document, if it is here and the repository may have it.
    async fn held_document(
        &self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<Option<Arc<Vec<u8>>>, ImageError> {
        let digest = wanted.digest();
        let Some(bytes) = self.ledger.document(digest).await else {
            return Ok(None);
        };
        if !self.ledger.repository_has(repository, digest).await {
            if !self.ledger.host_delivered(repository.host(), digest).await {
                return Ok(None);
            }
            self.show(repository, wanted).await?;
            self.ledger.claim(repository, digest).await;
        }
        Ok(Some(Arc::new(bytes)))
    }

    async fn fetch_document(
        &self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<Arc<Vec<u8>>, ImageError> {
        let document = match wanted {
            Wanted::Manifest(digest) => {
                self.registries
                    .manifest(repository, &Version::Digest(*digest))
                    .await?
            }
            Wanted::Config(descriptor) => {
                self.registries.small_blob(repository, descriptor).await?
            }
        };
        let bytes = document.bytes.to_vec();
        self.ledger
            .put_document(document.digest, bytes.clone())
            .await;
        self.ledger
            .claim_delivered(repository, document.digest)
            .await;
        Ok(Arc::new(bytes))
    }

    /// Asks the registry whether the repository, with its own credentials, has these bytes.
    async fn show(&self, repository: &Repository, wanted: &Wanted) -> Result<(), ImageError> {
        match wanted {
            Wanted::Manifest(digest) => {
                let found = self
                    .registries
                    .resolve(repository, &digest.to_string())
                    .await?;
                if found != *digest {
                    let text = format!(
                        "`{repository}`: asked for manifest {digest}, the registry says {found}"
                    );
                    return Err(ImageError::Wrong(text.into()));
                }
                Ok(())
            }
            Wanted::Config(descriptor) => Ok(self
                .registries
                .probe_blob(repository, &descriptor.digest)
                .await?),
        }
    }

    async fn layer(
        self: &Arc<Self>,
        reference: &Reference,
        layer: &Expected,
    ) -> Result<Lease<Pack>, ImageError> {
        let repository = &reference.repository;
        for _ in 0..ROUNDS {
            if let Some(pack) = self.held_layer(repository, layer).await? {
                return Ok(pack);
            }
            let fault = (repository.host().to_owned(), layer.clone());
            if let Some(error) = self.faults.get(&fault) {
                return Err(error);
            }
            let key = (repository.host().to_owned(), layer.digest);
            let (preparer, leader, wanted) = (self.clone(), repository.clone(), layer.clone());
            let asked = reference.clone();
            let fetch = || async move {
                // Another flight may have ended since we looked.
                let delivered = match preparer.held_layer(&leader, &wanted).await {
                    Ok(Some(pack)) => Ok(pack),
                    Ok(None) => preparer.fetch_layer(&asked, &wanted).await,
                    Err(error) => Err(error),
                };
                Ok(((leader, wanted), delivered))
            };
            let ((leader, promise), delivered) = self.layers.join(key, fetch).await?;
            if leader == *repository && promise == *layer {
                return delivered;
            }
            if let Err(error) = delivered
                && !is_own_affair(&error)
            {
                return Err(error.retold(&leader, repository));
            }
            // Another's flight: its bytes are here now, or its failure is its own. Show that we may.
        }
        Err(crowded(repository, &layer.digest))
    }

    /// The layer's pack, if it is here, the repository may have it, and it is what was promised.
    async fn held_layer(
        &self,
        repository: &Repository,
        layer: &Expected,
    ) -> Result<Option<Lease<Pack>>, ImageError> {
        let Some(pack) = self.sealed(&base_key(&layer.digest)).await else {
            return Ok(None);
        };
        let (host, digest) = (repository.host(), layer.digest);
        if !self.ledger.repository_has(repository, digest).await {
            if !self.ledger.host_delivered(host, digest).await {
                return Ok(None);
            }
            self.registries.probe_blob(repository, &digest).await?;
            self.ledger.claim(repository, digest).await;
        }
        promised(repository, layer, pack).map(Some)
    }

    /// One cold fetch, with its one line in the log.
    async fn fetch_layer(
        &self,
        reference: &Reference,
        layer: &Expected,
    ) -> Result<Lease<Pack>, ImageError> {
        let repository = &reference.repository;
        let started = Instant::now();
        let (outcome, lasting) = match self.sealed(&base_key(&layer.digest)).await {
            // From another host: this one has yet to deliver the same bytes.
            Some(pack) => {
                let verified = self.fetcher.verify(repository, layer).await;
                (
                    verified.and_then(|()| promised(repository, layer, pack)),
                    false,
                )
            }
            None => match self.fetcher.fetch(repository, layer).await {
                Ok(pack) => (promised(repository, layer, pack), false),
                Err(Failed { error, lasting }) => (Err(error), lasting),
            },
        };
        let seconds = started.elapsed().as_secs_f64();
        let (digest, bytes) = (layer.digest, layer.size);
        self.metrics.cold_fetch(outcome_label(&outcome), seconds);
        match &outcome {
            Ok(_) => {
                self.ledger.claim_delivered(repository, layer.digest).await;
                tracing::info!(%reference, %digest, bytes, seconds, outcome = "ok", "fetched layer");
            }
            Err(error) => {
                tracing::warn!(%reference, %digest, bytes, seconds, outcome = %error, "layer not fetched");
                if lasting {
                    let host = repository.host().to_owned();
                    self.faults.put((host, layer.clone()), error.clone());
                }
            }
        }
        outcome
    }

    /// The pack with the repository's replacements, made from the base without the network.
    async fn modified(
        self: &Arc<Self>,
        layer: &Digest,
        base: &Lease<Pack>,
        policy: &Policy,
    ) -> Result<Lease<Pack>, ImageError> {
        let Some(rules) = policy.rules.clone() else {
            return Err(ImageError::Internal("no replacements to apply".into()));
        };
        let key = Key::side(
            &base_key(layer),
            &format!("replaced-{}", rules.fingerprint()),
        );
        if let Some(pack) = self.sealed(&key).await {
            return Ok(pack);
        }
        let (preparer, base, workdir) = (self.clone(), base.clone(), policy.repo.workdir.clone());
        let side_key = key.clone();
        let make = || async move {
            let mut made = Err(ImageError::Internal("applying replacements failed".into()));
            for attempt in 0..SIDE_PACK_ATTEMPTS {
                if let Some(pack) = preparer.sealed(&side_key).await {
                    return Ok(pack);
                }
                let (blobspace, key, rules) =
                    (preparer.blobspace.clone(), side_key.clone(), rules.clone());
                let (base, workdir) = (base.clone(), workdir.clone());
                let write = blocking(move || {
                    make_side_pack(&blobspace, &key, &rules, &base, workdir.as_deref())
                });
                made = write.await.unwrap_or(made);
                if !matches!(made, Err(ImageError::Busy(_))) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
            }
            made
        };
        self.side_packs.join(key, make).await
    }

    /// The sealed pack, unless a page of it could not be read: then it goes.
    async fn sealed(&self, key: &Key) -> Option<Lease<Pack>> {
        let (blobspace, key) = (self.blobspace.clone(), key.clone());
        let lease = blocking(move || {
            let lease = blobspace.get(&key)?;
            if lease.poisoned() {
                tracing::error!(
                    key = key.as_str(),
                    "a page of this pack cannot be read, it is dropped"
                );
                blobspace.discard(&key);
                return None;
            }
            Some(lease)
        });
        lease.await.flatten()
    }
}

/// Blocking.
fn make_side_pack(
    blobspace: &Arc<Blobspace<Pack>>,
    key: &Key,
    rules: &Rules,
    base: &Pack,
    workdir: Option<&str>,
) -> Result<Lease<Pack>, ImageError> {
    let reservation = blobspace.reserve(key).map_err(|error| unwritten(&error))?;
    let (reservation, _, warnings) = rules
        .apply(base, workdir, reservation)
        .map_err(|error| unmodified(&error))?;
    for warning in warnings {
        tracing::warn!(pack = key.as_str(), "{warning}");
    }
    reservation.commit().map_err(|error| unwritten(&error))
}

/// The pack was verified against what another manifest promised: check this one's promises too.
fn promised(
    repository: &Repository,
    layer: &Expected,
    pack: Lease<Pack>,
) -> Result<Lease<Pack>, ImageError> {
    let origin = pack.origin();
    let wrong = |text: String| {
        Err(ImageError::Wrong(
            format!("layer {} of `{repository}`: {text}", layer.digest).into(),
        ))
    };
    if origin.size != layer.size {
        return wrong(format!(
            "is {} bytes, its manifest says {}",
            origin.size, layer.size
        ));
    }
    match layer.diff_id {
        Some(diff_id) if diff_id != origin.diff_id => wrong(format!(
            "has diff ID {}, the image's configuration says {diff_id}",
            origin.diff_id
        )),
        _ => Ok(pack),
    }
}

/// An error that another repository of the same host need not share.
fn is_own_affair(error: &ImageError) -> bool {
    use ImageError::{Denied, NotFound, Wrong};
    matches!(error, NotFound(_) | Denied(_) | Wrong(_))
}

/// Each round found others at work on the same bytes, and in the end nothing that this one may have.
fn crowded(repository: &Repository, digest: &Digest) -> ImageError {
    let text = format!("{digest} of `{repository}`: others are fetching it, try again");
    ImageError::Busy(text.into())
}

fn outcome_label<T>(outcome: &Result<T, ImageError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(ImageError::Forbidden(_) | ImageError::Denied(_)) => "denied",
        Err(ImageError::NotFound(_)) => "not_found",
        Err(ImageError::Wrong(_)) => "wrong",
        Err(ImageError::Failing { .. }) => "failing",
        Err(ImageError::Silent(_)) => "silent",
        Err(ImageError::Busy(_)) => "busy",
        Err(ImageError::TooLarge(_)) => "too_large",
        Err(ImageError::Internal(_)) => "internal",
    }
}

fn unwritten(error: &BlobspaceError) -> ImageError {
    match error {
        BlobspaceError::LargerThanBound { .. } | BlobspaceError::Full(_) => {
            ImageError::TooLarge(format!("modified files: {error}").into())
        }
        BlobspaceError::Contended => {
            ImageError::Busy("no space for modified files now, try again".into())
        }
        BlobspaceError::Io(_) => {
            tracing::error!(%error, "writing a side pack failed");
            ImageError::Internal("modified files could not be written".into())
        }
    }
}

fn unmodified(error: &PackError) -> ImageError {
    let inner = match error {
        PackError::Io(error) => error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<BlobspaceError>()),
        _ => None,
    };
    inner.map_or_else(
        || {
            tracing::error!(%error, "applying replacements failed");
            ImageError::Internal("replacements could not be applied".into())
        },
        unwritten,
    )
}
