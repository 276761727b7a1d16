//! Listings of directories: pages and JSON, by whoever asks, on and off, and only of directories.

mod support;

use support::{Image, Layer, Registry, Response, Site, json};

const MODIFIED: u64 = 1_700_000_000;

fn tree() -> Layer {
    Layer::new()
        .mtime(MODIFIED)
        .file("docs/b.txt", "bb")
        .file("docs/a.js", "a")
        .file_bytes(b"docs/caf\xe9", "ccc")
        .file("docs/<script>\"&.txt", "x")
        .symlink("docs/link", "a.js")
        .symlink("docs/broken", "/none")
        .fifo("docs/pipe")
        .file("docs/deep/er/f", "f")
        .file("page/index.html", "<p>page")
        .file("page/other.txt", "o")
        .file("file.js", "f()")
}

async fn site() -> (Registry, Site, String) {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(tree()));
    let repos = json!({registry.name("team/app"): {"listing": true}});
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    let root = registry.path("team/app:v1", "");
    (registry, site, root)
}

fn entries(response: &Response) -> Vec<serde_json::Value> {
    assert_eq!(response.header("content-type"), Some("application/json"));
    let value: serde_json::Value = serde_json::from_slice(&response.body).expect("it is JSON");
    value.as_array().expect("an array").clone()
}

