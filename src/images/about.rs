//! About an image, instead of its files: what its manifest says, and what refers to it.
//!
//! What a caller may rely on: no layer is fetched and no view is made; of the registry no more is asked
//! than it takes to resolve the reference (tag, indexes, manifest, configuration), each in the flights that
//! views use too. What a tag means is believed as long as of views (`tagTtl`, `staleIfError`), a list of
//! referrers likewise, over a restart too.

mod recent;
mod referrers;

use super::prepare::Resolved;
use super::{
    Ask, ImageError, Images, Inner, KnownTag, Lasts, ViewInfo, ledger, policy::Policy, unknown,
};
use crate::digest::Digest;
use crate::oci::{self, Description, Descriptor, ImageConfig};
use crate::reference::{Reference, Repository, Version};
use crate::registry::Listed;
use crate::rules::Rules;
use recent::Recent;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes of referrers that are remembered.
const MOST_REFERRERS: usize = 16 << 20;
/// Bytes of tags that are remembered.
const MOST_TAGS: usize = 2 << 20;
/// Bytes of what manifests say that are remembered.
const MOST_MANIFESTS: usize = 8 << 20;
/// How long they are. What a digest means does not change; whether it is here does.
const MANIFEST_LASTS: Duration = Duration::from_secs(60);

/// What was asked about images lately.
pub(super) struct Abouts {
    /// What a tag means: of a manifest or an index. The ledger has what was also prepared, or may never be.
    tags: Recent<Reference, Digest>,
    /// By the digest of a manifest or an index; with the digest of the manifest.
    manifests: Recent<(Repository, Digest), (Digest, Arc<About>)>,
    referrers: Recent<(Repository, Digest), Arc<Listed>>,
}

impl Abouts {
    pub(super) fn new(tag_ttl: Duration, stale_if_error: Duration) -> Abouts {
        let weigh_tag = |_: &Digest| 256;
        let weigh_list = |list: &Arc<Listed>| {
            let each = list.referrers.iter().map(|one| {
                let Descriptor {
                    media_type,
                    annotations,
                    ..
                } = &one.descriptor;
                256 + media_type.len() + weight(annotations)
            });
            256 + each.sum::<usize>()
        };
        let weigh_manifest = |(_, about): &(Digest, Arc<About>)| about.weight();
        let (lasts, most) = (MANIFEST_LASTS, MOST_MANIFESTS);
        Abouts {
            tags: Recent::new(tag_ttl, stale_if_error, MOST_TAGS, weigh_tag),
            manifests: Recent::new(lasts, Duration::ZERO, most, weigh_manifest),
            referrers: Recent::new(tag_ttl, stale_if_error, MOST_REFERRERS, weigh_list),
        }
    }

    /// The tag is gone, or not for us.
    pub(super) fn forget(&self, tag: &Reference) {
        self.tags.forget(tag);
    }
}

fn weight(annotations: &BTreeMap<String, String>) -> usize {
    let each = annotations.iter();
    each.map(|(name, value)| 64 + name.len() + value.len())
        .sum()
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Of the manifest.
    pub digest: String,
    /// Of the manifest.
    pub media_type: String,
    /// Bytes of the manifest.
    pub size: u64,
    /// What kind of artifact it is. None: an image, or it does not say.
    pub artifact_type: Option<String>,
    /// By the configuration, else by the index: `os/architecture[/variant]`.
    pub platform: Option<String>,
    /// What it is attached to.
    pub subject: Option<Named>,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Those that lead from the reference to the manifest, outermost first.
    pub indexes: Vec<AboutIndex>,
    /// The configuration.
    pub config: Named,
    /// Base first.
    pub layers: Vec<AboutLayer>,
}

/// What an index says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AboutIndex {
    /// Of the index.
    pub digest: String,
    /// Of the index.
    pub media_type: String,
    /// Of the index.
    pub artifact_type: Option<String>,
    /// What it is attached to.
    pub subject: Option<Named>,
    /// Of the index.
    pub annotations: BTreeMap<String, String>,
    /// The descriptor of what was chosen in it.
    pub entry: Entry,
}

