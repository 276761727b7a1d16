//! One layer from its registry into the blobspace: a place in the pool, the download, the
//! unpack behind a pipe, the commit; with a tee of the download where compressed blobs are kept. Or, when the pack is
//! here from another host, the download alone, to see that this host has the same bytes. Or, when the blob is kept,
//! the unpack alone.

mod keep;
mod kept;
mod unpacking;

pub(super) use kept::{kept, kept_key};

use super::ImageError;
use super::ledger::Ledger;
use super::pipe::{self, pipe};
use super::pool::{Pool, Slot, Turn};
use crate::blobspace::{Blobspace, BlobspaceError, Key, Lease};
use crate::config::Limits;
use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::pack::{FORMAT_VERSION, Pack};
use crate::reference::Repository;
use crate::registry::{Blob, Registries, RegistryError};
use crate::unpack::{Expected, Form, UnpackError};
use bytes::Bytes;
use keep::Tee;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use unpacking::{Supply, Unpacking};

/// Compressed bytes between network and unpack.
const WINDOW: usize = 8 << 20;
/// What an unpack holds beside its index: the window and the pipeline's buffers.
const PIPELINE: u64 = 24 << 20;
/// What the index may hold at the first attempt: some 100,000 entries.
const INDEX: u64 = 16 << 20;
/// Without a byte for so long a download gives its permits back...
const IDLE: Duration = Duration::from_secs(2);
/// ...or for so long, when it holds a worker and another waits.
const IDLE_WHEN_WANTED: Duration = Duration::from_millis(200);
/// Attempts of a download that had to give way to older ones.
const CONTENDED_ATTEMPTS: u32 = 100;

/// What is needed to fetch. One per process.
pub(super) struct Fetcher {
    registries: Arc<Registries>,
    blobspace: Arc<Blobspace<Pack>>,
    ledger: Ledger,
    pool: Pool,
    limits: Limits,
    cores: usize,
    /// Unpacks under way.
    unpacking: Arc<AtomicUsize>,
}

/// The outcome of one attempt that did not succeed.
enum Failure {
    /// For good.
    Final(ImageError),
    /// For good, and bound to the bytes: remembered.
    Fault(ImageError),
    /// An older download needs the space.
    Contended,
    /// The index needs more memory than was granted.
    Memory,
    /// A mirror gave wrong bytes; it is avoided from now on.
    Mirror,
    /// The kept blob is not what it was.
    Kept,
}

/// A fetch that succeeded.
pub(super) struct Fetched {
    pub(super) pack: Lease<Pack>,
    /// Nothing was downloaded for it.
    pub(super) was_kept: bool,
}

/// A failed fetch.
pub(super) struct Failed {
    pub(super) error: ImageError,
    /// Another attempt with the same bytes, diff ID and limits cannot end otherwise.
    pub(super) lasting: bool,
}

/// The key of a layer's base pack, by [`Expected::identity`].
pub(super) fn base_key(layer: &Digest) -> Key {
    Key::base(&format!(
        "{}-v{FORMAT_VERSION}",
        super::ledger::name_of(layer)
    ))
}

impl Fetcher {
    pub(super) fn new(
        registries: Arc<Registries>,
        blobspace: Arc<Blobspace<Pack>>,
        ledger: Ledger,
        pool: Pool,
        limits: Limits,
    ) -> Fetcher {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Fetcher {
            registries,
            blobspace,
            ledger,
            pool,
            limits,
            cores,
            unpacking: Arc::default(),
        }
    }

