//! The directories and the few ways in which files move between them.

use super::key::Key;
use super::{BlobspaceError, RecordKind, io_error, lock};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Smallest unit of accounting, bytes.
const BLOCK: u64 = 4096;

/// Space that a file of `length` bytes may take: whole blocks, and for a large one 1/4096 more
/// for the blocks that list its extents.
pub(super) fn blocks(length: u64) -> u64 {
    let extents = if length >= 16 << 20 { length / 4096 } else { 0 };
    (length + extents).next_multiple_of(BLOCK)
}

/// Space that a file takes: what the file system says, and at least its length.
pub(super) fn bytes_on_disk(found: &Metadata) -> u64 {
    (found.blocks() * 512)
        .max(found.len())
        .next_multiple_of(BLOCK)
}

/// Whether a file that is being written may take more space than its bytes: XFS allocates ahead of them, up to as much again,
/// unless the space was allocated by whoever writes. What lies below an overlay is not told.
pub(super) fn allocates_ahead(file: &File) -> bool {
    const XFS: u32 = 0x5846_5342;
    const OVERLAY: u32 = 0x794c_7630;
    let found = rustix::fs::fstatfs(file);
    found.is_ok_and(|found| [XFS, OVERLAY].contains(&(found.f_type as u32)))
}

/// Gives a file the space of so many bytes; its length stays. What the file system cannot do, or not now, the writes
/// will do, or say.
pub(super) fn allocate(file: &File, bytes: u64) {
    let kept = rustix::fs::FallocateFlags::KEEP_SIZE;
    if let Err(error) = rustix::fs::fallocate(file, kept, 0, bytes) {
        tracing::debug!(%error, bytes, "the space of a temporary file is not allocated");
    }
}

/// Whether an error says that the disk, not the bound, is at its end.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// Paths of one blobspace.
pub(super) struct Disk {
    pub(super) root: PathBuf,
    pub(super) packs: PathBuf,
    pub(super) tmp: PathBuf,
    next: AtomicU64,
}

impl Disk {
    /// Makes the directories that are missing.
    pub(super) fn new(root: PathBuf) -> Result<Disk, BlobspaceError> {
        let disk = Disk {
            packs: root.join("packs"),
            tmp: root.join("tmp"),
            next: AtomicU64::new(0),
            root,
        };
        disk.make_directories()?;
        Ok(disk)
    }
    pub(super) fn records(&self, kind: RecordKind) -> PathBuf {
        self.root.join("records").join(kind.directory())
    }
    pub(super) fn pack(&self, key: &Key) -> PathBuf {
        self.packs.join(key.file_name())
    }
    /// A new file under a temporary name, 0600.
    pub(super) fn create(&self) -> io::Result<(PathBuf, File)> {
        let path = self.tmp.join(self.next.fetch_add(1, Relaxed).to_string());
        let file = self.restoring(|| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
        })?;
        Ok((path, file))
    }
    /// Gives a temporary file its final name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.restoring(|| fs::rename(from, to))
    }
    /// Runs it again if a directory was missing and could be made: somebody may empty a cache by hand
    /// while it is used. Not the root: with it the lock would be gone, and another process may have taken it.
    fn restoring<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_directories().map_err(|failed| {
                    tracing::error!(error = %failed, "the blobspace was removed while it is used: restart the service");
                    error
                })?;
                work()
            }
            done => done,
        }
    }
    /// Those that are missing.
    fn make_directories(&self) -> Result<(), BlobspaceError> {
        for path in [&self.packs, &self.tmp, &self.root.join("records")] {
            lock::make_private(path, false)?;
        }
        for kind in RecordKind::ALL {
            lock::make_private(&self.records(kind), false)?;
        }
        Ok(())
    }
    /// What a failed write is. The words about a full disk reach users, so the path goes into the log.
    pub(super) fn error(&self, what: &str, path: &Path, error: &io::Error) -> BlobspaceError {
        if is_full(error) {
            tracing::warn!(location = %self.root.display(), %error, "the disk is full before maxSizeBytes is reached");
            BlobspaceError::Full("the disk is full".into())
        } else {
            io_error(what, path, error)
        }
    }
}

/// Opens a file of ours for reading, never through a link.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Removes a file; that it is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what does not belong in our directory, whatever it is.
pub(super) fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
