//! What refers to a digest: OCI distribution specification, "Listing Referrers", and for registries that
//! know no such list the referrers tag schema.
//!
//! The whole list is asked for, whatever types are wanted of it: one list then answers every filter, and
//! what a client puts into a filter makes no request of ours. A list has no digest, so it is the
//! registry's word; what it lists is verified when it is asked for.

use super::client::{Call, Client, content_digest};
use super::error::Failure;
use super::retry::{refusal, unlisted};
use super::site::{Site, origin};
use super::{Registries, RegistryError, RegistryErrorKind};
use crate::digest::Digest;
use crate::oci::{self, Referrer};
use crate::reference::{Repository, Version};
use http::{HeaderMap, Method, StatusCode, header};
use std::collections::HashSet;
use url::Url;

/// Pages of one list.
const MOST_PAGES: usize = 32;
/// Referrers of one digest.
const MOST: usize = oci::MAX_ENTRIES;

/// What refers to a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Each once, in the order of their types and digests.
    pub referrers: Vec<Referrer>,
    /// There are more than are read: 10,000, or what stands on 32 pages, or in `limits.manifestBytes`.
    pub truncated: bool,
}

/// A page of a list.
struct Page {
    referrers: Vec<Referrer>,
    bytes: u64,
    /// The path of the next one in the repository, with its query.
    next: Option<String>,
}

impl Registries {
    /// What refers to the manifest with that digest, whether that is there or not. Asks whoever says what
    /// tags mean.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Listed, RegistryError> {
        let whole = |referrers| Listed {
            referrers,
            truncated: false,
        };
        let mut listed = match self.layout(repository) {
            Some(layout) => whole(layout.referrers(digest).await?),
            None => match self.client.listed(repository, digest).await? {
                Some(listed) => listed,
                None => whole(self.tagged_referrers(repository, digest).await?),
            },
        };
        let found = &mut listed.referrers;
        let key = |one: &Referrer| (one.artifact_type.clone(), one.descriptor.digest.to_string());
        found.sort_by_cached_key(key);
        let mut seen = HashSet::new();
        found.retain(|one| seen.insert(one.descriptor.digest));
        Ok(listed)
    }

    /// By the tag schema: an index, verified as any manifest. None there: no referrers.
    async fn tagged_referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let version = Version::Tag(oci::referrers_tag(digest).into());
        let document = match self.manifest(repository, &version).await {
            Ok(document) => document,
            Err(error) if error.kind == RegistryErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let media_type = document.media_type.as_deref();
        oci::parse_referrers(media_type, &document.bytes).map_err(|error| {
            let what = super::manifest_of(repository, &version);
            Failure::wrong(error.to_string()).name(repository.host(), &what, 1)
        })
    }
}

/// What an error calls a list.
pub(super) fn list_of(repository: &Repository, digest: &Digest) -> String {
    format!("referrers of `{repository}@{digest}`")
}

