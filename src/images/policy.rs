//! What the configuration says of a repository, prepared once: which may be served, from
//! which directory, with which rules.

use crate::config::{CacheConfig, Config, Encodings, RepoConfig, SiteConfig};
use crate::modify::Rules;
use crate::oci::ImageConfig;
use crate::reference::{Reference, Repository, Version};
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::collections::HashMap;
use std::sync::Arc;

/// Label of an image that says its directory: JSON `{name, kind, …}`.
const IDE_MANIFEST: &str = "io.gitpod.ide.manifest";

/// All repositories.
pub(super) struct Policies {
    configured: HashMap<Repository, Arc<Policy>>,
    /// For repositories that are not configured, where those are allowed.
    any: Option<Arc<Policy>>,
}

/// One repository.
pub(super) struct Policy {
    pub(super) repo: RepoConfig,
    pub(super) configured: bool,
    pub(super) listing: bool,
    pub(super) cache: CacheConfig,
    pub(super) site: Arc<SiteConfig>,
    pub(super) origin: bool,
    pub(super) encodings: Encodings,
    pub(super) repr_digest: bool,
    pub(super) rules: Option<Rules>,
    immutable_tags: GlobSet,
    retain: GlobSet,
}

impl Policies {
    pub(super) fn new(config: &Config) -> Policies {
        let any_origin = config
            .origins
            .as_ref()
            .is_some_and(|origins| origins.unconfigured);
        let one = |repo: &RepoConfig, configured: bool| {
            Arc::new(Policy {
                configured,
                listing: repo.listing.unwrap_or(config.listing),
                cache: repo.cache.unwrap_or(config.cache),
                site: Arc::new(repo.site.clone()),
                repr_digest: repo.repr_digest.unwrap_or(config.repr_digest),
                origin: repo.origin || (any_origin && !configured),
                encodings: repo.encodings.unwrap_or(config.encodings),
                rules: Rules::new(&repo.replacements),
                immutable_tags: globs(&repo.immutable_tags),
                retain: globs(&repo.retain),
                repo: repo.clone(),
            })
        };
        Policies {
            configured: config
                .repos
                .iter()
                .map(|(name, repo)| (name.clone(), one(repo, true)))
                .collect(),
            any: config
                .allow_any_repo
                .then(|| one(&RepoConfig::default(), false)),
        }
    }

    /// None: forbidden.
    pub(super) fn of(&self, repository: &Repository) -> Option<&Arc<Policy>> {
        self.configured.get(repository).or(self.any.as_ref())
    }
}

impl Policy {
    /// The reference means one image for ever.
    pub(super) fn is_fixed(&self, version: &Version) -> bool {
        match version {
            Version::Digest(_) => true,
            Version::Tag(tag) => self.immutable_tags.is_match(&**tag),
        }
    }

    /// The reference's image is never evicted.
    pub(super) fn is_retained(&self, version: &Version) -> bool {
        match version {
            Version::Digest(_) => false,
            Version::Tag(tag) => self.retain.is_match(&**tag),
        }
    }

    /// Nothing but the digest (or a tag declared immutable) decides the layer's files. What InlineVars
    /// does to some of them on request is for the answer to say.
    pub(super) fn is_immutable(&self, reference: &Reference) -> bool {
        self.rules.is_none() && self.is_fixed(&reference.version)
    }

    /// Where URL paths start: the configured directory, else the label's, else the root.
    pub(super) fn workdir(&self, image: &ImageConfig) -> Vec<u8> {
        let workdir = match &self.repo.workdir {
            Some(workdir) => workdir.clone(),
            None => image
                .labels
                .get(IDE_MANIFEST)
                .and_then(|label| ide_directory(label))
                .unwrap_or_default(),
        };
        cleaned(&workdir)
    }
}

/// `/ide-desktop/<name>` for kind `desktop`, else `/ide/<name>`; None when there is no name.
fn ide_directory(label: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Ide {
        #[serde(default)]
        name: String,
        #[serde(default)]
        kind: String,
    }
    let ide: Ide = serde_json::from_str(label).ok()?;
    let parent = if ide.kind == "desktop" {
        "ide-desktop"
    } else {
        "ide"
    };
    (!ide.name.is_empty()).then(|| format!("/{parent}/{}", ide.name))
}

/// Without empty and dot components; `..` goes up, and not above the root.
pub(super) fn cleaned(path: &str) -> Vec<u8> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/").into_bytes()
}

/// The configuration refused globs that do not parse, so none is lost here.
fn globs(patterns: &[String]) -> GlobSet {
    let mut builder = GlobSetBuilder::new();
    for glob in patterns
        .iter()
        .filter_map(|pattern| Glob::new(pattern).ok())
    {
        builder.add(glob);
    }
    builder.build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_an_ide_names_its_directory() {
        let table = [
            (r#"{"name":"code","kind":"browser"}"#, Some("/ide/code")),
            (
                r#"{"name":"gateway","kind":"desktop","version":"1"}"#,
                Some("/ide-desktop/gateway"),
            ),
            (r#"{"name":"code"}"#, Some("/ide/code")),
            (r#"{"name":"","kind":"browser"}"#, None),
            (r#"{"kind":"browser"}"#, None),
            ("not json", None),
        ];
        for (label, directory) in table {
            assert_eq!(ide_directory(label).as_deref(), directory, "{label}");
        }
    }

    #[test]
    fn a_workdir_is_cleaned_and_never_above_the_root() {
        for (path, cleaned_path) in [
            ("/ide/", "ide"),
            ("", ""),
            ("/", ""),
            ("a//./b/../c", "a/c"),
            ("/../../etc", "etc"),
        ] {
            assert_eq!(cleaned(path), cleaned_path.as_bytes(), "{path}");
        }
    }
}
