//! Artifacts: what is pushed beside images, by ORAS, Helm and their like.
mod support;
use support::*;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";

/// A layer that is no tar.
fn raw(media_type: &str, bytes: &[u8]) -> Layer {
    let layer = Layer::new().encoding(Encoding::Raw(bytes.to_vec()));
    layer.media_type(media_type)
}

fn artifact(layers: Vec<Layer>) -> Image {
    let image = Image::default().config(EMPTY, b"{}");
    layers.into_iter().fold(image, Image::layer)
}

async fn serving(image: &Image) -> (Registry, Site, Pushed) {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", image);
    let site = Site::start(&[&registry], json!({})).await;
    (registry, site, pushed)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_artifact_are_served_under_their_titles() {
    let (text, big) = (b"hello".as_slice(), noise(5, 3_000_000));
    let same = image::gzip(b"as it was pushed");
    let docs = Layer::new()
        .file("docs/index.html", "the docs")
        .hardlink("docs/same.html", "docs/index.html")
        .annotation(TITLE, "docs")
        .annotation("io.deis.oras.content.unpack", "true");
    let image = artifact(vec![
        raw("text/plain", text).annotation(TITLE, "hello.txt"),
        raw("application/octet-stream", &big).annotation(TITLE, "/data/big.bin"),
        raw("application/x.tar+gzip", &same).annotation(TITLE, "a.tgz"),
        raw("text/plain", text).annotation(TITLE, "again.txt"),
        raw("x/model.raw", b"weights").annotation("org.cncf.model.filepath", "model/w.bin"),
        raw("application/wasm", b"\0asm"),
        raw(EMPTY, b"{}"),
        docs,
    ]);
    let (registry, site, pushed) = serving(&image).await;
    for (path, content) in [
        ("/hello.txt", text),
        ("/again.txt", text),
        ("/data/big.bin", &big),
        ("/a.tgz", &same),
        ("/model/w.bin", b"weights"),
        ("/module.wasm", b"\0asm"),
        ("/docs/", b"the docs"),
        ("/docs/same.html", b"the docs"),
    ] {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        assert!(answer.expect(200).body == content, "{path}");
    }
    let asked = registry.requests();
    let range = [("Range", "bytes=1000000-1000009")];
    let part = registry.path("team/app:v1", "/data/big.bin");
    let part = site.request("GET", &part, &range).await.expect(206);
    assert_eq!(part.body, big[1_000_000..1_000_010]);
    site.get(&registry.path("team/app:v1", "/none"))
        .await
        .expect_error(404);
    assert_eq!(registry.requests(), asked, "nothing is fetched twice");
    assert_eq!(registry.count_blob_gets(&pushed.layers[6]), 0, "no content");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_a_chart_and_a_hostile_title() {
    let helm = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let chart = Layer::new().file("app/Chart.yaml", "name: app");
    let chart = Image::of(chart.media_type(helm)).config(
        "application/vnd.cncf.helm.config.v1+json",
        b"{\"name\":\"app\"}",
    );
    let one = artifact(vec![raw("text/plain", b"one").annotation(TITLE, "one.txt")]);
    for (image, path, content) in [
        (&chart, "/app/Chart.yaml", "name: app"),
        (&one, "/one.txt", "one"),
    ] {
        let (registry, site, _) = serving(image).await;
        let path = registry.path("team/app:v1", path);
        assert_eq!(site.get(&path).await.expect(200).text(), content);
        let site = site.restart().await;
        let asked = registry.count("GET", "/blobs/");
        assert_eq!(site.get(&path).await.expect(200).text(), content);
        assert_eq!(registry.count("GET", "/blobs/"), asked, "it was kept");
        site.stop().await;
    }
    let layer = raw("text/plain", b"x").annotation(TITLE, "../../etc/passwd");
    let (registry, site, _) = serving(&artifact(vec![layer])).await;
    let answer = site.get(&registry.path("team/app:v1", "/etc/passwd")).await;
    let text = answer.expect_error(502).text();
    assert!(text.contains("climbs with `..`"), "{text}");
    let (registry, site, _) = serving(&artifact(vec![raw(EMPTY, b"{}")])).await;
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect_error(404);
    drop((registry, site));
}
