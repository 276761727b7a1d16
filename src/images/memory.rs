//! What went wrong lately, so that it is not tried again at once: bounded in number and in time.

use super::ImageError;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Entries at most; when full, those that ended go first, then the one that ends soonest.
const MOST: usize = 10_000;

/// Failures by key, each for a while.
pub(super) struct Failures<K> {
    lasts: Duration,
    /// Held for one look-up or insert.
    table: Mutex<HashMap<K, (Instant, ImageError)>>,
}

impl<K: Hash + Eq + Clone> Failures<K> {
    pub(super) fn new(lasts: Duration) -> Self {
        Failures {
            lasts,
            table: Mutex::default(),
        }
    }

    /// The failure, while it lasts.
    pub(super) fn get(&self, key: &K) -> Option<ImageError> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table
            .get(key)
            .filter(|(until, _)| *until > Instant::now())
            .map(|(_, error)| error.clone())
    }

    pub(super) fn put(&self, key: K, error: ImageError) {
        let now = Instant::now();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MOST {
            table.retain(|_, (until, _)| *until > now);
        }
        if table.len() >= MOST {
            let soonest = table
                .iter()
                .min_by_key(|(_, (until, _))| *until)
                .map(|(key, _)| key.clone());
            if let Some(key) = soonest {
                table.remove(&key);
            }
        }
        table.insert(key, (now + self.lasts, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_its_time_and_the_table_stays_bounded() {
        let failures = Failures::new(Duration::from_secs(60));
        for key in 0..MOST + 10 {
            failures.put(key, ImageError::NotFound("gone".into()));
        }
        assert!(failures.table.lock().unwrap().len() <= MOST);
        assert!(failures.get(&(MOST + 9)).is_some());
        let short = Failures::new(Duration::ZERO);
        short.put(1, ImageError::NotFound("gone".into()));
        assert!(short.get(&1).is_none());
    }
}