    /// Whose permits bound what is done here.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Downloads, unpacks, verifies and seals the layer; from its `kept` blob, which the repository may have, if that
    /// is still good.
    pub(super) async fn fetch(
        &self,
        repository: &Repository,
        expected: &Expected,
        mut turn: Option<Turn>,
        mut kept: Option<Lease<Pack>>,
    ) -> Result<Fetched, Failed> {
        let (mut index, mut avoided) = (INDEX, Vec::new());
        for attempt in 0..CONTENDED_ATTEMPTS {
            // One that had to go holds space that its pack needs.
            kept = kept.filter(|blob| !blob.evicted());
            let was_kept = kept.is_some();
            let outcome = match &kept {
                Some(blob) => {
                    // It takes no place at the registry.
                    drop(turn.take());
                    self.unpack_kept(repository, expected, index, blob).await
                }
                None => {
                    self.attempt(repository, expected, index, &mut avoided, turn.take())
                        .await
                }
            };
            match outcome {
                Err(Failure::Mirror) => {}
                Err(Failure::Kept) => kept = None,
                Ok(pack) => return Ok(Fetched { pack, was_kept }),
                Err(Failure::Final(error)) => {
                    return Err(Failed {
                        error,
                        lasting: false,
                    });
                }
                Err(Failure::Fault(error)) => {
                    return Err(Failed {
                        error,
                        lasting: true,
                    });
                }
                Err(Failure::Contended) => {
                    let pause = Duration::from_millis(50 << attempt.min(5));
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                }
                Err(Failure::Memory) => {
                    let most = self.pool.largest_grant().saturating_sub(self.pipeline());
                    if index >= most {
                        let text = format!(
                            "{}: its index (or zstd window) needs more than {most} bytes of memory, raise `memoryLimit`",
                            named(repository, expected)
                        );
                        return Err(Failed {
                            error: ImageError::Wrong(text.into()),
                            lasting: true,
                        });
                    }
                    index = most;
                }
            }
        }
        let text = format!(
            "{}: no space came free while other downloads were written",
            named(repository, expected)
        );
        Err(Failed {
            error: ImageError::Busy(text.into()),
            lasting: false,
        })
    }

    /// Downloads the layer only to see that the host has these bytes.
    pub(super) async fn verify(
        &self,
        repository: &Repository,
        expected: &Expected,
    ) -> Result<(), ImageError> {
        let mut avoided = Vec::new();
        loop {
            match self.verify_once(repository, expected, &mut avoided).await {
                Ok(()) => return Ok(()),
                // Each time there is one more that is avoided.
                Err(Failure::Mirror) => {}
                Err(Failure::Final(error) | Failure::Fault(error)) => return Err(error),
                Err(Failure::Contended | Failure::Memory | Failure::Kept) => {
                    let text = "a verification asked for space";
                    return Err(ImageError::Internal(text.into()));
                }
            }
        }
    }

    async fn verify_once(
        &self,
        repository: &Repository,
        expected: &Expected,
        avoided: &mut Vec<Arc<str>>,
    ) -> Result<(), Failure> {
        let (wanted, size) = (expected.digest, expected.size);
        let check = move |mut bytes: pipe::Reader| {
            let (mut hasher, mut count) = (wanted.hasher(), 0);
            let mut buffer = vec![0; 1 << 18];
            loop {
                match bytes.read(&mut buffer).map_err(UnpackError::Read)? {
                    0 => break,
                    read => {
                        hasher.update(&buffer[..read]);
                        count += read as u64;
                    }
                }
            }
            if count != size {
                return Err(UnpackError::Mismatch(format!(
                    "is {count} bytes, its manifest says {size}"
                )));
            }
            match hasher.finish() {
                found if found == wanted => Ok(()),
                found => Err(UnpackError::Mismatch(format!("has digest {found}"))),
            }
        };
        let slot = self.pool.enter(repository.host(), PIPELINE, None).await;
        self.stream(repository, expected, slot, avoided, false, check)
            .await
    }

    /// What an unpack holds beside its index, in bytes.
    fn pipeline(&self) -> u64 {
        match self.blobspace.source_bound() {
            0 => PIPELINE,
            _ => PIPELINE + WINDOW as u64,
        }
    }

    /// Whether the compressed blob is to be kept: not if it is on this machine already, as its pack or in a layout.
    fn keeps(&self, repository: &Repository, expected: &Expected) -> bool {
        self.blobspace.source_bound() > 0
            && !self.registries.is_local(repository)
            && !matches!(expected.form, Form::File(_))
    }

