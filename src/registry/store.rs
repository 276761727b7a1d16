//! What stands in for a registry without a network: the one border between what a layout means
//! ([`super::layout`]) and what holds its files. Here: a directory, and a tar file of one.
//!
//! A layout may come from a stranger: what lies outside is not read, whatever links say, and only
//! regular files are. All of this blocks.

use super::RegistryErrorKind;
use super::error::Failure;
use crate::archive::{self, Archive, ArchiveError, Section, Stamp};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Holds the files of OCI layouts.
pub(super) trait Store: Send + Sync {
    /// Opens `path` (`index.json`, `blobs/sha256/…`) of the layout that has this repository.
    fn open(&self, repository: &str, path: &str) -> Result<Section, Failure>;
    /// What says which tags there are, as whoever made it knows it.
    fn index(&self) -> &'static str;
    /// Whether anything can be read; for readiness.
    fn check(&self) -> Result<(), Failure>;
}

/// `registries.<host>.layout`.
pub(super) struct Directory(pub(super) PathBuf);

impl Store for Directory {
    fn open(&self, repository: &str, path: &str) -> Result<Section, Failure> {
        let file = open(&root(&self.0, repository)?, path)?;
        Ok(Section::File {
            file: Arc::new(file),
            at: 0,
            end: u64::MAX,
        })
    }

    fn index(&self) -> &'static str {
        "the layout's index.json"
    }

    fn check(&self) -> Result<(), Failure> {
        let readable = std::fs::read_dir(&self.0);
        readable
            .map(drop)
            .map_err(|_| Failure::passing("its layout directory cannot be read"))
    }
}

/// The layout of a repository below `directory`.
fn root(directory: &Path, repository: &str) -> Result<PathBuf, Failure> {
    let base =
        std::fs::canonicalize(directory).map_err(|error| trouble("layout directory", &error))?;
    // A repository's own directory, if a link, may not lead out either.
    match std::fs::canonicalize(base.join(repository)) {
        Ok(own) if own.starts_with(&base) && own.join("oci-layout").is_file() => Ok(own),
        _ => Ok(base),
    }
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

/// What an error of the file system means.
pub(super) fn trouble(path: &str, error: &std::io::Error) -> Failure {
    broken(path, error.kind())
}

fn broken(path: &str, kind: ErrorKind) -> Failure {
    let text = format!("{path}: {kind}");
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Failure::last(RegistryErrorKind::NotFound, text)
        }
        _ => Failure {
            transient: false,
            ..Failure::passing(text)
        },
    }
}

/// What a file was when it was opened, and what it held.
type Known = (Stamp, Result<Arc<Archive>, ArchiveError>);

/// `registries.<host>.archive`.
pub(super) struct ArchiveFile {
    path: PathBuf,
    /// `limits.manifestBytes`.
    most_document: u64,
    /// What the file was when its headers were read, and what they said. Held while they are read, so
    /// that many who wait read them once.
    read: Mutex<Option<Known>>,
}

impl ArchiveFile {
    pub(super) fn new(path: PathBuf, most_document: u64) -> ArchiveFile {
        ArchiveFile {
            path,
            most_document,
            read: Mutex::new(None),
        }
    }

    /// The archive, its headers read again if the file is another one by now.
    fn archive(&self) -> Result<Arc<Archive>, ArchiveError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = archive::stamp(&self.path)?;
        if let Some((stamp, known)) = &*read
            && *stamp == now
        {
            return known.clone();
        }
        let (stamp, outcome) = match Archive::open(&self.path, self.most_document) {
            Ok((archive, stamp)) => (stamp, Ok(Arc::new(archive))),
            Err(error @ ArchiveError::Refused(_)) => (now, Err(error)),
            // A trouble that can pass is not remembered.
            Err(error) => return Err(error),
        };
        *read = Some((stamp, outcome.clone()));
        outcome
    }
}

impl Store for ArchiveFile {
    fn open(&self, _: &str, path: &str) -> Result<Section, Failure> {
        let archive = self.archive().map_err(unread)?;
        let section = archive.find(path).map_err(unread)?;
        section.ok_or_else(|| {
            let text = format!("the archive has no {path}");
            Failure::last(RegistryErrorKind::NotFound, text)
        })
    }

    fn index(&self) -> &'static str {
        match self.archive() {
            Ok(archive) if archive.index() == "manifest.json" => "the archive's manifest.json",
            _ => "the archive's index.json",
        }
    }

    fn check(&self) -> Result<(), Failure> {
        match self.archive() {
            Ok(_) => Ok(()),
            Err(ArchiveError::Refused(why)) => Err(Failure::wrong(format!("its archive {why}"))),
            Err(_) => Err(Failure::passing("its archive cannot be read")),
        }
    }
}

fn unread(error: ArchiveError) -> Failure {
    match error {
        ArchiveError::Absent => broken("archive", ErrorKind::NotFound),
        ArchiveError::Io(kind) => broken("archive", kind),
        ArchiveError::Refused(why) => Failure::wrong(format!("the archive {why}")),
    }
}
