//! `oci/*`: layouts, ordinary and hostile, from a raw `/v2/` server and as directories. What
//! each one is worth is found out here with `tar`, `flate2` and `sha2`: a layer that keeps all
//! its promises is served with its bytes, any other is a clear error that leaves nothing.

use crate::support::{Registry, Response, Site, image::sha256, json};
use flate2::read::MultiGzDecoder;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes that a layer may unpack to here: far above the good ones, far below the bomb.
const MOST: u64 = 256 << 20;

/// `limits.ratio` of the tests; the default is 200, and a longer wait.
const RATIO: u64 = 20;

/// What a layout is worth.
enum Worth {
    /// Files of the first layer by path, with their digests.
    Files(BTreeMap<String, String>),
    /// One of these statuses.
    Error(&'static [u16], String),
}

fn broken(why: impl Into<String>) -> Worth {
    Worth::Error(&[502], why.into())
}

fn layouts() -> Vec<(String, PathBuf)> {
    let directory = super::cases_dir().join("oci");
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut layouts: Vec<(String, PathBuf)> = paths
        .filter(|path| path.join("oci-layout").is_file())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), path)
        })
        .collect();
    layouts.sort();
    assert!(layouts.len() >= 15, "only {} layouts", layouts.len());
    layouts
}

/// A blob that is what its digest says.
fn blob(layout: &Path, digest: &str) -> Option<Vec<u8>> {
    let hex = digest.strip_prefix("sha256:")?;
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes = std::fs::read(layout.join("blobs/sha256").join(hex)).ok()?;
    (sha256(&bytes) == digest).then_some(bytes)
}

fn document(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let bytes = blob(layout, digest).unwrap_or_else(|| panic!("{digest} is no document"));
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The image manifest of the tag `v1` for linux/amd64.
fn manifest(layout: &Path) -> Value {
    let index = std::fs::read(layout.join("index.json")).expect("index.json");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let tagged = |entry: &&Value| {
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        *name == "v1"
    };
    let entry = index["manifests"].as_array().into_iter().flatten();
    let found = document(layout, entry.clone().find(tagged).expect("the tag v1"));
    let Some(images) = found["manifests"].as_array() else {
        return found;
    };
    let wanted = json!({"os": "linux", "architecture": "amd64"});
    let chosen = images.iter().find(|image| image["platform"] == wanted);
    document(layout, chosen.expect("an image for linux/amd64"))
}

/// The layer's tar, if there are not more than [`MOST`] bytes of it.
fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    let read = if bytes.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(bytes)
            .take(MOST + 1)
            .read_to_end(&mut tar)
    } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        zstd::Decoder::new(bytes)
            .expect("a zstd decoder")
            .take(MOST + 1)
            .read_to_end(&mut tar)
    } else if bytes.get(257..262) == Some(b"ustar") {
        tar.extend_from_slice(bytes);
        Ok(0)
    } else {
        return Err("neither gzip nor zstd nor tar".into());
    };
    match read {
        Err(error) => Err(error.to_string()),
        Ok(_) if tar.len() as u64 > MOST => Err(format!("more than {MOST} bytes")),
        Ok(_) => Ok(tar),
    }
}

fn worth(layout: &Path) -> Worth {
    let manifest = manifest(layout);
    let Some(layer) = manifest["layers"].get(0) else {
        return Worth::Error(&[404], "no layers".into());
    };
    let digest = layer["digest"].as_str().expect("a digest");
    let Some(bytes) = blob(layout, digest) else {
        return Worth::Error(&[404, 502], format!("no blob {digest}"));
    };
    if layer["size"] != bytes.len() {
        // Larger than the blobspace is 507.
        return Worth::Error(&[502, 507], format!("not {} bytes", layer["size"]));
    }
    let tar = match unpacked(&bytes) {
        Ok(tar) => tar,
        Err(why) => return broken(why),
    };
    let config = document(layout, &manifest["config"]);
    if config["rootfs"]["diff_ids"][0] != sha256(&tar) {
        return broken("another diff ID");
    }
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        if entry.header().entry_type().is_file() {
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("a file");
            let path = path.trim_start_matches("./").to_owned();
            files.insert(path, sha256(&content));
        }
    }
    assert!(!files.is_empty(), "a layer without files tells nothing");
    Worth::Files(files)
}

fn encoded(path: &str) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-');
    utf8_percent_encode(path, &KEPT).to_string()
}

/// Fails unless the error is clear, and came quickly.
fn clear_error(name: &str, answer: Response, statuses: &[u16], why: &str) {
    let status = answer.status;
    assert!(statuses.contains(&status), "{name}: {status}, but {why}");
    assert!(
        answer.elapsed < Duration::from_secs(20),
        "{name}: {answer:?}"
    );
    let elapsed = answer.elapsed;
    let text = answer.expect_error(status).text();
    println!("{name}: {status} {elapsed:?} {}", text.trim_end());
    for internal in ["panic", "/tmp/", "blobserve-v1"] {
        assert!(!text.contains(internal), "{name} tells {internal}: {text}");
    }
}

