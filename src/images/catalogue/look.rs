//! Looking: names become images, with what the documents say and what is on disk.

use super::names::{Described, Name};
use super::{Catalogue, ImageRecord, LayerRecord, LayerState};
use crate::blobspace::{Key, RecordKind};
use crate::digest::Digest;
use crate::images::fetch::kept_key;
use crate::images::ledger::{delivered, hashed};
use crate::merge::chain_id;
use crate::oci::{Descriptor, config_platform};
use crate::reference::{Reference, Repository, Version};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A name with what is known of its image.
pub(super) struct Known {
    pub(super) name: Name,
    pub(super) described: Described,
    pub(super) packs: Vec<Key>,
}

impl Catalogue {
    /// All names, by reference.
    pub(super) fn known(&self) -> Vec<Known> {
        let names = self.names.all().into_iter();
        let known = names.map(|name| {
            let described = self.names.describe(&name);
            let packs = self.names.packs(&name, &described);
            Known {
                name,
                described,
                packs,
            }
        });
        known.collect()
    }

    pub(super) fn list(&self) -> Vec<ImageRecord> {
        let all = self.known();
        let ids: BTreeSet<&str> = all.iter().map(|known| known.name.id.as_str()).collect();
        let own = own_packs(&all);
        let mut images: Vec<_> = ids.iter().map(|id| self.image(&all, id, &own)).collect();
        images.sort_by(|a, b| a.references.cmp(&b.references));
        images
    }

    pub(super) fn show(&self, what: &str) -> Result<ImageRecord, String> {
        let all = self.known();
        let id = found(&all, what)?[0].name.id.clone();
        let mut image = self.image(&all, &id, &own_packs(&all));
        let mut of_it = all.into_iter().filter(|known| known.name.id == id);
        image.configuration = of_it.find_map(|known| known.described.config);
        Ok(image)
    }

    /// The image with that ID, which one of the names has.
    pub(super) fn image(
        &self,
        all: &[Known],
        id: &str,
        own: &HashMap<&Key, Option<&str>>,
    ) -> ImageRecord {
        let of_it = || all.iter().filter(|known| known.name.id == id);
        // Manifests of one configuration may differ: one of those that are here.
        let nothing = Described::default();
        let here = of_it().find(|known| known.described.manifest.is_some());
        let described = here.map_or(&nothing, |known| &known.described);
        let repositories: Vec<Repository> = of_it()
            .filter_map(|known| Some(known.name.parsed()?.repository))
            .collect();
        let manifest = described.manifest.as_ref();
        let layers: Vec<LayerRecord> = manifest
            .iter()
            .flat_map(|(manifest, _)| manifest.layers.iter().enumerate())
            .map(|(number, layer)| self.layer(described, number, layer, &repositories))
            .collect();
        let (mut pinned_references, mut retained_references) = (Vec::new(), Vec::new());
        for Known { name, .. } in of_it() {
            let is_retained = self.is_retained(name);
            if is_retained || self.names.blobspace.is_pinned(&name.key()) {
                pinned_references.push(name.reference.clone());
            }
            if is_retained {
                retained_references.push(name.reference.clone());
            }
        }
        let on_disk: BTreeMap<&str, u64> = layers
            .iter()
            .filter_map(|layer| Some((layer.digest.as_str(), layer.unpacked?)))
            .collect();
        let kept: BTreeMap<&str, u64> = layers
            .iter()
            .filter_map(|layer| Some((layer.digest.as_str(), layer.compressed?)))
            .collect();
        let manifest_digest = here.or(of_it().next()).map(|known| &known.name.manifest);
        ImageRecord {
            id: id.to_owned(),
            references: of_it().map(|known| known.name.reference.clone()).collect(),
            pinned: !pinned_references.is_empty(),
            pinned_references,
            retained_references,
            manifest: manifest_digest.cloned().unwrap_or_default(),
            chain_id: chain_id(described.diff_ids.iter().copied()).map(|chain| chain.to_string()),
            artifact_type: described
                .said
                .as_ref()
                .and_then(|said| said.kind().map(str::to_owned)),
            annotations: described
                .said
                .as_ref()
                .map(|said| said.annotations.clone())
                .unwrap_or_default(),
            platform: (described.config.as_ref())
                .and_then(config_platform)
                .map(|platform| platform.to_string()),
            size: manifest.map(|(manifest, length)| {
                let sizes = manifest.layers.iter().map(|layer| layer.size);
                sizes.fold(length.saturating_add(manifest.config.size), |sum, size| {
                    sum.saturating_add(size)
                })
            }),
            unpacked: on_disk.values().sum(),
            compressed: kept.values().sum(),
            last_used: of_it()
                .filter_map(|known| self.last_use(known, own))
                .max()
                .map(|micros| micros / 1_000_000),
            layers,
            configuration: None,
        }
    }

    /// The configuration pins it.
    pub(super) fn is_retained(&self, name: &Name) -> bool {
        self.names.blobspace.is_pinned(&name.retain_key())
    }

    /// When the image was used by that name, microseconds since 1970: the last request for it, the end of the
    /// last answer with its files, or of the last lease on a pack that no other image has.
    fn last_use(&self, known: &Known, own: &HashMap<&Key, Option<&str>>) -> Option<u64> {
        let blobspace = &self.names.blobspace;
        let asked = blobspace.record_use(RecordKind::Name, &known.name.key());
        let view = self.server.as_ref().and_then(|server| {
            let view = server.0.views.get(&known.name.parsed()?)?;
            Some(view.info.lasts.last_use_since_1970())
        });
        let ended = self.server.as_ref().and_then(|server| {
            let exact = Reference {
                repository: known.name.parsed()?.repository,
                version: Version::Digest(known.name.digest.parse().ok()?),
            };
            server.0.uses.last(&exact)
        });
        let alone = known.packs.iter().filter(|key| {
            let owner = own.get(key).copied().flatten();
            owner.is_some()
        });
        let leased = alone.filter_map(|key| Some(blobspace.facts(key)?.last_use));
        leased.chain(asked).chain(view).chain(ended).max()
    }

