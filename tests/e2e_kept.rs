//! Compressed blobs that are kept: what is unpacked again without the registry, and what is not.
#![allow(clippy::unwrap_used)]

mod support;
use blobserve::blobspace::{Blobspace, Tuning};
use blobserve::config::{Mode, parse};
use blobserve::images::{Ask, Images};
use blobserve::metrics::Metrics;
use blobserve::pack::Pack;
use blobserve::reference::Reference;
use blobserve::registry::Registries;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::commands::Commands;
use support::*;

const MIB: usize = 1 << 20;
const BOUND: u64 = 10 << 20;
const NOISE: usize = 700 << 10;

fn image(number: u64) -> Image {
    let layer = Layer::new().file("index.html", number.to_string());
    // Some 700 KiB compressed, and 3 MiB unpacked.
    let layer = layer.file("noise.bin", noise(number, NOISE));
    Image::of(layer.file("big.bin", ballast(number, 5 * MIB / 2)))
}

fn small(words: &str) -> Layer {
    Layer::new()
        .file("index.html", words)
        .file("more.bin", noise(1, 300_000))
}

async fn images(count: u64) -> Registry {
    let registry = Registry::start().await;
    for number in 0..count {
        registry.push("team/app", &format!("v{number}"), &image(number));
    }
    registry
}

/// Settings of a service on that directory that keeps blobs.
fn keeping(location: &Path) -> serde_json::Value {
    json!({"blobSpace": {"location": location, "maxSizeBytes": BOUND, "keepCompressedBytes": "4MiB"}})
}

/// Packs, or kept blobs, by what their names begin with.
fn packs(location: &Path, start: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(location.join("blobserve-v1/packs")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(start)
    };
    paths.filter(named).collect()
}

