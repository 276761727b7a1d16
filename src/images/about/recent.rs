//! What registries said lately: believed for a while, asked again after that, and believed longer while
//! asking fails. In memory, bounded.

use crate::images::ImageError;
use crate::images::flight::Flights;
use crate::images::tags::{REVALIDATION_WAIT, STALE_PAUSE};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Answers by key, and one flight a key for those that are missing or due.
pub(super) struct Recent<K, V> {
    flights: Flights<K, V>,
    /// Held for one look-up or insert.
    known: Arc<Mutex<Known<K, V>>>,
    /// How long an answer is believed.
    ttl: Duration,
    /// How much longer while asking fails.
    stale: Duration,
}

struct Known<K, V> {
    answers: HashMap<K, Answer<V>>,
    weight: usize,
    /// Of all answers.
    most: usize,
    weigh: fn(&V) -> usize,
}

struct Answer<V> {
    value: V,
    /// When it was asked for.
    asked: Instant,
    /// Not asked again before.
    due: Instant,
}

impl<K: Hash + Eq + Clone, V: Clone> Known<K, V> {
    fn put(&mut self, key: K, answer: Answer<V>) {
        self.remove(&key);
        let weight = (self.weigh)(&answer.value);
        if weight > self.most {
            return;
        }
        if self.weight + weight > self.most {
            // The older half goes at once, so that a full table does not search for one at each insert.
            let mut times: Vec<Instant> =
                self.answers.values().map(|answer| answer.asked).collect();
            let middle = times.len() / 2;
            if !times.is_empty() {
                let (_, middle, _) = times.select_nth_unstable(middle);
                let middle = *middle;
                self.answers.retain(|_, answer| answer.asked > middle);
            }
            let weigh = self.weigh;
            let left = self.answers.values().map(|answer| weigh(&answer.value));
            self.weight = left.sum();
            if self.weight + weight > self.most {
                self.answers.clear();
                self.weight = 0;
            }
        }
        self.weight += weight;
        self.answers.insert(key, answer);
    }

    fn remove(&mut self, key: &K) {
        if let Some(answer) = self.answers.remove(key) {
            self.weight -= (self.weigh)(&answer.value);
        }
    }
}

impl<K, V> Recent<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `most`: the sum of what all answers weigh. Asks on the runtime that this is called on.
    pub(super) fn new(ttl: Duration, stale: Duration, most: usize, weigh: fn(&V) -> usize) -> Self {
        Recent {
            flights: Flights::new(),
            known: Arc::new(Mutex::new(Known {
                answers: HashMap::new(),
                weight: 0,
                most,
                weigh,
            })),
            ttl,
            stale,
        }
    }

    /// Whether anything is known, however old.
    pub(super) fn has(&self, key: &K) -> bool {
        lock(&self.known).answers.contains_key(key)
    }

    /// What is known, however old; else what is being asked. None: nobody asked.
    pub(super) async fn known(&self, key: &K) -> Option<Result<V, ImageError>> {
        let flight = self.flights.joined(key);
        if let Some(answer) = lock(&self.known).answers.get(key) {
            return Some(Ok(answer.value.clone()));
        }
        Some(flight?.await)
    }

    /// Somebody else asked, so long ago.
    pub(super) fn learn(&self, key: K, value: V, age: Duration) {
        let now = Instant::now();
        let Some(asked) = now.checked_sub(age) else {
            return;
        };
        let mut known = lock(&self.known);
        if known
            .answers
            .get(&key)
            .is_some_and(|there| there.asked >= asked)
        {
            return;
        }
        let due = asked + self.ttl;
        known.put(key, Answer { value, asked, due });
    }

    /// It is known no longer.
    pub(super) fn forget(&self, key: &K) {
        lock(&self.known).remove(key);
    }

    /// What is known if it is not due, else what `ask` says, or for want of that what was known before.
    /// What a registry denies is known no longer.
    pub(super) async fn get<F>(&self, key: K, ask: impl FnOnce() -> F) -> Result<V, ImageError>
    where
        F: Future<Output = Result<V, ImageError>> + Send + 'static,
    {
        let before = {
            let known = lock(&self.known);
            let there = known.answers.get(&key);
            there.map(|answer| (answer.value.clone(), answer.asked, answer.due))
        };
        let now = Instant::now();
        let stale = match before {
            Some((value, _, due)) if due > now => return Ok(value),
            Some((value, asked, _)) => {
                let most = self.ttl.saturating_add(self.stale);
                (now.duration_since(asked) <= most).then_some(value)
            }
            None => None,
        };
        let (known, ttl, own) = (self.known.clone(), self.ttl, key.clone());
        let asking = self.flights.join(key.clone(), || {
            let asked = Instant::now();
            let asking = ask();
            async move {
                let outcome = asking.await;
                let mut known = lock(&known);
                match &outcome {
                    Ok(value) => {
                        let (value, due) = (value.clone(), asked + ttl);
                        known.put(own, Answer { value, asked, due });
                    }
                    Err(ImageError::NotFound(_) | ImageError::Denied(_)) => known.remove(&own),
                    Err(_) => {}
                }
                drop(known);
                outcome
            }
        });
        let Some(stale) = stale else {
            return asking.await;
        };
        match tokio::time::timeout(REVALIDATION_WAIT, asking).await {
            Ok(Err(error)) if matches!(error, ImageError::NotFound(_) | ImageError::Denied(_)) => {
                return Err(error);
            }
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => tracing::warn!(%error, "not asked again, what was known is shown"),
            Err(_) => {}
        }
        if let Some(answer) = lock(&self.known).answers.get_mut(&key) {
            answer.due = answer.due.max(Instant::now() + STALE_PAUSE);
        }
        Ok(stale)
    }
}

