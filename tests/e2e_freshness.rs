//! Tags move, registries go away, processes are killed.
mod support;
use std::time::Duration;
use support::*;

/// A registry whose `team/app:v1` is a page that says `old`, a site that has served it, and its path.
async fn old_is_known(settings: serde_json::Value) -> (Registry, Pushed, Site, String) {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("old"));
    let site = Site::start(&[&registry], settings).await;
    let path = registry.path("team/app:v1", "/");
    site.get(&path).await.expect(200);
    (registry, pushed, site, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn within_its_ttl_a_tag_is_served_without_a_registry_call() {
    let (registry, _, site, path) = old_is_known(json!({"tagTtl": "60s"})).await;
    registry.push("team/app", "v1", &Image::page("new"));
    let asked = registry.requests();
    assert_eq!(site.get(&path).await.expect(200).text(), "old");
    assert_eq!(registry.requests(), asked);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_ttl_a_moved_tag_is_noticed_and_an_unmoved_one_costs_one_head() {
    let ttl = Duration::from_millis(300);
    let (registry, image, site, path) = old_is_known(json!({"tagTtl": "300ms"})).await;
    tokio::time::sleep(ttl * 2).await;
    let heads = registry.count("HEAD", "/manifests/v1");
    assert_eq!(
        site.request("GET", &path, &[]).await.expect(200).text(),
        "old"
    );
    assert_eq!(registry.count("HEAD", "/manifests/v1"), heads + 1);
    assert_eq!(registry.count_blob_gets(&image.layers[0]), 1);
    registry.push("team/app", "v1", &Image::page("new"));
    tokio::time::sleep(ttl * 2).await;
    assert_eq!(
        site.request("GET", &path, &[]).await.expect(200).text(),
        "new"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_registry_fails_a_known_tag_is_served_until_stale_if_error() {
    let settings = json!({"tagTtl": "100ms", "staleIfError": "6s", "timeout": "60s"});
    let (registry, _, site, path) = old_is_known(settings).await;
    drop(registry);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(site.get(&path).await.expect(200).text(), "old");
    tokio::time::sleep(Duration::from_millis(6500)).await;
    let answer = site.get(&path).await;
    assert!([502, 504].contains(&answer.status), "{}", answer.text());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_to_an_image_that_cannot_be_had_means_what_it_last_meant() {
    let foreign = Index::new()
        .image("linux/s390x", &Image::page("new"))
        .image("windows/amd64", &Image::page("new"));
    let bare = Image::page("new").build();
    type Move<'a> = &'a dyn Fn(&Registry);
    let cases: &[(&str, Move<'_>)] = &[
        ("layer missing", &|registry| {
            let moved = registry.push("team/app", "v1", &Image::page("new"));
            registry.remove_blob("team/app", &moved.layers[0]);
        }),
        ("layer refused", &|registry| {
            let moved = registry.push("team/app", "v1", &Image::page("new"));
            let denied = Fault::Status {
                code: 403,
                retry_after: None,
            };
            registry.fault(denied).on_blob(&moved.layers[0]);
        }),
        ("configuration missing", &|registry| {
            registry.tag("team/app", "v1", &bare.media_type, &bare.manifest);
        }),
        ("another platform", &|registry| {
            registry.push_index("team/app", "v1", &foreign);
        }),
    ];
    for (case, move_tag) in cases {
        let (registry, _, site, path) = old_is_known(json!({"tagTtl": "50ms"})).await;
        move_tag(&registry);
        tokio::time::sleep(Duration::from_millis(120)).await;
        let answer = site.get(&path).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "old"),
            "{case}"
        );
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_its_registry_no_longer_has_is_not_served_any_more() {
    let (registry, _, site, path) = old_is_known(json!({"tagTtl": "50ms"})).await;
    registry.untag("team/app", "v1");
    tokio::time::sleep(Duration::from_millis(120)).await;
    site.get(&path).await.expect(404);
    site.stop().await;
}

/// Moves the time at which the one known tag was validated, as a clock does that was wrong.
fn shift_validated(records: &std::path::Path, milliseconds: i64) {
    let mut tags = std::fs::read_dir(records.join("tags")).expect("a directory");
    let tag = tags.next().expect("a tag").expect("readable").path();
    let file = std::fs::read(&tag).expect("readable");
    let mut record: serde_json::Value = serde_json::from_slice(&file[16..]).expect("JSON");
    record["validated"] = json!(record["validated"].as_i64().expect("a number") + milliseconds);
    let record = record.to_string().into_bytes();
    let sum = xxhash_rust::xxh3::xxh3_64(&record).to_le_bytes();
    std::fs::write(tag, [&file[..8], &sum, &record].concat()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_validated_in_the_future_is_due_and_good_enough_while_its_registry_fails() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("old"));
    let settings = json!({"tagTtl": "60s", "blobSpace": {"location": directory.path()}});
    let path = registry.path("team/app:v1", "/");
    let site = Site::start(&[&registry], settings.clone()).await;
    site.get(&path).await.expect(200);
    site.stop().await;
    let hour = 3_600_000;
    shift_validated(&directory.path().join("blobserve-v1/records"), hour);
    registry.push("team/app", "v1", &Image::page("new"));
    for (fails, page) in [(true, "old"), (false, "new")] {
        if fails {
            let refusal = Fault::Status {
                code: 500,
                retry_after: None,
            };
            registry.fault(refusal).on_manifest("v1");
        } else {
            registry.heal();
        }
        let site = Site::start(&[&registry], settings.clone()).await;
        assert_eq!(site.get(&path).await.expect(200).text(), page);
        site.stop().await;
    }
}

/// Writes a configuration for the real binary.
fn config_file(
    directory: &std::path::Path,
    registry: &Registry,
    settings: &serde_json::Value,
) -> std::path::PathBuf {
    let text = service::configuration(directory, &[registry], settings).to_string();
    let path = directory.join("config.json");
    std::fs::write(&path, text).expect("written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_with_the_registry_down_a_known_image_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", "hello")
        .file("big.bin", noise(3, 300_000));
    let image = registry.push("team/app", "v1", &Image::of(layer));
    let config = config_file(directory.path(), &registry, &json!({"tagTtl": "1s"}));
    let paths = [
        registry.path("team/app:v1", "/big.bin"),
        registry.path(&format!("team/app@{}", image.digest), "/big.bin"),
    ];
    let process = Process::serve(&config);
    for path in &paths {
        let answer = process.client.request("GET", path, &[]).await.expect(200);
        assert_eq!(answer.body, noise(3, 300_000));
    }
    process.kill();
    drop(registry);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let process = Process::serve(&config);
    for path in &paths {
        let answer = process.client.request("GET", path, &[]).await.expect(200);
        assert_eq!(answer.body, noise(3, 300_000), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_a_download_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", "hello")
        .file("big.bin", noise(3, 300_000));
    let image = registry.push("team/app", "v1", &Image::of(layer));
    let stall = Fault::StallAfter {
        bytes: 150_000,
        hold: None,
    };
    registry.fault(stall).once().on_blob(&image.layers[0]);
    let config = config_file(directory.path(), &registry, &json!({}));
    let process = Process::serve(&config);
    let (client, path) = (process.client, registry.path("team/app:v1", "/"));
    let request = tokio::spawn(async move { client.try_request("GET", &path, &[]).await });
    registry.asked("GET", &image.layers[0]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.kill();
    assert!(request.await.unwrap().is_err());
    let process = Process::serve(&config);
    let tmp = directory.path().join("blobs/blobserve-v1/tmp");
    assert_eq!(
        std::fs::read_dir(tmp).unwrap().count(),
        0,
        "emptied at start"
    );
    let path = registry.path("team/app:v1", "/");
    process.client.request("GET", &path, &[]).await.expect(200);
}
