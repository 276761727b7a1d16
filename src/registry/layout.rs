//! A registry that is a directory: OCI image layout specification.
//!
//! `DIR/<repository>/` if that holds `oci-layout`, else `DIR`; a tag is an entry of `index.json`
//! with `org.opencontainers.image.ref.name` (the tag, or `repository:tag`). A layout may come
//! from a stranger: what lies outside the directory is not read, whatever links say, and only
//! regular files are. All reading is off the reactor.

use super::client::{Expected, verified};
use super::error::Failure;
use super::{Document, RegistryError, RegistryErrorKind};
use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::reference::{Repository, Version};
use bytes::Bytes;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Bytes of one piece.
const PIECE: usize = 256 << 10;

/// One repository of a layout directory.
pub(super) struct Layout {
    directory: PathBuf,
    repository: Repository,
    /// `limits.manifestBytes`.
    limit: u64,
}

impl Layout {
    pub(super) fn new(directory: &Path, repository: &Repository, limit: u64) -> Layout {
        Layout {
            directory: directory.to_owned(),
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
        let path = blob_path(&descriptor.digest);
        let file = self.off_reactor(move |root| open(&root, &path)).await;
        let file = file.map_err(|failure| self.name(failure, &what))?;
        Ok(FileBlob {
            file: Some(file),
            reading: None,
            host: self.repository.host().into(),
            what: what.into(),
        })
    }

    /// Whether the blob is there.
    pub(super) async fn probe(&self, digest: &Digest) -> Result<(), RegistryError> {
        let path = blob_path(digest);
        let file = self
            .off_reactor(move |root| open(&root, &path).map(drop))
            .await;
        file.map_err(|failure| self.name(failure, &self.blob_name(digest)))
    }

    fn blob_name(&self, digest: &Digest) -> String {
        format!("blob {digest} of `{}`", self.repository)
    }

    fn name(&self, failure: Failure, what: &str) -> RegistryError {
        failure.name(self.repository.host(), what, 1)
    }

    async fn small(
        &self,
        digest: Digest,
        size: Option<u64>,
        media_type: Option<String>,
    ) -> Result<Document, Failure> {
        let (path, limit) = (blob_path(&digest), self.limit);
        let bytes = self
            .off_reactor(move |root| read(&root, &path, limit))
            .await?;
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

    async fn entry(&self, version: Version) -> Result<Descriptor, Failure> {
        let limit = self.limit;
        let index = self
            .off_reactor(move |root| read(&root, "index.json", limit))
            .await?;
        let wrong = |why: &dyn std::fmt::Display| {
            Failure::wrong(format!("index.json of the layout: {why}"))
        };
        let entries = match oci::parse_document(None, &index).map_err(|error| wrong(&error))? {
            oci::Document::Index(entries) => entries,
            oci::Document::Manifest(_) => return Err(wrong(&"is a manifest, not an index")),
        };
        let full = self.repository.as_str();
        let names = |name: &str| match &version {
            Version::Digest(_) => false,
            Version::Tag(tag) => {
                let spelled = name.rsplit_once(':').filter(|(_, end)| *end == &**tag);
                name == &**tag
                    || spelled
                        .is_some_and(|(start, _)| start == full || start == self.repository.path())
            }
        };
        let mut found = (entries.iter()).filter(|entry| match &version {
            Version::Digest(digest) => entry.descriptor.digest == *digest,
            Version::Tag(_) => entry.ref_name.as_deref().is_some_and(names),
        });
        let Some(first) = found.next() else {
            let mut tags: Vec<_> = entries
                .iter()
                .filter_map(|entry| entry.ref_name.as_deref())
                .take(10)
                .collect();
            tags.sort_unstable();
            let text = format!("not in the layout's index.json, which has {tags:?}");
            return Err(Failure::last(RegistryErrorKind::NotFound, text));
        };
        if found.any(|entry| entry.descriptor.digest != first.descriptor.digest) {
            return Err(wrong(&"names several images with this tag"));
        }
        Ok(first.descriptor.clone())
    }

    /// Runs `work` with the layout's root, links resolved.
    async fn off_reactor<T: Send + 'static>(
        &self,
        work: impl FnOnce(PathBuf) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (directory, path) = (self.directory.clone(), self.repository.path().to_owned());
        let joined = tokio::task::spawn_blocking(move || work(root(&directory, &path)?)).await;
        joined.unwrap_or_else(|_| Err(Failure::passing("reading the layout was cancelled")))
    }
}

/// Whether `directory` is there to be read; for readiness.
pub(super) async fn check(host: &str, directory: &Path) -> Result<(), RegistryError> {
    let directory = directory.to_owned();
    let readable =
        tokio::task::spawn_blocking(move || std::fs::read_dir(directory).map(drop)).await;
    match readable {
        Ok(Ok(())) => Ok(()),
        _ => {
            Err(Failure::passing("its layout directory cannot be read").name(host, "readiness", 1))
        }
    }
}

fn root(directory: &Path, repository: &str) -> Result<PathBuf, Failure> {
    let base =
        std::fs::canonicalize(directory).map_err(|error| trouble("layout directory", &error))?;
    // A repository's own directory, if a link, may not lead out either.
    match std::fs::canonicalize(base.join(repository)) {
        Ok(own) if own.starts_with(&base) && own.join("oci-layout").is_file() => Ok(own),
        _ => Ok(base),
    }
}

fn blob_path(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("blobs/{}", text.replacen(':', "/", 1))
}

/// Opens a regular file below `root`. Links are followed only within it.
fn open(root: &Path, path: &str) -> Result<File, Failure> {
    let real = std::fs::canonicalize(root.join(path)).map_err(|error| trouble(path, &error))?;
    if !real.starts_with(root) {
        return Err(Failure::wrong(format!("{path} leads out of the layout")));
    }
    // NONBLOCK: a fifo would hold the thread for ever.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(real);
    let file = file.map_err(|error| trouble(path, &error))?;
    match file.metadata() {
        Ok(meta) if meta.is_file() => Ok(file),
        Ok(_) => Err(Failure::wrong(format!("{path} is not a regular file"))),
        Err(error) => Err(trouble(path, &error)),
    }
}

fn read(root: &Path, path: &str, limit: u64) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let file = open(root, path)?;
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| trouble(path, &error))?;
    match bytes.len() as u64 > limit {
        true => Err(Failure::wrong(format!(
            "{path} is larger than {limit} bytes"
        ))),
        false => Ok(bytes.into()),
    }
}

