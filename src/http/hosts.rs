//! What a request addresses by its host: a path URL with a reference in it, a virtual host, or the
//! origin of one image. Pure but for the table of the configuration.
//!
//! On a virtual host and on an origin the whole path is a file's. Any other host has path URLs.

use super::host::Host;
use crate::config::Config;
use crate::images::Shown;
use crate::reference::Reference;
use http::{HeaderMap, Method};
use std::collections::HashMap;
use std::fmt::Write;

/// Request fields of ours begin with it.
const OURS: &str = "x-blobserve-";

/// The hosts of a configuration.
pub(super) struct Hosts {
    hosts: HashMap<Box<str>, VirtualHost>,
    origins: Option<Origins>,
}

/// A host that serves one reference.
pub(super) struct VirtualHost {
    pub(super) reference: Reference,
    pub(super) shown: Shown,
}

/// Where origins are.
struct Origins {
    /// With the dot before it.
    suffix: Box<str>,
    port: Option<u16>,
}

/// What a host serves.
pub(super) enum Serves<'a> {
    /// Any reference: it stands in the path.
    Paths,
    /// Its own.
    Image(&'a VirtualHost),
    /// The reference that this label stands for, if it is one.
    Origin(&'a str),
}

impl Hosts {
    pub(super) fn new(config: &Config) -> Hosts {
        let hosts = config.hosts.iter().map(|(name, host)| {
            let site = VirtualHost {
                reference: host.reference.clone(),
                shown: Shown::new(host),
            };
            (name.as_str().into(), site)
        });
        Hosts {
            hosts: hosts.collect(),
            origins: config.origins.as_ref().map(|origins| Origins {
                suffix: format!(".{}", origins.domain).into(),
                port: origins.port,
            }),
        }
    }

    /// What `host` serves. Every name below the domain of origins is one's: path URLs are not
    /// served on a name that some image may have had.
    pub(super) fn of<'a>(&'a self, host: Option<&'a Host<'_>>) -> Serves<'a> {
        let Some(host) = host else {
            return Serves::Paths;
        };
        if let Some(site) = self.hosts.get(&*host.name) {
            return Serves::Image(site);
        }
        let label = self
            .origins
            .as_ref()
            .and_then(|origins| host.name.strip_suffix(&*origins.suffix));
        label.map_or(Serves::Paths, Serves::Origin)
    }

    /// Where a path URL's file is on the origin with this label: a reference without a scheme (RFC 3986
    /// §4.2), so that the scheme is the client's, whatever is between. `path` and `query` are as they
    /// were asked for; `port` is the one of the request's Host. None: there are no origins.
    pub(super) fn location(
        &self,
        label: &str,
        port: Option<u16>,
        path: &str,
        query: Option<&str>,
    ) -> Option<String> {
        let origins = self.origins.as_ref()?;
        let mut location = format!("//{label}{}", origins.suffix);
        // A String takes whatever is written to it.
        if let Some(port) = origins.port.or(port) {
            let _ = write!(location, ":{port}");
        }
        if !path.starts_with('/') {
            location.push('/');
        }
        location.push_str(path);
        if let Some(query) = query {
            let _ = write!(location, "?{query}");
        }
        Some(location)
    }
}

