//! The client against real sockets; see `server`.

mod auth;
mod download;
mod layout;
mod reach;
mod server;

use super::*;
use crate::config::{self, Config, Mode, RegistryConfig, RepoConfig};
use crate::metrics::Metrics;
use server::{Answer, Asked, Fault, Server, answer};
use std::time::{Duration, Instant};

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

/// A configuration as `serve` would have it, with nothing named.
fn config() -> Config {
    let text = "blobserve: {allowAnyRepo: true, staleIfError: 0s, limits: {manifestBytes: 4096}}";
    let loaded = config::parse(text, "tests.yaml", Mode::Serve);
    loaded.expect("a valid configuration").config
}

/// The configuration with `<host>/team/app` in `repos`.
fn naming(hosts: &[&str]) -> Config {
    let mut config = config();
    for host in hosts {
        config.repos.insert(app(host), RepoConfig::default());
    }
    config
}

fn app(host: &str) -> Repository {
    Repository::parse(&format!("{host}/team/app")).expect("name")
}

fn quick() -> Timeouts {
    let ms = Duration::from_millis;
    Timeouts {
        connect: ms(500),
        first_byte: ms(500),
        stall: ms(400),
        document: ms(2_000),
        retries: Retries {
            base: ms(5),
            cap: ms(20),
            ..Retries::default()
        },
        ..Timeouts::default()
    }
}

fn client(config: &Config) -> Registries {
    Registries::with_timeouts(config, Arc::new(Metrics::new()), quick()).expect("configuration")
}

fn tag(name: &str) -> Version {
    Version::Tag(name.into())
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    let (digest, size) = (Digest::sha256(bytes), bytes.len() as u64);
    Descriptor {
        media_type: "x/y".into(),
        digest,
        size,
        urls: vec![],
        annotations: Default::default(),
    }
}

/// Fetches the manifest of tag `t` with a client of its own.
async fn manifest(config: &Config, host: &str) -> Result<Document, RegistryError> {
    client(config).manifest(&app(host), &tag("t")).await
}

