//! What a virtual host decides of a view in place of its repository.

use super::policy::cleaned;
use super::{View, ViewInfo};
use crate::config::HostConfig;
use std::sync::{Arc, Mutex, PoisonError};

/// How one virtual host shows its image: the files are the view's, some settings its own.
pub struct Shown {
    config: HostConfig,
    /// Cleaned, as [`ViewInfo::workdir`].
    workdir: Option<Vec<u8>>,
    /// What was made last: of which, and that. Held to look and to replace.
    last: Mutex<Option<[Arc<ViewInfo>; 2]>>,
}

impl Shown {
    /// As the configuration says.
    pub fn new(config: &HostConfig) -> Shown {
        Shown {
            workdir: config.workdir.as_deref().map(cleaned),
            config: config.clone(),
            last: Mutex::default(),
        }
    }

    /// The view as this host shows it: current as long as the one that it is made of.
    pub fn of(&self, view: View) -> View {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let info = match &*last {
            Some([of, made]) if Arc::ptr_eq(of, &view.info) => made.clone(),
            _ => {
                let made = Arc::new(self.apply(&view.info));
                *last = Some([view.info.clone(), made.clone()]);
                made
            }
        };
        View { info, ..view }
    }

    /// How this host sends what is said about its image.
    pub fn info(&self, info: &ViewInfo) -> Arc<ViewInfo> {
        Arc::new(self.apply(info))
    }

    fn apply(&self, info: &ViewInfo) -> ViewInfo {
        ViewInfo {
            workdir: self.workdir.as_ref().unwrap_or(&info.workdir).clone(),
            listing: self.config.listing.unwrap_or(info.listing),
            cache: self.config.cache.unwrap_or(info.cache),
            // Named by the operator, and alone on its origin.
            configured: true,
            ..info.clone()
        }
    }
}
