//! Whether the layers of an image can fit at all, before anything is fetched or evicted for them.

use super::{ImageError, Preparer};
use crate::blobspace::{Key, Lease};
use crate::images::fetch::base_key;
use crate::images::ledger::blocking;
use crate::pack::Pack;
use crate::reference::Repository;
use crate::unpack::{Expected, Form};
use std::collections::BTreeMap;

/// The layers of one image, and the place that each takes.
pub(super) struct Together<'a> {
    repository: &'a Repository,
    wanted: &'a [Expected],
    places: Vec<Place>,
}

/// What a layer takes of the bound.
enum Place {
    /// What this pack takes.
    Pack(Key),
    /// As many bytes as it has compressed, since packs are not: it is not here yet.
    Bytes(u64),
    /// What came, and is held: evicted it still takes its place.
    Held(Lease<Pack>),
}

impl Preparer {
    /// All layers are used together, so that together they must fit beside what is pinned: refused before anything
    /// is fetched or evicted for them. Each is looked for once.
    pub(super) async fn check_room<'a>(
        &self,
        repository: &'a Repository,
        wanted: &'a [Expected],
    ) -> Result<Together<'a>, ImageError> {
        let mut places = Vec::with_capacity(wanted.len());
        for layer in wanted {
            places.push(match self.key_of(layer).await {
                Some(key) => Place::Pack(key),
                None => Place::Bytes(layer.size),
            });
        }
        let together = Together {
            repository,
            wanted,
            places,
        };
        self.check_together(&together).await?;
        Ok(together)
    }

    /// The same once more, when a layer came: unpacked it is larger than its manifest said.
    pub(super) async fn check_arrived(
        &self,
        together: &mut Together<'_>,
        number: usize,
        pack: Lease<Pack>,
    ) -> Result<(), ImageError> {
        together.places[number] = Place::Held(pack);
        self.check_together(together).await
    }

    async fn check_together(&self, together: &Together<'_>) -> Result<(), ImageError> {
        let Together {
            repository,
            wanted,
            places,
        } = together;
        // A layer may be in an image more than once.
        let (mut packs, mut more) = (Vec::new(), BTreeMap::new());
        for (layer, place) in wanted.iter().zip(places) {
            match place {
                Place::Pack(key) => packs.push(key.clone()),
                Place::Bytes(bytes) => drop(more.insert(layer.digest, *bytes)),
                Place::Held(pack) if pack.evicted() => {
                    more.insert(layer.digest, pack.disk_bytes());
                }
                Place::Held(pack) => packs.push(pack.base().clone()),
            }
        }
        let missing = more.len();
        let more = more
            .values()
            .fold(0, |sum: u64, size| sum.saturating_add(*size));
        let blobspace = self.blobspace.clone();
        let fits = blocking(move || blobspace.check_room(&packs, more)).await;
        let Some(Err(error)) = fits else {
            return Ok(());
        };
        let (layers, digest) = (wanted.len(), wanted[0].digest);
        tracing::warn!(%repository, layers, missing, %error, "an image does not fit");
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
