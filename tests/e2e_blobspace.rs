//! The bound on the disk, seen from outside.
mod support;
use support::*;

const MIB: usize = 1 << 20;
const BOUND: u64 = 40 << 20;

fn image(number: u64) -> Image {
    let layer = Layer::new().file("index.html", number.to_string());
    Image::of(layer.file("big.bin", ballast(number, 12 * MIB)))
}

async fn images(count: u64) -> Registry {
    let registry = Registry::start().await;
    for number in 0..count {
        registry.push("team/app", &format!("v{number}"), &image(number));
    }
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn more_images_than_fit_are_all_answered_within_the_bound() {
    let registry = images(6).await;
    let settings = json!({"blobSpace": {"maxSizeBytes": BOUND}});
    let site = Site::start(&[&registry], settings).await;
    for round in 0..2 {
        for number in 0..6 {
            let path = registry.path(&format!("team/app:v{number}"), "/");
            let text = site.get(&path).await.expect(200).text();
            assert_eq!(text, number.to_string(), "round {round}");
            let (bytes, _) = site.disk();
            assert!(bytes <= BOUND, "{bytes} bytes on disk after image {number}");
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_image_goes_first() {
    let registry = images(4).await;
    let settings = json!({"blobSpace": {"maxSizeBytes": BOUND}});
    let site = Site::start(&[&registry], settings).await;
    let path = |number: u64| registry.path(&format!("team/app:v{number}"), "/");
    let layer = |number: u64| self::image(number).build().layers[0].clone();
    for number in [0, 1, 2, 0, 3, 0] {
        site.get(&path(number)).await.expect(200);
        // Last use is kept to the second or better.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    }
    assert_eq!(
        registry.count_blob_gets(&layer(0)),
        1,
        "in use all the time"
    );
    site.get(&path(1)).await.expect(200);
    assert_eq!(
        registry.count_blob_gets(&layer(1)),
        2,
        "it had been evicted"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_holds_while_many_layers_arrive_at_once() {
    let registry = images(6).await;
    let settings = json!({"blobSpace": {"maxSizeBytes": BOUND}, "timeout": "60s"});
    let site = Site::start(&[&registry], settings).await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (client, path) = (
            site.client,
            registry.path(&format!("team/app:v{number}"), "/"),
        );
        requests.spawn(async move { (number, client.request("GET", &path, &[]).await) });
    }
    let mut highest = 0;
    while !requests.is_empty() {
        highest = highest.max(site.disk_at_once());
        let tick = std::time::Duration::from_millis(5);
        if let Ok(Some(answer)) = tokio::time::timeout(tick, requests.join_next()).await {
            let (number, answer) = answer.unwrap();
            assert_eq!(answer.expect(200).text(), number.to_string());
        }
    }
    assert!(highest <= BOUND, "{highest} bytes on disk");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_in_the_location_is_never_touched() {
    let registry = images(1).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("theirs.txt"), "keep").unwrap();
    let settings = json!({"blobSpace": {"location": directory.path(), "maxSizeBytes": BOUND}});
    let site = Site::start(&[&registry], settings).await;
    site.get(&registry.path("team/app:v0", "/"))
        .await
        .expect(200);
    site.stop().await;
    assert_eq!(
        std::fs::read(directory.path().join("theirs.txt")).unwrap(),
        b"keep"
    );
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["blobserve-v1", "theirs.txt"]);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(directory.path().join("blobserve-v1"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_are_removed_under_a_running_server_come_back() {
    let registry = images(3).await;
    let directory = tempfile::tempdir().unwrap();
    let settings = json!({"blobSpace": {"location": directory.path()}});
    let site = Site::start(&[&registry], settings).await;
    for (number, removed) in ["packs", "tmp", "records"].iter().enumerate() {
        std::fs::remove_dir_all(directory.path().join("blobserve-v1").join(removed)).unwrap();
        let path = registry.path(&format!("team/app:v{number}"), "/");
        let text = site.get(&path).await.expect(200).text();
        assert_eq!(text, number.to_string(), "without {removed}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_compressed_size_exceeds_the_bound_evicts_nothing() {
    let registry = images(2).await;
    let large = Layer::new().file("big.bin", noise(9, 44 * MIB));
    registry.push("team/app", "large", &Image::of(large));
    let settings = json!({"blobSpace": {"maxSizeBytes": BOUND}});
    let site = Site::start(&[&registry], settings).await;
    let paths = ["v0", "v1"].map(|tag| registry.path(&format!("team/app:{tag}"), "/"));
    for path in &paths {
        site.get(path).await.expect(200);
    }
    let large = registry.path("team/app:large", "/big.bin");
    site.get(&large).await.expect_error(507);
    let asked = registry.requests();
    for path in &paths {
        site.get(path).await.expect(200);
    }
    assert_eq!(registry.requests(), asked, "both are still here");
    site.stop().await;
}