/// A descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// As it is said where this stands.
    pub media_type: String,
    /// Of the content.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Of the descriptor.
    pub annotations: BTreeMap<String, String>,
}

/// A descriptor in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The descriptor.
    #[serde(flatten)]
    pub named: Named,
    /// As the index says it.
    pub artifact_type: Option<String>,
    /// As the index says it.
    pub platform: Option<String>,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AboutLayer {
    /// The descriptor.
    #[serde(flatten)]
    pub named: Named,
    /// Of its tar, as the configuration says. None: an artifact's.
    #[serde(rename = "diffID")]
    pub diff_id: Option<String>,
}

/// What refers to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrers {
    /// As asked for, canonical.
    pub reference: String,
    /// What the reference means, a manifest or an index: what is referred to.
    pub digest: String,
    /// Only those of this type are listed. None: all.
    pub artifact_type: Option<String>,
    /// In the order of their types and digests.
    pub referrers: Vec<AboutReferrer>,
    /// There are more, which the registry was not asked for, and which may be of the type that was.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(it: &bool) -> bool {
    !it
}

/// A referrer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AboutReferrer {
    /// The descriptor.
    #[serde(flatten)]
    pub named: Named,
    /// As the registry says it.
    pub artifact_type: Option<String>,
}

impl Named {
    fn weight(&self) -> usize {
        256 + self.media_type.len() + weight(&self.annotations)
    }
}

impl About {
    /// Bytes in memory, about.
    fn weight(&self) -> usize {
        let subject = self.subject.as_ref().map_or(0, Named::weight);
        let indexes = self.indexes.iter().map(|index| {
            let subject = index.subject.as_ref().map_or(0, Named::weight);
            512 + subject + weight(&index.annotations) + index.entry.named.weight()
        });
        let layers = self.layers.iter().map(|layer| 128 + layer.named.weight());
        let named = self.config.weight() + subject + indexes.chain(layers).sum::<usize>();
        512 + self.media_type.len() + weight(&self.annotations) + named
    }
}

impl From<&Descriptor> for Named {
    fn from(descriptor: &Descriptor) -> Named {
        Named {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            annotations: descriptor.annotations.clone(),
        }
    }
}

impl Images {
    /// Whether the configuration lets the repository's manifests and referrers be shown. Never waits.
    pub fn shows_about(&self, repository: &Repository) -> bool {
        let policy = self.0.policies.of(repository);
        policy.is_some_and(|policy| policy.repo.about)
    }

    /// Whether the configuration gives each of the repository's images an origin of its own. Never waits.
    pub fn has_origins(&self, repository: &Repository) -> bool {
        let policy = self.0.policies.of(repository);
        policy.is_some_and(|policy| policy.origin)
    }

    /// What decides how an answer about the image is sent that needs none of its files: no layer is fetched, and
    /// nothing is said of workdir and rules. The image is in the catalogue from now on.
    ///
    /// # Errors
    /// As [`Images::get`], but for what is wrong with layers.
    pub async fn resolve(&self, reference: &Reference) -> Result<Arc<ViewInfo>, ImageError> {
        if let Some(view) = self.warm(reference) {
            return Ok(view.info);
        }
        self.unless_draining(self.0.info(reference)).await
    }

    /// What the manifest of an image says. Dropping the future does not stop what is asked of a registry.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn about(
        &self,
        reference: &Reference,
        ask: Ask,
    ) -> Result<(Arc<ViewInfo>, Arc<About>), ImageError> {
        self.unless_draining(self.0.about(reference, ask)).await
    }

    /// What refers to an image: to the index, where the reference means one.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn referrers(
        &self,
        reference: &Reference,
        ask: Ask,
        artifact_type: Option<String>,
    ) -> Result<(Arc<ViewInfo>, Referrers), ImageError> {
        let asking = self.0.referrers(reference, ask, artifact_type);
        self.unless_draining(asking).await
    }
}

