//! Whether the layers of an image can fit at all, before anything is fetched or evicted for them.

use super::{ImageError, Preparer};
use crate::blobspace::{Key, Lease};
use crate::images::fetch::base_key;
use crate::images::ledger::blocking;
use crate::pack::Pack;
use crate::reference::Repository;
use crate::unpack::{Expected, Form};
use std::collections::BTreeMap;

/// The layers of one image, and the place that each takes: its pack's key, and how many bytes it is at least. A
/// layer may be in an image more than once.
pub(super) struct Together<'a> {
    repository: &'a Repository,
    wanted: &'a [Expected],
    places: BTreeMap<Key, u64>,
}

impl Preparer {
    /// All layers are used together, so that together they must fit beside what is pinned: refused before anything
    /// is fetched or evicted for them. Each is looked for once.
    pub(super) async fn check_room<'a>(
        &self,
        repository: &'a Repository,
        wanted: &'a [Expected],
    ) -> Result<Together<'a>, ImageError> {
        let mut places = BTreeMap::new();
        for layer in wanted {
            let key = self.key_of(layer).await;
            let key = key.unwrap_or_else(|| base_key(&layer.identity()));
            // Packs are not compressed: one will be no smaller than its layer is now.
            places.insert(key, layer.size);
        }
        let mut together = Together {
            repository,
            wanted,
            places,
        };
        self.check_together(&mut together).await?;
        Ok(together)
    }

    /// A layer came, and is held: evicted it still takes its place, which is larger than its manifest said.
    pub(super) async fn check_arrived(
        &self,
        together: &mut Together<'_>,
        number: usize,
        pack: &Lease<Pack>,
    ) -> Result<(), ImageError> {
        // It may be here as another compression, sealed meanwhile.
        let promised = base_key(&together.wanted[number].identity());
        together.places.remove(&promised);
        let place = (pack.base().clone(), pack.disk_bytes());
        together.places.extend([place]);
        self.check_together(together).await
    }

    /// The same, by what the layers that are being unpacked have turned out to need so far: none of them comes to
    /// its end while they wait for each other's space.
    pub(super) async fn check_together(
        &self,
        together: &mut Together<'_>,
    ) -> Result<(), ImageError> {
        let mut places = std::mem::take(&mut together.places);
        let blobspace = self.blobspace.clone();
        let check = move || {
            let fits = blobspace.check_room(&mut places);
            (places, fits)
        };
        let Some((places, fits)) = blocking(check).await else {
            return Ok(());
        };
        together.places = places;
        let Err(error) = fits else {
            return Ok(());
        };
        let Together {
            repository, wanted, ..
        } = together;
        let (layers, digest) = (wanted.len(), wanted[0].digest);
        tracing::warn!(%repository, layers, %error, "an image does not fit");
        let what = match wanted {
            [_] => format!("layer {digest} of `{repository}`"),
            _ => format!("{layers} layers of `{repository}` together"),
        };
        Err(ImageError::TooLarge(format!("{what}: {error}").into()))
    }

    /// The pack that has the layer, if one does. No use of it.
    async fn key_of(&self, layer: &Expected) -> Option<Key> {
        let mut keys = vec![base_key(&layer.identity())];
        if layer.form == Form::Tar
            && let Some(diff_id) = layer.diff_id
        {
            keys.extend(self.ledger.layers_of(diff_id).await.iter().map(base_key));
        }
        let blobspace = self.blobspace.clone();
        let found = move || keys.into_iter().find(|key| blobspace.facts(key).is_some());
        blocking(found).await.flatten()
    }
}
