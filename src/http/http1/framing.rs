//! Where a request ends, and whether the connection outlives it (RFC 9112 §6.3, §9.3); and how one is
//! refused that leaves this, or anything before it, open. Pure.

use http::{StatusCode, Version};

/// A longer body ends its connection: opening another costs less.
const MOST_SKIPPED: u64 = 64 << 10;

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum After {
    /// The next request.
    Next,
    /// The same, and a client of HTTP/1.0 has to be told.
    NextIfTold,
    /// The next request, behind so many bytes of a body that nobody reads.
    NextPast(u64),
    /// It ends.
    End,
    /// It ends, and a body that nobody reads may still come.
    EndUnread,
}

/// Why there is no answer but this, with the connection at its end: where the next request would begin is
/// not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// One line.
    pub(super) text: &'static str,
}

const fn bad(text: &'static str) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        text,
    }
}

impl Refusal {
    pub(super) const LINE: Refusal = bad(
        "a request begins with a method, a target and a version, one space apart (RFC 9112 §3)",
    );
    pub(super) const TARGET: Refusal = bad("the target of the request is no URI (RFC 9112 §3.2)");
    const VERSION: Refusal =
        bad("the version of the request is none of HTTP/1.0, HTTP/1.1, HTTP/2");
    const LINE_END: Refusal = bad("a line of the request does not end in CR LF (RFC 9112 §2.2)");
    pub(super) const FIELD_NAME: Refusal =
        bad("the name of a field is a token with a colon behind it (RFC 9112 §5)");
    pub(super) const FIELD_VALUE: Refusal =
        bad("the value of a field holds a control character (RFC 9110 §5.5)");
    const CONTENT_LENGTH: Refusal = bad("Content-Length is one number of bytes (RFC 9110 §8.6)");
    const TRANSFER_ENCODING: Refusal =
        bad("Transfer-Encoding is chunked, or is not sent (RFC 9112 §6.1)");
    const BOTH: Refusal =
        bad("a request has Content-Length or Transfer-Encoding, not both (RFC 9112 §6.1)");
    const FIELDS: Refusal = Refusal {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        text: "the head of the request has more than 100 fields",
    };
    /// The head is larger than what holds it.
    const HEAD: Refusal = Refusal {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        text: "the head of the request is larger than 64 KiB",
    };
    const LONG_TARGET: Refusal = Refusal {
        status: StatusCode::URI_TOO_LONG,
        text: "the target of the request is longer than 64 KiB",
    };

    /// As the parser says it.
    pub(super) fn of(error: httparse::Error) -> Refusal {
        match error {
            httparse::Error::HeaderName => Refusal::FIELD_NAME,
            httparse::Error::HeaderValue => Refusal::FIELD_VALUE,
            httparse::Error::NewLine => Refusal::LINE_END,
            httparse::Error::Version => Refusal::VERSION,
            httparse::Error::TooManyHeaders => Refusal::FIELDS,
            httparse::Error::Status | httparse::Error::Token => Refusal::LINE,
        }
    }

    /// Of a head that does not end within the bytes that a head may have.
    pub(super) fn of_length(head: &[u8]) -> Refusal {
        match memchr::memchr(b'\n', head.trim_ascii_start()) {
            Some(_) => Refusal::HEAD,
            None => Refusal::LONG_TARGET,
        }
    }
}

/// By the version and the fields of a request.
///
/// # Errors
/// It cannot be told where the request ends.
pub(super) fn after(version: Version, fields: &[httparse::Header<'_>]) -> Result<After, Refusal> {
    let values = |name: &'static str| {
        let of_name = fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name));
        of_name.map(|field| field.value)
    };
    let mut length = None;
    for value in values("content-length") {
        let number = decimal(value).ok_or(Refusal::CONTENT_LENGTH)?;
        if length.replace(number).is_some_and(|other| other != number) {
            return Err(Refusal::CONTENT_LENGTH);
        }
    }
    let mut chunked = false;
    for coding in values("transfer-encoding").flat_map(members) {
        let again = std::mem::replace(&mut chunked, true);
        if again || version == Version::HTTP_10 || !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::TRANSFER_ENCODING);
        }
    }
    if chunked && length.is_some() {
        return Err(Refusal::BOTH);
    }
    let says = |option: &[u8]| {
        let mut options = values("connection").flat_map(members);
        options.any(|said| said.eq_ignore_ascii_case(option))
    };
    // A client that is told before it sends its body may leave it (RFC 9110 §10.1.1), or not.
    let certain = version == Version::HTTP_11 && values("expect").next().is_none();
    Ok(match version {
        _ if chunked => After::EndUnread,
        _ if length > Some(0) => match length {
            Some(length @ ..=MOST_SKIPPED) if certain && !says(b"close") => After::NextPast(length),
            _ => After::EndUnread,
        },
        _ if says(b"close") => After::End,
        Version::HTTP_10 if says(b"keep-alive") => After::NextIfTold,
        Version::HTTP_10 => After::End,
        _ => After::Next,
    })
}

