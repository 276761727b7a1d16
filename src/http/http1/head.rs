//! The head of a request, as far as it can be told without copying it, and what is wrong with one.
//!
//! Of a plain GET or HEAD of HTTP/1.1 nothing but its fields is looked at; what is odd about any other is
//! [`framing`]'s to judge.

use super::framing::{self, After, Refusal};
use crate::http::plain::{Kind, Plain, kind};
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri, Version};
use std::mem::MaybeUninit;

/// Fields of a head; one with more is refused.
const MOST_FIELDS: usize = 100;

/// What the bytes so far are.
pub(super) enum Told<'a> {
    /// The start of a head, perhaps.
    Incomplete,
    /// A head, and how many bytes it is.
    Head(Head<'a>, usize),
    /// No head, and none will come of it.
    Refused(Refusal),
}

/// What a request says before its body.
pub(super) struct Head<'a> {
    pub(super) method: Method,
    /// In any of its forms (RFC 9112 §3.2).
    pub(super) target: &'a str,
    version: Version,
    fields: &'a [httparse::Header<'a>],
    pub(super) after: After,
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
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut room.0) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Told::Incomplete,
        Err(error) => return Told::Refused(Refusal::of(error)),
    };
    let method = match request.method {
        Some("GET") => Method::GET,
        Some("HEAD") => Method::HEAD,
        other => match Method::from_bytes(other.unwrap_or_default().as_bytes()) {
            Ok(method) => method,
            Err(_) => return Told::Refused(Refusal::LINE),
        },
    };
    let target = request.path.unwrap_or_default();
    let version = match request.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let plain = method == Method::GET
        && version == Version::HTTP_11
        && target.starts_with('/')
        && lines_end_in_both(&bytes[..length], request.headers);
    let head = Head {
        method,
        target,
        version,
        fields: request.headers,
        after: After::Next,
        plain: plain.then(Plain::default),
    };
    match head.understood() {
        Ok(head) => Told::Head(head, length),
        Err(refusal) => Told::Refused(refusal),
    }
}

/// A line that ends in LF alone is valid to some and not to others (RFC 9112 §2.2). The fields are parts of the
/// head of a GET; empty lines before it are odd, too.
fn lines_end_in_both(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let begins_a_line = |field: &httparse::Header<'_>| {
        let at = field.name.as_ptr().addr() - head.as_ptr().addr();
        head[..at].ends_with(b"\r\n")
    };
    head.starts_with(b"GET") && head.ends_with(b"\r\n\r\n") && fields.iter().all(begins_a_line)
}

impl<'a> Head<'a> {
    fn understood(mut self) -> Result<Head<'a>, Refusal> {
        let (mut plain, mut decisive) = (Plain::default(), false);
        let (mut hosts, mut connections, mut encodings) = (0, 0, 0);
        let (mut close, mut odd) = (false, self.version != Version::HTTP_11);
        for field in self.fields {
            match kind(field.name) {
                Kind::Host => {
                    plain.host = field.value;
                    hosts += 1;
                }
                Kind::Connection => {
                    connections += 1;
                    close = field.value.eq_ignore_ascii_case(b"close");
                    odd |= connections > 1
                        || !(close || field.value.eq_ignore_ascii_case(b"keep-alive"));
                }
                Kind::AcceptEncoding => {
                    plain.accept_encoding = field.value;
                    encodings += 1;
                }
                Kind::IfNoneMatch => {
                    decisive |= plain.if_none_match.replace(field.value).is_some();
                }
                Kind::Harmless => {}
                Kind::Framing => odd = true,
                Kind::Decisive => decisive = true,
            }
        }
        self.after = match odd {
            true => framing::after(self.version, self.fields)?,
            false if close => After::End,
            false => After::Next,
        };
        let is_plain = !decisive && !odd && hosts == 1 && encodings <= 1;
        self.plain = self.plain.filter(|_| is_plain).map(|_| plain);
        Ok(self)
    }

    /// The value of a field that no client sends twice.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(field.value)
    }

    /// The request, for the recipe.
    pub(super) fn request(&self) -> Result<Parts, Refusal> {
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        for field in self.fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            headers.append(
                name.map_err(|_| Refusal::FIELD_NAME)?,
                value.map_err(|_| Refusal::FIELD_VALUE)?,
            );
        }
        let (mut request, ()) = Request::new(()).into_parts();
        request.method = self.method.clone();
        request.uri = Uri::try_from(self.target).map_err(|_| Refusal::TARGET)?;
        request.version = self.version;
        request.headers = headers;
        Ok(request)
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
    fn a_head_is_told_as_soon_as_it_can_be() {
        for bytes in [
            "",
            "G",
            "POST / HTTP/1.1\r\nHost: h",
            "GET / HTTP/1.1\r\nHost: h\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r",
        ] {
            assert!(
                matches!(read(bytes.as_bytes(), &mut Room::new()), Told::Incomplete),
                "{bytes:?}"
            );
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
        for (bytes, status) in [
            ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/3.7\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nA: b\0\r\n\r\n", 400),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
                400,
            ),
            ("\u{16}\u{3}\u{1}", 400),
            (&many, 431),
        ] {
            let mut room = Room::new();
            let Told::Refused(refusal) = read(bytes.as_bytes(), &mut room) else {
                panic!("{bytes:?}");
            };
            assert_eq!(refusal.status, status, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_odd_asks_the_recipe() {
        for (bytes, after) in [
            ("POST / HTTP/1.1\r\nHost: h\r\n\r\n", After::Next),
            ("GETS / HTTP/1.1\r\nHost: h\r\n\r\n", After::Next),
            ("get / HTTP/1.1\r\nHost: h\r\n\r\n", After::Next),
            ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", After::End),
            ("GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", After::Next),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", After::Next),
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", After::Next),
            ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", After::Next),
            ("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", After::Next),
            ("GET / HTTP/1.1\r\nA: b\nHost: h\r\n\r\n", After::Next),
            ("GET / HTTP/1.1\r\nHost: h\n\r\n", After::Next),
            ("GET / HTTP/1.1\r\nHost: h\r\n\n", After::Next),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
                After::Next,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
                After::EndUnread,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
                After::Next,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                After::Next,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, x\r\n\r\n",
                After::End,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
                After::End,
            ),
        ] {
            let mut room = Room::new();
            let Told::Head(head, length) = read(bytes.as_bytes(), &mut room) else {
                panic!("{bytes:?}");
            };
            assert_eq!((head.after, head.plain), (after, None), "{bytes:?}");
            assert_eq!(length, bytes.len());
            assert!(head.request().is_ok(), "{bytes:?}");
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
        for (field, after) in [
            ("close", After::End),
            ("Close", After::End),
            ("keep-alive", After::Next),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {field}\r\n\r\n");
            let mut room = Room::new();
            let Told::Head(head, _) = read(text.as_bytes(), &mut room) else {
                panic!("{text:?}");
            };
            assert_eq!(head.after, after, "{field}");
        }
    }
}
