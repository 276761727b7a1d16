//! Layers in their order, and files of upper ones while lower ones still arrive.
mod support;
use std::time::Duration;
use support::image::gzip;
use support::*;
use tokio::sync::watch;

async fn with(registry: &Registry, repo: serde_json::Value, settings: serde_json::Value) -> Site {
    let mut all = json!({"repos": {registry.name("team/app"): repo}});
    merge(&mut all, &settings);
    Site::start(&[registry], all).await
}

fn merge(into: &mut serde_json::Value, from: &serde_json::Value) {
    for (key, value) in from.as_object().expect("an object") {
        into[key] = value.clone();
    }
}

/// A digest of nothing.
fn no_digest(digit: u8) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

/// Holds a blob back until true is sent.
fn hold(registry: &Registry, blob: &str) -> watch::Sender<bool> {
    let (gate, open) = watch::channel(false);
    let fault = registry.fault(Fault::Gate(open));
    fault.method("GET").on_blob(blob);
    gate
}

fn base() -> Layer {
    Layer::new()
        .file("below.txt", "below")
        .file("gone.txt", "below")
        .dir("docs")
        .file("docs/old.html", "below")
        .file("index.html", "below")
        .file("app.js.gz", gzip(b"of another file"))
        .dir("dir")
        .file("dir/more.txt", "below")
}

fn middle() -> Layer {
    Layer::new()
        .file("middle.txt", "middle")
        .file("index.html", "middle")
}

/// What image builders write: the directories above each file, too.
fn top() -> Layer {
    Layer::new()
        .file("index.html", "<h1>top</h1>")
        .file("app.js", "let a = 1;".repeat(100))
        .file("lib.js", "let lib = 1;".repeat(100))
        .file("lib.js.gz", gzip("let lib = 1;".repeat(100).as_bytes()))
        .whiteout("gone.txt")
        .dir("docs")
        .opaque("docs")
        .file("docs/new.html", "new")
        .hardlink("copy.js", "app.js")
        .hardlink("old.txt", "below.txt")
        .dir("dir")
        .file("dir/file.txt", "in a directory")
        .symlink("link", "dir")
        .symlink("down", "below.txt")
}

/// Method, path, request fields, status, text.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, &'a str);

