//! A registry that is an OCI image layout, in whatever holds its files ([`Store`]).
//!
//! A tag is an entry of `index.json` with `org.opencontainers.image.ref.name` (the tag, or
//! `repository:tag`). Of several, the one whose `io.containerd.image.name` is the repository. An
//! only entry without any name is `latest`. All reading is off the reactor.

use super::client::{Expected, verified};
use super::error::Failure;
use super::store::{Store, trouble};
use super::{Document, RegistryError, RegistryErrorKind};
use crate::archive::Section;
use crate::digest::Digest;
use crate::oci::{self, Descriptor, IndexEntry};
use crate::reference::{Repository, Version};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Bytes of one piece.
const PIECE: usize = 256 << 10;

/// Tags that an error names.
const MOST_TAGS: usize = 10;

/// One repository of a layout.
pub(super) struct Layout {
    store: Arc<dyn Store>,
    pub(super) repository: Repository,
    /// `limits.manifestBytes`.
    pub(super) limit: u64,
}

impl Layout {
    pub(super) fn new(store: Arc<dyn Store>, repository: &Repository, limit: u64) -> Layout {
        Layout {
            store,
            repository: repository.clone(),
            limit,
        }
    }

    /// What `tag` means in `index.json`.
    pub(super) async fn resolve(&self, tag: &str) -> Result<Digest, RegistryError> {
        let what = format!("tag of `{}:{tag}`", self.repository);
        let found = self.entry(Version::Tag(tag.into())).await;
        found
            .map(|entry| entry.digest)
            .map_err(|failure| self.name(failure, &what))
    }

    /// A manifest or index.
    pub(super) async fn manifest(&self, version: &Version) -> Result<Document, RegistryError> {
        let what = super::manifest_of(&self.repository, version);
        let document = async {
            let (digest, media_type) = match (version, self.entry(version.clone()).await) {
                (_, Ok(entry)) => (entry.digest, Some(entry.media_type)),
                // A manifest below a nested index is not in index.json.
                (Version::Digest(digest), Err(_)) => (*digest, None),
                (Version::Tag(_), Err(failure)) => return Err(failure),
            };
            self.small(digest, None, media_type.filter(|said| !said.is_empty()))
                .await
        };
        document.await.map_err(|failure| self.name(failure, &what))
    }

    /// A configuration.
    pub(super) async fn small_blob(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Document, RegistryError> {
        let document = self
            .small(descriptor.digest, Some(descriptor.size), None)
            .await;
        document.map_err(|failure| self.name(failure, &self.blob_name(&descriptor.digest)))
    }

    /// A layer.
    pub(super) async fn blob(&self, descriptor: &Descriptor) -> Result<FileBlob, RegistryError> {
        let what = self.blob_name(&descriptor.digest);
        let section = self.open(blob_path(&descriptor.digest)).await;
        let section = section.map_err(|failure| self.name(failure, &what))?;
        Ok(FileBlob {
            section: Some(section),
            reading: None,
            host: self.repository.host().into(),
            what: what.into(),
        })
    }

    /// Whether the blob is there.
    pub(super) async fn probe(&self, digest: &Digest) -> Result<(), RegistryError> {
        let section = self.open(blob_path(digest)).await;
        section
            .map(drop)
            .map_err(|failure| self.name(failure, &self.blob_name(digest)))
    }

    fn blob_name(&self, digest: &Digest) -> String {
        format!("blob {digest} of `{}`", self.repository)
    }

    pub(super) fn name(&self, failure: Failure, what: &str) -> RegistryError {
        failure.name(self.repository.host(), what, 1)
    }

    pub(super) async fn small(
        &self,
        digest: Digest,
        size: Option<u64>,
        media_type: Option<String>,
    ) -> Result<Document, Failure> {
        let bytes = self.read(blob_path(&digest)).await?;
        verified(
            bytes,
            media_type,
            Expected {
                digest: Some(digest),
                size,
            },
            None,
        )
        .await
    }

    /// All of `index.json`.
    pub(super) async fn entries(&self) -> Result<Vec<IndexEntry>, Failure> {
        let index = self.read("index.json".into()).await?;
        match oci::parse_document(None, &index).map_err(|error| wrong_index(&error))? {
            oci::Document::Index(entries) => Ok(entries),
            oci::Document::Manifest(_) => Err(wrong_index(&"is a manifest, not an index")),
        }
    }

    pub(super) async fn entry(&self, version: Version) -> Result<Descriptor, Failure> {
        let entries = self.entries().await?;
        let found = match &version {
            Version::Digest(digest) => (entries.iter())
                .filter(|entry| entry.descriptor.digest == *digest)
                .collect(),
            Version::Tag(tag) => tagged(&entries, &self.repository, tag),
        };
        let Some(first) = found.first() else {
            let index = self.off_reactor(|store, _| Ok(store.index())).await?;
            let tagged = entries.iter().filter_map(|entry| entry.ref_name.as_deref());
            let text = format!("not in {index}, which has {}", tags(tagged));
            return Err(Failure::last(RegistryErrorKind::NotFound, text));
        };
        if (found.iter()).any(|entry| entry.descriptor.digest != first.descriptor.digest) {
            return Err(wrong_index(&"names several images with this tag"));
        }
        Ok(first.descriptor.clone())
    }

    async fn open(&self, path: String) -> Result<Section, Failure> {
        self.off_reactor(move |store, repository| store.open(repository, &path))
            .await
    }

    async fn read(&self, path: String) -> Result<Bytes, Failure> {
        let limit = self.limit;
        let read = self.off_reactor(move |store, repository| {
            let section = store.open(repository, &path)?;
            let bytes = section
                .read(limit)
                .map_err(|error| trouble(&path, &error))?;
            bytes.ok_or_else(|| Failure::wrong(format!("{path} is larger than {limit} bytes")))
        });
        read.await
    }

    /// Runs `work` with the store and the repository's path.
    async fn off_reactor<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store, &str) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (store, path) = (self.store.clone(), self.repository.path().to_owned());
        let joined = tokio::task::spawn_blocking(move || work(&*store, &path)).await;
        joined.unwrap_or_else(|_| Err(Failure::passing("reading the layout was cancelled")))
    }
}