impl Inner {
    async fn info(self: &Arc<Self>, reference: &Reference) -> Result<Arc<ViewInfo>, ImageError> {
        let (policy, digest) = self.meant(reference, Ask::Normal).await?;
        let exact = Reference {
            repository: reference.repository.clone(),
            version: Version::Digest(digest),
        };
        if let Some(error) = self.missing.get(&exact) {
            return Err(error);
        }
        let image = self.preparer.image(&reference.repository, digest).await;
        if let Err(error @ ImageError::NotFound(_)) = &image {
            self.missing.put(exact, error.clone());
        }
        let (image, repository) = (image?, &reference.repository);
        self.preparer
            .note(repository, digest, &image, &policy)
            .await;
        self.note(reference, &policy, digest, &image).await;
        Ok(info(&policy, reference, image.digest))
    }

    async fn about(
        self: &Arc<Self>,
        reference: &Reference,
        ask: Ask,
    ) -> Result<(Arc<ViewInfo>, Arc<About>), ImageError> {
        let (policy, digest) = self.meant(reference, ask).await?;
        let repository = &reference.repository;
        let exact = Reference {
            repository: repository.clone(),
            version: Version::Digest(digest),
        };
        let key = (repository.clone(), digest);
        if ask == Ask::ReadOnly {
            let flight = self.digests.joined(&key);
            if !self.preparer.is_known(repository, digest).await {
                flight.ok_or_else(|| unknown(reference))?.await?;
            }
        } else if let Some(error) = self.missing.get(&exact) {
            return Err(error);
        }
        let (preparer, of) = (self.preparer.clone(), repository.clone());
        let telling = || async move {
            let resolved = preparer.resolved(&of, digest).await?;
            let manifest = resolved.digest;
            // Some megabytes of JSON, perhaps.
            let described = ledger::blocking(move || describe(&of, &resolved)).await;
            let described = described.unwrap_or_else(|| {
                Err(ImageError::Internal(
                    "reading a manifest ended abnormally".into(),
                ))
            });
            Ok((manifest, Arc::new(described?)))
        };
        let told = self.abouts.manifests.get(key, telling).await;
        if let Err(error @ ImageError::NotFound(_)) = &told {
            self.missing.put(exact, error.clone());
        }
        let (manifest, about) = told?;
        Ok((info(&policy, reference, manifest), about))
    }

    /// What the reference means: a manifest or an index.
    async fn meant(
        self: &Arc<Self>,
        reference: &Reference,
        ask: Ask,
    ) -> Result<(Arc<Policy>, Digest), ImageError> {
        let Some(policy) = self.policies.of(&reference.repository) else {
            return Err(ImageError::Forbidden(reference.repository.clone()));
        };
        let digest = match (&reference.version, ask) {
            (Version::Digest(digest), _) => *digest,
            (Version::Tag(_), Ask::Normal) => self.tag(reference, policy).await?,
            (Version::Tag(_), Ask::ReadOnly) => {
                // Boarded before the look at the disk, as for a view.
                let flight = self.tags.joined(reference);
                match (self.known_tag(reference).await, flight) {
                    (Some(digest), _) => digest,
                    (None, Some(flight)) => {
                        flight.await?;
                        let known = self.known_tag(reference).await;
                        known.ok_or_else(|| unknown(reference))?
                    }
                    (None, None) => return Err(unknown(reference)),
                }
            }
        };
        Ok((policy.clone(), digest))
    }

