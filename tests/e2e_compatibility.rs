//! The faults of the service that this one replaces: one test for each row of the table in
//! COMPATIBILITY, named after what we do instead.
mod support;
use std::time::{Duration, Instant};
use support::*;

fn page() -> Layer {
    Layer::new()
        .file("index.html", "hello")
        .file("more.bin", noise(1, 30_000))
}

/// Many ask at once for an image whose layer fails; all answers.
async fn all_answers(registry: &Registry, site: &Site, count: usize) -> Vec<Response> {
    // The manifest comes late, so that all wait for the same flight.
    let hold = Some(Duration::from_millis(500));
    registry
        .fault(Fault::StallBeforeHeaders(hold))
        .times(2)
        .on_manifest("v1");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (client, path) = (site.client, registry.path("team/app:v1", "/"));
        requests.spawn(async move { client.request("GET", &path, &[]).await });
    }
    requests.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_unpack_leaves_nothing_behind_and_the_next_request_starts_afresh() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::of(page()));
    let lie = Fault::Bytes(page().encoding(Encoding::Truncated(50)).compressed());
    registry.fault(lie).on_blob(&image.layers[0]);
    let site = Site::start(&[&registry], json!({"workers": 1})).await;
    let before = site.disk();
    let path = registry.path("team/app:v1", "/");
    for _ in 0..3 {
        site.get(&path).await.expect_error(502);
        site.disk_is(before).await;
    }
    registry.heal();
    let start = Instant::now();
    assert_eq!(site.get(&path).await.expect(200).text(), "hello");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "no worker is held: {:?}",
        start.elapsed()
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_waiter_gets_the_same_error() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::of(page()));
    registry
        .fault(Fault::Bytes(noise(5, 2000)))
        .on_blob(&image.layers[0]);
    let site = Site::start(&[&registry], json!({"timeout": "30s"})).await;
    let answers = all_answers(&registry, &site, 50).await;
    let first = answers[0].clone().expect_error(502).text();
    for answer in &answers {
        assert_eq!((answer.status, answer.text()), (502, first.clone()));
    }
    registry.heal();
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn size_and_digest_of_every_blob_are_verified_before_anything_is_served() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::of(page()));
    let evil = Layer::new().file("index.html", "evil").compressed();
    registry.fault(Fault::Bytes(evil)).on_blob(&image.layers[0]);
    let site = Site::start(&[&registry], json!({})).await;
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect_error(502);
    let wrong = image::sha256(b"another tar");
    registry.push("team/app", "v2", &Image::of(page()).diff_ids(&[&wrong]));
    registry.heal();
    site.get(&registry.path("team/app:v2", "/"))
        .await
        .expect_error(502);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_resolve_inside_the_image_only() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "pull secret").unwrap();
    let host_path = secret.path().to_str().unwrap();
    let layer = Layer::new()
        .symlink("absolute", host_path)
        .symlink(
            "relative",
            &format!("{}{host_path}", "../".repeat(20).trim_end_matches('/')),
        )
        .symlink("root", "/")
        .symlink("proc", "/proc/self/environ")
        .file("inside.txt", "inside")
        .symlink("fine", "/inside.txt");
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(layer));
    let site = Site::start(&[&registry], json!({})).await;
    let through_root = format!("/root{host_path}");
    for path in ["/absolute", "/relative", through_root.as_str(), "/proc"] {
        site.get(&registry.path("team/app:v1", path))
            .await
            .expect_error(404);
    }
    for path in ["/fine", "/root/inside.txt"] {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        assert_eq!(answer.expect(200).text(), "inside", "{path}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modified_files_lie_apart_from_the_layer_keyed_by_the_rules() {
    let registry = Registry::start().await;
    let image = registry.push("team/a", "v1", &Image::of(page()));
    registry.push("team/b", "v1", &Image::of(page()));
    let rule = |to: &str| json!({"replacements": [{"path": "index.html", "search": "hello", "replacement": to}]});
    let repos = json!({registry.name("team/a"): rule("A"), registry.name("team/b"): rule("B")});
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    for (repository, body) in [("team/a:v1", "A"), ("team/b:v1", "B"), ("team/a:v1", "A")] {
        let answer = site.get(&registry.path(repository, "/")).await;
        assert_eq!(answer.expect(200).text(), body);
    }
    assert_eq!(registry.count_blob_gets(&image.layers[0]), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_representation_has_its_own_strong_quoted_etag() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", "<p>__X__</p>")
        .file("a.txt", "a")
        .file("b.txt", "b");
    registry.push("team/app", "v1", &Image::of(layer));
    let inline = json!([{"search": "__X__", "replacement": "${ide}"}]);
    let repos = json!({registry.name("team/app"): {"inlineStatic": inline}});
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    let one = [("X-BlobServe-InlineVars", r#"{"ide":"1"}"#)];
    let two = [("X-BlobServe-InlineVars", r#"{"ide":"2"}"#)];
    let none: [(&str, &str); 0] = [];
    let mut etags = Vec::new();
    for (path, headers) in [
        ("/a.txt", &none[..]),
        ("/b.txt", &none),
        ("/", &none),
        ("/", &one),
        ("/", &two),
    ] {
        // `get_with` asks again with the ETag and expects a 304.
        let answer = site
            .get_with(&registry.path("team/app:v1", path), headers)
            .await
            .expect(200);
        etags.push(answer.header("etag").unwrap().to_owned());
    }
    let mut distinct = etags.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), etags.len(), "{etags:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_revalidate_and_only_what_a_digest_alone_decides_is_immutable() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::page("old"));
    let site = Site::start(&[&registry], json!({"tagTtl": "100ms"})).await;
    let by_tag = registry.path("team/app:v1", "/");
    let by_digest = registry.path(&format!("team/app@{}", image.digest), "/");
    let answer = site.get(&by_tag).await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let answer = site.get(&by_digest).await.expect(200);
    assert!(
        answer
            .header("cache-control")
            .unwrap_or_default()
            .contains("immutable")
    );
    registry.push("team/app", "v1", &Image::page("new"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        site.request("GET", &by_tag, &[]).await.expect(200).text(),
        "new"
    );
    assert_eq!(site.get(&by_digest).await.expect(200).text(), "old");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_is_404_denied_is_403_and_a_failing_registry_is_502_or_504() {
    let registry = Registry::start().await;
    for repository in ["denied", "broken", "busy"] {
        registry.push(repository, "v1", &Image::page("x"));
    }
    let status = |code, retry_after| Fault::Status { code, retry_after };
    registry.fault(status(403, None)).on_repository("denied");
    registry.fault(status(500, None)).on_repository("broken");
    registry.fault(status(429, Some(2))).on_repository("busy");
    let closed = Registry::start().await;
    let nobody = closed.path("team/app:v1", "/");
    let settings = json!({"timeout": "60s", "registries": {closed.host(): {"plainHttp": true}}});
    drop(closed);
    let site = Site::start(&[&registry], settings).await;
    site.get(&registry.path("unknown:v1", "/"))
        .await
        .expect_error(404);
    site.get(&registry.path("denied:v1", "/"))
        .await
        .expect_error(403);
    site.get(&registry.path("broken:v1", "/"))
        .await
        .expect_error(502);
    let busy = site
        .get(&registry.path("busy:v1", "/"))
        .await
        .expect_error(502);
    assert!(busy.header("retry-after").is_some(), "{busy:?}");
    let answer = site.get(&nobody).await;
    assert!([502, 504].contains(&answer.status), "{}", answer.text());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_buffered_and_the_deadline_is_for_the_first_byte() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const LENGTH: usize = 100 << 20;
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("big.bin", ballast(1, LENGTH / 2))
        .file("rest.bin", noise(1, 2 << 20));
    registry.push("team/app", "v1", &Image::of(layer));
    let site = Site::start(
        &[&registry],
        json!({"timeout": "2s", "limits": {"ratio": 2000}}),
    )
    .await;
    let path = registry.path("team/app:v1", "/big.bin");
    // Warm it up, however long that takes.
    while site.head(&path).await.status != 200 {}
    let anonymous = || {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("RssAnon:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            / 1024
    };
    let before = anonymous();
    // Twenty slow readers of one 50 MiB file: a GiB, if answers were buffered.
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = tokio::net::TcpStream::connect(site.client.0).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0u8; 1000];
        socket.read_exact(&mut start).await.unwrap();
        sockets.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let grown = anonymous().saturating_sub(before);
    assert!(grown < 200, "grew by {grown} MiB");
    // Past the deadline the body still goes on to its end.
    let mut socket = sockets.pop().unwrap();
    drop(sockets);
    let (mut rest, mut buffer) = (0, vec![0u8; 1 << 20]);
    loop {
        match socket.read(&mut buffer).await.unwrap() {
            0 => break,
            read => rest += read,
        }
    }
    assert!(
        rest + 1000 > LENGTH / 2,
        "{rest} bytes after the first 1000"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_needed_again_is_one_per_registry_and_layer() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::of(page()));
    let settings = json!({"timeout": "30s"});
    let mut site = Site::start(&[&registry], settings.clone()).await;
    for _ in 0..2 {
        // A fresh blobspace: everything is needed again.
        let before = registry.count_blob_gets(&image.layers[0]);
        for answer in all_answers(&registry, &site, 100).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(registry.count_blob_gets(&image.layers[0]), before + 1);
        site.stop().await;
        site = Site::start(&[&registry], settings.clone()).await;
    }
    site.stop().await;
}
