//! From a digest to leased packs: manifest, configuration, first layer, replacements.
//! Each step looks on disk first, then flies; and nobody gets at bytes that others fetched
//! without showing that it has them too.

mod documents;
mod files;
mod layers;
mod room;
mod upper;

use super::ImageError;
use super::catalogue::Names;
use super::fetch::Fetcher;
use super::flight::{Early, Flights};
use super::ledger::{Ledger, blocking};
use super::memory::Failures;
use super::policy::Policy;
use super::site::Sites;
use super::view::Files;
use crate::blobspace::{Blobspace, BlobspaceError, Key, Lease};
use crate::config::LayerSelection;
use crate::digest::Digest;
use crate::metrics::Metrics;
use crate::modify::Rules;
use crate::oci::{Descriptor, ImageConfig, Platform};
use crate::pack::{Pack, PackError};
use crate::reference::{Reference, Repository};
use crate::registry::Registries;
use crate::rules::Rules as SiteRules;
use crate::unpack::Expected;
pub(super) use documents::Resolved;
use files::tree_key;
pub(super) use files::{chain_key, chain_of, expected};
use std::sync::Arc;
use std::time::Duration;
pub(super) use upper::Upper;

/// Rounds of "join the flight of another repository, then show that we may".
const ROUNDS: usize = 4;
/// Attempts to write a side pack while older writers need the space.
const SIDE_PACK_ATTEMPTS: u32 = 8;
/// How long nothing is shown early of an image whose layers could not all be had.
const SUSPECT_LASTS: Duration = Duration::from_secs(60);
/// How long a fault of verified bytes is remembered.
const FAULT_LASTS: Duration = Duration::from_secs(600);

/// An image as its manifest and configuration describe it.
#[derive(Debug)]
pub(super) struct Image {
    /// Of the manifest that was chosen.
    pub(super) digest: Digest,
    /// What it was asked for by: of the manifest, or of an index that led to it.
    pub(super) named: Digest,
    /// Indexes within that one that were read on the way.
    pub(super) indexes: Vec<Digest>,
    pub(super) config: ImageConfig,
    /// There is a configuration: it has a diff ID for each layer.
    has_config: bool,
    /// All of them, base first.
    layers: Vec<Descriptor>,
}

/// An image whose packs are here.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) image: Arc<Image>,
    pub(super) base: Files,
    pub(super) modified: Option<Lease<Pack>>,
    /// What the image's own files say of serving it.
    pub(super) rules: Arc<SiteRules>,
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
    pub(super) names: Names,
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
    sites: Sites,
    /// By the key of the merged index: what its layers decide, whoever has them.
    unmergeable: Failures<Key>,
    /// Images whose layers could not all be had, by the digest of the manifest: who asks again is to hear
    /// of that, and not to get what upper layers have.
    suspects: Failures<(Repository, Digest)>,
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
            names: Names::new(blobspace.clone()),
            registries,
            blobspace,
            metrics,
            fetcher,
            platform,
            documents: Flights::new(),
            layers: Flights::while_wanted(),
            side_packs: Flights::new(),
            faults: Failures::new(FAULT_LASTS),
            sites: Sites::default(),
            unmergeable: Failures::new(FAULT_LASTS),
            suspects: Failures::new(SUSPECT_LASTS),
        }
    }

    /// The image by that digest (of a manifest or an index), with its packs leased. `reference` is what was asked for: its
    /// repository counts, the rest is for the log. `early` is told of its upper layers while others arrive, where
    /// their files are served as they are.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
        policy: &Policy,
        early: &Early<Arc<Upper>>,
    ) -> Result<Prepared, ImageError> {
        let repository = &reference.repository;
        let image = self.image(repository, digest).await.inspect_err(
            |error| tracing::warn!(%repository, %digest, %error, "manifest not usable"),
        )?;
        let image = Arc::new(image);
        if image.has_config && image.layers.len() > 1 && policy.repo.layers == LayerSelection::First
        {
            tracing::warn!(%repository, digest = %image.digest, layers = image.layers.len(), "only the first layer is served, see `layers`");
        }
        let wanted = image.wanted(repository, &policy.repo.layers)?;
        self.note(repository, digest, &image, policy).await;
        let suspect = (repository.clone(), image.digest);
        let is_shown = policy.rules.is_none() && self.suspects.get(&suspect).is_none();
        let show = |layers: Vec<Lease<Pack>>| {
            if is_shown {
                early.send_replace(Some(Arc::new(Upper::new(&image, layers))));
            }
        };
        let files = self.files(reference, &wanted, &show).await;
        let base = files.inspect_err(|error| self.suspects.put(suspect, error.clone()))?;
        let modified = match &policy.rules {
            None => None,
            Some(_) => Some(self.modified(&base, policy).await?),
        };
        let rules = self
            .sites
            .rules(reference, &image, policy, &base, modified.as_ref())
            .await?;
        Ok(Prepared {
            image,
            base,
            modified,
            rules,
        })
    }

    /// Whether the layer is being fetched from the host.
    pub(super) fn fetches(&self, host: &str, layer: Digest) -> bool {
        self.layers.has(&(host.to_owned(), layer))
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

    /// The pack with the repository's replacements, made from the base without the network.
    async fn modified(
        self: &Arc<Self>,
        base: &Files,
        policy: &Policy,
    ) -> Result<Lease<Pack>, ImageError> {
        let Some(rules) = policy.rules.clone() else {
            return Err(ImageError::Internal("no replacements to apply".into()));
        };
        let key = Key::side(
            &tree_key(base),
            &format!("replaced-{}", rules.fingerprint()),
        );
        if let Some(pack) = self.sealed(&key).await {
            return Ok(pack);
        }
        let (preparer, base, workdir) = (self.clone(), base.clone(), policy.repo.workdir.clone());
        let side_key = key.clone();
        let make = || async move {
            let mut made = Err(ImageError::Internal("applying replacements failed".into()));
            let (pool, mut need) = (preparer.fetcher.pool(), rules.memory(&base));
            let most = pool.largest_grant();
            for attempt in 0..SIDE_PACK_ATTEMPTS {
                if let Some(pack) = preparer.sealed(&side_key).await {
                    return Ok(pack);
                }
                let (blobspace, key, rules) =
                    (preparer.blobspace.clone(), side_key.clone(), rules.clone());
                let (base, workdir) = (base.clone(), workdir.clone());
                let granted = need.min(most);
                let memory = pool.memory(granted).await;
                let write = blocking(move || {
                    make_side_pack(&blobspace, &key, &rules, &base, workdir.as_deref(), granted)
                });
                made = write.await.unwrap_or(made);
                drop(memory);
                if granted < most && matches!(made, Err(ImageError::Wrong(_))) {
                    need = most;
                    continue;
                }
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
    base: &Files,
    workdir: Option<&str>,
    most_bytes: u64,
) -> Result<Lease<Pack>, ImageError> {
    let reservation = blobspace.reserve(key).map_err(|error| unwritten(&error))?;
    let (reservation, _, warnings) = rules
        .apply(base, workdir, most_bytes, reservation)
        .map_err(|error| unmodified(&error))?;
    for warning in warnings {
        tracing::warn!(pack = key.as_str(), "{warning}");
    }
    reservation.commit().map_err(|error| unwritten(&error))
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

fn unwritten(error: &BlobspaceError) -> ImageError {
    match error {
        BlobspaceError::LargerThanBound { .. }
        | BlobspaceError::Pinned { .. }
        | BlobspaceError::Full(_) => {
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
    if let PackError::TooLarge(why) = error {
        return ImageError::Wrong(format!("{why}: raise `memoryLimit`").into());
    }
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
