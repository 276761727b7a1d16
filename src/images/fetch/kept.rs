//! Reading a kept compressed blob again. What comes out is as little trusted as what a registry sends: `unpack`
//! verifies all of it.

use super::base_key;
use super::keep::BLOB;
use crate::blobspace::{Blobspace, Key, Lease};
use crate::pack::Pack;
use crate::unpack::Expected;
use std::io::{self, Read};
use std::sync::Weak;

/// Bytes read in at a time.
const AHEAD: u64 = 1 << 20;

/// The key of the layer's kept blob.
pub(in crate::images) fn kept_key(layer: &Expected) -> Key {
    Key::source(&base_key(&layer.identity()))
}

/// The kept blob of the layer, if there is one of the promised length. Blocking.
pub(in crate::images) fn kept(
    blobspace: &Blobspace<Pack>,
    layer: &Expected,
) -> Option<Lease<Pack>> {
    let blob = blobspace.get(&kept_key(layer))?;
    let origin = blob.origin();
    (origin.digest == layer.digest && origin.size == layer.size).then_some(blob)
}

/// Whether the blob still has the bytes that its digest names. Blocking.
pub(super) fn is_intact(blob: &Lease<Pack>, layer: &Expected, wanted: Weak<()>) -> bool {
    let mut hasher = layer.digest.hasher();
    let mut buffer = vec![0; 1 << 18];
    let mut reader = Reader::new(blob.clone(), wanted);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return hasher.finish() == layer.digest,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(_) => return false,
        }
    }
}

/// The bytes of a kept blob, for as long as somebody wants them.
pub(super) struct Reader {
    blob: Lease<Pack>,
    wanted: Weak<()>,
    at: u64,
    end: u64,
    /// Up to here the pages were read in.
    ahead: u64,
}

impl Reader {
    pub(super) fn new(blob: Lease<Pack>, wanted: Weak<()>) -> Reader {
        // A pack without the file has no bytes, which no digest of a layer names.
        let entry = blob.lookup(BLOB);
        let (at, length) = entry.map_or((0, 0), |entry| (entry.offset, entry.length));
        Reader {
            at,
            end: at.saturating_add(length),
            ahead: at,
            blob,
            wanted,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.end {
            return Ok(0);
        }
        if self.wanted.strong_count() == 0 {
            return Err(io::Error::other("nobody waits for the layer any more"));
        }
        if self.at >= self.ahead {
            let ahead = AHEAD.min(self.end - self.at);
            self.blob.populate(self.at, ahead)?;
            self.ahead = self.at + ahead;
        }
        let range = self.at as usize..self.ahead as usize;
        let bytes = self.blob.bytes().get(range).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        // What a page that cannot be read left there looks like zeros.
        if count == 0 || self.blob.poisoned() {
            return Err(io::Error::other("the kept blob cannot be read"));
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobspace::Tuning;
    use crate::digest::Digest;
    use crate::images::fetch::keep::Tee;
    use crate::unpack::Form;
    use bytes::Bytes;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn layer(bytes: &[u8]) -> Expected {
        Expected {
            digest: Digest::sha256(bytes),
            size: bytes.len() as u64,
            media_type: String::new(),
            diff_id: None,
            form: Form::Tar,
        }
    }

    fn store(bound: u64, most: u64) -> (tempfile::TempDir, Arc<Blobspace<Pack>>) {
        let directory = tempfile::tempdir().unwrap();
        let tuning = Tuning {
            source_bytes: most,
            ..Tuning::default()
        };
        let blobspace = Blobspace::open_tuned(directory.path(), bound, tuning).unwrap();
        (directory, blobspace)
    }

    /// Waits until the tee has ended: its thread holds the store.
    fn ended(blobspace: &Arc<Blobspace<Pack>>) {
        let since = Instant::now();
        while Arc::strong_count(blobspace) > 1 {
            assert!(since.elapsed() < Duration::from_secs(20), "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_copied_whole_is_kept_and_read_back() {
        let (_directory, blobspace) = store(0, 64 << 20);
        // Larger than what is read in at a time.
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (layer, other) = (layer(&bytes), layer(b"other"));
        let tee = Tee::start(blobspace.clone(), layer.clone());
        for piece in bytes.chunks(70_000) {
            assert!(tee.offer(&Bytes::copy_from_slice(piece)));
        }
        tee.seal();
        ended(&blobspace);
        let blob = kept(&blobspace, &layer).unwrap();
        let wanted = Arc::new(());
        let weak = || Arc::downgrade(&wanted);
        let mut read = Vec::new();
        let mut reader = Reader::new(blob.clone(), weak());
        reader.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert!(is_intact(&blob, &layer, weak()) && !is_intact(&blob, &other, weak()));
        let longer = Expected {
            size: layer.size + 1,
            ..layer.clone()
        };
        assert!(kept(&blobspace, &other).is_none() && kept(&blobspace, &longer).is_none());
        let mut reader = Reader::new(blob, weak());
        drop(wanted);
        assert!(reader.read(&mut [0; 10]).is_err(), "nobody wants it");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_not_copied_whole_is_not_kept() {
        let bytes = vec![7; 1_000_000];
        let piece = |length: usize| Bytes::copy_from_slice(&bytes[..length]);
        // What is offered, whether it is said to be all, and how much may be kept.
        let table = [
            (vec![400_000, 600_000], true, 64 << 20, true),
            (vec![400_000, 600_000], false, 64 << 20, false),
            (vec![400_000], true, 64 << 20, false),
            (vec![1_000_000, 1], true, 64 << 20, false),
            (vec![1_000_000], true, 500_000, false),
        ];
        for (lengths, sealed, most, is_kept) in table {
            let (_directory, blobspace) = store(0, most);
            let layer = layer(&bytes);
            let tee = Tee::start(blobspace.clone(), layer.clone());
            for length in &lengths {
                let _ = tee.offer(&piece(*length));
            }
            match sealed {
                true => tee.seal(),
                false => drop(tee),
            }
            ended(&blobspace);
            let found = kept(&blobspace, &layer).is_some();
            assert_eq!(found, is_kept, "{lengths:?} {sealed} {most}");
            assert_eq!(blobspace.usage().reserved_bytes, 0);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_of_a_silent_download_gives_its_space_to_a_pack() {
        let (_directory, blobspace) = store(1 << 20, 1 << 20);
        let bytes = vec![7; 600_000];
        let layer = layer(&bytes);
        let tee = Tee::start(blobspace.clone(), layer.clone());
        assert!(tee.offer(&Bytes::copy_from_slice(&bytes[..590_000])));
        while blobspace.usage().reserved_bytes < 500_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Nothing more comes, and nothing ends it.
        let (pack, since) = (blobspace.clone(), Instant::now());
        let written = tokio::task::spawn_blocking(move || {
            use std::io::Write;
            let mut pack = pack.reserve(&Key::base("a"))?;
            let written = pack.write_all(&[1; 900_000]);
            Ok::<_, crate::blobspace::BlobspaceError>(written)
        });
        written.await.unwrap().unwrap().unwrap();
        assert!(since.elapsed() < Duration::from_secs(5), "it waited");
        ended(&blobspace);
        assert!(!tee.offer(&Bytes::copy_from_slice(&bytes[590_000..])));
        assert!(kept(&blobspace, &layer).is_none());
    }
}
