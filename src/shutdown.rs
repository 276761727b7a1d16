//! The life cycle: ready, draining, ended; and who may still be at work.

/// Where in its life the process is. Clones share.
#[derive(Clone)]
pub struct Lifecycle(std::sync::Arc<tokio::sync::watch::Sender<Phase>>);

/// Phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
        Lifecycle(std::sync::Arc::new(tokio::sync::watch::Sender::new(
            Phase::Starting,
        )))
    }
}
impl Lifecycle {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }
    /// Moves on; never back.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
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
        let _ = self.0.subscribe().wait_for(|now| *now >= phase).await;
    }
}
