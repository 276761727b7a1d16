//! What clients that people use make of our answers: curl, httplint.

use crate::binary::{Blobserve, Home, text};
use crate::parts::{free_address, installed, run};
use crate::support::{Image, Layer, Pushed, Registry, noise};
use serde_json::{Value, json};
use std::path::Path;

/// A site of one image, in the registry of the tests.
pub struct Served {
    pub registry: Registry,
    pub home: Home,
    pub pushed: Pushed,
    large: Vec<u8>,
}

impl Served {
    pub async fn new() -> Served {
        installed();
        let registry = Registry::start().await;
        let large = noise(3, 3 << 20);
        let layer = Layer::new()
            .file("index.html", "<!doctype html><title>t</title><p>home</p>")
            .file("text.txt", "words ".repeat(2000))
            .file("large.bin", &large)
            .file(
                "docs/index.html",
                "<!doctype html><title>d</title><p>docs</p>",
            )
            .file("list/a.txt", "a");
        let pushed = registry.push("team/app", "v1", &Image::of(layer));
        Served {
            registry,
            home: Home::new(),
            pushed,
            large,
        }
    }

    /// Starts it, with settings over what each of these needs.
    pub fn start(&self, settings: &Value) -> Blobserve {
        let mut all = json!({
            "allowAnyRepo": true,
            "listing": true,
            "registries": {self.registry.host(): self.registry.settings()},
        });
        for (key, value) in settings.as_object().expect("an object") {
            all[key] = value.clone();
        }
        self.home.serve(&all)
    }

    /// Of a file of the image `v1`.
    pub fn path(&self, file: &str) -> String {
        self.registry.path("team/app:v1", file)
    }

    /// The same, as only the image's digest decides it.
    pub fn path_by_digest(&self, file: &str) -> String {
        let name = self.registry.name("team/app");
        format!("/{name}@{}{file}", self.pushed.digest)
    }
}

/// Its standard output; fails the test unless the status says that all is well.
pub fn curl(arguments: &[&str]) -> Vec<u8> {
    let mut all = vec!["--silent", "--show-error", "--fail", "--max-time", "60"];
    all.extend(arguments);
    run("curl", &all, b"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_the_same_bytes_by_every_protocol_and_resumes() {
    let site = Served::new().await;
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let cert = site.home.write("cert.pem", &own.cert.pem());
    let key = site.home.write("key.pem", &own.signing_key.serialize_pem());
    let secure = free_address();
    let blobserve = site.start(&json!({
        "tls": {"cert": cert, "key": key, "address": secure.to_string()},
    }));
    let clear = format!("http://{}{}", blobserve.client.0, site.path("/large.bin"));
    let tls = format!(
        "https://localhost:{}{}",
        secure.port(),
        site.path("/large.bin")
    );
    let resolve = format!("localhost:{}:{}", secure.port(), secure.ip());
    let trusted = ["--cacert", text(&cert), "--resolve", &resolve];
    let ways: [(&str, &str, &str); 4] = [
        ("--http1.1", &clear, "1.1"),
        ("--http2-prior-knowledge", &clear, "2"),
        ("--http1.1", &tls, "1.1"),
        ("--http2", &tls, "2"),
    ];
    for (option, url, version) in ways {
        let file = site.home.path("got");
        // A partial download, to go on from.
        std::fs::write(&file, &site.large[..1_000_000]).expect("written");
        for resume in [false, true] {
            let mut arguments = vec![option, "--output", text(&file)];
            arguments.extend([
                "--write-out",
                "%{http_version} %{http_code} %{size_download}",
            ]);
            arguments.extend(trusted);
            if resume {
                arguments.extend(["--continue-at", "-"]);
                std::fs::write(&file, &site.large[..1_000_000]).expect("written");
            }
            arguments.push(url);
            let said = String::from_utf8(curl(&arguments)).expect("text");
            let left = site.large.len() - if resume { 1_000_000 } else { 0 };
            let code = if resume { 206 } else { 200 };
            assert_eq!(said, format!("{version} {code} {left}"), "{option} {url}");
            assert!(
                std::fs::read(&file).expect("a file") == site.large,
                "{option} {url}"
            );
        }
    }
    // Encoded or not, the text is the text.
    let url = format!("http://{}{}", blobserve.client.0, site.path("/text.txt"));
    for _ in 0..3 {
        let got = curl(&["--compressed", &url]);
        assert_eq!(String::from_utf8(got).expect("text"), "words ".repeat(2000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn httplint_finds_no_error_in_any_kind_of_answer() {
    let site = Served::new().await;
    let name = site.registry.name("team/app");
    let blobserve = site.start(&json!({"repos": {name: {"about": true}}}));
    let text_file = site.path("/text.txt");
    let etag = blobserve.get_expecting(200, &text_file).await;
    let etag = etag.header("etag").expect("an ETag").to_owned();
    let by_digest = site.path_by_digest("/text.txt");
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);
    let about = site.path("/?manifest=1");
    let table: [Case<'_>; 15] = [
        ("GET", &text_file, &[], 200),
        ("HEAD", &text_file, &[], 200),
        ("GET", &by_digest, &[], 200),
        ("GET", &text_file, &[("Accept-Encoding", "gzip, br")], 200),
        ("GET", &text_file, &[("If-None-Match", &etag)], 304),
        ("GET", &text_file, &[("Range", "bytes=10-19")], 206),
        ("GET", &text_file, &[("Range", "bytes=999999-")], 416),
        ("GET", &site.path("/nothing"), &[], 404),
        ("GET", &site.path("/docs"), &[], 301),
        ("GET", &site.path("/list/"), &[], 200),
        ("POST", &text_file, &[("Content-Length", "0")], 405),
        ("GET", &about, &[], 200),
        ("HEAD", &about, &[], 200),
        ("GET", &about, &[("Range", "bytes=0-9")], 206),
        ("GET", &site.path("/?referrers=1"), &[], 200),
    ];
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/lint.py");
    for (method, path, fields, status) in table {
        let answer = blobserve.client.request(method, path, fields).await;
        assert_eq!(answer.status, status, "{method} {path} {fields:?}");
        let message = json!({
            "method": method,
            "status": status,
            "headers": answer.headers,
            "body": answer.body,
        });
        let file = site.home.write("message.json", &message.to_string());
        let said = run(text(&python), &[text(&script), text(&file)], b"");
        let said = String::from_utf8(said).expect("text");
        assert_eq!(said, "", "{method} {path} {fields:?}: {:?}", answer.headers);
    }
}
