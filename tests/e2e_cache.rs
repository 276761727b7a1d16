//! How long answers may be reused, by whom, and what they are purged by.
mod support;
use support::*;

/// Method, path, request fields, status.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);

#[tokio::test(flavor = "multi_thread")]
async fn tags_last_as_long_as_is_configured_and_errors_are_never_stored() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", "<p>root")
        .file("docs/index.html", "<p>docs");
    let image = Image::of(layer);
    for repository in ["team/app", "team/own"] {
        registry.push(repository, "v1", &image);
    }
    let pushed = registry.push("team/app", "v1", &image);
    let (app, own) = (registry.name("team/app"), registry.name("team/own"));
    let settings = json!({
        "cache": {"maxAge": "1m", "staleWhileRevalidate": "30s", "staleIfError": "24h", "surrogateKey": true},
        "repos": {
            &own: {"cache": {"maxAge": "0s", "staleWhileRevalidate": "0s", "staleIfError": "0s", "cdnMaxAge": "1h",
                "surrogateKey": false, "cacheTag": true}},
            &app: {},
        },
    });
    let site = Site::start(&[&registry], settings).await;
    let tag = "public, max-age=60, stale-while-revalidate=30, stale-if-error=86400";
    let digest = &pushed.digest;
    let keys = format!("{app} {app}:v1 {digest}");
    for (path, status) in [("/index.html", 200), ("/", 200), ("/docs", 301)] {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        let answer = answer.expect(status);
        assert_eq!(answer.header("cache-control"), Some(tag), "{path}");
        assert_eq!(
            answer.header("surrogate-key"),
            Some(keys.as_str()),
            "{path}"
        );
        assert_eq!(answer.header("cdn-cache-control"), None, "{path}");
        assert_eq!(answer.header("cache-tag"), None, "{path}");
        // What a cache holds is brought up to date by the fields of a 304 (RFC 9111 §4.3.4).
        if let Some(etag) = answer.header("etag") {
            let path = registry.path("team/app:v1", path);
            let again = site.request("GET", &path, &[("If-None-Match", etag)]).await;
            let again = again.expect(304);
            assert_eq!(again.header("cache-control"), Some(tag));
            assert_eq!(again.header("surrogate-key"), Some(keys.as_str()));
        }
    }
    let exact = format!("team/app@{digest}");
    let answer = site.get(&registry.path(&exact, "/")).await.expect(200);
    let immutable = "public, max-age=31536000, immutable";
    assert_eq!(answer.header("cache-control"), Some(immutable));
    let keys = format!("{app} {app}@{digest} {digest}");
    assert_eq!(answer.header("surrogate-key"), Some(keys.as_str()));

    let answer = site
        .get(&registry.path("team/own:v1", "/"))
        .await
        .expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("cdn-cache-control"), Some("max-age=3600"));
    let tags = format!("{own},{own}:v1,{digest}");
    assert_eq!(answer.header("cache-tag"), Some(tags.as_str()));
    assert_eq!(answer.header("surrogate-key"), None);

    let (gone, missing) = (
        registry.path("team/app:v1", "/gone"),
        registry.path("team/app:v2", "/"),
    );
    let errors: [Case<'_>; 6] = [
        ("GET", &gone, &[], 404),
        ("GET", &missing, &[], 404),
        ("POST", &gone, &[], 405),
        ("GET", "/nonsense", &[], 404),
        (
            "GET",
            &registry.path("team/own:v1", "/"),
            &[("If-Match", "\"x\"")],
            412,
        ),
        (
            "GET",
            &registry.path("team/own:v1", "/"),
            &[("Range", "bytes=99-")],
            416,
        ),
    ];
    for (method, path, headers, status) in errors {
        let answer = site.request(method, path, headers).await.expect(status);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        for name in ["cdn-cache-control", "surrogate-key", "cache-tag"] {
            assert_eq!(answer.header(name), None, "{path}: {name}");
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_says_how_long_its_files_last_and_no_more_than_that() {
    let registry = Registry::start().await;
    let headers = "/*\n  Cache-Control: public, max-age=31536000, immutable\n/private/*\n  Cache-Control: private, no-store\n";
    let layer = Layer::new()
        .file("_headers", headers)
        .file("index.html", "say ${ide}")
        .file("a.txt", "one")
        .file("private/a.txt", "one");
    for repository in ["team/plain", "team/inline", "team/replaced"] {
        registry.push(repository, "v1", &Image::of(layer.clone()));
    }
    let cache = json!({"maxAge": "1m", "cdnMaxAge": "1h"});
    let settings = json!({"repos": {
        registry.name("team/plain"): {"headersFile": true, "cache": cache},
        registry.name("team/inline"): {"headersFile": true, "cache": cache,
            "inlineStatic": [{"search": "say", "replacement": "${ide}"}]},
        registry.name("team/replaced"): {"headersFile": true, "cache": cache,
            "replacements": [{"path": "a.txt", "search": "one", "replacement": "two"}]},
    }});
    let site = Site::start(&[&registry], settings).await;
    let image = "public, max-age=31536000, immutable";
    let (tag, cdn) = ("public, max-age=60", Some("max-age=3600"));
    let vars = [("X-BlobServe-InlineVars", r#"{"ide": "x"}"#)];
    for (path, fields, control, at_cdns) in [
        ("team/plain:v1/a.txt", &[][..], image, None),
        (
            "team/plain:v1/private/a.txt",
            &[],
            "private, no-store",
            None,
        ),
        ("team/inline:v1/a.txt", &[], image, None),
        // InlineVars and replacements have a part in these.
        ("team/inline:v1/", &[], tag, cdn),
        ("team/inline:v1/", &vars, "no-cache", None),
        ("team/replaced:v1/a.txt", &[], tag, cdn),
        (
            "team/replaced:v1/private/a.txt",
            &[],
            "private, no-store",
            None,
        ),
    ] {
        let (image, file) = path.split_at(path.find("v1").expect("a tag") + 2);
        let path = registry.path(image, file);
        let answer = site.get_with(&path, fields).await.expect(200);
        let etag = answer.header("etag").expect("a file").to_owned();
        let known = [fields, &[("If-None-Match", etag.as_str())]].concat();
        let again = site.get_with(&path, &known).await.expect(304);
        for answer in [answer, again] {
            assert_eq!(
                answer.header("cache-control"),
                Some(control),
                "{path} {fields:?}"
            );
            assert_eq!(
                answer.header("cdn-cache-control"),
                at_cdns,
                "{path} {fields:?}"
            );
        }
    }
    site.stop().await;
}
