//! One reactor a core for connections: a connection lives on one thread from its first byte to its
//! last, so that a warm answer wakes no other thread. What is cold is done elsewhere: flights have
//! their own runtime, blocking reads their own threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// What a reactor may hold more than the one that holds least, and still be given a connection for being near: so
/// many, and one for so many of those.
const SLACK: (usize, usize) = (1, 4);

/// The reactors, at least one. Dropping it ends them, and what still runs on them.
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

    /// A reactor for a connection whose packets arrive on the processor `cpu`, where that is known, and a place
    /// on it.
    pub(crate) fn place(&self, cpu: Option<u32>) -> (&Handle, Place) {
        let loads: Vec<usize> = self.0.iter().map(|r| r.load.load(Relaxed)).collect();
        let chosen = &self.0[choose(&loads, cpu)];
        chosen.load.fetch_add(1, Relaxed);
        (&chosen.handle, Place(chosen.load.clone()))
    }
}

/// Which of the reactors that hold so many connections each (at least one reactor) takes one more.
///
/// Connections whose packets arrive on one processor come from one peer thread or one queue of a network card. On
/// one reactor they are read in one go and wake one thread; the scheduler brings the two together. Where all come
/// in by few processors, as with a card of one queue, the reactors still fill evenly but for [`SLACK`].
fn choose(loads: &[usize], cpu: Option<u32>) -> usize {
    let least = (0..loads.len()).min_by_key(|&at| loads[at]).unwrap_or(0);
    let near = cpu.map_or(least, |cpu| cpu as usize % loads.len());
    let (more, portion) = SLACK;
    if loads[near] <= loads[least] + loads[least] / portion + more {
        near
    } else {
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_counted_and_given_back() {
        let reactors = Reactors::start(2).unwrap();
        let (first, one) = reactors.place(None);
        let (second, two) = reactors.place(None);
        assert_ne!(first.id(), second.id());
        drop(one);
        let (third, _three) = reactors.place(None);
        assert_eq!(first.id(), third.id());
        assert_eq!(third.spawn(async { 7 }).await.unwrap(), 7);
        drop(two);
    }

    #[test]
    fn near_is_chosen_while_it_holds_little_more_than_the_least() {
        for (loads, cpu, chosen) in [
            (&[7][..], None, 0),
            (&[7], Some(3), 0),
            (&[3, 2, 2], None, 1),
            (&[3, 2, 2], Some(0), 0),
            (&[3, 2, 2], Some(5), 2),
            (&[1, 0], Some(2), 0),
            (&[2, 0], Some(2), 1),
            (&[51, 40], Some(0), 0),
            (&[52, 40], Some(0), 1),
            (&[0, 9], Some(u32::MAX), 0),
        ] {
            assert_eq!(choose(loads, cpu), chosen, "{loads:?} {cpu:?}");
        }
    }

    #[test]
    fn one_queue_for_all_leaves_no_reactor_idle() {
        let mut loads = [0; 4];
        for _ in 0..1_000 {
            loads[choose(&loads, Some(2))] += 1;
        }
        let others = [loads[0], loads[1], loads[3]];
        assert_eq!(loads.iter().sum::<usize>(), 1_000);
        assert!(loads[2] > 280 && loads[2] < 300, "{loads:?}");
        assert!(others.iter().all(|&load| load > 230), "{loads:?}");
    }
}
