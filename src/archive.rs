//! Image archives: a tar of an OCI image layout (`oci-archive`), or what `docker save` writes
//! (`docker-archive`, old and new). From the outside both are the files of an OCI layout: names
//! under `blobs/`, and `index.json`. What docker's form lacks of one is made in memory.
//!
//! What a caller may rely on: nothing is unpacked to disk; contents are ranges of the archive,
//! read when they are asked for; an archive that is truncated, holds a name twice, or a name that
//! leads out, is refused as a whole; memory is bounded by [`MOST_MEMBERS`], [`MOST_NAME_BYTES`]
//! and [`MOST_MADE_BYTES`], whatever the archive is. Contents are *not* verified against their
//! digests here, as those of a registry are not: who reads them does that. Blocking.

mod docker;
mod members;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use members::Members;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Members of one archive.
pub const MOST_MEMBERS: usize = 200_000;
/// Bytes of all names in one archive.
pub const MOST_NAME_BYTES: usize = 32 << 20;
/// Bytes of the documents that are made for one docker-archive.
pub const MOST_MADE_BYTES: usize = 16 << 20;

/// Why an archive cannot be read. One line, without the archive's path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// There is no such file.
    #[error("there is no such file")]
    Absent,
    /// Reading it failed.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// It is no archive of images, or a hostile one.
    #[error("{0}")]
    Refused(String),
}

/// What identifies the bytes of a file without reading them: device, inode, size, modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64, u64, u64, i64, i64);

/// Bytes of a file, or made ones.
#[derive(Clone, Debug)]
pub enum Section {
    /// From `at` on, up to `end` or the file's end, whichever comes first.
    File {
        /// The file.
        file: Arc<File>,
        /// The first byte.
        at: u64,
        /// Behind the last byte.
        end: u64,
    },
    /// In memory.
    Made(Bytes),
}

/// An archive as an OCI layout. Its file stays open.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    members: Members,
    /// What docker's form has no file for, or has under another name.
    made: HashMap<String, Section>,
}

/// What the file at `path` is now.
pub fn stamp(path: &Path) -> Result<Stamp, ArchiveError> {
    Ok(stamp_of(&std::fs::metadata(path)?))
}

fn stamp_of(meta: &std::fs::Metadata) -> Stamp {
    let (device, inode, size) = (meta.dev(), meta.ino(), meta.size());
    Stamp(device, inode, size, meta.mtime(), meta.mtime_nsec())
}

impl Archive {
    /// Reads the headers of the archive at `path`, and of a docker-archive the configurations too, of at
    /// most `most_document` bytes each. Reads no layer, except that a compressed one of a
    /// docker-archive is hashed: nothing in there says its digest.
    pub fn open(path: &Path, most_document: u64) -> Result<(Archive, Stamp), ArchiveError> {
        // NONBLOCK: a fifo would hold the thread for ever.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(ArchiveError::Refused("is not a regular file".into()));
        }
        let members = Members::read(&file, meta.size())?;
        let mut archive = Archive {
            file: Arc::new(file),
            members,
            made: HashMap::new(),
        };
        if archive.find("index.json")?.is_none() {
            archive.made = docker::made(&archive, most_document)?;
        }
        Ok((archive, stamp_of(&meta)))
    }

    /// The file in it that says which tags there are.
    pub fn index(&self) -> &'static str {
        match self.made.contains_key("index.json") {
            true => "manifest.json",
            false => "index.json",
        }
    }

    /// The file of that name in the layout, links in the archive followed.
    pub fn find(&self, name: &str) -> Result<Option<Section>, ArchiveError> {
        if let Some(made) = self.made.get(name) {
            return Ok(Some(made.clone()));
        }
        let range = self.members.find(name)?;
        Ok(range.map(|(at, end)| Section::File {
            file: self.file.clone(),
            at,
            end,
        }))
    }

    /// Reads a small file whole.
    fn small(&self, name: &str, most: u64) -> Result<Option<Bytes>, ArchiveError> {
        let Some(section) = self.find(name)? else {
            return Ok(None);
        };
        match section.read(most)? {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(ArchiveError::Refused(format!(
                "{name:?} in it is larger than {most} bytes (limits.manifestBytes)"
            ))),
        }
    }
}

impl Section {
    /// Takes up to `most` bytes off the front; none at the end.
    pub fn take(&mut self, most: usize) -> io::Result<Bytes> {
        match self {
            Section::Made(bytes) => Ok(bytes.split_to(most.min(bytes.len()))),
            Section::File { file, at, end } => {
                let left = usize::try_from(end.saturating_sub(*at)).unwrap_or(usize::MAX);
                let mut buffer = vec![0; most.min(left)];
                let mut filled = 0;
                while filled < buffer.len() {
                    match file.read_at(&mut buffer[filled..], *at) {
                        Ok(0) => break,
                        Ok(read) => {
                            filled += read;
                            *at += read as u64;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                buffer.truncate(filled);
                Ok(buffer.into())
            }
        }
    }

    /// All of it; None if that is more than `most` bytes.
    pub fn read(mut self, most: u64) -> io::Result<Option<Bytes>> {
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        let mut all = Vec::new();
        loop {
            // In pieces: a file may say that it is larger than it is.
            let piece = self.take(limit.saturating_add(1).min(1 << 20))?;
            if piece.is_empty() {
                return Ok(Some(all.into()));
            }
            all.extend_from_slice(&piece);
            if all.len() > limit {
                return Ok(None);
            }
        }
    }
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ArchiveError::Absent,
            kind => ArchiveError::Io(kind),
        }
    }
}