    /// What the tag means, its registry asked if that is due.
    async fn tag(
        self: &Arc<Self>,
        reference: &Reference,
        policy: &Policy,
    ) -> Result<Digest, ImageError> {
        if let Some(error) = self.missing.get(reference) {
            return Err(error);
        }
        if let Some(KnownTag { digest, validated }) = self.preparer.ledger.tag(reference).await {
            if policy.is_fixed(&reference.version) {
                return Ok(digest);
            }
            // A time in the future says nothing: due.
            let age = validated.elapsed().unwrap_or(self.tag_ttl);
            self.abouts.tags.learn(reference.clone(), digest, age);
        }
        let (inner, asked) = (self.clone(), reference.clone());
        // Nobody comes for its files by the tag, so that nobody else writes this down.
        let leads_away = policy.origin && policy.repo.redirect_to_digest;
        let asking = || async move {
            let validated = SystemTime::now();
            let digest = inner.resolve(&asked).await?;
            inner.preparer.tag_means(&asked.repository, digest).await;
            if leads_away {
                let known = KnownTag { digest, validated };
                inner.preparer.ledger.put_tag(&asked, &known).await;
            }
            Ok(digest)
        };
        self.abouts.tags.get(reference.clone(), asking).await
    }

    /// What the tag meant when that was last asked, by whoever asked last.
    async fn known_tag(&self, reference: &Reference) -> Option<Digest> {
        if let Some(KnownTag { digest, validated }) = self.preparer.ledger.tag(reference).await {
            let age = validated.elapsed().unwrap_or(self.tag_ttl);
            self.abouts.tags.learn(reference.clone(), digest, age);
        }
        self.abouts.tags.known(reference).await?.ok()
    }
}

/// What decides how an answer about the reference is sent.
fn info(policy: &Policy, reference: &Reference, digest: Digest) -> Arc<ViewInfo> {
    // Nothing is served out of its files.
    let (config, rules) = (ImageConfig::default(), Arc::new(Rules::default()));
    let lasts = Lasts::until(Duration::ZERO);
    Arc::new(policy.info(reference, digest, &config, rules, lasts))
}

/// What the documents say.
fn describe(repository: &Repository, resolved: &Resolved) -> Result<About, ImageError> {
    let said = |digest: &Digest, bytes: &[u8]| -> Result<Description, ImageError> {
        oci::describe(bytes).map_err(|error| {
            ImageError::Wrong(format!("manifest {digest} of `{repository}`: {error}").into())
        })
    };
    let mut indexes = Vec::with_capacity(resolved.indexes.len());
    for index in &resolved.indexes {
        let Description {
            media_type,
            artifact_type,
            subject,
            annotations,
            ..
        } = said(&index.digest, &index.bytes)?;
        indexes.push(AboutIndex {
            digest: index.digest.to_string(),
            media_type,
            artifact_type,
            subject: subject.as_ref().map(Named::from),
            annotations,
            entry: Entry {
                named: Named::from(&index.entry.descriptor),
                artifact_type: index.entry.artifact_type.clone(),
                platform: index.entry.platform.as_ref().map(ToString::to_string),
            },
        });
    }
    let manifest = said(&resolved.digest, &resolved.bytes)?;
    let config = resolved.config.as_ref();
    let config = config.and_then(|config| serde_json::from_slice::<Value>(&config.bytes).ok());
    let platform = config.as_ref().and_then(oci::config_platform);
    let chosen = || {
        indexes
            .last()
            .and_then(|index| index.entry.platform.clone())
    };
    let diff_ids = resolved.config().diff_ids;
    let layers = resolved.manifest.layers.iter().enumerate();
    Ok(About {
        digest: resolved.digest.to_string(),
        artifact_type: manifest.kind().map(str::to_owned),
        media_type: manifest.media_type,
        size: resolved.bytes.len() as u64,
        platform: platform
            .map(|platform| platform.to_string())
            .or_else(chosen),
        subject: manifest.subject.as_ref().map(Named::from),
        annotations: manifest.annotations,
        config: Named::from(&resolved.manifest.config),
        layers: layers
            .map(|(number, layer)| AboutLayer {
                named: Named::from(layer),
                diff_id: diff_ids.get(number).map(Digest::to_string),
            })
            .collect(),
        indexes,
    })
}
