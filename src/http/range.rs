//! Range requests: RFC 9110 §14. Pure: a header value and a length in, a decision out.

use std::ops::Range;

/// Ranges in one request; more are answered with the whole.
const MOST_RANGES: usize = 64;

/// What a Range header asks of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// 200: no range, or one that is to be ignored (§14.2).
    Whole,
    /// 206 with Content-Range.
    One(Range<u64>),
    /// 206 with multipart/byteranges, in the order asked for.
    Many(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Decides. Other units and what does not parse is ignored; ranges that begin past the end are dropped
/// (all of them: unsatisfiable); ranges that together hold more than the whole, or are too many, get the
/// whole, so that no request costs more than the file (§17.15).
pub(super) fn select(value: &str, length: u64) -> Selection {
    let Some((unit, set)) = value.split_once('=') else {
        return Selection::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut ranges = Vec::new();
    let mut asked = 0;
    for spec in set
        .split(',')
        .map(|spec| spec.trim_matches([' ', '\t']))
        .filter(|spec| !spec.is_empty())
    {
        asked += 1;
        match one(spec, length) {
            None => return Selection::Whole,
            Some(range) if range.is_empty() => {}
            Some(range) => ranges.push(range),
        }
        if asked > MOST_RANGES {
            return Selection::Whole;
        }
    }
    let total = ranges.iter().fold(0_u64, |sum, range| {
        sum.saturating_add(range.end - range.start)
    });
    match ranges.len() {
        _ if asked == 0 => Selection::Whole,
        0 => Selection::Unsatisfiable,
        1 => Selection::One(ranges.remove(0)),
        _ if total > length => Selection::Whole,
        _ => Selection::Many(ranges),
    }
}

/// `first-last`, `first-` or `-suffix`. None: not a range at all. An empty range cannot be satisfied.
fn one(spec: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (
        first.trim_matches([' ', '\t']),
        last.trim_matches([' ', '\t']),
    );
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(length.saturating_sub(suffix)..length);
    }
    let first = number(first)?;
    let end = match last {
        "" => length,
        last => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(length)
        }
    };
    Some(first.min(length)..end.max(first.min(length)))
}

/// Digits only; a number beyond 64 bits is beyond any file.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_select_what_rfc_9110_says() {
        use Selection::{Many, One, Unsatisfiable, Whole};
        let table = [
            ("bytes=0-4", 11, One(0..5)),
            ("bytes=2-", 11, One(2..11)),
            ("bytes=-5", 11, One(6..11)),
            ("bytes=-50", 11, One(0..11)),
            ("bytes=3-700", 11, One(3..11)),
            ("BYTES = 0-0", 11, One(0..1)),
            ("bytes=0-0,-2", 11, Many(vec![0..1, 9..11])),
            ("bytes=0-0, 20-30", 11, One(0..1)),
            ("bytes=11-", 11, Unsatisfiable),
            ("bytes=-0", 11, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Unsatisfiable),
            ("bytes=99999999999999999999999-", 11, Unsatisfiable),
            ("bytes=5-4", 11, Whole),
            ("bytes=a-b", 11, Whole),
            ("bytes=", 11, Whole),
            ("bytes", 11, Whole),
            ("lines=0-1", 11, Whole),
            ("bytes=0-,0-,0-", 11, Whole),
            ("bytes=--5", 11, Whole),
        ];
        for (value, length, expected) in table {
            assert_eq!(select(value, length), expected, "{value} of {length}");
        }
        let many = format!("bytes={}", vec!["0-0"; 65].join(","));
        assert_eq!(select(&many, 1000), Whole);
    }
}
