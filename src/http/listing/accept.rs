//! HTML or JSON, by the Accept of a request: RFC 9110 §12.5.1.

use http::header::{self, HeaderMap};

/// JSON is wanted more than HTML: by weight, and of equal weights by being named more closely, so that
/// `application/json, */*` is JSON. What says neither gets the page.
pub(in super::super) fn prefers_json(headers: &HeaderMap) -> bool {
    wanted(headers, b"application/json") > wanted(headers, b"text/html")
}

/// The weight in thousandths of the range that fits most closely, and how closely: none, `*/*`, `type/*`,
/// the type itself.
fn wanted(headers: &HeaderMap, media_type: &[u8]) -> (u16, u8) {
    let (mut closest, mut weight) = (0, 0);
    let values = headers.get_all(header::ACCEPT).iter();
    for range in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let group = media_type.split(|byte| *byte == b'/').next();
        let close = match name.strip_suffix(b"/*") {
            _ if name.eq_ignore_ascii_case(media_type) => 3,
            Some(b"*") => 1,
            Some(name) if group.is_some_and(|group| name.eq_ignore_ascii_case(group)) => 2,
            _ => continue,
        };
        let Some(said) = parts.find_map(weight_of).unwrap_or(Some(1000)) else {
            continue;
        };
        if close > closest {
            (closest, weight) = (close, said);
        } else if close == closest {
            weight = weight.max(said);
        }
    }
    match weight {
        0 => (0, 0),
        weight => (weight, closest),
    }
}

/// None: not a weight. Some(None): one that is none, so its range is ignored.
fn weight_of(parameter: &[u8]) -> Option<Option<u16>> {
    let value = match parameter.split_first_chunk::<2>() {
        Some((b"q=" | b"Q=", value)) => value,
        _ => return None,
    };
    let (whole, fraction) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return Some(None),
    };
    let mut weight = u16::from(whole - b'0');
    for place in 0..3 {
        let digit = match fraction.get(place) {
            None => 0,
            Some(digit) if digit.is_ascii_digit() => u16::from(digit - b'0'),
            Some(_) => return Some(None),
        };
        weight = weight * 10 + digit;
    }
    Some((weight <= 1000).then_some(weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_those_who_want_it_more() {
        for (accept, json) in [
            ("", false),
            ("*/*", false),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                false,
            ),
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/*", true),
            ("application/json, text/plain, */*", true),
            ("application/json, text/html", false),
            ("application/json;q=0.5, text/html;q=0.4", true),
            ("application/json;q=0.4, text/html;q=0.5", false),
            ("application/json;q=0.4, text/html;q=0.400", false),
            ("application/json;q=0", false),
            ("text/html;q=0, */*;q=0.1", true),
            ("application/json;q=0, */*", false),
            ("application/json;q=0.001", true),
            ("application/json;q=1.5", false),
            ("application/json;q=", false),
            ("application/json;q=0.1234, text/html;q=0.1", false),
            ("image/png", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(prefers_json(&headers), json, "{accept}");
        }
        assert!(!prefers_json(&HeaderMap::new()));
        let mut two = HeaderMap::new();
        two.append(header::ACCEPT, "text/html;q=0.5".parse().unwrap());
        two.append(header::ACCEPT, "application/json".parse().unwrap());
        assert!(prefers_json(&two), "fields of one name are one list");
    }
}