/// The members of a list (RFC 9110 §5.6.1); one of nothing has an empty one.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Digits only, and not too many: a sign or a list is read otherwise by others.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_where_it_says_in_one_way_or_is_refused() {
        const V10: Version = Version::HTTP_10;
        const V11: Version = Version::HTTP_11;
        type Case<'a> = (Version, &'a [(&'a str, &'a str)], Result<After, Refusal>);
        let table: &[Case<'_>] = &[
            (V11, &[], Ok(After::Next)),
            (V10, &[], Ok(After::End)),
            (V10, &[("Connection", "Keep-Alive")], Ok(After::NextIfTold)),
            (V10, &[("Connection", "keep-alive, close")], Ok(After::End)),
            (V11, &[("connection", "keep-alive")], Ok(After::Next)),
            (V11, &[("connection", "x, CLOSE")], Ok(After::End)),
            (
                V11,
                &[("connection", "close"), ("connection", "keep-alive")],
                Ok(After::End),
            ),
            (
                V11,
                &[("connection", "upgrade"), ("upgrade", "h2c")],
                Ok(After::Next),
            ),
            (V11, &[("content-length", "0")], Ok(After::Next)),
            (
                V11,
                &[("content-length", "0"), ("content-length", "0")],
                Ok(After::Next),
            ),
            (V11, &[("content-length", "7")], Ok(After::NextPast(7))),
            (
                V11,
                &[("content-length", "65536")],
                Ok(After::NextPast(65536)),
            ),
            (V11, &[("content-length", "65537")], Ok(After::EndUnread)),
            (
                V11,
                &[("content-length", "7"), ("connection", "close")],
                Ok(After::EndUnread),
            ),
            (
                V11,
                &[("content-length", "7"), ("expect", "100-continue")],
                Ok(After::EndUnread),
            ),
            (V10, &[("content-length", "7")], Ok(After::EndUnread)),
            (
                V11,
                &[("content-length", "18446744073709551615")],
                Ok(After::EndUnread),
            ),
            (
                V11,
                &[("content-length", "18446744073709551616")],
                Err(Refusal::CONTENT_LENGTH),
            ),
            (V11, &[("content-length", "")], Err(Refusal::CONTENT_LENGTH)),
            (
                V11,
                &[("content-length", "+1")],
                Err(Refusal::CONTENT_LENGTH),
            ),
            (
                V11,
                &[("content-length", "-1")],
                Err(Refusal::CONTENT_LENGTH),
            ),
            (
                V11,
                &[("content-length", "0x1")],
                Err(Refusal::CONTENT_LENGTH),
            ),
            (
                V11,
                &[("content-length", "5, 5")],
                Err(Refusal::CONTENT_LENGTH),
            ),
            (
                V11,
                &[("content-length", "5"), ("Content-Length", "6")],
                Err(Refusal::CONTENT_LENGTH),
            ),
            (
                V11,
                &[("transfer-encoding", "chunked")],
                Ok(After::EndUnread),
            ),
            (
                V11,
                &[("transfer-encoding", "Chunked")],
                Ok(After::EndUnread),
            ),
            (
                V10,
                &[("transfer-encoding", "chunked")],
                Err(Refusal::TRANSFER_ENCODING),
            ),
            (
                V11,
                &[("transfer-encoding", "")],
                Err(Refusal::TRANSFER_ENCODING),
            ),
            (
                V11,
                &[("transfer-encoding", "xchunked")],
                Err(Refusal::TRANSFER_ENCODING),
            ),
            (
                V11,
                &[("transfer-encoding", "\u{b}chunked")],
                Err(Refusal::TRANSFER_ENCODING),
            ),
            (
                V11,
                &[("transfer-encoding", "chunked, identity")],
                Err(Refusal::TRANSFER_ENCODING),
            ),
            (
                V11,
                &[("transfer-encoding", "gzip, chunked")],
                Err(Refusal::TRANSFER_ENCODING),
            ),
            (
                V11,
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                Err(Refusal::TRANSFER_ENCODING),
            ),
            (
                V11,
                &[("content-length", "0"), ("transfer-encoding", "chunked")],
                Err(Refusal::BOTH),
            ),
        ];
        for (version, fields, expected) in table {
            let read: Vec<_> = fields
                .iter()
                .map(|(name, value)| httparse::Header {
                    name,
                    value: value.as_bytes(),
                })
                .collect();
            assert_eq!(after(*version, &read), *expected, "{version:?} {fields:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_told_apart() {
        for (head, status) in [
            ("GET /xxxx", 414),
            ("\r\nGET /xxxx", 414),
            ("GET / HTTP/1.1\r\nA: b", 431),
        ] {
            assert_eq!(
                Refusal::of_length(head.as_bytes()).status,
                status,
                "{head:?}"
            );
        }
    }
}