impl Client {
    /// The list of whoever has such lists; None: nobody.
    async fn listed(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Listed>, RegistryError> {
        let sources = self.sources_of_tags(repository)?;
        for (i, site) in sources.iter().enumerate() {
            match self.listed_by(site, repository, digest).await {
                Ok(Some(list)) => return Ok(Some(list)),
                Ok(None) => {}
                Err((failure, _)) if i + 1 < sources.len() => self.mirror_failed(site, &failure),
                Err((failure, attempts)) => {
                    let what = list_of(repository, digest);
                    return Err(failure.name(&site.host, &what, attempts));
                }
            }
        }
        Ok(None)
    }

    /// All pages, as far as they are read. None: this one has no lists.
    async fn listed_by(
        &self,
        site: &Site,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Listed>, (Failure, u32)> {
        let mut listed = Listed::default();
        let (mut left, mut path) = (self.manifest_bytes, format!("referrers/{digest}"));
        for number in 0..MOST_PAGES {
            let mut call = Call::new(Method::GET, path);
            call.accept = Some(oci::ACCEPT_INDEX);
            let once = || self.page(site, repository, &call);
            let page = match self.patience(site).run(once).await? {
                Some(page) => page,
                None if number == 0 => return Ok(None),
                None => return Err((Failure::wrong("a further page is not there"), 1)),
            };
            if page.bytes > left {
                break;
            }
            left -= page.bytes;
            listed.referrers.extend(page.referrers);
            if listed.referrers.len() > MOST {
                break;
            }
            match page.next {
                None => return Ok(Some(listed)),
                Some(next) => path = next,
            }
        }
        // Who asks what there is rather hears a part, and that it is one, than nothing.
        listed.referrers.truncate(MOST);
        listed.truncated = true;
        Ok(Some(listed))
    }

    async fn page(
        &self,
        site: &Site,
        repository: &Repository,
        call: &Call,
    ) -> Result<Option<Page>, Failure> {
        let mut response = self.authorized(site, repository, call).await?;
        let status = response.status();
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok());
        let media_type = media_type.map(str::to_owned);
        if status != StatusCode::OK && !unlisted(status) {
            return Err(refusal(status, response.headers()));
        }
        // A page for people, from what answers every path with one.
        if unlisted(status) || !media_type.as_deref().is_some_and(is_list) {
            return Ok(None);
        }
        let next = next(response.headers(), response.url(), site, repository)?;
        let said = content_digest(&response);
        let read = self
            .transport
            .whole(&mut response, self.manifest_bytes, "a page of the list");
        let bytes = read.await?;
        if let Some(said) = said {
            let expected = super::client::Expected {
                digest: Some(said),
                size: None,
            };
            super::client::verified(bytes.clone(), None, expected, None).await?;
        }
        let referrers = oci::parse_referrers(media_type.as_deref(), &bytes)
            .map_err(|error| Failure::wrong(error.to_string()))?;
        Ok(Some(Page {
            referrers,
            bytes: bytes.len() as u64,
            next,
        }))
    }
}

/// Whether the media type is that of a list, or may be.
fn is_list(media_type: &str) -> bool {
    oci::is_index(media_type) || oci::is_json(media_type)
}

/// The path within the repository of the next page, if the answer names one.
fn next(
    headers: &HeaderMap,
    at: &Url,
    site: &Site,
    repository: &Repository,
) -> Result<Option<String>, Failure> {
    let links = headers.get_all(header::LINK).iter();
    let mut links = links.filter_map(|value| next_link(value.to_str().ok()?));
    let Some(link) = links.next() else {
        return Ok(None);
    };
    let target = at.join(link).ok();
    // A list goes on where it began: nobody is sent elsewhere, nor to other things of that registry.
    let within = target.filter(|target| {
        target.scheme() == site.base.scheme() && origin(target) == origin(&site.base)
    });
    let path = within.and_then(|target| {
        let path = target.path().strip_prefix("/v2/")?;
        let path = path.strip_prefix(repository.path())?.strip_prefix('/')?;
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        // Every call to a mirror is given it anew.
        pairs.extend_pairs(target.query_pairs().filter(|(name, _)| name != "ns"));
        let is_list = path.starts_with("referrers/");
        is_list.then(|| format!("{path}?{}", pairs.finish()))
    });
    match path {
        Some(path) => Ok(Some(path)),
        None => Err(Failure::wrong("its next page (Link) is elsewhere")),
    }
}

/// The target of a link with `rel=next` (RFC 8288 §3).
fn next_link(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (target, parameters) = rest.split_once('<')?.1.split_once('>')?;
        let end = end_of_parameters(parameters);
        let (own, others) = parameters.split_at(end);
        let is_next = own.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            let mut relations = value.split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel")
                && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target);
        }
        rest = others;
    }
}

/// Up to the comma before the next link, which does not stand in quotes.
fn end_of_parameters(text: &str) -> usize {
    let mut quoted = false;
    let end = text.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    });
    end.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_link_that_says_so() {
        for (value, target) in [
            ("</a?n=1>; rel=\"next\"", Some("/a?n=1")),
            ("<a>;rel=next", Some("a")),
            ("</a>; REL=\"prev Next\"", Some("/a")),
            (
                "</a>; rel=prev, </b>; title=\"x, y\"; rel=\"next\"",
                Some("/b"),
            ),
            ("</a>; title=\"rel=next, \"; rel=\"first\"", None),
            ("</a>; rel=\"nextish\"", None),
            ("</a>", None),
            ("/a; rel=next", None),
            ("</a; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_link(value), target, "{value}");
        }
    }

    #[test]
    fn a_list_goes_on_where_it_began() {
        let site = Site {
            host: "r.example".into(),
            base: Url::parse("https://r.example/").unwrap(),
            plain: false,
            ca: None,
            mirrors: None,
            token_hosts: Vec::new().into(),
        };
        let repository = Repository::parse("r.example/team/app").unwrap();
        let at = Url::parse("https://r.example/v2/team/app/referrers/sha256:0?ns=r").unwrap();
        for (target, expected) in [
            (
                "/v2/team/app/referrers/sha256:0?last=a%2Bb&ns=r",
                Ok("referrers/sha256:0?last=a%2Bb"),
            ),
            ("?p=2", Ok("referrers/sha256:0?p=2")),
            (
                "https://r.example:443/v2/team/app/referrers/x",
                Ok("referrers/x?"),
            ),
            ("https://evil.example/v2/team/app/referrers/x", Err(())),
            ("//evil.example/v2/team/app/referrers/x", Err(())),
            ("http://r.example/v2/team/app/referrers/x", Err(())),
            ("https://r.example:444/v2/team/app/referrers/x", Err(())),
            ("/v2/team/secret/referrers/x", Err(())),
            ("/v2/team/app/referrers/../../secret/referrers/x", Err(())),
            ("/v2/team/app/manifests/v1", Err(())),
            ("http://[", Err(())),
        ] {
            let mut headers = HeaderMap::new();
            let link = format!("<{target}>; rel=\"next\"");
            headers.insert(header::LINK, link.parse().unwrap());
            let found = next(&headers, &at, &site, &repository);
            let found = found.map(Option::unwrap).map_err(drop);
            assert_eq!(found.as_deref(), expected.as_deref(), "{target}");
        }
        let none = next(&HeaderMap::new(), &at, &site, &repository);
        assert_eq!(none.unwrap(), None);
    }
}
