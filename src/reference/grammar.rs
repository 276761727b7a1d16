//! The distribution grammar (distribution/reference), by hand: linear, without
//! allocation, and with no opinion on which names are canonical.

use super::ReferenceError;
use crate::digest::{Digest, clipped};

/// Longest repository path in bytes, as distribution bounds it (its host not counted).
pub const PATH_MAX: usize = 255;
/// Longest tag in bytes.
pub const TAG_MAX: usize = 128;
/// Longest `host[:port]` in bytes: a DNS name and a port. Distribution sets no bound.
pub const HOST_MAX: usize = 259;

/// A reference cut into its parts, as it was spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The first component where it can be a host, whether it is meant as one or not.
    pub domain: Option<&'a str>,
    /// The repository's path, without the domain.
    pub path: &'a str,
    /// After `:`.
    pub tag: Option<&'a str>,
    /// After `@`.
    pub digest: Option<Digest>,
}

impl<'a> Parts<'a> {
    /// Cuts `[domain/]path[:tag][@digest]`.
    ///
    /// # Errors
    /// [`ReferenceError::Digest`] for what follows an `@`, else [`ReferenceError::Grammar`].
    pub fn parse(text: &'a str) -> Result<Parts<'a>, ReferenceError> {
        let grammar = || ReferenceError::Grammar(clipped(text));
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let last = named.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match named[last..].find(':') {
            Some(colon) => (&named[..last + colon], Some(&named[last + colon + 1..])),
            None => (named, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, rest)) if is_domain(first) => (Some(first), rest),
            _ => (None, name),
        };
        if !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(grammar());
        }
        let digest = digest.map(str::parse).transpose()?;
        Ok(Parts {
            domain,
            path,
            tag,
            digest,
        })
    }
}

/// `host[:port]`: a DNS name, an IPv4 address or an IPv6 address in brackets.
pub fn is_domain(text: &str) -> bool {
    if text.len() > HOST_MAX {
        return false;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if is_bracketed(address) => (None, port),
            _ => return false,
        },
        None => {
            let colon = text.find(':').unwrap_or(text.len());
            (Some(&text[..colon]), &text[colon..])
        }
    };
    let port_is_number = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    port_is_number && host.is_none_or(|host| host.split('.').all(is_label))
}

fn is_bracketed(address: &str) -> bool {
    !address.is_empty()
        && address
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':')
}

/// Letters and digits, hyphens within.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The path of a repository on its host.
pub fn is_path(path: &str) -> bool {
    path.len() <= PATH_MAX && path.split('/').all(is_component)
}

/// Runs of lower-case letters and digits, between them `.`, `_`, `__` or any number of `-`.
pub(super) fn is_component(component: &str) -> bool {
    let run = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = component.as_bytes();
    loop {
        let length = rest.iter().take_while(|byte| run(**byte)).count();
        if length == 0 {
            return false;
        }
        rest = &rest[length..];
        let Some(first) = rest.first() else {
            return true;
        };
        let length = rest.iter().take_while(|byte| !run(**byte)).count();
        let separator = match first {
            b'.' => length == 1,
            b'_' => length == 1 || &rest[..length] == b"__",
            b'-' => rest[..length].iter().all(|byte| *byte == b'-'),
            _ => false,
        };
        if !separator {
            return false;
        }
        rest = &rest[length..];
    }
}

/// `[\w][\w.-]{0,127}`.
pub fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}
