//! The tools of the tests, tested.
mod support;
use std::io::Read;
use std::time::{Duration, Instant};
use support::*;

#[test]
fn a_layer_is_read_back_by_the_tar_crate() {
    let long = "d/".repeat(80) + "file";
    let layer = Layer::new()
        .dir("d/")
        .file("d/a", "hello")
        .file(&long, "x")
        .symlink("l", "d/a")
        .hardlink("h", "d/a")
        .fifo("p")
        .whiteout("d/gone");
    let bytes = layer.compressed();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
    let mut paths = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        paths.push(String::from_utf8(entry.path_bytes().to_vec()).unwrap());
        if paths.last().unwrap() == "d/a" {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
            assert_eq!(entry.header().mtime().unwrap(), image::MTIME);
        }
    }
    assert_eq!(paths, ["d/", "d/a", &long, "l", "h", "p", "d/.wh.gone"]);
    assert_eq!(layer.compressed(), layer.compressed(), "deterministic");
}

#[test]
fn a_bomb_is_what_its_diff_id_says() {
    let (bytes, diff_id) = image::bomb(3 << 20);
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut tar)
        .unwrap();
    assert_eq!(image::sha256(&tar), diff_id);
    assert!(bytes.len() < 20_000);
}

fn small() -> Image {
    Image::of(Layer::new().file("index.html", noise(1, 200_000)))
}

#[tokio::test]
async fn a_registry_serves_what_was_pushed_and_counts() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &small());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v2/team/app/manifests/v1", registry.base());
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(
        answer.headers()["docker-content-digest"],
        pushed.digest.as_str()
    );
    assert_eq!(answer.bytes().await.unwrap(), pushed.manifest);
    let url = format!("{}/v2/team/app/blobs/{}", registry.base(), pushed.layers[0]);
    let answer = client
        .get(&url)
        .header("range", "bytes=100000-")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.bytes().await.unwrap(), pushed.blobs[1].1[100_000..]);
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), 1);
    assert_eq!(registry.count_manifest_gets("v1"), 1);
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &small());
    let layer = &pushed.layers[0];
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let url = format!("{}/v2/team/app/blobs/{layer}", registry.base());
    let whole = async || {
        let answer = client.get(&url).send().await.unwrap();
        answer.bytes().await.unwrap()
    };

    registry
        .fault(Fault::TearAfter { bytes: 50_000 })
        .once()
        .on_blob(layer);
    let mut answer = client.get(&url).send().await.unwrap();
    let (mut got, mut torn) = (0, false);
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => got += piece.len(),
            Ok(None) => break,
            Err(_) => {
                torn = true;
                break;
            }
        }
    }
    assert_eq!((got, torn), (50_000, true));
    assert_eq!(whole().await, pushed.blobs[1].1);

    let hold = Duration::from_millis(300);
    for fault in [
        Fault::StallBeforeHeaders(Some(hold)),
        Fault::StallAfter {
            bytes: 10,
            hold: Some(hold),
        },
        Fault::Throttle {
            bytes_per_second: 600_000,
        },
    ] {
        registry.fault(fault.clone()).once().on_blob(layer);
        let start = Instant::now();
        assert_eq!(whole().await, pushed.blobs[1].1, "{fault:?}");
        assert!(
            start.elapsed() >= hold,
            "{fault:?} took {:?}",
            start.elapsed()
        );
    }
    registry
        .fault(Fault::StallAfter {
            bytes: 10,
            hold: None,
        })
        .once()
        .on_blob(layer);
    let answer = client.get(&url).send().await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(300), answer.bytes())
            .await
            .is_err()
    );

    registry
        .fault(Fault::Status {
            code: 429,
            retry_after: Some(7),
        })
        .times(2)
        .on_repository("team/app");
    for code in [429, 429, 200] {
        assert_eq!(client.get(&url).send().await.unwrap().status(), code);
    }
    registry
        .fault(Fault::RedirectTo("http://127.0.0.1:9".into()))
        .on_blob(layer);
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!(
        answer.headers()["location"],
        format!("http://127.0.0.1:9/v2/team/app/blobs/{layer}")
    );
    registry.heal();
    registry.fault(Fault::Bytes(b"lie".to_vec())).on_anything();
    assert_eq!(whole().await, &b"lie"[..]);
}

#[tokio::test]
async fn tokens_expire_and_tls_is_by_its_own_ca() {
    let auth = Auth::Bearer {
        realm: None,
        lifetime: Duration::from_millis(400),
        login: Some(("u".into(), "p".into())),
    };
    let registry = Registry::builder().tls().auth(auth).start().await;
    let ca = std::fs::read(registry.ca().unwrap()).unwrap();
    let ca = reqwest::Certificate::from_pem(&ca).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([ca])
        .build()
        .unwrap();
    let root = format!("{}/v2/", registry.base());
    assert_eq!(client.get(&root).send().await.unwrap().status(), 401);
    let token = format!("{}/token", registry.base());
    assert_eq!(client.get(&token).send().await.unwrap().status(), 401);
    let answer = client
        .get(&token)
        .basic_auth("u", Some("p"))
        .send()
        .await
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let token = answer["token"].as_str().unwrap();
    assert_eq!(
        client
            .get(&root)
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        client
            .get(&root)
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
}
