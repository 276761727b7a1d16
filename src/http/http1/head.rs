//! The head of a request, as far as it can be told without copying it.
//!
//! Stricter than RFC 9112 asks: what is not plainly a GET or HEAD of HTTP/1.1 without a body is
//! [`Told::Other`], and hyper's to judge, so that there is one opinion on every odd request.

use crate::http::plain::{Kind, Plain, kind};
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri, Version};
use std::mem::MaybeUninit;

/// Fields of a head; one with more is hyper's.
const MOST_FIELDS: usize = 64;

/// What the bytes so far are.
pub(super) enum Told<'a> {
    /// The start of a head, perhaps.
    Incomplete,
    /// A head, and how many bytes it is.
    Head(Head<'a>, usize),
    /// Something else.
    Other,
}

/// A GET or HEAD without a body.
pub(super) struct Head<'a> {
    pub(super) method: Method,
    /// In origin form: starts with a slash.
    pub(super) target: &'a str,
    fields: &'a [httparse::Header<'a>],
    /// The client wants no further answer on this connection.
    pub(super) close: bool,
    /// Set while nothing stands against answering from memory.
    pub(super) plain: Option<Plain<'a>>,
}

/// Where the fields of a head are noted.
pub(super) struct Room<'a>([MaybeUninit<httparse::Header<'a>>; MOST_FIELDS]);

impl Room<'_> {
    pub(super) fn new() -> Self {
        Room([const { MaybeUninit::uninit() }; MOST_FIELDS])
    }
}

/// Reads a head off the start of `bytes`.
pub(super) fn read<'a>(bytes: &'a [u8], room: &'a mut Room<'a>) -> Told<'a> {
    if !matches!(bytes.first(), None | Some(b'G' | b'H')) {
        return Told::Other;
    }
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut room.0) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Told::Incomplete,
        Err(_) => return Told::Other,
    };
    let method = match request.method {
        Some("GET") => Method::GET,
        Some("HEAD") => Method::HEAD,
        _ => return Told::Other,
    };
    let target = request.path.unwrap_or_default();
    if request.version != Some(1)
        || !target.starts_with('/')
        // Maybe an archive, whose length nobody knows.
        || memchr::memmem::find(target.as_bytes(), b"download=").is_some()
        || !lines_end_in_both(&bytes[..length])
    {
        return Told::Other;
    }
    understand(method, target, request.headers).map_or(Told::Other, |head| Told::Head(head, length))
}

/// A line that ends in LF alone is valid to some and not to others (RFC 9112 §2.2).
fn lines_end_in_both(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

/// None: not for the loop.
fn understand<'a>(
    method: Method,
    target: &'a str,
    fields: &'a [httparse::Header<'a>],
) -> Option<Head<'a>> {
    let (mut plain, mut decisive) = (Plain::default(), method != Method::GET);
    let (mut hosts, mut connections, mut encodings) = (0, 0, 0);
    let mut close = false;
    for field in fields {
        match kind(field.name) {
            Kind::Host => {
                plain.host = field.value;
                hosts += 1;
            }
            Kind::Connection => {
                connections += 1;
                close = field.value.eq_ignore_ascii_case(b"close");
                if connections > 1 || !(close || field.value.eq_ignore_ascii_case(b"keep-alive")) {
                    return None;
                }
            }
            Kind::AcceptEncoding => {
                plain.accept_encoding = field.value;
                encodings += 1;
            }
            Kind::IfNoneMatch => {
                decisive |= plain.if_none_match.replace(field.value).is_some();
            }
            Kind::Harmless => {}
            Kind::Framing => return None,
            Kind::Decisive => decisive = true,
        }
    }
    let plain = (!decisive && hosts == 1 && encodings <= 1).then_some(plain);
    Some(Head {
        method,
        target,
        fields,
        close,
        plain,
    })
}

impl Head<'_> {
    /// The value of a field that no client sends twice.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(field.value)
    }

    /// The request, for the recipe. None: hyper has to say what is wrong with it.
    pub(super) fn request(&self) -> Option<Parts> {
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        for field in self.fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
        let (mut request, ()) = Request::new(()).into_parts();
        request.method = self.method.clone();
        request.uri = Uri::try_from(self.target).ok()?;
        request.version = Version::HTTP_11;
        request.headers = headers;
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Plain<'_> = Plain {
        host: b"h",
        accept_encoding: b"",
        if_none_match: None,
    };

    #[test]
    fn only_what_is_plainly_a_get_or_head_is_taken() {
        for bytes in [
            "",
            "G",
            "GET / HTTP/1.1\r\nHost: h\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r",
        ] {
            assert!(
                matches!(read(bytes.as_bytes(), &mut Room::new()), Told::Incomplete),
                "{bytes:?}"
            );
        }
        for bytes in [
            "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GETS / HTTP/1.1\r\nHost: h\r\n\r\n",
            "get / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
        ] {
            assert!(
                matches!(read(bytes.as_bytes(), &mut Room::new()), Told::Other),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_may_decide_an_answer_is_not_plain() {
        let (encoded, conditional) = (
            Plain {
                accept_encoding: b"br, gzip",
                ..PLAIN
            },
            Plain {
                if_none_match: Some(b"\"x\""),
                ..PLAIN
            },
        );
        for (method, fields, plain) in [
            ("GET", "Host: h\r\n", Some(PLAIN)),
            (
                "GET",
                "HOST: h\r\nUser-Agent: u\r\nCookie: c\r\n",
                Some(PLAIN),
            ),
            (
                "GET",
                "Host: h\r\nAccept-Encoding: br, gzip\r\n",
                Some(encoded),
            ),
            (
                "GET",
                "Host: h\r\nIf-None-Match: \"x\"\r\n",
                Some(conditional),
            ),
            ("HEAD", "Host: h\r\n", None),
            ("GET", "", None),
            ("GET", "Host: h\r\nHost: h\r\n", None),
            ("GET", "Host: h\r\nRange: bytes=0-\r\n", None),
            ("GET", "Host: h\r\nX-BlobServe-InlineVars: {}\r\n", None),
            ("GET", "Host: h\r\nX-Unheard-Of: 1\r\n", None),
            ("GET", "Host: h\r\nOrigin: https://o\r\n", None),
            (
                "GET",
                "Host: h\r\nIf-None-Match: \"x\"\r\nIf-None-Match: \"y\"\r\n",
                None,
            ),
            (
                "GET",
                "Host: h\r\nAccept-Encoding: br\r\nAccept-Encoding: gzip\r\n",
                None,
            ),
        ] {
            let text = format!("{method} /a?b HTTP/1.1\r\n{fields}\r\nGET");
            let mut room = Room::new();
            let Told::Head(head, length) = read(text.as_bytes(), &mut room) else {
                panic!("{text:?}");
            };
            assert_eq!(length, text.len() - 3, "{text:?}");
            assert_eq!((head.target, head.plain), ("/a?b", plain), "{text:?}");
            let request = head.request().unwrap();
            assert_eq!(request.method, method);
            assert_eq!(request.headers.len(), fields.matches("\r\n").count());
        }
    }

    #[test]
    fn a_client_that_wants_to_close_is_heard() {
        for (field, close) in [("close", true), ("Close", true), ("keep-alive", false)] {
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {field}\r\n\r\n");
            let mut room = Room::new();
            let Told::Head(head, _) = read(text.as_bytes(), &mut room) else {
                panic!("{text:?}");
            };
            assert_eq!(head.close, close, "{field}");
        }
    }
}
