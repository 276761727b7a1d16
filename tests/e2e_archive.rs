//! Directories as archives: what is in them, how many at once, and what ends them.

mod support;

use flate2::read::{DeflateDecoder, GzDecoder};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;
use support::{Image, Layer, Registry, Site, json, noise};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MODIFIED: u64 = 1_700_000_000;

async fn site(layer: Layer) -> (Registry, Site) {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(layer));
    let repos = json!({registry.name("team/app"): {"listing": true}});
    let site = Site::start(&[&registry], json!({"repos": repos})).await;
    (registry, site)
}

fn tree() -> Layer {
    let long = format!("docs/{}/{}", "d".repeat(90), "f".repeat(90));
    Layer::new()
        .mtime(MODIFIED)
        .file("docs/b.txt", "b".repeat(1000))
        .file("docs/a.js", noise(1, 300_000))
        .file("docs/empty", "")
        .file_bytes(b"docs/caf\xe9", "ccc")
        .file("docs/sub/index.html", "<p>")
        .symlink("docs/link", "a.js")
        .symlink("docs/out", "/other")
        .symlink("docs/sub/up", "..")
        .symlink("docs/broken", "/none")
        .fifo("docs/pipe")
        .file(&long, "long")
        .file("other/o", "o")
}

/// Names, directories with a slash, and contents.
fn expected() -> Vec<(Vec<u8>, Vec<u8>)> {
    let long = "d".repeat(90);
    let names: [(&[u8], Vec<u8>); 11] = [
        (b"a.js", noise(1, 300_000)),
        (b"b.txt", b"b".repeat(1000)),
        (b"caf\xe9", b"ccc".to_vec()),
        (b"", Vec::new()),
        (b"", b"long".to_vec()),
        (b"empty", Vec::new()),
        (b"link", noise(1, 300_000)),
        (b"out/", Vec::new()),
        (b"out/o", b"o".to_vec()),
        (b"sub/", Vec::new()),
        (b"sub/index.html", b"<p>".to_vec()),
    ];
    let mut names = names.map(|(name, content)| (name.to_vec(), content));
    names[3].0 = format!("{long}/").into_bytes();
    names[4].0 = format!("{long}/{}", "f".repeat(90)).into_bytes();
    names.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tgz_holds_what_the_directory_serves() {
    let (registry, site) = site(tree()).await;
    let path = registry.path("team/app:v1", "/docs/?download=tgz");
    let answer = site.request("GET", &path, &[]).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/gzip"));
    let disposition = answer.header("content-disposition");
    assert_eq!(disposition, Some("attachment; filename=\"docs.tar.gz\""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut archive = tar::Archive::new(GzDecoder::new(&answer.body[..]));
    let mut found = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let directory = entry.header().entry_type().is_dir();
        assert_eq!(entry.path_bytes().ends_with(b"/"), directory);
        if !directory {
            assert_eq!(entry.header().mtime().ok(), Some(MODIFIED));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        found.push((entry.path_bytes().into_owned(), content));
    }
    assert_eq!(found, expected());
    let again = site.request("GET", &path, &[]).await.expect(200);
    assert!(
        again.body == answer.body,
        "the same files, the same archive"
    );
    let head = site.head(&path).await.expect(200);
    assert_eq!(head.header("content-disposition"), disposition);
    assert_eq!(head.header("content-length"), None);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_holds_the_same() {
    let (registry, site) = site(tree()).await;
    let path = registry.path("team/app:v1", "/docs/?download=zip");
    let answer = site.request("GET", &path, &[]).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/zip"));
    assert_eq!(unzip(&answer.body), expected());
    site.stop().await;
}

/// By the central directory, as readers do; checks that what stands before and behind each file agrees.
fn unzip(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let short = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let long = |at: usize| short(at) | short(at + 2) << 16;
    let end = bytes.len() - 22;
    assert!(bytes[end..].starts_with(b"PK\x05\x06"));
    let mut at = long(end + 16);
    assert_eq!(at + long(end + 12), end);
    let mut found = Vec::new();
    for _ in 0..short(end + 10) {
        assert!(bytes[at..].starts_with(b"PK\x01\x02"));
        let (flags, method) = (short(at + 8), short(at + 10));
        let (checksum, compressed, length) = (long(at + 16), long(at + 20), long(at + 24));
        let name = &bytes[at + 46..at + 46 + short(at + 28)];
        assert_eq!(flags & 0x800 != 0, std::str::from_utf8(name).is_ok());
        let local = long(at + 42);
        assert!(bytes[local..].starts_with(b"PK\x03\x04"));
        assert_eq!(&bytes[local + 30..local + 30 + name.len()], name);
        let data = local + 30 + name.len() + short(local + 28);
        let packed = &bytes[data..data + compressed];
        let mut content = Vec::new();
        match method {
            0 => content.extend_from_slice(packed),
            8 => {
                let inflated = DeflateDecoder::new(packed).read_to_end(&mut content);
                inflated.expect("deflate");
                let behind = data + compressed;
                assert!(bytes[behind..].starts_with(b"PK\x07\x08"));
                let said = [behind + 4, behind + 8, behind + 12].map(long);
                assert_eq!(said, [checksum, compressed, length]);
            }
            other => panic!("method {other}"),
        }
        assert_eq!(content.len(), length);
        assert_eq!(crc32fast::hash(&content) as usize, checksum);
        let mode = long(at + 38) >> 16;
        assert_eq!(mode & 0o170_000 == 0o040_000, name.ends_with(b"/"));
        found.push((name.to_vec(), content));
        at += 46 + name.len() + short(at + 30);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn two_are_made_at_once_and_a_third_is_told_to_come_again() {
    let layer = Layer::new().file("big", noise(7, 48 << 20)).file("x", "x");
    let (registry, site) = site(layer).await;
    let path = registry.path("team/app:v1", "/?download=zip");
    site.head(&path).await.expect(200);
    // Clients that read nothing: what is made waits for them.
    let mut slow = BTreeMap::new();
    for number in 0..2 {
        let mut socket = TcpStream::connect(site.client.0).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        socket
            .write_all(request.as_bytes())
            .await
            .expect("it is sent");
        let mut start = [0; 12];
        socket.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 200");
        slow.insert(number, socket);
    }
    let third = site.request("GET", &path, &[]).await.expect(503);
    assert_eq!(third.header("retry-after"), Some("1"));
    // Everything else is served meanwhile.
    let other = registry.path("team/app:v1", "/x");
    site.get(&other).await.expect(200);
    // A client that goes makes room.
    slow.remove(&0);
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if site.request("GET", &path, &[]).await.status == 200 {
            // The end waits for answers that are being read.
            drop(slow);
            site.stop().await;
            return;
        }
    }
    panic!("there is no room for another");
}
