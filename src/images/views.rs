//! The views that were given: what a warm request finds. They hold no lease, so that eviction goes on.

use super::lasts::{ImageUse, Lasts};
use super::policy::Policy;
use super::prepare::{Image, Prepared};
use super::view::KnownFiles;
use super::{Inner, View, ViewInfo};
use crate::blobspace::WeakLease;
use crate::pack::Pack;
use crate::reference::{Reference, Version};
use dashmap::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Views remembered; the least recently used go.
const MOST_VIEWS: usize = 10_000;

/// A view without its leases.
pub(super) struct Remembered {
    pub(super) info: Arc<ViewInfo>,
    base: KnownFiles,
    modified: Option<WeakLease<Pack>>,
    /// When the registry said so; 1970 where it is not asked.
    validated: SystemTime,
}

impl Remembered {
    pub(super) fn upgrade(&self) -> Option<View> {
        let base = self.base.upgrade()?;
        let modified = match &self.modified {
            Some(modified) => Some(modified.upgrade()?),
            None => None,
        };
        let view = View {
            info: self.info.clone(),
            base,
            modified,
        };
        (!view.poisoned()).then_some(view)
    }
}

impl Inner {
    /// Makes the view, and remembers it (None: for ever; else what the tag meant when its registry was
    /// asked, and for how long that is good), unless a later answer of the registry is remembered.
    pub(super) fn remember(
        &self,
        reference: &Reference,
        policy: &Policy,
        prepared: &Prepared,
        fresh: Option<(SystemTime, Duration)>,
    ) -> View {
        let lasts = match fresh {
            Some((_, fresh)) if !policy.is_fixed(&reference.version) => Lasts::until(fresh),
            _ => Lasts::for_ever(),
        };
        let image = &prepared.image;
        let lasts = lasts.of(self.image_use(reference, image));
        let rules = prepared.rules.clone();
        let info = policy.info(reference, image.digest, &image.config, rules, lasts);
        let info = Arc::new(info);
        let remembered = Remembered {
            info: info.clone(),
            base: KnownFiles::of(&prepared.base),
            modified: prepared.modified.as_ref().map(|pack| pack.downgrade()),
            validated: fresh.map_or(SystemTime::UNIX_EPOCH, |(validated, _)| validated),
        };
        self.make_room();
        let is_later = |there: &Remembered| {
            there.validated > remembered.validated
                && there.info.is_current(Instant::now())
                && there.upgrade().is_some()
        };
        match self.views.entry(reference.clone()) {
            Entry::Occupied(there) if is_later(there.get()) => {}
            Entry::Occupied(mut there) => there.insert(remembered).info.lasts.end(),
            Entry::Vacant(there) => drop(there.insert(remembered)),
        }
        View {
            info,
            base: prepared.base.clone(),
            modified: prepared.modified.clone(),
        }
    }

    /// Of all views of the image.
    pub(super) fn image_use(&self, reference: &Reference, image: &Image) -> Arc<ImageUse> {
        self.uses.of(Reference {
            repository: reference.repository.clone(),
            version: Version::Digest(image.named),
        })
    }

    /// Keeps `views` bounded: drops the least recently used tenth.
    fn make_room(&self) {
        if self.views.len() < MOST_VIEWS {
            return;
        }
        let mut uses: Vec<u64> = self
            .views
            .iter()
            .map(|view| view.info.lasts.last_use())
            .collect();
        let tenth = uses.len() / 10;
        let (_, oldest, _) = uses.select_nth_unstable(tenth);
        let oldest = *oldest;
        let mut surplus = tenth + 1;
        self.views.retain(|_, view| {
            let drop = surplus > 0 && view.info.lasts.last_use() <= oldest;
            surplus -= usize::from(drop);
            !drop
        });
    }
}
