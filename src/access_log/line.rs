//! The text of a line. Pure.

use super::{Answered, Asked, Cache};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of one field at most; what is longer is cut and ends in `…` (in JSON) or `...`.
const MOST_FIELD: usize = 4096;

/// A moment, as both formats need it. In UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    second: u64,
    milliseconds: u32,
    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    date: [u8; 29],
}

/// Remembers how the current second is written.
#[derive(Debug, Default)]
pub(super) struct Clock(Option<Now>);

impl Clock {
    pub(super) fn at(&mut self, time: SystemTime) -> Now {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs();
        let known = self.0.filter(|now| now.second == second);
        let now = Now {
            milliseconds: since.subsec_millis(),
            ..known.unwrap_or_else(|| Now::of(second))
        };
        self.0 = Some(now);
        now
    }
}

impl Now {
    fn of(second: u64) -> Now {
        let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        // Past the year 9999 there is no such date.
        if second < 253_402_300_800 {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            if text.len() == date.len() {
                date.copy_from_slice(text.as_bytes());
            }
        }
        Now {
            second,
            milliseconds: 0,
            date,
        }
    }

    /// `06/Nov/1994:08:49:37 +0000`.
    fn combined(&self, into: &mut Vec<u8>) {
        let date = &self.date;
        for (part, after) in [
            (&date[5..7], b"/".as_slice()),
            (&date[8..11], b"/"),
            (&date[12..16], b":"),
            (&date[17..25], b" +0000"),
        ] {
            into.extend_from_slice(part);
            into.extend_from_slice(after);
        }
    }

    /// `1994-11-06T08:49:37.000Z` (RFC 3339).
    fn rfc3339(&self, into: &mut Vec<u8>) {
        const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let date = &self.date;
        let month = MONTHS.chunks(3).position(|name| *name == date[8..11]);
        into.extend_from_slice(&date[12..16]);
        number(into, format_args!("-{:02}-", 1 + month.unwrap_or(0)));
        into.extend_from_slice(&date[5..7]);
        into.push(b'T');
        into.extend_from_slice(&date[17..25]);
        number(into, format_args!(".{:03}Z", self.milliseconds));
    }
}

/// The Combined Log Format: `remote - - [time] "request" status bytes "referer" "user agent"`.
pub(super) fn combined(into: &mut Vec<u8>, now: &Now, asked: &Asked<'_>, answered: &Answered<'_>) {
    number(into, format_args!("{} - - [", asked.remote.to_canonical()));
    now.combined(into);
    into.extend_from_slice(b"] \"");
    escaped(into, asked.method);
    into.push(b' ');
    escaped(into, asked.target);
    number(
        into,
        format_args!(
            " {:?}\" {} {} \"",
            asked.version, answered.status, answered.bytes
        ),
    );
    escaped(into, asked.referer.unwrap_or(b"-"));
    into.extend_from_slice(b"\" \"");
    escaped(into, asked.user_agent.unwrap_or(b"-"));
    into.extend_from_slice(b"\"\n");
}

/// One object; what is not known is left out. `duration` is seconds.
pub(super) fn json(into: &mut Vec<u8>, now: &Now, asked: &Asked<'_>, answered: &Answered<'_>) {
    into.extend_from_slice(b"{\"time\":\"");
    now.rfc3339(into);
    number(
        into,
        format_args!("\",\"remote\":\"{}\"", asked.remote.to_canonical()),
    );
    member(into, "method", Some(asked.method));
    member(into, "target", Some(asked.target));
    number(
        into,
        format_args!(
            ",\"version\":\"{:?}\",\"status\":{},\"bytes\":{},\"duration\":{}.{:06}",
            asked.version,
            answered.status,
            answered.bytes,
            answered.duration.as_secs(),
            answered.duration.subsec_micros()
        ),
    );
    member(into, "host", asked.host);
    member(into, "referer", asked.referer);
    member(into, "userAgent", asked.user_agent);
    member(into, "reference", answered.reference.map(str::as_bytes));
    let cache = answered.cache.map(|cache| match cache {
        Cache::Warm => b"warm".as_slice(),
        Cache::Cold => b"cold",
    });
    member(into, "cache", cache);
    into.extend_from_slice(b"}\n");
}

fn number(into: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    let _ = into.write_fmt(text);
}

/// As nginx: a quote, a backslash and whatever is not printable ASCII as `\xHH`.
fn escaped(into: &mut Vec<u8>, field: &[u8]) {
    let (field, cut) = clipped(field);
    if field.iter().all(plain) {
        into.extend_from_slice(field);
    } else {
        for byte in field {
            match plain(byte) {
                true => into.push(*byte),
                false => number(into, format_args!("\\x{byte:02X}")),
            }
        }
    }
    if cut {
        into.extend_from_slice(b"...");
    }
}

/// A member of the object, in RFC 8259's escapes; bytes that are no UTF-8 become U+FFFD.
fn member(into: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let Some(value) = value else {
        return;
    };
    number(into, format_args!(",\"{name}\":\""));
    let (value, cut) = clipped(value);
    if value.iter().all(plain) {
        into.extend_from_slice(value);
    } else {
        for character in String::from_utf8_lossy(value).chars() {
            match character {
                '"' | '\\' => number(into, format_args!("\\{character}")),
                // Some readers end a line at the last two.
                control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                    number(into, format_args!("\\u{:04x}", control as u32));
                }
                other => number(into, format_args!("{other}")),
            }
        }
    }
    if cut {
        into.extend_from_slice("…".as_bytes());
    }
    into.push(b'"');
}

/// Printable ASCII that means nothing to either format.
fn plain(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

fn clipped(field: &[u8]) -> (&[u8], bool) {
    match field.len() {
        0..=MOST_FIELD => (field, false),
        _ => (&field[..MOST_FIELD], true),
    }
}