    fn unpacking(&self, expected: &Expected, index_bytes: u64) -> Unpacking {
        Unpacking {
            blobspace: self.blobspace.clone(),
            limits: self.limits.clone(),
            layer: expected.clone(),
            index_bytes,
            cores: self.cores,
            unpacking: self.unpacking.clone(),
        }
    }

    /// Unpacks and seals the layer from its kept blob. One that is not good any more is dropped: [`Failure::Kept`].
    async fn unpack_kept(
        &self,
        repository: &Repository,
        expected: &Expected,
        index_bytes: u64,
        blob: &Lease<Pack>,
    ) -> Result<Lease<Pack>, Failure> {
        let unpacking = self.unpacking(expected, index_bytes);
        let (blobspace, blob, layer) = (self.blobspace.clone(), blob.clone(), expected.clone());
        let memory = self.pool.memory(self.pipeline() + index_bytes).await;
        // Dropped with this future, when nobody waits for the layer any more: the reading ends, as a download's does.
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        let work = move || {
            let _memory = memory;
            let from = Supply::Kept(kept_key(&layer));
            let bytes = kept::Reader::new(blob.clone(), still_wanted.clone());
            let error = match unpacking.run(bytes, &base_key(&layer.identity()), &from) {
                Ok(pack) => return Ok(pack),
                Err(error) => error,
            };
            let is_good = match &error {
                _ if still_wanted.strong_count() == 0 => true,
                UnpackError::Write(_) | UnpackError::Memory(_) => true,
                UnpackError::Mismatch(_) | UnpackError::Read(_) => false,
                // Perhaps of these very bytes, perhaps of what became of them.
                UnpackError::Refused(_) => kept::is_intact(&blob, &layer, still_wanted),
            };
            if is_good {
                return Err(Some(error));
            }
            let digest = layer.digest;
            tracing::error!(%digest, %error, "a kept blob is damaged, it is dropped");
            blobspace.discard(&kept_key(&layer));
            Err(None)
        };
        let done = tokio::task::spawn_blocking(work).await;
        drop(wanted);
        match done {
            Ok(Ok(pack)) => Ok(pack),
            Ok(Err(None)) => Err(Failure::Kept),
            Ok(Err(Some(error))) => Err(self.failure(repository, expected, error, None)),
            Err(_) => Err(broken_down(repository, expected)),
        }
    }

    async fn attempt(
        &self,
        repository: &Repository,
        expected: &Expected,
        index_bytes: u64,
        avoided: &mut Vec<Arc<str>>,
        turn: Option<Turn>,
    ) -> Result<Lease<Pack>, Failure> {
        let key = base_key(&expected.identity());
        let unpacking = self.unpacking(expected, index_bytes);
        let from = Supply::Registry(self.ledger.clone(), repository.clone());
        let consume = move |bytes| unpacking.run(bytes, &key, &from);
        let memory = self.pipeline() + index_bytes;
        let slot = self.pool.enter(repository.host(), memory, turn).await;
        let keep = self.keeps(repository, expected);
        self.stream(repository, expected, slot, avoided, keep, consume)
            .await
    }

