//! `http/paths.json`: traversal, open redirects, header injection, odd names.

use super::root::{Root, table};
use super::support::{Layer, json};
use super::wire::{Answer, latin1, request, send};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// The page for 404s, where one is configured.
const PAGE: &[u8] = b"<h1>not here</h1>";

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
        && answer.body != PAGE
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

/// All that is wrong with the answers to the table: promises broken, and with `all` what it does not expect.
async fn faults(root: &Root, accept: &[(String, String)], all: bool) -> Vec<String> {
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
                let url = full(root, target);
                (target, request(root.address, method, &url, accept).await)
            }
        };
        for broken in broken_promises(root, target, &answer) {
            wrong.push(format!("{id} {target}: {broken}"));
        }
        if let Some(location) = answer.header("location")
            && let Ok((_, to)) = destination(root, target, &location)
            && target.starts_with('/')
            // A client that takes a backslash for a slash never sends one.
            && !target.contains('\\')
            && !to.path().starts_with(&format!("{}/", root.prefix))
        {
            wrong.push(format!("{id} {target}: {location} leaves the image"));
        }
        let wanted = match &case["expect"] {
            Value::Array(several) => several.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut right = !all;
        for wanted in wanted {
            right |= allowed(root, target, &answer, wanted).await;
        }
        if !right {
            let location = answer.header("location");
            let status = answer.status;
            wrong.push(format!(
                "{id} {target}: {status:?} {location:?}, not {wanted:?}"
            ));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_targets_stay_in_the_image_and_are_answered_as_the_table_allows() {
    let root = Root::start().await;
    assert_eq!(ask(&root, "GET", "/len9.txt").await.body, b"123456789");
    let wrong = faults(&root, &[], true).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// With all that makes an image a site, the same targets are answered the same, and a navigation, which the
/// fallback or a rule may answer, keeps the same promises.
#[tokio::test(flavor = "multi_thread")]
async fn rules_fallback_and_page_for_404s_change_no_promise() {
    let site = json!({
        "spaFallback": "app.html",
        "notFoundPage": "/not-found.html",
        "redirectsFile": true,
        "headersFile": true,
    });
    let layer = |redirects: &str| {
        Layer::new()
            .file("_redirects", redirects)
            .file("_headers", "/*\n  X-Fine: 1\n  Set-Cookie: a=b\n")
            .file("app.html", "<h1>app</h1>")
            .file("not-found.html", PAGE)
    };
    let quiet = layer("/no/such/*  /elsewhere/:splat 302!\n");
    let root = Root::start_as(quiet, site.clone()).await;
    let answer = ask(&root, "GET", "/len9.txt").await;
    assert_eq!(answer.body, b"123456789");
    assert_eq!(answer.header("x-fine").as_deref(), Some("1"));
    assert_eq!(ask(&root, "GET", "/nothing.txt").await.body, PAGE);
    let moved = ask(&root, "GET", "/no/such/x").await.header("location");
    assert_eq!(moved.as_deref(), Some("../../elsewhere/x"));
    let wrong = faults(&root, &[], true).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let html = [("Accept".to_owned(), "text/html".to_owned())];
    let wrong = faults(&root, &html, false).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Rules that answer everything, with all that was asked in their Location.
    for rules in [
        "/* /:splat/x 302!",
        "/* /moved/:splat 308!",
        "/:one /:one/to/:one 301!\n/:one/* /:splat/:one?all=:splat#:one 302!",
        "/* /:splat 200!\n",
    ] {
        let root = Root::start_as(layer(rules), site.clone()).await;
        let asked = ask(&root, "GET", "/a/b").await;
        assert_ne!(asked.status, Some(400), "{rules}");
        let wrong = faults(&root, &html, false).await;
        assert!(wrong.is_empty(), "{rules}: {}", wrong.join("\n"));
    }
}
