//! From what a manifest promises of a layer to its leased pack.

use super::{ImageError, Preparer, ROUNDS, crowded, is_own_affair};
use crate::blobspace::Lease;
use crate::digest::Digest;
use crate::images::fetch::{Failed, base_key, kept, kept_key};
use crate::images::ledger::blocking;
use crate::images::pool::Turn;
use crate::pack::Pack;
use crate::reference::{Reference, Repository};
use crate::unpack::{Expected, Form};
use std::sync::Arc;
use std::time::Instant;

impl Preparer {
    pub(super) async fn layer(
        self: &Arc<Self>,
        reference: &Reference,
        layer: &Expected,
        mut turn: Option<Turn>,
    ) -> Result<Lease<Pack>, ImageError> {
        let repository = &reference.repository;
        for _ in 0..ROUNDS {
            if let Some(pack) = self.held_layer(repository, layer).await? {
                return Ok(pack);
            }
            let fault = (repository.host().to_owned(), layer.clone());
            if let Some(error) = self.faults.get(&fault) {
                return Err(error);
            }
            let key = (repository.host().to_owned(), layer.digest);
            let (preparer, leader, wanted) = (self.clone(), repository.clone(), layer.clone());
            let (asked, turn) = (reference.clone(), turn.take());
            let fetch = || async move {
                // Another flight may have ended since we looked.
                let delivered = match preparer.held_layer(&leader, &wanted).await {
                    Ok(Some(pack)) => Ok(pack),
                    Ok(None) => preparer.fetch_layer(&asked, &wanted, turn).await,
                    Err(error) => Err(error),
                };
                Ok(((leader, wanted), delivered))
            };
            let ((leader, promise), delivered) = self.layers.join(key, fetch).await?;
            if leader == *repository && promise == *layer {
                return delivered;
            }
            if let Err(error) = delivered
                && !is_own_affair(&error)
            {
                return Err(error.retold(&leader, repository));
            }
            // Another's flight: its bytes are here now, or its failure is its own. Show that we may.
        }
        Err(crowded(repository, &layer.digest))
    }

    /// The layer's pack, if it is here, the repository may have it, and it is what was promised.
    async fn held_layer(
        &self,
        repository: &Repository,
        layer: &Expected,
    ) -> Result<Option<Lease<Pack>>, ImageError> {
        let Some(pack) = self.sealed(&base_key(&layer.identity())).await else {
            return self.held_otherwise(repository, layer).await;
        };
        let (host, digest) = (repository.host(), layer.digest);
        if !self.ledger.repository_has(repository, digest).await {
            if !self.ledger.host_delivered(host, digest).await {
                return Ok(None);
            }
            self.registries.probe_blob(repository, &digest).await?;
            self.ledger.claim(repository, digest).await;
        }
        promised(repository, layer, pack).map(Some)
    }

    /// The same tar, if it is here from another compression, and the repository may have it. It shows
    /// that it has this layer; and that this one is that tar, which its configuration alone proves to
    /// nobody: we unpacked these bytes to it before, or the repository has the other one too.
    async fn held_otherwise(
        &self,
        repository: &Repository,
        layer: &Expected,
    ) -> Result<Option<Lease<Pack>>, ImageError> {
        let Some(diff_id) = layer.diff_id else {
            return Ok(None);
        };
        let known = self.ledger.layers_of(diff_id).await;
        let mut sealed = Vec::new();
        for other in known.iter().filter(|other| **other != layer.digest) {
            let pack = self.sealed(&base_key(other)).await;
            let pack = pack.filter(|pack| pack.origin().diff_id == diff_id);
            sealed.extend(pack.map(|pack| (*other, pack)));
        }
        if sealed.is_empty() || !self.has(repository, layer.digest).await {
            return Ok(None);
        }
        let unpacked =
            known.contains(&layer.digest) && self.may_have(repository, layer.digest).await;
        for (other, pack) in sealed {
            if unpacked || self.may_have(repository, other).await {
                return Ok(Some(pack));
            }
        }
        Ok(None)
    }

    /// Whether the repository has a blob of that digest, it says itself.
    async fn has(&self, repository: &Repository, digest: Digest) -> bool {
        self.ledger.repository_has(repository, digest).await
            || self
                .registries
                .probe_blob(repository, &digest)
                .await
                .is_ok()
    }