/// Status, fields but Date, body.
fn all_of(answer: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let fields = answer.headers.iter().filter(|(name, _)| name != "date");
    (
        answer.status,
        fields.cloned().collect(),
        answer.body.clone(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_asked_for_from_the_top() {
    let registry = Registry::start().await;
    let mut image = Image::of(base());
    for number in 0..11 {
        image = image.layer(Layer::new().file(&format!("{number}.txt"), number.to_string()));
    }
    let pushed = registry.push("team/app", "v1", &image);
    let settings = json!({"workersPerRegistry": 1});
    let site = with(&registry, json!({"layers": "all"}), settings).await;
    let answer = site.get(&registry.path("team/app:v1", "/below.txt")).await;
    assert_eq!(answer.expect(200).text(), "below");
    let log = registry.log();
    let asked: Vec<&str> = log
        .iter()
        .filter(|one| one.method == "GET")
        .filter_map(|one| one.path.split("/blobs/").nth(1))
        .filter(|digest| pushed.layers.iter().any(|layer| layer == digest))
        .collect();
    let from_the_top: Vec<&str> = pushed.layers.iter().rev().map(String::as_str).collect();
    assert_eq!(asked, from_the_top);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upper_layers_answer_what_no_lower_layer_can_change() {
    let registry = Registry::start().await;
    let image = Image::of(base()).layer(middle()).layer(top());
    let pushed = registry.push("team/app", "v1", &image);
    let gate = hold(&registry, &pushed.layers[0]);
    let repo = json!({"layers": "all", "listing": true});
    let site = with(&registry, repo, json!({"encodings": "all"})).await;
    let root = registry.path("team/app:v1", "");
    let gzipped = [("Accept-Encoding", "gzip")];
    let ranged = [("Range", "bytes=2-5")];
    let none: &[(&str, &str)] = &[];
    let early: &[Case<'_>] = &[
        ("GET", "/index.html", none, 200, "<h1>top</h1>"),
        ("GET", "/", none, 200, "<h1>top</h1>"),
        ("GET", "/middle.txt", none, 200, "middle"),
        ("GET", "/docs/new.html", none, 200, "new"),
        ("GET", "/dir/file.txt", none, 200, "in a directory"),
        ("GET", "/link/file.txt", none, 200, "in a directory"),
        ("GET", "/dir/file.txt", &ranged, 206, " a d"),
        ("HEAD", "/dir/file.txt", none, 200, ""),
        ("GET", "/gone.txt", none, 404, ""),
        ("GET", "/docs/old.html", none, 404, ""),
        ("GET", "/index.html/x", none, 404, ""),
        ("GET", "/dir", none, 301, ""),
        ("GET", "/app.js", none, 200, ""),
        ("GET", "/copy.js", none, 200, ""),
        ("GET", "/lib.js", &gzipped, 200, ""),
    ];
    let late: &[(&str, &str, u16, &str)] = &[
        ("GET", "/below.txt", 200, "below"),
        ("GET", "/down", 200, "below"),
        ("GET", "/old.txt", 200, "below"),
        ("GET", "/dir/more.txt", 200, "below"),
        ("GET", "/nothing", 404, ""),
        ("HEAD", "", 200, ""),
        ("GET", "/dir/", 200, ""),
    ];
    let mut waiting = Vec::new();
    for (method, path, _, _) in late {
        let (client, path) = (site.client, format!("{root}{path}"));
        let asking = async move { client.request(method, &path, &[]).await };
        waiting.push(tokio::spawn(asking));
    }
    let mut answers = Vec::new();
    for (method, path, fields, status, text) in early {
        let answer = site.request(method, &format!("{root}{path}"), fields).await;
        assert_eq!(answer.status, *status, "{method} {path}: {answer:?}");
        assert!(answer.text().contains(text) || *status > 300, "{path}");
        answers.push(answer);
    }
    // Twice, and with its validator: not from memory, and no other answer.
    site.get(&format!("{root}/index.html")).await.expect(200);
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for (waiting, (method, path, _, _)) in waiting.iter().zip(late) {
        assert!(!waiting.is_finished(), "{method} {path} must wait");
    }
    gate.send_replace(true);
    for (waiting, (method, path, status, text)) in waiting.into_iter().zip(late) {
        let answer = waiting.await.expect("no panic");
        assert_eq!(answer.status, *status, "{method} {path}: {answer:?}");
        assert!(answer.text().contains(text) || *status > 300, "{path}");
    }
    for ((method, path, fields, ..), before) in early.iter().zip(answers) {
        let answer = site.request(method, &format!("{root}{path}"), fields).await;
        let encoded = answer.header("content-encoding").is_some();
        // A variant of ours may be ready by now.
        if !encoded || before.header("content-encoding").is_some() {
            assert_eq!(all_of(&before), all_of(&answer), "{method} {path}");
        }
    }
    // The merged index and three layers; nothing is left of the index of the upper ones.
    let packs = std::fs::read_dir(site.blobspace().join("packs")).expect("packs");
    let names = packs.map(|pack| pack.expect("a pack").file_name().into_string());
    let names: Vec<String> = names.map(|name| name.expect("UTF-8")).collect();
    assert!(
        !names.iter().any(|name| name.contains("upper")),
        "{names:?}"
    );
    let bases = names.iter().filter(|name| !name.contains('+')).count();
    assert_eq!(bases, 4, "{names:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_lower_layer_has_failed_nobody_is_answered_by_the_upper_ones() {
    let registry = Registry::start().await;
    for tag in ["bytes", "diff-id"] {
        let (below, above) = (base().file("tag", tag), top().file("tag", tag));
        let (mut first, second) = (below.diff_id(), above.diff_id());
        if tag == "diff-id" {
            first = format!("sha256:{}", "0".repeat(64));
        }
        let image = Image::of(below).layer(above).diff_ids(&[&first, &second]);
        let pushed = registry.push("team/app", tag, &image);
        let lowest = &pushed.layers[0];
        let gate = hold(&registry, lowest);
        let site = with(&registry, json!({"layers": "all"}), json!({})).await;
        let path = registry.path(&format!("team/app:{tag}"), "/index.html");
        for _ in 0..2 {
            site.get(&path).await.expect(200);
        }
        let below = registry.path(&format!("team/app:{tag}"), "/below.txt");
        let (client, waiting) = (site.client, below.clone());
        let waiting = tokio::spawn(async move { client.request("GET", &waiting, &[]).await });
        registry.heal();
        if tag == "bytes" {
            registry.put_blob("team/app", lowest, b"something else".to_vec());
        }
        gate.send_replace(true);
        waiting.await.expect("no panic").expect_error(502);
        // Also while the layer is tried again, and where an answer could have been remembered.
        let hold = Some(Duration::from_millis(200));
        let slowly = registry.fault(Fault::StallBeforeHeaders(hold));
        slowly.on_blob(lowest);
        for path in [&path, &below, &path] {
            site.get(path).await.expect_error(502);
        }
        registry.heal();
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_files_or_needs_others_waits_for_all_layers() {
    let registry = Registry::start().await;
    let image = Image::of(base().file("404.html", "below"))
        .layer(middle().file("_headers", "/*\n  X-From: middle\n"))
        .layer(top());
    let pushed = registry.push("team/app", "v1", &image);
    let replaced = json!([{"path": "/index.html", "search": "top", "replacement": "new"}]);
    for (repo, early) in [
        (json!({}), true),
        (json!({"replacements": replaced}), false),
        (json!({"notFoundPage": "404.html"}), false),
        (json!({"notFoundPage": "index.html"}), true),
        (json!({"headersFile": true}), true),
        (json!({"redirectsFile": true}), false),
    ] {
        let gate = hold(&registry, &pushed.layers[0]);
        let mut all = json!({"layers": "all"});
        merge(&mut all, &repo);
        let site = with(&registry, all, json!({})).await;
        let path = registry.path("team/app:v1", "/index.html");
        let client = site.client;
        let mut asking = tokio::spawn(async move { client.request("GET", &path, &[]).await });
        if early {
            let answer = asking.await.expect("no panic").expect(200);
            let from = answer.header("x-from").is_some();
            assert_eq!(from, repo["headersFile"] == true, "{repo}");
        } else {
            registry.asked("GET", &pushed.layers[0]).await;
            let pause = Duration::from_millis(300);
            let answered = tokio::time::timeout(pause, &mut asking).await;
            assert!(answered.is_err(), "{repo}");
            gate.send_replace(true);
            asking.await.expect("no panic").expect(200);
        }
        gate.send_replace(true);
        site.stop().await;
        registry.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_resolved_without_a_layer() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::of(base()).layer(top()));
    let away = json!({"layers": "all", "origin": true, "redirectToDigest": true, "about": true});
    let settings = json!({"origins": {"domain": "user.example"}});
    let mut site = with(&registry, away, settings).await;
    let fetched = || {
        let gets = pushed.layers.iter();
        gets.map(|layer| registry.count_blob_gets(layer)).sum()
    };
    let root = registry.path("team/app:v1", "");
    // A path URL of an image with an origin of its own; the tag's record stands over a restart.
    let mut label = String::new();
    for restarted in [false, true] {
        if restarted {
            site = site.restart().await;
            registry
                .fault(Fault::Status {
                    code: 503,
                    retry_after: None,
                })
                .on_anything();
        }
        let answer = site
            .request("GET", &format!("{root}/index.html"), &[])
            .await;
        let location = answer.expect(307);
        let location = location.header("location").expect("a location").to_owned();
        label = location
            .split(['/', '.'])
            .nth(2)
            .expect("a label")
            .to_owned();
        assert!(location.ends_with("/index.html"), "{location}");
        site.get(&format!("{root}/?manifest=1")).await.expect(200);
        assert_eq!(fetched(), 0);
        // The catalogue has it by its tag and by its digest.
        let names = std::fs::read_dir(site.blobspace().join("records/names"));
        assert_eq!(names.expect("records").count(), 2);
    }
    registry.heal();
    // What is not known is not fetched for those who only look.
    let other = registry.path(&format!("team/app@{}", no_digest(1)), "/");
    let read_only = [("X-BlobServe-ReadOnly", "true")];
    let answer = site.request("GET", &other, &read_only).await;
    answer.expect_error(404);
    // What is wrong with an image is said before any layer is asked for.
    let broken = Image::of(Layer::new().file("a", "1")).diff_ids(&[&no_digest(1), &no_digest(2)]);
    let broken = registry.push("team/app", "broken", &broken);
    let answer = site.get(&registry.path("team/app:broken", "/a")).await;
    answer.expect_error(502);
    assert_eq!(
        (fetched(), registry.count_blob_gets(&broken.layers[0])),
        (0, 0)
    );
    // The first file fetches them all.
    let host = format!("{label}.user.example");
    let answer = site.get_with("/index.html", &[("Host", &host)]).await;
    assert_eq!(answer.expect(200).text(), "<h1>top</h1>");
    registry.asked("GET", &pushed.layers[0]).await;
    site.stop().await;
}
