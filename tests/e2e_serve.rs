//! What a client sees of an image: paths, statuses, headers, bodies.
mod support;
use support::*;

/// An ordinary small site with links, odd names and entries that are not served.
fn site_layer() -> Layer {
    Layer::new()
        .dir("./")
        .file("./index.html", "<h1>root</h1>")
        .dir("docs/")
        .file("docs/index.html", "<h1>docs</h1>")
        .file("docs/guide.css", "body{}")
        .dir("empty/")
        .file("empty/one.txt", "1")
        .file("app.js", "let a = 1;")
        .file("data.json", "{}")
        .file("pic.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
        .file("font.woff2", noise(2, 100))
        .file("LICENSE", "free as in air\n")
        .file("blob.unknownext", noise(3, 100))
        .file("html-like", "<html><script>alert(1)</script></html>")
        .file("a b%c.txt", "odd name")
        .file("letters.txt", "abcdefghijklmnopqrstuvwxyz")
        .symlink("link.txt", "letters.txt")
        .symlink("docs/up", "../letters.txt")
        .symlink("absolute", "/letters.txt")
        .symlink("passwd", "/etc/passwd")
        .symlink("out", "../../../../../../etc/passwd")
        .symlink("loop", "loop")
        .hardlink("hard.txt", "letters.txt")
        .device("null")
        .fifo("pipe")
}

async fn served() -> (Registry, Site, Pushed) {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::of(site_layer()));
    let site = Site::start(&[&registry], json!({})).await;
    (registry, site, pushed)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_path_gives_its_status_and_body() {
    let (registry, site, _) = served().await;
    let cases: &[(&str, u16, &str)] = &[
        ("", 200, "<h1>root</h1>"),
        ("/", 200, "<h1>root</h1>"),
        ("/index.html", 200, "<h1>root</h1>"),
        ("/docs/", 200, "<h1>docs</h1>"),
        ("/docs/index.html", 200, "<h1>docs</h1>"),
        ("/docs/./guide.css", 200, "body{}"),
        ("/docs/../app.js", 200, "let a = 1;"),
        ("/a%20b%25c.txt", 200, "odd name"),
        ("/link.txt", 200, "abcdefghijklmnopqrstuvwxyz"),
        ("/docs/up", 200, "abcdefghijklmnopqrstuvwxyz"),
        ("/absolute", 200, "abcdefghijklmnopqrstuvwxyz"),
        ("/hard.txt", 200, "abcdefghijklmnopqrstuvwxyz"),
        ("/letters.txt?query=1", 200, "abcdefghijklmnopqrstuvwxyz"),
        ("/nothing.txt", 404, ""),
        ("/docs%2Fguide.css", 404, ""),
        ("/passwd", 404, ""),
        ("/out", 404, ""),
        ("/loop", 404, ""),
        ("/null", 404, ""),
        ("/pipe", 404, ""),
        ("/letters.txt/more", 404, ""),
        ("/../../../etc/passwd", 400, ""),
        ("/%2e%2e/x", 400, ""),
    ];
    for (path, status, body) in cases {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        if *status == 200 {
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert_eq!(answer.text(), *body, "{path}");
        } else {
            assert_eq!(answer.status, *status, "{path}: {}", answer.text());
            answer.expect_error(*status);
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_its_slash_redirects_relatively() {
    let (registry, site, _) = served().await;
    let answer = site.get(&registry.path("team/app:v1", "/docs")).await;
    let answer = answer.expect(301);
    let location = answer.header("location").unwrap();
    assert!(location == "docs/" || location == "./docs/", "{location}");
    assert!(
        answer.header("cache-control").is_some(),
        "a redirect has its policy"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_types_are_by_extension_and_never_html_by_guess() {
    let (registry, site, _) = served().await;
    let cases = [
        ("/", "text/html"),
        ("/docs/guide.css", "text/css"),
        ("/app.js", "text/javascript"),
        ("/data.json", "application/json"),
        ("/pic.svg", "image/svg+xml"),
        ("/font.woff2", "font/woff2"),
        ("/LICENSE", "text/plain; charset=utf-8"),
        ("/html-like", "text/plain; charset=utf-8"),
        ("/blob.unknownext", "application/octet-stream"),
    ];
    for (path, content_type) in cases {
        let answer = site
            .get(&registry.path("team/app:v1", path))
            .await
            .expect(200);
        let got = answer.header("content-type").unwrap_or_default();
        assert!(got.starts_with(content_type), "{path}: {got}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    site.stop().await;
}

/// Request headers, status, body.
type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions() {
    let (registry, site, _) = served().await;
    let path = registry.path("team/app:v1", "/letters.txt");
    let whole = site.get(&path).await.expect(200);
    let etag = whole.header("etag").unwrap().to_owned();
    let modified = whole.header("last-modified").unwrap().to_owned();
    assert_eq!(modified, "Tue, 14 Nov 2023 22:13:20 GMT");
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let cases: &[Case<'_>] = &[
        (&[("Range", "bytes=0-4")], 206, "abcde"),
        (&[("Range", "bytes=20-")], 206, "uvwxyz"),
        (&[("Range", "bytes=-2")], 206, "yz"),
        (
            &[("Range", "bytes=0-999")],
            206,
            "abcdefghijklmnopqrstuvwxyz",
        ),
        (&[("Range", "bytes=26-")], 416, ""),
        (&[("Range", "lines=0-4")], 200, "abcdefghijklmnopqrstuvwxyz"),
        (&[("Range", "bytes=0-4"), ("If-Range", &etag)], 206, "abcde"),
        (
            &[("Range", "bytes=0-4"), ("If-Range", "\"other\"")],
            200,
            "abcdefghijklmnopqrstuvwxyz",
        ),
        (&[("If-None-Match", "*")], 304, ""),
        (
            &[("If-None-Match", "\"a\", \"b\"")],
            200,
            "abcdefghijklmnopqrstuvwxyz",
        ),
        (&[("If-Match", "\"other\"")], 412, ""),
        (&[("If-Modified-Since", &modified)], 304, ""),
        (
            &[("If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT")],
            412,
            "",
        ),
    ];
    for (headers, status, body) in cases {
        let answer = site.request("GET", &path, headers).await;
        assert_eq!(answer.status, *status, "{headers:?}");
        if *status < 300 {
            assert_eq!(answer.text(), *body, "{headers:?}");
        }
        if *status == 416 {
            assert_eq!(answer.header("content-range"), Some("bytes */26"));
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_a_body() {
    let (registry, site, _) = served().await;
    for path in ["/letters.txt", "/", "/docs", "/nothing", "/pic.svg"] {
        let path = registry.path("team/app:v1", path);
        let get = site.request("GET", &path, &[]).await;
        let head = site.head(&path).await;
        assert_eq!(head.status, get.status, "{path}");
        for name in [
            "content-type",
            "content-length",
            "etag",
            "last-modified",
            "cache-control",
            "location",
        ] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_the_reference_warms_up_an_image_without_an_index() {
    let registry = Registry::start().await;
    registry.push(
        "team/app",
        "v1",
        &Image::of(Layer::new().file("one.txt", "1")),
    );
    let strict = Site::start(&[&registry], json!({})).await;
    let lenient = Site::start(&[&registry], json!({"headAnyPath": true})).await;
    for path in ["", "/"] {
        let path = registry.path("team/app:v1", path);
        strict.head(&path).await.expect(200);
        lenient.head(&path).await.expect(200);
    }
    let missing = registry.path("team/app:v1", "/no/such/file");
    strict.head(&missing).await.expect(404);
    lenient.head(&missing).await.expect(200);
    assert_eq!(lenient.get(&missing).await.status, 404, "GET is as ever");
    strict.stop().await;
    lenient.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_told_in_the_known_words() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("x"));
    registry.push("team/bare", "v1", &Image::default());
    let allowed = registry.name("team/app");
    let bare = registry.name("team/bare");
    let settings = json!({"allowAnyRepo": false, "repos": {allowed: {}, bare: {}}});
    let site = Site::start(&[&registry], settings).await;
    let forbidden = format!("forbidden repo: \"{}\"", registry.name("team/secret"));
    let cases = [
        ("/UPPER CASE".replace(' ', "%20"), 404, "cannot parse image"),
        (
            registry.path("team/app", "/x"),
            404,
            "tag or digest is missing",
        ),
        (
            registry.path("team/secret:v1", "/"),
            403,
            forbidden.as_str(),
        ),
        (registry.path("team/app:none", "/"), 404, "none"),
        (registry.path("team/bare:v1", "/"), 404, "layers"),
    ];
    for (path, status, words) in cases {
        let answer = site.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let text = answer.expect_error(status).text();
        assert!(text.contains(words), "{path}: {text:?} lacks {words:?}");
    }
    assert_eq!(
        registry.count("GET", "team/secret") + registry.count("HEAD", "team/secret"),
        0
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_405_and_name_those_allowed() {
    let (registry, site, _) = served().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let path = registry.path("team/app:v1", "/");
        let answer = site.request(method, &path, &[]).await.expect(405);
        let allow = answer.header("allow").unwrap_or_default();
        assert!(
            allow.contains("GET") && allow.contains("HEAD"),
            "{method}: {allow}"
        );
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_upgrade_is_404_and_any_other_is_ignored() {
    let (registry, site, _) = served().await;
    let path = registry.path("team/app:v1", "/");
    let upgrade = [("Upgrade", "websocket")];
    site.request("GET", &path, &upgrade).await.expect(404);
    let upgrade = [("Upgrade", "h2c")];
    site.request("GET", &path, &upgrade).await.expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workdir_is_configured_or_comes_from_the_label() {
    let label = "io.gitpod.ide.manifest";
    let layer = || {
        Layer::new()
            .file("ide/code/index.html", "browser")
            .file("ide-desktop/intellij/index.html", "desktop")
            .file("opt/site/index.html", "configured")
            .symlink("srv", "opt/site")
            .file("index.html", "root")
    };
    let registry = Registry::start().await;
    let mut settings = json!({"repos": {}});
    let cases = [
        ("plain", None, None, "root"),
        (
            "browser",
            Some(r#"{"name":"code","kind":"browser","version":"1"}"#),
            None,
            "browser",
        ),
        (
            "desktop",
            Some(r#"{"name":"intellij","kind":"desktop"}"#),
            None,
            "desktop",
        ),
        (
            "unnamed",
            Some(r#"{"name":"","kind":"desktop"}"#),
            None,
            "root",
        ),
        ("broken", Some("{no json"), None, "root"),
        (
            "wins",
            Some(r#"{"name":"code"}"#),
            Some("/opt/site"),
            "configured",
        ),
        ("linked", None, Some("/srv"), "configured"),
    ];
    for (repository, label_value, workdir, _) in cases {
        let mut image = Image::of(layer());
        if let Some(value) = label_value {
            image = image.label(label, value);
        }
        registry.push(repository, "v1", &image);
        if let Some(workdir) = workdir {
            settings["repos"][registry.name(repository)] = json!({"workdir": workdir});
        }
    }
    let site = Site::start(&[&registry], settings).await;
    for (repository, _, _, body) in cases {
        let path = registry.path(&format!("{repository}:v1"), "/");
        assert_eq!(
            site.get(&path).await.expect(200).text(),
            body,
            "{repository}"
        );
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_first_layer_is_served() {
    let registry = Registry::start().await;
    let upper = Layer::new().file("upper.txt", "2").whiteout("lower.txt");
    let image = Image::of(Layer::new().file("lower.txt", "1")).layer(upper);
    let pushed = registry.push("team/app", "v1", &image);
    let site = Site::start(&[&registry], json!({})).await;
    assert_eq!(
        site.get(&registry.path("team/app:v1", "/lower.txt"))
            .await
            .expect(200)
            .text(),
        "1"
    );
    site.get(&registry.path("team/app:v1", "/upper.txt"))
        .await
        .expect(404);
    assert_eq!(registry.count_blob_gets(&pushed.layers[1]), 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_serves_what_is_known_and_downloads_nothing() {
    let (registry, site, _) = served().await;
    let read_only = [("X-BlobServe-ReadOnly", "true")];
    let path = registry.path("team/app:v1", "/app.js");
    site.request("GET", &path, &read_only)
        .await
        .expect_error(404);
    assert_eq!(registry.requests(), 0, "{:?}", registry.log());
    site.get(&path).await.expect(200);
    let asked = registry.requests();
    site.request("GET", &path, &read_only).await.expect(200);
    assert_eq!(registry.requests(), asked);
    site.stop().await;
}
