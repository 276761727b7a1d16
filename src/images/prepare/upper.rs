//! The upper layers of an image while lower ones still arrive: when they are worth an index of their own,
//! and that index, which nobody keeps.

use super::files::write_index;
use super::{Image, ImageError, Preparer};
use crate::blobspace::{Key, Lease};
use crate::images::ledger::{blocking, name_of};
use crate::images::policy::Policy;
use crate::images::site;
use crate::images::view::Files;
use crate::merge::{self, Tree, merge_upper};
use crate::pack::Pack;
use crate::reference::Reference;
use crate::rules::Rules;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// For so long the next layer is waited for: where all are on disk the merged index is here before.
pub(super) const SHOWN_AFTER: Duration = Duration::from_millis(20);

/// The upper layers of an image, verified, while others are not here.
pub(in crate::images) struct Upper {
    pub(in crate::images) image: Arc<Image>,
    /// Base first.
    layers: Arc<[Lease<Pack>]>,
    /// Made by who first wants it. None: it cannot be made.
    index: OnceCell<Option<Lease<Pack>>>,
}

impl Upper {
    pub(super) fn new(image: &Arc<Image>, layers: Vec<Lease<Pack>>) -> Upper {
        Upper {
            image: image.clone(),
            layers: layers.into(),
            index: OnceCell::new(),
        }
    }
}

impl Preparer {
    /// The tree of upper layers: what others can change in it says so. Made once, of whoever asks first. None: it
    /// cannot be made; what the layers are to blame for is said when all of them are merged.
    pub(in crate::images) async fn upper_files(&self, upper: &Upper) -> Option<Files> {
        let made = upper.index.get_or_init(|| async {
            let made = self.make_upper_index(&upper.layers).await;
            made.inspect_err(|error| tracing::debug!(%error, "no index of the upper layers"))
                .ok()
        });
        Tree::merged(made.await.clone()?, upper.layers.clone())
    }

    /// What the image's files say of serving it, if the upper layers decide that. Else None.
    pub(in crate::images) async fn upper_rules(
        &self,
        reference: &Reference,
        image: &Image,
        policy: &Policy,
        base: &Files,
    ) -> Option<Arc<Rules>> {
        let workdir = policy.workdir(&image.config);
        if !site::is_decided(&policy.site, &workdir, base) {
            return None;
        }
        let rules = self.sites.rules(reference, image, policy, base, None);
        rules.await.ok()
    }

    async fn make_upper_index(
        &self,
        layers: &Arc<[Lease<Pack>]>,
    ) -> Result<Lease<Pack>, ImageError> {
        let need = merge::memory(layers);
        if need > self.fetcher.pool().largest_grant() {
            return Err(ImageError::Busy("there is not enough memory".into()));
        }
        let chain = merge::chain_id(layers.iter().map(|layer| layer.origin().diff_id));
        let chain = chain.ok_or_else(|| ImageError::Internal("no layers to merge".into()))?;
        let key = Key::base(&format!("upper-{}", name_of(&chain)));
        let _memory = self.fetcher.pool().memory(need).await;
        let (blobspace, layers) = (self.blobspace.clone(), layers.clone());
        let write = blocking(move || {
            let index = write_index(&blobspace, &key, merge_upper, &layers, need);
            // It stays readable, and counts, as long as it is leased; then nothing is left of it.
            blobspace.discard(&key);
            index
        });
        let failed = || Err(ImageError::Internal("merging failed".into()));
        write.await.unwrap_or_else(failed)
    }
}

/// At that time; None: never.
pub(super) async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The layers of an image that have come, in whatever order.
pub(super) struct Arrived<T> {
    /// Base first.
    layers: Vec<Option<T>>,
    /// How many of the top ones are here, without a gap.
    run: usize,
    /// How many of them were shown.
    shown: usize,
}

impl<T: Clone> Arrived<T> {
    pub(super) fn of(count: usize) -> Arrived<T> {
        Arrived {
            layers: vec![None; count],
            run: 0,
            shown: 0,
        }
    }

    /// Layers are numbered from the base.
    pub(super) fn put(&mut self, number: usize, layer: T) {
        if let Some(place) = self.layers.get_mut(number) {
            *place = Some(layer);
        }
        let here = self.layers.iter().rev().take_while(|layer| layer.is_some());
        self.run = here.count();
    }

    /// The run has grown by a quarter since it was shown last, so that the indexes of all runs together stay
    /// linear in the layers; and it is not all of them.
    pub(super) fn is_worth_showing(&self) -> bool {
        self.run > self.shown + self.shown / 4 && self.run < self.layers.len()
    }

    /// The run, base first.
    pub(super) fn show(&mut self) -> Vec<T> {
        self.shown = self.run;
        let above = self.layers.len() - self.run;
        self.layers[above..].iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_from_the_top_is_shown_when_it_has_grown() {
        // What comes, of five layers; what is shown then, base first.
        let table: [(usize, Option<&[usize]>); 5] = [
            (3, None),
            (4, Some(&[3, 4])),
            (0, None),
            (2, Some(&[2, 3, 4])),
            // All of them: that is not early.
            (1, None),
        ];
        let mut arrived = Arrived::of(5);
        for (number, shown) in table {
            arrived.put(number, number);
            let now = arrived.is_worth_showing().then(|| arrived.show());
            assert_eq!(now.as_deref(), shown, "layer {number}");
        }
        assert_eq!(arrived.show(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn all_runs_together_are_linear_in_the_layers() {
        let (count, mut merged) = (500, 0);
        let mut arrived = Arrived::of(count);
        for number in (0..count).rev() {
            arrived.put(number, ());
            if arrived.is_worth_showing() {
                merged += arrived.show().len();
            }
        }
        assert!((count..6 * count).contains(&merged), "{merged}");
    }
}
