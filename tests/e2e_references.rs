//! One image, however it is spelled and however many ask: one download.
mod support;
use std::time::Duration;
use support::*;

/// Three spellings of one image.
fn spellings(registry: &Registry, image: &Pushed) -> [String; 3] {
    let host = registry.host();
    [
        format!("/{host}/team/app:v1/index.html"),
        format!("/{}/team/app%3Av1/index.html", host.replace(':', "%3A")),
        format!("/{host}/team/app:v1@{}/index.html", image.digest),
    ]
}

/// Each thing of the image was fetched once.
fn fetched_once(registry: &Registry, image: &Pushed) {
    let manifests =
        registry.count_manifest_gets("v1") + registry.count_manifest_gets(&image.digest);
    assert_eq!(manifests, 1, "manifest: {:#?}", registry.log());
    assert_eq!(registry.count_blob_gets(&image.config), 1, "config");
    assert_eq!(registry.count_blob_gets(&image.layers[0]), 1, "layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_spellings_make_one_download() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::page("hello"));
    let site = Site::start(&[&registry], json!({})).await;
    for path in spellings(&registry, &image) {
        assert_eq!(site.get(&path).await.expect(200).text(), "hello", "{path}");
    }
    fetched_once(&registry, &image);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_simultaneous_cold_requests_in_three_spellings_make_one_download() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", "hello")
        .many("d", 50, 10_000);
    let image = registry.push("team/app", "v1", &Image::of(layer));
    // Slow enough that all of them come before the end.
    let speed = Fault::Throttle {
        bytes_per_second: 500_000,
    };
    registry.fault(speed).on_blob(&image.layers[0]);
    let site = Site::start(&[&registry], json!({"timeout": "60s"})).await;
    let paths = spellings(&registry, &image);
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let (client, path) = (site.client, paths[number % 3].clone());
        requests.spawn(async move { client.try_request("GET", &path, &[]).await });
    }
    let (mut right, mut wrong) = (0, Vec::new());
    while let Some(answer) = requests.join_next().await {
        match answer.unwrap() {
            Ok(answer) if answer.status == 200 && answer.body == b"hello" => right += 1,
            other => wrong.push(format!("{other:?}")),
        }
    }
    assert_eq!(right, 1000, "first of the others: {:?}", wrong.first());
    fetched_once(&registry, &image);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tag_and_digest_the_digest_decides() {
    let registry = Registry::start().await;
    let old = registry.push("team/app", "v1", &Image::page("old"));
    registry.push("team/app", "v1", &Image::page("new"));
    let site = Site::start(&[&registry], json!({})).await;
    let both = format!("team/app:v1@{}", old.digest);
    assert_eq!(
        site.get(&registry.path(&both, "/"))
            .await
            .expect(200)
            .text(),
        "old"
    );
    let encoded = format!("team/app%40{}", old.digest.replace(':', "%3A"));
    assert_eq!(
        site.get(&registry.path(&encoded, "/"))
            .await
            .expect(200)
            .text(),
        "old"
    );
    assert_eq!(
        site.get(&registry.path("team/app:v1", "/"))
            .await
            .expect(200)
            .text(),
        "new"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_reference_prefix_of_the_path_wins() {
    let registry = Registry::start().await;
    registry.push(
        "a/b",
        "1",
        &Image::of(Layer::new().file("x/y", "file of a/b:1")),
    );
    registry.push(
        "a",
        "1",
        &Image::of(Layer::new().file("b:1/x/y", "file of a:1")),
    );
    let site = Site::start(&[&registry], json!({})).await;
    assert_eq!(
        site.get(&registry.path("a/b:1", "/x/y"))
            .await
            .expect(200)
            .text(),
        "file of a/b:1"
    );
    assert_eq!(
        site.get(&registry.path("a:1", "/b%3A1/x/y"))
            .await
            .expect(200)
            .text(),
        "file of a:1"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_when_all_who_asked_have_left() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::page("hello"));
    let hold = Some(Duration::from_millis(600));
    registry
        .fault(Fault::StallBeforeHeaders(hold))
        .on_blob(&image.layers[0]);
    let site = Site::start(&[&registry], json!({})).await;
    let path = registry.path("team/app:v1", "/");
    let request = site.client.try_request("GET", &path, &[]);
    let left = tokio::time::timeout(Duration::from_millis(300), request).await;
    assert!(left.is_err(), "the request was given up");
    tokio::time::sleep(Duration::from_millis(900)).await;
    let asked = registry.requests();
    site.get(&path).await.expect(200);
    assert_eq!(registry.requests(), asked, "it was here already");
    site.stop().await;
}
