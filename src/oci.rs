//! Manifests, indexes and image configurations: the part of the OCI image
//! specification (and of Docker schema 2) that decides what is served. Pure:
//! parses bytes, never fetches them.
//!
//! The bytes come from strangers. What is refused rather than guessed: a document that
//! is both a manifest and an index (CVE-2021-41190), a member that is there twice, a size
//! that is negative or beyond 2^63, a digest that cannot be verified, more than
//! [`MAX_LAYERS`] layers. Members that are not used here are not looked at.

mod about;
mod layer;
mod platform;
mod wire;

use crate::digest::Digest;
use std::borrow::Cow;
use std::collections::BTreeMap;

pub use about::{
    Description, EMPTY, Referrer, config_platform, describe, parse_referrers, referrers_tag,
};
pub use layer::{Content, artifact_content, check_layer};
pub use platform::{Choice, choose};

/// Layers of one manifest. Runtimes stop at 127; this leaves room for artifacts.
pub const MAX_LAYERS: usize = 1_000;
/// Entries of one index.
pub const MAX_ENTRIES: usize = 10_000;

/// The annotation that names a tag, in an OCI layout's index.json.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that names repository and tag there, as containerd, BuildKit and `docker save` write it.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The media types that a manifest request accepts, most wanted first.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The media type that a request for a list of referrers accepts.
pub const ACCEPT_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A platform, as `os/architecture[/variant]`, or `os(version)/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// GOOS name.
    pub os: String,
    /// GOARCH name.
    pub architecture: String,
    /// `v7`, `v8`...
    pub variant: Option<String>,
    /// `os.version`: `10.0.17763.1`... Windows images run on hosts of the same build.
    pub os_version: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Names content by media type, digest and size in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// As the manifest says it; may lie.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// `urls`: never fetched; kept to explain a refusal (foreign layers).
    pub urls: Vec<String>,
    /// `annotations`, those whose value is a text.
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration's descriptor.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// `artifactType`.
    pub artifact_type: Option<String>,
}

/// One entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest, or a nested index.
    pub descriptor: Descriptor,
    /// Its platform, where it says one.
    pub platform: Option<Platform>,
    /// BuildKit's attestation manifests (`vnd.docker.reference.type`) are not images.
    pub attestation: bool,
    /// `org.opencontainers.image.ref.name`: the tag, in an OCI layout's index.json.
    pub ref_name: Option<String>,
    /// `artifactType`, where it is a text that is not empty.
    pub artifact_type: Option<String>,
}

/// What a manifest request can return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An image or artifact.
    Manifest(Manifest),
    /// An index or manifest list.
    Index(Vec<IndexEntry>),
}

/// The parts of an image configuration that are used here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Digest of each layer's uncompressed tar, base first.
    pub diff_ids: Vec<Digest>,
    /// `config.Labels`.
    pub labels: BTreeMap<String, String>,
}

/// Why bytes are not a document that can be served: one line, names the member and its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentError(pub String);

/// Parses a manifest or index. `content_type` is what the registry said; the
/// document's own `mediaType` member and its shape decide where they differ
/// (OCI image specification, manifest.md and image-index.md).
pub fn parse_document(content_type: Option<&str>, bytes: &[u8]) -> Result<Document, DocumentError> {
    wire::document(content_type, bytes)
}

/// Parses an image configuration.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    wire::config(bytes)
}

/// Whether the media type says an image configuration, so that `diff_ids` must match the layers.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(
        &*essence(media_type),
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    )
}

/// Whether the media type says a manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(
        &*essence(media_type),
        "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
    )
}

/// Whether the media type says an index, so that an entry of an index leads to another one.
pub fn is_index(media_type: &str) -> bool {
    matches!(
        &*essence(media_type),
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// Whether the media type is JSON's own: what some registries say of whatever they answer.
pub fn is_json(media_type: &str) -> bool {
    essence(media_type) == "application/json"
}

/// A media type without its parameters (`; charset=utf-8`), in lower case: it has none of its own
/// (RFC 9110 §8.3.1).
fn essence(media_type: &str) -> Cow<'_, str> {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    match essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(essence.to_ascii_lowercase()),
        false => Cow::Borrowed(essence),
    }
}

#[cfg(test)]
mod tests;
