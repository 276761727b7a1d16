//! What a registry or an image promises and does not keep: a clear error, nothing kept.
mod support;
use support::*;

/// Asks for `/` of `team/app:v1` and expects an error that leaves nothing on disk.
async fn refused(registry: &Registry, settings: serde_json::Value, status: u16, name: &str) {
    let site = Site::start(&[registry], settings).await;
    let before = site.disk();
    let path = registry.path("team/app:v1", "/index.html");
    let answer = site.get(&path).await;
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    let text = answer.expect_error(status).text();
    assert!(
        !text.contains(&*site.blobspace().to_string_lossy()),
        "{name} tells internals: {text}"
    );
    let named = text.matches("layer sha256:").count();
    assert!(named <= 1, "{name} names its layer {named} times: {text}");
    site.disk_is(before).await;
    site.stop().await;
}

fn page() -> Layer {
    Layer::new()
        .file("index.html", "hello")
        .file("more.bin", noise(7, 5000))
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_match_their_digest_or_size_are_502() {
    let honest = Image::of(page()).build();
    let layer = honest.blobs[1].1.clone();
    let mut flipped = layer.clone();
    flipped[100] ^= 1;
    let other = page().file("evil.js", "alert()").compressed();
    let mut longer = layer.clone();
    longer.extend_from_slice(b"and more");
    let manifest = Image::page("another").build().manifest;
    let cases = [
        ("one flipped bit in the layer", &honest.layers[0], flipped),
        ("another layer", &honest.layers[0], other),
        ("a longer layer", &honest.layers[0], longer),
        (
            "a shorter layer",
            &honest.layers[0],
            layer[..layer.len() - 9].to_vec(),
        ),
        ("an empty layer", &honest.layers[0], Vec::new()),
        ("another configuration", &honest.config, b"{}".to_vec()),
        ("another manifest", &honest.digest, manifest),
    ];
    for (name, digest, bytes) in cases {
        let registry = Registry::start().await;
        registry.push("team/app", "v1", &Image::of(page()));
        if *digest == honest.digest {
            registry
                .fault(Fault::Bytes(bytes.clone()))
                .on_manifest(digest);
        } else {
            registry.fault(Fault::Bytes(bytes.clone())).on_blob(digest);
        }
        let image = format!("team/app@{}", honest.digest);
        let site = Site::start(&[&registry], json!({})).await;
        let before = site.disk();
        let path = registry.path(&image, "/index.html");
        let answer = site.get(&path).await;
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        answer.expect_error(502);
        site.disk_is(before).await;
        registry.heal();
        assert_eq!(
            site.get(&path).await.expect(200).text(),
            "hello",
            "{name}: afresh"
        );
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_contradicts_itself_is_502() {
    let wrong = image::sha256(b"something else");
    let size = page().compressed().len() as u64;
    let cases = [
        ("a wrong diff ID", Image::of(page()).diff_ids(&[&wrong])),
        ("no diff ID for its layer", Image::of(page()).diff_ids(&[])),
        (
            "two diff IDs for one layer",
            Image::of(page()).diff_ids(&[&page().diff_id(), &wrong]),
        ),
        (
            "a size that is too small",
            Image::of(page()).claim_layer_size(0, size - 1),
        ),
        (
            "a size that is too large",
            Image::of(page()).claim_layer_size(0, size + 1),
        ),
        (
            "a truncated gzip",
            Image::of(page().encoding(Encoding::Truncated(20))),
        ),
        (
            "a gzip with a bad CRC",
            Image::of(page().encoding(Encoding::BadCrc)),
        ),
        (
            "no gzip at all",
            Image::of(page().encoding(Encoding::Raw(noise(1, 3000)))),
        ),
        ("a tar that is cut", Image::of(page().raw(&noise(4, 700)))),
        (
            "a configuration that is no JSON",
            Image::of(page()).config("application/vnd.oci.image.config.v1+json", b"not json"),
        ),
    ];
    for (name, image) in cases {
        let registry = Registry::start().await;
        registry.push("team/app", "v1", &image);
        refused(&registry, json!({}), 502, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_image_configuration_the_layers_digest_is_enough() {
    let registry = Registry::start().await;
    let image = Image::of(page()).config("application/vnd.example.thing+json", b"{}");
    registry.push("team/app", "v1", &image);
    let site = Site::start(&[&registry], json!({})).await;
    assert_eq!(
        site.get(&registry.path("team/app:v1", "/"))
            .await
            .expect(200)
            .text(),
        "hello"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_beyond_a_cap_is_502_and_the_disk_is_as_before() {
    let bomb = |length: u64| {
        let (bytes, diff_id) = image::bomb(length);
        Image::of(Layer::new().encoding(Encoding::Raw(bytes))).diff_ids(&[&diff_id])
    };
    let many = Image::of(Layer::new().many("d", 30, 10));
    let long = Image::of(Layer::new().file(&"x".repeat(300), "1"));
    let cases = [
        (
            "more bytes than layerBytes",
            bomb(8 << 20),
            json!({"layerBytes": 4 << 20}),
        ),
        ("a higher ratio than the default", bomb(80 << 20), json!({})),
        ("more entries than entries", many, json!({"entries": 20})),
        (
            "a longer path than pathBytes",
            long,
            json!({"pathBytes": 200}),
        ),
    ];
    for (name, image, limits) in cases {
        let registry = Registry::start().await;
        registry.push("team/app", "v1", &image);
        refused(&registry, json!({"limits": limits}), 502, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_verified_bytes_is_remembered_and_a_lie_is_not() {
    let registry = Registry::start().await;
    let wrong = image::sha256(b"something else");
    let image = registry.push("team/app", "v1", &Image::of(page()).diff_ids(&[&wrong]));
    let site = Site::start(&[&registry], json!({})).await;
    let path = registry.path("team/app:v1", "/index.html");
    let first = site.get(&path).await.expect_error(502).text();
    let second = site.get(&path).await.expect_error(502).text();
    assert_eq!(first, second);
    assert_eq!(
        registry.count_blob_gets(&image.layers[0]),
        1,
        "the layer is known to be bad"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_larger_than_its_cap_is_502() {
    let registry = Registry::start().await;
    let image = Image::of(page()).annotation("ballast", &"x".repeat(20_000));
    registry.push("team/app", "v1", &image);
    refused(
        &registry,
        json!({"limits": {"manifestBytes": 10_000}}),
        502,
        "manifest",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_larger_than_the_blobspace_is_507_and_remembered() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", "hello")
        .file("big.bin", ballast(1, 40 << 20));
    let image = registry.push("team/app", "v1", &Image::of(layer));
    registry.push("team/small", "v1", &Image::page("small"));
    let settings = json!({"blobSpace": {"maxSizeBytes": 32 << 20}});
    let site = Site::start(&[&registry], settings).await;
    let before = site.disk();
    let path = registry.path("team/app:v1", "/");
    site.get(&path).await.expect_error(507);
    site.disk_is(before).await;
    site.get(&path).await.expect_error(507);
    assert_eq!(registry.count_blob_gets(&image.layers[0]), 1, "remembered");
    site.get(&registry.path("team/small:v1", "/"))
        .await
        .expect(200);
    site.stop().await;
}
