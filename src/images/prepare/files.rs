//! From an image to the tree of its files: the layers that are wanted, fetched side by side, and their
//! merged index where there are several.

use super::upper::{Arrived, SHOWN_AFTER, reached};
use super::{Image, ImageError, Preparer, SIDE_PACK_ATTEMPTS, unwritten};
use crate::blobspace::{Blobspace, BlobspaceError, Key, Lease, Reservation};
use crate::config::LayerSelection;
use crate::digest::Digest;
use crate::images::fetch::base_key;
use crate::images::ledger::{blocking, name_of};
use crate::images::select::select;
use crate::images::view::Files;
use crate::merge::{self, Tree, merge};
use crate::oci::{self, Content, Descriptor};
use crate::pack::{FORMAT_VERSION, Pack, PackError, Summary};
use crate::reference::{Reference, Repository};
use crate::unpack::{Expected, Form};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Layers of one image that are asked for at once. How many of them are downloaded is for the pool to
/// say.
const AT_ONCE: usize = 8;

/// The key of the merged index of a chain.
pub(in crate::images) fn chain_key(chain: &Digest) -> Key {
    Key::base(&format!("chain-{}-v{FORMAT_VERSION}", name_of(chain)))
}

/// The key of a tree's pack: the layer's, or the merged index's.
pub(super) fn tree_key(files: &Files) -> Key {
    let origin = files.origin();
    match files.layers() {
        None => base_key(&origin.digest),
        Some(_) => chain_key(&origin.digest),
    }
}

/// What a manifest promises of a layer: of an image, or of an artifact. None: it holds no files.
///
/// # Errors
/// Why it cannot be served.
pub(in crate::images) fn expected(
    is_image: bool,
    layer: &Descriptor,
    diff_id: Option<Digest>,
) -> Result<Option<Expected>, String> {
    let form = match is_image {
        true => oci::check_layer(layer).map(|()| Some(Form::Tar)),
        false => oci::artifact_content(layer).map(form),
    };
    Ok(form?.map(|form| Expected {
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type.clone(),
        diff_id,
        form,
    }))
}

/// The chain of layers before any of them is unpacked. None: without a configuration only that tells.
pub(in crate::images) fn chain_of(layers: &[Expected]) -> Option<Digest> {
    let diff_ids = layers.iter().map(|layer| match layer.form {
        Form::Tar => layer.diff_id,
        Form::TarBelow(_) | Form::File(_) => Some(layer.identity()),
    });
    merge::chain_id(diff_ids.collect::<Option<Vec<_>>>()?)
}

impl Image {
    /// Numbers of the layers that are selected, ascending.
    pub(in crate::images) fn selected(&self, selection: &LayerSelection) -> Vec<usize> {
        let selection = match selection {
            // The files of an artifact have a layer each.
            LayerSelection::First if !self.has_config => &LayerSelection::All,
            selection => selection,
        };
        select(selection, &self.layers)
    }

    /// What the manifest promises of the layers that are selected, base first.
    pub(super) fn wanted(
        &self,
        repository: &Repository,
        selection: &LayerSelection,
    ) -> Result<Vec<Expected>, ImageError> {
        let image = format!("image {} of `{repository}`", self.digest);
        let mut wanted = Vec::new();
        for number in self.selected(selection) {
            let layer = &self.layers[number];
            let diff_id = match self.has_config {
                true => self.config.diff_ids.get(number).copied(),
                false => None,
            };
            let layer = expected(self.has_config, layer, diff_id).map_err(|why| {
                let Descriptor {
                    digest, media_type, ..
                } = layer;
                let text = format!("{image}: layer {digest} is refused ({media_type}): {why}");
                ImageError::Wrong(text.into())
            })?;
            wanted.extend(layer);
        }
        if wanted.is_empty() {
            let count = self.layers.len();
            let text = format!("{image}: `layers: {selection}` selects none of its {count} layers");
            return Err(ImageError::NotFound(text.into()));
        }
        Ok(wanted)
    }
}

/// What a layer of an artifact becomes; None: nothing.
fn form(content: Content) -> Option<Form> {
    match content {
        Content::Tar => Some(Form::Tar),
        Content::TarBelow(directory) => Some(Form::TarBelow(directory.into())),
        Content::File(path) => Some(Form::File(path.into())),
        Content::Nothing => None,
    }
}

