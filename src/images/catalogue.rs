//! The catalogue: which images are known, by which references, and what of them is here.
//!
//! A *name* is a record that says which image a reference means. Names are written when a reference has
//! been resolved and its image prepared; for a tag also one for the digest that it meant, which stays when
//! the tag moves or vanishes, until it is the least recently used of the records. An image is what names
//! with one configuration digest (its ID) have in common; with its last name it is gone from here.
//!
//! Pins are the blobspace's ([`Blobspace::pin`]), one a reference; that of a tag follows it when it moves.
//! What the configuration's `retain` names has another one, which no command ends.
//!
//! What a caller may rely on: looking is no use of anything, so it moves no last use. All of it blocks.

mod change;
mod look;
mod names;
#[cfg(test)]
mod tests;

use super::policy::Policy;
use super::prepare::{Image, Preparer};
use super::{Images, Inner, ledger};
use crate::blobspace::Blobspace;
use crate::digest::Digest;
use crate::pack::Pack;
use crate::reference::{Reference, Repository, Version};
use names::Meaning;
pub(super) use names::Names;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What can be asked of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// All images.
    List,
    /// One image, with its configuration. By a reference or an ID, which may be shortened.
    Show(String),
    /// Removes a reference, or by ID all references of an image; and the image with its last one.
    Rm(String),
    /// Keeps the image of a reference (by ID: of all its references) from eviction.
    Pin(String),
    /// Ends that.
    Unpin(String),
}

/// An image. What is not known (its manifest was evicted) is None.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The digest of its configuration; of an artifact, which may have no own one, that of its manifest.
    pub id: String,
    /// Tags and digests, sorted.
    pub references: Vec<String>,
    /// Those of them that are pinned.
    pub pinned_references: Vec<String>,
    /// Those of `pinned_references` that the configuration's `retain` pins.
    #[serde(default)]
    pub retained_references: Vec<String>,
    /// Any of them is pinned.
    pub pinned: bool,
    /// Of its manifest.
    pub manifest: String,
    /// Of all its layers (OCI image specification, config.md, Layer ChainID).
    pub chain_id: Option<String>,
    /// What kind of artifact it is: `artifactType` of the manifest, or the media type of its configuration.
    /// None: an image.
    pub artifact_type: Option<String>,
    /// Of the manifest.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// `os/architecture[/variant]`.
    pub platform: Option<String>,
    /// Bytes: manifest, configuration and layers, as they are in the registry.
    pub size: Option<u64>,
    /// Bytes on disk of those of its layers that are sealed.
    pub unpacked: u64,
    /// Bytes on disk of those of its layers that are kept as they came, too.
    #[serde(default)]
    pub compressed: u64,
    /// The last request for it, the end of the last answer with its files, or of the last lease on a pack that is
    /// only its own; seconds since 1970. Uses of other images that share its layers do not count.
    pub last_used: Option<u64>,
    /// Base first.
    pub layers: Vec<LayerRecord>,
    /// The image configuration, where one image is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Of the bytes in the registry.
    pub digest: String,
    /// Of its tar.
    pub diff_id: Option<String>,
    /// Of it and all below.
    pub chain_id: Option<String>,
    /// As the manifest says it.
    pub media_type: String,
    /// Bytes in the registry, as the manifest says it.
    pub size: u64,
    /// Bytes on disk, where it is sealed.
    pub unpacked: Option<u64>,
    /// Bytes on disk of the blob as it is in the registry, where that is kept.
    #[serde(default)]
    pub compressed: Option<u64>,
    /// Whether it is here.
    pub state: LayerState,
}

/// Whether a layer is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// Nobody asked for it yet, or that is forgotten.
    Unknown,
    /// It is being fetched.
    Fetching,
    /// It is here, complete and verified; perhaps unpacked from another compression of it.
    Sealed,
    /// It was here, and made room for others.
    Evicted,
}

/// See the module.
pub struct Catalogue {
    names: Names,
    /// The running server, whose views end with their references and whose flights are seen.
    server: Option<Images>,
}

