//! What a tag means: what its registry said last, for `tagTtl`; then it is asked again, and what it meant
//! before is served while the registry fails, for `staleIfError`.
//!
//! A tag that moved to an image that cannot be had goes on meaning the older one; one that its registry says
//! is gone, or not for us, is known no longer.

use super::early;
use super::flight::Early;
use super::ledger::KnownTag;
use super::policy::Policy;
use super::prepare::Upper;
use super::{ImageError, Inner, View};
use crate::digest::Digest;
use crate::reference::{Reference, Version};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a request waits for a tag to be revalidated when an older answer may be served meanwhile.
pub(super) const REVALIDATION_WAIT: Duration = Duration::from_secs(1);
/// After a revalidation that failed or goes on: how long the older answer is served without asking again.
pub(super) const STALE_PAUSE: Duration = Duration::from_secs(5);

impl Inner {
    /// A tag: what it meant when its registry was last asked, if that is not too long ago; else ask.
    pub(super) async fn by_tag(
        self: &Arc<Self>,
        reference: &Reference,
        policy: &Arc<Policy>,
        early: &Early<Arc<Upper>>,
    ) -> Result<View, ImageError> {
        if let Some(error) = self.missing.get(reference) {
            return Err(error);
        }
        let Some(known) = self.preparer.ledger.tag(reference).await else {
            return self.revalidated(reference, policy, early).await;
        };
        // A time in the future says nothing: due, and good enough while the registry fails.
        let age = known.age().unwrap_or(self.tag_ttl);
        if age < self.tag_ttl || policy.is_fixed(&reference.version) {
            let left = self.tag_ttl.saturating_sub(age);
            return match self.known(reference, policy, &known, left, early).await {
                // Evicted here, and gone from the registry: the tag may mean another image by now.
                Err(ImageError::NotFound(_)) if !policy.is_fixed(&reference.version) => {
                    self.revalidated(reference, policy, early).await
                }
                outcome => outcome,
            };
        }
        if age > self.tag_ttl.saturating_add(self.stale_if_error) {
            return self.revalidated(reference, policy, early).await;
        }
        // Nothing is shown of an image that may not be had, while there is an older one.
        let unheard = early::unheard();
        let revalidated = self.revalidated(reference, policy, &unheard);
        match tokio::time::timeout(REVALIDATION_WAIT, revalidated).await {
            Ok(Ok(view)) => Ok(view),
            // The registry has answered that there is no such tag, or not for us.
            Ok(Err(error)) if self.preparer.ledger.tag(reference).await.is_none() => Err(error),
            // It fails, or the tag moved to an image that cannot be had.
            Ok(Err(error)) => {
                tracing::warn!(%reference, %error, "tag not revalidated, serving what it last meant");
                self.known(reference, policy, &known, STALE_PAUSE, early)
                    .await
            }
            Err(_) => {
                self.known(reference, policy, &known, STALE_PAUSE, early)
                    .await
            }
        }
    }

    /// What the tag last meant, to be used for `fresh` without asking again.
    async fn known(
        self: &Arc<Self>,
        reference: &Reference,
        policy: &Arc<Policy>,
        known: &KnownTag,
        fresh: Duration,
        early: &Early<Arc<Upper>>,
    ) -> Result<View, ImageError> {
        let prepared = self
            .prepared(reference, policy, known.digest, early)
            .await?;
        self.note(reference, policy, known.digest, &prepared.image)
            .await;
        Ok(self.remember(reference, policy, &prepared, Some((known.validated, fresh))))
    }

    /// Asks the registry what the tag means now, and prepares that. One flight per reference.
    async fn revalidated(
        self: &Arc<Self>,
        reference: &Reference,
        policy: &Arc<Policy>,
        early: &Early<Arc<Upper>>,
    ) -> Result<View, ImageError> {
        let (inner, reference_, policy) = (self.clone(), reference.clone(), policy.clone());
        self.tags
            .join_early(reference.clone(), early, |early| async move {
                inner.revalidate(&reference_, &policy, &early).await
            })
            .await
    }

    async fn revalidate(
        self: &Arc<Self>,
        reference: &Reference,
        policy: &Arc<Policy>,
        early: &Early<Arc<Upper>>,
    ) -> Result<View, ImageError> {
        if let Some(view) = self
            .views
            .get(reference)
            .filter(|view| view.info.is_current(Instant::now()))
            .and_then(|view| view.upgrade())
        {
            return Ok(view);
        }
        let asked = SystemTime::now();
        let digest = self.resolve(reference).await?;
        self.preparer.tag_means(&reference.repository, digest).await;
        let prepared = self.prepared(reference, policy, digest, early).await?;
        self.preparer
            .ledger
            .put_tag(
                reference,
                &KnownTag {
                    digest,
                    validated: asked,
                },
            )
            .await;
        self.note(reference, policy, digest, &prepared.image).await;
        Ok(self.remember(reference, policy, &prepared, Some((asked, self.tag_ttl))))
    }

    /// Asks the registry what the tag means. One that is gone, or not for us, is known no longer.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Digest, ImageError> {
        let Version::Tag(tag) = &reference.version else {
            return Err(ImageError::Internal(
                "a digest needs no revalidation".into(),
            ));
        };
        let outcome = self.registries.resolve(&reference.repository, tag).await;
        let error = match outcome.map_err(ImageError::from) {
            Ok(digest) => return Ok(digest),
            Err(error) => error,
        };
        if matches!(error, ImageError::NotFound(_)) {
            tracing::info!(%reference, %error, "tag not resolved");
        } else {
            tracing::warn!(%reference, %error, "tag not resolved");
        }
        if matches!(error, ImageError::NotFound(_) | ImageError::Denied(_)) {
            self.forget(reference).await;
        }
        if matches!(error, ImageError::NotFound(_)) {
            self.missing.put(reference.clone(), error.clone());
        }
        Err(error)
    }
}
