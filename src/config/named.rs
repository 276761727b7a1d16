//! `registries.<host>` and `repos.<name>`: what has a name of the user's choice.

use super::answers::cache;
use super::decode::{Field, Reader, Section};
use super::layers;
use super::schema::path;
use super::site::site;
use super::tree::Node;
use super::{
    CacheConfig, InlineStatic, RegistryConfig, Replacement, RepoConfig, SiteConfig, units,
};
use crate::reference::grammar::{is_domain, is_tag};
use crate::reference::{Repository, canonical_host};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const REGISTRY: &[&str] = &[
    "plainHttp",
    "ca",
    "layout",
    "archive",
    "tokenHosts",
    "mirrors",
    "mirrorTags",
];
pub(super) const REPO: &[&str] = &[
    "prePull",
    "workdir",
    "replacements",
    "inlineStatic",
    "immutableTags",
    "retain",
    "listing",
    "cache",
    "spaFallback",
    "notFoundPage",
    "redirectsFile",
    "headersFile",
    "responseHeaders",
    "sandbox",
    "crossOriginResourcePolicy",
    "cors",
    "origin",
    "encodings",
    "layers",
    "redirectToDigest",
    "reprDigest",
    "about",
];
pub(super) const REPLACEMENT: &[&str] = &["path", "search", "replacement"];
pub(super) const INLINE_STATIC: &[&str] = &["search", "replacement"];

pub(super) fn registries(
    reader: &mut Reader<'_>,
    field: Option<Field<'_>>,
    base: &Path,
) -> BTreeMap<String, RegistryConfig> {
    let name = |key: &str| {
        match canonical_host(key) {
        Some(host) => Ok(host.into_owned()),
        None => Err("is not a registry's host, write for example \"registry.example.com\" or \"localhost:5000\" (no scheme, no path)".to_owned()),
    }
    };
    let mut registries = BTreeMap::new();
    for (host, path, node) in reader.named(field, name) {
        registries.insert(host, registry(reader, node, &path, base));
    }
    registries
}

fn registry(reader: &mut Reader<'_>, node: &Node, at: &str, base: &Path) -> RegistryConfig {
    let section = reader.section(node, at, REGISTRY, |_| None);
    let config = RegistryConfig {
        plain_http: reader.flag(section.get("plainHttp")).unwrap_or(false),
        ca: path(reader, section.get("ca"), base),
        layout: path(reader, section.get("layout"), base),
        archive: path(reader, section.get("archive"), base),
        token_hosts: reader.texts(section.get("tokenHosts"), host),
        mirrors: reader.texts(section.get("mirrors"), host),
        mirror_tags: reader.flag(section.get("mirrorTags")).unwrap_or(false),
    };
    let networked = config.plain_http
        || config.ca.is_some()
        || !config.token_hosts.is_empty()
        || !config.mirrors.is_empty();
    for (key, what, there) in [
        ("layout", "a layout", config.layout.is_some()),
        ("archive", "an archive", config.archive.is_some()),
    ] {
        if there && networked {
            let message = format!(
                "{what} is read without a network: remove the other keys of this registry, or this one"
            );
            reader.error(section.line, &section.path_of(key), &message);
        }
    }
    if config.layout.is_some() && config.archive.is_some() {
        let message = "a host has one source: remove `archive` or `layout`";
        reader.error(section.line, &section.path_of("archive"), message);
    }
    if config.mirror_tags && config.mirrors.is_empty() {
        let message = "there are no `mirrors` to ask: name them, or remove this";
        reader.error(section.line, &section.path_of("mirrorTags"), message);
    }
    if config.plain_http && config.ca.is_some() {
        let message = "plain HTTP has no certificates: remove `ca` or `plainHttp`";
        reader.error(section.line, &section.path_of("ca"), message);
    }
    config
}

fn host(text: &str) -> Result<String, String> {
    match is_domain(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(format!(
            "{text:?} is not a host, write for example \"mirror.example.com\" or \"10.0.0.7:5000\" (no scheme, no path)"
        )),
    }
}