fn names(response: &Response) -> Vec<String> {
    let name = |entry: &serde_json::Value| entry["name"].as_str().unwrap_or_default().to_owned();
    entries(response).iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_a_page_or_json_as_is_asked() {
    let (_registry, site, root) = site().await;
    let docs = format!("{root}/docs/");
    for (query, accept, json, vary) in [
        ("", "", false, Some("Accept")),
        ("", "*/*", false, Some("Accept")),
        ("", "text/html,*/*;q=0.8", false, Some("Accept")),
        ("", "application/json", true, Some("Accept")),
        (
            "",
            "application/json;q=0.4, text/html;q=0.5",
            false,
            Some("Accept"),
        ),
        ("?format=json", "text/html", true, None),
        ("?format=html", "application/json", false, None),
        ("?format=xml&x", "application/json", true, Some("Accept")),
    ] {
        let path = format!("{docs}{query}");
        let answer = site
            .get_with(&path, &[("Accept", accept)])
            .await
            .expect(200);
        let expected = if json {
            "application/json"
        } else {
            "text/html; charset=utf-8"
        };
        assert_eq!(
            answer.header("content-type"),
            Some(expected),
            "{path} {accept}"
        );
        assert_eq!(answer.header("vary"), vary, "{path} {accept}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert_eq!(policy.starts_with("default-src 'none'"), !json, "{policy}");
        let head = site
            .request("HEAD", &path, &[("Accept", accept)])
            .await
            .expect(200);
        assert_eq!(head.header("etag"), answer.header("etag"));
        let length = answer.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_says_what_each_entry_is_and_its_href_leads_there() {
    let (_registry, site, root) = site().await;
    let answer = site
        .get(&format!("{root}/docs/?format=json&integrity=1"))
        .await
        .expect(200);
    let found = entries(&answer);
    let sri = |text: &str| {
        use base64::Engine;
        let digest = blobserve::digest::Digest::sha256(text.as_bytes());
        format!(
            "sha256-{}",
            base64::prelude::BASE64_STANDARD.encode(digest.bytes())
        )
    };
    let file = |name: &str, href: &str, content: &str| {
        json!({"name": name, "type": "file", "size": content.len(), "href": href,
               "modified": "2023-11-14T22:13:20Z", "integrity": sri(content)})
    };
    assert_eq!(found[0]["name"], "deep");
    assert_eq!(found[0]["type"], "directory");
    assert_eq!(found[0]["size"], json!(null));
    assert_eq!(found[0]["href"], "./deep/");
    assert!(found[0].get("integrity").is_none());
    let files = [
        file("<script>\"&.txt", "./%3Cscript%3E%22%26.txt", "x"),
        file("a.js", "./a.js", "a"),
        file("b.txt", "./b.txt", "bb"),
        file("caf\u{fffd}", "./caf%E9", "ccc"),
        file("link", "./link", "a"),
    ];
    assert_eq!(found[1..], files, "no pipe, no link that leads nowhere");
    for entry in &files {
        let href = entry["href"].as_str().unwrap().trim_start_matches("./");
        let answer = site.get(&format!("{root}/docs/{href}")).await.expect(200);
        assert_eq!(json!(answer.body.len()), entry["size"], "{href}");
    }
    let plain = site
        .get(&format!("{root}/docs/?format=json"))
        .await
        .expect(200);
    assert!(
        entries(&plain)
            .iter()
            .all(|entry| entry.get("integrity").is_none())
    );
    let page = site
        .get(&format!("{root}/docs/?integrity=1"))
        .await
        .expect(200)
        .text();
    assert!(
        page.contains(&format!("<code>{}</code>", sri("bb"))),
        "{page}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_sorted_as_is_asked() {
    let (_registry, site, root) = site().await;
    for (query, expected) in [
        ("", ["page", "file.js"]),
        ("&sort=size&order=desc", ["page", "file.js"]),
    ] {
        let answer = site
            .get(&format!("{root}/?format=json{query}"))
            .await
            .expect(200);
        let found = names(&answer);
        assert_eq!(found[1..], expected, "{query}");
    }
    for (query, expected) in [
        (
            "sort=size",
            "deep <script>\"&.txt a.js link b.txt caf\u{fffd}",
        ),
        (
            "sort=size&order=desc",
            "deep caf\u{fffd} b.txt <script>\"&.txt a.js link",
        ),
        (
            "sort=name&order=desc",
            "deep link caf\u{fffd} b.txt a.js <script>\"&.txt",
        ),
    ] {
        let answer = site
            .get(&format!("{root}/docs/?format=json&{query}"))
            .await
            .expect(200);
        assert_eq!(names(&answer).join(" "), expected, "{query}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_no_script_and_its_links_are_relative() {
    let (_registry, site, root) = site().await;
    let page = site
        .get(&format!("{root}/docs/deep/er/"))
        .await
        .expect(200)
        .text();
    assert!(
        page.contains("<a href=\"../../../\">/</a> <a href=\"../../../docs/\">docs</a>"),
        "{page}"
    );
    assert!(page.contains("prefers-color-scheme:dark"));
    let odd = site
        .get(&format!("{root}/docs//deep///er/"))
        .await
        .expect(200)
        .text();
    assert!(
        odd.contains("<a href=\"../../../../../../docs/deep/\">deep</a>"),
        "{odd}"
    );
    let page = site.get(&format!("{root}/docs/")).await.expect(200).text();
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;&quot;&amp;.txt"));
    let links = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    for link in links {
        let relative = link.starts_with("./") || link.starts_with("../") || link.starts_with('?');
        assert!(relative, "{link}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_act_on_directories_only() {
    let (_registry, site, root) = site().await;
    for query in ["", "?format=json", "?download=tgz", "?integrity=1"] {
        let answer = site
            .get(&format!("{root}/file.js{query}"))
            .await
            .expect(200);
        assert_eq!(answer.text(), "f()", "{query}");
        let answer = site
            .get(&format!("{root}/page/index.html{query}"))
            .await
            .expect(200);
        assert_eq!(answer.text(), "<p>page", "{query}");
    }
    // The page of a directory, unless the directory is asked for by name.
    for headers in [&[][..], &[("Accept", "application/json")]] {
        let answer = site
            .get_with(&format!("{root}/page/"), headers)
            .await
            .expect(200);
        assert_eq!(answer.text(), "<p>page");
    }
    let answer = site
        .get(&format!("{root}/page/?format=json"))
        .await
        .expect(200);
    assert_eq!(names(&answer), ["index.html", "other.txt"]);
    let answer = site
        .get(&format!("{root}/page?format=json"))
        .await
        .expect(301);
    assert_eq!(answer.header("location"), Some("./page/?format=json"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_not_listed_answers_no_query() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(tree()));
    let site = Site::start(&[&registry], json!({})).await;
    for query in ["", "?format=json", "?download=tgz"] {
        site.get(&registry.path("team/app:v1", &format!("/docs/{query}")))
            .await
            .expect_error(404);
        let page = site
            .get(&registry.path("team/app:v1", &format!("/page/{query}")))
            .await
            .expect(200);
        assert_eq!(page.text(), "<p>page", "{query}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_has_its_new_size_and_no_time() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(tree()));
    let replacement = json!([{"path": "docs/b.txt", "search": "bb", "replacement": "longer"}]);
    let repos = json!({registry.name("team/app"): {"listing": true, "replacements": replacement}});
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    let path = registry.path("team/app:v1", "/docs/?format=json&sort=size&order=desc");
    let answer = site.get(&path).await.expect(200);
    let largest = &entries(&answer)[1];
    assert_eq!(
        (&largest["name"], &largest["size"]),
        (&json!("b.txt"), &json!(6))
    );
    assert_eq!(largest["modified"], json!(null));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_images_that_are_not_configured_keep_their_policy_in_the_sandbox() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(tree()));
    let settings = json!({"listing": true});
    let site = Site::start(&[&registry], settings).await;
    let policy_of = async |path: &str| {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        let policy = answer
            .expect(200)
            .header("content-security-policy")
            .map(str::to_owned);
        policy.unwrap_or_default()
    };
    let page = policy_of("/docs/").await;
    assert!(
        page.starts_with("default-src 'none'; style-src 'sha256-"),
        "{page}"
    );
    assert!(page.ends_with("; sandbox allow-downloads"), "{page}");
    assert_eq!(policy_of("/docs/a.js").await, "sandbox allow-scripts");
    site.stop().await;
}
