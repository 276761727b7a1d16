//! Downloads: torn, stalled, lying.

use super::*;
use std::future::Future;

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}

async fn all(blob: &mut Blob) -> Result<Vec<u8>, RegistryError> {
    let mut out = Vec::new();
    while let Some(piece) = blob.next().await? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

async fn download(server: &Server, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let registries = client(&naming(&[&server.host]));
    all(&mut registries.blob(&app(&server.host), descriptor, &[]).await?).await
}

fn first(asked: &Asked) -> usize {
    let range = asked
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="));
    range
        .and_then(|range| range.strip_suffix('-'))
        .map_or(0, |n| n.parse().expect("range"))
}

fn partial(content: &[u8], from: usize) -> Answer {
    let last = content.len() - 1;
    answer(206)
        .header(
            "Content-Range",
            format!("bytes {from}-{last}/{}", content.len()),
        )
        .body(&content[from..])
}

#[tokio::test]
async fn a_torn_blob_is_resumed_where_it_ended() {
    let content = bytes(100_000);
    let served = content.clone();
    let server = Server::start(move |asked, before| match (first(asked), before) {
        (0, _) => answer(200).body(&served[..]).fault(Fault::Tear(30_000)),
        (from, 1) => partial(&served, from).fault(Fault::Tear(1)),
        (_, 2) => answer(503),
        (from, 3) => partial(&served, from).fault(Fault::Unframed(5_000)),
        (from, _) => partial(&served, from),
    })
    .await;
    assert!(
        download(&server, &descriptor(&content))
            .await
            .expect("blob")
            == content
    );
    let from: Vec<_> = server.asked().iter().map(first).collect();
    assert_eq!(from, [0, 30_000, 30_001, 30_001, 35_001]);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_again_from_the_start() {
    let content = bytes(50_000);
    let served = content.clone();
    let server = Server::start(move |_, before| {
        let fault = if before == 0 {
            Fault::Tear(20_000)
        } else {
            Fault::None
        };
        answer(200).body(&served[..]).fault(fault)
    })
    .await;
    assert!(
        download(&server, &descriptor(&content))
            .await
            .expect("blob")
            == content
    );
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn resuming_ends() {
    let content = bytes(1_000);
    let served = content.clone();
    let server = Server::start(move |asked, _| match first(asked) {
        0 => answer(200).body(&served[..]).fault(Fault::Tear(10)),
        from => partial(&served, from).fault(Fault::Tear(10)),
    })
    .await;
    let failing = RegistryErrorKind::Failing { retry_after: None };
    let result = download(&server, &descriptor(&content)).await;
    refused(
        result,
        failing,
        "connection broke at byte 60 of 1000 after 6 attempts",
    );
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn a_wrong_range_is_refused() {
    for range in ["bytes 5-999/1000", "bytes */1000", "nonsense", ""] {
        let content = bytes(1_000);
        let served = content.clone();
        let server = Server::start(move |asked, _| match first(asked) {
            0 => answer(200).body(&served[..]).fault(Fault::Tear(10)),
            _ => answer(206)
                .header("Content-Range", range)
                .body(&served[5..]),
        })
        .await;
        let result = download(&server, &descriptor(&content)).await;
        refused(result, RegistryErrorKind::Wrong, "another range");
    }
    let server = Server::start(|_, _| partial(&bytes(10), 0)).await;
    let result = download(&server, &descriptor(&bytes(10))).await;
    refused(result, RegistryErrorKind::Wrong, "another range");
}

#[tokio::test]
async fn a_longer_blob_shows_by_one_byte_and_a_shorter_one_by_its_end() {
    let content = bytes(1_000_000);
    let served = content.clone();
    let server = Server::start(move |_, _| answer(200).body(&served[..])).await;
    let mut short = descriptor(&content);
    short.size = 1_000;
    assert_eq!(download(&server, &short).await.expect("blob").len(), 1_001);
    let mut long = descriptor(&content);
    long.size = u64::MAX;
    assert_eq!(
        download(&server, &long).await.expect("blob").len(),
        1_000_000
    );
    assert_eq!(server.asked().len(), 2, "a proper end is not resumed");
}

#[tokio::test]
async fn a_stall_is_silence_and_polling_does_not_prolong_it() {
    let content = bytes(1_000);
    let server =
        Server::start(|_, _| answer(200).body(bytes(1_000)).fault(Fault::Stall(100))).await;
    let registries = client(&naming(&[&server.host]));
    let mut blob = registries
        .blob(&app(&server.host), &descriptor(&content), &[])
        .await
        .expect("headers");
    let mut got = 0;
    while got < 100 {
        got += blob.next().await.expect("piece").expect("more").len();
    }
    let (start, mut polls) = (Instant::now(), 0);
    let result = loop {
        polls += 1;
        match tokio::time::timeout(Duration::from_millis(50), blob.next()).await {
            Ok(result) => break result,
            Err(_) => assert!(polls < 100, "the stall has no end"),
        }
    };
    refused(
        result,
        RegistryErrorKind::Silent,
        "no further byte within 0.4 s",
    );
    assert!(
        polls > 3 && start.elapsed() < Duration::from_secs(2),
        "{polls} polls, {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_next_that_is_dropped_loses_nothing() {
    let content = bytes(300_000);
    let served = content.clone();
    let server = Server::start(move |asked, _| match first(asked) {
        from if from < 250_000 => {
            let answer = if from == 0 {
                answer(200).body(&served[..])
            } else {
                partial(&served, from)
            };
            answer.fault(Fault::Tear(70_000))
        }
        from => partial(&served, from),
    })
    .await;
    let registries = client(&naming(&[&server.host]));
    let mut blob = registries
        .blob(&app(&server.host), &descriptor(&content), &[])
        .await
        .expect("headers");
    let mut out = Vec::new();
    loop {
        // Polled once and dropped, again and again.
        let polled = {
            let mut next = std::pin::pin!(blob.next());
            std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx))).await
        };
        match polled {
            std::task::Poll::Ready(piece) => match piece.expect("piece") {
                Some(piece) => out.extend_from_slice(&piece),
                None => break,
            },
            std::task::Poll::Pending => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    assert!(out == content, "{} of {} bytes", out.len(), content.len());
}

#[tokio::test]
async fn an_encoded_answer_is_not_decoded() {
    let content = bytes(1_000);
    let server = Server::start(|_, _| {
        answer(200)
            .header("Content-Encoding", "gzip")
            .body(bytes(1_000))
    })
    .await;
    assert!(
        download(&server, &descriptor(&content))
            .await
            .expect("blob")
            == content
    );
    assert_eq!(
        server.asked()[0].header("accept-encoding"),
        Some("identity")
    );
}

#[tokio::test]
async fn a_missing_blob_is_not_found_and_urls_are_not_asked() {
    let elsewhere = Server::start(|_, _| answer(200).body("x")).await;
    let server = Server::start(|_, _| answer(404)).await;
    let mut foreign = descriptor(b"x");
    foreign.urls = vec![format!("http://{}/x", elsewhere.host)];
    let result = download(&server, &foreign).await;
    refused(result, RegistryErrorKind::NotFound, "404 Not Found");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_probe_says_yes_by_200_alone_also_behind_a_redirect() {
    let missing = Some(RegistryErrorKind::NotFound);
    let denied = Some(RegistryErrorKind::Denied);
    let table = [
        (200, 500, None, 1),
        (404, 500, missing, 1),
        (403, 500, denied, 1),
        (307, 200, None, 2),
        (307, 404, missing, 2),
        (302, 403, denied, 2),
    ];
    for (status, behind, expected, requests) in table {
        let server = Server::start(move |asked, _| match asked.target.starts_with("/v2/") {
            true => answer(status).header("Location", "/storage/x"),
            false => answer(behind),
        })
        .await;
        let digest = Digest::sha256(b"x");
        let result = client(&naming(&[&server.host]))
            .probe_blob(&app(&server.host), &digest)
            .await;
        assert_eq!(
            result.err().map(|error| error.kind),
            expected,
            "{status} {behind}"
        );
        let lines = server.lines();
        assert_eq!(lines.len(), requests, "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("HEAD ")));
    }
}

#[tokio::test]
async fn a_mirror_that_tears_is_resumed_at_the_registry() {
    let content = bytes(10_000);
    let (served, original) = (content.clone(), content.clone());
    let mirror = Server::start(move |asked, _| match first(asked) {
        0 => answer(200).body(&served[..]).fault(Fault::Tear(4_000)),
        _ => answer(500),
    })
    .await;
    let upstream = Server::start(move |asked, _| partial(&original, first(asked))).await;
    let mut config = naming(&[&upstream.host]);
    let mirrors = vec![mirror.host.clone()];
    config.registries.insert(
        upstream.host.clone(),
        RegistryConfig {
            mirrors,
            ..Default::default()
        },
    );
    let registries = client(&config);
    let mut blob = registries
        .blob(&app(&upstream.host), &descriptor(&content), &[])
        .await
        .expect("headers");
    assert!(all(&mut blob).await.expect("blob") == content);
    assert_eq!(first(&upstream.asked()[0]), 4_000);
}

/// The configuration of `upstream` with these mirrors.
fn mirrored(upstream: &Server, mirrors: &[&Server], mirror_tags: bool) -> Config {
    let mut config = naming(&[&upstream.host]);
    config.registries.insert(
        upstream.host.clone(),
        RegistryConfig {
            mirrors: mirrors.iter().map(|mirror| mirror.host.clone()).collect(),
            mirror_tags,
            ..Default::default()
        },
    );
    config
}

#[tokio::test]
async fn a_mirror_that_falls_silent_is_left_for_the_next() {
    let content = bytes(10_000);
    let (served, second, original) = (content.clone(), content.clone(), content.clone());
    let silent =
        Server::start(move |_, _| answer(200).body(&served[..]).fault(Fault::Stall(4_000))).await;
    let next = Server::start(move |asked, _| partial(&second, first(asked))).await;
    let upstream = Server::start(move |asked, _| partial(&original, first(asked))).await;
    let registries = client(&mirrored(&upstream, &[&silent, &next], false));
    let (app, layer) = (app(&upstream.host), descriptor(&content));
    let mut blob = registries.blob(&app, &layer, &[]).await.expect("headers");
    assert!(all(&mut blob).await.expect("blob") == content);
    assert_eq!(first(&next.asked()[0]), 4_000);
    assert_eq!(upstream.asked().len(), 0);
    let namespace = format!("?ns={}", upstream.host.replace(':', "%3A"));
    assert!(next.asked()[0].target.ends_with(&namespace));
}

#[tokio::test]
async fn a_mirror_that_lied_is_not_asked_again() {
    let content = bytes(100);
    let (lies, original) = (bytes(99), content.clone());
    let liar = Server::start(move |_, _| answer(200).body(&lies[..])).await;
    let upstream = Server::start(move |_, _| answer(200).body(&original[..])).await;
    let config = mirrored(&upstream, &[&liar], false);
    let (registries, app, layer) = (client(&config), app(&upstream.host), descriptor(&content));
    let mut avoided = Vec::new();
    let mut blob = registries
        .blob(&app, &layer, &avoided)
        .await
        .expect("headers");
    assert!(all(&mut blob).await.expect("bytes") != content);
    assert!(blob.into_source().distrust(&mut avoided));
    let mut blob = registries
        .blob(&app, &layer, &avoided)
        .await
        .expect("headers");
    assert!(all(&mut blob).await.expect("bytes") == content);
    assert!(
        !blob.into_source().distrust(&mut avoided),
        "no mirror gave it"
    );
    assert_eq!(liar.asked().len(), 1);
}

#[tokio::test]
async fn mirrors_say_what_a_tag_means_only_where_configured() {
    for mirror_tags in [false, true] {
        let says = |text: &'static str| {
            move |_: &Asked, _: usize| {
                let digest = Digest::sha256(text.as_bytes());
                answer(200)
                    .header("Docker-Content-Digest", digest)
                    .body(text)
            }
        };
        let broken = Server::start(|_, _| answer(500)).await;
        let mirror = Server::start(says("{\"mirror\":1}")).await;
        let upstream = Server::start(says("{\"upstream\":1}")).await;
        let registries = client(&mirrored(&upstream, &[&broken, &mirror], mirror_tags));
        let app = app(&upstream.host);
        let expected = match mirror_tags {
            true => "{\"mirror\":1}",
            false => "{\"upstream\":1}",
        };
        let digest = registries.resolve(&app, "t").await.expect("a digest");
        assert_eq!(digest, Digest::sha256(expected.as_bytes()));
        let document = registries.manifest(&app, &tag("t")).await.expect("one");
        assert_eq!(document.bytes, expected);
        let asked = (
            broken.asked().len(),
            mirror.asked().len(),
            upstream.asked().len(),
        );
        // The broken one is left alone once it has failed.
        assert_eq!(asked, if mirror_tags { (1, 2, 0) } else { (0, 0, 2) });
    }
}
