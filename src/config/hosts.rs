//! `hosts.<name>` and `origins`: what is served by the Host that a request names.

use super::answers::cache;
use super::decode::{Field, Reader};
use super::named::inside;
use super::site::site;
use super::tree::Node;
use super::{CacheConfig, HostConfig, OriginsConfig, SiteConfig, units};
use crate::reference::Reference;
use crate::reference::grammar::is_domain;
use std::collections::BTreeMap;

pub(super) const HOST: &[&str] = &[
    "reference",
    "workdir",
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
    "encodings",
    "reprDigest",
];
pub(super) const ORIGINS: &[&str] = &["domain", "unconfigured"];
/// Longest host name (RFC 1035 §2.3.4, as text without its last dot).
const MOST_NAME: usize = 253;
/// A label and its dot, before the domain.
const LABEL: usize = 53;

/// What a host has of its reference's repository, where it does not say otherwise.
pub(super) struct OfRepository {
    pub(super) cache: CacheConfig,
    pub(super) site: SiteConfig,
}

/// `of`: what the repository of a reference says; None: it is not served.
pub(super) fn hosts(
    reader: &mut Reader<'_>,
    field: Option<Field<'_>>,
    of: impl Fn(&Reference) -> Option<OfRepository>,
) -> BTreeMap<String, HostConfig> {
    let mut hosts = BTreeMap::new();
    for (name, path, node) in reader.named(field, host_name) {
        if let Some(host) = host(reader, node, &path, &of) {
            hosts.insert(name, host);
        }
    }
    hosts
}

fn host(
    reader: &mut Reader<'_>,
    node: &Node,
    at: &str,
    of: impl Fn(&Reference) -> Option<OfRepository>,
) -> Option<HostConfig> {
    let section = reader.section(node, at, HOST, |_| None);
    let workdir = reader.word(section.get("workdir"), inside);
    let listing = reader.flag(section.get("listing"));
    let Some(field) = section.get("reference") else {
        let message = "is missing: say what this host serves, for example \"registry.example.com/team/docs:v1\"";
        reader.error(section.line, &section.path_of("reference"), message);
        return None;
    };
    let (reference, repository) = reader.text(Some(field), |text| {
        let reference = Reference::parse(text)
            .map_err(|error| format!("{error}, write host, path and tag, for example \"registry.example.com/team/docs:v1\""))?;
        match of(&reference) {
            Some(of) => Ok((reference, of)),
            None => Err(format!(
                "`{}` is not in `repos`, so every request would be refused: name it there",
                reference.repository
            )),
        }
    })?;
    let cache = section
        .node("cache")
        .map(|node| cache(reader, node, &section.path_of("cache"), &repository.cache))
        .filter(|cache| *cache != repository.cache);
    let site = Some(site(reader, &section, &repository.site));
    Some(HostConfig {
        reference,
        workdir,
        listing,
        cache,
        site: site.filter(|site| *site != repository.site),
        encodings: reader.text(section.get("encodings"), units::encodings),
        repr_digest: reader.flag(section.get("reprDigest")),
    })
}

/// None: images have no origins of their own.
pub(super) fn origins(reader: &mut Reader<'_>, node: &Node) -> Option<OriginsConfig> {
    let section = reader.section(node, "origins", ORIGINS, |_| None);
    let unconfigured = reader.flag(section.get("unconfigured")).unwrap_or(false);
    let domain = reader.word(section.get("domain"), domain);
    if unconfigured && section.get("domain").is_none() {
        let message =
            "is missing: say below which domain origins are, for example \"usercontent.example\"";
        reader.error(section.line, &section.path_of("domain"), message);
    }
    let (domain, port) = domain?;
    Some(OriginsConfig {
        domain,
        port,
        unconfigured,
    })
}

/// A host as requests name it: lower-case, no port, no dot at its end.
fn host_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let port = name
        .rsplit(']')
        .next()
        .is_some_and(|rest| rest.contains(':'));
    if is_domain(name) && !port && name.len() <= MOST_NAME {
        return Ok(name.to_ascii_lowercase());
    }
    Err("is not the name of a host, write for example \"docs.example.com\" (no scheme, no port, no path; other alphabets as `xn--…`)".to_owned())
}

