//! What makes an image a site: SPA fallback, page for 404s, `_redirects`, `_headers`, and the fields that a
//! repository's answers carry.
mod support;
use support::*;

const HTML: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");

const REDIRECTS: &str = "# moved\n\
    /old /docs/ 302\n\
    /blog/:year/:name /posts/:name?year=:year 308\n\
    /files/* /docs/:splat\n\
    /shadow /docs/ 301\n\
    /app.js /never.js 301!\n\
    /api/* /api.json 200\n\
    /docs/as/* /docs/:splat 200\n\
    /secret/* /sorry.html 404!\n\
    /out https://evil.example/ 302\n\
    /store id=:id /posts/:id 303\n\
    /loop/* /loop/:splat 302\n\
    /tricks/:a/:b /:a/:b 302\n";

const HEADERS: &str = "/*\n  X-All: yes\n  Set-Cookie: a=b\n  X-Frame-Options: ALLOWALL\n\
    /assets/*\n  Cache-Control: public, max-age=31536000, immutable\n  X-Assets: 1\n\
    /*.mjsx\n  Content-Type: text/javascript\n";

fn site_layer() -> Layer {
    Layer::new()
        .dir("srv/")
        .file("srv/index.html", "<h1>app</h1>")
        .file("srv/app.js", "let a = 1;")
        .file("srv/api.json", "{}")
        .file("srv/404.html", "<h1>not here</h1>")
        .file("srv/sorry.html", "<h1>sorry</h1>")
        .file("srv/docs/index.html", "<h1>docs</h1>")
        .file("srv/docs/guide.css", "body{}")
        .file("srv/shadow/index.html", "<h1>shadow</h1>")
        .file("srv/secret/plan.txt", "plan")
        .file("srv/assets/a.bin", noise(1, 1000))
        .file("srv/assets/b.mjsx", "b")
        .file("srv/_redirects", REDIRECTS)
        .file("srv/_headers", HEADERS)
        .file("outside.html", "outside")
}