    /// Whether the repository has shown that it has these bytes, or shows it now. A registry that does not
    /// say so is asked for the bytes then.
    async fn may_have(&self, repository: &Repository, digest: Digest) -> bool {
        if self.ledger.repository_has(repository, digest).await {
            return true;
        }
        let shown = self.ledger.host_delivered(repository.host(), digest).await
            && self
                .registries
                .probe_blob(repository, &digest)
                .await
                .is_ok();
        if shown {
            self.ledger.claim(repository, digest).await;
        }
        shown
    }

    /// The layer's compressed blob, if it is kept and the repository may have it.
    async fn kept_blob(&self, repository: &Repository, layer: &Expected) -> Option<Lease<Pack>> {
        let (blobspace, key) = (self.blobspace.clone(), kept_key(layer));
        let is_here = blocking(move || blobspace.facts(&key).is_some()).await?;
        if !is_here || !self.may_have(repository, layer.digest).await {
            return None;
        }
        let (blobspace, layer) = (self.blobspace.clone(), layer.clone());
        blocking(move || kept(&blobspace, &layer)).await.flatten()
    }

    /// One cold fetch, with its one line in the log. That names the reference which started it: the one whose
    /// credentials and promises were used. Others that waited for it fetched nothing; the access log has them.
    async fn fetch_layer(
        &self,
        reference: &Reference,
        layer: &Expected,
        turn: Option<Turn>,
    ) -> Result<Lease<Pack>, ImageError> {
        let repository = &reference.repository;
        let (started, mut was_kept) = (Instant::now(), false);
        let (outcome, lasting) = match self.sealed(&base_key(&layer.identity())).await {
            // From another host: this one has yet to deliver the same bytes.
            Some(pack) => {
                drop(turn);
                let verified = self.fetcher.verify(repository, layer).await;
                (
                    verified.and_then(|()| promised(repository, layer, pack)),
                    false,
                )
            }
            None => {
                let blob = self.kept_blob(repository, layer).await;
                match self.fetcher.fetch(repository, layer, turn, blob).await {
                    Ok(fetched) => {
                        was_kept = fetched.was_kept;
                        (promised(repository, layer, fetched.pack), false)
                    }
                    Err(Failed { error, lasting }) => (Err(error), lasting),
                }
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let (digest, bytes) = (layer.digest, layer.size);
        let label = match outcome_label(&outcome) {
            "ok" if was_kept => "kept",
            label => label,
        };
        self.metrics.cold_fetch(label, seconds);
        match &outcome {
            // No host has delivered anything, and what these bytes are was known before.
            Ok(_) if was_kept => {
                tracing::info!(%reference, %digest, bytes, seconds, outcome = "kept", "unpacked a kept blob again");
            }
            Ok(pack) => {
                self.ledger.claim_delivered(repository, layer.digest).await;
                let diff_id = pack.origin().diff_id;
                if layer.form == Form::Tar {
                    self.ledger.put_layer_of(diff_id, layer.digest).await;
                }
                tracing::info!(%reference, %digest, bytes, seconds, outcome = "ok", "fetched layer");
            }
            Err(error) => {
                tracing::warn!(%reference, %digest, bytes, seconds, outcome = %error, "layer not fetched");
                if lasting {
                    let host = repository.host().to_owned();
                    self.faults.put((host, layer.clone()), error.clone());
                }
            }
        }
        outcome
    }
}

/// The pack was verified against what another manifest promised: check this one's promises too.
fn promised(
    repository: &Repository,
    layer: &Expected,
    pack: Lease<Pack>,
) -> Result<Lease<Pack>, ImageError> {
    let origin = pack.origin();
    let wrong = |text: String| {
        Err(ImageError::Wrong(
            format!("layer {} of `{repository}`: {text}", layer.digest).into(),
        ))
    };
    if origin.size != layer.size {
        return wrong(format!(
            "is {} bytes, its manifest says {}",
            origin.size, layer.size
        ));
    }
    match layer.diff_id {
        Some(diff_id) if diff_id != origin.diff_id => wrong(format!(
            "has diff ID {}, the image's configuration says {diff_id}",
            origin.diff_id
        )),
        _ => Ok(pack),
    }
}

fn outcome_label<T>(outcome: &Result<T, ImageError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(ImageError::Forbidden(_) | ImageError::Denied(_)) => "denied",
        Err(ImageError::NotFound(_)) => "not_found",
        Err(ImageError::Wrong(_)) => "wrong",
        Err(ImageError::Failing { .. }) => "failing",
        Err(ImageError::Silent(_)) => "silent",
        Err(ImageError::Busy(_)) => "busy",
        Err(ImageError::TooLarge(_)) => "too_large",
        Err(ImageError::Internal(_)) => "internal",
    }
}
