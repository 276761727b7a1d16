//! Image references: the distribution grammar, canonical names, and the
//! reference at the head of a URL path.

use crate::digest::Digest;
use std::fmt;

/// A repository by its canonical name: `host[:port]/path`, lower-case,
/// `docker.io/nginx` spelled `docker.io/library/nginx`. Equal names are equal repositories.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    name: std::sync::Arc<str>,
    /// Length of the `host[:port]` part.
    host: usize,
}

impl Repository {
    /// Parses a canonical name with a host (`registry.example.com/team/app`).
    pub fn parse(name: &str) -> Result<Repository, ReferenceError> {
        let _ = name;
        todo!()
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

/// What names one image within a repository. Where a reference has tag and
/// digest, the digest decides and the tag is dropped.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Version {
    /// A tag, `[\w][\w.-]{0,127}`: may come to mean another image.
    Tag(std::sync::Arc<str>),
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
        let _ = f;
        todo!()
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
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        let _ = text;
        todo!()
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
pub fn split_target(raw_path: &str) -> Result<Target<'_>, ReferenceError> {
    let _ = raw_path;
    todo!()
}
