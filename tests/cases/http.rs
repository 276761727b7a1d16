//! `http/range.json`, `http/conditional.json`, `http/raw_requests.json`, over sockets.

use super::root::{Root, table};
use super::wire::{Answer, latin1, request, send};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

/// The validators of a whole file, and the file.
struct Whole {
    answer: Answer,
    etag: String,
    modified: SystemTime,
}

async fn whole(root: &Root, fixture: &str) -> Whole {
    let path = format!("{}/{fixture}", root.prefix);
    let answer = request(root.address, "GET", &path, &[]).await;
    let etag = answer.header("etag");
    let modified = answer.header("last-modified");
    let modified = modified.and_then(|date| httpdate::parse_http_date(&date).ok());
    Whole {
        etag: etag.unwrap_or_else(|| "\"none\"".into()),
        modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
        answer,
    }
}

/// `{ETAG}`, `{LM}`, `{LM-60}` in a header's value.
fn filled(value: &str, whole: &Whole) -> String {
    let value = value.replace("{ETAG}", &whole.etag);
    let Some((before, rest)) = value.split_once("{LM") else {
        return value;
    };
    let (shift, after) = rest.split_once('}').expect("a closed placeholder");
    let seconds = match shift {
        "" => 0,
        shift => shift.parse::<i64>().expect("seconds"),
    };
    let by = Duration::from_secs(seconds.unsigned_abs());
    let date = if seconds < 0 {
        whole.modified - by
    } else {
        whole.modified + by
    };
    format!("{before}{}{after}", httpdate::fmt_http_date(date))
}

/// First and last byte, and the length, of `bytes a-b/n`.
fn content_range(text: &str) -> Option<(usize, usize, usize)> {
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((
        first.parse().ok()?,
        last.parse().ok()?,
        length.parse().ok()?,
    ))
}

/// First and last byte, the whole file's length, and the bytes.
type Part = (usize, usize, usize, Vec<u8>);

/// The parts of a 206.
fn parts(answer: &Answer) -> Option<Vec<Part>> {
    if let Some(range) = answer.header("content-range") {
        let (first, last, length) = content_range(&range)?;
        return Some(vec![(first, last, length, answer.body.clone())]);
    }
    let kind = answer.header("content-type")?;
    let (_, boundary) = kind
        .strip_prefix("multipart/byteranges")?
        .split_once("boundary=")?;
    let mark = format!("--{}", boundary.trim_matches('"')).into_bytes();
    let marks: Vec<usize> = memchr::memmem::find_iter(&answer.body, &mark).collect();
    if !answer.body[*marks.last()? + mark.len()..].starts_with(b"--") {
        return None;
    }
    let part = |pair: &[usize]| {
        let part = &answer.body[pair[0] + mark.len()..pair[1]];
        let end = memchr::memmem::find(part, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&part[..end]).ok()?;
        let range = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let fits = name.eq_ignore_ascii_case("content-range");
            fits.then(|| content_range(value.trim()))?
        });
        let (first, last, length) = range?;
        let content = part[end + 4..].strip_suffix(b"\r\n")?;
        Some((first, last, length, content.to_vec()))
    };
    marks.windows(2).map(part).collect()
}

/// What is wrong with a partial answer.
fn wrong_parts(case: &Value, answer: &Answer, full: &[u8]) -> Vec<String> {
    let Some(parts) = parts(answer) else {
        return vec!["206 that tells no ranges".into()];
    };
    let mut wrong = Vec::new();
    let mut covered = BTreeSet::new();
    for (first, last, length, content) in &parts {
        if *length != full.len() || full.get(*first..=*last) != Some(content.as_slice()) {
            wrong.push(format!("part {first}-{last}/{length} has other bytes"));
        }
        covered.extend(*first..=*last);
    }
    for wanted in case["expect"]["covers"].as_array().into_iter().flatten() {
        let end = |at: usize| wanted[at].as_u64().expect("a position") as usize;
        if !(end(0)..=end(1)).all(|position| covered.contains(&position)) {
            wrong.push(format!("does not cover {wanted}"));
        }
    }
    wrong
}

