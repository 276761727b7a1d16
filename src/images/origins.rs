//! One origin an image: the label that stands for a reference in a host name, and which reference a
//! label stands for. The label says nothing of the reference, so what is assigned is kept on disk, among
//! the records (bounded with them, least recently used first); a label that is not there stands for nothing.

use super::ledger::Ledger;
use crate::digest::Digest;
use crate::reference::Reference;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Labels remembered since the table was last turned over; as many from before are kept beside them.
const MOST: usize = 4096;
/// How long a label is used without a look at its record: each look keeps the record from being evicted.
const LASTS: Duration = Duration::from_secs(600);
/// Bytes of a label: 32 bytes, five bits a letter. A DNS label has 63 at most (RFC 1035 §2.3.4).
const LENGTH: usize = 52;

/// The label of a reference: base32 (RFC 4648 §6, lower-case, no padding) of the SHA-256 of its canonical form.
pub(super) fn label(reference: &Reference) -> String {
    let digest = Digest::sha256(reference.to_string().as_bytes());
    let mut label = data_encoding::BASE32_NOPAD.encode(digest.bytes());
    label.make_ascii_lowercase();
    label
}

/// Whether it can be a label.
fn is_label(text: &str) -> bool {
    text.len() == LENGTH
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

/// See the module. One per process; clones share.
#[derive(Clone)]
pub(super) struct Origins {
    ledger: Ledger,
    /// Held for one look-up or insert.
    known: Arc<Mutex<Known>>,
}

/// Two generations: when the young one is full it becomes the old one.
#[derive(Default)]
struct Known {
    young: HashMap<Box<str>, Assigned>,
    old: HashMap<Box<str>, Assigned>,
}

#[derive(Clone)]
struct Assigned {
    reference: Reference,
    /// When the record was last written or read.
    seen: Instant,
}

impl Known {
    fn get(&self, label: &str) -> Option<&Assigned> {
        self.young.get(label).or_else(|| self.old.get(label))
    }

    fn put(&mut self, label: &str, reference: Reference) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        let assigned = Assigned {
            reference,
            seen: Instant::now(),
        };
        self.young.insert(label.into(), assigned);
    }
}

impl Origins {
    pub(super) fn new(ledger: Ledger) -> Origins {
        Origins {
            ledger,
            known: Arc::default(),
        }
    }

    /// The reference's label, which stands for it from now on.
    pub(super) async fn assign(&self, reference: &Reference) -> String {
        let label = label(reference);
        if self.warm(&label).is_none() {
            self.ledger.put_origin(&label, reference).await;
            self.put(&label, reference);
        }
        label
    }

    /// What the label stands for, if that was looked up lately. Never waits.
    pub(super) fn warm(&self, label: &str) -> Option<Reference> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let assigned = known.get(label)?;
        (assigned.seen.elapsed() < LASTS).then(|| assigned.reference.clone())
    }

    /// What the label stands for. None: nothing.
    pub(super) async fn find(&self, label: &str) -> Option<Reference> {
        if !is_label(label) {
            return None;
        }
        if let Some(reference) = self.warm(label) {
            return Some(reference);
        }
        let reference = match self.ledger.origin(label).await {
            Some(reference) => reference,
            // Evicted while we knew it.
            None => {
                let reference = self.stale(label)?;
                self.ledger.put_origin(label, &reference).await;
                reference
            }
        };
        self.put(label, &reference);
        Some(reference)
    }

    fn stale(&self, label: &str) -> Option<Reference> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(label).map(|assigned| assigned.reference.clone())
    }

    fn put(&self, label: &str, reference: &Reference) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.put(label, reference.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobspace::Blobspace;

    #[test]
    fn a_label_is_one_for_all_spellings_and_fits_a_host_name() {
        let label = |text| label(&Reference::parse(text).unwrap());
        let one = label("docker.io/nginx:1");
        // printf docker.io/library/nginx:1 | sha256sum | cut -c-64 | xxd -r -p | base32
        assert_eq!(one, "p6oupeki2ubfhfttvh6o3ynz365vsiki5ehlseeqije6zesbnh3q");
        assert_eq!(label("index.docker.io/library/nginx:1"), one);
        assert_ne!(label("docker.io/nginx:2"), one);
        assert!(is_label(&one));
        for wrong in [
            "",
            "a",
            &one[1..],
            &one.to_uppercase(),
            &one.replacen(&one[..1], "1", 1),
        ] {
            assert!(!is_label(wrong), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_was_assigned_is_found_after_a_restart_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Origins::new(Ledger::new(Blobspace::open(directory.path(), 0).unwrap()));
        let reference = Reference::parse("docker.io/library/nginx:1").unwrap();
        let origins = open();
        let assigned = label(&reference);
        assert_eq!(origins.find(&assigned).await, None);
        assert_eq!(origins.assign(&reference).await, assigned);
        assert_eq!(origins.warm(&assigned), Some(reference.clone()));
        drop(origins);
        let origins = open();
        assert_eq!(origins.warm(&assigned), None);
        assert_eq!(origins.find(&assigned).await, Some(reference));
        assert_eq!(origins.find("../../etc/passwd").await, None);
        let other = Reference::parse("docker.io/library/nginx:2").unwrap();
        assert_eq!(origins.find(&label(&other)).await, None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut known = Known::default();
        let reference = Reference::parse("docker.io/library/nginx:1").unwrap();
        for number in 0..3 * MOST {
            known.put(&number.to_string(), reference.clone());
        }
        assert!(known.young.len() + known.old.len() <= 2 * MOST);
        assert!(known.get(&(3 * MOST - 1).to_string()).is_some());
    }
}