impl Catalogue {
    /// That of a blobspace which no server runs on.
    pub fn new(blobspace: Arc<Blobspace<Pack>>) -> Catalogue {
        Catalogue {
            names: Names::new(blobspace),
            server: None,
        }
    }

    /// Carries out a command: all images for a list, else the one, as it was before it was removed or as
    /// it is now that it is pinned.
    ///
    /// # Errors
    /// A text for the user: no such image, an ID that several begin with (lists them), a pinned one that is
    /// to be removed, a disk that cannot be written.
    pub fn execute(&self, command: &Command) -> Result<Vec<ImageRecord>, String> {
        match command {
            Command::List => Ok(self.list()),
            Command::Show(what) => Ok(vec![self.show(what)?]),
            Command::Rm(what) => Ok(vec![self.remove(what)?]),
            Command::Pin(what) => Ok(vec![self.pin(what)?]),
            Command::Unpin(what) => Ok(vec![self.unpin(what)?]),
        }
    }
}

impl Images {
    /// What is known of images, to look at and to change.
    pub fn catalogue(&self) -> Catalogue {
        Catalogue {
            names: self.0.names.clone(),
            server: Some(self.clone()),
        }
    }

    /// Pins what the configuration's `retain` names, and nothing else that it named before. Blocking.
    pub fn apply_retain(&self) {
        self.0.apply_retain();
    }

    /// Writes down when images were used last, so that a start knows. Blocking.
    pub fn write_uses(&self) {
        self.0.write_uses();
    }
}

impl Preparer {
    /// Writes down which image the digest means, before its layers are here.
    pub(super) async fn note(
        &self,
        repository: &Repository,
        digest: Digest,
        image: &Image,
        policy: &Policy,
    ) {
        let reference = Reference {
            repository: repository.clone(),
            version: Version::Digest(digest),
        };
        let meaning = Meaning::of(digest, image, policy);
        let names = self.names.clone();
        ledger::blocking(move || names.note(&reference, &meaning)).await;
    }
}

impl Meaning {
    fn of(digest: Digest, image: &Image, policy: &Policy) -> Meaning {
        Meaning {
            digest,
            manifest: image.digest,
            indexes: image.indexes.clone(),
            selected: image.selected(&policy.repo.layers),
            is_retained: false,
        }
    }
}

impl Inner {
    /// Writes down which image the tag means. That its digest means it too, [`Preparer`] has written down.
    pub(super) async fn note(
        &self,
        reference: &Reference,
        policy: &Policy,
        digest: Digest,
        image: &Image,
    ) {
        if matches!(reference.version, Version::Digest(_)) {
            return;
        }
        let meaning = Meaning {
            is_retained: policy.is_retained(&reference.version),
            ..Meaning::of(digest, image, policy)
        };
        let (names, reference) = (self.names.clone(), reference.clone());
        ledger::blocking(move || names.note(&reference, &meaning)).await;
    }

    /// Pins what `retain` says, and ends pins of what it says no more: the configuration may be another
    /// one than that of the last start. Blocking.
    pub(super) fn apply_retain(&self) {
        let is_retained = |reference: &Reference| {
            let policy = self.policies.of(&reference.repository);
            policy.is_some_and(|policy| policy.is_retained(&reference.version))
        };
        self.names.retain(is_retained);
    }

    /// Writes down when views were used last, which else is known while they last. Blocking.
    pub(super) fn write_uses(&self) {
        let uses: Vec<(Reference, u64)> = self
            .views
            .iter()
            .map(|view| (view.key().clone(), view.info.lasts.last_use_since_1970()))
            .collect();
        for (reference, at) in uses.into_iter().chain(self.uses.take()) {
            self.names.used(&reference, at);
        }
    }

    /// The tag is gone, or not for us.
    pub(super) async fn forget(&self, reference: &Reference) {
        self.end_view(reference);
        self.abouts.forget(reference);
        self.preparer.ledger.remove_tag(reference).await;
        let (names, reference) = (self.names.clone(), reference.clone());
        ledger::blocking(move || names.remove(&reference)).await;
    }

    fn end_view(&self, reference: &Reference) {
        if let Some((_, view)) = self.views.remove(reference) {
            view.info.lasts.end();
        }
    }
}
