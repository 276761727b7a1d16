//! What documents say beside what is served of them: of what type they are, what they refer to, what is
//! annotated. Read apart from [`super::parse_document`]: an image whose annotations are
//! wrong can be served, and is refused here only, where they are shown.

use super::wire::{RawDescriptor, descriptor, optional_text, refuse, texts};
use super::{Descriptor, Document, DocumentError, Platform, is_image_config, parse_document};
use crate::digest::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::BTreeMap;

/// The media type of a descriptor that is there because there has to be one (manifest.md, "Guidance for
/// an Empty Descriptor").
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a manifest or an index says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `mediaType`; where it is left out, as OCI allows, the one that the members tell.
    pub media_type: String,
    /// `artifactType`, if it is not empty.
    pub artifact_type: Option<String>,
    /// `config.mediaType` of a manifest, if it is not empty.
    pub config_type: Option<String>,
    /// What it is attached to: signatures, bills of materials...
    pub subject: Option<Descriptor>,
    /// `annotations`, those whose value is a text.
    pub annotations: BTreeMap<String, String>,
}

impl Description {
    /// What kind of artifact this is: what it says, else the type of its configuration (manifest.md,
    /// "Guidelines for Artifact Usage"). None: an image, or an artifact that does not say.
    pub fn kind(&self) -> Option<&str> {
        let config = || {
            let config = self.config_type.as_deref();
            config.filter(|config| !is_image_config(config) && *config != EMPTY)
        };
        self.artifact_type.as_deref().or_else(config)
    }

    /// The `artifactType` of its descriptor in a list of referrers: whatever its configuration is (OCI
    /// distribution specification, "Listing Referrers").
    pub fn referrer_type(&self) -> Option<&str> {
        (self.artifact_type.as_deref()).or(self.config_type.as_deref())
    }
}

/// What refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The referring manifest or index. Its annotations are those of the manifest, if whoever made the
    /// list keeps to the specification.
    pub descriptor: Descriptor,
    /// `artifactType`, if the list has it.
    pub artifact_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescription {
    media_type: Option<Value>,
    artifact_type: Option<Value>,
    subject: Option<RawDescriptor>,
    annotations: Option<BTreeMap<String, Value>>,
    config: Option<RawConfig>,
    manifests: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    media_type: Option<Value>,
}

/// Reads what the bytes of a manifest or an index say of themselves.
pub fn describe(bytes: &[u8]) -> Result<Description, DocumentError> {
    let raw: RawDescription = serde_json::from_slice(bytes)
        .map_err(|error| refuse(format!("manifest is not readable: {error}")))?;
    let text = |member: &str, value| {
        optional_text(member, value).map(|text| text.filter(|text| !text.is_empty()))
    };
    let otherwise = match raw.manifests {
        Some(_) => INDEX,
        None => MANIFEST,
    };
    Ok(Description {
        media_type: text("mediaType", raw.media_type)?.unwrap_or_else(|| otherwise.to_owned()),
        artifact_type: text("artifactType", raw.artifact_type)?,
        config_type: match raw.config {
            Some(config) => text("config.mediaType", config.media_type)?,
            None => None,
        },
        subject: match raw.subject {
            Some(subject) => Some(descriptor("subject", subject)?),
            None => None,
        },
        annotations: texts(raw.annotations),
    })
}

/// Reads a list of referrers: an index (OCI distribution specification, "Listing Referrers", and the
/// referrers tag schema).
pub fn parse_referrers(
    content_type: Option<&str>,
    bytes: &[u8],
) -> Result<Vec<Referrer>, DocumentError> {
    match parse_document(content_type, bytes)? {
        Document::Manifest(_) => Err(refuse("is a manifest, not an index of referrers".into())),
        Document::Index(entries) => Ok((entries.into_iter())
            .map(|entry| Referrer {
                artifact_type: entry.artifact_type,
                descriptor: entry.descriptor,
            })
            .collect()),
    }
}

/// The tag under which clients keep the referrers of a digest where a registry has no list of them:
/// `<algorithm>-<hex>`, of the first at most 32 characters, of the second 64 ("Referrers Tag Schema").
pub fn referrers_tag(digest: &Digest) -> String {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').unwrap_or((&text, ""));
    format!("{algorithm:.32}-{hex:.64}")
}

