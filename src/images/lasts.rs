//! How long a view is what its reference means, and when it was last asked for. Looked at by every
//! request: two loads.

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
    /// Milliseconds since the first view of the process.
    used: AtomicU64,
}

impl Lasts {
    pub(super) fn for_ever() -> Lasts {
        Lasts {
            until: None,
            ended: AtomicBool::new(false),
            used: AtomicU64::new(milliseconds(Instant::now())),
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
        let ago = milliseconds(Instant::now()).saturating_sub(self.last_use());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = now
            .unwrap_or_default()
            .saturating_sub(Duration::from_millis(ago));
        u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
    }
}

fn milliseconds(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = at.saturating_duration_since(*START.get_or_init(Instant::now));
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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
    fn being_asked_is_a_use() {
        let lasts = Lasts::for_ever();
        let before = lasts.last_use();
        assert!(lasts.is_current(Instant::now() + Duration::from_secs(5)));
        assert!(lasts.last_use() >= before + 5_000);
    }
}
