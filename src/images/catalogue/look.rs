//! Looking: names become images, with what the documents say and what is on disk.

use super::names::{Described, Name};
use super::{Catalogue, ImageRecord, LayerRecord, LayerState};
use crate::blobspace::RecordKind;
use crate::digest::Digest;
use crate::images::fetch::base_key;
use crate::images::ledger::{delivered, hashed};
use crate::merge::chain_id;
use crate::oci::{Descriptor, config_platform};
use crate::reference::Repository;
use std::collections::BTreeMap;

impl Catalogue {
    pub(super) fn list(&self) -> Vec<ImageRecord> {
        let names = self.names.all();
        let mut images: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
        for name in &names {
            images.entry(&name.id).or_default().push(name);
        }
        let mut images: Vec<_> = images.values().map(|names| self.image(names).0).collect();
        images.sort_by(|a, b| a.references.cmp(&b.references));
        images
    }

    pub(super) fn show(&self, what: &str) -> Result<ImageRecord, String> {
        let names = self.names.all();
        let id = &found(&names, what)?[0].id;
        let names: Vec<&Name> = names.iter().filter(|name| name.id == *id).collect();
        let (mut image, described) = self.image(&names);
        image.configuration = described.config;
        Ok(image)
    }

    /// The image that all these names mean; there is at least one.
    pub(super) fn image(&self, names: &[&Name]) -> (ImageRecord, Described) {
        let first = names[0];
        // Manifests of one configuration may differ: one of those that are here.
        let mut described = names.iter().map(|name| (name, self.names.describe(name)));
        let known = described.find(|(_, described)| described.manifest.is_some());
        let (name, described) =
            known.map_or((first, Described::default()), |(name, of)| (*name, of));
        let repositories: Vec<Repository> = names
            .iter()
            .filter_map(|name| Some(name.parsed()?.repository))
            .collect();
        let manifest = described.manifest.as_ref();
        let layers: Vec<LayerRecord> = manifest
            .iter()
            .flat_map(|(manifest, _)| manifest.layers.iter().enumerate())
            .map(|(number, layer)| self.layer(&described, number, layer, &repositories))
            .collect();
        let pinned_references: Vec<String> = names
            .iter()
            .filter(|name| self.names.blobspace.is_pinned(&name.key()))
            .map(|name| name.reference.clone())
            .collect();
        let packs = self.names.packs(&described);
        let uses = packs
            .iter()
            .filter_map(|key| self.names.blobspace.facts(key));
        let record = ImageRecord {
            id: name.id.clone(),
            references: names.iter().map(|name| name.reference.clone()).collect(),
            pinned: !pinned_references.is_empty(),
            pinned_references,
            manifest: name.manifest.clone(),
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
            unpacked: layers.iter().filter_map(|layer| layer.unpacked).sum(),
            last_used: uses.map(|facts| facts.last_use / 1_000_000).max(),
            layers,
            configuration: None,
        };
        (record, described)
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
        let mut packs = vec![base_key(&layer.digest)];
        packs.extend(diff_id.into_iter().flat_map(|id| self.names.otherwise(id)));
        let facts = packs.iter().find_map(|key| self.names.blobspace.facts(key));
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

/// The names that are meant: the one of a reference, or all of the image whose ID begins like that; not empty.
pub(super) fn found<'a>(names: &'a [Name], what: &str) -> Result<Vec<&'a Name>, String> {
    let reference = crate::reference::Reference::parse(what).map(|reference| reference.to_string());
    if let Ok(reference) = reference
        && let Some(name) = names.iter().find(|name| name.reference == reference)
    {
        return Ok(vec![name]);
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
    let meant: Vec<&Name> = names.iter().filter(|name| is_meant(&name.id)).collect();
    let mut ids: Vec<&str> = meant.iter().map(|name| name.id.as_str()).collect();
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
        let name = |reference: &str, id: &str| Name {
            reference: reference.into(),
            digest: String::new(),
            manifest: String::new(),
            id: format!("sha256:{id}"),
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
                    let found: Vec<_> = found.iter().map(|name| &name.reference).collect();
                    assert_eq!(found, *expected, "{what}");
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{what}: {error}"),
                (got, _) => panic!("{what}: {got:?}"),
            }
        }
    }
}