fn trouble(path: &str, error: &std::io::Error) -> Failure {
    let text = format!("{path}: {}", error.kind());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Failure::last(RegistryErrorKind::NotFound, text)
        }
        _ => Failure {
            transient: false,
            ..Failure::passing(text)
        },
    }
}

/// A blob's file as it is read.
pub(super) struct FileBlob {
    file: Option<File>,
    /// Kept here, so that a `next` that is dropped loses nothing.
    reading: Option<JoinHandle<(File, std::io::Result<Bytes>)>>,
    host: Arc<str>,
    what: Arc<str>,
}

impl FileBlob {
    /// The next piece; None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if let Some(file) = self.file.take() {
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::with_capacity(PIECE);
                let read = (&file).take(PIECE as u64).read_to_end(&mut bytes);
                (file, read.map(|_| bytes.into()))
            }));
        }
        let Some(reading) = &mut self.reading else {
            return Ok(None);
        };
        let joined = reading.await;
        self.reading = None;
        let failure = match joined {
            Ok((file, Ok(bytes))) => {
                self.file = Some(file);
                return Ok(Some(bytes).filter(|bytes| !bytes.is_empty()));
            }
            Ok((_, Err(error))) => trouble("file", &error),
            Err(_) => Failure::passing("reading was cancelled"),
        };
        Err(failure.name(&self.host, &self.what, 1))
    }
}
