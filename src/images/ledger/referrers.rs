//! Lists of referrers, as their registry gave them last: they have no digest that could be verified, so they
//! are no documents.

use super::{Ledger, blocking, hashed};
use crate::blobspace::RecordKind;
use crate::digest::Digest;
use crate::oci::{Descriptor, Referrer};
use crate::reference::Repository;
use crate::registry::Listed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is referred to: a manifest or an index.
pub(in crate::images) type Subject = (Repository, Digest);

/// A list, and when it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::images) struct Kept {
    pub(in crate::images) asked: SystemTime,
    pub(in crate::images) list: Listed,
}

#[derive(Serialize, Deserialize)]
struct Record {
    subject: String,
    /// Milliseconds since 1970.
    asked: u64,
    truncated: bool,
    referrers: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    annotations: BTreeMap<String, String>,
    artifact_type: Option<String>,
}

impl Ledger {
    pub(in crate::images) async fn referrers(&self, subject: &Subject) -> Option<Kept> {
        let name = name(subject);
        let bytes = self.read(RecordKind::Referrers, hashed(&name)).await?;
        // Some megabytes of JSON, perhaps.
        blocking(move || read(&bytes, &name)).await.flatten()
    }

    pub(in crate::images) async fn put_referrers(
        &self,
        subject: &Subject,
        asked: SystemTime,
        list: &Listed,
    ) {
        let record = record(name(subject), asked, list);
        let key = hashed(&record.subject);
        let written = blocking(move || serde_json::to_vec(&record)).await;
        if let Some(Ok(bytes)) = written {
            self.write(RecordKind::Referrers, key, bytes).await;
        }
    }

    pub(in crate::images) async fn remove_referrers(&self, subject: &Subject) {
        let (blobspace, name) = (self.blobspace.clone(), hashed(&name(subject)));
        blocking(move || blobspace.remove_record(RecordKind::Referrers, &name)).await;
    }
}

fn name((repository, digest): &Subject) -> String {
    format!("{repository}@{digest}")
}

fn record(subject: String, asked: SystemTime, list: &Listed) -> Record {
    let asked = asked.duration_since(UNIX_EPOCH).unwrap_or_default();
    let entries = list.referrers.iter().map(|one| Entry {
        media_type: one.descriptor.media_type.clone(),
        digest: one.descriptor.digest.to_string(),
        size: one.descriptor.size,
        annotations: one.descriptor.annotations.clone(),
        artifact_type: one.artifact_type.clone(),
    });
    Record {
        subject,
        asked: u64::try_from(asked.as_millis()).unwrap_or(u64::MAX),
        truncated: list.truncated,
        referrers: entries.collect(),
    }
}

/// None: it is not of that subject, or not readable.
fn read(bytes: &[u8], subject: &str) -> Option<Kept> {
    let record: Record = serde_json::from_slice(bytes).ok()?;
    if record.subject != subject {
        return None;
    }
    let referrers = record.referrers.into_iter().map(|entry| {
        let descriptor = Descriptor {
            media_type: entry.media_type,
            digest: entry.digest.parse().ok()?,
            size: entry.size,
            urls: Vec::new(),
            annotations: entry.annotations,
        };
        Some(Referrer {
            descriptor,
            artifact_type: entry.artifact_type,
        })
    });
    Some(Kept {
        asked: UNIX_EPOCH.checked_add(Duration::from_millis(record.asked))?,
        list: Listed {
            referrers: referrers.collect::<Option<_>>()?,
            truncated: record.truncated,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written_and_only_for_its_subject() {
        let digest = Digest::sha256(b"");
        let list = Listed {
            referrers: vec![Referrer {
                descriptor: Descriptor {
                    media_type: "a/b".into(),
                    digest,
                    size: 7,
                    urls: Vec::new(),
                    annotations: [("a".into(), "b".into())].into(),
                },
                artifact_type: Some("c/d".into()),
            }],
            truncated: true,
        };
        let asked = UNIX_EPOCH + Duration::from_millis(1_234_567);
        let bytes = serde_json::to_vec(&record("a.b/c@d".into(), asked, &list)).unwrap();
        let kept = read(&bytes, "a.b/c@d").unwrap();
        assert_eq!((kept.asked, &kept.list), (asked, &list));
        assert_eq!(read(&bytes, "a.b/c@e"), None);
        assert_eq!(read(&bytes[1..], "a.b/c@d"), None);
        let torn = String::from_utf8(bytes).unwrap();
        let torn = torn.replace(&digest.to_string(), "sha256:0");
        assert_eq!(read(torn.as_bytes(), "a.b/c@d"), None);
    }
}