fn lock<K, V>(known: &Mutex<Known<K, V>>) -> MutexGuard<'_, Known<K, V>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn recent(ttl: u64, stale: u64, most: usize) -> Recent<u32, u32> {
        let [ttl, stale] = [ttl, stale].map(Duration::from_secs);
        Recent::new(ttl, stale, most, |_| 10)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_asked_again_and_kept_while_asking_fails() {
        let recent = recent(60, 3600, 100);
        let failing = || async { Err(ImageError::Silent("silent".into())) };
        assert_eq!(recent.get(1, || async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(
            recent.get(1, || async { Ok(8) }).await.unwrap(),
            7,
            "believed"
        );
        let past = |by: u64| {
            let mut known = lock(&recent.known);
            let answer = known.answers.get_mut(&1).unwrap();
            let by = Duration::from_secs(by);
            (answer.asked, answer.due) = (answer.asked - by, answer.due - by);
        };
        past(61);
        assert_eq!(recent.get(1, failing).await.unwrap(), 7, "stale");
        assert_eq!(
            recent.get(1, || async { Ok(8) }).await.unwrap(),
            7,
            "a pause"
        );
        past(6);
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            Ok(9)
        };
        assert_eq!(recent.get(1, slow).await.unwrap(), 7, "not waited for");
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(recent.get(1, failing).await.unwrap(), 9, "it came later");
        past(61);
        let denied = || async { Err(ImageError::Denied("no".into())) };
        recent.get(1, denied).await.unwrap_err();
        recent.get(1, failing).await.unwrap_err();
        recent.get(1, || async { Ok(1) }).await.unwrap();
        past(3661);
        recent.get(1, failing).await.unwrap_err();
    }

    #[tokio::test]
    async fn who_asks_for_the_same_asks_once_and_who_only_looks_asks_nothing() {
        let recent = recent(60, 0, 100);
        assert!(recent.known(&1).await.is_none());
        let count = Arc::new(AtomicU32::new(0));
        let ask = || {
            let count = count.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(count.fetch_add(1, Ordering::SeqCst))
            }
        };
        let (a, b, c) = tokio::join!(recent.get(1, ask), recent.get(1, ask), recent.known(&1));
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap().unwrap()), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_somebody_learnt_later_counts_and_the_table_stays_bounded() {
        let recent = recent(60, 0, 100);
        recent.learn(1, 5, Duration::from_secs(10));
        recent.learn(1, 4, Duration::from_secs(20));
        assert_eq!(recent.get(1, || async { Ok(9) }).await.unwrap(), 5);
        recent.learn(1, 6, Duration::from_secs(1));
        assert_eq!(recent.get(1, || async { Ok(9) }).await.unwrap(), 6);
        recent.forget(&1);
        assert_eq!(recent.get(1, || async { Ok(9) }).await.unwrap(), 9);
        recent.learn(2, 6, Duration::from_secs(60));
        assert_eq!(recent.get(2, || async { Ok(9) }).await.unwrap(), 9, "due");
        for key in 0..1000 {
            recent.get(key, || async move { Ok(key) }).await.unwrap();
            let known = lock(&recent.known);
            assert!(known.weight <= 100 && known.weight == known.answers.len() * 10);
            assert!(known.answers.contains_key(&key));
        }
    }
}
