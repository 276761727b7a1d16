//! What the catalogue says while images come, move, vanish and go, and what does not fit.
#![allow(clippy::unwrap_used)]

mod support;
use serde_json::Value;
use std::time::Duration;
use support::commands::{Commands, id_of};
use support::*;

const MIB: usize = 1 << 20;

/// Asks until the catalogue shows it.
async fn shown(commands: &Commands, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..200 {
        let (code, text) = commands.text(&["image", "show", what, "--json"]);
        if code == Some(0) {
            last = serde_json::from_str(&text).unwrap();
            if is_so(&last) {
                return last;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} never got so: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_on_its_way_is_shown_as_fetching() {
    let registry = Registry::start().await;
    let image = Image::of(Layer::new().file("a.bin", noise(1, MIB)));
    let built = registry.push("team/app", "v1", &image);
    let hold = Some(Duration::from_secs(60));
    let stall = Fault::StallAfter { bytes: 1000, hold };
    registry.fault(stall).once().on_blob(&built.layers[0]);
    let site = Site::start(&[&registry], json!({"timeout": "60s"})).await;
    let commands = Commands::on(&site.blobspace());
    let (client, path) = (site.client, registry.path("team/app:v1", "/a.bin"));
    let asking = tokio::spawn(async move { client.request("GET", &path, &[]).await });
    let id = id_of(&built);
    let state = |image: &Value| image["layers"][0]["state"] == "fetching";
    let image = shown(&commands, &id, state).await;
    let digest = format!("{}/team/app@{}", registry.host(), built.digest);
    assert_eq!(
        image["references"],
        json!([digest]),
        "not yet what v1 means"
    );
    assert_eq!(image["unpacked"], 0);
    asking.abort();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_several_images_begin_with_lists_them() {
    let registry = Registry::start().await;
    let site = Site::start(&[&registry], json!({})).await;
    let commands = Commands::on(&site.blobspace());
    let mut by_digit = std::collections::BTreeMap::<String, Vec<String>>::new();
    // Of seventeen IDs two begin with the same of sixteen digits.
    for number in 0..17 {
        let image = Image::page(&format!("page {number}"));
        let built = registry.push("team/app", &format!("v{number}"), &image);
        let path = registry.path(&format!("team/app:v{number}"), "/");
        site.request("GET", &path, &[]).await.expect(200);
        let id = id_of(&built);
        let digit = id["sha256:".len()..][..1].to_owned();
        by_digit.entry(digit).or_default().push(id);
    }
    let (digit, ids) = by_digit.iter().find(|(_, ids)| ids.len() > 1).unwrap();
    for command in ["show", "rm", "pin"] {
        let text = commands.refused(&["image", command, digit]);
        assert!(text.contains("is ambiguous"), "{text}");
        assert!(ids.iter().all(|id| text.contains(id)), "{text}, of {ids:?}");
    }
    assert_eq!(commands.json(&["images"]).as_array().unwrap().len(), 17);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_follows_its_tag_and_a_tag_that_vanishes_leaves_the_digest() {
    let registry = Registry::start().await;
    let (one, two) = (Image::page("one"), Image::page("two"));
    registry.push("team/app", "v1", &one);
    let site = Site::start(&[&registry], json!({"tagTtl": "1ms"})).await;
    let commands = Commands::on(&site.blobspace());
    let path = registry.path("team/app:v1", "/");
    let tag = format!("{}/team/app:v1", registry.host());
    let (first, second) = (id_of(&one.build()), id_of(&two.build()));
    site.client.request("GET", &path, &[]).await.expect(200);
    commands.done(&["image", "pin", &tag]);
    registry.push("team/app", "v1", &two);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let moved = site.client.request("GET", &path, &[]).await;
    assert_eq!(moved.expect(200).text(), "two");
    let is_pinned = |image: &Value| image["pinned"] == true;
    let image = shown(&commands, &second, is_pinned).await;
    assert_eq!(image["pinned_references"], json!([tag]));
    let old = commands.json(&["image", "show", &first]);
    assert_eq!(old["pinned"], false);

    registry.untag("team/app", "v1");
    tokio::time::sleep(Duration::from_millis(20)).await;
    site.client.request("GET", &path, &[]).await.expect(404);
    let digest = format!("{}/team/app@{}", registry.host(), two.build().digest);
    let image = shown(&commands, &second, |image| {
        image["references"] == json!([digest])
    });
    assert_eq!(image.await["pinned"], false, "the pin was the tag's");
    let text = commands.refused(&["image", "show", &tag]);
    assert!(text.contains("no image is known by"), "{text}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_is_each_image_s_own_and_outlives_a_restart() {
    let registry = Registry::start().await;
    let shared = Layer::new().file("shared.txt", "shared");
    let image = |text: &str| Image::of(shared.clone()).layer(Layer::new().file("own.txt", text));
    let built = ["one", "two"].map(|text| registry.push("team/app", text, &image(text)));
    let settings = json!({"repos": {registry.name("team/app"): {"layers": "all"}}});
    let site = Site::start(&[&registry], settings).await;
    let commands = Commands::on(&site.blobspace());
    let path = |tag: &str| registry.path(&format!("team/app:{tag}"), "/shared.txt");
    let last_use = |number: usize| {
        let image = commands.json(&["image", "show", &id_of(&built[number])]);
        image["last_used"].as_u64().unwrap()
    };
    site.get(&path("one")).await.expect(200);
    site.get(&path("two")).await.expect(200);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let before = last_use(0);
    site.get(&path("two")).await.expect(200);
    assert_eq!(last_use(0), before, "neither listing nor the other's use");
    assert!(last_use(1) > before, "{} and {before}", last_use(1));
    let after = last_use(1);
    let mut site = site.restart().await;
    assert_eq!((last_use(0), last_use(1)), (before, after));
    site.take().stop().await;
    assert_eq!((last_use(0), last_use(1)), (before, after), "from disk");
}

/// Of two images that have the same layers but one, one is downloaded for longer than the clock of the catalogue
/// needs to tick twice; by our own loop from the recipe and from memory, and by hyper; and its tag moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_download_is_a_use_of_its_own_image_until_its_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let registry = Registry::start().await;
    let shared = Layer::new().file("shared.bin", noise(5, 24 * MIB));
    let image = |text: &str| Image::of(shared.clone()).layer(Layer::new().file("own.txt", text));
    let built = ["one", "two"].map(|text| registry.push("team/app", text, &image(text)));
    let settings = json!({
        "repos": {registry.name("team/app"): {"layers": "all", "listing": true}},
        "tagTtl": "1ms", "timeout": "60s",
    });
    let site = Site::start(&[&registry], settings).await;
    let commands = Commands::on(&site.blobspace());
    let last_use = |number: usize| {
        let image = commands.json(&["image", "show", &id_of(&built[number])]);
        image["last_used"].as_u64().unwrap()
    };
    let path = |tag: &str, rest: &str| registry.path(&format!("team/app:{tag}"), rest);
    site.get(&path("two", "/own.txt")).await.expect(200);
    let tag = |rest: &str| path("one", rest);
    let exact = format!("team/app@{}", built[0].digest);
    let exact = registry.path(&exact, "/shared.bin");
    // Remembered from now on.
    site.get(&exact).await.expect(200);
    for (target, moved) in [
        (tag("/shared.bin"), false),
        (exact, false),
        (tag("/?download=tgz"), false),
        (tag("/shared.bin"), true),
    ] {
        let path = &target;
        let mut socket = tokio::net::TcpStream::connect(site.client.0).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200", "{target}");
        if moved {
            registry.push("team/app", "one", &Image::page("another"));
            let text = site.client.request("GET", &tag("/"), &[]).await;
            assert_eq!(text.expect(200).text(), "another");
        }
        let before = [0, 1].map(last_use);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert_eq!([0, 1].map(last_use), before, "nobody has begun or ended");
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() > 20 * MIB, "{target}: {}", rest.len());
        let mut after = before;
        for _ in 0..100 {
            after = [0, 1].map(last_use);
            if after != before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(after[0] >= before[0] + 2, "{target}: {before:?} {after:?}");
        assert_eq!(after[1], before[1], "{target}: it is not of the other one");
    }
    let before = [0, 1].map(last_use);
    let mut site = site.restart().await;
    assert_eq!([0, 1].map(last_use), before);
    site.take().stop().await;
    assert_eq!([0, 1].map(last_use), before, "from disk");
}

/// Three images of 12 MiB that do not compress, and a bound of 20 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_fit_beside_a_pin_is_refused_before_it_is_fetched() {
    let registry = Registry::start().await;
    let image = |seed: u64| Image::of(Layer::new().file("a.bin", noise(seed, 12 * MIB)));
    let built = [1, 2].map(|seed| registry.push("team/app", &format!("v{seed}"), &image(seed)));
    let settings = json!({"blobSpace": {"maxSizeBytes": 20 * MIB}, "timeout": "60s"});
    let site = Site::start(&[&registry], settings).await;
    let commands = Commands::on(&site.blobspace());
    let path = |number: u64| registry.path(&format!("team/app:v{number}"), "/a.bin");
    site.get(&path(1)).await.expect(200);
    commands.done(&["image", "pin", &id_of(&built[0])]);
    let refused = site.request("GET", &path(2), &[]).await;
    assert_eq!(refused.status, 507, "{refused:?}");
    let text = refused.text();
    assert!(text.contains("pinned images hold"), "{text}");
    assert_eq!(registry.count_blob_gets(&built[1].layers[0]), 0);
    commands.done(&["image", "unpin", &id_of(&built[0])]);
    site.get(&path(2)).await.expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_together_cannot_fit_are_refused_before_others_are_evicted() {
    let registry = Registry::start().await;
    let layer = |seed: u64| Layer::new().file(&format!("{seed}.bin"), noise(seed, 8 * MIB));
    let large = Image::of(layer(1)).layer(layer(2)).layer(layer(3));
    let large = registry.push("team/app", "large", &large);
    // As it is compressed it seems to fit, and shows with its first layers that it does not.
    let ballast = |seed: u64| Layer::new().file(&format!("{seed}.bin"), ballast(seed, 9 * MIB));
    let swelling = Image::of(ballast(4)).layer(ballast(5)).layer(layer(6));
    let swelling = registry.push("team/app", "swelling", &swelling);
    let small = Image::of(Layer::new().file("small.bin", noise(9, MIB)));
    let small = registry.push("team/app", "small", &small);
    let settings = json!({
        "blobSpace": {"maxSizeBytes": 20 * MIB}, "timeout": "60s",
        "repos": {registry.name("team/app"): {"layers": "all"}},
    });
    let site = Site::start(&[&registry], settings).await;
    let commands = Commands::on(&site.blobspace());
    let path = |image: &str| registry.path(&format!("team/app:{image}"), "");
    site.get(&path("small/small.bin")).await.expect(200);
    let refused = site.request("GET", &path("large/1.bin"), &[]).await;
    assert_eq!(refused.status, 507, "{refused:?}");
    let text = refused.text();
    assert!(
        text.contains("3 layers of") && text.contains("together"),
        "{text}"
    );
    for layer in &large.layers {
        assert_eq!(registry.count_blob_gets(layer), 0);
    }
    let is_here = commands.json(&["image", "show", &id_of(&small)]);
    assert_eq!(is_here["layers"][0]["state"], "sealed");

    let started = std::time::Instant::now();
    // Of the lowest layer: a file of the uppermost would be answered while the others arrive.
    let refused = site.request("GET", &path("swelling/4.bin"), &[]).await;
    assert_eq!(refused.status, 507, "{refused:?}");
    let waited = started.elapsed();
    assert!(
        waited < Duration::from_secs(25),
        "it waited {waited:?} for itself"
    );
    assert!(commands.text(&["image", "show", &id_of(&swelling)]).0 == Some(0));
    site.get(&path("small/small.bin")).await.expect(200);
    site.stop().await;
}