/// `domain[:port]`.
fn domain(text: &str) -> Result<(String, Option<u16>), String> {
    let wrong = |why: &str| {
        format!(
            "{text:?} {why}, write for example \"usercontent.example\" or \"usercontent.example:8443\""
        )
    };
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => {
            let number = port.parse().ok().filter(|number| *number > 0);
            let number: u16 = number.ok_or_else(|| wrong("has no port from 1 to 65535"))?;
            (name, Some(number))
        }
        None => (text, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !is_domain(name) || name.contains('[') || address {
        return Err(wrong("is not a domain"));
    }
    if name.len() + LABEL > MOST_NAME {
        return Err(wrong("is too long to have labels of 52 letters before it"));
    }
    Ok((name.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Encodings, Mode, parse};
    use crate::reference::Repository;
    use http::header::{HeaderName, HeaderValue};
    use std::time::Duration;

    /// Of `r.example/rules`.
    const REPO: &str = "{redirectsFile: true, spaFallback: /app.html, notFoundPage: 404.html, \
        responseHeaders: {X-A: a, X-B: b}, sandbox: [allow-scripts], crossOriginResourcePolicy: same-site, \
        cors: {origins: [\"*\"], maxAge: 1h}}";

    fn read(text: &str) -> Result<Config, String> {
        let text = format!(
            "blobserve:\n  repos: {{r.example/docs: {{}}, r.example/rules: {REPO}}}\n  {text}\n"
        );
        match parse(&text, "config.yaml", Mode::Serve) {
            Ok(loaded) => Ok(loaded.config),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn hosts_are_known_by_their_lower_case_names() {
        let config = read(
            "hosts: {Docs.Example.com.: {reference: \"r.example/docs:v1\", workdir: /srv, listing: true, cache: {maxAge: 1m}, encodings: off, reprDigest: true}, \"[::1]\": {reference: \"r.example/docs:v2\"}}",
        );
        let hosts = config.unwrap().hosts;
        let docs = &hosts["docs.example.com"];
        assert_eq!(docs.reference.to_string(), "r.example/docs:v1");
        assert_eq!(docs.workdir.as_deref(), Some("/srv"));
        assert_eq!(
            (docs.listing, docs.cache.unwrap().browser.max_age),
            (Some(true), 60)
        );
        assert_eq!(
            (docs.encodings, docs.repr_digest),
            (Some(Encodings::Off), Some(true))
        );
        assert_eq!(hosts["[::1]"].cache, None);
        assert_eq!((&docs.site, hosts["[::1]"].encodings), (&None, None));
    }

    #[test]
    fn a_host_has_of_its_repository_what_it_does_not_say_itself() {
        let site = |keys: &str| {
            let text =
                format!("hosts: {{a.example: {{reference: \"r.example/rules:v1\", {keys}}}}}");
            let config = read(&text).unwrap();
            let of = &config.repos[&Repository::parse("r.example/rules").unwrap()];
            (config.hosts["a.example"].site.clone(), of.site.clone())
        };
        for nothing in ["", "spaFallback: null, cors: {}", "redirectsFile: true"] {
            assert_eq!(site(nothing).0, None, "{nothing}");
        }
        // What the host says, and what the repository's site is changed to by it.
        type Change = fn(&mut SiteConfig);
        let table: [(&str, Change); 10] = [
            ("spaFallback: /b.html", |it| {
                it.spa_fallback = Some("b.html".into());
            }),
            ("spaFallback: false, notFoundPage: false", |it| {
                it.spa_fallback = None;
                it.not_found_page = None;
            }),
            ("redirectsFile: false, headersFile: true", |it| {
                it.redirects_file = false;
                it.headers_file = true;
            }),
            ("responseHeaders: {x-b: c}", |it| {
                it.headers = vec![(
                    HeaderName::from_static("x-b"),
                    HeaderValue::from_static("c"),
                )];
            }),
            ("responseHeaders: {}", |it| it.headers.clear()),
            ("sandbox: []", |it| it.sandbox = Some(Vec::new())),
            ("sandbox: false", |it| it.sandbox = None),
            ("crossOriginResourcePolicy: false", |it| {
                it.resource_policy = None;
            }),
            ("cors: {origins: []}", |it| it.cors.origins.clear()),
            ("cors: {maxAge: 1s, exposeHeaders: [X-A]}", |it| {
                it.cors.max_age = Duration::from_secs(1);
                it.cors.expose_headers = vec!["X-A".into()];
            }),
        ];
        for (keys, change) in table {
            let (got, mut wanted) = site(keys);
            change(&mut wanted);
            assert_eq!(got, Some(wanted), "{keys}");
        }
    }

    #[test]
    fn origins_are_below_a_domain() {
        for (text, wanted) in [
            ("origins: {}", None),
            (
                "origins: {domain: Usercontent.Example}",
                Some(("usercontent.example", None, false)),
            ),
            (
                "origins: {domain: \"localhost:8080\", unconfigured: true}",
                Some(("localhost", Some(8080), true)),
            ),
        ] {
            let origins = read(text).unwrap().origins;
            let got = origins
                .as_ref()
                .map(|it| (it.domain.as_str(), it.port, it.unconfigured));
            assert_eq!(got, wanted, "{text}");
        }
        let repo = "origins: {domain: u.example}\n  repos: {r.example/docs: {origin: true}}";
        let text = format!("blobserve:\n  {repo}\n");
        let config = parse(&text, "config.yaml", Mode::Serve).unwrap().config;
        assert!(config.repos.values().all(|repo| repo.origin));
    }

    #[test]
    fn faults_say_what_to_write() {
        let long = format!("origins: {{domain: {}a}}", "a.".repeat(101));
        for (text, wanted) in [
            (
                "hosts: {docs.example: {}}",
                "hosts.\"docs.example\".reference: is missing",
            ),
            (
                "hosts: {docs.example: {reference: \"r.example/docs\"}}",
                "tag or digest is missing",
            ),
            (
                "hosts: {docs.example: {reference: \"r.example/other:v1\"}}",
                "`r.example/other` is not in `repos`",
            ),
            (
                "hosts: {docs.example: {reference: \"r.example/docs:v1\", workdir: ../x}}",
                "leaves the image",
            ),
            (
                "hosts: {docs.example: {referense: x}}",
                "did you mean `reference`?",
            ),
            (
                "hosts: {\"docs.example:80\": {reference: \"r.example/docs:v1\"}}",
                "is not the name of a host",
            ),
            (
                "hosts: {\"http://docs\": {reference: \"r.example/docs:v1\"}}",
                "is not the name of a host",
            ),
            (
                "hosts: {\"*.example\": {reference: \"r.example/docs:v1\"}}",
                "is not the name of a host",
            ),
            (
                "hosts: {a.example: {reference: \"r.example/docs:v1\"}, A.example.: {reference: \"r.example/docs:v1\"}}",
                "repeated",
            ),
            (
                "hosts: {a.example: {reference: \"r.example/docs:v1\", spaFallback: /}}",
                "hosts.\"a.example\".spaFallback: \"/\" names no file",
            ),
            (
                "hosts: {a.example: {reference: \"r.example/rules:v1\", cors: {credentials: true}}}",
                "hosts.\"a.example\".cors.credentials: browsers send none",
            ),
            (
                "hosts: {a.example: {reference: \"r.example/docs:v1\", origin: true}}",
                "unknown key",
            ),
            (
                "origins: {unconfigured: true}",
                "origins.domain: is missing",
            ),
            ("origins: {domain: 10.0.0.1}", "is not a domain"),
            ("origins: {domain: \"[::1]\"}", "origins.domain"),
            (
                "origins: {domain: \"a.example:0\"}",
                "has no port from 1 to 65535",
            ),
            ("origins: {domain: \"a.example/x\"}", "is not a domain"),
            (long.as_str(), "is too long"),
        ] {
            let errors = read(text).unwrap_err();
            assert!(errors.contains(wanted), "{text}: {errors}");
        }
        let text = "blobserve:\n  repos: {r.example/docs: {origin: true}}\n";
        let error = parse(text, "config.yaml", Mode::Serve)
            .unwrap_err()
            .to_string();
        assert!(error.contains("origins.domain"), "{error}");
    }
}
