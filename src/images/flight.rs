//! Single flight: one job per key, in a task of its own that outlives its requesters;
//! everyone who waits gets the same typed outcome.

use super::ImageError;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Jobs at once of one kind; one more is [`ImageError::Busy`]. Bounds memory, not downloads: those wait
/// in the pool.
const MOST: usize = 4096;

type Outcome<T> = Result<T, ImageError>;
type Waiting<T> = watch::Receiver<Option<Outcome<T>>>;
type Telling<T> = Arc<watch::Sender<Option<Outcome<T>>>>;
/// Held only to look up, insert or remove; never across an await.
type Table<K, T, P> = Arc<Mutex<HashMap<K, Flight<T, P>>>>;

/// What a job has before its end, for those who can do with that: the last that it told.
pub(super) type Early<P> = Arc<watch::Sender<Option<P>>>;

/// A job under way.
struct Flight<T, P> {
    tell: Telling<T>,
    early: Early<P>,
}

/// The flights of one kind. `P` is what their jobs tell before their end.
pub(super) struct Flights<K, T, P = ()> {
    table: Table<K, T, P>,
    /// Where jobs run: not on the threads that serve connections.
    runtime: Handle,
    /// A job goes on when nobody waits for it any more.
    outlives: bool,
}

/// Takes the flight off the table however its job ends, a panic included.
struct Landing<K: Hash + Eq, T, P> {
    table: Table<K, T, P>,
    key: K,
    /// It was taken off already.
    done: bool,
}

impl<K: Hash + Eq, T, P> Drop for Landing<K, T, P> {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.table).remove(&self.key);
        }
    }
}

impl<K: Hash + Eq, T, P> Landing<K, T, P> {
    /// Takes the flight off the table if nobody waits for it. Nobody can board it after that.
    fn abandon(&mut self, tell: &Telling<T>) -> bool {
        let mut table = lock(&self.table);
        self.done = tell.receiver_count() == 0;
        if self.done {
            table.remove(&self.key);
        }
        self.done
    }
}

impl<K, T, P> Flights<K, T, P>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
{
    /// Jobs run on the runtime that this is called on.
    pub(super) fn new() -> Self {
        Flights {
            table: Table::default(),
            runtime: Handle::current(),
            outlives: true,
        }
    }

    /// Flights whose jobs end where they are when nobody waits for them any more.
    pub(super) fn while_wanted() -> Self {
        Flights {
            outlives: false,
            ..Flights::new()
        }
    }

    /// Whether a job for this key is under way.
    pub(super) fn has(&self, key: &K) -> bool {
        lock(&self.table).contains_key(key)
    }

    /// Boards the job for `key` if one is under way, at once; starts none. What is returned waits for its outcome.
    pub(super) fn joined(
        &self,
        key: &K,
    ) -> Option<impl Future<Output = Outcome<T>> + use<K, T, P>> {
        let waiting = lock(&self.table).get(key)?.tell.subscribe();
        Some(told(waiting))
    }

    /// Jobs under way.
    pub(super) fn count(&self) -> usize {
        lock(&self.table).len()
    }

    /// Joins the job for `key`, or starts `job` as it. The job goes on when the caller leaves (but see
    /// [`Flights::while_wanted`]).
    ///
    /// A job ends its flight before its outcome is told, so whoever asks after a failure
    /// starts afresh, and a job must first look whether its work was just done.
    pub(super) async fn join<F>(&self, key: K, job: impl FnOnce() -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        told(self.board(key, |_| job())?.0).await
    }

    /// As [`Flights::join`]; what the job tells before its end is told to `early` meanwhile.
    pub(super) async fn join_early<F>(
        &self,
        key: K,
        early: &Early<P>,
        job: impl FnOnce(Early<P>) -> F,
    ) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let (waiting, mut news) = self.board(key, job)?;
        let mut told = pin!(told(waiting));
        // What was told before counts as new.
        news.mark_changed();
        loop {
            tokio::select! {
                biased;
                outcome = &mut told => return outcome,
                Ok(()) = news.changed() => {
                    let new = news.borrow_and_update().clone();
                    if new.is_some() {
                        early.send_replace(new);
                    }
                }
            }
        }
    }

    /// Starts `job` as the one for `key`, unless one is under way. Nobody waits for it.
    pub(super) fn start<F>(&self, key: K, job: impl FnOnce() -> F)
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        // One too many is one that is not started.
        let _ = self.board(key, |_| job());
    }

    fn board<F>(
        &self,
        key: K,
        job: impl FnOnce(Early<P>) -> F,
    ) -> Result<(Waiting<T>, watch::Receiver<Option<P>>), ImageError>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let mut table = lock(&self.table);
        if let Some(flight) = table.get(&key) {
            return Ok((flight.tell.subscribe(), flight.early.subscribe()));
        }
        if table.len() >= MOST {
            return Err(ImageError::Busy(
                "too many images are being fetched, try again later".into(),
            ));
        }
        let (tell, waiting) = watch::channel(None);
        let tell = Arc::new(tell);
        let early = Early::new(watch::Sender::new(None));
        let news = early.subscribe();
        let flight = Flight {
            tell: tell.clone(),
            early: early.clone(),
        };
        table.insert(key.clone(), flight);
        let mut landing = Landing {
            table: self.table.clone(),
            key,
            done: false,
        };
        let (job, outlives) = (job(early), self.outlives);
        self.runtime.spawn(async move {
            let mut job = pin!(job);
            let outcome = loop {
                tokio::select! {
                    biased;
                    outcome = &mut job => break outcome,
                    () = tell.closed(), if !outlives => {
                        if landing.abandon(&tell) {
                            return;
                        }
                    }
                }
            };
            drop(landing);
            tell.send_replace(Some(outcome));
        });
        Ok((waiting, news))
    }
}

