//! Who may download now: workers in all and per registry, memory for unpacking, and how
//! downloads that are silent get out of the others' way.
//!
//! Permits are always taken in one order (registry, worker, memory), so that no two
//! downloads can wait for each other. A download that gets no byte gives all of them
//! back, except a residue of memory for what it has already read, and queues again when bytes
//! come. Silent downloads are bounded apart, and their residues never hold more than half of
//! the memory; the largest grant is the other half. So silence cannot stop the rest.

use super::ImageError;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Unit of the memory budget in bytes.
const MIB: u64 = 1 << 20;
/// Silent downloads at most.
const MOST_STALLED: u64 = 64;
/// Registries in the table before those without a download are looked for.
const MOST_IDLE_REGISTRIES: usize = 64;
/// Memory that a silent download keeps, in MiB: part-filled buffers and its index so far.
const RESIDUE: u32 = 4;

/// Whose it is to queue next, where some downloads are to be served in an order: dropped as soon as its holder
/// stands in the queue or needs none, and the other half hears of it.
pub(super) type Turn = oneshot::Sender<Infallible>;

/// All permits. Clones share.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    workers: Arc<Semaphore>,
    per_registry: usize,
    /// A semaphore per registry that has a download now. Held for one look-up.
    registries: Mutex<HashMap<String, Arc<Semaphore>>>,
    memory: Arc<Semaphore>,
    memory_mib: u32,
    stalled: Arc<Semaphore>,
    /// Downloads that wait for a permit.
    queued: AtomicUsize,
}

/// One download's permits.
pub(super) struct Slot {
    pool: Pool,
    host: String,
    registry: Arc<Semaphore>,
    /// Memory asked for, in MiB.
    grant: u32,
    at_registry: Option<OwnedSemaphorePermit>,
    worker: Option<OwnedSemaphorePermit>,
    memory: Option<OwnedSemaphorePermit>,
    stalled: Option<OwnedSemaphorePermit>,
}

impl Pool {
    pub(super) fn new(workers: usize, per_registry: usize, memory_bytes: u64) -> Pool {
        let memory_mib = u32::try_from(memory_bytes / MIB)
            .unwrap_or(u32::MAX)
            .clamp(2 * RESIDUE, 1 << 24);
        let stalled = MOST_STALLED.min(u64::from(memory_mib / 2 / RESIDUE));
        Pool(Arc::new(Inner {
            workers: Arc::new(Semaphore::new(workers)),
            per_registry,
            registries: Mutex::default(),
            memory: Arc::new(Semaphore::new(memory_mib as usize)),
            memory_mib,
            stalled: Arc::new(Semaphore::new(stalled as usize)),
            queued: AtomicUsize::new(0),
        }))
    }

    /// The largest memory grant, in bytes.
    pub(super) fn largest_grant(&self) -> u64 {
        u64::from(self.0.memory_mib / 2) * MIB
    }

