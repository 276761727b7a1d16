//! Heads of answers as they are sent: RFC 9112 §4.

use http::StatusCode;
use http::header::{self, HeaderMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Status line and fields, each with its end.
pub(super) fn status_and_fields(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

pub(super) fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(header::CONTENT_LENGTH.as_str().as_bytes());
    out.extend_from_slice(format!(": {length}\r\n").as_bytes());
}

/// Date, Connection where it is due, and the empty line.
pub(super) fn end(out: &mut Vec<u8>, date: &[u8], close: bool) {
    out.extend_from_slice(b"date: ");
    out.extend_from_slice(date);
    out.extend_from_slice(if close {
        b"\r\nconnection: close\r\n\r\n"
    } else {
        b"\r\n\r\n"
    });
}

/// The Date of answers (RFC 9110 §6.6.1), written anew once a second.
pub(super) struct Date {
    text: String,
    until: Option<Instant>,
}

impl Date {
    pub(super) const fn new() -> Date {
        Date {
            text: String::new(),
            until: None,
        }
    }

    /// As of `now`, which is a time of a moment ago.
    pub(super) fn text(&mut self, now: Instant) -> &[u8] {
        if self.until.is_none_or(|until| until <= now) {
            let time = SystemTime::now();
            self.text = httpdate::fmt_http_date(time);
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let left = Duration::from_secs(1) - Duration::from_nanos(since.subsec_nanos().into());
            self.until = Some(now + left);
        }
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_a_line_a_field_a_line_each_and_an_empty_one() {
        let headers = HeaderMap::from_iter([(header::ETAG, "\"a\"".parse().unwrap())]);
        for (close, connection) in [(false, ""), (true, "connection: close\r\n")] {
            let mut head = Vec::new();
            status_and_fields(&mut head, StatusCode::OK, &headers);
            content_length(&mut head, 7);
            end(&mut head, b"D", close);
            let expected = format!(
                "HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: 7\r\ndate: D\r\n{connection}\r\n"
            );
            assert_eq!(String::from_utf8(head).unwrap(), expected);
        }
    }

    #[test]
    fn the_date_moves_each_second() {
        let mut date = Date::new();
        let now = Instant::now();
        let first = date.text(now).to_vec();
        let said = httpdate::parse_http_date(std::str::from_utf8(&first).unwrap()).unwrap();
        assert!(said.elapsed().unwrap() < Duration::from_secs(2));
        assert_eq!(date.text(now), first, "not asked again at the same moment");
        assert!(date.until.unwrap() <= now + Duration::from_secs(1));
    }
}
