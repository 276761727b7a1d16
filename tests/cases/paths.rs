//! `http/paths.json`: traversal, open redirects, header injection, odd names.

use super::root::{Root, table};
use super::wire::{Answer, latin1, request, send};
use serde_json::Value;
use std::time::Duration;
use url::Url;

async fn ask(root: &Root, method: &str, target: &str) -> Answer {
    request(root.address, method, &full(root, target), &[]).await
}

/// A target in origin form goes below the image; one in another form stays as it is.
fn full(root: &Root, target: &str) -> String {
    let below = target.starts_with('/').then_some(root.prefix.as_str());
    format!("{}{target}", below.unwrap_or_default())
}

/// Where `location` leads a browser that asked for `target` of `http://localhost`.
fn destination(root: &Root, target: &str, location: &str) -> Result<(Url, Url), String> {
    let base = Url::parse("http://localhost").expect("a URL");
    let base = base.join(&full(root, target)).map_err(|e| e.to_string())?;
    let to = base.join(location).map_err(|error| error.to_string())?;
    Ok((base, to))
}

/// What no answer may have, whatever the request was.
fn broken_promises(root: &Root, target: &str, answer: &Answer) -> Vec<String> {
    let mut broken = Vec::new();
    for secret in ["SECRET", "root:x"] {
        if memchr::memmem::find(&answer.bytes, secret.as_bytes()).is_some() {
            broken.push(format!("leaks {secret}"));
        }
    }
    for injected in ["x-injected", "set-cookie"] {
        if answer.header(injected).is_some() {
            broken.push(format!("header {injected}"));
        }
    }
    if let Some(location) = answer.header("location") {
        if location.starts_with("//") || location.starts_with("/\\") {
            broken.push(format!("redirects to {location}"));
        }
        match destination(root, target, &location) {
            Ok((from, to)) if from.origin() == to.origin() => {}
            other => broken.push(format!("redirects to {location}: {other:?}")),
        }
    }
    match answer.status {
        Some(status @ 500..) if status != 501 && status != 505 => broken.push(status.to_string()),
        Some(405) if answer.header("allow").is_none() => broken.push("405 without Allow".into()),
        _ => {}
    }
    let kind = answer.header("content-type").unwrap_or_default();
    if answer.status.is_some_and(|status| status >= 400)
        && !answer.body.is_empty()
        && !kind.starts_with("text/plain")
    {
        broken.push(format!("an error as {kind}"));
    }
    broken
}

/// Whether `answer` is one of those that `wanted` allows.
async fn allowed(root: &Root, target: &str, answer: &Answer, wanted: &Value) -> bool {
    if let Some(status) = wanted.as_u64() {
        return answer.status.map(u64::from) == Some(status);
    }
    let wanted = wanted.as_str().expect("a status or a text");
    let redirects_to = |to: &str| {
        let location = answer.header("location").unwrap_or_default();
        let found = destination(root, target, &location);
        found.is_ok_and(|(_, found)| found.path() == full(root, to))
    };
    if let Some(other) = wanted.strip_prefix('=') {
        return match answer.status {
            Some(400 | 404) => true,
            Some(301 | 302 | 307 | 308) => redirects_to(other),
            status => {
                let other = ask(root, "GET", other).await;
                status == other.status && answer.body == other.body
            }
        };
    }
    if let Some((status, to)) = wanted.split_once('→') {
        return answer.status == status.parse().ok() && redirects_to(to);
    }
    // These two are among the promises, which are looked at for every answer.
    assert!(
        ["no-secret", "no-injection"].contains(&wanted),
        "an expectation that this test does not know: {wanted}"
    );
    answer.status.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_targets_stay_in_the_image_and_are_answered_as_the_table_allows() {
    let root = Root::start().await;
    assert_eq!(ask(&root, "GET", "/len9.txt").await.body, b"123456789");
    let cases = table("paths.json");
    let mut wrong = Vec::new();
    for case in &cases {
        let text = |key: &str| case[key].as_str();
        let id = text("id").expect("id");
        let (target, answer) = match text("raw") {
            Some(raw) => {
                let patience = Duration::from_secs(3);
                ("/", send(root.address, &latin1(raw), true, patience).await)
            }
            None => {
                let target = text("target").expect("target");
                let method = text("method").expect("method");
                (target, ask(&root, method, target).await)
            }
        };
        for broken in broken_promises(&root, target, &answer) {
            wrong.push(format!("{id} {target}: {broken}"));
        }
        let wanted = match &case["expect"] {
            Value::Array(several) => several.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut right = false;
        for wanted in wanted {
            right |= allowed(&root, target, &answer, wanted).await;
        }
        if !right {
            let location = answer.header("location");
            let status = answer.status;
            wrong.push(format!(
                "{id} {target}: {status:?} {location:?}, not {wanted:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
