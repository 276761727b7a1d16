//! How long a view is what its reference means, and when it was last used. Looked at by every
//! request: two loads.

use crate::reference::Reference;
use dashmap::DashMap;
use std::sync::Arc;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// See [`super::ViewInfo::is_current`].
#[derive(Debug)]
pub(crate) struct Lasts {
    /// None: for ever.
    until: Option<Instant>,
    /// Another view has taken its place, or there is none any more. Never cleared.
    ended: AtomicBool,
    /// See [`milliseconds`].
    used: AtomicU64,
    /// What all views of the image have in common. None: it is not in the catalogue.
    image: Option<Arc<ImageUse>>,
}

/// When answers with an image's files last ended: a download may outlast what its view was asked for by, since
/// a tag is revalidated, and may move.
#[derive(Debug, Default)]
pub(super) struct ImageUse {
    /// As [`Lasts::used`]; 0: none has ended.
    ended: AtomicU64,
}

/// Those of all images that somebody has a view of, by repository and the digest that the image was asked for by.
#[derive(Default)]
pub(super) struct ImageUses(DashMap<Reference, Arc<ImageUse>>);

impl ImageUses {
    /// To be shared by the image's views.
    pub(super) fn of(&self, exact: Reference) -> Arc<ImageUse> {
        self.0.entry(exact).or_default().clone()
    }

    /// Microseconds since 1970. None: no answer has ended lately.
    pub(super) fn last(&self, exact: &Reference) -> Option<u64> {
        self.0.get(exact)?.last()
    }

    /// All that ended, to be written down; forgets those of which there is no view any more.
    pub(super) fn take(&self) -> Vec<(Reference, u64)> {
        let mut uses = Vec::new();
        self.0.retain(|exact, image| {
            // Looked at first: then nobody is left who could move it.
            let is_shared = Arc::strong_count(image) > 1;
            uses.extend(image.last().map(|at| (exact.clone(), at)));
            is_shared
        });
        uses
    }
}

impl ImageUse {
    fn last(&self) -> Option<u64> {
        match self.ended.load(Relaxed) {
            0 => None,
            ended => Some(since_1970(ended)),
        }
    }
}

impl Lasts {
    pub(super) fn for_ever() -> Lasts {
        Lasts {
            until: None,
            ended: AtomicBool::new(false),
            used: AtomicU64::new(milliseconds(Instant::now())),
            image: None,
        }
    }

    pub(super) fn of(self, image: Arc<ImageUse>) -> Lasts {
        Lasts {
            image: Some(image),
            ..self
        }
    }

    /// An answer with files of the view is through.
    pub(super) fn end_use(&self) {
        let now = milliseconds(Instant::now());
        let image = self.image.as_ref().map(|image| &image.ended);
        for used in image.into_iter().chain([&self.used]) {
            if used.load(Relaxed) < now {
                used.store(now, Relaxed);
            }
        }
    }

    /// From now on.
    pub(super) fn until(fresh: Duration) -> Lasts {
        Lasts {
            // Too far for the clock: for ever.
            until: Instant::now().checked_add(fresh),
            ..Lasts::for_ever()
        }
    }

    pub(super) fn is_current(&self, now: Instant) -> bool {
        if self.ended.load(Relaxed) || self.until.is_some_and(|until| until < now) {
            return false;
        }
        let now = milliseconds(now);
        // A store to a line that other cores read costs more than a look at it.
        if self.used.load(Relaxed) < now {
            self.used.store(now, Relaxed);
        }
        true
    }

    /// Never of use again.
    pub(super) fn ended() -> Lasts {
        Lasts {
            ended: AtomicBool::new(true),
            ..Lasts::for_ever()
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// To be compared with that of other views.
    pub(super) fn last_use(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Microseconds since 1970, by the clock of now.
    pub(super) fn last_use_since_1970(&self) -> u64 {
        since_1970(self.last_use())
    }
}

fn since_1970(used: u64) -> u64 {
    let ago = milliseconds(Instant::now()).saturating_sub(used);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at = now
        .unwrap_or_default()
        .saturating_sub(Duration::from_millis(ago));
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

/// Since the first view of the process, and one: 0 is no time.
fn milliseconds(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = at.saturating_duration_since(*START.get_or_init(Instant::now));
    u64::try_from(since.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_lasts_until_its_time_or_its_end() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let lasts = Lasts::until(hour);
        assert!(lasts.is_current(now));
        assert!(!lasts.is_current(now + 2 * hour));
        assert!(Lasts::for_ever().is_current(now + 1000 * hour));
        assert!(Lasts::until(Duration::MAX).is_current(now + 1000 * hour));
        lasts.end();
        assert!(!lasts.is_current(now));
    }

    #[test]
    fn the_end_of_an_answer_is_a_use_of_its_image_whatever_its_tag_means_now() {
        let uses = ImageUses::default();
        let exact = |repository: &str| {
            let digest = crate::digest::Digest::sha256(b"");
            Reference::parse(&format!("a.b/{repository}@{digest}")).unwrap()
        };
        let (one, two) = (exact("one"), exact("two"));
        let view = Lasts::for_ever().of(uses.of(one.clone()));
        let other = Lasts::for_ever().of(uses.of(two.clone()));
        assert_eq!(uses.last(&one), None);
        view.end();
        view.end_use();
        let last = uses.last(&one).unwrap();
        assert_eq!(uses.last(&two), None, "of another image");
        drop(view);
        let taken = uses.take();
        assert!(taken.len() == 1 && taken[0].0 == one && taken[0].1.abs_diff(last) < 60_000_000);
        assert_eq!(uses.last(&one), None, "nobody has a view of it");
        other.end_use();
        assert!(uses.last(&two).is_some());
    }

    #[test]
    fn being_asked_is_a_use() {
        let lasts = Lasts::for_ever();
        let before = lasts.last_use();
        assert!(lasts.is_current(Instant::now() + Duration::from_secs(5)));
        assert!(lasts.last_use() >= before + 5_000);
    }
}
