//! Images that the configuration retains: never evicted, over restarts, for as long as it says so.
#![allow(clippy::unwrap_used)]

mod support;
use serde_json::Value;
use std::time::Duration;
use support::commands::Commands;
use support::*;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn retained_tags_stay_over_restarts_until_the_configuration_says_otherwise() {
    let registry = Registry::start().await;
    let directory = tempfile::tempdir().unwrap();
    let push = |tag: &str, seed: u64| {
        let image = Image::of(Layer::new().file("a.bin", noise(seed, 6 * MIB)));
        registry.push("team/app", tag, &image);
    };
    for (tag, seed) in [
        ("rel-1", 1),
        ("rel-2", 2),
        ("rel-3", 3),
        ("a", 4),
        ("b", 5),
        ("c", 6),
    ] {
        push(tag, seed);
    }
    let settings = |retain: Value| {
        json!({
            "blobSpace": {"location": directory.path(), "maxSizeBytes": 20 * MIB},
            "timeout": "60s", "tagTtl": "1ms",
            "repos": {registry.name("team/app"): {"retain": retain}},
        })
    };
    let path = |tag: &str| registry.path(&format!("team/app:{tag}"), "/a.bin");
    let tag = |tag: &str| format!("{}/team/app:{tag}", registry.host());
    let site = Site::start(&[&registry], settings(json!(["rel-*"]))).await;
    let commands = Commands::on(&directory.path().join("blobserve-v1"));
    let shown = |name: &str| commands.json(&["image", "show", &tag(name)]);
    for name in ["rel-1", "a", "b", "c"] {
        site.request("GET", &path(name), &[]).await.expect(200);
    }
    assert_eq!(shown("a")["layers"][0]["state"], "evicted");
    let retained = shown("rel-1");
    assert_eq!(retained["layers"][0]["state"], "sealed");
    assert_eq!(retained["pinned"], true);
    assert_eq!(retained["retained_references"], json!([tag("rel-1")]));
    let listed = commands.done(&["images"]);
    let line = listed.lines().find(|line| line.contains("rel-1")).unwrap();
    assert!(line.contains(" retain "), "{listed}");
    for command in ["rm", "unpin"] {
        let text = commands.refused(&["image", command, &tag("rel-1")]);
        assert!(text.contains("is kept by `retain`"), "{text}");
    }

    // It moves, and the pin with it.
    push("rel-1", 7);
    tokio::time::sleep(Duration::from_millis(20)).await;
    site.request("GET", &path("rel-1"), &[]).await.expect(200);
    let moved = shown("rel-1");
    assert_eq!(moved["retained_references"], json!([tag("rel-1")]));
    assert_ne!(moved["id"], retained["id"]);
    let old = commands.json(&["image", "show", retained["id"].as_str().unwrap()]);
    assert_eq!(old["pinned"], false);

    // They fill the bound: others are told so at once, and they go on being served.
    let site = site.restart().await;
    for name in ["rel-2", "rel-3"] {
        site.request("GET", &path(name), &[]).await.expect(200);
    }
    let refused = site.request("GET", &path("a"), &[]).await;
    assert_eq!(refused.status, 507, "{refused:?}");
    let text = refused.text();
    assert!(text.contains("pinned images hold"), "{text}");
    for name in ["rel-1", "rel-2", "rel-3"] {
        site.request("GET", &path(name), &[]).await.expect(200);
        assert_eq!(shown(name)["layers"][0]["state"], "sealed");
    }
    site.stop().await;
    assert_eq!(shown("rel-2")["pinned"], true, "from disk");

    let site = Site::start(&[&registry], settings(json!(["rel-3"]))).await;
    let pinned = ["rel-1", "rel-2", "rel-3"].map(|name| shown(name)["pinned"] == true);
    assert_eq!(pinned, [false, false, true]);
    site.request("GET", &path("a"), &[]).await.expect(200);
    site.stop().await;
}
