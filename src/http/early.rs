//! Whether the upper layers of an image alone give the answer that all of its layers would give. The recipe is
//! the same either way; this walks through the part of it that looks into the image, and sees whether a
//! look led to where lower layers decide.

use super::lead::{How, Lead, Site, lead};
use super::locate::{Entry, Tree, Wanted};
use super::offer::SUFFIXES;
use crate::images::{DirectoryNode, FileNode, ResolveError, View};
use http::Method;
use http::header::HeaderMap;
use std::cell::Cell;

/// A view whose look-ups are watched.
struct Watched<'a> {
    view: &'a View,
    /// A lower layer may change what one of them gave.
    unsure: Cell<bool>,
}

impl Tree for Watched<'_> {
    type File = FileNode;
    type Directory = DirectoryNode;
    fn find(&self, path: &[u8]) -> Option<Entry<FileNode, DirectoryNode>> {
        if self.view.find(path).err() == Some(ResolveError::Below) {
            self.unsure.set(true);
        }
        Tree::find(self.view, path)
    }
}

/// Whether this view of upper layers gives the answer of the whole image.
pub(super) fn suffices(
    view: &View,
    wanted: Wanted<'_>,
    (method, headers): (&Method, &HeaderMap),
) -> bool {
    let tree = Watched {
        view,
        unsure: Cell::new(false),
    };
    let site = Site {
        config: &view.info.site,
        rules: &view.info.rules,
    };
    let led = lead(&tree, wanted, site, headers);
    if tree.unsure.get() {
        return false;
    }
    let warms_up = *method == Method::HEAD;
    match led {
        Lead::File(_, _, How::NotFound) => !warms_up,
        Lead::File(_, path, _) => view.decides_beside(&path, SUFFIXES),
        // A HEAD asks whether the image is ready.
        Lead::Redirect { .. } | Lead::Nothing => !warms_up,
        // Lower layers may have more in it.
        Lead::Listing(_) => false,
    }
}
