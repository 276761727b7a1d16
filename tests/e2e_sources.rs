//! Where images come from besides a registry: archives, and mirrors that lie.
mod support;
use std::path::Path;
use support::*;

/// What `docker save` wrote until it wrote OCI layouts: layers as they are, or compressed.
fn docker_archive(image: &Layer, names: &[&str], encoding: Encoding) -> Vec<u8> {
    let diff_id = image.diff_id();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let manifest = json!([{
        "Config": "0a.json",
        "RepoTags": names,
        "Layers": ["1b/layer.tar"],
    }]);
    let layer = image.clone().encoding(encoding).compressed();
    Layer::new()
        .file("0a.json", config.to_string())
        .symlink("1b/layer.tar", "../2c/layer.tar")
        .file("2c/layer.tar", layer)
        .file("manifest.json", manifest.to_string())
        .tar()
}

/// A tar of an OCI layout that holds one image.
fn oci_archive(image: &Image, tag: &str) -> Vec<u8> {
    let built = image.build();
    let name = |digest: &str| format!("blobs/{}", digest.replacen(':', "/", 1));
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": built.media_type,
        "digest": built.digest,
        "size": built.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }]});
    let mut tar = Layer::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string())
        .file(&name(&built.digest), &built.manifest);
    for (digest, bytes) in &built.blobs {
        tar = tar.file(&name(digest), bytes);
    }
    tar.tar()
}

fn site_of(words: &str) -> Layer {
    Layer::new()
        .file("index.html", words)
        .file("big.bin", noise(3, 700_000))
}

async fn serving(archive: &Path) -> Site {
    let registries = json!({"saved.local": {"archive": archive}});
    Site::start(&[], json!({"registries": registries, "tagTtl": "0s"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_served_out_of_archives_of_every_form() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("images.tar");
    let names = ["docker.io/team/app:v1", "team/app:v2"];
    let table = [
        docker_archive(&site_of("plain"), &names, Encoding::Plain),
        docker_archive(&site_of("gzip"), &names, Encoding::Gzip),
        docker_archive(&site_of("zstd"), &names, Encoding::Zstd(2)),
        oci_archive(&Image::of(site_of("layout")), "v1"),
    ];
    let words = ["plain", "gzip", "zstd", "layout"];
    for (archive, words) in table.iter().zip(words) {
        std::fs::write(&path, archive).expect("written");
        let site = serving(&path).await;
        let index = site.get("/saved.local/team/app:v1/").await.expect(200);
        assert_eq!(index.text(), words);
        let big = site.get("/saved.local/team/app:v1/big.bin").await;
        assert!(big.expect(200).body == noise(3, 700_000), "{words}");
        let answer = site.get("/saved.local/team/app:v9/").await;
        let text = answer.expect_error(404).text();
        let said = match words {
            "layout" => r#"not in the archive's index.json, which has ["v1"]"#,
            _ => r#"not in the archive's manifest.json, which has ["v1", "v2"]"#,
        };
        assert!(text.contains(said), "{text}");
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_replaced_is_seen_and_one_that_is_broken_is_502() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("images.tar");
    let put = |bytes: &[u8]| {
        let new = directory.path().join("new");
        std::fs::write(&new, bytes).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
    };
    put(&oci_archive(&Image::of(site_of("first")), "v1"));
    let site = serving(&path).await;
    let page = "/saved.local/team/app:v1/";
    assert_eq!(site.get(page).await.expect(200).text(), "first");
    put(&oci_archive(&Image::of(site_of("second")), "v1"));
    assert_eq!(site.get(page).await.expect(200).text(), "second");
    // A tampered layer does not come out, whatever the archive says.
    let mut tampered = docker_archive(&site_of("third"), &["team/app:v3"], Encoding::Plain);
    let at = tampered.windows(5).position(|bytes| bytes == b"third");
    tampered[at.expect("the page")] ^= 1;
    put(&tampered);
    let before = site.disk();
    site.get("/saved.local/team/app:v3/")
        .await
        .expect_error(502);
    site.disk_is(before).await;
    let truncated = &tampered[..tampered.len() / 2];
    put(truncated);
    let answer = site.get("/saved.local/team/app:v4/").await;
    let text = answer.expect_error(502).text();
    assert!(text.contains("is truncated"), "{text}");
    put(b"\xfd7zXZ\0\0\x04 and so on");
    let answer = site.get("/saved.local/team/app:v4/").await;
    let text = answer.expect_error(502).text();
    assert!(text.contains("the archive is xz-compressed, "), "{text}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_a_mirror_lies_about_comes_from_the_next_source() {
    let image = Image::of(site_of("true"));
    let (registry, liar, honest) = (
        Registry::start().await,
        Registry::start().await,
        Registry::start().await,
    );
    let pushed = registry.push("team/app", "v1", &image);
    for mirror in [&liar, &honest] {
        mirror.push("team/app", "v1", &image);
    }
    liar.fault(Fault::Bytes(noise(9, 5_000)))
        .on_blob(&pushed.layers[0]);
    let mirrors = [liar.host(), honest.host()];
    let settings = json!({"registries": {registry.host(): {"mirrors": mirrors}}});
    let site = Site::start(&[&registry, &liar, &honest], settings).await;
    let page = site.get(&registry.path("team/app:v1", "/")).await;
    assert_eq!(page.expect(200).text(), "true");
    let layer = format!("/blobs/{}", pushed.layers[0]);
    assert_eq!(
        (
            liar.count("GET", &layer),
            honest.count("GET", &layer),
            registry.count("GET", &layer)
        ),
        (1, 1, 0)
    );
    assert_eq!(
        (
            liar.count("HEAD", "/manifests/v1"),
            registry.count("HEAD", "/manifests/v1")
        ),
        (0, 1),
        "what a tag means is for the registry to say"
    );
    site.stop().await;
}
