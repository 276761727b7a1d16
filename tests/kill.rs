//! kill -9 at a hundred random moments of unpacking and eviction: after each, the service starts on
//! the same blobspace, and at the end every answer is right. Most of the starts keep compressed blobs, the others
//! drop them.

mod support;

use std::time::Duration;
use support::{Client, Image, Layer, Process, Registry, ballast, json, service::configuration};

const IMAGES: u64 = 6;
const KILLS: usize = 100;
/// Two of the six layers fit.
const BOUND: u64 = 3 << 20;
/// All blobs fit.
const KEPT: u64 = 512 << 10;

fn image(number: u64) -> Image {
    let mut layer = Layer::new().file("index.html", format!("image {number}"));
    for file in 0..40 {
        layer = layer.file(
            &format!("assets/{file}.bin"),
            ballast(number * 100 + file, 30_000),
        );
    }
    Image::of(layer)
}

fn seed() -> u64 {
    let given = std::env::var("BLOBSERVE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("BLOBSERVE_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_hundred_kills_at_random_moments_every_answer_is_right() {
    let mut random = fastrand::Rng::with_seed(seed());
    let registry = Registry::start().await;
    for number in 0..IMAGES {
        registry.push("team/app", &format!("v{number}"), &image(number));
    }
    let directory = tempfile::tempdir().unwrap();
    let files = [(0, "drops.json"), (KEPT, "keeps.json")].map(|(kept, name)| {
        let settings = json!({"blobSpace": {"maxSizeBytes": BOUND, "keepCompressedBytes": kept}});
        let text = configuration(directory.path(), &[&registry], &settings).to_string();
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    });

    for _ in 0..KILLS {
        let process = start(&files[usize::from(random.u8(..8) > 0)]).await;
        let requests = (0..3).map(|_| {
            let (client, number) = (process.client, random.u64(0..IMAGES));
            let path = registry.path(&format!("team/app:v{number}"), "/index.html");
            // The process may be killed under it: what comes is looked at below.
            tokio::spawn(async move { client.try_request("GET", &path, &[]).await })
        });
        let requests: Vec<_> = requests.collect();
        tokio::time::sleep(Duration::from_micros(random.u64(0..60_000))).await;
        process.kill();
        for (request, answer) in requests.into_iter().enumerate() {
            if let Ok(Ok(answer)) = answer.await {
                assert!(
                    matches!(answer.status, 200 | 503),
                    "request {request}: {answer:?}"
                );
            }
        }
    }

    let process = start(&files[1]).await;
    for number in (0..IMAGES).chain(0..IMAGES) {
        is_right(&registry, process.client, number).await;
    }
    // Each was asked for and made room for others: by now the registry is needed for none.
    let asked = registry.count("GET", "/blobs/");
    for number in 0..IMAGES {
        is_right(&registry, process.client, number).await;
    }
    assert_eq!(registry.count("GET", "/blobs/"), asked);
    let ours = directory.path().join("blobs/blobserve-v1");
    assert_eq!(
        std::fs::read_dir(ours.join("tmp")).unwrap().count(),
        0,
        "nothing half-done is left"
    );
    let packs: u64 = std::fs::read_dir(ours.join("packs"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(
        packs <= BOUND,
        "{packs} bytes of packs, the bound is {BOUND}"
    );
}

async fn start(file: &std::path::Path) -> Process {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || Process::serve(&file))
        .await
        .expect("it starts")
}

async fn is_right(registry: &Registry, client: Client, number: u64) {
    let reference = format!("team/app:v{number}");
    let page = client
        .request("GET", &registry.path(&reference, "/"), &[])
        .await
        .expect(200);
    assert_eq!(page.text(), format!("image {number}"));
    for file in [0, 17, 39] {
        let path = registry.path(&reference, &format!("/assets/{file}.bin"));
        let asset = client.request("GET", &path, &[]).await.expect(200);
        assert_eq!(asset.body, ballast(number * 100 + file, 30_000), "{path}");
    }
}