pub(super) fn repos(
    reader: &mut Reader<'_>,
    field: Option<Field<'_>>,
    cache: &CacheConfig,
) -> BTreeMap<Repository, RepoConfig> {
    let name = |key: &str| {
        Repository::parse(key).map_err(|_| "is not a repository's name, write host and path without tag, for example \"docker.io/library/nginx\"".to_owned())
    };
    let mut repos = BTreeMap::new();
    for (repository, path, node) in reader.named(field, name) {
        repos.insert(repository, repo(reader, node, &path, cache));
    }
    repos
}

fn repo(reader: &mut Reader<'_>, node: &Node, at: &str, otherwise: &CacheConfig) -> RepoConfig {
    let section = reader.section(node, at, REPO, |_| None);
    let mut replacements = Vec::new();
    for (path, node) in reader.list(section.get("replacements")) {
        let section = reader.section(node, &path, REPLACEMENT, |_| None);
        let file = required(reader, &section, "path", |text| match inside(text) {
            Ok(_) if text.trim_matches('/').is_empty() => Err("is empty, name a file".into()),
            other => other,
        });
        let search = required(reader, &section, "search", not_empty);
        let replacement = reader
            .text(section.get("replacement"), anything)
            .unwrap_or_default();
        if let (Some(path), Some(search)) = (file, search) {
            replacements.push(Replacement {
                path,
                search,
                replacement,
            });
        }
    }
    let mut inline_static = Vec::new();
    for (path, node) in reader.list(section.get("inlineStatic")) {
        let section = reader.section(node, &path, INLINE_STATIC, |_| None);
        let search = required(reader, &section, "search", not_empty);
        let replacement = reader
            .text(section.get("replacement"), anything)
            .unwrap_or_default();
        if let Some(search) = search {
            inline_static.push(InlineStatic {
                search,
                replacement,
            });
        }
    }
    RepoConfig {
        pre_pull: reader.texts(section.get("prePull"), |text| match is_tag(text) {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is not a tag, write for example \"v1\"")),
        }),
        workdir: reader.word(section.get("workdir"), inside),
        replacements,
        inline_static,
        immutable_tags: reader.texts(section.get("immutableTags"), glob),
        retain: reader.texts(section.get("retain"), glob),
        listing: reader.flag(section.get("listing")),
        cache: section
            .node("cache")
            .map(|node| cache(reader, node, &section.path_of("cache"), otherwise))
            .filter(|cache| cache != otherwise),
        site: site(reader, &section, &SiteConfig::default()),
        origin: reader.flag(section.get("origin")).unwrap_or(false),
        encodings: reader.text(section.get("encodings"), units::encodings),
        layers: (reader.word(section.get("layers"), layers::parse)).unwrap_or_default(),
        redirect_to_digest: reader
            .flag(section.get("redirectToDigest"))
            .unwrap_or(false),
        repr_digest: reader.flag(section.get("reprDigest")),
        about: reader.flag(section.get("about")).unwrap_or(false),
    }
}

fn required<T>(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let field = section.get(key);
    if field.is_none() {
        reader.error(section.line, &section.path_of(key), "is missing");
    }
    reader.text(field, check)
}

fn anything(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn not_empty(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty, and would match everywhere: give a text".into()),
        _ => Ok(text.to_owned()),
    }
}

/// A path within an image.
pub(super) fn inside(text: &str) -> Result<String, String> {
    if text.split('/').any(|component| component == "..") {
        return Err(format!("{text:?} leaves the image: remove `..`"));
    }
    if text.contains('\0') {
        return Err(format!("{text:?} is not a path: it holds a NUL"));
    }
    Ok(text.to_owned())
}

fn glob(text: &str) -> Result<String, String> {
    match globset::Glob::new(text) {
        _ if text.is_empty() => Err("is empty, write for example \"v*\"".into()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{text:?} is not a glob ({}), write for example \"v*\" or \"[0-9]*\"",
            error.kind()
        )),
    }
}
