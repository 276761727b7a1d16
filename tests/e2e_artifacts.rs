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

const UNPACK: &str = "io.deis.oras.content.unpack";

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_what_oras_says_is_one_whatever_its_media_type() {
    let directory = |prefix: &str| {
        let layer = Layer::new().file(&format!("{prefix}index.html"), "in it");
        layer.file(&format!("{prefix}deep/er/f"), "deep")
    };
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    // `oras push … docs/:application/vnd.acme.docs.layer.v1+tar`, and names of all kinds.
    let docs = directory("docs/").media_type("application/vnd.acme.docs.layer.v1+tar");
    let absolute = directory("srv/x/").media_type("application/octet-stream");
    let python = directory("python/").media_type(layer);
    let archive = raw(layer, &image::gzip(b"not even a tar"));
    // `oras push … .`
    let here = Layer::new().file("top.txt", "top").media_type(layer);
    let image = artifact(vec![
        here.annotation(TITLE, ".").annotation(UNPACK, "true"),
        docs.annotation(TITLE, "docs").annotation(UNPACK, "true"),
        absolute
            .annotation(TITLE, "/srv/x")
            .annotation(UNPACK, "true"),
        python.annotation(TITLE, "python"),
        archive.annotation(TITLE, "a.tar.gz"),
    ]);
    let (registry, site, _) = serving(&image).await;
    for (path, content) in [
        ("/top.txt", b"top".as_slice()),
        ("/docs/", b"in it"),
        ("/docs/deep/er/f", b"deep"),
        ("/srv/x/", b"in it"),
        ("/python/deep/er/f", b"deep"),
        ("/a.tar.gz", &image::gzip(b"not even a tar")),
    ] {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        assert!(answer.expect(200).body == content, "{path}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_strangers_stay_in_the_artifact() {
    let file =
        |title: &str, content: &str| raw("text/plain", content.as_bytes()).annotation(TITLE, title);
    // Of two with one name the later one counts, as of two layers of an image.
    let image = artifact(vec![
        file("twice", "first"),
        file("twice", "second"),
        file("/etc//./passwd", "not the host's"),
        file("over/inner", "below"),
        file("over", "a file"),
        file(".wh.twice", "a name as any other"),
        file("a b\\..\\c?#%2e.txt", "odd"),
        file("new\nline", "odd too"),
    ]);
    let (registry, site, _) = serving(&image).await;
    for (path, content) in [
        ("/twice", "second"),
        ("/etc/passwd", "not the host's"),
        ("/over", "a file"),
        ("/.wh.twice", "a name as any other"),
        ("/a%20b%5C..%5Cc%3F%23%252e.txt", "odd"),
        ("/new%0Aline", "odd too"),
    ] {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        assert_eq!(answer.expect(200).text(), content, "{path}");
    }
    let below = registry.path("team/app:v1", "/over/inner");
    site.get(&below).await.expect_error(404);
    site.stop().await;
    let long = "x/".repeat(3000);
    let escape = Layer::new()
        .file("../../evil", "e")
        .file("docs/../../up", "u");
    for (layer, part) in [
        (file("../x", ""), "climbs with `..`"),
        (file("a/../../x", ""), "climbs with `..`"),
        (file("a\0b", ""), "holds a NUL"),
        (file("/", ""), "names no file"),
        (file(&long, ""), "longer than 4096 bytes"),
        (
            raw("x/y", b"").annotation("org.cncf.model.filepath", "../w"),
            "climbs",
        ),
        (file("..", "").annotation(UNPACK, "true"), "climbs"),
    ] {
        let (registry, site, _) = serving(&artifact(vec![layer])).await;
        let answer = site.get(&registry.path("team/app:v1", "/x")).await;
        let text = answer.expect_error(502).text();
        assert!(text.contains(part), "{text}");
        site.stop().await;
    }
    // A file cannot have files below it: no client could write that either.
    let clash = artifact(vec![file("clash", ""), file("clash/inner", "")]);
    let (registry, site, _) = serving(&clash).await;
    let answer = site.get(&registry.path("team/app:v1", "/clash")).await;
    let text = answer.expect_error(502).text();
    assert!(text.contains("`clash` is not a directory"), "{text}");
    site.stop().await;
    // Entries of a directory stay in it, too.
    let escape = escape.annotation(TITLE, "docs").annotation(UNPACK, "true");
    let (registry, site, _) = serving(&artifact(vec![escape])).await;
    for (path, content) in [("/docs/evil", "e"), ("/docs/up", "u")] {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        assert_eq!(answer.expect(200).text(), content, "{path}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_without_files_say_so() {
    let nothing = Image::default().config(EMPTY, b"{}");
    let kind = serde_json::json!("application/vnd.example.sbom");
    for (image, part) in [
        (
            nothing.clone().member("artifactType", kind),
            "has no layers",
        ),
        (artifact(vec![raw(EMPTY, b"{}")]), "none of its 1 layers"),
    ] {
        let (registry, site, pushed) = serving(&image).await;
        let answer = site.get(&registry.path("team/app:v1", "/")).await;
        let text = answer.expect_error(404).text();
        assert!(
            text.contains(part) && text.contains(&pushed.digest),
            "{text}"
        );
        assert_eq!(registry.count("GET", "/blobs/"), 0);
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_charts_and_modules_are_what_their_specifications_say() {
    let filepath = "org.cncf.model.filepath";
    let tar = Layer::new().file("weights/a.bin", "of a tar");
    let model = Image::of(
        raw("application/vnd.cncf.model.weight.v1.raw", b"raw")
            .annotation(filepath, "weights/b.bin"),
    )
    .layer(
        tar.media_type("application/vnd.cncf.model.weight.v1.tar")
            .encoding(Encoding::Plain)
            .annotation(filepath, "weights/a.bin"),
    )
    .layer(raw("application/vnd.cncf.model.doc.v1.raw", b"# Doc").annotation(filepath, "README.md"))
    .config("application/vnd.cncf.model.config.v1+json", b"{}");
    let chart = Layer::new()
        .file("app/Chart.yaml", "name: app")
        .media_type("application/tar+gzip");
    let old = Image::of(chart).config("application/vnd.cncf.helm.config.v1+json", b"{}");
    let wasm = |kind: &str| artifact(vec![raw(kind, b"\0asm")]);
    for (image, files) in [
        (
            &model,
            &[
                ("/weights/a.bin", "of a tar"),
                ("/weights/b.bin", "raw"),
                ("/README.md", "# Doc"),
            ][..],
        ),
        (&old, &[("/app/Chart.yaml", "name: app")]),
        (
            &wasm("application/vnd.wasm.content.layer.v1+wasm"),
            &[("/module.wasm", "\0asm")],
        ),
        (
            &wasm("application/vnd.module.wasm.content.layer.v1+wasm"),
            &[("/module.wasm", "\0asm")],
        ),
        (&wasm("application/wasm"), &[("/module.wasm", "\0asm")]),
    ] {
        let (registry, site, _) = serving(image).await;
        for (path, content) in files {
            let answer = site
                .get(&registry.path("team/app:v1", path))
                .await
                .expect(200);
            assert_eq!(answer.text(), *content, "{path}");
            if path.ends_with(".wasm") {
                assert_eq!(answer.header("content-type"), Some("application/wasm"));
            }
        }
        site.stop().await;
    }
}