/// Bytes that may be on disk while a layout is looked at: its blobs times [`RATIO`], not less
/// than what a layer may have in any case, and a step of reservation.
fn room(layout: &Path) -> u64 {
    let blobs = std::fs::read_dir(layout.join("blobs/sha256")).expect("blobs/sha256");
    let sizes = blobs.map(|blob| blob.expect("readable").metadata().expect("readable").len());
    (sizes.sum::<u64>() * RATIO).max(64 << 20) + (32 << 20)
}

/// Asks for all that a layout has at `image`, its path without a slash at the end. Whether it
/// is a good one.
async fn judge(name: &str, layout: &Path, site: &Site, image: &str) -> bool {
    let before = site.disk();
    match worth(layout) {
        Worth::Files(files) => {
            for (path, digest) in &files {
                let answer = site.get(&format!("{image}/{}", encoded(path))).await;
                assert_eq!(answer.status, 200, "{name}: {path}: {}", answer.text());
                assert_eq!(sha256(&answer.body), *digest, "{name}: {path}");
            }
            let none = site.get(&format!("{image}/there/is/none")).await;
            none.expect_error(404);
            true
        }
        Worth::Error(statuses, why) => {
            let path = format!("{image}/index.html");
            let asking = site.get(&path);
            let room = room(layout);
            let watching = async || -> Response {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let now = site.disk().0.saturating_sub(before.0);
                    assert!(now <= room, "{name} has {now} bytes on disk");
                }
            };
            let answer = tokio::select! { answer = asking => answer, never = watching() => never };
            clear_error(name, answer, statuses, &why);
            site.disk_is(before).await;
            // Asked for again it is an error again, and still nothing is kept.
            let again = site.get(&path).await;
            clear_error(name, again, statuses, &why);
            site.disk_is(before).await;
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_in_a_registry_is_served_with_its_bytes_or_a_clear_error() {
    let mut good = 0;
    for (name, layout) in layouts() {
        let registry = Registry::start().await;
        registry.load_layout("cases/image", &layout);
        let settings = json!({"limits": {"ratio": RATIO}});
        let site = Site::start(&[&registry], settings).await;
        let image = registry.path("cases/image:v1", "");
        good += usize::from(judge(&name, &layout, &site, &image).await);
        for asked in registry.log() {
            let whole = asked.path.starts_with("/v2/cases/image/") || asked.path == "/v2/";
            assert!(whole && !asked.path.contains(".."), "{name}: {asked:?}");
        }
        site.stop().await;
    }
    assert!(good >= 8, "only {good} layouts are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_as_a_directory_is_served_with_its_bytes_or_a_clear_error() {
    // All from one service: what one layout has stored does not make another one good.
    let directory = super::cases_dir().join("oci");
    let settings = json!({
        "registries": {"cases.test": {"layout": directory}},
        "limits": {"ratio": RATIO},
    });
    let site = Site::start(&[], settings).await;
    let mut good = 0;
    for (name, layout) in layouts() {
        let image = format!("/cases.test/{name}:v1");
        good += usize::from(judge(&name, &layout, &site, &image).await);
    }
    assert!(good >= 8, "only {good} layouts are served");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_of_a_layer_are_not_asked_even_where_the_registry_lacks_it() {
    let mut seen = 0;
    for (name, layout) in layouts() {
        let mut manifest = manifest(&layout);
        if manifest["layers"][0]["urls"].is_null() {
            continue;
        }
        seen += 1;
        let digest = manifest["layers"][0]["digest"].as_str().expect("a digest");
        let digest = digest.to_owned();
        let (registry, elsewhere) = (Registry::start().await, Registry::start().await);
        let bytes = blob(&layout, &digest).expect("the layer");
        elsewhere.put_blob("else", &digest, bytes);
        let url = format!("{}/v2/else/blobs/{digest}", elsewhere.base());
        manifest["layers"][0]["urls"] = json!([url]);
        registry.load_layout("cases/image", &layout);
        registry.remove_blob("cases/image", &digest);
        let media_type = manifest["mediaType"].as_str().expect("a media type");
        let text = manifest.to_string();
        registry.tag("cases/image", "v2", media_type, text.as_bytes());
        let site = Site::start(&[&registry, &elsewhere], json!({})).await;
        let before = site.disk();
        let answer = site
            .get(&registry.path("cases/image:v2", "/index.html"))
            .await;
        clear_error(&name, answer, &[404, 502], "its layer is only elsewhere");
        site.disk_is(before).await;
        assert!(
            registry.count_blob_gets(&digest) > 0,
            "{name}: not asked at all"
        );
        assert_eq!(elsewhere.requests(), 0, "{name}: {:?}", elsewhere.log());
    }
    assert!(seen > 0, "no layout has a layer with urls");
}
