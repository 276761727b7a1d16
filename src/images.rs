//! The facade: from a reference to a view of its files.
//!
//! What a caller may rely on: [`Images::warm`] never waits; [`Images::get`] returns the
//! same typed result to everyone who waits for the same thing, and the work goes on when
//! they leave; one flight per (host, repository, tag or digest), one per (host, layer digest);
//! a failed flight leaves nothing behind. Knows no HTTP status.
//!
//! The steps of [`Images::get`]: policy → tag to digest (freshness, `tags`) → manifest and
//! configuration → layers (`prepare`, `fetch`), merged where there are several → replacements → view.
//! [`Images::get_early`] may end before the last layer is here.

mod about;
mod catalogue;
mod early;
mod error;
mod fetch;
mod flight;
mod info;
mod integrity;
mod lasts;
mod ledger;
mod memory;
mod origins;
mod pipe;
mod policy;
mod pool;
mod prepare;
mod select;
mod shown;
mod site;
mod tags;
mod variants;
mod view;
mod views;

pub use crate::encode::Coding;
pub use crate::pack::ResolveError;
pub use about::{
    About, AboutIndex, AboutLayer, AboutReferrer, Entry as AboutEntry, Named, Referrers,
};
pub use catalogue::{Catalogue, Command, ImageRecord, LayerRecord, LayerState};
pub use error::ImageError;
pub use info::ViewInfo;
pub use integrity::Integrity;
pub use shown::Shown;
pub use variants::Found;
pub use view::{Child, DirectoryNode, FileNode, KnownFile, Node, View};

use crate::blobspace::{Blobspace, Content};
use crate::config::{Config, SiteConfig};
use crate::digest::Digest;
use crate::metrics::Metrics;
use crate::pack::Pack;
use crate::reference::{Reference, Repository, Version};
use crate::registry::Registries;
use about::Abouts;
use catalogue::Names;
use dashmap::DashMap;
use fetch::Fetcher;
use flight::{Early, Flights};
use lasts::{ImageUses, Lasts};
use ledger::{KnownTag, Ledger};
use memory::Failures;
use origins::Origins;
use policy::{Policies, Policy};
use pool::Pool;
use prepare::{Prepared, Preparer, Upper};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use variants::Variants;
use views::Remembered;

/// How long a registry's 404 is remembered.
const MISSING_LASTS: Duration = Duration::from_secs(5);

impl Content for Pack {
    fn open(file: File) -> Result<Pack, String> {
        Pack::open(file).map_err(|error| error.to_string())
    }
}

/// How a view is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Fetch what is not here; revalidate tags.
    Normal,
    /// `X-BlobServe-ReadOnly`: only what is known, nothing revalidated.
    ReadOnly,
}

/// All images. One per process; clones share.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    policies: Policies,
    preparer: Arc<Preparer>,
    registries: Arc<Registries>,
    pool: Pool,
    tag_ttl: Duration,
    stale_if_error: Duration,
    /// Written by flights, read by every request.
    views: DashMap<Reference, Remembered>,
    uses: ImageUses,
    /// What a reference with a tag means now, and its packs.
    tags: Flights<Reference, View, Arc<Upper>>,
    /// By repository and digest.
    digests: Flights<(Repository, Digest), Prepared, Arc<Upper>>,
    /// What is left to do for references of which somebody was answered early.
    rest: Flights<Reference, ()>,
    missing: Failures<Reference>,
    integrity: Integrity,
    origins: Origins,
    variants: Variants,
    names: Names,
    abouts: Abouts,
    draining: watch::Sender<bool>,
}

