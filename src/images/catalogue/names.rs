//! Names: which image a reference means, as records.

use crate::blobspace::{Blobspace, Key, Pin, RecordKind};
use crate::digest::Digest;
use crate::images::fetch::base_key;
use crate::images::ledger::{delivered, hashed, name_of};
use crate::images::prepare::{chain_key, chain_of, expected};
use crate::oci::{self, Description, Document, Manifest};
use crate::pack::Pack;
use crate::reference::{Reference, Version};
use crate::unpack::{Expected, Form};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the names of pins by configuration begin with.
const RETAIN: &str = "retain-";

/// What a reference means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) reference: String,
    /// What the registry says: of a manifest or an index.
    pub(super) digest: String,
    /// Of the manifest that was chosen.
    pub(super) manifest: String,
    /// Of indexes within that of `digest` that are read on the way to the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) indexes: Vec<String>,
    /// The image's ID.
    pub(super) id: String,
    /// Numbers of the layers that its repository's `layers` selected when it was asked for last.
    #[serde(default)]
    pub(super) selected: Vec<usize>,
}

impl Name {
    pub(super) fn parsed(&self) -> Option<Reference> {
        Reference::parse(&self.reference).ok()
    }
    pub(super) fn is_tag(&self) -> bool {
        let parsed = self.parsed();
        parsed.is_some_and(|reference| matches!(reference.version, Version::Tag(_)))
    }
    /// All that lead to its layers.
    pub(super) fn documents(&self) -> BTreeSet<Digest> {
        let digests = [&self.digest, &self.manifest, &self.id].into_iter();
        let digests = digests.chain(&self.indexes);
        digests.filter_map(|digest| digest.parse().ok()).collect()
    }
    /// Of its record and of its pin.
    pub(super) fn key(&self) -> String {
        hashed(&self.reference)
    }
    /// Of the pin that the configuration gives it.
    pub(super) fn retain_key(&self) -> String {
        format!("{RETAIN}{}", self.key())
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
    /// What each layer becomes; None for one that holds no files, or is not served.
    pub(super) layers: Vec<Option<Expected>>,
}

/// What a reference was found to mean.
pub(super) struct Meaning {
    pub(super) digest: Digest,
    /// The one that was chosen.
    pub(super) manifest: Digest,
    /// Indexes within that of `digest` that are read on the way.
    pub(super) indexes: Vec<Digest>,
    /// Numbers of the layers that are served.
    pub(super) selected: Vec<usize>,
    /// The configuration pins it.
    pub(super) is_retained: bool,
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
    pub(super) fn note(&self, reference: &Reference, meaning: &Meaning) {
        let mut name = Name {
            reference: reference.to_string(),
            digest: meaning.digest.to_string(),
            manifest: meaning.manifest.to_string(),
            indexes: meaning.indexes.iter().map(Digest::to_string).collect(),
            id: String::new(),
            selected: meaning.selected.clone(),
        };
        let there = self.blobspace.record(RecordKind::Name, &name.key());
        let there = there.and_then(|bytes| serde_json::from_slice::<Name>(&bytes).ok());
        if let Some(there) = there {
            name.id = there.id.clone();
            if name == there {
                self.retain_one(&name, meaning.is_retained, false);
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
        self.retain_one(&name, meaning.is_retained, true);
    }

    /// `moved`: the name may mean another image than its pin.
    fn retain_one(&self, name: &Name, is_retained: bool, moved: bool) {
        let key = name.retain_key();
        match (is_retained, self.blobspace.is_pinned(&key)) {
            (true, is_pinned) if moved || !is_pinned => {
                if let Err(error) = self.blobspace.pin(&key, self.pin_of(name)) {
                    let reference = &name.reference;
                    tracing::warn!(%reference, %error, "an image to be retained is not");
                }
            }
            (false, true) => self.blobspace.unpin(&key),
            _ => {}
        }
    }

    /// Pins those references, and ends what else was pinned so.
    pub(super) fn retain(&self, is_retained: impl Fn(&Reference) -> bool) {
        let mut retained = BTreeSet::new();
        for name in self.all() {
            let is_retained = name
                .parsed()
                .is_some_and(|reference| is_retained(&reference));
            self.retain_one(&name, is_retained, false);
            if is_retained {
                retained.insert(name.retain_key());
            }
        }
        for pin in self.blobspace.record_names(RecordKind::Pin) {
            if pin.starts_with(RETAIN) && !retained.contains(&pin) {
                self.blobspace.unpin(&pin);
            }
        }
    }

    /// The reference was asked for at that time, microseconds since 1970.
    pub(super) fn used(&self, reference: &Reference, at: u64) {
        let key = hashed(&reference.to_string());
        self.blobspace.touch_record(RecordKind::Name, &key, at);
    }

    pub(super) fn remove(&self, reference: &Reference) {
        let key = hashed(&reference.to_string());
        self.blobspace.unpin(&key);
        self.blobspace.unpin(&format!("{RETAIN}{key}"));
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
        let is_image = oci::is_image_config(&manifest.config.media_type);
        let layers = manifest.layers.iter().enumerate();
        let layers = layers.map(|(number, layer)| {
            let diff_id = described.diff_ids.get(number).copied();
            expected(is_image, layer, diff_id).unwrap_or_default()
        });
        described.layers = layers.collect();
        described.manifest = Some((manifest, length));
        described
    }

    /// The layers that are served by that name.
    fn served(name: &Name, described: &Described) -> Vec<Expected> {
        let layers = described.layers.iter().enumerate();
        // A record of an older version does not say: all.
        let is_served = |number| name.selected.is_empty() || name.selected.contains(&number);
        let served = layers.filter(|(number, _)| is_served(*number));
        served.filter_map(|(_, layer)| layer.clone()).collect()
    }

    /// Packs that can hold a layer: its own, and those of other compressions of it that are here.
    pub(super) fn packs_of(&self, layer: &Expected) -> Vec<Key> {
        let mut packs = vec![base_key(&layer.identity())];
        if layer.form == Form::Tar
            && let Some(diff_id) = &layer.diff_id
        {
            packs.extend(self.otherwise(diff_id));
        }
        packs
    }

    /// All packs by which the image is served under that name: those of its layers, and their merged index.
    pub(super) fn packs(&self, name: &Name, described: &Described) -> Vec<Key> {
        let served = Self::served(name, described);
        let mut packs: Vec<Key> = Vec::new();
        for layer in &served {
            packs.extend(self.packs_of(layer));
        }
        if served.len() > 1
            && let Some(chain) = chain_of(&served)
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

    /// All that must stay for the image to be served, as its repository's `layers` has it, without the
    /// registry: documents, packs, and that the repository has shown that it may have them.
    pub(super) fn pin_of(&self, name: &Name) -> Pin {
        let described = self.describe(name);
        let documents = name.documents();
        let mut records: Vec<_> = documents
            .iter()
            .map(|digest| (RecordKind::Document, name_of(digest)))
            .collect();
        records.push((RecordKind::Name, name.key()));
        records.push((RecordKind::Tag, name.key()));
        let layers = Self::served(name, &described);
        if let Some(reference) = name.parsed() {
            let blobs = documents
                .into_iter()
                .chain(layers.iter().map(|layer| layer.digest));
            let claims = blobs.flat_map(|digest| delivered(&reference.repository, digest));
            records.extend(claims.map(|claim| (RecordKind::Claim, hashed(&claim))));
        }
        let diff_ids = layers.iter().filter_map(|layer| layer.diff_id);
        records.extend(diff_ids.map(|diff_id| (RecordKind::DiffId, name_of(&diff_id))));
        Pin {
            packs: self.packs(name, &described),
            records,
        }
    }
}
