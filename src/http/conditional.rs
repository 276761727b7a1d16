//! Conditional requests: RFC 9110 §13. Pure: header values and validators in, a decision out.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a representation is compared by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validators<'a> {
    /// Strong, with its quotes.
    pub(super) etag: &'a HeaderValue,
    /// Seconds since 1970, not later than now.
    pub(super) last_modified: Option<u64>,
}

/// What the preconditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// RFC 9110 §13.2.2, steps 1 to 4, for GET and HEAD.
pub(super) fn evaluate(headers: &HeaderMap, validators: Validators<'_>) -> Precondition {
    if headers.contains_key(header::IF_MATCH) {
        if !matches(
            headers,
            header::IF_MATCH,
            validators.etag,
            Comparison::Strong,
        ) {
            return Precondition::Failed;
        }
    } else if let (Some(since), Some(modified)) = (
        date(only(headers, &header::IF_UNMODIFIED_SINCE)),
        validators.last_modified,
    ) && modified > since
    {
        return Precondition::Failed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if matches(
            headers,
            header::IF_NONE_MATCH,
            validators.etag,
            Comparison::Weak,
        ) {
            return Precondition::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (
        date(only(headers, &header::IF_MODIFIED_SINCE)),
        validators.last_modified,
    ) && modified <= since
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

/// RFC 9110 §13.1.5: whether a Range may be honoured. A date counts only as an exact match of a
/// Last-Modified that is strong by §8.8.2.2, which a second's resolution on immutable bytes is.
pub(super) fn range_allowed(headers: &HeaderMap, validators: Validators<'_>) -> bool {
    let mut values = headers.get_all(header::IF_RANGE).iter();
    let Some(value) = values.next() else {
        return true;
    };
    if values.next().is_some() {
        return false;
    }
    if value.as_bytes().starts_with(b"\"") {
        return value == validators.etag;
    }
    match (date(Some(value)), validators.last_modified) {
        (Some(date), Some(modified)) => date == modified,
        _ => false,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

fn matches(headers: &HeaderMap, name: HeaderName, etag: &HeaderValue, how: Comparison) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|value| listed(value.as_bytes(), etag.as_bytes(), how))
}

/// Whether `*` or the entity tag stands in a list (RFC 9110 §8.8.3). What is no entity tag ends the list.
fn listed(list: &[u8], etag: &[u8], how: Comparison) -> bool {
    let mut rest = list;
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => return false,
            [b',', tail @ ..] => {
                rest = tail;
                continue;
            }
            [b'*', tail @ ..] => return matches!(tail.trim_ascii(), [] | [b',', ..]),
            _ => {}
        }
        let (weak, quoted) = match rest {
            [b'W', b'/', tail @ ..] => (true, tail),
            _ => (false, rest),
        };
        if !quoted.starts_with(b"\"") {
            return false;
        }
        let Some(end) = quoted[1..].iter().position(|byte| *byte == b'"') else {
            return false;
        };
        let (tag, tail) = quoted.split_at(end + 2);
        if tag == etag && (how == Comparison::Weak || !weak) {
            return true;
        }
        rest = tail;
    }
}

/// The value of a field that may stand once; None where it is missing or repeated.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// An HTTP date (RFC 9110 §5.6.7, the obsolete forms too) in seconds since 1970. None if it is none.
fn date(value: Option<&HeaderValue>) -> Option<u64> {
    let date = httpdate::parse_http_date(value?.to_str().ok()?).ok()?;
    date.duration_since(UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

/// A time in seconds since 1970 that says something: not one up to 1980-01-02, which builders write for "no
/// time", and which stand for none where there is none, as with artifacts.
pub(super) fn told(mtime: i64) -> bool {
    const SAYS_NOTHING: i64 = 315_619_200;
    mtime > SAYS_NOTHING
}

/// The Last-Modified that says something ([`told`]), never later than `now` (RFC 9110 §8.8.2.1).
pub(super) fn last_modified(mtime: Option<i64>, now: SystemTime) -> Option<u64> {
    let mtime = u64::try_from(mtime.filter(|mtime| told(*mtime))?).ok()?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Some(mtime.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LM: u64 = 1_700_000_000;

    fn headers(list: &[(&'static str, String)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn at(seconds: u64) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn preconditions_take_precedence_as_rfc_9110_orders_them() {
        use Precondition::{Failed, NotModified, Proceed};
        let e = |value: &str| value.to_owned();
        let table: Vec<(Vec<(&'static str, String)>, Precondition)> = vec![
            (vec![], Proceed),
            (vec![("if-match", e("\"a\""))], Proceed),
            (vec![("if-match", e("\"b\", \"a\""))], Proceed),
            (vec![("if-match", e("W/\"a\""))], Failed),
            (vec![("if-match", e("*"))], Proceed),
            (vec![("if-match", e("\"b\""))], Failed),
            (
                vec![
                    ("if-match", e("\"a\"")),
                    ("if-unmodified-since", at(LM - 1)),
                ],
                Proceed,
            ),
            (vec![("if-unmodified-since", at(LM - 1))], Failed),
            (vec![("if-unmodified-since", at(LM))], Proceed),
            (vec![("if-unmodified-since", e("yesterday"))], Proceed),
            (vec![("if-none-match", e("W/\"a\""))], NotModified),
            (
                vec![("if-none-match", e("\"b\"")), ("if-modified-since", at(LM))],
                Proceed,
            ),
            (vec![("if-none-match", e("*"))], NotModified),
            (vec![("if-none-match", e("a"))], Proceed),
            (vec![("if-modified-since", at(LM))], NotModified),
            (vec![("if-modified-since", at(LM - 1))], Proceed),
            (
                vec![("if-match", e("\"b\"")), ("if-none-match", e("\"a\""))],
                Failed,
            ),
        ];
        let etag = HeaderValue::from_static("\"a\"");
        for (list, expected) in table {
            let validators = Validators {
                etag: &etag,
                last_modified: Some(LM),
            };
            assert_eq!(evaluate(&headers(&list), validators), expected, "{list:?}");
        }
    }

    #[test]
    fn a_range_is_honoured_only_for_the_very_same_representation() {
        let etag = HeaderValue::from_static("\"a\"");
        for (value, allowed) in [
            ("\"a\"".to_owned(), true),
            ("W/\"a\"".to_owned(), false),
            ("\"b\"".to_owned(), false),
            (at(LM), true),
            (at(LM + 1), false),
            (at(LM - 1), false),
            ("nonsense".to_owned(), false),
        ] {
            let validators = Validators {
                etag: &etag,
                last_modified: Some(LM),
            };
            assert_eq!(
                range_allowed(&headers(&[("if-range", value.clone())]), validators),
                allowed,
                "{value}"
            );
        }
    }

    #[test]
    fn a_date_that_says_nothing_is_not_sent_and_none_is_in_the_future() {
        let now = UNIX_EPOCH + Duration::from_secs(LM);
        for (mtime, sent) in [
            (None, None),
            (Some(0), None),
            (Some(-1), None),
            (Some(315_532_800), None),
            (Some(315_619_201), Some(315_619_201)),
            (Some(LM as i64 + 10), Some(LM)),
        ] {
            assert_eq!(last_modified(mtime, now), sent, "{mtime:?}");
        }
    }
}