async fn told<T: Clone>(mut waiting: Waiting<T>) -> Outcome<T> {
    let told = waiting.wait_for(Option::is_some).await;
    match told.as_deref() {
        Ok(Some(outcome)) => outcome.clone(),
        _ => Err(ImageError::Internal(
            "the job that fetched this image ended abnormally".into(),
        )),
    }
}

fn lock<K, T, P>(
    table: &Mutex<HashMap<K, Flight<T, P>>>,
) -> std::sync::MutexGuard<'_, HashMap<K, Flight<T, P>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn who_only_joins_starts_nothing_and_is_told_of_a_job_that_ended_meanwhile() {
        let flights = Flights::<u8, u32>::new();
        assert!(flights.joined(&1).is_none());
        assert_eq!(flights.count(), 0);
        let (land, landing) = tokio::sync::oneshot::channel();
        let first = flights.board(1, |_| async move {
            landing.await.unwrap();
            Ok(7)
        });
        assert!(flights.joined(&2).is_none());
        let second = flights.joined(&1).unwrap();
        land.send(()).unwrap();
        assert_eq!(told(first.unwrap().0).await.unwrap(), 7);
        assert!(flights.joined(&1).is_none(), "it has ended");
        assert_eq!(second.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn who_joins_hears_what_the_job_has_before_its_end_and_later_ones_hear_it_too() {
        let flights = Flights::<u8, u32, u32>::new();
        let (land, landing) = tokio::sync::oneshot::channel();
        let job = |early: Early<u32>| async move {
            early.send_replace(Some(1));
            landing.await.unwrap();
            Ok(2)
        };
        let [first, second] = [0, 0].map(|_| Early::new(watch::Sender::new(None)));
        let mut heard = [first.subscribe(), second.subscribe()];
        let none = |_| async { panic!("one is under way") };
        let hear = async {
            for heard in &mut heard {
                assert_eq!(*heard.wait_for(Option::is_some).await.unwrap(), Some(1));
            }
            land.send(()).unwrap();
        };
        let (first, second, ()) = tokio::join!(
            flights.join_early(1, &first, job),
            flights.join_early(1, &second, none),
            hear
        );
        assert_eq!((first.unwrap(), second.unwrap()), (2, 2));
    }

    #[tokio::test]
    async fn a_hundred_waiters_share_one_job() {
        let flights = Arc::new(Flights::<u8, u32>::new());
        let runs = Arc::new(AtomicU32::new(0));
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let (flights, runs) = (flights.clone(), runs.clone());
                tokio::spawn(async move {
                    flights
                        .join(1, || async move {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            Ok(runs.fetch_add(1, Ordering::SeqCst))
                        })
                        .await
                })
            })
            .collect();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().unwrap(), 0);
        }
        assert_eq!((runs.load(Ordering::SeqCst), flights.count()), (1, 0));
    }

    #[tokio::test]
    async fn second_waiter_sees_the_same_error_and_the_next_request_starts_afresh() {
        let flights = Flights::<u8, u32>::new();
        let fail = || async { Err(ImageError::Wrong("torn".into())) };
        let (first, second) =
            tokio::join!(flights.join(1, fail), flights.join(1, || async { Ok(1) }));
        assert_eq!(first.unwrap_err().to_string(), "torn");
        assert_eq!(second.unwrap_err().to_string(), "torn");
        assert_eq!(flights.join(1, || async { Ok(7) }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn the_job_outlives_its_requester() {
        let flights = Flights::<u8, u32>::new();
        let done = Arc::new(AtomicU32::new(0));
        let mark = done.clone();
        let job = async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            mark.store(1, Ordering::SeqCst);
            Ok(1)
        };
        assert!(
            tokio::time::timeout(Duration::from_millis(1), flights.join(1, || job))
                .await
                .is_err()
        );
        assert!(flights.has(&1));
        flights.join(1, || async { Ok(2) }).await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_any_more_ends() {
        let flights = Arc::new(Flights::<u8, u32>::while_wanted());
        let (started, mut start) = watch::channel(false);
        let ended = Arc::new(());
        let held = ended.clone();
        let job = || async move {
            started.send_replace(true);
            std::future::pending::<()>().await;
            drop(held);
            Ok(1)
        };
        let (first, second) = {
            let (a, b) = (flights.clone(), flights.clone());
            let first = tokio::spawn(async move { a.join(1, job).await });
            start.wait_for(|started| *started).await.unwrap();
            let second = tokio::spawn(async move { b.join(1, || async { Ok(2) }).await });
            (first, second)
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        first.abort();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(flights.has(&1), "the second waits for it");
        second.abort();
        while flights.has(&1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while Arc::strong_count(&ended) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(flights.join(1, || async { Ok(3) }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_job_that_panics_fails_its_waiters_and_leaves_the_table() {
        let flights = Flights::<u8, u32>::new();
        let outcome = flights.join(1, || async { panic!("on purpose") }).await;
        assert!(matches!(outcome, Err(ImageError::Internal(_))));
        assert!(!flights.has(&1));
    }
}
