//! Digests in answers: redirects from a tag to the digest that it means, and `Repr-Digest`.
mod support;
use base64::Engine;
use sha2::Digest;
use support::*;

fn page(text: &str) -> Image {
    let layer = Layer::new()
        .file("index.html", format!("<p>{text}<script src=a.js></script>"))
        .file("docs/index.html", "<p>docs")
        .file("a.js", text);
    Image::of(layer)
}

/// The URL path that a relative reference leads to.
fn arrived(path: &str, location: &str) -> String {
    let asked = url::Url::parse(&format!("http://host.example{path}")).expect("a URL");
    let arrived = asked.join(location).expect("a relative reference");
    assert_eq!(arrived.host_str(), Some("host.example"), "{location}");
    arrived[url::Position::BeforePath..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_what_it_loads_come_from_one_snapshot() {
    let registry = Registry::start().await;
    let first = registry.push("team/app", "v1", &page("one"));
    let name = registry.name("team/app");
    let settings = json!({
        "tagTtl": "0s",
        "repos": {name: {"redirectToDigest": true, "cache": {"maxAge": "5s"}, "spaFallback": "index.html"}},
    });
    let site = Site::start(&[&registry], settings).await;
    let digest = &first.digest;
    for (path, to) in [
        ("", ""),
        ("/", "/"),
        ("/?a=1&b", "/?a=1&b"),
        ("/index.html", "/index.html"),
        ("/docs/", "/docs/"),
        ("/deep/link", "/deep/link"),
        ("/docs/../index.html", "/index.html"),
    ] {
        let asked = registry.path("team/app:v1", path);
        let html = [("Accept", "text/html")];
        let answer = site.request("GET", &asked, &html).await.expect(307);
        let location = answer.header("location").unwrap();
        assert!(
            location.starts_with("./") || location.starts_with("../"),
            "{location}"
        );
        let wanted = registry.path(&format!("team/app@{digest}"), to);
        assert_eq!(arrived(&asked, location), wanted, "{location}");
        let cache = answer.header("cache-control");
        assert_eq!(cache, Some("public, max-age=5"), "{path}");
    }
    // The tag moves while the page is open.
    registry.push("team/app", "v1", &page("two"));
    let page = format!("team/app@{digest}");
    let script = site.get(&registry.path(&page, "/a.js")).await.expect(200);
    assert_eq!(script.text(), "one");
    let cache = script.header("cache-control").unwrap();
    assert!(cache.contains("immutable"), "{cache}");
    let html = site.get(&registry.path(&page, "/")).await.expect(200);
    assert!(html.text().contains("one"));

    // Who asks for anything but a page, or with fields of ours, or whether it is ready, is answered.
    let asked = |path| registry.path("team/app:v1", path);
    let script = site.get(&asked("/a.js")).await.expect(200);
    assert_eq!(script.text(), "two");
    assert_eq!(script.header("cache-control"), Some("public, max-age=5"));
    site.request("HEAD", &asked("/"), &[]).await.expect(200);
    let read_only = [("X-BlobServe-ReadOnly", "true")];
    for answer in [
        site.request("HEAD", &asked("/index.html"), &[]).await,
        site.get_with(&asked("/"), &read_only).await,
    ] {
        // Not to be given to those who are sent to the digest.
        let cache = answer
            .expect(200)
            .header("cache-control")
            .map(str::to_owned);
        assert_eq!(cache.as_deref(), Some("no-store"));
    }
    let script = site.get_with(&asked("/a.js"), &read_only).await.expect(200);
    assert_eq!(script.header("cache-control"), Some("public, max-age=5"));
    site.get(&asked("/docs")).await.expect(301);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_of_a_tag_that_redirects_is_that_of_its_digest() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &page("one"));
    let name = registry.name("team/app");
    let settings = json!({
        "origins": {"domain": "user.example"},
        "repos": {name: {"redirectToDigest": true, "origin": true}},
    });
    let site = Site::start(&[&registry], settings).await;
    let location = |path: String| {
        let site = &site;
        async move {
            let answer = site.request("GET", &path, &[]).await.expect(307);
            answer.header("location").unwrap().to_owned()
        }
    };
    let by_tag = location(registry.path("team/app:v1", "/a.js")).await;
    let exact = format!("team/app@{}", pushed.digest);
    assert_eq!(location(registry.path(&exact, "/a.js")).await, by_tag);
    let host = by_tag
        .strip_prefix("//")
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let answer = site.get_with("/", &[("Host", host)]).await.expect(200);
    assert!(
        answer
            .header("cache-control")
            .unwrap()
            .contains("immutable")
    );
    site.stop().await;
}

fn repr_digest(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    let text = base64::engine::general_purpose::STANDARD.encode(digest);
    format!("sha-256=:{text}:")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_the_digest_of_the_whole_representation_where_it_is_wanted() {
    let registry = Registry::start().await;
    let large = noise(5, 3 << 20);
    let layer = Layer::new()
        .file("small.txt", "small")
        .file("empty.bin", "")
        .file("large.bin", &large);
    let image = Image::of(layer);
    registry.push("team/quiet", "v1", &image);
    registry.push("team/always", "v1", &image);
    let always = registry.name("team/always");
    let settings = json!({"repos": {always: {"reprDigest": true, "listing": true}}});
    let site = Site::start(&[&registry], settings).await;
    let wants = [("Want-Repr-Digest", "sha-512=3, sha-256=10")];
    let files: [(&str, &[u8]); 3] = [
        ("/small.txt", b"small"),
        ("/empty.bin", b""),
        ("/large.bin", &large),
    ];
    for (path, bytes) in files {
        let wanted = repr_digest(bytes);
        let quiet = registry.path("team/quiet:v1", path);
        let always = registry.path("team/always:v1", path);
        let answer = site.get(&quiet).await.expect(200);
        assert_eq!(answer.header("repr-digest"), None, "{path}");
        // Twice: computed, and remembered.
        for _ in 0..2 {
            for (path, fields) in [(&quiet, &wants[..]), (&always, &[])] {
                let answer = site.get_with(path, fields).await.expect(200);
                assert_eq!(answer.header("repr-digest"), Some(&*wanted), "{path}");
                let answer = site.request("HEAD", path, fields).await.expect(200);
                assert_eq!(answer.header("repr-digest"), Some(&*wanted), "{path}");
            }
        }
        let refuses = [("Want-Repr-Digest", "sha-256=0")];
        let answer = site.get_with(&always, &refuses).await.expect(200);
        assert_eq!(answer.header("repr-digest"), None, "{path}");
    }
    let large_path = registry.path("team/quiet:v1", "/large.bin");
    for range in ["bytes=1-2", "bytes=0-0,-1"] {
        let fields = [wants[0], ("Range", range)];
        let part = site.get_with(&large_path, &fields).await.expect(206);
        let wanted = repr_digest(&large);
        assert_eq!(part.header("repr-digest"), Some(&*wanted), "{range}");
    }
    let listing = registry.path("team/always:v1", "/");
    let listing = site.get(&listing).await.expect(200);
    let wanted = repr_digest(&listing.body);
    assert_eq!(listing.header("repr-digest"), Some(&*wanted));
    for (path, fields, status) in [
        ("/none", &wants[..], 404),
        ("/small.txt", &[wants[0], ("Range", "bytes=9-")][..], 416),
        ("/small.txt", &[wants[0], ("If-Match", "\"x\"")][..], 412),
    ] {
        let path = registry.path("team/quiet:v1", path);
        let answer = site.get_with(&path, fields).await.expect(status);
        assert_eq!(answer.header("repr-digest"), None, "{path}");
    }
    site.stop().await;
}
