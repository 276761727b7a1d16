//! What refers to an image: asked of its registry, remembered, and on disk for when it cannot be asked.

use super::{AboutReferrer, Named, Referrers, info};
use crate::images::ledger::{Kept, Subject};
use crate::images::{Ask, ImageError, Inner, ViewInfo, unknown};
use crate::oci::Referrer;
use crate::reference::Reference;
use crate::registry::Listed;
use std::sync::Arc;
use std::time::SystemTime;

impl Inner {
    pub(super) async fn referrers(
        self: &Arc<Self>,
        reference: &Reference,
        ask: Ask,
        artifact_type: Option<String>,
    ) -> Result<(Arc<ViewInfo>, Referrers), ImageError> {
        let (policy, digest) = self.meant(reference, ask).await?;
        let key = (reference.repository.clone(), digest);
        if !self.abouts.referrers.has(&key)
            && let Some(Kept { asked, list }) = self.preparer.ledger.referrers(&key).await
        {
            // A time in the future says nothing: due.
            let age = asked.elapsed().unwrap_or(self.tag_ttl);
            self.abouts
                .referrers
                .learn(key.clone(), Arc::new(list), age);
        }
        let listed = match ask {
            Ask::ReadOnly => match self.abouts.referrers.known(&key).await {
                Some(listed) => listed?,
                None => return Err(unknown(reference)),
            },
            Ask::Normal => {
                let (inner, of) = (self.clone(), key.clone());
                let asking = || async move { inner.list(of).await };
                self.abouts.referrers.get(key, asking).await?
            }
        };
        let of_type = |one: &&Referrer| match &artifact_type {
            None => true,
            wanted => one.artifact_type == *wanted,
        };
        let referrers = listed
            .referrers
            .iter()
            .filter(of_type)
            .map(|one| AboutReferrer {
                named: Named::from(&one.descriptor),
                artifact_type: one.artifact_type.clone(),
            });
        let about = Referrers {
            reference: reference.to_string(),
            digest: digest.to_string(),
            referrers: referrers.collect(),
            truncated: listed.truncated,
            artifact_type,
        };
        Ok((info(&policy, reference, digest), about))
    }

    /// Asks the registry, and writes down what it says, or that it says so no longer.
    async fn list(&self, (repository, digest): Subject) -> Result<Arc<Listed>, ImageError> {
        let asked = SystemTime::now();
        let listed = self.registries.referrers(&repository, &digest).await;
        let ledger = &self.preparer.ledger;
        let subject = (repository, digest);
        match listed.map_err(ImageError::from) {
            Ok(list) => {
                ledger.put_referrers(&subject, asked, &list).await;
                Ok(Arc::new(list))
            }
            Err(error) => {
                if matches!(error, ImageError::NotFound(_) | ImageError::Denied(_)) {
                    ledger.remove_referrers(&subject).await;
                }
                Err(error)
            }
        }
    }
}
