//! Names: which image a reference means, as records.

use crate::blobspace::{Blobspace, Key, Pin, RecordKind};
use crate::digest::Digest;
use crate::images::fetch::base_key;
use crate::images::ledger::{hashed, name_of};
use crate::images::prepare::chain_key;
use crate::merge::chain_id;
use crate::oci::{self, Description, Document, Manifest};
use crate::pack::Pack;
use crate::reference::{Reference, Version};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a reference means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) reference: String,
    /// What the registry says: of a manifest or an index.
    pub(super) digest: String,
    /// Of the manifest that was chosen.
    pub(super) manifest: String,
    /// The image's ID.
    pub(super) id: String,
}

impl Name {
    pub(super) fn parsed(&self) -> Option<Reference> {
        Reference::parse(&self.reference).ok()
    }
    pub(super) fn is_tag(&self) -> bool {
        let parsed = self.parsed();
        parsed.is_some_and(|reference| matches!(reference.version, Version::Tag(_)))
    }
    /// Of its record and of its pin.
    pub(super) fn key(&self) -> String {
        hashed(&self.reference)
    }
}

/// What the documents say of an image, as far as they are here.
#[derive(Default)]
pub(super) struct Described {
    pub(super) manifest: Option<(Manifest, u64)>,
    /// What the manifest says of itself, if that can be shown.
    pub(super) said: Option<Description>,
    pub(super) config: Option<serde_json::Value>,
    /// One for each layer, or none at all.
    pub(super) diff_ids: Vec<Digest>,
}

/// The records. Clones share.
#[derive(Clone)]
pub(in crate::images) struct Names {
    pub(super) blobspace: Arc<Blobspace<Pack>>,
}

impl Names {
    pub(in crate::images) fn new(blobspace: Arc<Blobspace<Pack>>) -> Names {
        Names { blobspace }
    }

    /// The reference means that image now. A use of the name. What cannot be written is missing in
    /// the catalogue, and nothing else: logged, not returned.
    pub(super) fn note(&self, reference: &Reference, digest: Digest, manifest: Digest) {
        let mut name = Name {
            reference: reference.to_string(),
            digest: digest.to_string(),
            manifest: manifest.to_string(),
            id: String::new(),
        };
        let there = self.blobspace.record(RecordKind::Name, &name.key());
        let there = there.and_then(|bytes| serde_json::from_slice::<Name>(&bytes).ok());
        if let Some(there) = there {
            name.id = there.id.clone();
            if name == there {
                return;
            }
        }
        let Some((described, _)) = self.manifest(&name.manifest) else {
            return;
        };
        // Artifacts have the same empty configuration, and are not the same.
        name.id = match oci::is_image_config(&described.config.media_type) {
            true => described.config.digest.to_string(),
            false => name.manifest.clone(),
        };
        let Ok(bytes) = serde_json::to_vec(&name) else {
            return;
        };
        let written = self
            .blobspace
            .put_record(RecordKind::Name, &name.key(), &bytes);
        let pinned = written.and_then(|()| match self.blobspace.is_pinned(&name.key()) {
            true => self.blobspace.pin(&name.key(), self.pin_of(&name)),
            false => Ok(()),
        });
        if let Err(error) = pinned {
            tracing::warn!(%reference, %error, "name or pin of an image not written");
        }
    }

    pub(super) fn remove(&self, reference: &Reference) {
        let key = hashed(&reference.to_string());
        self.blobspace.unpin(&key);
        self.blobspace.remove_record(RecordKind::Name, &key);
    }

    /// All of them, by reference.
    pub(super) fn all(&self) -> Vec<Name> {
        let records = self.blobspace.record_names(RecordKind::Name).into_iter();
        let mut names: Vec<Name> = records
            .filter_map(|record| {
                let bytes = self.blobspace.peek_record(RecordKind::Name, &record)?;
                serde_json::from_slice(&bytes).ok()
            })
            .collect();
        names.sort_unstable_by(|a, b| a.reference.cmp(&b.reference));
        names
    }

    fn document(&self, digest: &str) -> Option<Vec<u8>> {
        let digest: Digest = digest.parse().ok()?;
        self.blobspace
            .peek_record(RecordKind::Document, &name_of(&digest))
    }

    /// The manifest and its length in bytes.
    fn manifest(&self, digest: &str) -> Option<(Manifest, u64)> {
        let bytes = self.document(digest)?;
        match oci::parse_document(None, &bytes) {
            Ok(Document::Manifest(manifest)) => Some((manifest, bytes.len() as u64)),
            _ => None,
        }
    }

    pub(super) fn describe(&self, name: &Name) -> Described {
        let Some((manifest, length)) = self.manifest(&name.manifest) else {
            return Described::default();
        };
        let bytes = self.document(&name.manifest);
        let mut described = Described {
            said: bytes.and_then(|bytes| oci::describe(&bytes).ok()),
            ..Described::default()
        };
        let config = match oci::is_image_config(&manifest.config.media_type) {
            true => self.document(&manifest.config.digest.to_string()),
            // Never fetched.
            false => None,
        };
        if let Some(bytes) = config {
            described.config = serde_json::from_slice(&bytes).ok();
            let parsed = oci::parse_config(&bytes).ok();
            described.diff_ids = parsed
                .map(|config| config.diff_ids)
                .filter(|diff_ids| diff_ids.len() == manifest.layers.len())
                .unwrap_or_default();
        }
        described.manifest = Some((manifest, length));
        described
    }

    /// All packs that can hold layers of the image: each layer's, other compressions of it that are
    /// here, and the merged index of all.
    pub(super) fn packs(&self, described: &Described) -> Vec<Key> {
        let Some((manifest, _)) = &described.manifest else {
            return Vec::new();
        };
        let mut packs: Vec<Key> = Vec::new();
        for (number, layer) in manifest.layers.iter().enumerate() {
            packs.push(base_key(&layer.digest));
            let diff_id = described.diff_ids.get(number);
            packs.extend(diff_id.into_iter().flat_map(|id| self.otherwise(id)));
        }
        if let Some(chain) = chain_id(described.diff_ids.iter().copied())
            && manifest.layers.len() > 1
        {
            packs.push(chain_key(&chain));
        }
        packs.sort_unstable();
        packs.dedup();
        packs
    }

    /// Sealed packs of whatever compression of a tar.
    pub(super) fn otherwise(&self, diff_id: &Digest) -> Vec<Key> {
        #[derive(Deserialize)]
        struct Layers {
            layers: Vec<String>,
        }
        let bytes = self
            .blobspace
            .peek_record(RecordKind::DiffId, &name_of(diff_id));
        let known = bytes.and_then(|bytes| serde_json::from_slice::<Layers>(&bytes).ok());
        let layers = known.map(|known| known.layers).unwrap_or_default();
        let digests = layers.iter().filter_map(|layer| layer.parse().ok());
        digests
            .map(|digest| base_key(&digest))
            .filter(|key| self.blobspace.facts(key).is_some())
            .collect()
    }

    /// All that must stay for the image to be served without the registry.
    pub(super) fn pin_of(&self, name: &Name) -> Pin {
        let described = self.describe(name);
        let documents = [&name.digest, &name.manifest, &name.id];
        let documents = documents.iter().filter_map(|digest| {
            let digest: Digest = digest.parse().ok()?;
            Some((RecordKind::Document, name_of(&digest)))
        });
        let mut records: Vec<_> = documents.collect();
        records.push((RecordKind::Name, name.key()));
        records.push((RecordKind::Tag, name.key()));
        Pin {
            packs: self.packs(&described),
            records,
        }
    }
}