/// Waits until so many blobs are kept: they are sealed behind the answer.
async fn kept(location: &Path, count: usize) -> Vec<PathBuf> {
    let since = Instant::now();
    loop {
        let found = packs(location, "source-");
        let tmp = std::fs::read_dir(location.join("blobserve-v1/tmp")).unwrap();
        if found.len() == count && tmp.count() == 0 {
            return found;
        }
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "{count} are expected: {found:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// As if all packs had made room for others: to be called while no service runs.
fn drop_packs(location: &Path) {
    for pack in packs(location, "sha256-") {
        std::fs::remove_file(pack).unwrap();
    }
}

fn no_blobs(registry: &Registry, layer: &str) {
    let code = 500;
    let down = Fault::Status {
        code,
        retry_after: None,
    };
    registry.fault(down).on_blob(layer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_evicted_is_unpacked_again_without_its_registry() {
    const IMAGES: u64 = 5;
    let registry = images(IMAGES).await;
    let directory = tempfile::tempdir().unwrap();
    let mut settings = keeping(directory.path());
    settings["prometheusAddr"] = json!("127.0.0.1:0");
    let site = Site::start(&[&registry], settings).await;
    let layers: Vec<String> = (0..IMAGES)
        .map(|number| image(number).build().layers[0].clone())
        .collect();
    for number in 0..IMAGES {
        let path = registry.path(&format!("team/app:v{number}"), "/");
        site.get(&path).await.expect(200);
        kept(directory.path(), number as usize + 1).await;
    }
    assert!(packs(directory.path(), "sha256-").len() < IMAGES as usize);
    for layer in &layers {
        assert_eq!(registry.count_blob_gets(layer), 1);
        no_blobs(&registry, layer);
    }
    for round in 0..2 {
        for (number, layer) in (0..IMAGES).zip(&layers) {
            let reference = format!("team/app:v{number}");
            let page = site.get(&registry.path(&reference, "/")).await.expect(200);
            assert_eq!(page.text(), number.to_string());
            let bytes = site.get(&registry.path(&reference, "/noise.bin")).await;
            assert!(bytes.expect(200).body == noise(number, NOISE), "{round}");
            assert_eq!(registry.count_blob_gets(layer), 1, "{round}: {number}");
            let (disk, _) = site.disk();
            assert!(disk <= BOUND, "{disk} bytes on disk");
        }
    }
    let metrics = || async { site.metrics().request("GET", "/metrics", &[]).await.text() };
    let text = metrics().await;
    let again = r#"blobserve_layer_fetch_duration_seconds_count{outcome="kept"} "#;
    let line = text.lines().find_map(|line| line.strip_prefix(again));
    assert!(line.unwrap().parse::<u64>().unwrap() >= IMAGES, "{text}");
    let since = Instant::now();
    loop {
        let text = metrics().await;
        let gauge = r#"blobserve_blobspace_bytes{state="compressed"} "#;
        let bytes = text.lines().find_map(|line| line.strip_prefix(gauge));
        if bytes.is_some_and(|bytes| bytes.parse::<usize>().unwrap() > 3 * MIB) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_unless_configured_and_what_was_kept_goes_with_the_setting() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::of(small("words")));
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path();
    let path = registry.path("team/app:v1", "/");
    let off = json!({"blobSpace": {"location": location}});
    let gets = || registry.count_blob_gets(&pushed.layers[0]);
    let stages = [
        // (settings, downloads by then, kept by then)
        (off.clone(), 1, 0),
        (off.clone(), 2, 0),
        (keeping(location), 3, 1),
        // A restart keeps it.
        (keeping(location), 3, 1),
        (off, 4, 0),
        (keeping(location), 5, 1),
    ];
    for (number, (settings, downloads, blobs)) in stages.into_iter().enumerate() {
        let site = Site::start(&[&registry], settings).await;
        assert_eq!(site.get(&path).await.expect(200).text(), "words");
        assert_eq!(gets(), downloads, "{number}");
        kept(location, blobs).await;
        site.stop().await;
        drop_packs(location);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_found_bad_is_made_again_from_its_blob() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::of(small("words")));
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path();
    let path = registry.path("team/app:v1", "/more.bin");
    let site = Site::start(&[&registry], keeping(location)).await;
    site.get(&path).await.expect(200);
    kept(location, 1).await;
    no_blobs(&registry, &pushed.layers[0]);
    let pack = packs(location, "sha256-").remove(0);
    let file = std::fs::File::options().write(true).open(&pack).unwrap();
    file.set_len(1000).unwrap();
    // Whoever finds it bad may get no whole answer.
    let since = Instant::now();
    loop {
        let answer = site.client.try_request("GET", &path, &[]).await;
        if answer.is_ok_and(|answer| answer.status == 200 && answer.body == noise(1, 300_000)) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_blob_that_is_damaged_is_dropped_and_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path();
    let registry = Registry::start().await;
    let encodings = [Encoding::Gzip, Encoding::Zstd(3), Encoding::Plain];
    for (number, encoding) in encodings.into_iter().enumerate() {
        let tag = format!("v{number}");
        let layer = small(&tag).encoding(encoding);
        let blob = layer.compressed();
        let pushed = registry.push("team/app", &tag, &Image::of(layer));
        let path = |file: &str| registry.path(&format!("team/app:{tag}"), file);
        // A byte at the start, in the middle, at the end; the pack's own end; a file cut short.
        for damage in ["first", "middle", "last", "footer", "short"] {
            let site = Site::start(&[&registry], keeping(location)).await;
            site.get(&path("/")).await.expect(200);
            let file = kept(location, number + 1).await.into_iter();
            let holds = |bytes: &[u8]| bytes.windows(blob.len()).position(|it| it == blob);
            let found = file.map(|path| (std::fs::read(&path).unwrap(), path));
            let mut found = found.filter_map(|(bytes, path)| Some((holds(&bytes)?, bytes, path)));
            let (at, mut bytes, file) = found.next().expect("it is stored as it came");
            site.stop().await;
            drop_packs(location);
            match damage {
                "first" => bytes[at] ^= 1,
                "middle" => bytes[at + blob.len() / 2] ^= 1,
                "last" => bytes[at + blob.len() - 1] ^= 1,
                "footer" => *bytes.last_mut().unwrap() ^= 1,
                _ => bytes.truncate(at + 1000),
            }
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, &bytes).unwrap();
            let before = registry.count_blob_gets(&pushed.layers[0]);
            let site = Site::start(&[&registry], keeping(location)).await;
            assert_eq!(site.get(&path("/")).await.expect(200).text(), tag);
            let more = site.get(&path("/more.bin")).await.expect(200);
            assert!(more.body == noise(1, 300_000));
            let gets = registry.count_blob_gets(&pushed.layers[0]);
            assert_eq!(gets, before + 1, "{tag}, {damage}");
            // It is kept anew, and good.
            kept(location, number + 1).await;
            site.stop().await;
            drop_packs(location);
            let site = Site::start(&[&registry], keeping(location)).await;
            assert_eq!(site.get(&path("/")).await.expect(200).text(), tag);
            let gets = registry.count_blob_gets(&pushed.layers[0]);
            assert_eq!(gets, before + 1, "{tag}, {damage}");
            site.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_blob_is_for_those_alone_who_may_have_the_layer() {
    let (registry, elsewhere) = (Registry::start().await, Registry::start().await);
    let both = [&registry, &elsewhere];
    let image = Image::of(small("private"));
    let pushed = registry.push("team/app", "v1", &image);
    let layer = &pushed.layers[0];
    for (place, repository) in [(&registry, "team/thief"), (&elsewhere, "team/thief")] {
        place.push(repository, "v1", &image);
        place.remove_blob(repository, layer);
    }
    registry.push("team/other", "v1", &image);
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path();
    let own = registry.path("team/app:v1", "/");
    let site = Site::start(&both, keeping(location)).await;
    site.get(&own).await.expect(200);
    kept(location, 1).await;
    site.stop().await;
    drop_packs(location);

    let site = Site::start(&both, keeping(location)).await;
    for thief in [
        registry.path("team/thief:v1", "/"),
        elsewhere.path("team/thief:v1", "/"),
    ] {
        let answer = site.request("GET", &thief, &[]).await;
        assert!(answer.status >= 400, "{answer:?}");
        assert!(packs(location, "sha256-").is_empty(), "nothing is unpacked");
    }
    // Another repository of the host shows that it has it.
    let other = registry.path("team/other:v1", "/");
    site.get(&other).await.expect(200);
    let proof = format!("team/other/blobs/{layer}");
    assert_eq!(
        (
            registry.count("HEAD", &proof),
            registry.count("GET", &proof)
        ),
        (1, 0)
    );
    site.get(&own).await.expect(200);
    assert_eq!(registry.count("GET", &format!("team/app/blobs/{layer}")), 1);
    site.stop().await;
    drop_packs(location);

    // Another host has to deliver the bytes, whatever is kept.
    elsewhere.push("team/own", "v1", &image);
    let site = Site::start(&both, keeping(location)).await;
    let path = elsewhere.path("team/own:v1", "/");
    site.get(&path).await.expect(200);
    let delivered = format!("team/own/blobs/{layer}");
    assert_eq!(elsewhere.count("GET", &delivered), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_lies_of_a_kept_layer_gets_nothing_and_costs_nobody_the_blob() {
    let registry = Registry::start().await;
    let image = || Image::of(small("words"));
    let pushed = registry.push("team/app", "v1", &image());
    let untrue = format!("sha256:{}", "0".repeat(64));
    registry.push("team/app", "diff", &image().diff_ids(&[&untrue]));
    let size = small("words").compressed().len() as u64;
    registry.push("team/app", "size", &image().claim_layer_size(0, size + 1));
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path();
    let path = |tag: &str| registry.path(&format!("team/app:{tag}"), "/");
    let site = Site::start(&[&registry], keeping(location)).await;
    site.get(&path("v1")).await.expect(200);
    kept(location, 1).await;
    site.stop().await;
    drop_packs(location);
    let site = Site::start(&[&registry], keeping(location)).await;
    for tag in ["diff", "size"] {
        site.get(&path(tag)).await.expect_error(502);
        kept(location, 1).await;
    }
    let before = registry.count_blob_gets(&pushed.layers[0]);
    site.get(&path("v1")).await.expect(200);
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), before);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_holds_while_many_layers_arrive_and_blobs_give_way() {
    let registry = Registry::start().await;
    for number in 0..6 {
        let layer = Layer::new().file("index.html", number.to_string());
        let layer = layer.file("big.bin", noise(number, 3 * MIB));
        registry.push("team/app", &format!("v{number}"), &Image::of(layer));
    }
    let settings = json!({
        "blobSpace": {"maxSizeBytes": BOUND, "keepCompressedBytes": BOUND},
        "timeout": "60s",
    });
    let site = Site::start(&[&registry], settings).await;
    for _ in 0..2 {
        let mut requests = tokio::task::JoinSet::new();
        for number in 0..6 {
            let path = registry.path(&format!("team/app:v{number}"), "/");
            let client = site.client;
            requests.spawn(async move { (number, client.request("GET", &path, &[]).await) });
        }
        let mut highest = 0;
        while !requests.is_empty() {
            highest = highest.max(site.disk_at_once());
            let tick = Duration::from_millis(5);
            if let Ok(Some(answer)) = tokio::time::timeout(tick, requests.join_next()).await {
                let (number, answer) = answer.unwrap();
                assert_eq!(answer.expect(200).text(), number.to_string());
            }
        }
        assert!(highest <= BOUND, "{highest} bytes on disk");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_fits_only_without_its_blob_is_served_without_it() {
    let registry = Registry::start().await;
    let layer = Layer::new().file("index.html", "large");
    let layer = layer.file("big.bin", noise(1, 6 * MIB));
    let pushed = registry.push("team/app", "v1", &Image::of(layer));
    let settings = json!({"blobSpace": {"maxSizeBytes": BOUND, "keepCompressedBytes": BOUND}});
    let site = Site::start(&[&registry], settings).await;
    let path = registry.path("team/app:v1", "/");
    let since = Instant::now();
    assert_eq!(site.get(&path).await.expect(200).text(), "large");
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "it gave way at once"
    );
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), 1);
    assert!(packs(site.blobspace().parent().unwrap(), "source-").is_empty());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_this_machine_already_is_not_kept_once_more() {
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path().join("blobs");
    let site = Site::start(
        &[],
        json!({
            "blobSpace": {"location": location, "keepCompressedBytes": "1GiB"},
            "registries": {"demo.localhost": {"layout": concat!(env!("CARGO_MANIFEST_DIR"), "/demo/layout")}},
        }),
    )
    .await;
    let path = "/demo.localhost/site:v1/srv/site/";
    site.get(path).await.expect(200);
    site.stop().await;
    assert_eq!(packs(&location, "sha256-").len(), 1);
    kept(&location, 0).await;

    // The pack of an artifact's file has its blob as it came; a directory's has not.
    let registry = Registry::start().await;
    let title = "org.opencontainers.image.title";
    let raw = Layer::new().encoding(Encoding::Raw(b"weights".to_vec()));
    let docs = Layer::new()
        .file("docs/index.html", "the docs")
        .annotation(title, "docs")
        .annotation("io.deis.oras.content.unpack", "true");
    let image = Image::default().config("application/vnd.oci.empty.v1+json", b"{}");
    let image = image
        .layer(raw.media_type("x/model").annotation(title, "model.bin"))
        .layer(docs);
    let pushed = registry.push("team/model", "v1", &image);
    let settings = || keeping(&location);
    for (number, kept_now) in [(1, 1), (2, 1)] {
        let site = Site::start(&[&registry], settings()).await;
        let file = registry.path("team/model:v1", "/model.bin");
        assert_eq!(site.get(&file).await.expect(200).text(), "weights");
        let page = registry.path("team/model:v1", "/docs/");
        assert_eq!(site.get(&page).await.expect(200).text(), "the docs");
        kept(&location, kept_now).await;
        site.stop().await;
        drop_packs(&location);
        assert_eq!(registry.count_blob_gets(&pushed.layers[0]), number);
        assert_eq!(registry.count_blob_gets(&pushed.layers[1]), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_shows_kept_blobs_and_removes_them_with_their_image() {
    let registry = Registry::start().await;
    let layers = [small("lower"), Layer::new().file("b.html", "upper")];
    let image = layers.into_iter().fold(Image::default(), Image::layer);
    let pushed = registry.push("team/app", "v1", &image);
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path();
    let settings = || {
        let mut settings = keeping(location);
        settings["repos"] = json!({registry.name("team/app"): {"layers": "all"}});
        settings
    };
    let commands = Commands::on(&location.join("blobserve-v1"));
    let name = format!("{}/team/app:v1", registry.host());
    let path = registry.path("team/app:v1", "/");
    let site = Site::start(&[&registry], settings()).await;
    site.get(&path).await.expect(200);
    kept(location, 2).await;
    let shown = commands.json(&["image", "show", &name]);
    let mut bytes = 0;
    for layer in shown["layers"].as_array().unwrap() {
        assert_eq!(layer["state"], "sealed");
        bytes += layer["compressed"].as_u64().unwrap();
    }
    assert_eq!(shown["compressed"], bytes);
    assert!(bytes > 300_000, "{bytes}");
    site.stop().await;
    drop_packs(location);

    // From disk, by a command whose configuration keeps none: looking drops nothing.
    let shown = commands.json(&["image", "show", &name]);
    for layer in shown["layers"].as_array().unwrap() {
        assert_eq!(layer["state"], "evicted");
        assert!(layer["compressed"].as_u64().unwrap() > 0);
    }
    let text = commands.done(&["image", "show", &name]);
    assert!(text.contains("kept compressed, "), "{text}");
    let site = Site::start(&[&registry], settings()).await;
    site.get(&path).await.expect(200);
    for layer in &pushed.layers {
        assert_eq!(registry.count_blob_gets(layer), 1, "both from disk");
    }
    commands.done(&["image", "rm", &name]);
    kept(location, 0).await;
    site.get(&path).await.expect(200);
    for layer in &pushed.layers {
        assert_eq!(registry.count_blob_gets(layer), 2);
    }
    site.stop().await;
}

/// A disk that has no room for what begins as a pack with a compressed file does.
fn full_for_blobs(file: &std::fs::File, bytes: &[u8], offset: u64) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let start = &bytes[..bytes.len().min(64)];
    let is_blob = start.windows(3).any(|it| it == [0x1f, 0x8b, 8]);
    match offset == 0 && is_blob {
        true => Err(std::io::Error::from_raw_os_error(28)),
        false => file.write_at(bytes, offset),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_the_copy_costs_the_copy_alone() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::of(small("words")));
    let directory = tempfile::tempdir().unwrap();
    let settings = keeping(directory.path());
    let text = service::configuration(directory.path(), &[&registry], &settings).to_string();
    let config = parse(&text, "test.json", Mode::Serve).unwrap().config;
    for (is_full, blobs) in [(true, 0), (false, 1)] {
        let mut tuning = Tuning {
            source_bytes: config.blob_space.keep_compressed_bytes,
            ..Tuning::default()
        };
        if is_full {
            tuning.write_at = full_for_blobs;
        }
        let open = || Blobspace::<Pack>::open_tuned(directory.path(), BOUND, tuning);
        let blobspace = open().unwrap();
        let metrics = Arc::new(Metrics::new());
        let registries = Arc::new(Registries::new(&config, metrics.clone()).unwrap());
        let images = Images::new(&config, registries, blobspace.clone(), metrics);
        let reference = format!("{}/team/app:v1", registry.host());
        let reference = Reference::parse(&reference).unwrap();
        let view = images.get(&reference, Ask::Normal).await.unwrap();
        assert!(view.find(b"index.html").is_ok());
        kept(directory.path(), blobs).await;
        drop((view, images));
        blobspace.close();
        drop(blobspace);
        drop_packs(directory.path());
    }
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), 2);
}