    /// Runs a download into `consume`, which reads it on a blocking thread. `keep`: into a copy that is kept, too.
    async fn stream<T: Send + 'static>(
        &self,
        repository: &Repository,
        expected: &Expected,
        mut slot: Slot,
        avoided: &mut Vec<Arc<str>>,
        keep: bool,
        consume: impl FnOnce(pipe::Reader) -> Result<T, UnpackError> + Send + 'static,
    ) -> Result<T, Failure> {
        let descriptor = Descriptor {
            media_type: expected.media_type.clone(),
            digest: expected.digest,
            size: expected.size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        let opening = self.registries.blob(repository, &descriptor, avoided);
        let mut blob = self
            .patiently(&mut slot, opening)
            .await
            .map_err(Failure::Final)?;
        let mut piece = self
            .next(&mut slot, &mut blob)
            .await
            .map_err(Failure::Final)?;
        slot.run().await;

        let (sender, reader) = pipe(WINDOW);
        let consumer = tokio::task::spawn_blocking(move || consume(reader));
        let mut tee = keep.then(|| Tee::start(self.blobspace.clone(), expected.clone()));
        let mut broken = None;
        while let Some(bytes) = piece.take() {
            tee = tee.filter(|tee| tee.offer(&bytes));
            if sender.send(bytes).await.is_err() {
                break;
            }
            match self.next(&mut slot, &mut blob).await {
                Ok(next) => piece = next,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
            if slot.is_stalled() {
                slot.run().await;
            }
        }
        let source = blob.into_source();
        match &broken {
            None => sender.end(),
            Some(_) => drop(sender),
        }
        let Ok(outcome) = consumer.await else {
            return Err(broken_down(repository, expected));
        };
        if let (Ok(_), Some(tee)) = (&outcome, tee) {
            tee.seal();
        }
        outcome.map_err(
            |error| match is_of_bytes(&error) && source.distrust(avoided) {
                true => Failure::Mirror,
                false => self.failure(repository, expected, error, broken),
            },
        )
    }

    async fn next(&self, slot: &mut Slot, blob: &mut Blob) -> Result<Option<Bytes>, ImageError> {
        self.patiently(slot, blob.next()).await
    }

    /// Waits for the registry; while it is silent, the slot's permits go to others.
    async fn patiently<T>(
        &self,
        slot: &mut Slot,
        answer: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, ImageError> {
        let mut answer = pin!(answer);
        let mut idle = Duration::ZERO;
        loop {
            if slot.is_stalled() {
                return answer.await.map_err(ImageError::from);
            }
            match tokio::time::timeout(IDLE_WHEN_WANTED, &mut answer).await {
                Ok(answered) => return answered.map_err(ImageError::from),
                Err(_) => idle += IDLE_WHEN_WANTED,
            }
            if idle >= IDLE {
                slot.stall()?;
            } else if self.pool.wanted() && slot.is_running() {
                // No place for one more silent download: this one may still be merely slow.
                let _ = slot.stall();
            }
        }
    }

    fn failure(
        &self,
        repository: &Repository,
        expected: &Expected,
        error: UnpackError,
        broken: Option<ImageError>,
    ) -> Failure {
        let named = named(repository, expected);
        match error {
            UnpackError::Refused(text) => {
                Failure::Fault(ImageError::Wrong(format!("{named}: {text}").into()))
            }
            UnpackError::Mismatch(text) => {
                Failure::Final(ImageError::Wrong(format!("{named}: {text}").into()))
            }
            UnpackError::Memory(_) => Failure::Memory,
            UnpackError::Read(error) => Failure::Final(
                broken.unwrap_or_else(|| ImageError::Internal(format!("{named}: {error}").into())),
            ),
            UnpackError::Write(error) => {
                match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                    Some(BlobspaceError::Contended) => Failure::Contended,
                    Some(full @ BlobspaceError::LargerThanBound { .. }) => {
                        Failure::Fault(ImageError::TooLarge(format!("{named}: {full}").into()))
                    }
                    Some(full @ (BlobspaceError::Full(_) | BlobspaceError::Pinned { .. })) => {
                        Failure::Final(ImageError::TooLarge(format!("{named}: {full}").into()))
                    }
                    other => {
                        tracing::error!(%error, cause = other.map(tracing::field::display), "writing a pack failed");
                        Failure::Final(ImageError::Internal(
                            format!("{named}: the pack could not be written").into(),
                        ))
                    }
                }
            }
        }
    }
}

/// Whether other bytes might have ended otherwise. A cap ends the reading before the digest is known, so that a
/// refusal too may be a mirror's lie.
fn is_of_bytes(error: &UnpackError) -> bool {
    matches!(error, UnpackError::Mismatch(_) | UnpackError::Refused(_))
}

/// A panic, which says nothing of the bytes.
fn broken_down(repository: &Repository, expected: &Expected) -> Failure {
    let text = format!("{}: unpacking it failed", named(repository, expected));
    Failure::Final(ImageError::Internal(text.into()))
}

/// ``layer sha256:ab… of `ghcr.io/x/y` ``: how errors name a layer.
fn named(repository: &Repository, expected: &Expected) -> String {
    format!("layer {} of `{repository}`", expected.digest)
}
