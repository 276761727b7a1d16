//! The catalogue of images, seen through the commands, with the server running and without.
#![allow(clippy::unwrap_used)]

mod support;
use serde_json::Value;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use support::commands::{Commands, id_of};
use support::*;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_and_shown_alike_with_the_server_and_without() {
    let registry = Registry::start().await;
    let image =
        Image::of(Layer::new().file("index.html", "one")).layer(Layer::new().file("b", "two"));
    let built = image.build();
    registry.push("team/app", "v1", &image);
    let site = Site::start(&[&registry], json!({})).await;
    let commands = Commands::on(&site.blobspace());
    assert_eq!(commands.json(&["images"]), json!([]));
    let tag = format!("{}/team/app:v1", registry.host());
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);

    let socket = std::fs::metadata(site.blobspace().join("control")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let running = commands.json(&["images"]);
    let digest = format!("{}/team/app@{}", registry.host(), built.digest);
    assert_eq!(running[0]["id"], id_of(&built));
    assert_eq!(running[0]["references"], json!([tag, digest]));
    assert_eq!(running[0]["pinned"], json!(false));
    assert_eq!(running[0]["platform"], json!("linux/amd64"));
    let manifest: Value = serde_json::from_slice(&built.manifest).unwrap();
    let size = |descriptor: &Value| descriptor["size"].as_u64().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let sum = size(&manifest["config"]) + layers.iter().map(size).sum::<u64>();
    let sum = sum + built.manifest.len() as u64;
    assert_eq!(running[0]["size"], json!(sum));
    let shown = commands.json(&["image", "show", &id_of(&built)["sha256:".len()..][..10]]);
    let states: Vec<_> = shown["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| &layer["state"])
        .collect();
    assert_eq!(states, ["sealed", "unknown"], "`layers: first` fetches one");
    assert_eq!(
        shown["layers"][0]["chain_id"],
        shown["layers"][0]["diff_id"]
    );
    assert_eq!(shown["layers"][1]["chain_id"], shown["chain_id"]);
    assert_eq!(
        shown["configuration"]["rootfs"]["diff_ids"][1],
        shown["layers"][1]["diff_id"]
    );
    let listed = commands.done(&["images"]);
    assert!(
        listed.contains("REFERENCE") && listed.contains(&tag),
        "{listed}"
    );

    let mut site = site;
    site.take().stop().await;
    assert!(
        !site.blobspace().join("control").exists(),
        "removed at the end"
    );
    assert_eq!(commands.json(&["images"]), running, "straight from disk");
    let shown_text = commands.done(&["image", "show", &tag]);
    assert!(
        shown_text.contains("sealed") && shown_text.contains("diff_ids"),
        "{shown_text}"
    );
    assert!(
        commands
            .refused(&["image", "show", "feed"])
            .contains("no image is known by `feed`")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_or_vanishes_updates_its_image_and_the_digests_stay() {
    let registry = Registry::start().await;
    let (one, two) = (Image::page("one"), Image::page("two"));
    registry.push("team/app", "v1", &one);
    let site = Site::start(&[&registry], json!({"tagTtl": "1ms"})).await;
    let commands = Commands::on(&site.blobspace());
    let path = registry.path("team/app:v1", "/");
    let name = format!("{}/team/app", registry.host());
    let (first, second) = (one.build().digest, two.build().digest);
    site.client.request("GET", &path, &[]).await.expect(200);
    registry.push("team/app", "v1", &two);
    let mut moved = false;
    for _ in 0..200 {
        let text = site
            .client
            .request("GET", &path, &[])
            .await
            .expect(200)
            .text();
        moved = text == "two";
        if moved {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(moved);
    let by_id = |image: &Image| {
        commands.json(&["image", "show", &id_of(&image.build())])["references"].clone()
    };
    assert_eq!(by_id(&one), json!([format!("{name}@{first}")]));
    assert_eq!(
        by_id(&two),
        json!([format!("{name}:v1"), format!("{name}@{second}")])
    );
    let text = commands.refused(&["image", "show", "sha256:"]);
    assert!(text.contains("no image is known"), "{text}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_removed_is_gone_from_disk_and_fetched_again() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("one"));
    let site = Site::start(&[&registry], json!({})).await;
    let commands = Commands::on(&site.blobspace());
    let path = registry.path("team/app:v1", "/");
    let tag = format!("{}/team/app:v1", registry.host());
    let before = site.disk();
    site.get(&path).await.expect(200);
    commands.done(&["image", "pin", &tag]);
    assert!(
        commands
            .refused(&["image", "rm", &tag])
            .contains("image unpin")
    );
    commands.done(&["image", "unpin", &tag]);
    assert_eq!(
        commands.done(&["image", "rm", &tag]),
        format!("removed {tag}\n")
    );
    assert_eq!(
        commands.json(&["images"]),
        json!([]),
        "its digest went with its last tag"
    );
    site.disk_is(before).await;
    let layer = Image::page("one").build().layers[0].clone();
    assert_eq!(registry.count_blob_gets(&layer), 1);
    assert_eq!(site.get(&path).await.expect(200).text(), "one");
    assert_eq!(registry.count_blob_gets(&layer), 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_stays_over_restarts_and_newcomers_get_507() {
    let registry = Registry::start().await;
    for number in 0..4u64 {
        let layer = Layer::new().file("index.html", number.to_string());
        let image = Image::of(layer.file("big.bin", ballast(number, 12 * MIB)));
        registry.push("team/app", &format!("v{number}"), &image);
    }
    let settings = json!({"blobSpace": {"maxSizeBytes": 20 * MIB}, "timeout": "60s"});
    let site = Site::start(&[&registry], settings).await;
    let commands = Commands::on(&site.blobspace());
    let path = |number: u64| registry.path(&format!("team/app:v{number}"), "/");
    let tag = format!("{}/team/app:v0", registry.host());
    site.get(&path(0)).await.expect(200);
    commands.done(&["image", "pin", &tag]);
    let site = site.restart().await;
    let refused = site.request("GET", &path(1), &[]).await;
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(
        refused.text().contains("pinned images hold"),
        "{}",
        refused.text()
    );
    site.get(&path(0)).await.expect(200);
    assert!(commands.done(&["images"]).contains("yes"));
    commands.done(&["image", "unpin", &tag]);
    site.get(&path(1)).await.expect(200);
    let layers = commands.json(&["image", "show", &tag])["layers"].clone();
    assert_eq!(layers[0]["state"], "evicted");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_a_killed_server_left_is_replaced() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("one"));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("server.json");
    let text = service::configuration(directory.path(), &[&registry], &json!({})).to_string();
    std::fs::write(&config, text).unwrap();
    let own = directory.path().join("blobs/blobserve-v1");
    let commands = Commands::on(&own);
    let server = process::Process::serve(&config);
    let path = registry.path("team/app:v1", "/");
    server.client.request("GET", &path, &[]).await.expect(200);
    server.kill();
    assert!(own.join("control").exists(), "left behind");
    let from_disk = commands.json(&["images"]);
    assert_eq!(from_disk[0]["layers"][0]["state"], "sealed");
    let server = process::Process::serve(&config);
    let tag = format!("{}/team/app:v1", registry.host());
    // Only the server that has the lock can answer.
    assert_eq!(
        commands.done(&["image", "pin", &tag]),
        format!("pinned {tag}\n")
    );
    server.kill();
    assert_eq!(
        commands.json(&["images"])[0]["pinned_references"],
        json!([tag])
    );
}

#[test]
fn a_blobspace_that_was_never_there_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("blobs/blobserve-v1");
    let commands = Commands::on(&own);
    assert!(commands.refused(&["images"]).contains("nothing was served"));
    assert!(!own.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_told_apart_and_say_what_they_are() {
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    let registry = Registry::start().await;
    let file = |bytes: &[u8]| {
        let layer = Layer::new().encoding(Encoding::Raw(bytes.to_vec()));
        layer
            .media_type("text/plain")
            .annotation("org.opencontainers.image.title", "f")
    };
    let artifact = |bytes: &[u8]| Image::of(file(bytes)).config(EMPTY, b"{}");
    let one = artifact(b"one").member("artifactType", json!("application/x.report"));
    let one = one.annotation("note", "two\nlines").annotation("a", "b");
    let chart = artifact(b"two").config("application/vnd.cncf.helm.config.v1+json", b"{}");
    let bare = artifact(b"three");
    let site = Site::start(&[&registry], json!({})).await;
    let commands = Commands::on(&site.blobspace());
    for (tag, image, kind) in [
        ("one", &one, json!("application/x.report")),
        (
            "chart",
            &chart,
            json!("application/vnd.cncf.helm.config.v1+json"),
        ),
        ("bare", &bare, json!(null)),
    ] {
        let pushed = registry.push("team/app", tag, image);
        let path = registry.path(&format!("team/app:{tag}"), "/f");
        site.get(&path).await.expect(200);
        let reference = format!("{}:{tag}", registry.name("team/app"));
        let shown = commands.json(&["image", "show", &reference]);
        // The empty configuration is that of all of them.
        assert_eq!(shown["id"], json!(pushed.digest), "{tag}");
        assert_eq!(shown["artifact_type"], kind, "{tag}");
        assert_eq!(shown.get("configuration"), None, "{tag}");
    }
    assert_eq!(commands.json(&["images"]).as_array().unwrap().len(), 3);
    let reference = format!("{}:one", registry.name("team/app"));
    let shown = commands.json(&["image", "show", &reference]);
    assert_eq!(
        shown["annotations"],
        json!({"a": "b", "note": "two\nlines"})
    );
    let text = commands.done(&["image", "show", &reference]);
    assert!(
        text.contains("\nannotation a=b\nannotation note=two\\nlines\n"),
        "{text}"
    );
    assert!(
        text.contains("\nartifact   application/x.report\n"),
        "{text}"
    );
    commands.done(&["image", "pin", &reference]);
    site.stop().await;
}

/// The platform is found in the second of two indexes within the index that the tag means.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_keeps_the_indexes_that_lead_to_the_image() {
    use blobserve::blobspace::{Blobspace, RecordKind, Tuning};
    use blobserve::pack::Pack;
    let registry = Registry::start().await;
    let image = Image::page("pinned");
    let other = Index::new().image("linux/s390x", &Image::page("other"));
    let ours = Index::new().image("linux/amd64", &image);
    let outer = Index::new().index(&other).index(&ours);
    let digest = registry.push_index("team/app", "v1", &outer);
    let location = tempfile::tempdir().unwrap();
    let settings = json!({"blobSpace": {"location": location.path()}});
    let site = Site::start(&[&registry], settings.clone()).await;
    let commands = Commands::on(&location.path().join("blobserve-v1"));
    let tag = format!("{}/team/app:v1", registry.host());
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    commands.done(&["image", "pin", &tag]);
    site.stop().await;

    // Whatever may be evicted is.
    let tuning = Tuning {
        records: 64,
        record_protection: std::time::Duration::ZERO,
        ..Tuning::default()
    };
    let blobspace = Blobspace::<Pack>::open_tuned(location.path(), 0, tuning).unwrap();
    for kind in [RecordKind::Document, RecordKind::Claim, RecordKind::Tag] {
        for number in 0..200 {
            let name = format!("filler-{number}");
            blobspace.put_record(kind, &name, b"{}").unwrap();
        }
    }
    drop(blobspace);
    let site = Site::start(&[&registry], settings).await;
    let asked = registry.requests();
    let exact = registry.path(&format!("team/app@{digest}"), "/");
    assert_eq!(site.get(&exact).await.expect(200).text(), "pinned");
    assert_eq!(registry.requests(), asked, "all of it is here");
    site.stop().await;
}