/// Whether a request may be sent to another URL of the same file: a browser's. HEAD asks whether an image is
/// ready, and who sends fields of ours is a proxy before us that expects the answer here.
pub(super) fn may_redirect(method: &Method, headers: &HeaderMap) -> bool {
    let ours = |name: &http::HeaderName| name.as_str().starts_with(OURS);
    method == Method::GET && !headers.keys().any(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, parse};
    use crate::http::host;

    fn hosts(origins: &str) -> Hosts {
        let text = format!(
            "blobserve:
  allowAnyRepo: true
  hosts:
    docs.example: {{reference: \"r.example/docs:v1\"}}
    docs.user.example: {{reference: \"r.example/docs:v2\"}}
  origins: {origins}
"
        );
        Hosts::new(&parse(&text, "config.yaml", Mode::Serve).unwrap().config)
    }

    #[tokio::test]
    async fn each_host_is_that_of_its_site() {
        let none = hosts("{}");
        let some = hosts("{domain: user.example}");
        let shown = |hosts: &Hosts, field: &str| {
            let host = host::parse(field.as_bytes()).unwrap();
            match hosts.of(Some(&host)) {
                Serves::Paths => "paths".to_owned(),
                Serves::Image(site) => site.reference.to_string(),
                Serves::Origin(label) => format!("label {label}"),
            }
        };
        for (field, without, with) in [
            ("docs.example", "r.example/docs:v1", "r.example/docs:v1"),
            (
                "DOCS.example.:8080",
                "r.example/docs:v1",
                "r.example/docs:v1",
            ),
            (
                "docs.user.example",
                "r.example/docs:v2",
                "r.example/docs:v2",
            ),
            ("other.example", "paths", "paths"),
            ("x.docs.example", "paths", "paths"),
            ("user.example", "paths", "paths"),
            ("abc.user.example", "paths", "label abc"),
            ("ABC.User.Example.:80", "paths", "label abc"),
            ("a.b.user.example", "paths", "label a.b"),
            ("xuser.example", "paths", "paths"),
            ("[::1]:80", "paths", "paths"),
        ] {
            assert_eq!(shown(&none, field), without, "{field}");
            assert_eq!(shown(&some, field), with, "{field}");
        }
        assert!(matches!(some.of(None), Serves::Paths));
    }

    #[tokio::test]
    async fn a_location_is_below_the_domain_whatever_is_asked_for() {
        let (own, fixed) = (
            hosts("{domain: u.example}"),
            hosts("{domain: \"u.example:8443\"}"),
        );
        let table = [
            (&own, None, "/a.js", None, "//abc.u.example/a.js"),
            (
                &own,
                Some(8080),
                "/a.js",
                Some("x=1&y"),
                "//abc.u.example:8080/a.js?x=1&y",
            ),
            (&fixed, Some(80), "/", None, "//abc.u.example:8443/"),
            (&own, None, "", None, "//abc.u.example/"),
            (&own, None, "", Some("q"), "//abc.u.example/?q"),
            (
                &own,
                None,
                "//evil.example/x",
                None,
                "//abc.u.example//evil.example/x",
            ),
            (
                &own,
                None,
                "/\\evil.example",
                None,
                "//abc.u.example/\\evil.example",
            ),
            (
                &own,
                None,
                "/@evil.example",
                None,
                "//abc.u.example/@evil.example",
            ),
            (
                &own,
                None,
                "/../x",
                Some("//evil"),
                "//abc.u.example/../x?//evil",
            ),
        ];
        for (hosts, port, path, query, wanted) in table {
            let location = hosts.location("abc", port, path, query).unwrap();
            assert_eq!(location, wanted);
            let arrived = url::Url::parse("https://paths.example/r/app:v1/x").unwrap();
            let arrived = arrived.join(&location).unwrap();
            assert_eq!(arrived.host_str(), Some("abc.u.example"), "{location}");
            assert_eq!(arrived.scheme(), "https");
        }
        assert_eq!(hosts("{}").location("abc", None, "/", None), None);
    }

    #[test]
    fn only_a_browsers_get_is_sent_elsewhere() {
        for (method, fields, may) in [
            (Method::GET, &[][..], true),
            (Method::GET, &["accept", "range"], true),
            (Method::HEAD, &[], false),
            (Method::GET, &["x-blobserve-readonly"], false),
            (Method::GET, &["x-blobserve-inlinevars"], false),
            (Method::GET, &["x-blobserve-unheard-of"], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.insert(*field, http::HeaderValue::from_static("x"));
            }
            assert_eq!(may_redirect(&method, &headers), may, "{method} {fields:?}");
        }
    }
}
