//! Taking the directory: ours alone, private, locked against a second process.

use super::{BlobspaceError, io_error};
use rustix::fs::FlockOperation;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The one name in `location` that we own. Another layout on disk would be another name.
pub(super) const OWN: &str = "blobserve-v1";
const LOCK: &str = "lock";
/// Foreign names that the one warning about them lists.
const NAMED: usize = 5;

/// Makes `<location>/blobserve-v1` if it is missing, and takes its lock. Returns its absolute
/// path and the lock, which lasts as long as the file is open.
pub(super) fn take(location: &Path, wait: Duration) -> Result<(PathBuf, File), BlobspaceError> {
    make_private(location, true)?;
    let location = fs::canonicalize(location).map_err(|e| io_error("cannot use", location, &e))?;
    let root = location.join(OWN);
    make_private(&root, false)?;
    refuse_what_is_not_ours(&root)?;
    let lock = hold(&root.join(LOCK), wait)?;
    report_foreign(&location);
    Ok((root, lock))
}

/// Makes a directory with mode 0700, if it is missing.
pub(super) fn make_private(path: &Path, parents: bool) -> Result<(), BlobspaceError> {
    match DirBuilder::new()
        .mode(0o700)
        .recursive(parents)
        .create(path)
    {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(io_error("cannot make the directory", path, &error))
        }
        _ => Ok(()),
    }
}

/// A link could lead our deletions elsewhere; another user could change packs after they were verified.
fn refuse_what_is_not_ours(root: &Path) -> Result<(), BlobspaceError> {
    let found = fs::symlink_metadata(root).map_err(|e| io_error("cannot use", root, &e))?;
    let refuse = |why: &str| {
        let path = root.display();
        Err(BlobspaceError::Io(format!(
            "{path} {why}: remove it, or set another blobSpace.location"
        )))
    };
    if !found.is_dir() {
        return refuse("is not a directory");
    }
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return refuse(&format!(
            "belongs to user {}, not to user {us}",
            found.uid()
        ));
    }
    if found.mode() & 0o777 != 0o700 {
        fs::set_permissions(root, Permissions::from_mode(0o700))
            .map_err(|e| io_error("cannot make private", root, &e))?;
    }
    Ok(())
}

fn hold(path: &Path, wait: Duration) -> Result<File, BlobspaceError> {
    let failed = |e: &std::io::Error| io_error("cannot lock", path, e);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|e| failed(&e))?;
    let since = Instant::now();
    let mut told = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(failed(&error.into())),
        }
        if since.elapsed() >= wait {
            let mut holder = String::new();
            // Best effort: the holder's number only helps to find it.
            let _ = (&file).take(32).read_to_string(&mut holder);
            let holder = match holder.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".to_owned(),
            };
            return Err(BlobspaceError::Io(format!(
                "{} is locked by {holder} for longer than {} s: stop it, or set another blobSpace.location",
                path.display(),
                wait.as_secs()
            )));
        }
        if !told {
            told = true;
            tracing::info!(lock = %path.display(), seconds = wait.as_secs(), "locked by another process, waiting for it to end");
        }
        std::thread::sleep(Duration::from_millis(50).min(wait));
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .or_else(|error| match error.kind() {
            // The lock holds without the number in it; a full disk is dealt with by eviction.
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Ok(()),
            _ => Err(failed(&error)),
        })?;
    Ok(file)
}

/// What else lies in `location` is not ours: never touched, never counted, said once.
fn report_foreign(location: &Path) {
    let Ok(entries) = fs::read_dir(location) else {
        return;
    };
    let mut names = Vec::new();
    let mut count = 0usize;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name != OWN {
            count += 1;
            if names.len() < NAMED {
                names.push(name.to_string_lossy().into_owned());
            }
        }
    }
    if count > 0 {
        tracing::warn!(
            location = %location.display(),
            count,
            first = ?names,
            "the blobspace's location holds files of others: they are left alone and do not count in maxSizeBytes"
        );
    }
}
