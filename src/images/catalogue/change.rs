//! Changing: references and images are removed, pinned, unpinned.

use super::look::found;
use super::names::Name;
use super::{Catalogue, ImageRecord};
use crate::blobspace::RecordKind;
use crate::digest::Digest;
use crate::images::ledger::name_of;
use std::collections::BTreeSet;

impl Catalogue {
    /// Removes what is named. With the last tag of a repository its digests go too: nobody else names them.
    pub(super) fn remove(&self, what: &str) -> Result<ImageRecord, String> {
        let names = self.names.all();
        let gone = with_digests(&names, found(&names, what)?);
        let blobspace = &self.names.blobspace;
        if let Some(pinned) = gone.iter().find(|name| blobspace.is_pinned(&name.key())) {
            return Err(format!(
                "`{0}` is pinned: `blobserve image unpin {0}` first",
                pinned.reference
            ));
        }
        let (image, described) = self.image(&gone);
        for reference in gone.iter().filter_map(|name| name.parsed()) {
            if let Some(server) = &self.server {
                server.0.end_view(&reference);
            }
            self.names.remove(&reference);
        }
        for name in &gone {
            blobspace.remove_record(RecordKind::Tag, &name.key());
        }
        let left: Vec<&Name> = names.iter().filter(|name| !gone.contains(name)).collect();
        if left.iter().any(|name| name.id == image.id) {
            return Ok(image);
        }
        let used = left
            .iter()
            .flat_map(|name| self.names.packs(&self.names.describe(name)));
        let used: BTreeSet<_> = used.collect();
        let packs = self.names.packs(&described);
        for pack in packs.iter().filter(|pack| !used.contains(pack)) {
            blobspace.discard(pack);
        }
        let documents = |name: &Name| {
            let digests = [&name.digest, &name.manifest, &name.id];
            digests.map(|digest| digest.parse::<Digest>().ok())
        };
        let used: BTreeSet<String> = left
            .iter()
            .flat_map(|name| documents(name))
            .flatten()
            .map(|digest| name_of(&digest))
            .collect();
        let unused = gone.iter().flat_map(|name| documents(name)).flatten();
        for document in unused.map(|digest| name_of(&digest)) {
            if !used.contains(&document) {
                blobspace.remove_record(RecordKind::Document, &document);
            }
        }
        Ok(image)
    }

    pub(super) fn pin(&self, what: &str) -> Result<ImageRecord, String> {
        let names = self.names.all();
        for name in found(&names, what)? {
            let pin = self.names.pin_of(name);
            if pin.packs.is_empty() {
                return Err(format!(
                    "the manifest of `{}` is not here: ask for the image once, then pin it",
                    name.reference
                ));
            }
            let pinned = self.names.blobspace.pin(&name.key(), pin);
            pinned.map_err(|error| format!("`{}` is not pinned: {error}", name.reference))?;
        }
        self.show(what)
    }

    pub(super) fn unpin(&self, what: &str) -> Result<ImageRecord, String> {
        let names = self.names.all();
        for name in found(&names, what)? {
            self.names.blobspace.unpin(&name.key());
        }
        self.show(what)
    }
}

/// The names, and the digests of those repositories of which no tag is left that means the image.
fn with_digests<'a>(all: &'a [Name], mut gone: Vec<&'a Name>) -> Vec<&'a Name> {
    let repository = |name: &Name| name.parsed().map(|reference| reference.repository);
    let tags: Vec<&Name> = gone.iter().copied().filter(|name| name.is_tag()).collect();
    for tag in tags {
        let same = |name: &&Name| name.id == tag.id && repository(name) == repository(tag);
        let tag_left = |name: &Name| name.is_tag() && !gone.contains(&name);
        if !all.iter().filter(same).any(tag_left) {
            let digests: Vec<&Name> = all
                .iter()
                .filter(same)
                .filter(|name| !gone.contains(name))
                .collect();
            gone.extend(digests);
        }
    }
    gone
}
