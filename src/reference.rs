//! Image references: the distribution grammar, canonical names, and the
//! reference at the head of a URL path.

pub mod grammar;
mod target;

use crate::digest::{Digest, clipped};
use grammar::Parts;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A repository by its canonical name: `host[:port]/path`, lower-case,
/// `docker.io/nginx` spelled `docker.io/library/nginx`. Equal names are equal repositories.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    name: Arc<str>,
    /// Length of the `host[:port]` part.
    host: usize,
}

impl Repository {
    /// Parses a name with a host (`registry.example.com/team/app`), and makes it canonical.
    ///
    /// # Errors
    /// [`ReferenceError::Grammar`], for a name without a host too.
    pub fn parse(name: &str) -> Result<Repository, ReferenceError> {
        match Parts::parse(name)? {
            Parts {
                domain: Some(domain),
                path,
                tag: None,
                digest: None,
            } => Repository::canonical(domain, path),
            _ => None,
        }
        .ok_or_else(|| ReferenceError::Grammar(clipped(name)))
    }

    /// None where `domain` names no host.
    fn canonical(domain: &str, path: &str) -> Option<Repository> {
        let host = canonical_host(domain)?;
        let library = if *host == *DOCKER_HUB && !path.contains('/') {
            "library/"
        } else {
            ""
        };
        let name = format!("{host}/{library}{path}");
        Some(Repository {
            name: name.into(),
            host: host.len(),
        })
    }

    /// `host[:port]`, the key of `registries` in the configuration.
    pub fn host(&self) -> &str {
        &self.name[..self.host]
    }
    /// The repository's path on its host, `library/nginx`.
    pub fn path(&self) -> &str {
        &self.name[self.host + 1..]
    }
    /// The whole canonical name.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Docker Hub's host in a canonical name.
const DOCKER_HUB: &str = "docker.io";

/// Returns the canonical spelling of a host by Docker's rule: it has a `.`, a port or
/// brackets, or is `localhost`, or has capitals. Lower-case, since DNS knows no case; a host
/// that only its capitals tell from a user name on Docker Hub has them as its one spelling.
/// A port stays as it is, a default one too. None: not a host.
pub fn canonical_host(text: &str) -> Option<Cow<'_, str>> {
    let capitals = text.bytes().any(|byte| byte.is_ascii_uppercase());
    let by_form = text.contains(['.', ':', '[']) || text.eq_ignore_ascii_case("localhost");
    if !grammar::is_domain(text) || !(by_form || capitals) {
        return None;
    }
    let host = match (by_form, capitals) {
        (true, false) => Cow::Borrowed(text),
        (true, true) => Cow::Owned(text.to_ascii_lowercase()),
        (false, _) => Cow::Owned(text.to_ascii_uppercase()),
    };
    Some(if *host == *"index.docker.io" {
        Cow::Borrowed(DOCKER_HUB)
    } else {
        host
    })
}

/// What names one image within a repository. Where a reference has tag and
/// digest, the digest decides and the tag is dropped.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Version {
    /// A tag, `[\w][\w.-]{0,127}`: may come to mean another image.
    Tag(Arc<str>),
    /// A digest of the manifest or index: means one image for ever.
    Digest(Digest),
}

/// A reference to an image in its one canonical form: three spellings of one
/// image make one key. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Where.
    pub repository: Repository,
    /// Which.
    pub version: Version,
}
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}
impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a reference. The texts are those that existing
/// installations know: `cannot parse image "…"`, `…: tag or digest is missing`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// No prefix of the text is a reference.
    #[error("cannot parse image {0:?}")]
    Grammar(String),
    /// A repository, and nothing that says which image of it.
    #[error("{0:?}: tag or digest is missing")]
    VersionMissing(String),
    /// A digest that we cannot verify.
    #[error("cannot parse image: {0}")]
    Digest(#[from] crate::digest::DigestError),
    /// A dot segment (`..`) in the path would leave the reference.
    #[error("path leaves the image: {0:?}")]
    Escapes(String),
}

impl Reference {
    /// Parses `host[:port]/path[:tag][@digest]`.
    ///
    /// # Errors
    /// As [`ReferenceError`] tells them apart; never [`ReferenceError::Escapes`].
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        let Parts {
            domain,
            path,
            tag,
            digest,
        } = Parts::parse(text)?;
        let repository = domain.and_then(|domain| Repository::canonical(domain, path));
        let repository = repository.ok_or_else(|| ReferenceError::Grammar(clipped(text)))?;
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, Some(tag)) => Version::Tag(tag.into()),
            (None, None) => return Err(ReferenceError::VersionMissing(clipped(text))),
        };
        Ok(Reference {
            repository,
            version,
        })
    }
}

/// A request path cut in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The longest prefix that is a reference.
    pub reference: Reference,
    /// The raw text of the reference as it stood in the URL (no leading slash).
    pub reference_text: &'a str,
    /// The rest, still percent-encoded: empty, or starting with `/`.
    pub path: &'a str,
}

/// Cuts the reference off a raw request path (`/host/repo:tag/file%20name`), longest
/// prefix first: `%3A` and `%40` in the reference are decoded, `%2F` is never a separator.
/// Dot segments are not touched here; see `http::path`.
///
/// # Errors
/// [`ReferenceError::VersionMissing`] where no segment says which image of a repository is
/// meant; otherwise what is wrong with the one that does.
pub fn split_target(raw_path: &str) -> Result<Target<'_>, ReferenceError> {
    target::split(raw_path)
}

#[cfg(test)]
mod tests;