    fn layer(
        &self,
        described: &Described,
        number: usize,
        layer: &Descriptor,
        repositories: &[Repository],
    ) -> LayerRecord {
        let diff_id = described.diff_ids.get(number);
        let chain = diff_id.and_then(|_| chain_id(described.diff_ids[..=number].iter().copied()));
        let served = described.layers.get(number).and_then(Option::as_ref);
        let packs = served.map(|layer| self.names.packs_of(layer));
        let mut packs = packs.iter().flatten();
        let facts = packs.find_map(|key| self.names.blobspace.facts(key));
        let blob = served.and_then(|layer| self.names.blobspace.facts(&kept_key(layer)));
        let fetching = || {
            let server = self.server.as_ref();
            server.is_some_and(|server| {
                let mut hosts = repositories.iter().map(Repository::host);
                hosts.any(|host| server.0.preparer.fetches(host, layer.digest))
            })
        };
        let state = match facts {
            Some(_) => LayerState::Sealed,
            None if fetching() => LayerState::Fetching,
            None if self.was_here(repositories, layer.digest) => LayerState::Evicted,
            None => LayerState::Unknown,
        };
        LayerRecord {
            digest: layer.digest.to_string(),
            diff_id: diff_id.map(Digest::to_string),
            chain_id: chain.map(|chain| chain.to_string()),
            media_type: layer.media_type.clone(),
            size: layer.size,
            unpacked: facts.map(|facts| facts.bytes),
            compressed: blob.map(|facts| facts.bytes),
            state,
        }
    }

    /// A host has delivered it to us.
    fn was_here(&self, repositories: &[Repository], layer: Digest) -> bool {
        repositories.iter().any(|repository| {
            let [claim, _] = delivered(repository, layer);
            let blobspace = &self.names.blobspace;
            let there = blobspace.peek_record(RecordKind::Claim, &hashed(&claim));
            there.is_some_and(|bytes| bytes == claim.as_bytes())
        })
    }
}

/// The one image that has a pack; None where several do.
pub(super) fn own_packs(all: &[Known]) -> HashMap<&Key, Option<&str>> {
    let mut own: HashMap<&Key, Option<&str>> = HashMap::new();
    for known in all {
        let id = known.name.id.as_str();
        for key in &known.packs {
            let owner = own.entry(key).or_insert(Some(id));
            if *owner != Some(id) {
                *owner = None;
            }
        }
    }
    own
}

/// The names that are meant: the one of a reference, or all of the image whose ID begins like that; not empty.
pub(super) fn found<'a>(all: &'a [Known], what: &str) -> Result<Vec<&'a Known>, String> {
    let reference = crate::reference::Reference::parse(what).map(|reference| reference.to_string());
    if let Ok(reference) = reference
        && let Some(known) = all.iter().find(|known| known.name.reference == reference)
    {
        return Ok(vec![known]);
    }
    let prefix = what.to_ascii_lowercase();
    let is_meant = |id: &str| {
        let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
        !prefix.is_empty()
            && (hex.starts_with(&prefix) || id == prefix || {
                let (algorithm, rest) = prefix.split_once(':').unwrap_or(("", ""));
                !rest.is_empty() && id.starts_with(algorithm) && hex.starts_with(rest)
            })
    };
    let meant: Vec<&Known> = all
        .iter()
        .filter(|known| is_meant(&known.name.id))
        .collect();
    let mut ids: Vec<&str> = meant.iter().map(|known| known.name.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    match ids.as_slice() {
        [] => Err(format!(
            "no image is known by `{what}`: `blobserve images` lists those that are"
        )),
        [_] => Ok(meant),
        several => Err(format!(
            "`{what}` is ambiguous, {} images begin like that: {}",
            several.len(),
            several.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_reference_or_by_the_beginning_of_its_id() {
        let name = |reference: &str, id: &str| Known {
            name: Name {
                reference: reference.into(),
                digest: String::new(),
                manifest: String::new(),
                indexes: Vec::new(),
                id: format!("sha256:{id}"),
                selected: Vec::new(),
            },
            described: Described::default(),
            packs: Vec::new(),
        };
        let names = [
            name("a.example/x:1", "abc1"),
            name("a.example/x:2", "abc1"),
            name("a.example/y:1", "abd2"),
        ];
        let table: &[(&str, Result<&[&str], &str>)] = &[
            ("a.example/x:1", Ok(&["a.example/x:1"])),
            ("abc", Ok(&["a.example/x:1", "a.example/x:2"])),
            ("ABD", Ok(&["a.example/y:1"])),
            ("sha256:abd", Ok(&["a.example/y:1"])),
            ("sha256:abc1", Ok(&["a.example/x:1", "a.example/x:2"])),
            (
                "ab",
                Err("2 images begin like that: sha256:abc1, sha256:abd2"),
            ),
            ("sha512:ab", Err("no image is known by `sha512:ab`")),
            ("sha256:", Err("no image is known")),
            ("", Err("no image is known")),
            ("a.example/z:1", Err("no image is known by `a.example/z:1`")),
        ];
        for (what, expected) in table {
            match (found(&names, what), expected) {
                (Ok(found), Ok(expected)) => {
                    let found: Vec<_> = found.iter().map(|known| &known.name.reference).collect();
                    assert_eq!(found, *expected, "{what}");
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{what}: {error}"),
                (got, _) => panic!("{what}: found {}", got.map_or(0, |found| found.len())),
            }
        }
    }
}