    /// Waits for memory alone: for work that needs no registry and no worker. At most
    /// [`Pool::largest_grant`].
    pub(super) async fn memory(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let _queued = Queued::new(&self.0.queued);
        let grant = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX);
        let grant = grant.clamp(1, self.0.memory_mib / 2);
        // It is never closed, so this cannot fail.
        self.0.memory.clone().acquire_many_owned(grant).await.ok()
    }

    /// Whether someone waits for a permit, so that a silent download should make way early.
    pub(super) fn wanted(&self) -> bool {
        self.0.queued.load(Ordering::Relaxed) > 0
    }

    /// Downloads that wait.
    pub(super) fn queued(&self) -> usize {
        self.0.queued.load(Ordering::Relaxed)
    }

    /// Waits for a place at the registry: at most `per_registry` requests for layers are open there, in the
    /// order in which they queue.
    pub(super) async fn enter(&self, host: &str, memory_bytes: u64, turn: Option<Turn>) -> Slot {
        let registry = {
            let mut registries = self.registries();
            if registries.len() >= MOST_IDLE_REGISTRIES {
                // Two that end at once each leave it to the other.
                registries.retain(|_, registry| Arc::strong_count(registry) > 1);
            }
            registries
                .entry(host.to_owned())
                .or_insert_with(|| Arc::new(Semaphore::new(self.0.per_registry)))
                .clone()
        };
        let grant = u32::try_from(memory_bytes.div_ceil(MIB))
            .unwrap_or(u32::MAX)
            .clamp(RESIDUE, self.0.memory_mib / 2);
        let mut slot = Slot {
            pool: self.clone(),
            host: host.to_owned(),
            registry,
            grant,
            at_registry: None,
            worker: None,
            memory: None,
            stalled: None,
        };
        slot.at_registry = {
            let mut place = pin!(slot.take(&slot.registry, 1));
            // Being polled once is to stand in the queue.
            let first = poll_fn(|context| Poll::Ready(place.as_mut().poll(context))).await;
            drop(turn);
            match first {
                Poll::Ready(place) => place,
                Poll::Pending => place.await,
            }
        };
        slot
    }

    fn registries(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.0
            .registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Waits until this download may use the machine: bytes have come. Ends a stall.
    pub(super) async fn run(&mut self) {
        if self.worker.is_some() {
            return;
        }
        if self.at_registry.is_none() {
            self.at_registry = self.take(&self.registry, 1).await;
        }
        self.worker = self.take(&self.pool.0.workers, 1).await;
        let missing = self.grant
            - self
                .memory
                .as_ref()
                .map_or(0, |held| held.num_permits() as u32);
        let more = self.take(&self.pool.0.memory, missing).await;
        match (&mut self.memory, more) {
            (Some(held), Some(more)) => held.merge(more),
            (held, more) => *held = more,
        }
        self.stalled = None;
    }

    /// No byte has come for long: gives the permits back.
    ///
    /// # Errors
    /// [`ImageError::Silent`] when too many downloads are silent already.
    pub(super) fn stall(&mut self) -> Result<(), ImageError> {
        if self.stalled.is_some() {
            return Ok(());
        }
        let Ok(stalled) = self.pool.0.stalled.clone().try_acquire_owned() else {
            let text = format!(
                "{} is silent, and so are too many other downloads",
                self.host
            );
            return Err(ImageError::Silent(text.into()));
        };
        self.stalled = Some(stalled);
        self.at_registry = None;
        self.worker = None;
        if let Some(held) = &mut self.memory {
            let surplus = held.num_permits().saturating_sub(RESIDUE as usize);
            drop(held.split(surplus));
        }
        Ok(())
    }

    /// It holds a worker and memory, not just its place at the registry.
    pub(super) fn is_running(&self) -> bool {
        self.worker.is_some()
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    async fn take(&self, semaphore: &Arc<Semaphore>, permits: u32) -> Option<OwnedSemaphorePermit> {
        let _queued = Queued::new(&self.pool.0.queued);
        // These semaphores are never closed, so this cannot fail.
        semaphore.clone().acquire_many_owned(permits).await.ok()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut registries = self.pool.registries();
        // Two: the table's and this slot's.
        if Arc::strong_count(&self.registry) == 2 + usize::from(self.at_registry.is_some()) {
            registries.remove(&self.host);
        }
    }
}

/// Counts a wait, also one that is cancelled.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn new(count: &'a AtomicUsize) -> Queued<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Queued(count)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn comes<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(50), future)
            .await
            .ok()
    }

    #[tokio::test]
    async fn a_registry_has_its_own_bound_and_another_registry_is_not_held_up() {
        let pool = Pool::new(10, 2, 512 * MIB);
        let (a, _b) = (
            pool.enter("slow", MIB, None).await,
            pool.enter("slow", MIB, None).await,
        );
        assert!(comes(pool.enter("slow", MIB, None)).await.is_none());
        assert!(comes(pool.enter("quick", MIB, None)).await.is_some());
        drop(a);
        assert!(comes(pool.enter("slow", MIB, None)).await.is_some());
    }

    #[tokio::test]
    async fn a_turn_is_passed_as_soon_as_its_holder_stands_in_the_queue() {
        let pool = Pool::new(10, 1, 512 * MIB);
        let (turn, next) = oneshot::channel();
        let first = pool.enter("one", MIB, Some(turn)).await;
        assert!(comes(next).await.is_some(), "it has a place");
        let (turn, next) = oneshot::channel();
        let mut second = pin!(pool.enter("one", MIB, Some(turn)));
        assert!(comes(&mut second).await.is_none());
        assert!(comes(next).await.is_some(), "it waits for one");
        drop(first);
        assert!(comes(second).await.is_some());
    }

    #[tokio::test]
    async fn silent_downloads_give_their_workers_back_and_queue_again() {
        let pool = Pool::new(2, 2, 512 * MIB);
        let mut silent = Vec::new();
        for host in ["a", "b"] {
            let mut slot = pool.enter(host, 40 * MIB, None).await;
            slot.run().await;
            silent.push(slot);
        }
        let mut third = pool.enter("c", MIB, None).await;
        assert!(comes(third.run()).await.is_none(), "both workers are taken");
        for slot in &mut silent {
            slot.stall().unwrap();
        }
        assert!(comes(third.run()).await.is_some());
        assert!(comes(silent[0].run()).await.is_some());
        assert!(
            comes(silent[1].run()).await.is_none(),
            "a worker is taken by each of the other two"
        );
        drop(third);
        assert!(comes(silent[1].run()).await.is_some());
    }

    #[tokio::test]
    async fn silent_downloads_are_bounded_and_leave_half_of_the_memory() {
        let pool = Pool::new(100, 100, 64 * MIB);
        let mut silent = Vec::new();
        for host in 0..8 {
            let mut slot = pool.enter(&host.to_string(), 32 * MIB, None).await;
            slot.run().await;
            slot.stall().unwrap();
            silent.push(slot);
        }
        let mut one_more = pool.enter("h", u64::MAX, None).await;
        assert!(
            comes(one_more.run()).await.is_some(),
            "the largest grant is still to be had"
        );
        assert!(matches!(one_more.stall(), Err(ImageError::Silent(_))));
    }

    #[tokio::test]
    async fn the_table_of_registries_keeps_only_those_in_use() {
        let pool = Pool::new(1, 1, 64 * MIB);
        for host in 0..100 {
            let mut slot = pool.enter(&host.to_string(), MIB, None).await;
            slot.run().await;
        }
        assert_eq!(pool.registries().len(), 0);
    }
}
