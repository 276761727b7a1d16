//! Every kind of compression, index and media type, from an ordinary registry: served with the layer's
//! bytes, or refused by name.
mod support;
use support::image::Index;
use support::*;

fn page() -> Layer {
    Layer::new()
        .file("index.html", "hello")
        .file("more.bin", noise(7, 700_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_read_whatever_their_media_type_says_of_their_compression() {
    let encodings = [
        Encoding::Gzip,
        Encoding::Members(5),
        Encoding::Zstd(1),
        Encoding::Zstd(4),
        Encoding::Plain,
    ];
    let media_types = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ];
    let registry = Registry::start().await;
    let site = Site::start(&[&registry], json!({})).await;
    for (number, encoding) in encodings.iter().enumerate() {
        for (other, media_type) in media_types.iter().enumerate() {
            let layer = page().encoding(encoding.clone()).media_type(media_type);
            let tag = format!("v{number}-{other}");
            registry.push("team/app", &tag, &Image::of(layer));
            let image = format!("team/app:{tag}");
            let asked = format!("{encoding:?} as {media_type}");
            let html = site.get(&registry.path(&image, "/index.html")).await;
            assert_eq!(html.expect(200).text(), "hello", "{asked}");
            let more = site.get(&registry.path(&image, "/more.bin")).await;
            assert!(more.expect(200).body == noise(7, 700_000), "{asked}");
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_cannot_be_served_are_refused_before_they_are_fetched() {
    let cases = [
        (
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "encrypted",
        ),
        ("application/octet-stream", "not supported"),
    ];
    for (media_type, why) in cases {
        let registry = Registry::start().await;
        let image = Image::of(page().media_type(media_type));
        let pushed = registry.push("team/app", "v1", &image);
        let site = Site::start(&[&registry], json!({})).await;
        let before = site.disk();
        let answer = site.get(&registry.path("team/app:v1", "/index.html")).await;
        let text = answer.expect_error(502).text();
        assert!(text.contains(why) && text.contains(media_type), "{text}");
        assert_eq!(
            registry.count_blob_gets(&pushed.layers[0]),
            0,
            "{media_type}"
        );
        site.disk_is(before).await;
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_layer_is_refused_and_its_urls_are_not_asked() {
    let (registry, elsewhere) = (Registry::start().await, Registry::start().await);
    let built = Image::of(page()).build();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&built.manifest).expect("a manifest");
    manifest["layers"][0]["mediaType"] =
        json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    manifest["layers"][0]["urls"] = json!([format!("{}/layer", elsewhere.base())]);
    registry.push("team/app", "v0", &Image::of(page()));
    registry.tag(
        "team/app",
        "v1",
        &built.media_type,
        manifest.to_string().as_bytes(),
    );
    let site = Site::start(&[&registry, &elsewhere], json!({})).await;
    let answer = site.get(&registry.path("team/app:v1", "/index.html")).await;
    let text = answer.expect_error(502).text();
    assert!(text.contains("not distributable"), "{text}");
    assert_eq!(elsewhere.requests(), 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_1_is_refused_by_name() {
    let registry = Registry::start().await;
    registry.push("team/app", "v0", &Image::of(page()));
    let manifest = r#"{"schemaVersion":1,"name":"team/app","tag":"v1","fsLayers":[],"history":[]}"#;
    registry.tag(
        "team/app",
        "v1",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        manifest.as_bytes(),
    );
    let site = Site::start(&[&registry], json!({})).await;
    let answer = site.get(&registry.path("team/app:v1", "/index.html")).await;
    let text = answer.expect_error(502).text();
    assert!(text.contains("schema 1"), "{text}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_found_in_nested_indexes_past_attestations() {
    let registry = Registry::start().await;
    let other = Index::new()
        .image("linux/arm64", &Image::page("arm"))
        .attestation();
    let ours = Index::new()
        .image("linux/s390x", &Image::page("s390x"))
        .image("linux/amd64", &Image::page("amd64"))
        .attestation();
    let outer = Index::new().index(&other).index(&ours);
    registry.push_index("team/app", "v1", &outer);
    registry.push_index("team/app", "v2", &Index::new().index(&outer));
    let without = Index::new().index(&other).index(
        &Index::new()
            .image("linux/s390x", &Image::page("a"))
            .image("linux/ppc64le", &Image::page("b")),
    );
    registry.push_index("team/app", "v3", &without);
    let mut deep = Index::new().image("linux/amd64", &Image::page("deep"));
    for _ in 0..5 {
        deep = Index::new().index(&deep);
    }
    let mut wide = Index::new();
    for number in 0..33 {
        let other = Image::page(&number.to_string());
        let pair = Index::new().image("linux/s390x", &other);
        wide = wide.index(&pair.image("linux/ppc64le", &other));
    }
    let attested = Index::new().attestation();
    let told = [
        ("deep", 502, &deep, "within 5 indexes, more than the 4 "),
        ("wide", 502, &wide, "no image within the first 32 indexes"),
        ("empty", 404, &Index::new(), "holds no image: it is empty"),
        ("attested", 404, &attested, "holds no image: it is empty"),
    ];
    for (tag, _, index, _) in &told {
        registry.push_index("team/app", tag, index);
    }
    let site = Site::start(&[&registry], json!({})).await;
    for tag in ["v1", "v2"] {
        let path = registry.path(&format!("team/app:{tag}"), "/index.html");
        assert_eq!(site.get(&path).await.expect(200).text(), "amd64", "{tag}");
    }
    let answer = site.get(&registry.path("team/app:v3", "/index.html")).await;
    let text = answer.expect_error(404).text();
    assert!(text.contains("linux/ppc64le, linux/s390x"), "{text}");
    for (tag, status, _, words) in told {
        let path = registry.path(&format!("team/app:{tag}"), "/index.html");
        let text = site.get(&path).await.expect_error(status).text();
        assert!(text.contains(words), "{text}");
    }
    site.stop().await;
}
