//! Plain requests: those whose answer is decided by target, Host and Accept-Encoding alone, so that the
//! same question has the same answer.

use http::Method;
use http::request::Parts;

/// What an answer from memory is decided by: all other fields are known to decide nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plain<'a> {
    pub(super) host: &'a [u8],
    /// As it was sent; empty when it was not.
    pub(super) accept_encoding: &'a [u8],
    pub(super) if_none_match: Option<&'a [u8]>,
}

impl<'a> Plain<'a> {
    /// Of a request of HTTP/2. None: something else decides, or may. A condition is for the recipe.
    pub(super) fn of(request: &'a Parts) -> Option<Plain<'a>> {
        if request.method != Method::GET {
            return None;
        }
        let mut plain = Plain {
            host: request.uri.authority()?.as_str().as_bytes(),
            ..Plain::default()
        };
        for (name, value) in &request.headers {
            match kind(name.as_str()) {
                Kind::Harmless => {}
                Kind::AcceptEncoding if plain.accept_encoding.is_empty() => {
                    plain.accept_encoding = value.as_bytes();
                }
                _ => return None,
            }
        }
        Some(plain)
    }
}

/// What a field means for an answer from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    Connection,
    AcceptEncoding,
    IfNoneMatch,
    /// Decides nothing about a file.
    Harmless,
    /// Announces a body, or asks for something that the HTTP/1.1 loop does not do.
    Framing,
    /// May decide.
    Decisive,
}

/// Fields that decide nothing about a whole file: the recipe does not read them, or says in Vary that it
/// does (and then the answer is not remembered). Any other field asks the recipe, so one that is missing
/// here costs time only.
const HARMLESS: &[&str] = &[
    "accept",
    "accept-language",
    "authorization",
    "cache-control",
    "cookie",
    "dnt",
    "forwarded",
    "pragma",
    "priority",
    "referer",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "sec-gpc",
    "traceparent",
    "tracestate",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Whether requests that differ in this field may get the same remembered answer.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS
        .iter()
        .any(|harmless| harmless.eq_ignore_ascii_case(name))
}

/// By the field's name, in any case.
pub(super) fn kind(name: &str) -> Kind {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        4 if is("host") => Kind::Host,
        10 if is("connection") => Kind::Connection,
        15 if is("accept-encoding") => Kind::AcceptEncoding,
        13 if is("if-none-match") => Kind::IfNoneMatch,
        14 if is("content-length") => Kind::Framing,
        17 if is("transfer-encoding") => Kind::Framing,
        6 if is("expect") => Kind::Framing,
        7 if is("upgrade") || is("trailer") => Kind::Framing,
        2 if is("te") => Kind::Framing,
        14 if is("http2-settings") => Kind::Framing,
        16 if is("proxy-connection") => Kind::Framing,
        10 if is("keep-alive") => Kind::Framing,
        length => {
            let mut same = HARMLESS.iter().filter(|known| known.len() == length);
            match same.any(|known| is(known)) {
                true => Kind::Harmless,
                false => Kind::Decisive,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, URI, fields; Host and Accept-Encoding of a plain one.
    type Case<'a> = (
        &'a str,
        &'a str,
        &'a [(&'a str, &'a str)],
        Option<(Vec<u8>, Vec<u8>)>,
    );

    #[test]
    fn a_request_of_http_2_is_plain_by_the_same_fields() {
        let plain = |method: &str, uri: &str, fields: &[(&str, &str)]| {
            let mut request = http::Request::builder().method(method).uri(uri);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (request, ()) = request.body(()).unwrap().into_parts();
            Plain::of(&request).map(|plain| (plain.host.to_vec(), plain.accept_encoding.to_vec()))
        };
        let (host, none) = (b"h:1".to_vec(), Vec::new());
        let table: [Case<'_>; 8] = [
            (
                "GET",
                "http://h:1/a",
                &[("user-agent", "x")],
                Some((host.clone(), none)),
            ),
            (
                "GET",
                "http://h:1/a",
                &[("accept-encoding", "br")],
                Some((host, b"br".to_vec())),
            ),
            (
                "GET",
                "http://h:1/a",
                &[("accept-encoding", "br"), ("accept-encoding", "x")],
                None,
            ),
            ("GET", "http://h:1/a", &[("host", "h")], None),
            ("GET", "http://h:1/a", &[("if-none-match", "*")], None),
            ("GET", "http://h:1/a", &[("range", "bytes=0-")], None),
            ("HEAD", "http://h:1/a", &[], None),
            ("GET", "/a", &[], None),
        ];
        for (method, uri, fields, expected) in table {
            assert_eq!(
                plain(method, uri, fields),
                expected,
                "{method} {uri} {fields:?}"
            );
        }
    }

    #[test]
    fn no_field_that_the_recipe_always_reads_is_harmless() {
        for name in [
            "range",
            "if-range",
            "if-match",
            "if-modified-since",
            "if-unmodified-since",
            "x-blobserve-readonly",
            "x-blobserve-inlinevars",
            "origin",
            "want-repr-digest",
            "access-control-request-method",
        ] {
            assert!(!is_harmless(name) && kind(name) == Kind::Decisive, "{name}");
        }
    }
}
