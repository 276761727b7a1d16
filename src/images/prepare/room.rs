//! Whether the layers of an image can fit at all, before anything is fetched or evicted for them.

use super::{ImageError, Preparer};
use crate::blobspace::{Key, Lease};
use crate::images::fetch::base_key;
use crate::images::ledger::blocking;
use crate::pack::Pack;
use crate::reference::Repository;
use crate::unpack::{Expected, Form};
use std::collections::BTreeMap;

impl Preparer {
    /// All layers are used together, so that together they must fit beside what is pinned: refused before anything
    /// is fetched or evicted for them. Those that are not here yet count as they are compressed, since packs are not;
    /// those that are `held` as they are.
    pub(super) async fn check_room(
        &self,
        repository: &Repository,
        wanted: &[Expected],
        held: &[(usize, Lease<Pack>)],
    ) -> Result<(), ImageError> {
        let (mut packs, mut more) = (Vec::new(), BTreeMap::new());
        let is_held = |number| held.iter().find(|(of, _)| *of == number);
        for (number, layer) in wanted.iter().enumerate() {
            match is_held(number) {
                // Evicted it still takes its place, as long as it is held.
                Some((_, pack)) if pack.evicted() => {
                    more.insert(layer.digest, pack.disk_bytes());
                }
                Some((_, pack)) => packs.push(pack.base().clone()),
                None => match self.key_of(layer).await {
                    Some(key) => packs.push(key),
                    None => drop(more.insert(layer.digest, layer.size)),
                },
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
