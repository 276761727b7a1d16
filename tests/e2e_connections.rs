//! TLS beside cleartext, certificates that change, and the access log.
mod support;
use blobserve::config::Mode;
use rustls::pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for localhost, written to `cert.pem` and `key.pem`.
fn certificate(directory: &Path) -> CertificateDer<'static> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(directory.join("cert.pem"), own.cert.pem()).expect("written");
    let key = own.signing_key.serialize_pem();
    std::fs::write(directory.join("key.pem"), key).expect("written");
    own.cert.der().clone()
}

fn tls(directory: &Path) -> serde_json::Value {
    json!({
        "cert": directory.join("cert.pem"),
        "key": directory.join("key.pem"),
        "address": "127.0.0.1:0",
    })
}

/// A connection that trusts this one certificate, and whose client speaks `alpn`.
async fn connect(
    site: &Site,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(site.tls_address()).await?;
    let name = "localhost".try_into().expect("a name");
    connector.connect(name, stream).await
}

async fn body_over_http1(mut stream: TlsStream<TcpStream>, path: &str) -> Vec<u8> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it answers");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("it answers");
    assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let end = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head");
    bytes.split_off(end + 4)
}

async fn body_over_http2(stream: TlsStream<TcpStream>, path: &str) -> Vec<u8> {
    let (sender, connection) = h2::client::handshake(stream).await.expect("it answers");
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("https://localhost{path}"));
    let mut sender = sender.ready().await.expect("it answers");
    let (response, _) = sender
        .send_request(request.body(()).expect("a request"), true)
        .expect("it answers");
    let response = response.await.expect("it answers");
    assert_eq!(response.status(), 200);
    let (mut bytes, mut body) = (Vec::new(), response.into_body());
    while let Some(data) = body.data().await {
        let data = data.expect("it answers");
        body.flow_control()
            .release_capacity(data.len())
            .expect("it answers");
        bytes.extend_from_slice(&data);
    }
    connection.abort();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_serve_the_same_bytes_over_tls_as_in_cleartext() {
    let registry = Registry::start().await;
    let large = noise(7, 3 << 20);
    let layer = Layer::new()
        .file("large.bin", &large)
        .file("small.txt", "small");
    registry.push("team/app", "v1", &Image::of(layer));
    let directory = tempfile::tempdir().unwrap();
    let trusted = certificate(directory.path());
    let site = Site::start(&[&registry], json!({"tls": tls(directory.path())})).await;
    for (file, expected) in [("/large.bin", large.as_slice()), ("/small.txt", b"small")] {
        let path = registry.path("team/app:v1", file);
        assert_eq!(site.get(&path).await.expect(200).body, expected);
        let stream = connect(&site, &trusted, b"http/1.1").await.unwrap();
        assert!(body_over_http1(stream, &path).await == expected, "{file}");
        let stream = connect(&site, &trusted, b"h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        assert!(body_over_http2(stream, &path).await == expected, "{file}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let first = certificate(directory.path());
    let mut settings = json!({"tls": tls(directory.path()), "prometheusAddr": "127.0.0.1:0"});
    settings["tls"]["only"] = json!(true);
    let site = Site::start(&[], settings).await;
    assert_eq!(site.client.0, site.tls_address(), "nothing in cleartext");
    drop(connect(&site, &first, b"h2").await.unwrap());
    let second = certificate(directory.path());
    site.reload();
    assert!(connect(&site, &first, b"h2").await.is_err());
    drop(connect(&site, &second, b"h2").await.unwrap());
    std::fs::write(directory.path().join("key.pem"), "broken").unwrap();
    site.reload();
    drop(connect(&site, &second, b"h2").await.unwrap());
    // The client that did not trust said so.
    let counts = site.metrics().request("GET", "/metrics", &[]).await.text();
    let failed = counts
        .lines()
        .find(|line| line.starts_with("blobserve_tls_handshakes_failed_total"));
    assert!(
        failed.is_some_and(|line| !line.ends_with(" 0")),
        "{failed:?}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_an_unusable_certificate_or_log_says_which() {
    let directory = tempfile::tempdir().unwrap();
    let launch = |settings| Site::try_launch(Mode::Serve, &[], settings);
    let error = launch(json!({"tls": tls(directory.path())}))
        .await
        .err()
        .unwrap();
    assert!(
        error.starts_with("tls.cert: ") && error.contains("cert.pem cannot be read"),
        "{error}"
    );
    let log = json!({"format": "json", "file": directory.path().join("no/log")});
    let error = launch(json!({"accessLog": log})).await.err().unwrap();
    assert!(
        error.starts_with("accessLog.file: ") && error.contains("cannot be opened"),
        "{error}"
    );
}

/// The lines of a log, once it is closed.
fn lines(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).expect("a log");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}")));
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_one_line_with_what_was_sent() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("a.txt", "twelve bytes")
        .file("index.html", "page");
    registry.push("team/app", "v1", &Image::of(layer));
    let directory = tempfile::tempdir().unwrap();
    let trusted = certificate(directory.path());
    let file = directory.path().join("access.log");
    let settings = json!({
        "accessLog": {"format": "json", "file": file},
        "tls": tls(directory.path()),
    });
    let site = Site::start(&[&registry], settings).await;
    let reference = registry.name("team/app") + ":v1";
    let path = registry.path("team/app:v1", "/a.txt");
    let agent = ("User-Agent", "e2e \"quoted\"");
    // One after another, so that the lines are in this order; method, fields, status, bytes.
    let etag = site.request("GET", &path, &[agent]).await.expect(200);
    let etag = etag.header("etag").unwrap().to_owned();
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, u64);
    let table: [Case<'_>; 8] = [
        ("GET", &path, &[agent], 200, 12),
        ("GET", &path, &[agent, ("Referer", "http://r/")], 200, 12),
        ("GET", &path, &[("If-None-Match", &etag)], 304, 0),
        ("GET", &path, &[("Range", "bytes=2-4")], 206, 3),
        ("HEAD", &path, &[], 200, 0),
        ("GET", &format!("{path}x"), &[], 404, 0),
        ("POST", &path, &[("Content-Length", "0")], 405, 0),
        ("GET", &path, &[("Host", "a"), ("Host", "b")], 400, 0),
    ];
    for (method, path, fields, status, _) in &table {
        site.request(method, path, fields).await.expect(*status);
    }
    let stream = connect(&site, &trusted, b"h2").await.unwrap();
    body_over_http2(stream, &path).await;
    site.stop().await;

    let mut lines = lines(&file);
    assert_eq!(lines.len(), 10, "{lines:#?}");
    lines.sort_by(|a, b| a["time"].as_str().cmp(&b["time"].as_str()));
    let (cold, over_http2) = (
        &lines[0],
        lines.iter().find(|line| line["version"] == "HTTP/2.0"),
    );
    assert_eq!(
        (&cold["cache"], &cold["status"]),
        (&json!("cold"), &json!(200))
    );
    assert!(cold["duration"].as_f64() > Some(0.0), "{cold}");
    let over_http2 = over_http2.expect("a line of HTTP/2");
    assert_eq!(
        (&over_http2["bytes"], &over_http2["host"]),
        (&json!(12), &json!("localhost"))
    );
    for (method, target, fields, status, bytes) in &table {
        let same = |line: &&serde_json::Value| {
            line["method"] == *method
                && line["target"] == *target
                && line["status"] == *status
                && line["cache"] != "cold"
                && line["version"] == "HTTP/1.1"
        };
        let line = lines.iter().find(same);
        let line = line.unwrap_or_else(|| panic!("no {method} {target} {status} in {lines:#?}"));
        if *status < 400 {
            assert_eq!(line["bytes"], *bytes, "{line}");
            assert_eq!(line["reference"], reference.as_str(), "{line}");
            assert_eq!(line["cache"], "warm", "{line}");
        } else {
            assert!(line["bytes"].as_u64() > Some(0), "{line}");
        }
        if fields.contains(&agent) {
            assert_eq!(line["userAgent"], agent.1);
        }
        assert_eq!(line["remote"], "127.0.0.1");
    }
    let referred = lines.iter().filter(|line| line["referer"] == "http://r/");
    assert_eq!(referred.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_from_memory_and_clients_that_leave_are_logged_as_well() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("small.txt", "small")
        .file("large.bin", noise(1, 16 << 20));
    registry.push("team/app", "v1", &Image::of(layer));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let settings = json!({"accessLog": {"format": "json", "file": file}});
    let site = Site::start(&[&registry], settings).await;
    let (small, large) = (
        registry.path("team/app:v1", "/small.txt"),
        registry.path("team/app:v1", "/large.bin"),
    );
    // On one connection the second and third answer need nobody who decides.
    let mut client = TcpStream::connect(site.client.0).await.unwrap();
    for _ in 0..3 {
        let request = format!("GET {small} HTTP/1.1\r\nHost: x\r\nUser-Agent: keep\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nsmall") {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0);
        }
    }
    for _ in 0..2 {
        let mut client = TcpStream::connect(site.client.0).await.unwrap();
        let request = format!("GET {large} HTTP/1.1\r\nHost: x\r\nUser-Agent: leave\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        client.read_exact(&mut [0; 100]).await.unwrap();
    }
    site.stop().await;
    let lines = lines(&file);
    let of = |agent: &str| -> Vec<_> {
        let lines = lines.iter().filter(|line| line["userAgent"] == agent);
        lines
            .map(|line| (line["status"].clone(), line["bytes"].as_u64()))
            .collect()
    };
    assert_eq!(of("keep"), vec![(json!(200), Some(5)); 3]);
    let left = of("leave");
    assert_eq!(left.len(), 2, "{lines:#?}");
    for (status, bytes) in left {
        assert_eq!(status, 200);
        assert!(bytes > Some(0) && bytes < Some(16 << 20), "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_in_full_and_logged_on_either_transport() {
    let directory = tempfile::tempdir().unwrap();
    let trusted = certificate(directory.path());
    let file = directory.path().join("access.log");
    let settings = json!({
        "accessLog": {"format": "json", "file": file},
        "tls": tls(directory.path()),
        "prometheusAddr": "127.0.0.1:0",
    });
    let site = Site::start(&[], settings).await;
    let long = "x".repeat(70_000);
    let many = "A: b\r\n".repeat(101);
    // What is sent, the status, and method and target in the log.
    let table: [(String, u16, &str, &str); 8] = [
        (
            "GET /a HTTP/3.7\r\nHost: x\r\n\r\n".into(),
            400,
            "GET",
            "/a",
        ),
        (
            "GET /b HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n".into(),
            400,
            "GET",
            "/b",
        ),
        (
            "POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n".into(),
            400,
            "POST",
            "/c",
        ),
        ("\u{1}garbage\r\n\r\n".into(), 400, "-", "\u{1}garbage"),
        (
            format!("GET /d HTTP/1.1\r\nA: {long}\r\n\r\n"),
            431,
            "GET",
            "/d",
        ),
        (format!("GET /e HTTP/1.1\r\n{many}\r\n"), 431, "GET", "/e"),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414, "GET", ""),
        // After an odd request, too.
        (
            "OPTIONS /f HTTP/1.1\r\nHost: x\r\n\r\nGET /g HTTP/1.1\r\n: b\r\n\r\n".into(),
            400,
            "GET",
            "/g",
        ),
    ];
    for (sent, status, ..) in &table {
        let mut clear = TcpStream::connect(site.client.0).await.unwrap();
        let mut secret = connect(&site, &trusted, b"http/1.1").await.unwrap();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        clear.write_all(sent.as_bytes()).await.unwrap();
        clear.read_to_end(&mut first).await.unwrap();
        secret.write_all(sent.as_bytes()).await.unwrap();
        secret.read_to_end(&mut second).await.unwrap();
        for all in [first, second] {
            let text = String::from_utf8(all).unwrap();
            let at = text
                .rfind("HTTP/1.1 ")
                .unwrap_or_else(|| panic!("{text:?}"));
            let answer = &text[at..];
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            for field in [
                "content-type: text/plain; charset=utf-8",
                "x-content-type-options: nosniff",
                "cache-control: no-store",
                "connection: close",
            ] {
                assert!(answer.contains(&format!("\r\n{field}\r\n")), "{answer}");
            }
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(body.len() > 1 && body.ends_with('\n'), "{answer}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
        }
    }
    let counts = site.metrics().request("GET", "/metrics", &[]).await.text();
    let line = r#"http_server_requests_total{code="431",method="get"} 4"#;
    assert!(counts.contains(line), "{counts}");
    site.stop().await;
    let lines = lines(&file);
    assert_eq!(lines.len(), 2 * table.len() + 2, "{lines:#?}");
    for (_, status, method, target) in table {
        let same = |line: &&serde_json::Value| {
            let said = line["target"].as_str().unwrap_or_default();
            line["status"] == status
                && line["method"] == method
                && (said == target || (target.is_empty() && said.starts_with("/xxx")))
        };
        let found = lines.iter().filter(same);
        assert_eq!(
            found.clone().count(),
            2,
            "{status} {method} {target}: {lines:#?}"
        );
        for line in found {
            assert!(line["bytes"].as_u64() > Some(0), "{line}");
        }
    }
}
