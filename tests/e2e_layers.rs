//! Images of several layers: merged views, what they share, what is fetched, what failure does.
mod support;
use std::time::Duration;
use support::*;

fn base() -> Layer {
    Layer::new()
        .file("index.html", "base")
        .file("site/a.txt", "lower a")
        .file("site/b.txt", "lower b")
        .file("site/old/c.txt", "lower c")
        .symlink("www", "site")
        .file("data.bin", noise(3, 200_000))
}

fn upper() -> Layer {
    Layer::new()
        .file("index.html", "upper")
        .whiteout("site/b.txt")
        .opaque("site/old")
        .file("www/new.txt", "through a link")
        .hardlink("copy.bin", "data.bin")
}

async fn with(registry: &Registry, repository: &str, repo: serde_json::Value) -> Site {
    let name = registry.name(repository);
    Site::start(&[registry], json!({"repos": {name: repo}})).await
}

/// Statuses and texts of paths of one image.
async fn check(site: &Site, image: &str, table: &[(&str, Option<&str>)]) {
    for (path, expected) in table {
        let answer = site.get(&format!("{image}/{path}")).await;
        match expected {
            Some(text) => assert_eq!(answer.expect(200).text(), *text, "{path}"),
            None => drop(answer.expect_error(404)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_layers_are_served_as_a_runtime_sees_them() {
    let registry = Registry::start().await;
    let image = Image::of(base()).layer(Layer::new()).layer(upper());
    registry.push("team/app", "v1", &image);
    let site = with(
        &registry,
        "team/app",
        json!({"layers": "all", "listing": true}),
    )
    .await;
    let root = registry.path("team/app:v1", "");
    let table = [
        ("index.html", Some("upper")),
        ("site/a.txt", Some("lower a")),
        ("site/b.txt", None),
        ("site/old/c.txt", None),
        ("site/new.txt", Some("through a link")),
        ("www/new.txt", Some("through a link")),
        ("www/.wh.b.txt", None),
    ];
    check(&site, &root, &table).await;
    for path in ["data.bin", "copy.bin"] {
        let answer = site.get(&format!("{root}/{path}")).await.expect(200);
        assert!(answer.body == noise(3, 200_000), "{path}");
    }
    let part = [("Range", "bytes=1000-1999")];
    let answer = site.get_with(&format!("{root}/copy.bin"), &part).await;
    assert!(answer.expect(206).body == noise(3, 200_000)[1000..2000]);
    let listing = site.get(&format!("{root}/www/")).await.expect(200).text();
    assert!(
        listing.contains("new.txt") && listing.contains("a.txt"),
        "{listing}"
    );
    assert!(!listing.contains("b.txt"), "{listing}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_layer_alone_is_served_unless_configured() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(base()).layer(upper()));
    let site = Site::start(&[&registry], json!({})).await;
    let table = [
        ("index.html", Some("base")),
        ("site/b.txt", Some("lower b")),
    ];
    check(&site, &registry.path("team/app:v1", ""), &table).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_merges_what_it_names() {
    let registry = Registry::start().await;
    let image = Image::of(base())
        .layer(Layer::new().file("extra.txt", "extra"))
        .layer(Layer::new().file("site/b.txt", "top b"));
    let pushed = registry.push("team/app", "v1", &image);
    for (selection, extra, index, b) in [
        ("index=1", true, false, None),
        ("index=0,-1", false, true, Some("top b")),
        ("mediaType=*tar+gzip", true, true, Some("top b")),
    ] {
        let site = with(&registry, "team/app", json!({"layers": selection})).await;
        let table = [
            ("extra.txt", extra.then_some("extra")),
            ("index.html", index.then_some("base")),
            ("site/b.txt", b),
        ];
        check(&site, &registry.path("team/app:v1", ""), &table).await;
        site.stop().await;
    }
    // What is not selected is not fetched.
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), 2);
    let site = with(&registry, "team/app", json!({"layers": "annotation=none"})).await;
    let answer = site.get(&registry.path("team/app:v1", "/index.html")).await;
    let text = answer.expect_error(404).text();
    assert!(
        text.contains("annotation=none") && text.contains("3 layers"),
        "{text}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_images_share_is_fetched_and_stored_once_and_a_chain_is_merged_once() {
    let registry = Registry::start().await;
    let first = registry.push("team/app", "v1", &Image::of(base()).layer(upper()));
    let other = Layer::new().file("index.html", "other");
    registry.push("team/app", "v2", &Image::of(base()).layer(other));
    // Another image of the same chain.
    let again = Image::of(base()).layer(upper()).label("a", "b");
    registry.push("team/app", "v3", &again);
    let site = with(&registry, "team/app", json!({"layers": "all"})).await;
    for (tag, text) in [("v1", "upper"), ("v2", "other"), ("v3", "upper")] {
        let path = registry.path(&format!("team/app:{tag}"), "/index.html");
        assert_eq!(site.get(&path).await.expect(200).text(), text);
    }
    assert_eq!(registry.count_blob_gets(&first.layers[0]), 1);
    assert_eq!(registry.count_blob_gets(&first.layers[1]), 1);
    let packs = std::fs::read_dir(site.blobspace().join("packs")).expect("packs");
    let mut names: Vec<String> = packs
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let chains = names
        .iter()
        .filter(|name| name.starts_with("chain-"))
        .count();
    assert_eq!((names.len(), chains), (5, 2), "{names:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacements_reach_into_every_layer_of_a_merged_view() {
    let registry = Registry::start().await;
    let lower = base().hardlink("hard.html", "index.html");
    let top = Layer::new()
        .hardlink("harder.html", "hard.html")
        .file("top.html", "base on top");
    registry.push("team/app", "v1", &Image::of(lower).layer(top));
    let rule = |path: &str| json!({"path": path, "search": "base", "replacement": "BASE"});
    let repo = json!({"layers": "all", "replacements": [rule("index.html"), rule("top.html")]});
    let site = with(&registry, "team/app", repo).await;
    let table = [
        ("index.html", Some("BASE")),
        ("hard.html", Some("BASE")),
        ("harder.html", Some("BASE")),
        ("top.html", Some("BASE on top")),
        ("site/a.txt", Some("lower a")),
    ];
    check(&site, &registry.path("team/app:v1", ""), &table).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_needs_lower_ones_is_not_served_alone() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(upper()));
    registry.push(
        "team/app",
        "v2",
        &Image::of(Layer::new().file("x", "1")).layer(upper()),
    );
    let site = with(&registry, "team/app", json!({"layers": "all"})).await;
    let answer = site.get(&registry.path("team/app:v1", "/index.html")).await;
    let text = answer.expect_error(502).text();
    assert!(
        text.contains("hard link `copy.bin` to `data.bin`"),
        "{text}"
    );
    let answer = site.get(&registry.path("team/app:v2", "/index.html")).await;
    let text = answer.expect_error(502).text();
    assert!(text.contains("cannot be merged"), "{text}");
    assert!(
        text.contains("hard link `copy.bin` to `data.bin`"),
        "{text}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_layer_is_verified_against_its_diff_id() {
    let registry = Registry::start().await;
    let wrong = image::sha256(b"something else");
    let image = Image::of(base()).layer(upper());
    let lie = image.clone().diff_ids(&[&base().diff_id(), &wrong]);
    registry.push("team/app", "v1", &lie);
    let few = image.clone().diff_ids(&[&base().diff_id()]);
    registry.push("team/app", "v2", &few);
    let site = with(&registry, "team/app", json!({"layers": "all"})).await;
    for (tag, why) in [("v1", "diff ID"), ("v2", "1 diff IDs for 2 layers")] {
        let path = registry.path(&format!("team/app:{tag}"), "/index.html");
        let text = site.get(&path).await.expect_error(502).text();
        assert!(text.contains(why), "{text}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_in_another_compression_is_not_fetched_where_the_repository_has_the_first() {
    let registry = Registry::start().await;
    let first = registry.push("team/app", "v1", &Image::of(base()));
    let zstd = Image::of(base().encoding(Encoding::Zstd(2)));
    let second = registry.push("team/app", "v2", &zstd);
    // It has the other compression only, and whoever names a diff ID has no right to its tar.
    let third = registry.push("team/other", "v1", &zstd);
    let stolen = Image::of(Layer::new().file("x", "x")).diff_ids(&[&base().diff_id()]);
    registry.push("team/thief", "v1", &stolen);
    // Other bytes in the same repository: its configuration decides, once its diff ID is here.
    let other = Image::of(Layer::new().file("y", "y")).diff_ids(&[&base().diff_id()]);
    registry.push("team/app", "before", &stolen);
    let after = registry.push("team/app", "after", &other);
    let site = Site::start(&[&registry], json!({})).await;
    let path = registry.path("team/app:before", "/index.html");
    site.get(&path).await.expect_error(502);
    for image in ["team/app:v1", "team/app:v2"] {
        let path = registry.path(image, "/index.html");
        assert_eq!(site.get(&path).await.expect(200).text(), "base");
    }
    assert_eq!(registry.count_blob_gets(&first.layers[0]), 1);
    assert_eq!(registry.count_blob_gets(&second.layers[0]), 0);
    let path = registry.path("team/app:after", "/index.html");
    assert_eq!(site.get(&path).await.expect(200).text(), "base");
    assert_eq!(registry.count_blob_gets(&after.layers[0]), 0);
    let path = registry.path("team/thief:v1", "/index.html");
    site.get(&path).await.expect_error(502);
    let path = registry.path("team/other:v1", "/index.html");
    assert_eq!(site.get(&path).await.expect(200).text(), "base");
    assert_eq!(registry.count_blob_gets(&third.layers[0]), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_complete_is_not_touched_by_another_compression_of_its_layers() {
    let registry = Registry::start().await;
    let gzip = Image::of(base()).layer(upper());
    registry.push("team/app", "v1", &gzip);
    let zstd = Image::of(base().encoding(Encoding::Zstd(2)));
    let zstd = zstd.layer(upper().encoding(Encoding::Plain));
    let second = registry.push("team/app", "v2", &zstd);
    let site = with(&registry, "team/app", json!({"layers": "all"})).await;
    let packs = || {
        let entries = std::fs::read_dir(site.blobspace().join("packs")).expect("packs");
        let entries = entries.map(|entry| entry.expect("readable"));
        let facts = |entry: std::fs::DirEntry| {
            use std::os::unix::fs::MetadataExt;
            (entry.file_name(), entry.metadata().expect("there").ino())
        };
        entries
            .map(facts)
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let get = async |tag: &str| {
        let path = registry.path(&format!("team/app:{tag}"), "/index.html");
        assert_eq!(site.get(&path).await.expect(200).text(), "upper");
    };
    get("v1").await;
    let before = packs();
    assert_eq!(before.len(), 3, "two layers and their index: {before:?}");
    get("v2").await;
    for layer in &second.layers {
        assert_eq!(registry.count_blob_gets(layer), 0);
    }
    assert_eq!(packs(), before, "the same files");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_side_by_side_and_the_first_failure_ends_the_others() {
    let registry = Registry::start().await;
    let slow = Layer::new().many("slow", 40, 100_000);
    let top = upper().file("top.bin", noise(9, 300_000));
    let honest = Image::of(slow.clone()).layer(base()).layer(top.clone());
    let wrong = image::sha256(b"something else");
    let diff_ids = [slow.diff_id(), base().diff_id(), wrong];
    let diff_ids: Vec<&str> = diff_ids.iter().map(String::as_str).collect();
    let lie = honest.clone().diff_ids(&diff_ids);
    let pushed = registry.push("team/app", "v1", &lie);
    registry.push("team/app", "v2", &honest);
    // The slow one takes 40 s, the wrong one 2.
    for (layer, bytes_per_second) in [(0, 100_000), (2, 150_000)] {
        registry
            .fault(Fault::Throttle { bytes_per_second })
            .on_blob(&pushed.layers[layer]);
    }
    let site = with(&registry, "team/app", json!({"layers": "all"})).await;
    let answer = site.get(&registry.path("team/app:v1", "/index.html")).await;
    assert!(
        answer.elapsed < Duration::from_secs(20),
        "{:?}",
        answer.elapsed
    );
    answer.expect_error(502);
    assert_eq!(
        registry.count_blob_gets(&pushed.layers[0]),
        1,
        "side by side"
    );
    let reserved = async || {
        let tmp = std::fs::read_dir(site.blobspace().join("tmp")).expect("tmp");
        tmp.count()
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while reserved().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await.expect("the others end");
    registry.heal();
    let answer = site.get(&registry.path("team/app:v2", "/index.html")).await;
    assert_eq!(answer.expect(200).text(), "upper");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_of_a_lower_layer_is_no_form_of_an_upper_file() {
    let registry = Registry::start().await;
    let old = image::gzip("old script".repeat(300).as_bytes());
    let lower = Layer::new()
        .file("app.js", "old script".repeat(300))
        .file("app.js.gz", &old)
        .file("same.js", "old script".repeat(300))
        .file("same.js.gz", &old);
    let upper = Layer::new().file("app.js", "new script".repeat(300));
    registry.push("team/app", "v1", &Image::of(lower).layer(upper));
    let site = with(&registry, "team/app", json!({"layers": "all"})).await;
    let gzip = [("Accept-Encoding", "gzip")];
    let root = registry.path("team/app:v1", "");
    // Asked once each: a variant may be there the second time.
    let same = site.request("GET", &format!("{root}/same.js"), &gzip).await;
    assert!(same.expect(200).body == old, "beside it in its own layer");
    let new = site.request("GET", &format!("{root}/app.js"), &gzip).await;
    assert!(new.expect(200).body != old, "made of another file");
    site.stop().await;
}
