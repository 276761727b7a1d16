//! Who gets at a layer that is here already, and who waits for whom.
mod support;
use std::time::Duration;
use support::*;

fn shared() -> Image {
    Image::of(
        Layer::new()
            .file("index.html", "shared")
            .file("more.bin", noise(1, 20_000)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repository_of_the_host_needs_no_download_but_its_own_proof() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &shared());
    registry.push("team/other", "v1", &shared());
    let site = Site::start(&[&registry], json!({})).await;
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    site.get(&registry.path("team/other:v1", "/"))
        .await
        .expect(200);
    assert_eq!(registry.count_blob_gets(&image.layers[0]), 1);
    let proof = format!("team/other/blobs/{}", image.layers[0]);
    assert_eq!(registry.count("HEAD", &proof), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_only_names_the_layer_does_not_get_it() {
    for code in [403, 404] {
        let registry = Registry::start().await;
        let image = registry.push("team/app", "v1", &shared());
        registry.push("team/thief", "v1", &shared());
        registry.remove_blob("team/thief", &image.layers[0]);
        let site = Site::start(&[&registry], json!({})).await;
        site.get(&registry.path("team/app:v1", "/"))
            .await
            .expect(200);
        if code == 403 {
            let refusal = Fault::Status {
                code,
                retry_after: None,
            };
            // The config has the same digest in both, so the layer alone is refused there.
            registry.fault(refusal).on_blob(&image.layers[0]);
        }
        let answer = site.get(&registry.path("team/thief:v1", "/")).await;
        assert!(answer.status >= 400, "{code}: {}", answer.text());
        site.get(&registry.path("team/app:v1", "/"))
            .await
            .expect(200);
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_has_to_deliver_the_same_bytes() {
    let (first, second) = (Registry::start().await, Registry::start().await);
    let image = first.push("team/app", "v1", &shared());
    second.push("team/app", "v1", &shared());
    let layer = &image.layers[0];
    let site = Site::start(&[&first, &second], json!({})).await;
    site.get(&first.path("team/app:v1", "/")).await.expect(200);

    second.fault(Fault::Bytes(noise(9, 500))).on_blob(layer);
    site.get(&second.path("team/app:v1", "/"))
        .await
        .expect_error(502);
    second.heal();
    second.remove_blob("team/app", layer);
    let answer = site.get(&second.path("team/app:v1", "/")).await;
    assert!(
        answer.status >= 400,
        "it does not have the layer: {}",
        answer.text()
    );
    second.push("team/app", "v2", &shared());
    site.get(&second.path("team/app:v2", "/")).await.expect(200);
    assert!(
        second.count_blob_gets(layer) >= 1,
        "it has delivered the bytes"
    );
    site.get(&first.path("team/app:v1", "/")).await.expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_delivers_the_same_bytes_is_held_to_its_own_promises() {
    let (first, second) = (Registry::start().await, Registry::start().await);
    first.push("team/app", "v1", &shared());
    let untrue = format!("sha256:{}", "0".repeat(64));
    second.push("team/app", "v1", &shared().diff_ids(&[&untrue]));
    let site = Site::start(&[&first, &second], json!({})).await;
    site.get(&first.path("team/app:v1", "/")).await.expect(200);
    for _ in 0..2 {
        site.get(&second.path("team/app:v1", "/"))
            .await
            .expect_error(502);
    }
    site.get(&first.path("team/app:v1", "/")).await.expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_repositorys_untrue_promises_are_no_fault_of_the_layer() {
    let registry = Registry::start().await;
    let layer = || Layer::new().file("index.html", "shared");
    registry.push("team/app", "v1", &Image::of(layer()));
    let strange = layer().media_type("application/x-strange");
    registry.push("team/other", "v1", &Image::of(strange));
    let site = Site::start(&[&registry], json!({})).await;
    site.get(&registry.path("team/other:v1", "/"))
        .await
        .expect_error(502);
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_that_ask_at_once_share_one_download_and_one_failure_without_names() {
    let registry = Registry::start().await;
    let layer = registry.push("team/r0", "v1", &shared()).layers.remove(0);
    let names: Vec<String> = (0..6).map(|n| format!("team/r{n}")).collect();
    for name in &names {
        registry.push(name, "v1", &shared());
    }
    let site = Site::start(&[&registry], json!({"timeout": "20s"})).await;
    for (hold, status) in [(0, 502), (300, 200)] {
        let hold = Some(Duration::from_millis(hold));
        registry.heal();
        let fault = match status {
            200 => Fault::StallBeforeHeaders(hold),
            _ => Fault::Status {
                code: 500,
                retry_after: None,
            },
        };
        registry.fault(fault).method("GET").on_blob(&layer);
        let requests = names.iter().map(|name| {
            let (client, path) = (site.client, registry.path(&format!("{name}:v1"), "/"));
            tokio::spawn(async move { client.request("GET", &path, &[]).await })
        });
        let requests: Vec<_> = requests.collect();
        let before = registry.count_blob_gets(&layer);
        for (name, request) in names.iter().zip(requests) {
            let answer = request.await.unwrap().expect(status);
            for other in names.iter().filter(|other| *other != name) {
                assert!(!answer.text().contains(other), "{name}: {}", answer.text());
            }
        }
        if status == 200 {
            assert_eq!(registry.count_blob_gets(&layer), before + 1);
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_merely_slow_fails_nobody_who_queues() {
    let registry = Registry::start().await;
    let hold = Some(Duration::from_millis(400));
    let names: Vec<String> = (0..6).map(|n| format!("team/r{n}")).collect();
    for name in &names {
        let image = registry.push(name, "v1", &Image::page(name));
        let slow = Fault::StallBeforeHeaders(hold);
        registry.fault(slow).on_blob(&image.layers[0]);
    }
    // So little memory that one download may be silent at a time.
    let settings = json!({"workers": 2, "workersPerRegistry": 2, "memoryLimit": "8MiB"});
    let site = Site::start(&[&registry], settings).await;
    let requests = names.iter().map(|name| {
        let (client, path) = (site.client, registry.path(&format!("{name}:v1"), "/"));
        tokio::spawn(async move { client.request("GET", &path, &[]).await })
    });
    let requests: Vec<_> = requests.collect();
    for (name, request) in names.iter().zip(requests) {
        assert_eq!(&request.await.unwrap().expect(200).text(), name);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hosts_stall_does_not_reach_another_hosts_waiters() {
    let (slow, quick) = (Registry::start().await, Registry::start().await);
    let image = slow.push("team/app", "v1", &shared());
    quick.push("team/app", "v1", &shared());
    let stall = Fault::StallAfter {
        bytes: 100,
        hold: None,
    };
    slow.fault(stall).on_blob(&image.layers[0]);
    let site = Site::start(&[&slow, &quick], json!({"timeout": "20s"})).await;
    let (client, path) = (site.client, slow.path("team/app:v1", "/"));
    let waiter = tokio::spawn(async move { client.try_request("GET", &path, &[]).await });
    slow.asked("GET", &image.layers[0]).await;
    let answer = site.get(&quick.path("team/app:v1", "/")).await.expect(200);
    assert!(
        answer.elapsed < Duration::from_secs(1),
        "{:?}",
        answer.elapsed
    );
    waiter.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_costs_no_download() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &shared());
    let directory = tempfile::tempdir().unwrap();
    let rule = |to: &str| json!({"replacements": [{"path": "index.html", "search": "shared", "replacement": to}]});
    for to in ["one", "two", "three"] {
        let settings = json!({
            "repos": {registry.name("team/app"): rule(to)},
            "blobSpace": {"location": directory.path()},
        });
        let site = Site::start(&[&registry], settings).await;
        assert_eq!(
            site.get(&registry.path("team/app:v1", "/"))
                .await
                .expect(200)
                .text(),
            to
        );
        site.stop().await;
    }
    assert_eq!(registry.count_blob_gets(&image.layers[0]), 1);
}
