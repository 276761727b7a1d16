//! docker-archive: `manifest.json` names configurations, tags and layers by their place in the
//! archive (moby, image/spec/v1.2.md). It has no manifests, so they are made: Docker schema 2, always
//! the same bytes for the same archive. An uncompressed layer's digest is its diff ID, which the
//! configuration says and whoever unpacks it verifies; a compressed one (as go-containerregistry and
//! kaniko write them) is hashed.

use super::{Archive, ArchiveError, MOST_MADE_BYTES, Section};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::oci::{self, MAX_ENTRIES, MAX_LAYERS};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An element of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// `index.json` and `blobs/…` of an archive that has none.
pub(super) fn made(
    archive: &Archive,
    most_document: u64,
) -> Result<HashMap<String, Section>, ArchiveError> {
    let Some(bytes) = archive.small("manifest.json", most_document)? else {
        // It says no diff ID: nothing that its layers could be verified against.
        if archive.find("repositories")?.is_some() {
            return Err(refuse(
                "is what `docker save` wrote before Docker 1.10 (`repositories`, no manifest.json), which is not read: \
                 `docker load` it where that still takes it, and `docker save` the image again",
            ));
        }
        return Err(refuse(
            "holds no index.json (oci-archive) and no manifest.json (docker-archive)",
        ));
    };
    let images: Vec<Saved> = serde_json::from_slice(&bytes)
        .map_err(|error| refuse(format!("manifest.json in it is not readable: {error}")))?;
    if images.len() > MAX_ENTRIES {
        return Err(refuse(format!("has more than {MAX_ENTRIES} images")));
    }
    let mut layout = Made::default();
    let mut entries = Vec::new();
    for image in images {
        let manifest = layout.image(archive, &image, most_document)?;
        let entry = json!({
            "mediaType": MANIFEST,
            "digest": Digest::sha256(&manifest).to_string(),
            "size": manifest.len(),
        });
        let tags = image.repo_tags.unwrap_or_default();
        if tags.is_empty() {
            entries.push(entry.clone());
        }
        for name in &tags {
            let mut entry = entry.clone();
            let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
            entry["annotations"] = json!({oci::REF_NAME: tag, oci::CONTAINERD_NAME: name});
            entries.push(entry);
        }
        if entries.len() > MAX_ENTRIES {
            return Err(refuse(format!("has more than {MAX_ENTRIES} tags")));
        }
        layout.put(blob(&Digest::sha256(&manifest)), manifest)?;
    }
    let index = json!({"schemaVersion": 2, "manifests": entries});
    layout.put("index.json".into(), index.to_string().into_bytes())?;
    Ok(layout.files)
}

#[derive(Default)]
struct Made {
    files: HashMap<String, Section>,
    bytes: usize,
    /// Compressed layers by where they are in the archive: hashed once, however many images have them.
    hashed: HashMap<String, (Digest, u64)>,
}

impl Made {
    fn put(&mut self, name: String, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.bytes += name.len() + bytes.len();
        if self.bytes > MOST_MADE_BYTES {
            return Err(refuse(format!(
                "has so many images that their manifests are more than {MOST_MADE_BYTES} bytes"
            )));
        }
        self.files.insert(name, Section::Made(bytes.into()));
        Ok(())
    }

    /// Makes the manifest of an image, and finds its blobs.
    fn image(
        &mut self,
        archive: &Archive,
        image: &Saved,
        most_document: u64,
    ) -> Result<Vec<u8>, ArchiveError> {
        let name = &image.config;
        let config: Bytes = archive.small(name, most_document)?.ok_or_else(|| {
            refuse(format!(
                "has no configuration {name:?}, which manifest.json names"
            ))
        })?;
        let diff_ids = oci::parse_config(&config)
            .map_err(|error| refuse(format!("{name:?} in it: {error}")))?
            .diff_ids;
        let layers = image.layers.as_deref().unwrap_or_default();
        if layers.len() != diff_ids.len() || layers.len() > MAX_LAYERS {
            return Err(refuse(format!(
                "manifest.json in it has {} layers for the {} diff IDs of {name:?}",
                layers.len(),
                diff_ids.len()
            )));
        }
        let mut described = Vec::new();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            described.push(self.layer(archive, layer, diff_id)?);
        }
        let digest = Digest::sha256(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest.to_string(), "size": config.len()},
            "layers": described,
        });
        if let Some(section) = archive.find(name)? {
            self.files.insert(blob(&digest), section);
        }
        Ok(manifest.to_string().into_bytes())
    }

    fn layer(
        &mut self,
        archive: &Archive,
        name: &str,
        diff_id: Digest,
    ) -> Result<Value, ArchiveError> {
        let Some(mut section) = archive.find(name)? else {
            let text = format!("has no layer {name:?}, which manifest.json names");
            return Err(refuse(text));
        };
        let whole = section.clone();
        let start = section.take(4)?;
        let suffix = match &start[..] {
            [0x1f, 0x8b, ..] => ".gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => ".zstd",
            _ => "",
        };
        let (digest, size) = match (suffix, &whole) {
            ("", Section::File { at, end, .. }) => (diff_id, end - at),
            _ => match self.hashed.get(name) {
                Some(known) => *known,
                None => {
                    let found = hash(whole.clone())?;
                    self.hashed.insert(name.to_owned(), found);
                    found
                }
            },
        };
        self.files.insert(blob(&digest), whole);
        Ok(json!({
            "mediaType": format!("{TAR}{suffix}"),
            "digest": digest.to_string(),
            "size": size,
        }))
    }
}

fn hash(mut section: Section) -> Result<(Digest, u64), ArchiveError> {
    let (mut hasher, mut size) = (Hasher::new(Algorithm::Sha256), 0);
    loop {
        let piece = section.take(1 << 20)?;
        if piece.is_empty() {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&piece);
        size += piece.len() as u64;
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replacen(':', "/", 1))
}

fn refuse(text: impl Into<String>) -> ArchiveError {
    ArchiveError::Refused(text.into())
}
