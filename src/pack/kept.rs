//! Files of packs that stay open beside their mapping, so that the system can send from them
//! (`sendfile`): worth a descriptor for packs that may hold large files, and descriptors are few.

use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A smaller pack holds no file that is worth it.
const WORTH: u64 = 1 << 20;
/// Of the descriptors that the process may have, one in so many.
const SHARE: u64 = 8;

/// Those that are open.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// An open file that counts.
pub(super) struct KeptFile(File);

impl KeptFile {
    /// None: too small, or too many are open.
    pub(super) fn keep(file: File, bytes: u64) -> Option<KeptFile> {
        static MOST: OnceLock<u64> = OnceLock::new();
        let most = *MOST.get_or_init(|| {
            let limit = getrlimit(Resource::Nofile).current;
            limit.unwrap_or(u64::MAX) / SHARE
        });
        if bytes < WORTH {
            return None;
        }
        // From here on dropping it takes the count back.
        let kept = KeptFile(file);
        (KEPT.fetch_add(1, Relaxed) < most).then_some(kept)
    }

    pub(super) fn send(&self, to: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        let mut offset = offset;
        Ok(rustix::fs::sendfile(to, &self.0, Some(&mut offset), count)?)
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Relaxed);
    }
}