impl Preparer {
    /// The tree of the layers. The first failure of a layer ends the fetching of the others,
    /// unless other images wait for them. `show` gets the upper layers, base first, while lower ones
    /// arrive.
    pub(super) async fn files(
        self: &Arc<Self>,
        reference: &Reference,
        wanted: &[Expected],
        show: &(dyn Fn(Vec<Lease<Pack>>) + Send + Sync),
    ) -> Result<Files, ImageError> {
        let mut together = self.check_room(&reference.repository, wanted).await?;
        if let [layer] = wanted {
            let pack = self.layer(reference, layer, None).await?;
            if let Some(why) = pack.incomplete() {
                let (repository, digest) = (&reference.repository, layer.digest);
                let text = format!("layer {digest} of `{repository}` is not served alone: {why}");
                return Err(ImageError::Wrong(text.into()));
            }
            return Ok(Tree::of_layer(pack));
        }
        // Top first: those hide what is below them, and have what was made last.
        let fetches = stream::iter(wanted.iter().cloned().enumerate().rev());
        let mut before = None;
        let fetches = fetches.map(|(number, layer)| {
            let (preparer, reference) = (self.clone(), reference.clone());
            let (turn, passed) = oneshot::channel();
            let before = before.replace(passed);
            async move {
                if let Some(before) = before {
                    // Nothing is ever sent: this ends when it is passed.
                    let _ = before.await;
                }
                let pack = preparer.layer(&reference, &layer, Some(turn)).await?;
                Ok::<_, ImageError>((number, pack))
            }
        });
        let mut fetched = fetches.buffer_unordered(AT_ONCE);
        let mut arrived = Arrived::of(wanted.len());
        let mut came = 0;
        let mut due: Option<Instant> = None;
        let mut pressure = self.blobspace.pressure();
        loop {
            tokio::select! {
                biased;
                next = fetched.try_next() => match next? {
                    Some((number, pack)) => {
                        came += 1;
                        if came < wanted.len() {
                            self.check_arrived(&mut together, number, &pack).await?;
                        }
                        arrived.put(number, pack);
                    }
                    None => break,
                },
                () = reached(due) => {
                    due = None;
                    show(arrived.show());
                }
                Ok(()) = pressure.changed() => self.check_together(&mut together).await?,
            }
            if due.is_none() && arrived.is_worth_showing() {
                due = Some(Instant::now() + SHOWN_AFTER);
            }
        }
        drop(together);
        let layers: Arc<[Lease<Pack>]> = arrived.show().into();
        let index = self.merged(&reference.repository, &layers).await?;
        Tree::merged(index, layers)
            .ok_or_else(|| ImageError::Internal("a merged index is of other layers".into()))
    }

    /// The merged index of all layers, from disk or made.
    async fn merged(
        self: &Arc<Self>,
        repository: &Repository,
        layers: &Arc<[Lease<Pack>]>,
    ) -> Result<Lease<Pack>, ImageError> {
        let chain = merge::chain_id(layers.iter().map(|layer| layer.origin().diff_id));
        let chain = chain.ok_or_else(|| ImageError::Internal("no layers to merge".into()))?;
        let key = chain_key(&chain);
        if let Some(index) = self.sealed(&key).await {
            return Ok(index);
        }
        let outcome = match self.unmergeable.get(&key) {
            Some(error) => Err(error),
            None => {
                let (preparer, layers, made) = (self.clone(), layers.clone(), key.clone());
                let make = || async move { preparer.make_index(&made, &layers).await };
                self.side_packs.join(key.clone(), make).await
            }
        };
        outcome.map_err(|error| match error {
            ImageError::Wrong(why) => {
                // What the layers decide, whoever has them.
                self.unmergeable.put(key, ImageError::Wrong(why.clone()));
                let text = format!("layers of `{repository}` cannot be merged: {why}");
                ImageError::Wrong(text.into())
            }
            other => other,
        })
    }

    async fn make_index(
        &self,
        key: &Key,
        layers: &Arc<[Lease<Pack>]>,
    ) -> Result<Lease<Pack>, ImageError> {
        let (need, most) = (merge::memory(layers), self.fetcher.pool().largest_grant());
        if need > most {
            let text = format!(
                "merging needs {need} bytes of memory, more than {most}: raise `memoryLimit`"
            );
            return Err(ImageError::Wrong(text.into()));
        }
        let _memory = self.fetcher.pool().memory(need).await;
        let mut made = Err(ImageError::Internal("merging failed".into()));
        for attempt in 0..SIDE_PACK_ATTEMPTS {
            if let Some(index) = self.sealed(key).await {
                return Ok(index);
            }
            let (blobspace, key, layers) = (self.blobspace.clone(), key.clone(), layers.clone());
            let write = blocking(move || write_index(&blobspace, &key, merge, &layers, need));
            made = write.await.unwrap_or(made);
            if !matches!(made, Err(ImageError::Busy(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
        made
    }
}

/// [`merge()`], or [`merge::merge_upper`].
pub(super) type Merge =
    fn(&[Lease<Pack>], u64, Reservation<Pack>) -> Result<(Reservation<Pack>, Summary), PackError>;

/// Blocking.
pub(super) fn write_index(
    blobspace: &Arc<Blobspace<Pack>>,
    key: &Key,
    merge: Merge,
    layers: &[Lease<Pack>],
    most_bytes: u64,
) -> Result<Lease<Pack>, ImageError> {
    let reservation = blobspace.reserve(key).map_err(|error| unwritten(&error))?;
    let (reservation, _) = merge(layers, most_bytes, reservation).map_err(|error| match error {
        PackError::Layer(why) | PackError::TooLarge(why) => ImageError::Wrong(why.into()),
        PackError::Io(ref inner) => match BlobspaceError::of(inner) {
            Some(inner) => unwritten(inner),
            None => unmerged(&error),
        },
        PackError::Corrupt(_) => unmerged(&error),
    })?;
    reservation.commit().map_err(|error| unwritten(&error))
}

fn unmerged(error: &PackError) -> ImageError {
    tracing::error!(%error, "merging layers failed");
    ImageError::Internal("layers could not be merged".into())
}
