//! Changing: references and images are removed, pinned, unpinned.

use super::look::{Known, found, own_packs};
use super::names::Name;
use super::{Catalogue, ImageRecord};
use crate::blobspace::{Key, RecordKind};
use crate::images::ledger::name_of;
use std::collections::BTreeSet;

impl Catalogue {
    /// Removes what is named. With the last tag of a repository its digests go too: nobody else names them.
    pub(super) fn remove(&self, what: &str) -> Result<ImageRecord, String> {
        let all = self.known();
        let gone = with_digests(&all, found(&all, what)?);
        let blobspace = &self.names.blobspace;
        if let Some(pinned) = gone.iter().find(|it| blobspace.is_pinned(&it.name.key())) {
            return Err(format!(
                "`{0}` is pinned: `blobserve image unpin {0}` first",
                pinned.name.reference
            ));
        }
        for known in &gone {
            self.check_not_retained(&known.name)?;
        }
        let image = self.image(&all, &gone[0].name.id, &own_packs(&all));
        for reference in gone.iter().filter_map(|known| known.name.parsed()) {
            if let Some(server) = &self.server {
                server.0.end_view(&reference);
            }
            self.names.remove(&reference);
        }
        for known in &gone {
            blobspace.remove_record(RecordKind::Tag, &known.name.key());
        }
        let is_gone = |known: &Known| gone.iter().any(|it| it.name == known.name);
        let left: Vec<&Known> = all.iter().filter(|known| !is_gone(known)).collect();
        let used: BTreeSet<&Key> = left.iter().flat_map(|known| &known.packs).collect();
        let packs: BTreeSet<&Key> = gone.iter().flat_map(|known| &known.packs).collect();
        for pack in packs.difference(&used) {
            blobspace.discard(pack);
            blobspace.discard(&Key::source(pack));
        }
        let documents = |of: &[&Known]| -> BTreeSet<String> {
            let digests = of.iter().flat_map(|known| known.name.documents());
            digests.map(|digest| name_of(&digest)).collect()
        };
        for document in documents(&gone).difference(&documents(&left)) {
            blobspace.remove_record(RecordKind::Document, document);
        }
        Ok(image)
    }

    pub(super) fn pin(&self, what: &str) -> Result<ImageRecord, String> {
        let all = self.known();
        for known in found(&all, what)? {
            let (name, pin) = (&known.name, self.names.pin_of(&known.name));
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
        let all = self.known();
        for known in found(&all, what)? {
            self.names.blobspace.unpin(&known.name.key());
            self.check_not_retained(&known.name)?;
        }
        self.show(what)
    }

    fn check_not_retained(&self, name: &Name) -> Result<(), String> {
        match self.is_retained(name) {
            true => Err(format!(
                "`{}` is kept by `retain` of its repository: take it out of the configuration, and restart",
                name.reference
            )),
            false => Ok(()),
        }
    }
}

/// The names, and the digests of those repositories of which no tag is left that means the image.
fn with_digests<'a>(all: &'a [Known], mut gone: Vec<&'a Known>) -> Vec<&'a Known> {
    let repository = |known: &Known| known.name.parsed().map(|reference| reference.repository);
    let among = |gone: &[&Known], known: &Known| gone.iter().any(|it| it.name == known.name);
    let tags: Vec<&Known> = gone.iter().copied().filter(|it| it.name.is_tag()).collect();
    for tag in tags {
        let same = |it: &&Known| it.name.id == tag.name.id && repository(it) == repository(tag);
        let tag_left = |it: &Known| it.name.is_tag() && !among(&gone, it);
        if !all.iter().filter(same).any(tag_left) {
            let digests: Vec<&Known> = all
                .iter()
                .filter(same)
                .filter(|it| !among(&gone, it))
                .collect();
            gone.extend(digests);
        }
    }
    gone
}