impl Images {
    /// Puts the parts together. Starts nothing.
    pub fn new(
        config: &Config,
        registries: Arc<Registries>,
        blobspace: Arc<Blobspace<Pack>>,
        metrics: Arc<Metrics>,
    ) -> Images {
        let pool = Pool::new(
            config.workers,
            config.workers_per_registry,
            config.memory_limit,
        );
        let ledger = Ledger::new(blobspace.clone());
        let names = Names::new(blobspace.clone());
        let origins = Origins::new(ledger.clone());
        let variants = Variants::new(blobspace.clone(), metrics.clone(), config.memory_limit);
        let fetcher = Fetcher::new(
            registries.clone(),
            blobspace.clone(),
            ledger.clone(),
            pool.clone(),
            config.limits.clone(),
        );
        let preparer = Preparer::new(
            ledger,
            registries.clone(),
            blobspace,
            metrics,
            fetcher,
            config.platform.clone(),
        );
        Images(Arc::new(Inner {
            policies: Policies::new(config),
            preparer: Arc::new(preparer),
            registries,
            pool,
            tag_ttl: config.tag_ttl,
            stale_if_error: config.stale_if_error,
            views: DashMap::new(),
            uses: ImageUses::default(),
            tags: Flights::new(),
            digests: Flights::new(),
            rest: Flights::new(),
            missing: Failures::new(MISSING_LASTS),
            integrity: Integrity::new(),
            origins,
            variants,
            names,
            abouts: Abouts::new(config.tag_ttl, config.stale_if_error),
            draining: watch::Sender::new(false),
        }))
    }

    /// The view, if it is here and fresh. Never waits: the warm path.
    pub fn warm(&self, reference: &Reference) -> Option<View> {
        let remembered = self.0.views.get(reference)?;
        if !remembered.info.is_current(Instant::now()) {
            return None;
        }
        remembered.upgrade()
    }

    /// The view, fetched if need be. Dropping the future does not stop the work.
    ///
    /// # Errors
    /// See [`ImageError`]; [`ImageError::Busy`] as soon as [`Images::drain`] is called.
    pub async fn get(&self, reference: &Reference, ask: Ask) -> Result<View, ImageError> {
        if let Some(view) = self.warm(reference) {
            return Ok(view);
        }
        let early = early::unheard();
        self.unless_draining(self.0.get(reference, ask, &early))
            .await
    }

    async fn unless_draining<T>(
        &self,
        asking: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        let mut draining = self.0.draining.subscribe();
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => Err(ImageError::Busy("shutting down".into())),
            outcome = asking => outcome,
        }
    }

    /// What the configuration says of a repository's site. None: the repository is forbidden. Never waits.
    pub fn site(&self, repository: &Repository) -> Option<&SiteConfig> {
        Some(&self.0.policies.of(repository)?.site)
    }

    /// From now on nothing cold is fetched: all who wait get [`ImageError::Busy`].
    pub fn drain(&self) {
        self.0.draining.send_replace(true);
        self.0.variants.end();
    }

    /// Whether a file of so many bytes may have variants of our own.
    pub fn encodable(&self, bytes: u64) -> bool {
        self.0.variants.takes(bytes)
    }

    /// Our own variants of a file, as far as they are here. Never waits.
    pub fn variants(&self, file: &FileNode) -> Found {
        self.0.variants.find(file)
    }

    /// Has a variant made in the background, for later requests. Never waits.
    pub fn encode(&self, file: &FileNode, coding: Coding) {
        self.0.variants.demand(file, coding);
    }

    /// A variant of the file, made now if need be. Dropping the future does not stop the work. None: none
    /// can come now.
    ///
    /// # Errors
    /// [`ImageError::Busy`]: too many wait, or we are shutting down.
    pub async fn encoded(
        &self,
        file: &FileNode,
        coding: Coding,
    ) -> Result<Option<FileNode>, ImageError> {
        self.0.variants.get(file, coding).await
    }

    /// The label of the origin that serves the reference and nothing else; it stands for it from now on.
    /// To be asked for references that there is a view of, so that nobody fills the records with others.
    pub async fn origin(&self, reference: &Reference) -> String {
        self.0.origins.assign(reference).await
    }

    /// What the label of an origin stands for, if that was looked up lately. Never waits.
    pub fn warm_origin(&self, label: &str) -> Option<Reference> {
        self.0.origins.warm(label)
    }

    /// What the label of an origin stands for. None: nothing.
    pub async fn find_origin(&self, label: &str) -> Option<Reference> {
        self.0.origins.find(label).await
    }

    /// Computes the SHA-256 of files.
    pub fn integrity(&self) -> &Integrity {
        &self.0.integrity
    }

    /// Flights under way and downloads that wait for a place in the pool, for metrics.
    pub fn activity(&self) -> (usize, usize) {
        (
            self.0.tags.count() + self.0.digests.count(),
            self.0.pool.queued(),
        )
    }
}

