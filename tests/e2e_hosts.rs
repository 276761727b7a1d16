//! What is served by the Host that a request names: virtual hosts, origins of single images, and what
//! is no host at all.
mod support;
use support::*;

fn layer(name: &str) -> Image {
    let text = |path: &str| format!("{name}:{path}");
    let layer = Layer::new()
        .file("srv/index.html", text("srv/index.html"))
        .file("srv/docs/index.html", text("srv/docs/index.html"))
        .file("srv/app.js", text("srv/app.js"))
        .file("other/index.html", text("other/index.html"))
        .file("other/list/one.txt", "1");
    Image::of(layer)
}

async fn registry() -> Registry {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &layer("app"));
    registry.push("team/docs", "v1", &layer("docs"));
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_serves_its_image_and_any_other_host_path_urls() {
    let registry = registry().await;
    let (app, docs) = (registry.name("team/app"), registry.name("team/docs"));
    let site = Site::start(
        &[&registry],
        json!({
            "allowAnyRepo": false,
            "repos": {&app: {"workdir": "srv", "cors": {"origins": ["https://o.example"]}}, &docs: {"workdir": "srv"}},
            "hosts": {
                "app.example": {"reference": format!("{app}:v1")},
                "docs.example": {"reference": format!("{docs}:v1"), "workdir": "/other/", "listing": true,
                    "cache": {"maxAge": "1m"}},
            },
        }),
    )
    .await;
    let by_path = registry.path("team/docs:v1", "/app.js");
    let table = [
        ("app.example", "/", 200, "app:srv/index.html"),
        ("APP.Example:8080", "/app.js", 200, "app:srv/app.js"),
        ("app.example.", "/docs/?x", 200, "app:srv/docs/index.html"),
        ("app.example", "/other/", 404, ""),
        ("app.example", "/../x", 400, ""),
        ("app.example", "/%2e%2e/x", 400, ""),
        ("app.example", by_path.as_str(), 404, ""),
        ("docs.example", "/", 200, "docs:other/index.html"),
        ("docs.example", "/app.js", 404, ""),
        ("other.example", by_path.as_str(), 200, "docs:srv/app.js"),
        ("app.example.evil", by_path.as_str(), 200, "docs:srv/app.js"),
        ("other.example", "/", 404, ""),
    ];
    for (host, path, status, body) in table {
        let answer = site.get_with(path, &[("Host", host)]).await;
        assert_eq!(answer.status, status, "{host} {path}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.text(), body, "{host} {path}");
        }
    }
    let cache = |host: &'static str| {
        let site = &site;
        async move {
            let answer = site.get_with("/", &[("Host", host)]).await.expect(200);
            answer.header("cache-control").unwrap().to_owned()
        }
    };
    assert_eq!(cache("app.example").await, "no-cache");
    assert_eq!(cache("docs.example").await, "public, max-age=60");
    let listing = site.get_with("/list/", &[("Host", "docs.example")]).await;
    assert!(listing.expect(200).text().contains("one.txt"));
    let host = [("Host", "app.example")];
    let slash = site.request("GET", "/docs?a=1", &host).await.expect(301);
    assert_eq!(slash.header("location"), Some("./docs/?a=1"));
    let preflight = [
        ("Host", "app.example"),
        ("Origin", "https://o.example"),
        ("Access-Control-Request-Method", "GET"),
    ];
    let answer = site.request("OPTIONS", "/x", &preflight).await.expect(204);
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://o.example"));
    // The target goes before the field (RFC 9112 §3.2.2).
    let absolute = "http://app.example/app.js";
    let answer = site.get_with(absolute, &[("Host", "docs.example")]).await;
    assert_eq!(answer.expect(200).text(), "app:srv/app.js");
    let answer = site.request("HEAD", "/", &host).await.expect(200);
    assert_eq!(answer.header("content-length"), Some("18"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_host_is_400() {
    let registry = registry().await;
    let site = Site::start(&[&registry], json!({})).await;
    let path = registry.path("team/app:v1", "/srv/app.js");
    for host in [
        "", "a b/", "user@a", "a/b", "a:x", "a:99999", "[::1", "a,b\"", "a?b",
    ] {
        let answer = site.request("GET", &path, &[("Host", host)]).await;
        answer.expect_error(400);
    }
    let twice = [("Host", "a"), ("Host", "a")];
    site.request("GET", &path, &twice).await.expect_error(400);
    let answer = site.request("GET", &format!("http://u@a{path}"), &[]).await;
    answer.expect_error(400);
    for host in ["a", "a:80", "[::1]:80", "127.0.0.1"] {
        site.request("GET", &path, &[("Host", host)])
            .await
            .expect(200);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_an_origin_of_its_own() {
    let registry = registry().await;
    let app = registry.name("team/app");
    let settings = json!({
        "origins": {"domain": "user.example", "unconfigured": true},
        "repos": {
            &app: {"origin": true, "workdir": "srv"},
        },
    });
    let mut site = Site::start(&[&registry], settings).await;
    let mut origins = Vec::new();
    for image in ["team/app:v1", "team/docs:v1"] {
        let path = registry.path(image, "/docs/?a=1&b");
        let host = [("Host", "paths.example:8080")];
        let answer = site.request("GET", &path, &host).await.expect(307);
        let location = answer.header("location").unwrap();
        let rest = location.strip_prefix("//").unwrap();
        let (host, target) = rest.split_once('/').unwrap();
        assert_eq!(target, "docs/?a=1&b", "{location}");
        let label = host.strip_suffix(".user.example:8080").unwrap();
        assert_eq!(label.len(), 52, "{location}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        let vary = answer.header("vary").unwrap().to_ascii_lowercase();
        assert!(vary.contains("x-blobserve-readonly"), "{vary}");
        origins.push(host.to_owned());
    }
    assert_ne!(origins[0], origins[1]);
    // Another spelling is the same image.
    let spelled = registry.path("team/app%3Av1", "");
    let answer = site.request("GET", &spelled, &[]).await.expect(307);
    let port = site.client.0.port();
    let label = origins[0].split('.').next().unwrap();
    let wanted = format!("//{label}.user.example:{port}/");
    assert_eq!(answer.header("location"), Some(wanted.as_str()));

    for round in 0..2 {
        let host = |at: usize| [("Host", origins[at].as_str())];
        let answer = site.get_with("/docs/", &host(0)).await.expect(200);
        assert_eq!(answer.text(), "app:srv/docs/index.html");
        assert_eq!(answer.header("content-security-policy"), None);
        let upper = [("Host", &*origins[0].to_uppercase())];
        site.get_with("/docs/", &upper).await.expect(200);
        // Not configured, and alone on its origin: no sandbox.
        let answer = site.get_with("/srv/app.js", &host(1)).await.expect(200);
        assert_eq!(answer.text(), "docs:srv/app.js");
        assert_eq!(answer.header("content-security-policy"), None);
        let unknown = origins[0].replacen(&label[..4], "aaaa", 1);
        for host in [unknown.as_str(), "x.user.example", "a.b.user.example"] {
            let path = registry.path("team/app:v1", "/");
            for path in ["/", path.as_str()] {
                let answer = site.get_with(path, &[("Host", host)]).await;
                answer.expect_error(404);
            }
        }
        if round == 0 {
            // The labels are on disk.
            site = site.restart().await;
        }
    }

    // The warm-up and proxies before us are answered where they ask.
    let path = registry.path("team/app:v1", "/app.js");
    let head = site.request("HEAD", &path, &[]).await.expect(200);
    assert_eq!(head.header("cache-control"), Some("no-store"));
    for (name, value) in [
        ("X-BlobServe-ReadOnly", "true"),
        ("X-BlobServe-InlineVars", "{}"),
        ("X-BlobServe-Unheard-Of", "1"),
    ] {
        let answer = site.request("GET", &path, &[(name, value)]).await;
        let answer = answer.expect(200);
        assert_eq!(answer.text(), "app:srv/app.js", "{name}");
        // A cache would give it to browsers, which are sent to the image's own origin.
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
    }
    let sandboxed = registry.path("team/docs:v1", "/srv/app.js");
    let answer = site.request("HEAD", &sandboxed, &[]).await.expect(200);
    assert!(answer.header("content-security-policy").is_some());
    // No image, no label.
    let missing = registry.path("team/app:v2", "/");
    site.get(&missing).await.expect_error(404);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_an_origin_leads_nowhere_else() {
    let registry = registry().await;
    let app = registry.name("team/app");
    let settings = json!({
        "origins": {"domain": "user.example:8443"},
        "repos": {&app: {"origin": true}},
    });
    let site = Site::start(&[&registry], settings).await;
    for path in [
        "",
        "/",
        "//evil.example/",
        "/\\evil.example",
        "/@evil.example",
        "/x?//evil.example",
        "/%0d%0aX:1",
        "/x?%0d%0aX:1",
        "/.evil.example",
    ] {
        let path = registry.path("team/app:v1", path);
        let answer = site
            .request("GET", &path, &[("Host", "evil.example:1")])
            .await;
        let location = answer.expect(307).header("location").unwrap().to_owned();
        let base = url::Url::parse("https://paths.example/x").unwrap();
        let arrived = base.join(&location).unwrap();
        let host = arrived.host_str().unwrap();
        assert!(host.ends_with(".user.example"), "{path}: {location}");
        assert_eq!(arrived.port(), Some(8443), "{location}");
    }
    // Not opted in: served here, in the sandbox.
    let path = registry.path("team/docs:v1", "/srv/app.js");
    let answer = site.get(&path).await.expect(200);
    assert!(answer.header("content-security-policy").is_some());
    site.stop().await;
}

/// Two sites in one image, and what its repository says of them.
async fn two_sites() -> (Registry, String, serde_json::Value) {
    let registry = Registry::start().await;
    let text = |path: &str| format!("<h1>{path}</h1>");
    let layer = Layer::new()
        .file("a/index.html", text("a"))
        .file("a/404.html", text("a is lost"))
        .file("a/app.js", "a")
        .file("a/_redirects", "/old /app.js 302\n")
        .file("b/index.html", text("b"))
        .file("b/404.html", text("b is lost"))
        .file("b/list/one.txt", "1")
        .file("b/_redirects", "/old /list/ 301\n")
        .file("b/_headers", "/*\n  X-File: b\n  X-Config: file\n");
    registry.push("team/two", "v1", &Image::of(layer));
    let name = registry.name("team/two");
    let repository = json!({
        "workdir": "/a", "spaFallback": "index.html", "notFoundPage": "404.html", "redirectsFile": true,
        "responseHeaders": {"X-Config": "a", "X-Only-A": "1"}, "sandbox": ["allow-scripts"],
        "crossOriginResourcePolicy": "same-origin", "cors": {"origins": ["https://a.example"], "maxAge": "1m"},
    });
    (registry, name, repository)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_show_one_image_as_two_sites_and_its_path_urls_stay_as_they_were() {
    let (registry, name, repository) = two_sites().await;
    let reference = format!("{name}:v1");
    let site = Site::start(
        &[&registry],
        json!({
            "allowAnyRepo": false,
            "repos": {&name: repository},
            "hosts": {
                "a.example": {"reference": &reference},
                "b.example": {"reference": &reference, "workdir": "b", "spaFallback": false, "headersFile": true,
                    "listing": true, "responseHeaders": {"X-Config": "b"}, "sandbox": false,
                    "crossOriginResourcePolicy": "cross-origin", "cors": {"origins": ["https://b.example"]},
                    "encodings": "off", "reprDigest": true},
                "c.example": {"reference": &reference, "notFoundPage": false, "spaFallback": false,
                    "redirectsFile": false, "responseHeaders": {}},
            },
        }),
    )
    .await;
    let by_path = |path: &str| registry.path("team/two:v1", path);
    let html = ("Accept", "text/html");
    let ask = |host: &'static str, path: String, fields: Vec<(&'static str, &'static str)>| {
        let client = site.client;
        async move {
            let mut all = vec![("Host", host)];
            all.extend(fields);
            client.request("GET", &path, &all).await
        }
    };
    // Twice: the second time some of it comes from memory.
    for round in 0..2 {
        // Host, path, Accept: text/html; status, body, Location.
        let table = [
            ("paths", by_path("/"), true, 200, "<h1>a</h1>", None),
            ("paths", by_path("/route"), true, 200, "<h1>a</h1>", None),
            (
                "paths",
                by_path("/lost.css"),
                false,
                404,
                "<h1>a is lost</h1>",
                None,
            ),
            ("paths", by_path("/old"), false, 302, "", Some("./app.js")),
            ("a.example", "/".into(), true, 200, "<h1>a</h1>", None),
            ("a.example", "/route".into(), true, 200, "<h1>a</h1>", None),
            (
                "a.example",
                "/lost.css".into(),
                false,
                404,
                "<h1>a is lost</h1>",
                None,
            ),
            ("a.example", "/old".into(), false, 302, "", Some("./app.js")),
            ("b.example", "/".into(), true, 200, "<h1>b</h1>", None),
            (
                "b.example",
                "/route".into(),
                true,
                404,
                "<h1>b is lost</h1>",
                None,
            ),
            (
                "b.example",
                "/app.js".into(),
                false,
                404,
                "<h1>b is lost</h1>",
                None,
            ),
            ("b.example", "/old".into(), false, 301, "", Some("./list/")),
            ("c.example", "/route".into(), true, 404, "no file", None),
            ("c.example", "/old".into(), false, 404, "no file", None),
        ];
        for (host, path, navigates, status, body, location) in table {
            let fields = if navigates { vec![html] } else { Vec::new() };
            let answer = ask(host, path.clone(), fields).await;
            let at = format!("round {round}: {host}{path}: {answer:?}");
            assert_eq!(answer.status, status, "{at}");
            assert!(answer.text().starts_with(body), "{at}");
            if location.is_some() {
                assert_eq!(answer.header("location"), location, "{at}");
            }
        }
        let fields = [
            "x-config",
            "x-only-a",
            "x-file",
            "content-security-policy",
            "cross-origin-resource-policy",
        ];
        let a = [
            Some("a"),
            Some("1"),
            None,
            Some("sandbox allow-scripts"),
            Some("same-origin"),
        ];
        let b = [Some("b"), None, Some("b"), None, Some("cross-origin")];
        let c = [
            None,
            None,
            None,
            Some("sandbox allow-scripts"),
            Some("same-origin"),
        ];
        for (host, path, wanted) in [
            ("paths", by_path("/index.html"), a),
            ("a.example", "/index.html".into(), a),
            ("b.example", "/index.html".into(), b),
            ("c.example", "/index.html".into(), c),
        ] {
            let answer = ask(host, path, Vec::new()).await.expect(200);
            assert_eq!(fields.map(|name| answer.header(name)), wanted, "{host}");
            assert_eq!(answer.header("repr-digest").is_some(), host == "b.example");
            let allowed = |origin: &'static str, path: String| {
                let asked = ask(host, path, vec![("Origin", origin)]);
                async move { asked.await.header("access-control-allow-origin").is_some() }
            };
            let path = match host {
                "paths" => by_path("/index.html"),
                _ => "/index.html".into(),
            };
            let of_a = allowed("https://a.example", path.clone()).await;
            let of_b = allowed("https://b.example", path).await;
            assert_eq!(
                (of_a, of_b),
                (host != "b.example", host == "b.example"),
                "{host}"
            );
        }
    }
    let listing = ask("b.example", "/list/".into(), Vec::new()).await;
    assert!(listing.expect(200).text().contains("one.txt"));
    for (host, origin, allowed) in [
        ("a.example", "https://a.example", true),
        ("a.example", "https://b.example", false),
        ("b.example", "https://a.example", false),
        ("b.example", "https://b.example", true),
    ] {
        let fields = [
            ("Host", host),
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
        ];
        let answer = site.request("OPTIONS", "/x", &fields).await.expect(204);
        let told = answer.header("access-control-allow-origin");
        assert_eq!(told, allowed.then_some(origin), "{host} {origin}");
        // What the host does not say of CORS is its repository's.
        let age = answer.header("access-control-max-age");
        assert_eq!(age, allowed.then_some("60"), "{host} {origin}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_on_a_host_carries_what_the_host_says() {
    let (registry, name, repository) = two_sites().await;
    let site = Site::start(
        &[&registry],
        json!({
            "repos": {&name: repository},
            "hosts": {"b.example": {"reference": format!("{name}:missing"), "workdir": "/b",
                "responseHeaders": {"X-Config": "b"}, "cors": {"origins": ["https://b.example"]}}},
        }),
    )
    .await;
    let fields = [("Host", "b.example"), ("Origin", "https://b.example")];
    let answer = site.request("GET", "/", &fields).await.expect_error(404);
    assert_eq!(answer.header("x-config"), Some("b"));
    let told = answer.header("access-control-allow-origin");
    assert_eq!(told, Some("https://b.example"));
    site.stop().await;
}