/// What is wrong with the answer to a case, in the meaning of the table's own probe.
fn judge(case: &Value, answer: &Answer, whole: &Whole) -> Vec<String> {
    let (expect, full) = (&case["expect"], &whole.answer.body);
    let status = u64::from(answer.status.unwrap_or(0));
    let method = case["method"].as_str().unwrap_or("GET");
    let mut wrong = Vec::new();
    if answer.status.is_none() {
        return vec!["no answer".into()];
    }
    if case["strict"] == "may-200" && status == 200 {
        if answer.body != *full {
            wrong.push("200 with another body".into());
        }
        return wrong;
    }
    let statuses: Vec<u64> = match &expect["status"] {
        Value::Null => expect["status_in"]
            .as_array()
            .into_iter()
            .flatten()
            .collect(),
        one => vec![one],
    }
    .into_iter()
    .map(|status| status.as_u64().expect("a status"))
    .collect();
    if !statuses.is_empty() && !statuses.contains(&status) {
        wrong.push(format!("{status}, not {statuses:?}"));
        return wrong;
    }
    if let Some(most) = expect["max_body"].as_u64() {
        let length = answer.body.len();
        if length as u64 > most && length > full.len() {
            wrong.push(format!("a body of {length} bytes"));
        }
    }
    if status == 304 {
        for name in ["etag", "cache-control", "vary"] {
            if answer.header(name) != whole.answer.header(name) {
                wrong.push(format!("304 without the {name} of the 200"));
            }
        }
    }
    if method == "HEAD" || status == 304 {
        if !answer.body.is_empty() {
            wrong.push(format!("{method} {status} with a body"));
        }
        return wrong;
    }
    if let Some(wanted) = expect["content_range"].as_str() {
        let range = answer.header("content-range");
        if range.as_deref() != Some(wanted) {
            wrong.push(format!("Content-Range {range:?}, not {wanted}"));
        }
    }
    if let Some(body) = expect["body"].as_str()
        && answer.body != latin1(body)
    {
        wrong.push("another body".into());
    }
    match status {
        200 if answer.body != *full => wrong.push("200 that is not the whole".into()),
        206 => wrong.extend(wrong_parts(case, answer, full)),
        _ => {}
    }
    wrong
}

async fn check(name: &str) {
    let root = Root::start().await;
    let cases = table(name);
    let mut files = HashMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let fixture = case["fixture"].as_str().expect("fixture");
        if !files.contains_key(fixture) {
            files.insert(fixture, whole(&root, fixture).await);
        }
        let whole = &files[fixture];
        if let Some(size) = case["size"].as_u64() {
            assert_eq!(whole.answer.body.len() as u64, size, "{fixture}");
        }
        let headers = case["headers"].as_object().expect("headers").iter();
        let headers: Vec<(String, String)> = headers
            .map(|(name, value)| {
                let value = value.as_str().expect("a header's value");
                (name.clone(), filled(value, whole))
            })
            .collect();
        let method = case["method"].as_str().unwrap_or("GET");
        let path = format!("{}/{fixture}", root.prefix);
        let answer = request(root.address, method, &path, &headers).await;
        for fault in judge(case, &answer, whole) {
            wrong.push(format!("{} {method} {headers:?}: {fault}", case["id"]));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases of {name}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_answered_as_the_table_says() {
    check("range.json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_answered_as_the_table_says() {
    check("conditional.json").await;
}

/// Whether one of a raw request's outcomes is what came. `close` and `undef`: no answer.
/// `0`: refused in some way; `1`: understood. A refusal may have another code, or be a close.
fn fits(wanted: &str, answer: &Answer) -> bool {
    let refused = answer.status.is_none_or(|status| status >= 400);
    let understood = answer
        .status
        .is_some_and(|status| status < 500 && status != 400);
    match wanted {
        "any" | "90" => true,
        "close" | "undef" => answer.status.is_none(),
        "one-response" => answer.responses() <= 1,
        "0" => refused,
        "1" | "200" => understood,
        code => match code.parse::<u16>() {
            Ok(400..) => refused && answer.status.is_none_or(|status| status <= 505),
            Ok(code) => answer.status == Some(code),
            Err(_) => panic!("an expectation that this test does not know: {code}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_framed_oddly_yield_no_second_answer() {
    let root = Root::start().await;
    let mut running = tokio::task::JoinSet::new();
    let cases = table("raw_requests.json");
    for case in &cases {
        let (case, address) = (case.clone(), root.address);
        running.spawn(async move {
            let raw = latin1(case["raw"].as_str().expect("raw"));
            let answer = send(address, &raw, false, Duration::from_millis(800)).await;
            let wanted = match &case["expect"] {
                Value::Array(several) => several.as_slice(),
                one => std::slice::from_ref(one),
            };
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let right = wanted.iter().any(|wanted| fits(&text(wanted), &answer));
            let (status, count) = (answer.status, answer.responses());
            // One request that is framed oddly must never be taken for two.
            let framing = case["id"]
                .as_str()
                .is_some_and(|id| id.starts_with("frame"));
            (!right || framing && count > 1)
                .then(|| format!("{}: {status:?}, {count} answers", case["id"]))
        });
    }
    let wrong: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