/// The platform that an image configuration says (config.md).
pub fn config_platform(config: &Value) -> Option<Platform> {
    let member = |name: &str| {
        let text = config.get(name)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    Some(Platform {
        os: member("os")?,
        architecture: member("architecture")?,
        variant: member("variant"),
        os_version: member("os.version"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";

    #[test]
    fn the_kind_is_what_is_said_or_what_the_configuration_is() {
        let (docker, helm) = (
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.cncf.helm.config.v1+json",
        );
        // artifactType, config.mediaType; the kind, the type in a list of referrers.
        let table = [
            (json!("a/b"), json!(EMPTY), Some("a/b"), Some("a/b")),
            (json!("a/b"), json!(IMAGE), Some("a/b"), Some("a/b")),
            (json!(null), json!(IMAGE), None, Some(IMAGE)),
            (json!(""), json!(docker), None, Some(docker)),
            (json!(null), json!(EMPTY), None, Some(EMPTY)),
            (json!(null), json!(helm), Some(helm), Some(helm)),
            (json!(null), json!(null), None, None),
        ];
        for (artifact_type, config_type, kind, referrer) in table {
            let manifest = json!({"schemaVersion": 2, "artifactType": artifact_type,
                "config": {"mediaType": config_type, "digest": DIGEST, "size": 0}});
            let said = describe(manifest.to_string().as_bytes()).unwrap();
            assert_eq!(said.kind(), kind, "{manifest}");
            assert_eq!(said.referrer_type(), referrer, "{manifest}");
            assert_eq!(said.media_type, MANIFEST);
        }
        let index = json!({"manifests": [], "artifactType": "a/b"}).to_string();
        let said = describe(index.as_bytes()).unwrap();
        assert_eq!(
            (said.media_type.as_str(), said.kind()),
            (INDEX, Some("a/b"))
        );
    }

    #[test]
    fn subject_and_annotations_are_read_and_faults_are_named() {
        let manifest = json!({"mediaType": "x/y", "annotations": {"a": "1", "b": 2, "": ""},
            "subject": {"mediaType": "s/t", "digest": DIGEST, "size": 3}});
        let said = describe(manifest.to_string().as_bytes()).unwrap();
        assert_eq!(said.media_type, "x/y");
        let annotations: Vec<_> = said.annotations.iter().collect();
        assert_eq!(annotations.len(), 2, "{annotations:?}");
        let subject = said.subject.unwrap();
        assert_eq!(
            (subject.digest.to_string().as_str(), subject.size),
            (DIGEST, 3)
        );
        let deep = format!("{{\"annotations\":{{\"a\":{}1", "[".repeat(200));
        for (bytes, part) in [
            (
                &br#"{"subject":{"size":1}}"#[..],
                "subject.digest is missing",
            ),
            (
                br#"{"subject":{"digest":"sha256:0","size":1}}"#,
                "subject.digest",
            ),
            (br#"{"subject":7}"#, "not readable"),
            (br#"{"annotations":["a"]}"#, "not readable"),
            (br#"{"artifactType":7}"#, "artifactType is 7, not a text"),
            (b"{\"annotations\":{\"a\":\"\xff\"}}", "not readable"),
            (deep.as_bytes(), "recursion limit"),
            (b"", "not readable"),
        ] {
            let error = describe(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_list_of_referrers_is_an_index() {
        let entry = json!({"mediaType": MANIFEST, "digest": DIGEST, "size": 5,
            "artifactType": "a/b", "annotations": {"k": "v"}});
        let bare = json!({"mediaType": MANIFEST, "digest": DIGEST, "size": 5, "artifactType": 7});
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry, bare]});
        let found = parse_referrers(None, list.to_string().as_bytes()).unwrap();
        assert_eq!(found[0].artifact_type.as_deref(), Some("a/b"));
        assert_eq!(found[0].descriptor.annotations["k"], "v");
        assert_eq!(found[1].artifact_type, None);
        // As Go writes a list that nobody made.
        let none = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": null});
        assert_eq!(
            parse_referrers(None, none.to_string().as_bytes()),
            Ok(vec![])
        );
        let said = parse_referrers(Some(INDEX), b"{\"schemaVersion\":2}");
        assert_eq!(said, Ok(vec![]));
        let config = json!({"digest": DIGEST, "size": 1});
        let manifest = json!({"schemaVersion": 2, "config": config}).to_string();
        for bytes in [
            manifest.as_bytes(),
            b"{\"schemaVersion\":2}",
            b"<html>",
            b"{\"manifests\":[{}]}",
        ] {
            parse_referrers(None, bytes).unwrap_err();
        }
    }

    #[test]
    fn the_tag_of_referrers_is_cut_as_the_schema_says() {
        let digest: Digest = DIGEST.parse().unwrap();
        assert_eq!(referrers_tag(&digest), DIGEST.replace(':', "-"));
        let long = format!("sha512:{}", "ab".repeat(64));
        let tag = referrers_tag(&long.parse().unwrap());
        assert_eq!(tag, format!("sha512-{}", "ab".repeat(32)));
    }

    #[test]
    fn the_platform_is_what_the_configuration_says() {
        for (config, platform) in [
            (
                json!({"os": "linux", "architecture": "arm64", "variant": "v8"}),
                Some("linux/arm64/v8"),
            ),
            (
                json!({"os": "windows", "architecture": "amd64", "os.version": "10.0"}),
                Some("windows(10.0)/amd64"),
            ),
            (json!({"os": "linux", "architecture": ""}), None),
            (json!({"os": 7, "architecture": "amd64"}), None),
            (json!([]), None),
        ] {
            let found = config_platform(&config).map(|found| found.to_string());
            assert_eq!(found.as_deref(), platform, "{config}");
        }
    }
}
