//! What decides how the files of an image are served: repository, tag, platform, form of the layer.
mod support;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn inline_vars_fill_in_index_pages_only() {
    let registry = Registry::start().await;
    let html = "<base href='__IDE__'><script src='__SUP__'></script>";
    let layer = Layer::new()
        .file("index.html", html)
        .file("sub/index.html", html)
        .file("app.js", "'__IDE__'");
    registry.push("team/app", "v1", &Image::of(layer));
    let inline = json!([
        {"search": "__IDE__", "replacement": "${ide}/x"},
        {"search": "__SUP__", "replacement": "${supervisor}/y"},
    ]);
    let name = registry.name("team/app");
    let site = Site::start(
        &[&registry],
        json!({"repos": {name: {"inlineStatic": inline}}}),
    )
    .await;
    let vars = [(
        "X-BlobServe-InlineVars",
        r#"{"ide": "/IDE", "supervisor": "/SUP"}"#,
    )];
    let filled = "<base href='/IDE/x'><script src='/SUP/y'></script>";
    for path in ["", "/", "/index.html", "/sub/index.html"] {
        let path = registry.path("team/app:v1", path);
        let answer = site.get_with(&path, &vars).await.expect(200);
        assert_eq!(answer.text(), filled, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        let vary = answer
            .header("vary")
            .unwrap_or_default()
            .to_ascii_lowercase();
        assert!(vary.contains("x-blobserve-inlinevars"), "{path}: {vary}");
        let plain = site.get(&path).await.expect(200);
        assert_ne!(plain.header("etag"), answer.header("etag"), "{path}");
    }
    let script = registry.path("team/app:v1", "/app.js");
    assert_eq!(
        site.get_with(&script, &vars).await.expect(200).text(),
        "'__IDE__'"
    );
    let broken = [("X-BlobServe-InlineVars", "{no json")];
    let root = registry.path("team/app:v1", "/");
    assert_eq!(site.get_with(&root, &broken).await.expect(200).text(), html);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_is_said_only_where_the_digest_decides_the_bytes() {
    let registry = Registry::start().await;
    let image = Image::page("<p>a</p>");
    let mut digests = Vec::new();
    for repository in ["plain", "changed", "pinned"] {
        digests.push(registry.push(repository, "v1", &image).digest);
        registry.push(repository, "release-1", &image);
    }
    let rules =
        json!({"replacements": [{"path": "/index.html", "search": "a", "replacement": "b"}]});
    let repos = json!({
        registry.name("changed"): rules,
        registry.name("pinned"): {"immutableTags": ["release-*"]},
    });
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    let by_digest = |repository: &str| format!("{repository}@{}", digests[0]);
    let cases = [
        ("plain:v1".to_owned(), false),
        (by_digest("plain"), true),
        (by_digest("changed"), false),
        ("pinned:v1".to_owned(), false),
        ("pinned:release-1".to_owned(), true),
    ];
    for (image, immutable) in cases {
        let answer = site.get(&registry.path(&image, "/")).await.expect(200);
        let policy = answer.header("cache-control").unwrap_or_default();
        assert_eq!(policy.contains("immutable"), immutable, "{image}: {policy}");
        assert_eq!(
            policy.contains("max-age=31536000"),
            immutable,
            "{image}: {policy}"
        );
        assert_eq!(policy == "no-cache", !immutable, "{image}: {policy}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacements_change_files_and_are_not_shared_between_repositories() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("w/index.html", "one two one")
        .hardlink("w/hard.html", "w/index.html")
        .file("w/other.html", "one");
    let pushed = registry.push("team/a", "v1", &Image::of(layer.clone()));
    registry.push("team/b", "v1", &Image::of(layer.clone()));
    registry.push("team/c", "v1", &Image::of(layer));
    let rule = |search: &str, to: &str| json!({"path": "/w/index.html", "search": search, "replacement": to});
    let missing = json!({"path": "/nowhere.txt", "search": "x", "replacement": "y"});
    let repos = json!({
        registry.name("team/a"): {"replacements": [rule("one", "1"), rule("1 two", "12"), missing]},
        registry.name("team/b"): {"replacements": [rule("one", "uno")], "workdir": "/w"},
    });
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    let cases = [
        ("team/a:v1", "/w/index.html", "12 1"),
        ("team/b:v1", "/index.html", "uno two uno"),
        ("team/c:v1", "/w/index.html", "one two one"),
        ("team/a:v1", "/w/hard.html", "12 1"),
        ("team/a:v1", "/w/other.html", "one"),
        ("team/a:v1", "/w/index.html", "12 1"),
    ];
    for (image, path, body) in cases {
        let answer = site.get(&registry.path(image, path)).await.expect(200);
        assert_eq!(answer.text(), body, "{image}{path}");
        let modified = body != "one" && !image.contains("/c");
        assert_eq!(
            answer.header("last-modified").is_none(),
            modified,
            "{image}{path}"
        );
    }
    assert_eq!(
        registry.count_blob_gets(&pushed.layers[0]),
        1,
        "one download for all three"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_file_keeps_its_etag_across_tags() {
    let registry = Registry::start().await;
    let layer = |version: &str| {
        Layer::new()
            .file("same.js", "same")
            .file("version.txt", version)
    };
    registry.push("team/app", "v1", &Image::of(layer("1")));
    registry.push("team/app", "v2", &Image::of(layer("2")));
    let site = Site::start(&[&registry], json!({})).await;
    let mut etags = Vec::new();
    for tag in ["v1", "v2"] {
        for file in ["/same.js", "/version.txt"] {
            let path = registry.path(&format!("team/app:{tag}"), file);
            let answer = site.get(&path).await.expect(200);
            etags.push(answer.header("etag").unwrap().to_owned());
        }
    }
    assert_eq!(etags[0], etags[2], "same.js is unchanged");
    assert_ne!(etags[1], etags[3], "version.txt is not");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_chosen_and_a_missing_one_lists_those_there_are() {
    let registry = Registry::start().await;
    let (amd, arm) = (Image::page("amd64"), Image::page("arm64"));
    let both = Index::new()
        .image("linux/arm64/v8", &arm)
        .image("linux/amd64", &amd)
        .attestation();
    registry.push_index("team/app", "both", &both);
    registry.push_index("team/app", "list", &both.clone().docker());
    registry.push_index(
        "team/app",
        "only",
        &Index::new().image("linux/arm64", &arm).attestation(),
    );
    let others = Index::new()
        .image("linux/arm64", &arm)
        .image("windows/amd64", &amd);
    registry.push_index("team/app", "others", &others);
    let site = Site::start(&[&registry], json!({})).await;
    for (tag, body) in [("both", "amd64"), ("list", "amd64"), ("only", "arm64")] {
        let path = registry.path(&format!("team/app:{tag}"), "/");
        assert_eq!(site.get(&path).await.expect(200).text(), body, "{tag}");
    }
    let answer = site.get(&registry.path("team/app:others", "/")).await;
    let text = answer.expect_error(404).text();
    assert!(
        text.contains("linux/arm64") && text.contains("windows/amd64"),
        "{text}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_gzip_layer_is_served() {
    let registry = Registry::start().await;
    let layer = || Layer::new().file("index.html", "hi").many("d", 20, 3000);
    let cases = [
        ("oci", Image::of(layer())),
        ("docker", Image::of(layer()).docker()),
        ("members", Image::of(layer().encoding(Encoding::Members(7)))),
        ("no-end", Image::of(layer().without_end())),
        (
            "foreign",
            Image::of(
                layer().media_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            ),
        ),
        (
            "nondistributable",
            Image::of(
                layer().media_type("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            ),
        ),
    ];
    for (tag, image) in &cases {
        registry.push("team/app", tag, image);
    }
    let site = Site::start(&[&registry], json!({})).await;
    for (tag, _) in &cases {
        let path = |file: &str| registry.path(&format!("team/app:{tag}"), file);
        assert_eq!(site.get(&path("/")).await.expect(200).text(), "hi", "{tag}");
        assert_eq!(
            site.get(&path("/d/19.bin")).await.expect(200).body,
            noise(19, 3000),
            "{tag}"
        );
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_listed_only_where_that_is_on() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("d/<b>&.txt", "1")
        .file("d/z.txt", "2")
        .dir("d/sub/");
    registry.push("team/open", "v1", &Image::of(layer.clone()));
    registry.push("team/shut", "v1", &Image::of(layer));
    let repos = json!({registry.name("team/open"): {"listing": true}});
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    let answer = site
        .request("GET", &registry.path("team/open:v1", "/d/"), &[])
        .await
        .expect(200);
    let text = answer.text();
    assert!(text.contains("z.txt") && text.contains("sub/"), "{text}");
    assert!(!text.contains("<b>&"), "names are escaped: {text}");
    site.get(&registry.path("team/shut:v1", "/d/"))
        .await
        .expect_error(404);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_configured_by_name_is_sandboxed() {
    let registry = Registry::start().await;
    registry.push("team/known", "v1", &Image::page("x"));
    registry.push("team/any", "v1", &Image::page("x"));
    let repos = json!({registry.name("team/known"): {}});
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    let any = site
        .get(&registry.path("team/any:v1", "/"))
        .await
        .expect(200);
    assert_eq!(
        any.header("content-security-policy"),
        Some("sandbox allow-scripts")
    );
    let known = site
        .get(&registry.path("team/known:v1", "/"))
        .await
        .expect(200);
    assert_eq!(known.header("content-security-policy"), None);
    site.stop().await;
}
