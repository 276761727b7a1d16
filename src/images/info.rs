//! What decides how answers about an image are sent.

use super::lasts::Lasts;
use super::policy::Policy;
use crate::config::{CacheConfig, Encodings, InlineStatic, SiteConfig};
use crate::digest::Digest;
use crate::oci::ImageConfig;
use crate::reference::Reference;
use crate::rules::Rules;
use std::sync::Arc;
use std::time::Instant;

/// What decides how the files of an image are served: everything but the files.
#[derive(Clone, Debug)]
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
    /// `replacements` of the configuration have a part in its files.
    pub modified: bool,
    /// The repository is configured by name.
    pub configured: bool,
    /// Directories are listed.
    pub listing: bool,
    /// Which encoded forms of its files are sent.
    pub encodings: Encodings,
    /// Applied on request to `/` and `…/index.html`.
    pub inline_static: Vec<InlineStatic>,
    /// How long what is not immutable may be reused.
    pub cache: CacheConfig,
    /// What the repository's configuration says of its site.
    pub site: Arc<SiteConfig>,
    /// What the image says itself, where the configuration lets it.
    pub rules: Arc<Rules>,
    /// The reference has an origin of its own.
    pub origin: bool,
    /// Documents redirect from the tag to the digest that it means.
    pub redirect_to_digest: bool,
    /// Answers have a `Repr-Digest`.
    pub repr_digest: bool,
    /// How long this is what the reference means.
    pub(crate) lasts: Arc<Lasts>,
}

impl ViewInfo {
    /// Whether a view that was had before may still be served for its reference without asking anyone:
    /// what [`super::Images::warm`] would give again. `now` is a time of this request. Counts as a use.
    pub fn is_current(&self, now: Instant) -> bool {
        self.lasts.is_current(now)
    }

    /// An answer with the image's files is through: its image is used until now, whatever the reference means.
    pub fn end_use(&self) {
        self.lasts.end_use();
    }

    /// Whether it was given for its request alone: what is answered with it is not to be remembered.
    pub fn is_passing(&self) -> bool {
        self.lasts.has_ended()
    }
}

impl Policy {
    /// What decides how an image's files, and what is said about it, are served.
    pub(super) fn info(
        &self,
        reference: &Reference,
        digest: Digest,
        image: &ImageConfig,
        rules: Arc<Rules>,
        lasts: Lasts,
    ) -> ViewInfo {
        ViewInfo {
            reference: reference.clone(),
            digest,
            workdir: self.workdir(image),
            immutable: self.is_immutable(reference),
            modified: self.rules.is_some(),
            configured: self.configured,
            listing: self.listing,
            encodings: self.encodings,
            inline_static: self.repo.inline_static.clone(),
            cache: self.cache,
            site: self.site.clone(),
            rules,
            origin: self.origin,
            redirect_to_digest: self.repo.redirect_to_digest && !self.is_fixed(&reference.version),
            repr_digest: self.repr_digest,
            lasts: Arc::new(lasts),
        }
    }
}
