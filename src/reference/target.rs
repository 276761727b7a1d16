//! The reference at the head of a URL path. On the path of every request: one pass
//! over the bytes up to the end of the reference; a reference seen lately is not parsed again.

use super::grammar::{PATH_MAX, is_component};
use super::{Reference, ReferenceError, Target, canonical_host};
use crate::digest::clipped;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

/// See [`super::split_target`].
///
/// Only the first component of a name (its port) and the last (its tag or digest) may hold
/// `:` or `@`. So the first segment after the host that holds one ends the reference: a
/// longer prefix is no name, and a shorter one names no image.
pub(super) fn split(raw_path: &str) -> Result<Target<'_>, ReferenceError> {
    let raw = raw_path.strip_prefix('/').unwrap_or(raw_path);
    let Some(end) = end_of_reference(raw) else {
        return Err(without_version(raw));
    };
    let (reference_text, path) = raw.split_at(end);
    let reference = recall(reference_text)?;
    Ok(Target {
        reference,
        reference_text,
        path,
    })
}

thread_local! {
    /// References of late requests, by their text in the URL: most requests name few images.
    static RECENT: RefCell<HashMap<Box<str>, Reference>> = RefCell::default();
}
/// References that a thread remembers; when there are more, it starts over.
const MOST_RECENT: usize = 256;

/// Parses a reference as it stood in a URL, or remembers it: a clone costs no allocation.
fn recall(text: &str) -> Result<Reference, ReferenceError> {
    RECENT.with_borrow_mut(|recent| {
        if let Some(reference) = recent.get(text) {
            return Ok(reference.clone());
        }
        let reference = Reference::parse(&decoded(text))?;
        if recent.len() >= MOST_RECENT {
            recent.clear();
        }
        recent.insert(text.into(), reference.clone());
        Ok(reference)
    })
}

/// Returns the end of the first segment, the host's left out, that holds `:` or `@`.
fn end_of_reference(raw: &str) -> Option<usize> {
    let bytes = raw.as_bytes();
    let host = raw.find('/')?;
    let mut marked = false;
    for (at, byte) in bytes.iter().enumerate().skip(host + 1) {
        match byte {
            b'/' if marked => return Some(at),
            b':' | b'@' => marked = true,
            b'%' => marked |= matches!(escaped(&bytes[at..]), Some(b':' | b'@')),
            _ => {}
        }
    }
    marked.then_some(bytes.len())
}

/// The delimiter of a reference that the escape at the start of `bytes` stands for. RFC 3986
/// has no brackets in a path, so an IPv6 host arrives escaped from clients that follow it.
fn escaped(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [b'%', b'3', b'A' | b'a', ..] => Some(b':'),
        [b'%', b'4', b'0', ..] => Some(b'@'),
        [b'%', b'5', b'B' | b'b', ..] => Some(b'['),
        [b'%', b'5', b'D' | b'd', ..] => Some(b']'),
        _ => None,
    }
}

/// Decodes the delimiters of a reference and nothing else: any other escape stays, and fails
/// the grammar.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let length = match escaped(&rest.as_bytes()[at..]) {
            Some(delimiter) => {
                out.push(delimiter.into());
                3
            }
            None => {
                out.push('%');
                1
            }
        };
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The error for a path in which nothing says which image is meant.
fn without_version(raw: &str) -> ReferenceError {
    let (host, rest) = raw.split_once('/').unwrap_or((raw, ""));
    let mut end = 0;
    for segment in rest.split('/').take_while(|segment| is_component(segment)) {
        let longer = end + usize::from(end > 0) + segment.len();
        if longer > PATH_MAX {
            break;
        }
        end = longer;
    }
    match canonical_host(&decoded(host)) {
        Some(host) if end > 0 => ReferenceError::VersionMissing(format!("{host}/{}", &rest[..end])),
        _ => ReferenceError::Grammar(clipped(raw)),
    }
}