/// Checks kind and text of an error.
#[track_caller]
fn refused<T: std::fmt::Debug>(
    result: Result<T, RegistryError>,
    kind: RegistryErrorKind,
    text: &str,
) {
    let error = result.expect_err(text);
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains(text), "{error}, expected {text:?}");
    assert!(!error.message.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_manifest_is_fetched_with_all_types_accepted() {
    let server = Server::start(|_, _| {
        answer(200)
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .body(MANIFEST)
    })
    .await;
    let document = manifest(&naming(&[&server.host]), &server.host)
        .await
        .expect("manifest");
    assert_eq!(document.bytes, MANIFEST);
    assert_eq!(document.digest, Digest::sha256(MANIFEST.as_bytes()));
    assert_eq!(
        document.media_type.as_deref(),
        Some("application/vnd.oci.image.manifest.v1+json")
    );
    let asked = &server.asked()[0];
    assert_eq!(asked.target, "/v2/team/app/manifests/t");
    for part in [
        "oci.image.index",
        "oci.image.manifest",
        "manifest.list.v2",
        "manifest.v2",
    ] {
        assert!(
            asked.header("accept").expect("accept").contains(part),
            "{part}"
        );
    }
}

#[tokio::test]
async fn resolving_asks_head_and_falls_back_to_get() {
    let digest = Digest::sha256(MANIFEST.as_bytes());
    let with_head =
        Server::start(move |_, _| answer(200).header("Docker-Content-Digest", digest)).await;
    let no_digest = Server::start(|_, _| answer(200).body(MANIFEST)).await;
    let no_head = Server::start(|asked, _| match asked.method.as_str() {
        "HEAD" => answer(405),
        _ => answer(200).body(MANIFEST),
    })
    .await;
    for (server, methods) in [(with_head, 1), (no_digest, 2), (no_head, 2)] {
        let registries = client(&naming(&[&server.host]));
        assert_eq!(
            registries
                .resolve(&app(&server.host), "t")
                .await
                .expect("digest"),
            digest
        );
        assert_eq!(server.asked().len(), methods);
    }
    let server = Server::start(|_, _| answer(404)).await;
    let result = client(&naming(&[&server.host]))
        .resolve(&app(&server.host), "t")
        .await;
    refused(result, RegistryErrorKind::NotFound, "404 Not Found");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn bytes_that_are_not_what_was_asked_for_are_refused() {
    let lie = Digest::sha256(b"other");
    let server = Server::start(move |asked, _| match asked.target.rsplit('/').next() {
        Some("t") => answer(200)
            .header("Docker-Content-Digest", lie)
            .body(MANIFEST),
        _ => answer(200).body(MANIFEST),
    })
    .await;
    let (registries, app) = (client(&naming(&[&server.host])), app(&server.host));
    let wrong = RegistryErrorKind::Wrong;
    refused(
        registries.manifest(&app, &tag("t")).await,
        wrong,
        &format!("not {lie}"),
    );
    refused(
        registries.manifest(&app, &Version::Digest(lie)).await,
        wrong,
        &format!("not {lie}"),
    );
    let right = Version::Digest(Digest::sha256(MANIFEST.as_bytes()));
    assert!(registries.manifest(&app, &right).await.is_ok());
    let mut descriptor = descriptor(MANIFEST.as_bytes());
    assert!(registries.small_blob(&app, &descriptor).await.is_ok());
    descriptor.size += 1;
    refused(
        registries.small_blob(&app, &descriptor).await,
        wrong,
        "its descriptor says",
    );
    descriptor.size = 1 << 40;
    refused(
        registries.small_blob(&app, &descriptor).await,
        wrong,
        "limits.manifestBytes",
    );
}

#[tokio::test]
async fn an_oversize_manifest_is_refused_while_it_comes() {
    let announced = Server::start(|_, _| answer(200).header("Content-Length", 1_u64 << 40)).await;
    let endless = Server::start(|_, _| {
        answer(200)
            .body(vec![b' '; 1 << 20])
            .fault(Fault::Unframed(1 << 20))
    })
    .await;
    for server in [announced, endless] {
        let result = manifest(&naming(&[&server.host]), &server.host).await;
        refused(result, RegistryErrorKind::Wrong, "larger than 4096 bytes");
        assert_eq!(server.asked().len(), 1, "no retry");
    }
}

#[tokio::test]
async fn what_can_pass_is_asked_again_and_what_cannot_is_not() {
    let failing = |retry_after| RegistryErrorKind::Failing { retry_after };
    type Headers<'a> = &'a [(&'a str, &'a str)];
    // Status, headers, kind of the error, requests.
    let table: &[(u16, Headers<'_>, RegistryErrorKind, usize)] = &[
        (500, &[], failing(None), 4),
        (503, &[], failing(None), 4),
        (429, &[("Retry-After", "0")], failing(Some(0)), 4),
        (429, &[("Retry-After", "3600")], failing(Some(3600)), 1),
        (400, &[], RegistryErrorKind::Wrong, 1),
        (401, &[], RegistryErrorKind::Denied, 1),
        (403, &[], RegistryErrorKind::Denied, 1),
        (404, &[], RegistryErrorKind::NotFound, 1),
    ];
    for (status, headers, kind, requests) in table {
        let (status, headers): (u16, Vec<_>) = (*status, headers.to_vec());
        let server = Server::start(move |_, _| {
            headers
                .iter()
                .fold(answer(status), |answer, (name, value)| {
                    answer.header(name, value)
                })
        })
        .await;
        refused(
            manifest(&naming(&[&server.host]), &server.host).await,
            *kind,
            &status.to_string(),
        );
        assert_eq!(server.asked().len(), *requests, "{status}");
    }
    let server = Server::start(|_, before| match before {
        0 => answer(502),
        1 => answer(200).body(MANIFEST).fault(Fault::Tear(5)),
        2 => answer(429).header("Retry-After", "1"),
        _ => answer(200).body(MANIFEST),
    })
    .await;
    let start = Instant::now();
    assert!(
        manifest(&naming(&[&server.host]), &server.host)
            .await
            .is_ok()
    );
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "Retry-After was not waited for"
    );
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn errors_name_the_registry_the_thing_and_the_attempts() {
    let server = Server::start(|_, _| answer(503)).await;
    let error = manifest(&naming(&[&server.host]), &server.host)
        .await
        .expect_err("503");
    let host = &server.host;
    let expected = format!(
        "{host}: manifest of `{host}/team/app:t`: 503 Service Unavailable after 4 attempts"
    );
    assert_eq!(&*error.message, expected);
}

#[tokio::test]
async fn a_registry_that_is_not_there_or_says_nothing() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("address").to_string()
    };
    let failing = RegistryErrorKind::Failing { retry_after: None };
    refused(
        manifest(&naming(&[&gone]), &gone).await,
        failing,
        "connection refused",
    );
    for fault in [Fault::Mute, Fault::Stall(3)] {
        let server = Server::start(move |_, _| answer(200).body(MANIFEST).fault(fault)).await;
        let start = Instant::now();
        let result = manifest(&naming(&[&server.host]), &server.host).await;
        refused(result, RegistryErrorKind::Silent, "within 0.");
        assert!(
            start.elapsed() < Duration::from_millis(1_500),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(server.asked().len(), 1, "silence is not asked again");
    }
}

#[tokio::test]
async fn mirrors_are_asked_for_digests_only_and_left_alone_when_they_fail() {
    let upstream = Server::start(|_, _| answer(200).body(MANIFEST)).await;
    let lying = Server::start(|_, _| answer(200).body("lie")).await;
    let lacking = Server::start(|_, _| answer(404)).await;
    let having = Server::start(|_, _| answer(200).body(MANIFEST)).await;
    let mut config = naming(&[&upstream.host]);
    let mirrors = [&lying, &lacking, &having]
        .map(|server| server.host.clone())
        .to_vec();
    config.registries.insert(
        upstream.host.clone(),
        RegistryConfig {
            mirrors,
            ..Default::default()
        },
    );
    let (registries, app) = (client(&config), app(&upstream.host));
    let digest = Digest::sha256(MANIFEST.as_bytes());
    assert!(registries.manifest(&app, &tag("t")).await.is_ok());
    assert_eq!(
        upstream.asked().len(),
        1,
        "a tag is the registry's own matter"
    );
    for _ in 0..2 {
        let document = registries
            .manifest(&app, &Version::Digest(digest))
            .await
            .expect("mirrored");
        assert_eq!(document.bytes, MANIFEST);
    }
    let target = format!(
        "GET /v2/team/app/manifests/{digest}?ns={}",
        upstream.host.replace(':', "%3A")
    );
    assert_eq!(having.lines(), [target.clone(), target]);
    assert_eq!(
        (
            lying.asked().len(),
            lacking.asked().len(),
            upstream.asked().len()
        ),
        (1, 2, 1)
    );
    assert!(
        registries
            .small_blob(&app, &descriptor(MANIFEST.as_bytes()))
            .await
            .is_ok()
    );
    assert_eq!(upstream.asked().len(), 1);
}

#[tokio::test]
async fn readiness_takes_any_answer_below_500() {
    for (status, ready) in [
        (200, true),
        (401, true),
        (404, true),
        (500, false),
        (503, false),
    ] {
        let server = Server::start(move |_, _| answer(status)).await;
        let result = client(&naming(&[&server.host])).check(&server.host).await;
        assert_eq!(result.is_ok(), ready, "{status}: {result:?}");
        assert_eq!(server.lines(), ["GET /v2/"]);
    }
    assert!(
        client(&naming(&["no-such-host.invalid"]))
            .check("no-such-host.invalid")
            .await
            .is_err()
    );
    assert!(client(&config()).check("127.0.0.1:9").await.is_err());
}
