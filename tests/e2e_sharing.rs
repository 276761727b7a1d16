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
