//! What refers to a digest in an OCI image layout: there is no list, so the manifests that `index.json`
//! leads to are read; and the tag schema, which some clients keep in layouts too.

use super::RegistryError;
use super::RegistryErrorKind::NotFound;
use super::error::Failure;
use super::layout::Layout;
use super::referrers::list_of;
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Document, Referrer};
use crate::reference::Version;
use std::collections::HashSet;

/// Manifests and indexes that are read for one question.
const MOST_READ: usize = 2_000;
/// Bytes of them, in `limits.manifestBytes`.
const MOST_BYTES: u64 = 16;
/// Indexes within indexes.
const DEPTH: usize = 4;

impl Layout {
    /// In no order, and perhaps one twice.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let found = self.attached(subject).await;
        found.map_err(|failure| self.name(failure, &list_of(&self.repository, subject)))
    }

    async fn attached(&self, subject: &Digest) -> Result<Vec<Referrer>, Failure> {
        let mut found = Vec::new();
        let entries = self.entries().await?.into_iter();
        let mut left: Vec<_> = entries.map(|entry| (entry.descriptor, 0)).collect();
        let mut seen: HashSet<Digest> = left.iter().map(|(entry, _)| entry.digest).collect();
        let (mut read, mut bytes) = (0, 0);
        while let Some((descriptor, depth)) = left.pop() {
            if !oci::is_manifest(&descriptor.media_type) && !oci::is_index(&descriptor.media_type) {
                continue;
            }
            let (digest, size) = (descriptor.digest, descriptor.size);
            let document = match self.small(digest, Some(size), None).await {
                Ok(document) => document.bytes,
                // A layout may hold a part of what its indexes name.
                Err(failure) if failure.kind == NotFound => continue,
                Err(failure) => return Err(naming(&digest)(failure)),
            };
            read += 1;
            bytes += document.len() as u64;
            if read > MOST_READ || bytes > MOST_BYTES.saturating_mul(self.limit) {
                let text = format!(
                    "the layout is too large to be searched: more than {MOST_READ} manifests, or {MOST_BYTES} times limits.manifestBytes"
                );
                return Err(Failure::wrong(text));
            }
            let wrong =
                |error: oci::DocumentError| naming(&digest)(Failure::wrong(error.to_string()));
            let said = oci::describe(&document).map_err(wrong)?;
            if (said.subject.as_ref()).is_some_and(|of| of.digest == *subject) {
                found.push(Referrer {
                    artifact_type: said.referrer_type().map(str::to_owned),
                    descriptor: Descriptor {
                        annotations: said.annotations,
                        urls: Vec::new(),
                        ..descriptor
                    },
                });
            }
            if depth < DEPTH
                && oci::is_index(&said.media_type)
                && let Document::Index(within) =
                    oci::parse_document(None, &document).map_err(wrong)?
            {
                let within = within.into_iter().map(|entry| entry.descriptor);
                let new = within.filter(|entry| seen.insert(entry.digest));
                left.extend(new.map(|entry| (entry, depth + 1)));
            }
        }
        found.extend(self.tagged(subject).await?);
        Ok(found)
    }

    /// By the tag schema.
    async fn tagged(&self, subject: &Digest) -> Result<Vec<Referrer>, Failure> {
        let tag = oci::referrers_tag(subject);
        let descriptor = match self.entry(Version::Tag(tag.into())).await {
            Ok(descriptor) => descriptor,
            Err(failure) if failure.kind == NotFound => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        let digest = descriptor.digest;
        let document = self.small(digest, Some(descriptor.size), None).await;
        let document = document.map_err(|failure| naming(&digest)(failure))?;
        oci::parse_referrers(None, &document.bytes)
            .map_err(|error| naming(&digest)(Failure::wrong(error.to_string())))
    }
}

fn naming(digest: &Digest) -> impl Fn(Failure) -> Failure {
    move |failure| Failure {
        text: format!("manifest {digest}: {}", failure.text),
        ..failure
    }
}
