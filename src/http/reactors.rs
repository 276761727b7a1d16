//! One reactor a core for connections: a connection lives on one thread from its first byte to its
//! last, so that a warm answer wakes no other thread. What is cold is done elsewhere: flights have
//! their own runtime, blocking reads their own threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The reactors. Dropping it ends them, and what still runs on them.
pub(crate) struct Reactors(Vec<Reactor>);

struct Reactor {
    handle: Handle,
    /// Connections that live there.
    load: Arc<AtomicUsize>,
    /// Dropped to end the thread.
    _running: oneshot::Sender<()>,
}

/// A place on a reactor; counts until it is dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Reactors {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor.
    pub(crate) fn start(count: usize) -> io::Result<Reactors> {
        let reactors = (0..count.max(1)).map(|number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (running, ended) = oneshot::channel::<()>();
            let thread = std::thread::Builder::new().name(format!("connections-{number}"));
            // The sender sends nothing: its drop is the word to end.
            thread.spawn(move || drop(runtime.block_on(ended)))?;
            Ok(Reactor {
                handle,
                load: Arc::default(),
                _running: running,
            })
        });
        reactors.collect::<io::Result<_>>().map(Reactors)
    }

    /// The reactor with the fewest connections, and a place on it.
    pub(crate) fn least(&self) -> Option<(&Handle, Place)> {
        let least = self
            .0
            .iter()
            .min_by_key(|reactor| reactor.load.load(Relaxed))?;
        least.load.fetch_add(1, Relaxed);
        Some((&least.handle, Place(least.load.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_spread_and_given_back() {
        let reactors = Reactors::start(2).unwrap();
        let (first, one) = reactors.least().unwrap();
        let (second, two) = reactors.least().unwrap();
        assert_ne!(first.id(), second.id());
        drop(one);
        let (third, _three) = reactors.least().unwrap();
        assert_eq!(first.id(), third.id());
        assert_eq!(third.spawn(async { 7 }).await.unwrap(), 7);
        drop(two);
    }
}
