//! The JSON of the documents. Members are read as plain values first, so that an error
//! names the member and the value rather than a column of the text.

use super::{
    Descriptor, Document, DocumentError, ImageConfig, IndexEntry, MAX_ENTRIES, MAX_LAYERS,
    Manifest, Platform, essence,
};
use crate::digest::Digest;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A manifest or an index: which of them is decided after reading.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<Value>,
    media_type: Option<Value>,
    artifact_type: Option<Value>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    // Docker schema 1, to name it in the refusal.
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    media_type: Option<Value>,
    digest: Option<Value>,
    size: Option<Value>,
    urls: Option<Value>,
    platform: Option<RawPlatform>,
    annotations: Option<BTreeMap<String, Value>>,
    artifact_type: Option<Value>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: Option<Value>,
    architecture: Option<Value>,
    variant: Option<Value>,
    #[serde(rename = "os.version")]
    os_version: Option<Value>,
}

#[derive(Deserialize)]
struct RawConfig {
    rootfs: Option<RawRootfs>,
    config: Option<RawRuntime>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RawRuntime {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, Value>>,
}

/// What a media type says about the shape.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Manifest,
    Index,
}

pub(super) fn document(
    content_type: Option<&str>,
    bytes: &[u8],
) -> Result<Document, DocumentError> {
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|error| {
        let said = content_type.map(|said| format!(" (Content-Type {said:?})"));
        refuse(format!(
            "manifest is not readable{}: {error}",
            said.unwrap_or_default()
        ))
    })?;
    if raw.fs_layers.is_some() {
        return Err(refuse(
            "manifest is of Docker schema 1, which is not supported".into(),
        ));
    }
    if let Some(version) = &raw.schema_version
        && version.as_u64() != Some(2)
    {
        return Err(refuse(format!(
            "schemaVersion is {}, not 2",
            shown(version)
        )));
    }
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
        return Err(refuse(
            "document has members of a manifest (config, layers) and of an index (manifests)"
                .into(),
        ));
    }
    let said = optional_text("mediaType", raw.media_type)?;
    let declared = said.as_deref().and_then(shape);
    let shape = if raw.manifests.is_some() {
        Shape::Index
    } else if raw.config.is_some() || raw.layers.is_some() {
        Shape::Manifest
    } else {
        // Nothing but the media type is left to tell: an empty list may be left out.
        match declared.or_else(|| content_type.and_then(shape)) {
            Some(Shape::Index) => Shape::Index,
            _ => {
                return Err(refuse(
                    "document has neither config and layers nor manifests".into(),
                ));
            }
        }
    };
    if let Some(declared) = declared
        && declared != shape
    {
        let said = said.unwrap_or_default();
        return Err(refuse(format!(
            "mediaType is {said:?}, but the members say otherwise"
        )));
    }
    match shape {
        Shape::Index => index(raw.manifests.unwrap_or_default()).map(Document::Index),
        Shape::Manifest => {
            let layers = raw.layers.unwrap_or_default();
            if layers.len() > MAX_LAYERS {
                let count = layers.len();
                return Err(refuse(format!(
                    "manifest has {count} layers, more than {MAX_LAYERS}"
                )));
            }
            let config = raw
                .config
                .ok_or_else(|| refuse("config is missing".into()))?;
            Ok(Document::Manifest(Manifest {
                config: descriptor("config", config)?,
                layers: (layers.into_iter().enumerate())
                    .map(|(i, layer)| descriptor(&format!("layers[{i}]"), layer))
                    .collect::<Result<_, _>>()?,
                artifact_type: optional_text("artifactType", raw.artifact_type)?,
            }))
        }
    }
}

fn index(entries: Vec<RawDescriptor>) -> Result<Vec<IndexEntry>, DocumentError> {
    if entries.len() > MAX_ENTRIES {
        let count = entries.len();
        return Err(refuse(format!(
            "index has {count} entries, more than {MAX_ENTRIES}"
        )));
    }
    entries
        .into_iter()
        .enumerate()
        .map(|(i, raw)| entry(&format!("manifests[{i}]"), raw))
        .collect()
}

