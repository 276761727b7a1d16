//! Ranges and conditions: `http/range.json`, `http/conditional.json`, against the pure decision.

use blobserve::http::{Decision, Facts, decide};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

const ETAG: &str = "\"00112233445566778899aabbccddeeff\"";
/// When the fixtures were last modified.
const MODIFIED: u64 = 1_700_000_000;
/// Bytes of the fixture that `conditional.json` asks for; its cases do not say so.
const CSS: u64 = 8;
/// At most, of the head of one part of a multipart answer.
const PART_HEAD: u64 = 150;

fn table(name: &str) -> Vec<Value> {
    let text = std::fs::read(super::cases_dir().join("http").join(name)).expect(name);
    let json: Value = serde_json::from_slice(&text).expect(name);
    json["cases"].as_array().expect("cases").clone()
}

/// A header's value with `{ETAG}` and `{LM±seconds}` put in.
fn filled(value: &str) -> String {
    let value = value.replace("{ETAG}", ETAG);
    let Some((before, rest)) = value.split_once("{LM") else {
        return value;
    };
    let (offset, after) = rest.split_once('}').expect("a placeholder ends");
    let offset: i64 = match offset {
        "" => 0,
        offset => offset.parse().expect("seconds"),
    };
    let seconds = MODIFIED.checked_add_signed(offset).expect("a date");
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    format!("{before}{date}{after}")
}

fn decided(case: &Value, length: u64) -> Decision {
    let mut headers = HeaderMap::new();
    for (name, value) in case["headers"].as_object().expect("headers") {
        let name = HeaderName::try_from(name.as_str()).expect("a name");
        let value = filled(value.as_str().expect("a value"));
        headers.append(name, HeaderValue::try_from(value).expect("a value"));
    }
    let method = case["method"].as_str().unwrap_or("GET");
    let facts = Facts {
        etag: &HeaderValue::from_static(ETAG),
        last_modified: Some(MODIFIED),
        length,
    };
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    decide(&method, &headers, &facts)
}

fn ranges(decision: &Decision) -> Vec<Range<u64>> {
    match decision {
        Decision::Part(range) => vec![range.clone()],
        Decision::Parts(ranges) => ranges.clone(),
        _ => Vec::new(),
    }
}

/// `[[first, last], ...]` as half-open ranges.
fn pairs(value: &Value) -> Vec<Range<u64>> {
    let pairs = value.as_array().into_iter().flatten();
    let ends = |pair: &Value| {
        (
            pair[0].as_u64().expect("first"),
            pair[1].as_u64().expect("last"),
        )
    };
    pairs
        .map(|pair| {
            let (first, last) = ends(pair);
            first..last + 1
        })
        .collect()
}

/// What a case expects, and a message if it is not so.
fn judged(case: &Value, decision: &Decision, length: u64) -> Result<(), String> {
    let expected = &case["expect"];
    let status = u64::from(decision.status().as_u16());
    if case["strict"] == "may-200" && status == 200 {
        return Ok(());
    }
    let mut allowed: Vec<u64> = expected["status"].as_u64().into_iter().collect();
    let set = expected["status_in"].as_array().into_iter().flatten();
    allowed.extend(set.filter_map(Value::as_u64));
    if case["id"]
        .as_str()
        .is_some_and(|id| id.starts_with("httpd-br7-inv"))
    {
        // RFC 9110 §14.2: an invalid range is ignored.
        allowed = vec![200];
    }
    if !allowed.is_empty() && !allowed.contains(&status) {
        return Err(format!("status {status}, not one of {allowed:?}"));
    }
    let sent = ranges(decision);
    if let Some(range) = sent
        .iter()
        .find(|range| range.is_empty() || range.end > length)
    {
        return Err(format!("{range:?} is not within {length}"));
    }
    let content_range = match decision {
        Decision::Part(range) => format!("bytes {}-{}/{length}", range.start, range.end - 1),
        Decision::Unsatisfiable => format!("bytes */{length}"),
        _ => String::new(),
    };
    if let Some(wanted) = expected["content_range"].as_str()
        && case["method"] != "HEAD"
        && content_range != wanted
    {
        return Err(format!("Content-Range {content_range:?}, not {wanted:?}"));
    }
    let wanted = pairs(&expected["ranges"]);
    if status == 206 && !wanted.is_empty() && sent != wanted {
        return Err(format!("{sent:?}, not {wanted:?}"));
    }
    for part in pairs(&expected["covers"]) {
        let covered = |at: u64| sent.iter().any(|range| range.contains(&at));
        if status == 206 && !part.clone().all(covered) {
            return Err(format!("{part:?} is not covered by {sent:?}"));
        }
    }
    let body: u64 = match decision {
        Decision::Whole => length,
        _ => sent
            .iter()
            .map(|range| range.end - range.start + PART_HEAD)
            .sum(),
    };
    match expected["max_body"].as_u64() {
        Some(most) if body > most && body > length => {
            Err(format!("{body} bytes, more than {most}"))
        }
        _ => Ok(()),
    }
}

fn check(cases: &[Value], length: impl Fn(&Value) -> u64) {
    let mut wrong = Vec::new();
    for case in cases {
        let length = length(case);
        let decision = decided(case, length);
        if let Err(fault) = judged(case, &decision, length) {
            wrong.push(format!(
                "{}: {} -> {decision:?}: {fault}",
                case["id"], case["headers"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn ranges_are_those_that_other_servers_agree_on() {
    let cases = table("range.json");
    assert!(cases.len() > 70, "{} cases", cases.len());
    check(&cases, |case| case["size"].as_u64().expect("size"));
}

#[test]
fn conditions_come_out_as_rfc_9110_orders_them() {
    let mut cases = table("conditional.json");
    assert!(cases.len() > 50, "{} cases", cases.len());
    // A condition on what is not there is decided before there is anything to compare.
    cases.retain(|case| case["fixture"] != "does-not-exist");
    check(&cases, |case| match case["fixture"].as_str() {
        Some("len1000.txt") => 1000,
        _ => CSS,
    });
}
