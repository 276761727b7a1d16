//! `Repr-Digest` (RFC 9530): the SHA-256 of the whole representation that an answer is of, also where it
//! sends a part of it. On request (`Want-Repr-Digest`) or by configuration.

use super::body::Body;
use super::represent::Content;
use crate::digest::Digest;
use crate::images::{Integrity, ViewInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use std::time::Duration;

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
const SHA_256: &str = "sha-256";
/// How long an answer waits for its digest: some 1.5 GB. One that comes later is remembered for the next.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are hashed where they are; more are on another thread.
const QUICK: usize = 64 << 10;

/// Whether the answer is to have a digest: what the request says of SHA-256 goes before the configuration.
pub(super) fn wanted(headers: &HeaderMap, info: &ViewInfo) -> bool {
    preference(headers).map_or(info.repr_digest, |weight| weight > 0)
}

/// The weight of SHA-256 in `Want-Repr-Digest` (RFC 9530 §4), 0: not acceptable. None: the field is not
/// there, does not name it, or is malformed, which says nothing (RFC 9651 §4.2).
fn preference(headers: &HeaderMap) -> Option<u8> {
    let mut found = None;
    for field in headers.get_all(WANT_REPR_DIGEST) {
        for member in field.to_str().ok()?.split(',') {
            let (key, weight) = preferred(member.trim_matches([' ', '\t']))?;
            // The last of repeated keys holds.
            if key == SHA_256 {
                found = Some(weight);
            }
        }
    }
    found
}

/// A member `key=0` to `key=10` of a dictionary, its parameters left out.
fn preferred(member: &str) -> Option<(&str, u8)> {
    let (key, value) = member.split_once('=')?;
    let mut bytes = key.bytes();
    let first = bytes.next()?;
    let rest = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'_' | b'-' | b'.' | b'*')
    };
    if !(first.is_ascii_lowercase() || first == b'*') || !bytes.all(rest) {
        return None;
    }
    let digits = value.split(';').next()?;
    let weight = digits.parse().ok().filter(|weight| *weight <= 10)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some((key, weight))
}

/// Puts the field on an answer with `content`, or with a part of it. One whose digest is not there in time
/// goes without.
pub(super) async fn put(response: &mut Response<Body>, content: Content, integrity: &Integrity) {
    let waits = match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => true,
        StatusCode::NOT_MODIFIED => false,
        // An error's text is another representation.
        _ => return,
    };
    let digest = match content {
        Content::File(file) => match integrity.known(&file) {
            Some(digest) => Some(digest),
            None if waits => {
                let computed = tokio::time::timeout(PATIENCE, integrity.sha256(&file)).await;
                computed.ok().and_then(Result::ok)
            }
            None => None,
        },
        Content::Bytes(_) if !waits => None,
        Content::Bytes(bytes) if bytes.len() <= QUICK => Some(Digest::sha256(&bytes)),
        Content::Bytes(bytes) => {
            let hashed = tokio::task::spawn_blocking(move || Digest::sha256(&bytes)).await;
            hashed.ok()
        }
    };
    match digest {
        Some(digest) => drop(response.headers_mut().insert(REPR_DIGEST, field(&digest))),
        // The next one may have it.
        None => response.body_mut().unsettle(),
    }
}

fn field(digest: &Digest) -> HeaderValue {
    let text = format!("{SHA_256}=:{}:", STANDARD.encode(digest.bytes()));
    // Base64 is visible ASCII, so this cannot fail.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha_256_is_wanted_by_its_weight() {
        let table: [(&[&str], Option<u8>); 17] = [
            (&[], None),
            (&["sha-256=10"], Some(10)),
            (&["sha-256=1, sha-512=10"], Some(1)),
            (&["sha-512=3,\tsha-256=2"], Some(2)),
            (&["sha-512=3", "sha-256=2"], Some(2)),
            (&["sha-256=0"], Some(0)),
            (&["sha-256=1, sha-256=0"], Some(0)),
            (&["sha-256=5;a=b"], Some(5)),
            (&["sha-512=10"], None),
            (&["*=1"], None),
            (&["sha-256"], None),
            (&["sha-256=11"], None),
            (&["sha-256=-1"], None),
            (&["sha-256=+1"], None),
            (&["sha-256=1.5"], None),
            (&["SHA-256=1"], None),
            (&["sha-256=1, ,"], None),
        ];
        for (fields, weight) in table {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(WANT_REPR_DIGEST, field.parse().unwrap());
            }
            assert_eq!(preference(&headers), weight, "{fields:?}");
        }
    }

    #[test]
    fn the_field_is_that_of_the_standard() {
        // RFC 9530, appendix B.1: {"hello": "world"} and a line feed.
        let digest = Digest::sha256(b"{\"hello\": \"world\"}\n");
        let wanted = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert_eq!(field(&digest), wanted);
    }
}