fn entry(member: &str, mut raw: RawDescriptor) -> Result<IndexEntry, DocumentError> {
    let platform = match raw.platform.take() {
        None => None,
        Some(raw) => platform(&format!("{member}.platform"), raw)?,
    };
    // BuildKit marks attestations twice; either mark alone is enough.
    let unknown = platform
        .as_ref()
        .is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown");
    // Decides nothing of what is served.
    let artifact_type = match raw.artifact_type.take() {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let descriptor = descriptor(member, raw)?;
    let annotation = |name: &str| descriptor.annotations.get(name).cloned();
    Ok(IndexEntry {
        attestation: unknown || annotation("vnd.docker.reference.type").is_some(),
        ref_name: annotation(super::REF_NAME),
        artifact_type,
        descriptor,
        platform,
    })
}

/// An empty object says nothing, and is taken as no platform.
fn platform(member: &str, raw: RawPlatform) -> Result<Option<Platform>, DocumentError> {
    let text = |name: &str, value| {
        optional_text(&format!("{member}.{name}"), value)
            .map(|text| text.filter(|text| !text.is_empty()))
    };
    let (os, architecture) = (text("os", raw.os)?, text("architecture", raw.architecture)?);
    let variant = text("variant", raw.variant)?;
    let os_version = text("os.version", raw.os_version)?;
    Ok(match (os, architecture) {
        (None, None) => None,
        (os, architecture) => Some(Platform {
            os: os.unwrap_or_default(),
            architecture: architecture.unwrap_or_default(),
            variant,
            os_version,
        }),
    })
}

pub(super) fn descriptor(member: &str, raw: RawDescriptor) -> Result<Descriptor, DocumentError> {
    let digest = raw
        .digest
        .ok_or_else(|| refuse(format!("{member}.digest is missing")))?;
    let size = raw
        .size
        .ok_or_else(|| refuse(format!("{member}.size is missing")))?;
    let Some(bytes) = size.as_u64().filter(|size| i64::try_from(*size).is_ok()) else {
        return Err(refuse(format!(
            "{member}.size is {}, not a number of bytes",
            shown(&size)
        )));
    };
    let urls = match raw.urls {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(urls)) if urls.iter().all(Value::is_string) => urls
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Some(other) => {
            return Err(refuse(format!(
                "{member}.urls is {}, not a list of texts",
                shown(&other)
            )));
        }
    };
    Ok(Descriptor {
        media_type: optional_text(&format!("{member}.mediaType"), raw.media_type)?
            .unwrap_or_default(),
        digest: self::digest(&format!("{member}.digest"), &digest)?,
        size: bytes,
        urls,
        annotations: texts(raw.annotations),
    })
}

/// The members whose value is a text.
pub(super) fn texts(members: Option<BTreeMap<String, Value>>) -> BTreeMap<String, String> {
    let members = members.unwrap_or_default().into_iter();
    let texts = members.filter_map(|(name, value)| match value {
        Value::String(text) => Some((name, text)),
        _ => None,
    });
    texts.collect()
}

pub(super) fn config(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    let raw: RawConfig = serde_json::from_slice(bytes)
        .map_err(|error| refuse(format!("image configuration is not readable: {error}")))?;
    let diff_ids = raw
        .rootfs
        .and_then(|rootfs| rootfs.diff_ids)
        .unwrap_or_default();
    if diff_ids.len() > MAX_LAYERS {
        let count = diff_ids.len();
        return Err(refuse(format!(
            "rootfs.diff_ids has {count} entries, more than {MAX_LAYERS}"
        )));
    }
    let diff_ids = (diff_ids.iter().enumerate())
        .map(|(i, value)| digest(&format!("rootfs.diff_ids[{i}]"), value))
        .collect::<Result<_, _>>()?;
    let labels = raw
        .config
        .and_then(|config| config.labels)
        .unwrap_or_default();
    let labels = (labels.into_iter())
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            other => Err(refuse(format!(
                "config.Labels.{} is {}, not a text",
                clip(&name),
                shown(&other)
            ))),
        })
        .collect::<Result<_, _>>()?;
    Ok(ImageConfig { diff_ids, labels })
}

fn digest(member: &str, value: &Value) -> Result<Digest, DocumentError> {
    let text = value
        .as_str()
        .ok_or_else(|| refuse(format!("{member} is {}, not a digest", shown(value))))?;
    match text.parse() {
        Ok(digest) => Ok(digest),
        // The error repeats the text, whatever its length.
        Err(_) if text.len() > SHOWN => Err(refuse(format!(
            "{member} is {}, not a digest",
            shown(value)
        ))),
        Err(error) => Err(refuse(format!("{member}: {error}"))),
    }
}

pub(super) fn optional_text(
    member: &str,
    value: Option<Value>,
) -> Result<Option<String>, DocumentError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(refuse(format!("{member} is {}, not a text", shown(&other)))),
    }
}

fn shape(media_type: &str) -> Option<Shape> {
    match &*essence(media_type) {
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(Shape::Index),
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => Some(Shape::Manifest),
        _ => None,
    }
}

/// Characters of a stranger's value that an error repeats.
const SHOWN: usize = 160;

/// A value for a message: escaped JSON, cut short.
fn shown(value: &Value) -> String {
    clip(&value.to_string())
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn refuse(text: String) -> DocumentError {
    DocumentError(text)
}
