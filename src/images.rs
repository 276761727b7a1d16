//! The facade: from a reference to a view of its files.
//!
//! What a caller may rely on: [`Images::warm`] never waits; [`Images::get`] returns the
//! same typed result to everyone who waits for the same thing, and the work goes on when
//! they leave; one flight per (host, repository, tag or digest), one per (host, layer digest);
//! a failed flight leaves nothing behind. Knows no HTTP status.

use crate::blobspace::{Blobspace, Content, Lease};
use crate::config::{Config, InlineStatic};
use crate::digest::Digest;
use crate::metrics::Metrics;
use crate::pack::{Pack, ResolveError};
use crate::reference::{Reference, Repository};
use crate::registry::Registries;
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

impl Content for Pack {
    fn open(file: File) -> Result<Pack, String> {
        Pack::open(file).map_err(|error| error.to_string())
    }
}

/// All images. One per process; clones share.
#[derive(Clone)]
pub struct Images(Arc<()>);

/// Why there is no view. Cloneable: every waiter gets the same one. Texts are one line, safe to
/// show: no internals, no credential.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The repository is not configured, and any repository is not allowed.
    #[error("forbidden repo: {0:?}")]
    Forbidden(Repository),
    /// The registry knows no such image, or (read-only) we do not; or the image has no layers.
    #[error("{0}")]
    NotFound(Arc<str>),
    /// The registry denies access to it, or we may not contact that registry.
    #[error("{0}")]
    Denied(Arc<str>),
    /// The registry or the image is wrong.
    #[error("{0}")]
    Wrong(Arc<str>),
    /// The registry fails for now (5xx, 429 after retries).
    #[error("{message}")]
    Failing {
        /// One line.
        message: Arc<str>,
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// The registry is silent.
    #[error("{0}")]
    Silent(Arc<str>),
    /// Too many wait already, or we are shutting down.
    #[error("{0}")]
    Busy(Arc<str>),
    /// Larger than the blobspace, or the disk is full.
    #[error("{0}")]
    TooLarge(Arc<str>),
    /// A fault of this machine (disk).
    #[error("{0}")]
    Internal(Arc<str>),
}

/// How a view is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Fetch what is not here; revalidate tags.
    Normal,
    /// `X-BlobServe-ReadOnly`: only what is known, nothing revalidated.
    ReadOnly,
}

/// What decides how the files of an image are served: everything but the files.
#[derive(Debug)]
pub struct ViewInfo {
    /// As asked for.
    pub reference: Reference,
    /// Of the image's manifest.
    pub digest: Digest,
    /// Where URL paths start, cleaned (no leading or trailing slash), may be empty.
    pub workdir: Vec<u8>,
    /// Only the digest decides the bytes (no replacements...), or the tag is declared immutable:
    /// what InlineVars leaves untouched may be cached for ever.
    pub immutable: bool,
    /// The repository is configured by name.
    pub configured: bool,
    /// Directories are listed.
    pub listing: bool,
    /// Applied on request to `/` and `…/index.html`.
    pub inline_static: Vec<InlineStatic>,
}

/// The files of one image, leased: valid as long as it is held. Cheap to make and to drop.
#[derive(Clone)]
pub struct View {
    /// Shared by all views of the reference.
    pub info: Arc<ViewInfo>,
    base: Lease<Pack>,
    modified: Option<Lease<Pack>>,
}

/// What a path leads to, links followed.
pub enum Node {
    /// A regular file.
    File(FileNode),
    /// A directory.
    Directory(DirectoryNode),
}

/// A regular file of a view.
pub struct FileNode {
    pack: Lease<Pack>,
    offset: u64,
    /// Bytes of content.
    pub length: u64,
    /// XXH3-128 of the content.
    pub hash: u128,
    /// Seconds since 1970; None when the file was modified by a replacement.
    pub mtime: Option<i64>,
}

/// A directory of a view.
pub struct DirectoryNode {
    view: View,
    id: u32,
}

/// One line of a listing, links followed (what leads nowhere or is not served is left out).
pub struct Child {
    /// File name, any bytes.
    pub name: Vec<u8>,
    /// It is, or leads to, a directory.
    pub directory: bool,
    /// Bytes of content; 0 for directories.
    pub length: u64,
    /// Seconds since 1970.
    pub mtime: i64,
}

impl View {
    /// Follows `path` (bytes, cleaned, relative to the image's root, not to the workdir).
    pub fn find(&self, path: &[u8]) -> Result<Node, ResolveError> {
        let _ = (path, &self.base, &self.modified);
        todo!()
    }
}

impl FileNode {
    /// The content as shared bytes, without a copy. Panics if the range is not within `0..length`.
    pub fn bytes(&self, range: Range<u64>) -> Bytes {
        let _ = (range, self.offset);
        todo!()
    }
    /// Whether all pages of the range are in memory. See [`Pack::resident`].
    pub fn resident(&self, range: Range<u64>) -> bool {
        let _ = range;
        todo!()
    }
    /// Reads the range's pages in. Blocking. See [`Pack::populate`].
    pub fn populate(&self, range: Range<u64>) -> std::io::Result<()> {
        let _ = range;
        todo!()
    }
    /// A page could not be read: bytes read since may be zeros and must not be sent.
    pub fn poisoned(&self) -> bool {
        self.pack.poisoned()
    }
}

impl DirectoryNode {
    /// Sorted by name (bytes).
    pub fn children(&self) -> Vec<Child> {
        let _ = (&self.view, self.id);
        todo!()
    }
}

impl Images {
    /// Puts the parts together. Starts nothing.
    pub fn new(
        config: Arc<Config>,
        registries: Arc<Registries>,
        blobspace: Arc<Blobspace<Pack>>,
        metrics: Arc<Metrics>,
    ) -> Images {
        let _ = (config, registries, blobspace, metrics);
        todo!()
    }
    /// The view, if it is here and fresh. Never waits, allocates nothing: the warm path.
    pub fn warm(&self, reference: &Reference) -> Option<View> {
        let _ = reference;
        todo!()
    }
    /// The view, fetched if need be. Dropping the future does not stop the work.
    pub async fn get(&self, reference: &Reference, ask: Ask) -> Result<View, ImageError> {
        let _ = (reference, ask);
        todo!()
    }
    /// Refuses new flights and fails all waiters with [`ImageError::Busy`].
    pub fn drain(&self) {}
}
