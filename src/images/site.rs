//! What an image's own files say of serving it: `_redirects` and `_headers`, where its repository lets
//! them. Read once an image, off the reactor, and remembered as long as a view of it is.

use super::ImageError;
use super::ledger::blocking;
use super::policy::Policy;
use super::prepare::Image;
use super::view::{FileNode, Files, file_at};
use crate::blobspace::Lease;
use crate::config::SiteConfig;
use crate::digest::Digest;
use crate::pack::{Pack, ResolveError};
use crate::reference::{Reference, Repository};
use crate::rules::{self, Fault, Headers, Redirects, Rules};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Images remembered before those are let go of whose views are gone.
const MOST_IDLE: usize = 256;

/// The rules of all images that are in use.
#[derive(Default)]
pub(super) struct Sites {
    /// Held for a look-up only.
    known: Mutex<HashMap<(Repository, Digest), Weak<Rules>>>,
}

/// Where rules are looked for, and which.
pub(super) struct Place {
    pub(super) reference: Reference,
    pub(super) site: Arc<SiteConfig>,
    /// Cleaned.
    pub(super) workdir: Vec<u8>,
    pub(super) base: Files,
    pub(super) modified: Option<Lease<Pack>>,
}

impl Sites {
    /// The rules of an image whose packs are here. What is wrong with them is logged, with file and line.
    ///
    /// # Errors
    /// The disk does not give the files: an image is not served without the rules that it has.
    pub(super) async fn rules(
        &self,
        reference: &Reference,
        image: &Image,
        policy: &Policy,
        base: &Files,
        modified: Option<&Lease<Pack>>,
    ) -> Result<Arc<Rules>, ImageError> {
        if !names_files(&policy.site) {
            return Ok(Arc::default());
        }
        let key = (reference.repository.clone(), image.digest);
        if let Some(rules) = self.known().get(&key).and_then(Weak::upgrade) {
            return Ok(rules);
        }
        let place = Place {
            reference: reference.clone(),
            site: policy.site.clone(),
            workdir: policy.workdir(&image.config),
            base: base.clone(),
            modified: modified.cloned(),
        };
        let rules = Arc::new(place.rules().await?);
        let mut known = self.known();
        if known.len() >= MOST_IDLE {
            known.retain(|_, rules| rules.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&rules));
        Ok(rules)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(Repository, Digest), Weak<Rules>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it takes a look into the image.
fn names_files(site: &SiteConfig) -> bool {
    let named = site.spa_fallback.is_some() || site.not_found_page.is_some();
    named || site.redirects_file || site.headers_file
}

impl Place {
    /// The rules that are there. What is wrong with them is logged, with file and line.
    ///
    /// # Errors
    /// As [`Sites::rules`].
    pub(super) async fn rules(self) -> Result<Rules, ImageError> {
        if !names_files(&self.site) {
            return Ok(Rules::default());
        }
        let read = blocking(move || self.read()).await;
        let failed = || {
            Err(ImageError::Internal(
                "reading the image's rules failed".into(),
            ))
        };
        read.unwrap_or_else(failed)
    }

    /// Blocking.
    fn read(&self) -> Result<Rules, ImageError> {
        let site = &self.site;
        for (key, path) in [
            ("spaFallback", &site.spa_fallback),
            ("notFoundPage", &site.not_found_page),
        ] {
            if let Some(path) = path
                && self.file(path).is_none()
            {
                let (reference, workdir) = (&self.reference, text(&self.workdir));
                tracing::warn!(%reference, key, path, workdir, "the image has no such file in its workdir");
            }
        }
        let mut rules = Rules::default();
        if site.redirects_file {
            let (redirects, faults) = match self.content(rules::REDIRECTS)? {
                Some(bytes) => Redirects::parse(&bytes),
                None => Default::default(),
            };
            self.tell(rules::REDIRECTS, &faults);
            rules.redirects = Some(redirects);
        }
        if site.headers_file {
            let (headers, faults) = match self.content(rules::HEADERS)? {
                Some(bytes) => Headers::parse(&bytes, |name| site.sets(name)),
                None => Default::default(),
            };
            self.tell(rules::HEADERS, &faults);
            rules.headers = Some(headers);
        }
        Ok(rules)
    }

    fn file(&self, path: &str) -> Option<FileNode> {
        let path = below(&self.workdir, path);
        file_at(&self.base, self.modified.as_ref(), &path)
    }

    /// None: there is no such file, or it is too large to be one of rules (logged).
    fn content(&self, name: &str) -> Result<Option<bytes::Bytes>, ImageError> {
        let Some(file) = self.file(name) else {
            return Ok(None);
        };
        if file.length > rules::MOST_BYTES {
            let (reference, length) = (&self.reference, file.length);
            tracing::warn!(%reference, "{name} has {length} bytes, {} at most: none of it holds", rules::MOST_BYTES);
            return Ok(None);
        }
        let whole = 0..file.length;
        let unread = |error: std::io::Error| {
            let reference = &self.reference;
            tracing::error!(%reference, %error, "the disk does not give {name}");
            ImageError::Internal(format!("the disk cannot read {name} of {reference}").into())
        };
        file.populate(whole.clone()).map_err(unread)?;
        // A copy: a page may be lost later, and parsing does not look for that.
        let bytes = bytes::Bytes::copy_from_slice(&file.bytes(whole));
        if file.poisoned() {
            return Err(unread(std::io::Error::other("a page could not be read")));
        }
        Ok(Some(bytes))
    }

    fn tell(&self, name: &str, faults: &[Fault]) {
        let reference = &self.reference;
        for fault in faults {
            tracing::warn!(%reference, "{name}:{fault}");
        }
    }
}

/// Whether these files say, whatever layers may lie below them, what [`Sites::rules`] asks them.
pub(super) fn is_decided(site: &SiteConfig, workdir: &[u8], base: &Files) -> bool {
    let named = [&site.spa_fallback, &site.not_found_page];
    let named = named.into_iter().filter_map(|path| path.as_deref());
    let read = [
        (site.redirects_file, rules::REDIRECTS),
        (site.headers_file, rules::HEADERS),
    ];
    let read = read.into_iter().filter_map(|(is, path)| is.then_some(path));
    let undecided = Err(ResolveError::Below);
    named
        .chain(read)
        .all(|path| base.resolve(&below(workdir, path)).map(drop) != undecided)
}

/// A path from the image's root.
fn below(workdir: &[u8], path: &str) -> Vec<u8> {
    let mut whole = workdir.to_vec();
    if !whole.is_empty() {
        whole.push(b'/');
    }
    whole.extend_from_slice(path.as_bytes());
    whole
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
