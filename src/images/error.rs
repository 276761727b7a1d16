//! Why there is no view of an image.

use crate::reference::Repository;
use crate::registry::{RegistryError, RegistryErrorKind};
use std::sync::Arc;

/// Why there is no view. Cloneable: every waiter gets the same one. Texts are one line, safe to
/// show: no internals, no credential.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The repository is not configured, and any repository is not allowed.
    #[error("forbidden repo: {:?}", .0.as_str())]
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

impl ImageError {
    /// The same error told to another repository that waited for the same bytes: it learns nothing of
    /// the one that fetched them.
    pub(super) fn retold(self, from: &Repository, to: &Repository) -> ImageError {
        let (from, to) = (format!("`{from}`"), format!("`{to}`"));
        let retell = |text: Arc<str>| Arc::from(text.replace(&from, &to));
        match self {
            ImageError::Forbidden(repository) => ImageError::Forbidden(repository),
            ImageError::NotFound(text) => ImageError::NotFound(retell(text)),
            ImageError::Denied(text) => ImageError::Denied(retell(text)),
            ImageError::Wrong(text) => ImageError::Wrong(retell(text)),
            ImageError::Failing {
                message,
                retry_after,
            } => ImageError::Failing {
                message: retell(message),
                retry_after,
            },
            ImageError::Silent(text) => ImageError::Silent(retell(text)),
            ImageError::Busy(text) => ImageError::Busy(retell(text)),
            ImageError::TooLarge(text) => ImageError::TooLarge(retell(text)),
            ImageError::Internal(text) => ImageError::Internal(retell(text)),
        }
    }
}

impl From<RegistryError> for ImageError {
    fn from(error: RegistryError) -> ImageError {
        let message = error.message;
        match error.kind {
            RegistryErrorKind::NotFound => ImageError::NotFound(message),
            RegistryErrorKind::Denied => ImageError::Denied(message),
            RegistryErrorKind::Silent => ImageError::Silent(message),
            RegistryErrorKind::Wrong => ImageError::Wrong(message),
            RegistryErrorKind::Failing { retry_after } => ImageError::Failing {
                message,
                retry_after,
            },
        }
    }
}
