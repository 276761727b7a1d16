//! Registries that refuse, fail, fall silent, tear and redirect; and what they are told.
mod support;
use std::time::{Duration, Instant};
use support::*;

const HELLO: &str = "hello";

async fn one_image() -> (Registry, Pushed) {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", HELLO)
        .file("big.bin", noise(1, 400_000));
    let image = registry.push("team/app", "v1", &Image::of(layer));
    (registry, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrys_refusal_has_its_own_status_and_is_not_retried() {
    for (code, status) in [(404, 404), (403, 403), (401, 403)] {
        let (registry, _) = one_image().await;
        let refusal = Fault::Status {
            code,
            retry_after: None,
        };
        registry.fault(refusal).on_repository("team/app");
        let site = Site::start(&[&registry], json!({})).await;
        site.get(&registry.path("team/app:v1", "/"))
            .await
            .expect_error(status);
        let asked =
            registry.count("HEAD", "/manifests/v1") + registry.count("GET", "/manifests/v1");
        assert!(
            asked <= 2,
            "HEAD and perhaps GET, but no retry: {:#?}",
            registry.log()
        );
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_remembered_for_a_while() {
    let (registry, _) = one_image().await;
    let site = Site::start(&[&registry], json!({})).await;
    let path = registry.path("team/app:none", "/");
    site.get(&path).await.expect_error(404);
    let asked = registry.requests();
    site.get(&path).await.expect_error(404);
    assert_eq!(registry.requests(), asked);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_failing_is_502() {
    let (registry, _) = one_image().await;
    let failure = Fault::Status {
        code: 500,
        retry_after: None,
    };
    registry.fault(failure).on_anything();
    let site = Site::start(&[&registry], json!({"timeout": "60s"})).await;
    let path = registry.path("team/app:v1", "/");
    site.get(&path).await.expect_error(502);
    registry.heal();
    site.get(&path).await.expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_pass_is_retried() {
    let faults = [
        Fault::Status {
            code: 500,
            retry_after: None,
        },
        Fault::Status {
            code: 503,
            retry_after: None,
        },
        Fault::Status {
            code: 429,
            retry_after: Some(1),
        },
        Fault::TearAfter { bytes: 0 },
    ];
    for fault in faults {
        let (registry, image) = one_image().await;
        let start = Instant::now();
        registry
            .fault(fault.clone())
            .once()
            .method("GET")
            .on_manifest(&image.digest);
        registry.fault(fault.clone()).once().on_blob(&image.config);
        registry
            .fault(fault.clone())
            .once()
            .on_blob(&image.layers[0]);
        let site = Site::start(&[&registry], json!({"timeout": "60s"})).await;
        let path = registry.path(&format!("team/app@{}", image.digest), "/");
        let answer = site.get(&path).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, HELLO),
            "{fault:?}"
        );
        if let Fault::Status {
            retry_after: Some(seconds),
            ..
        } = fault
        {
            assert!(
                start.elapsed() >= Duration::from_secs(seconds),
                "Retry-After is heeded"
            );
        }
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_blob_is_resumed_by_range() {
    let (registry, image) = one_image().await;
    let layer = &image.layers[0];
    for bytes in [100_000, 50_000] {
        let torn = registry.fault(Fault::TearAfter { bytes });
        torn.once().on_blob(layer);
    }
    let site = Site::start(&[&registry], json!({"timeout": "60s"})).await;
    let answer = site
        .get(&registry.path("team/app:v1", "/big.bin"))
        .await
        .expect(200);
    assert_eq!(answer.body, noise(1, 400_000));
    let log = registry.log();
    let gets = log
        .iter()
        .filter(|one| one.method == "GET" && one.path.contains(layer));
    let ranges: Vec<Option<&str>> = gets.map(|one| one.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=150000-")]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_ignores_the_range_of_a_resumed_blob_cannot_corrupt_it() {
    let (registry, image) = one_image().await;
    let layer = &image.layers[0];
    registry
        .fault(Fault::TearAfter { bytes: 100_000 })
        .once()
        .on_blob(layer);
    registry.fault(Fault::IgnoreRange).on_blob(layer);
    let site = Site::start(&[&registry], json!({"timeout": "60s"})).await;
    let answer = site.get(&registry.path("team/app:v1", "/big.bin")).await;
    if answer.status == 200 {
        assert_eq!(answer.body, noise(1, 400_000));
    } else {
        answer.expect_error(502);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_deadline_the_answer_is_503_timeout_and_the_download_goes_on() {
    let (registry, image) = one_image().await;
    let hold = Some(Duration::from_millis(1500));
    registry
        .fault(Fault::StallBeforeHeaders(hold))
        .once()
        .on_blob(&image.layers[0]);
    let site = Site::start(&[&registry], json!({"timeout": "300ms"})).await;
    let path = registry.path("team/app:v1", "/");
    let answer = site.get(&path).await.expect_error(503);
    assert_eq!(answer.body, b"timeout");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(
        answer.elapsed < Duration::from_millis(1200),
        "{:?}",
        answer.elapsed
    );
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(site.get(&path).await.expect(200).text(), HELLO);
    assert_eq!(registry.count_blob_gets(&image.layers[0]), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stays_silent_is_504() {
    let (registry, _) = one_image().await;
    registry
        .fault(Fault::StallBeforeHeaders(None))
        .on_anything();
    let site = Site::start(&[&registry], json!({"timeout": "0s"})).await;
    let path = registry.path("team/app:v1", "/");
    site.get(&path).await.expect_error(504);
    site.stop().await;
}

/// The time that a cold image takes while `stall` holds others, after `settle`.
async fn cold_beside(stalled: &[(&Registry, String)], settle: Duration) {
    let (elsewhere, _) = one_image().await;
    let mut registries: Vec<&Registry> = vec![&elsewhere];
    for (registry, _) in stalled {
        if !registries.iter().any(|one| one.host() == registry.host()) {
            registries.push(registry);
        }
    }
    let site = Site::start(&registries, json!({"timeout": "30s"})).await;
    let mut waiting = tokio::task::JoinSet::new();
    for (_, path) in stalled {
        let (client, path) = (site.client, path.clone());
        waiting.spawn(async move { client.try_request("GET", &path, &[]).await });
    }
    for registry in &registries[1..] {
        registry.asked("GET", "/blobs/").await;
    }
    tokio::time::sleep(settle).await;
    let answer = site
        .get(&elsewhere.path("team/app:v1", "/"))
        .await
        .expect(200);
    assert!(
        answer.elapsed < Duration::from_secs(1),
        "{:?}",
        answer.elapsed
    );
    let again = site
        .get(&elsewhere.path("team/app:v1", "/"))
        .await
        .expect(200);
    assert!(
        again.elapsed < Duration::from_millis(200),
        "warm: {:?}",
        again.elapsed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_image_is_quick_beside_ten_stalled_registries() {
    let mut registries = Vec::new();
    for number in 0..10 {
        let registry = Registry::start().await;
        let layer = Layer::new().file("index.html", noise(100 + number, 50_000));
        let image = registry.push("team/app", "v1", &Image::of(layer));
        let stall = Fault::StallAfter {
            bytes: 1000,
            hold: None,
        };
        registry.fault(stall).on_blob(&image.layers[0]);
        registries.push(registry);
    }
    let stalled = registries
        .iter()
        .map(|one| (one, one.path("team/app:v1", "/")));
    let stalled: Vec<(&Registry, String)> = stalled.collect();
    cold_beside(&stalled, Duration::from_millis(2600)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_image_is_quick_beside_ten_stalled_repositories_of_one_registry() {
    let registry = Registry::start().await;
    let mut stalled = Vec::new();
    for number in 0..10 {
        let layer = Layer::new().file("index.html", noise(200 + number, 50_000));
        let repository = format!("team/app{number}");
        let image = registry.push(&repository, "v1", &Image::of(layer));
        let stall = Fault::StallAfter {
            bytes: 1000,
            hold: None,
        };
        registry.fault(stall).on_blob(&image.layers[0]);
        stalled.push((&registry, registry.path(&format!("{repository}:v1"), "/")));
    }
    cold_beside(&stalled, Duration::ZERO).await;
}
