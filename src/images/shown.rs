//! What a virtual host decides of a view in place of its repository.

use super::flight::Flights;
use super::policy::cleaned;
use super::site::{Place, is_decided};
use super::{ImageError, View, ViewInfo};
use crate::config::{HostConfig, SiteConfig};
use crate::digest::Digest;
use crate::rules::Rules;
use std::sync::{Arc, Mutex, PoisonError};

/// How one virtual host shows its image: the files are the view's, some settings its own.
pub struct Shown {
    config: HostConfig,
    /// Cleaned, as [`ViewInfo::workdir`].
    workdir: Option<Vec<u8>>,
    site: Option<Arc<SiteConfig>>,
    /// What was made last: of which, and that. Held to look and to replace.
    last: Mutex<Option<[Arc<ViewInfo>; 2]>>,
    /// What the image's files say of this host, by the digest of its manifest.
    rules: Flights<Digest, Arc<Rules>>,
}

impl Shown {
    /// As the configuration says. To be called on the runtime that its files are to be read on.
    pub fn new(config: &HostConfig) -> Shown {
        Shown {
            workdir: config.workdir.as_deref().map(cleaned),
            site: config.site.clone().map(Arc::new),
            config: config.clone(),
            last: Mutex::default(),
            rules: Flights::new(),
        }
    }

    /// What its answers carry, where that differs from its repository's.
    pub fn site(&self) -> Option<&SiteConfig> {
        self.site.as_deref()
    }

    /// The view as this host shows it: current as long as the one that it is made of. None: the image's
    /// files are to be asked first, see [`Shown::make`]. Never waits.
    pub fn of(&self, view: &View) -> Option<View> {
        let mut last = self.last();
        let rules = match &*last {
            Some([of, made]) if Arc::ptr_eq(of, &view.info) => {
                return Some(view.clone().with(made.clone()));
            }
            _ if self.is_as_its_repository() => view.info.rules.clone(),
            // Another look at the same image: its files say what they said.
            Some([of, made]) if of.digest == view.info.digest => made.rules.clone(),
            _ => return None,
        };
        let made = Arc::new(self.apply(&view.info, rules));
        *last = Some([view.info.clone(), made.clone()]);
        drop(last);
        Some(view.clone().with(made))
    }

    /// The same, with a look into the image for the rules of this host: once an image, and a single one
    /// however many ask.
    ///
    /// # Errors
    /// The disk does not give the files: an image is not served without the rules that it has.
    pub async fn make(&self, view: View) -> Result<View, ImageError> {
        let info = &view.info;
        let place = Place {
            reference: info.reference.clone(),
            site: self.site.as_ref().unwrap_or(&info.site).clone(),
            workdir: self.workdir.as_ref().unwrap_or(&info.workdir).clone(),
            base: view.base.clone(),
            modified: view.modified.clone(),
        };
        if !is_decided(&place.site, &place.workdir, &place.base) {
            // Upper layers, which what another request made of the whole image was enough for.
            return Err(ImageError::Busy("the image is still arriving".into()));
        }
        let read = || async { Ok(Arc::new(place.rules().await?)) };
        let rules = self.rules.join(info.digest, read).await?;
        let made = Arc::new(self.apply(info, rules));
        *self.last() = Some([info.clone(), made.clone()]);
        Ok(view.with(made))
    }

    /// What the image's files say of serving it is the same as for its repository.
    fn is_as_its_repository(&self) -> bool {
        self.workdir.is_none() && self.site.is_none()
    }

    /// How this host sends what is said about its image, which no rules are for.
    pub fn info(&self, info: &ViewInfo) -> Arc<ViewInfo> {
        Arc::new(self.apply(info, info.rules.clone()))
    }

    fn apply(&self, info: &ViewInfo, rules: Arc<Rules>) -> ViewInfo {
        ViewInfo {
            workdir: self.workdir.as_ref().unwrap_or(&info.workdir).clone(),
            listing: self.config.listing.unwrap_or(info.listing),
            cache: self.config.cache.unwrap_or(info.cache),
            site: self.site.as_ref().unwrap_or(&info.site).clone(),
            encodings: self.config.encodings.unwrap_or(info.encodings),
            repr_digest: self.config.repr_digest.unwrap_or(info.repr_digest),
            // Named by the operator, and alone on its origin.
            configured: true,
            rules,
            ..info.clone()
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<[Arc<ViewInfo>; 2]>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn with(self, info: Arc<ViewInfo>) -> View {
        View { info, ..self }
    }
}
