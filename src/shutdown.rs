//! The life cycle: ready, draining, ended; and who may still be at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::watch;

/// Where in its life the process is. Clones share.
#[derive(Clone)]
pub struct Lifecycle(Arc<Inner>);

struct Inner {
    /// The phase's number, for those who ask with every request.
    now: AtomicU8,
    /// For those who wait. Always says the same as `now`, or is about to.
    told: watch::Sender<Phase>,
}

/// Phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// prePull runs: `/live` 200, `/ready` 503.
    Starting,
    /// Serving: `/ready` 200.
    Ready,
    /// SIGTERM came: `/ready` 503, accepting goes on for `drainDelay`; answers say `Connection: close`.
    Draining,
    /// Accepting has ended; requests in flight end within a limit.
    Stopping,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle(Arc::new(Inner {
            now: AtomicU8::new(Phase::Starting as u8),
            told: watch::Sender::new(Phase::Starting),
        }))
    }
}

impl Lifecycle {
    /// The phase now. One load: cheap enough for every request.
    pub fn phase(&self) -> Phase {
        match self.0.now.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            2 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Moves on; never back.
    pub fn enter(&self, phase: Phase) {
        self.0.now.fetch_max(phase as u8, Ordering::Relaxed);
        self.0.told.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// Waits until `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        // The sender is held by `self`, so waiting cannot fail.
        let _ = self.0.told.subscribe().wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_go_on_and_never_back_and_all_who_wait_are_told() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        let clone = lifecycle.clone();
        let waiter = tokio::spawn(async move {
            clone.reached(Phase::Draining).await;
            clone.phase()
        });
        for (enter, now) in [
            (Phase::Ready, Phase::Ready),
            (Phase::Starting, Phase::Ready),
            (Phase::Stopping, Phase::Stopping),
            (Phase::Draining, Phase::Stopping),
        ] {
            lifecycle.enter(enter);
            assert_eq!(lifecycle.phase(), now);
        }
        assert_eq!(waiter.await.unwrap(), Phase::Stopping);
        lifecycle.reached(Phase::Ready).await;
    }
}