impl Inner {
    /// `early` hears of upper layers while lower ones arrive.
    async fn get(
        self: &Arc<Self>,
        reference: &Reference,
        ask: Ask,
        early: &Early<Arc<Upper>>,
    ) -> Result<View, ImageError> {
        let Some(policy) = self.policies.of(&reference.repository) else {
            return Err(ImageError::Forbidden(reference.repository.clone()));
        };
        match (&reference.version, ask) {
            (Version::Digest(digest), Ask::Normal) => {
                self.by_digest(reference, policy, *digest, early).await
            }
            (Version::Digest(digest), Ask::ReadOnly) => {
                // Boarded before the look at the disk: what flies and lands meanwhile is known by then.
                let key = (reference.repository.clone(), *digest);
                let flight = self.digests.joined(&key);
                if self.preparer.is_known(&reference.repository, *digest).await {
                    return self.by_digest(reference, policy, *digest, early).await;
                }
                match flight {
                    Some(flight) => Ok(self.remember(reference, policy, &flight.await?, None)),
                    None => Err(unknown(reference)),
                }
            }
            (Version::Tag(_), Ask::Normal) => self.by_tag(reference, policy, early).await,
            (Version::Tag(_), Ask::ReadOnly) => {
                let flight = self.tags.joined(reference);
                if let Some(KnownTag { digest, .. }) = self.preparer.ledger.tag(reference).await
                    && self.preparer.is_known(&reference.repository, digest).await
                {
                    return self.by_digest(reference, policy, digest, early).await;
                }
                match flight {
                    Some(flight) => flight.await,
                    None => Err(unknown(reference)),
                }
            }
        }
    }

    async fn by_digest(
        self: &Arc<Self>,
        reference: &Reference,
        policy: &Arc<Policy>,
        digest: Digest,
        early: &Early<Arc<Upper>>,
    ) -> Result<View, ImageError> {
        // What is missing is that image, whatever the tag may mean soon.
        let exact = Reference {
            repository: reference.repository.clone(),
            version: Version::Digest(digest),
        };
        if let Some(error) = self.missing.get(&exact) {
            return Err(error);
        }
        let outcome = self.prepared(reference, policy, digest, early).await;
        if let Err(error @ ImageError::NotFound(_)) = &outcome {
            self.missing.put(exact, error.clone());
        }
        if let Ok(prepared) = &outcome {
            self.note(reference, policy, digest, &prepared.image).await;
        }
        let fresh = match reference.version {
            Version::Digest(_) => None,
            Version::Tag(_) => Some((SystemTime::UNIX_EPOCH, Duration::ZERO)),
        };
        Ok(self.remember(reference, policy, &outcome?, fresh))
    }

    /// The packs of that digest. One flight per repository and digest, whatever tag it was asked by.
    async fn prepared(
        self: &Arc<Self>,
        reference: &Reference,
        policy: &Arc<Policy>,
        digest: Digest,
        early: &Early<Arc<Upper>>,
    ) -> Result<Prepared, ImageError> {
        let (preparer, policy, asked) = (self.preparer.clone(), policy.clone(), reference.clone());
        let prepare = |early: Early<_>| async move {
            preparer.prepare(&asked, digest, &policy, &early).await
        };
        let key = (reference.repository.clone(), digest);
        self.digests.join_early(key, early, prepare).await
    }
}

fn unknown(reference: &Reference) -> ImageError {
    ImageError::NotFound(
        format!("{reference} is not known here, and the request forbids to fetch it").into(),
    )
}