/// The tags that there are, as many as a line may say.
fn tags<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: BTreeSet<&str> = names.collect();
    let shown: Vec<&str> = all.iter().copied().take(MOST_TAGS).collect();
    match all.len() {
        0 => "no tags".to_owned(),
        count if count > MOST_TAGS => format!("{shown:?} and {} more", count - MOST_TAGS),
        _ => format!("{shown:?}"),
    }
}

fn wrong_index(why: &dyn std::fmt::Display) -> Failure {
    Failure::wrong(format!("index.json of the layout: {why}"))
}

/// The entries that a tag of the repository means.
fn tagged<'e>(
    entries: &'e [IndexEntry],
    repository: &Repository,
    tag: &str,
) -> Vec<&'e IndexEntry> {
    let full_name = |entry: &&IndexEntry| {
        let name = entry.descriptor.annotations.get(oci::CONTAINERD_NAME);
        name.is_some_and(|name| is_named(name, repository, tag))
    };
    let found: Vec<_> = entries.iter().filter(full_name).collect();
    if !found.is_empty() {
        return found;
    }
    let named = |entry: &&IndexEntry| {
        let Some(name) = entry.ref_name.as_deref() else {
            return false;
        };
        let spelled = name.rsplit_once(':').filter(|(_, end)| *end == tag);
        name == tag
            || spelled.is_some_and(|(start, _)| {
                start == repository.as_str() || start == repository.path()
            })
    };
    let found: Vec<_> = entries.iter().filter(named).collect();
    match entries {
        [only] if found.is_empty() && tag == "latest" && only.ref_name.is_none() => vec![only],
        _ => found,
    }
}

/// Whether `docker.io/library/app:v1`, or `app:v1`, is this tag of the repository: with its own host, or with
/// any host that was there when the image was saved.
fn is_named(name: &str, repository: &Repository, tag: &str) -> bool {
    let Some((start, end)) = name.rsplit_once(':') else {
        return false;
    };
    if end != tag {
        return false;
    }
    let own = repository.path();
    start == own
        || start == repository.as_str()
        || Repository::parse(start).is_ok_and(|said| {
            said.path() == own || said.path().strip_prefix("library/") == Some(own)
        })
}

/// Whether the layouts of `host` can be read; for readiness.
pub(super) async fn check(host: &str, store: Arc<dyn Store>) -> Result<(), RegistryError> {
    let checked = tokio::task::spawn_blocking(move || store.check()).await;
    let checked = checked.unwrap_or_else(|_| Err(Failure::passing("reading was cancelled")));
    checked.map_err(|failure| failure.name(host, "readiness", 1))
}

fn blob_path(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("blobs/{}", text.replacen(':', "/", 1))
}

/// A blob's file as it is read.
pub(super) struct FileBlob {
    section: Option<Section>,
    /// Kept here, so that a `next` that is dropped loses nothing.
    reading: Option<JoinHandle<(Section, std::io::Result<Bytes>)>>,
    host: Arc<str>,
    what: Arc<str>,
}

impl FileBlob {
    /// The next piece; None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if let Some(mut section) = self.section.take() {
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let read = section.take(PIECE);
                (section, read)
            }));
        }
        let Some(reading) = &mut self.reading else {
            return Ok(None);
        };
        let joined = reading.await;
        self.reading = None;
        let failure = match joined {
            Ok((section, Ok(bytes))) => {
                self.section = Some(section);
                return Ok(Some(bytes).filter(|bytes| !bytes.is_empty()));
            }
            Ok((_, Err(error))) => trouble("file", &error),
            Err(_) => Failure::passing("reading was cancelled"),
        };
        Err(failure.name(&self.host, &self.what, 1))
    }
}
