//! From a digest to the image that it names: indexes, manifest, configuration.

use super::{Image, ImageError, Preparer, ROUNDS, crowded, is_own_affair};
use crate::digest::Digest;
use crate::oci::{self, Choice, Descriptor, Document, ImageConfig, IndexEntry, Manifest, Platform};
use crate::reference::{Repository, Version};
use std::sync::Arc;

/// Indexes within indexes.
const INDEX_DEPTH: usize = 4;
/// Documents read for one image.
const MOST_INDEXES: usize = 32;

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

/// What a digest of a manifest or an index leads to, with all that is said on the way.
pub(in crate::images) struct Resolved {
    /// Outermost first.
    pub(in crate::images) indexes: Vec<Passed>,
    /// Indexes within the outermost that were read, also those that led nowhere.
    read: Vec<Digest>,
    /// Of the manifest.
    pub(in crate::images) digest: Digest,
    pub(in crate::images) manifest: Manifest,
    pub(in crate::images) bytes: Arc<Vec<u8>>,
    /// None: it is no image's.
    pub(in crate::images) config: Option<Configured>,
}

/// An index, and what was chosen of it.
#[derive(Clone)]
pub(in crate::images) struct Passed {
    pub(in crate::images) digest: Digest,
    pub(in crate::images) bytes: Arc<Vec<u8>>,
    pub(in crate::images) entry: IndexEntry,
}

/// The configuration of an image.
pub(in crate::images) struct Configured {
    pub(in crate::images) config: ImageConfig,
    pub(in crate::images) bytes: Arc<Vec<u8>>,
}

/// Why an index has nothing for us; `there_are`: the platforms that it has something for.
fn no_image(platform: &Platform, mut there_are: Vec<String>) -> String {
    if there_are.is_empty() {
        return "holds no image: it is empty, or has nothing but attestations".to_owned();
    }
    there_are.sort();
    there_are.dedup();
    format!(
        "no image for {platform}, there are: {}",
        there_are.join(", ")
    )
}

impl Resolved {
    /// The configuration, empty where there is none.
    pub(in crate::images) fn config(&self) -> ImageConfig {
        let config = self.config.as_ref();
        config
            .map(|config| config.config.clone())
            .unwrap_or_default()
    }
}

impl Preparer {
    /// What is to be served of the digest.
    pub(in crate::images) async fn image(
        self: &Arc<Self>,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Image, ImageError> {
        let resolved = self.resolved(repository, digest).await?;
        let (named, digest) = (digest, resolved.digest);
        if resolved.manifest.layers.is_empty() {
            return Err(ImageError::NotFound(
                format!("image {digest} of `{repository}` has no layers").into(),
            ));
        }
        Ok(Image {
            digest,
            named,
            config: resolved.config(),
            has_config: resolved.config.is_some(),
            indexes: resolved.read,
            layers: resolved.manifest.layers,
        })
    }

    /// The manifest that the digest leads to on our platform, and its configuration.
    pub(in crate::images) async fn resolved(
        self: &Arc<Self>,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Resolved, ImageError> {
        // Depth first, in the order of the entries; with each what led to it.
        let mut left: Vec<(Digest, Vec<Passed>)> = vec![(digest, Vec::new())];
        let mut platforms: Vec<String> = Vec::new();
        let mut read = Vec::new();
        for _ in 0..MOST_INDEXES {
            let Some((digest, indexes)) = left.pop() else {
                let text = no_image(&self.platform, platforms);
                let text = format!("manifest {digest} of `{repository}`: {text}");
                return Err(ImageError::NotFound(text.into()));
            };
            if indexes.len() > INDEX_DEPTH {
                let text = format!(
                    "manifest {digest} of `{repository}`: lies within {} indexes, more than the {INDEX_DEPTH} that are followed within each other",
                    indexes.len()
                );
                return Err(ImageError::Wrong(text.into()));
            }
            let bytes = self.document(repository, Wanted::Manifest(digest)).await?;
            let entries = match oci::parse_document(None, &bytes).map_err(|error| {
                ImageError::Wrong(format!("manifest {digest} of `{repository}`: {error}").into())
            })? {
                Document::Manifest(manifest) => {
                    let config = self.configured(repository, digest, &manifest).await?;
                    return Ok(Resolved {
                        indexes,
                        read,
                        digest,
                        manifest,
                        bytes,
                        config,
                    });
                }
                Document::Index(entries) => entries,
            };
            if !indexes.is_empty() {
                read.push(digest);
            }
            let through = |entry: &IndexEntry| {
                let mut indexes = indexes.clone();
                indexes.push(Passed {
                    digest,
                    bytes: bytes.clone(),
                    entry: entry.clone(),
                });
                (entry.descriptor.digest, indexes)
            };
            match oci::choose(&entries, &self.platform) {
                Choice::Entry(entry) => left = vec![through(entry)],
                // Another index may hold the platform.
                Choice::Only(entry) if !left.is_empty() => {
                    platforms.extend(entry.platform.as_ref().map(Platform::to_string));
                }
                Choice::Only(entry) => left.push(through(entry)),
                Choice::Within(within) => {
                    let within = within.iter().rev();
                    left.extend(within.map(|entry| through(entry)));
                }
                Choice::None(there_are) => platforms.extend(there_are),
            }
        }
        let text = format!(
            "manifest {digest} of `{repository}`: no image within the first {MOST_INDEXES} indexes, and no more are read"
        );
        Err(ImageError::Wrong(text.into()))
    }

    /// The image's configuration; None: it is an artifact.
    async fn configured(
        self: &Arc<Self>,
        repository: &Repository,
        digest: Digest,
        manifest: &Manifest,
    ) -> Result<Option<Configured>, ImageError> {
        if !oci::is_image_config(&manifest.config.media_type) {
            return Ok(None);
        }
        let wrong = |text: String| {
            ImageError::Wrong(format!("image {digest} of `{repository}`: {text}").into())
        };
        let wanted = Wanted::Config(manifest.config.clone());
        let bytes = self.document(repository, wanted).await?;
        let config = oci::parse_config(&bytes).map_err(|error| wrong(error.to_string()))?;
        let (diff_ids, layers) = (config.diff_ids.len(), manifest.layers.len());
        if diff_ids != layers {
            return Err(wrong(format!(
                "its configuration has {diff_ids} diff IDs for {layers} layers"
            )));
        }
        Ok(Some(Configured { config, bytes }))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_index_has_instead_is_told() {
        let platform = Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
            os_version: None,
        };
        for (there_are, expected) in [
            (
                &[][..],
                "holds no image: it is empty, or has nothing but attestations",
            ),
            (
                &["linux/arm64"],
                "no image for linux/amd64, there are: linux/arm64",
            ),
            (
                &["b/x", "a/x", "b/x"],
                "no image for linux/amd64, there are: a/x, b/x",
            ),
        ] {
            let there_are = there_are.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(no_image(&platform, there_are), expected);
        }
    }
}
