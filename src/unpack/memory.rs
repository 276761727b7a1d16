//! What one unpack may hold beside its buffers: the index, and a decoder's window.

use std::sync::atomic::{AtomicU64, Ordering};

/// A window up to this size is among the buffers that every unpack is admitted with: zstd's
/// up to level 19, and all that image builders write unless told otherwise.
const FREE_WINDOW: u64 = 8 << 20;

/// Shared by the stages, which may run on several threads.
pub(super) struct Memory {
    limit: u64,
    decoder: AtomicU64,
}

impl Memory {
    /// `limit`: bytes for index and window.
    pub(super) fn new(limit: u64) -> Memory {
        Memory {
            limit,
            decoder: AtomicU64::new(0),
        }
    }

    /// Bytes for index and window together.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The largest window that a decoder may have.
    pub(super) fn most_for_decoder(&self) -> u64 {
        self.limit.saturating_add(FREE_WINDOW)
    }

    /// A decoder's window is so large now.
    pub(super) fn decoder_holds(&self, window: u64) {
        self.decoder
            .store(window.saturating_sub(FREE_WINDOW), Ordering::Relaxed);
    }

    /// Whether an index of that size fits beside the window.
    pub(super) fn fits(&self, index_bytes: u64) -> bool {
        index_bytes.saturating_add(self.decoder.load(Ordering::Relaxed)) <= self.limit
    }
}