/// The image under two names: `site` configured with `settings`, `plain` with its workdir only.
async fn served(settings: serde_json::Value) -> (Registry, Site, Pushed) {
    let registry = Registry::start().await;
    let mut repos = json!({});
    for (name, settings) in [("team/site", settings), ("team/plain", json!({}))] {
        let mut settings = settings;
        settings["workdir"] = json!("/srv");
        repos[format!("{}/{name}", registry.host())] = settings;
    }
    registry.push("team/plain", "v1", &Image::of(site_layer()));
    let pushed = registry.push("team/site", "v1", &Image::of(site_layer()));
    let site = Site::start(&[&registry], json!({ "repos": repos })).await;
    (registry, site, pushed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_navigation_that_leads_to_nothing_gets_the_fallback() {
    let (registry, site, pushed) = served(json!({"spaFallback": "/index.html"})).await;
    let tag = "team/site:v1".to_owned();
    let digest = format!("team/site@{}", pushed.digest);
    for reference in [&tag, &digest] {
        for path in [
            "/settings/profile",
            "/settings/",
            "/v1.2/x",
            "/settings?tab=1",
        ] {
            let answer = site
                .get_with(&registry.path(reference, path), &[HTML])
                .await
                .expect(200);
            assert_eq!(answer.text(), "<h1>app</h1>", "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
            let vary = answer.header("vary").unwrap_or_default();
            assert!(vary.split(", ").any(|name| name == "Accept"), "{vary}");
        }
        // The file under its own name is what the digest says.
        let own = site.get(&registry.path(reference, "/index.html")).await;
        let cache = own.header("cache-control").unwrap();
        assert_eq!(cache.contains("immutable"), reference == &digest);
        // What is no navigation, or names a file, is not there.
        for (path, fields) in [
            ("/settings", &[("Accept", "*/*")][..]),
            ("/settings", &[]),
            ("/missing.js", &[HTML]),
            ("/missing.css", &[HTML]),
            ("/a%2fb", &[HTML]),
        ] {
            let answer = site.get_with(&registry.path(reference, path), fields).await;
            answer.expect_error(404);
        }
        let path = registry.path(reference, "/settings");
        let head = site.request("HEAD", &path, &[HTML]).await.expect(200);
        assert_eq!(head.header("content-length"), Some("12"));
        let range = [HTML, ("Range", "bytes=0-3")];
        let part = site.get_with(&path, &range).await.expect(206);
        assert_eq!(part.text(), "<h1>");
    }
    let plain = registry.path("team/plain:v1", "/settings");
    site.get_with(&plain, &[HTML]).await.expect_error(404);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_remembered_for_a_navigation_is_not_given_to_others() {
    let (registry, site, _) = served(json!({"spaFallback": "index.html"})).await;
    let path = registry.path("team/site:v1", "/route");
    for _ in 0..3 {
        site.get_with(&path, &[HTML]).await.expect(200);
        site.get_with(&path, &[("Accept", "application/json")])
            .await
            .expect_error(404);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_for_404s_is_whole_and_never_stored() {
    let (registry, site, _) = served(json!({"notFoundPage": "404.html"})).await;
    let path = registry.path("team/site:v1", "/nothing/here.png");
    let page = "<h1>not here</h1>";
    let requests: [&[(&str, &str)]; 7] = [
        &[],
        &[("Accept-Encoding", "identity;q=0, *;q=0")],
        &[("Accept-Encoding", "gzip, br")],
        &[("Range", "bytes=0-3")],
        &[("If-None-Match", "*")],
        &[("If-Match", "\"other\"")],
        &[("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")],
    ];
    for fields in requests {
        let answer = site.request("GET", &path, fields).await.expect(404);
        assert_eq!(answer.text(), page, "{fields:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        for name in ["etag", "last-modified", "accept-ranges", "content-range"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }
    let head = site.head(&path).await.expect(404);
    assert_eq!(head.header("content-length"), Some("17"));
    // Under its own name it is a file like others; what cannot be a path stays an error.
    let own = registry.path("team/site:v1", "/404.html");
    assert_eq!(site.get(&own).await.expect(200).text(), page);
    let above = registry.path("team/site:v1", "/../x");
    site.get(&above).await.expect_error(400);
    let encoded = registry.path("team/site:v1", "/a%2Fb");
    assert_eq!(site.get(&encoded).await.expect(404).text(), page);
    site.head(&registry.path("team/site:v1", ""))
        .await
        .expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_the_image_lacks_changes_nothing() {
    let settings = json!({"notFoundPage": "gone.html", "spaFallback": "../outside.html"});
    let registry = Registry::start().await;
    let repos = json!({format!("{}/team/site", registry.host()): settings});
    let (mode, settings) = (blobserve::config::Mode::Serve, json!({ "repos": repos }));
    let refused = Site::try_launch(mode, &[&registry], settings).await;
    assert!(refused.err().unwrap().contains("leaves the image"));
    let settings = json!({"notFoundPage": "gone.html", "spaFallback": "docs"});
    let (registry, site, _) = served(settings).await;
    let path = registry.path("team/site:v1", "/nothing");
    site.get(&path).await.expect_error(404);
    let answer = site.get_with(&path, &[HTML]).await.expect(200);
    assert_eq!(
        answer.text(),
        "<h1>docs</h1>",
        "the index file of a directory"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_of_the_image_are_followed_where_they_are_honoured() {
    let (registry, site, pushed) = served(json!({"redirectsFile": true})).await;
    // Path; status, Location.
    let table = [
        ("/old", 302, "./docs/"),
        ("/old/", 302, "../docs/"),
        ("/old?a=1&b", 302, "./docs/?a=1&b"),
        (
            "/blog/2024/caf%C3%A9",
            308,
            "../../posts/caf%C3%A9?year=2024",
        ),
        ("/files/guide.css", 301, "../docs/guide.css"),
        ("/files//a/b/", 301, "../../../../docs/a/b/"),
        ("/app.js", 301, "./never.js"),
        ("/store?id=7&x=y", 303, "./posts/7?x=y"),
        ("/shadow", 301, "./shadow/"),
        ("/tricks/evil.example/x", 302, "../../evil.example/x"),
        (
            "/tricks/%5Cevil.example/%0d%0aX-Injected:%201",
            302,
            "../../%5Cevil.example/%0D%0AX-Injected%3A%201",
        ),
        (
            "/tricks/javascript:alert(1)/x",
            302,
            "../../javascript%3Aalert%281%29/x",
        ),
    ];
    for reference in ["team/site:v1", &format!("team/site@{}", pushed.digest)] {
        for (path, status, location) in table {
            let url = registry.path(reference, path);
            let answer = site.get(&url).await.expect(status);
            assert_eq!(answer.header("location"), Some(location), "{path}");
            assert_eq!(answer.header("x-injected"), None);
            let base = url::Url::parse("http://host").unwrap().join(&url).unwrap();
            let to = base.join(location).unwrap();
            let inside = registry.path(reference, "/");
            assert_eq!(to.host_str(), Some("host"), "{path} {location}");
            assert!(to.path().starts_with(&inside), "{path} leads to {to}");
            let cache = answer.header("cache-control").unwrap();
            let by_rule = path != "/shadow";
            assert!(!by_rule || cache == "no-cache", "{path}: {cache}");
            site.request("POST", &url, &[]).await.expect_error(405);
        }
        for (path, body) in [
            ("/api/v1/users", "{}"),
            ("/docs/as/guide.css", "body{}"),
            ("/docs/as/", "<h1>docs</h1>"),
            ("/shadow/", "<h1>shadow</h1>"),
        ] {
            let answer = site.get(&registry.path(reference, path)).await.expect(200);
            assert_eq!(answer.text(), body, "{path}");
            if path.contains("/a") {
                assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
            }
        }
        let sorry = registry.path(reference, "/secret/plan.txt");
        let answer = site.get(&sorry).await.expect(404);
        assert_eq!(answer.text(), "<h1>sorry</h1>");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        for path in [
            "/_redirects",
            "/out",
            "/store",
            "/loop/x",
            "/tricks/a",
            "/docs/as/none",
        ] {
            site.get(&registry.path(reference, path))
                .await
                .expect_error(404);
        }
        // Not honoured: a file like others.
        site.get(&registry.path(reference, "/_headers"))
            .await
            .expect(200);
    }
    let head = site
        .head(&registry.path("team/site:v1", "/old"))
        .await
        .expect(302);
    assert_eq!(head.header("location"), Some("./docs/"));
    site.get(&registry.path("team/plain:v1", "/old"))
        .await
        .expect_error(404);
    let file = site
        .get(&registry.path("team/plain:v1", "/_redirects"))
        .await;
    assert_eq!(file.expect(200).text(), REDIRECTS);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_the_image_are_set_where_they_are_honoured_and_allowed() {
    let settings = json!({
        "headersFile": true,
        "notFoundPage": "404.html",
        "spaFallback": "index.html",
        "responseHeaders": {"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"},
    });
    let (registry, site, pushed) = served(settings).await;
    let reference = format!("team/site@{}", pushed.digest);
    let get = async |path: &str, fields: &[(&str, &str)]| {
        let url = registry.path(&reference, path);
        let answer = site.request("GET", &url, fields).await;
        assert_eq!(answer.header("set-cookie"), None, "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        answer
    };
    let asset = get("/assets/a.bin", &[]).await.expect(200);
    assert_eq!(asset.header("x-all"), Some("yes"));
    assert_eq!(asset.header("x-assets"), Some("1"));
    let cache = "public, max-age=31536000, immutable";
    assert_eq!(asset.header("cache-control"), Some(cache));
    let etag = asset.header("etag").unwrap();
    let same = get("/assets/a.bin", &[("If-None-Match", etag)])
        .await
        .expect(304);
    assert_eq!(same.header("x-assets"), Some("1"));
    assert_eq!(same.header("cache-control"), Some(cache));
    let parts = get("/assets/b.mjsx", &[("Range", "bytes=0-0")])
        .await
        .expect(206);
    assert_eq!(parts.header("content-type"), Some("text/javascript"));
    let parts = get("/assets/a.bin", &[("Range", "bytes=0-0,5-6")])
        .await
        .expect(206);
    let kind = parts.header("content-type").unwrap();
    assert!(kind.starts_with("multipart/byteranges"), "{kind}");
    // Errors are not of the image, and nobody stores them.
    for (fields, status) in [
        (&[("If-Match", "\"x\"")][..], 412),
        (&[("Range", "bytes=5000-")], 416),
    ] {
        let answer = get("/assets/a.bin", fields).await.expect_error(status);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-assets"), None);
    }
    let page = get("/assets/none.png", &[]).await.expect(404);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("x-assets"), Some("1"));
    let page = get("/assets/none", &[HTML]).await.expect(200);
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    get("/_headers", &[]).await.expect(404);
    // Not honoured.
    let plain = site
        .get(&registry.path("team/plain:v1", "/assets/a.bin"))
        .await;
    assert_eq!(plain.header("x-all"), None);
    site.get(&registry.path("team/plain:v1", "/_headers"))
        .await
        .expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_resource_policy_and_cors_are_on_every_answer_of_the_repository() {
    let settings = json!({
        "sandbox": ["allow-scripts"],
        "crossOriginResourcePolicy": "same-site",
        "headersFile": true,
        "cors": {
            "origins": ["https://app.example", "https://*.preview.example"],
            "exposeHeaders": ["X-All"],
            "maxAge": "1h",
        },
    });
    let (registry, site, _) = served(settings).await;
    let cases = [
        ("/app.js", 200),
        ("/docs", 301),
        ("/none", 404),
        ("/../x", 400),
    ];
    for (path, status) in cases {
        let url = registry.path("team/site:v1", path);
        for (origin, allowed) in [
            (Some("https://app.example"), true),
            (Some("https://x.preview.example"), true),
            (Some("https://evil.example"), false),
            (Some("null"), false),
            (None, false),
        ] {
            let fields: Vec<_> = origin
                .map(|origin| ("Origin", origin))
                .into_iter()
                .collect();
            let answer = site.request("GET", &url, &fields).await.expect(status);
            let found = answer.header("access-control-allow-origin");
            if status == 400 {
                // Not a path of any repository.
                continue;
            }
            assert_eq!(found, origin.filter(|_| allowed), "{path} {origin:?}");
            assert_eq!(answer.header("vary"), Some("Origin"), "{path} {origin:?}");
            let policy = answer.header("content-security-policy");
            assert_eq!(policy, Some("sandbox allow-scripts"), "{path}");
            let policy = answer.header("cross-origin-resource-policy");
            assert_eq!(policy, Some("same-site"), "{path}");
            let exposed = answer.header("access-control-expose-headers");
            assert_eq!(exposed.is_some_and(|names| names.contains("ETag")), allowed);
        }
    }
    let url = registry.path("team/site:v1", "/app.js");
    let whole = site
        .get_with(&url, &[("Origin", "https://app.example")])
        .await;
    let etag = whole.header("etag").unwrap();
    let fields = [("Origin", "https://evil.example"), ("If-None-Match", etag)];
    let same = site.request("GET", &url, &fields).await.expect(304);
    assert_eq!(same.header("vary"), Some("Origin"));
    assert_eq!(same.header("access-control-allow-origin"), None);
    // An image that cannot be had is an answer of the repository, too.
    let missing = registry.path("team/site:none", "/app.js");
    let fields = [("Origin", "https://app.example")];
    let answer = site
        .request("GET", &missing, &fields)
        .await
        .expect_error(404);
    let found = answer.header("access-control-allow-origin");
    assert_eq!(found, Some("https://app.example"));
    let plain = registry.path("team/plain:v1", "/app.js");
    let answer = site.request("GET", &plain, &fields).await.expect(200);
    for name in [
        "access-control-allow-origin",
        "vary",
        "content-security-policy",
        "cross-origin-resource-policy",
    ] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_without_the_registry() {
    let registry = Registry::start().await;
    registry.push("team/site", "v1", &Image::of(site_layer()));
    let name = format!("{}/team/site", registry.host());
    let settings =
        json!({"repos": {name: {"cors": {"origins": ["https://app.example"], "maxAge": "1h"}}}});
    let site = Site::start(&[&registry], settings).await;
    let ask = |origin: &'static str| {
        [
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "range"),
        ]
    };
    for path in ["/any/path?x", "", "/none", "/../x"] {
        let url = registry.path("team/site:v1", path);
        let answer = site
            .request("OPTIONS", &url, &ask("https://app.example"))
            .await;
        let answer = answer.expect(204);
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-allow-methods", "GET, HEAD"),
            ("access-control-max-age", "3600"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.split(", ").any(|name| name == "Range"), "{allowed}");
        assert!(answer.header("vary").unwrap().starts_with("Origin"));
        assert_eq!(answer.header("content-length"), None);
        let other = site
            .request("OPTIONS", &url, &ask("https://evil.example"))
            .await;
        let other = other.expect(204);
        assert_eq!(other.header("access-control-allow-origin"), None);
        assert!(other.header("vary").unwrap().starts_with("Origin"));
        // Not a preflight.
        let answer = site.request("OPTIONS", &url, &[]).await.expect(204);
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
        let answer = site.request("DELETE", &url, &[]).await.expect_error(405);
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
    let elsewhere = registry.path("team/other:v1", "/x");
    let answer = site
        .request("OPTIONS", &elsewhere, &ask("https://app.example"))
        .await;
    let answer = answer.expect_error(405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    assert_eq!(registry.requests(), 0, "the registry was asked");
    let answer = site
        .get(&registry.path("team/site:v1", "/srv/app.js"))
        .await;
    answer.expect(200);
    assert!(registry.requests() > 0);
    site.stop().await;
}
