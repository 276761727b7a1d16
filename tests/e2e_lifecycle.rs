//! prePull, probes, metrics, drain, and the command line.
mod support;
use blobserve::config::Mode;
use blobserve::shutdown::Phase;
use std::time::Duration;
use support::*;

fn probes() -> serde_json::Value {
    json!({"readinessProbeAddr": "127.0.0.1:0", "prometheusAddr": "127.0.0.1:0"})
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_503_until_pre_pull_has_ended_and_live_is_200_at_once() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::page("hello"));
    let hold = Some(Duration::from_millis(800));
    registry
        .fault(Fault::StallBeforeHeaders(hold))
        .on_blob(&image.layers[0]);
    let mut settings = probes();
    settings["repos"] = json!({registry.name("team/app"): {"prePull": ["v1"]}});
    let site = Site::launch(Mode::Serve, &[&registry], settings).await;
    site.probe().request("GET", "/live", &[]).await.expect(200);
    site.probe().request("GET", "/ready", &[]).await.expect(503);
    tokio::time::timeout(Duration::from_secs(20), site.phase_reached(Phase::Ready))
        .await
        .unwrap();
    site.probe().request("GET", "/ready", &[]).await.expect(200);
    site.probe()
        .request("GET", "/ready?full=1", &[])
        .await
        .expect(200);
    let asked = registry.requests();
    assert_eq!(
        site.get(&registry.path("team/app:v1", "/"))
            .await
            .expect(200)
            .text(),
        "hello"
    );
    assert_eq!(registry.requests(), asked, "it was here already");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pre_pull_of_a_tag_that_is_known_survives_any_outage_and_of_another_is_fatal() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("hello"));
    let settings = |tag: &str| {
        json!({
            "tagTtl": "1ms", "staleIfError": "1ms",
            "repos": {registry.name("team/app"): {"prePull": [tag]}},
            "blobSpace": {"location": directory.path()},
        })
    };
    let site = Site::start(&[&registry], settings("v1")).await;
    site.stop().await;
    let refusal = Fault::Status {
        code: 500,
        retry_after: None,
    };
    registry.fault(refusal).on_anything();
    let site = Site::start(&[&registry], settings("v1")).await;
    site.stop().await;
    let mut site = Site::launch(Mode::Serve, &[&registry], settings("v2")).await;
    let mut service = site.take();
    let failed = tokio::time::timeout(Duration::from_secs(20), service.failed()).await;
    assert!(failed.unwrap().contains("team/app:v2"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_registry_follows_the_registry_and_self_does_not() {
    for (readiness, status) in [("self", 200), ("registry", 503)] {
        let registry = Registry::start().await;
        let mut settings = probes();
        settings["readiness"] = json!(readiness);
        settings["repos"] = json!({registry.name("team/app"): {}});
        let site = Site::start(&[&registry], settings).await;
        site.probe().request("GET", "/ready", &[]).await.expect(200);
        drop(registry);
        let mut got = 0;
        // What the probe found may be remembered for a moment.
        for _ in 0..100 {
            got = site.probe().request("GET", "/ready", &[]).await.status;
            if got == 503 || readiness == "self" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(got, status, "{readiness}");
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_answers_go_on_and_then_it_ends() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("hello"));
    let mut settings = probes();
    settings["drainDelay"] = json!("1500ms");
    let mut site = Site::start(&[&registry], settings).await;
    let path = registry.path("team/app:v1", "/");
    site.get(&path).await.expect(200);
    let (probe, client) = (site.probe(), site.client);
    let stop = tokio::spawn(site.take().stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    probe.request("GET", "/ready", &[]).await.expect(503);
    let answer = client.request("GET", &path, &[]).await.expect(200);
    let connection = answer.header("connection").unwrap_or_default();
    assert!(connection.eq_ignore_ascii_case("close"), "{connection}");
    tokio::time::timeout(Duration::from_secs(15), stop)
        .await
        .unwrap()
        .unwrap();
    assert!(
        client.try_request("GET", &path, &[]).await.is_err(),
        "nobody listens"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_hold_up_the_end_and_a_slow_answer_is_finished() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let registry = Registry::start().await;
    let big = noise(7, 24 << 20);
    let layer = Layer::new().file("index.html", "hello").file("big", &big);
    registry.push("team/app", "v1", &Image::of(layer));
    let mut site = Site::start(&[&registry], json!({"drainDelay": "100ms"})).await;
    let path = registry.path("team/app:v1", "/big");
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    let address = site.client.0;
    let mut open = Vec::new();
    for said in [
        "",
        "P",
        "GET / HTTP/1.1\r\nHo",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(said.as_bytes()).await.unwrap();
        open.push(socket);
    }
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    slow.readable().await.unwrap();
    let stop = tokio::spawn(site.take().stop());
    // Longer than silent connections are given; nothing of the answer is read meanwhile.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for mut socket in open {
        let mut said = Vec::new();
        let end = socket.read_to_end(&mut said);
        let end = tokio::time::timeout(Duration::from_secs(5), end).await;
        assert!(end.is_ok(), "a silent connection is still open");
    }
    assert!(!stop.is_finished(), "an answer is in flight");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&big), "{} bytes came", answer.len());
    let stopped = tokio::time::timeout(Duration::from_secs(5), stop).await;
    stopped.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_fails_cold_waiters_with_503() {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::page("hello"));
    registry
        .fault(Fault::StallBeforeHeaders(None))
        .on_blob(&image.layers[0]);
    let mut site = Site::start(&[&registry], json!({"drainDelay": "1s"})).await;
    let (client, path) = (site.client, registry.path("team/app:v1", "/"));
    let waiter = tokio::spawn(async move { client.try_request("GET", &path, &[]).await });
    registry.asked("GET", &image.layers[0]).await;
    let stop = tokio::spawn(site.take().stop());
    assert_eq!(waiter.await.unwrap().unwrap().status, 503);
    tokio::time::timeout(Duration::from_secs(20), stop)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_under_the_names_that_are_scraped_today() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("hello"));
    let site = Site::start(&[&registry], probes()).await;
    let path = registry.path("team/app:v1", "/");
    for _ in 0..3 {
        site.request("GET", &path, &[]).await.expect(200);
    }
    site.request("GET", &registry.path("team/app:v1", "/none"), &[])
        .await
        .expect(404);
    let text = site
        .metrics()
        .request("GET", "/metrics", &[])
        .await
        .expect(200)
        .text();
    let value = |name: &str, method: &str, code: &str| {
        let fits = |line: &&str| {
            line.starts_with(&format!("{name}{{"))
                && line
                    .to_ascii_lowercase()
                    .contains(&format!("method=\"{method}\""))
                && line.contains(&format!("code=\"{code}\""))
        };
        let line = text
            .lines()
            .find(fits)
            .unwrap_or_else(|| panic!("no {name} {method} {code}:\n{text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("http_server_requests_total", "get", "200") as u64, 3);
    assert_eq!(value("http_server_requests_total", "get", "404") as u64, 1);
    assert_eq!(
        value("http_server_requests_duration_seconds_count", "get", "200") as u64,
        3
    );
    assert!(value("http_client_requests_total", "get", "200") >= 2.0);
    assert!(value("http_client_requests_duration_seconds_count", "get", "200") >= 2.0);
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
    site.stop().await;
}

fn write(directory: &std::path::Path, config: &serde_json::Value) -> String {
    let path = directory.join("config.json");
    std::fs::write(&path, config.to_string()).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_to_pre_pull_that_does_not_exist_is_fatal_and_named() {
    let registry = Registry::start().await;
    let directory = tempfile::tempdir().unwrap();
    let settings = json!({"repos": {registry.name("team/app"): {"prePull": ["missing-tag"]}}});
    let config = service::configuration(directory.path(), &[&registry], &settings);
    let config = write(directory.path(), &config);
    let ended = tokio::task::spawn_blocking(move || Process::run(&["serve", "--config", &config]));
    let (code, text) = ended.await.unwrap();
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {text}");
    assert!(text.contains("missing-tag"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_to_pre_pull_that_is_known_on_disk_is_enough_when_the_registry_is_down() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("hello"));
    let directory = tempfile::tempdir().unwrap();
    let settings =
        json!({"repos": {registry.name("team/app"): {"prePull": ["v1"]}}, "tagTtl": "1s"});
    let config = service::configuration(directory.path(), &[&registry], &settings);
    let config = write(directory.path(), &config);
    let path = registry.path("team/app:v1", "/");
    let process = Process::serve(config.as_ref());
    process.client.request("GET", &path, &[]).await.expect(200);
    process.kill();
    drop(registry);
    let process = Process::serve(config.as_ref());
    process.client.request("GET", &path, &[]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_starts_from_the_json_file_of_an_existing_installation() {
    let registry = Registry::start().await;
    registry.push(
        "team/app",
        "v1",
        &Image::of(Layer::new().file("w/index.html", "hello")),
    );
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "blobserve": {
            "port": 0,
            "timeout": "5s",
            "repos": {registry.name("team/app"): {"prePull": ["v1"], "workdir": "/w", "replacements": [
                {"path": "/w/index.html", "search": "hello", "replacement": "hallo"},
            ]}},
            "allowAnyRepo": true,
            "blobSpace": {"location": directory.path().join("blobs"), "maxSizeBytes": 1_073_741_824},
        },
        "readinessProbeAddr": "127.0.0.1:0",
        "prometheusAddr": "127.0.0.1:0",
        "pprofAddr": "127.0.0.1:0",
        "unknownKey": 1,
    });
    let config = write(directory.path(), &config);
    let process = Process::start(&["run", &config]);
    let mut client = process.client;
    // It listens on all addresses; asked on loopback.
    client.0.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    let path = registry.path("team/app:v1", "/");
    let mut answer = client.request("GET", &path, &[]).await;
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = client.request("GET", &path, &[]).await;
    }
    assert_eq!(answer.expect(200).text(), "hallo");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_process_with_code_0() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("hello"));
    let directory = tempfile::tempdir().unwrap();
    let config = service::configuration(directory.path(), &[&registry], &json!({}));
    let config = write(directory.path(), &config);
    let mut process = Process::serve(config.as_ref());
    let path = registry.path("team/app:v1", "/");
    process.client.request("GET", &path, &[]).await.expect(200);
    process.terminate();
    let code = tokio::task::spawn_blocking(move || process.wait());
    let code = tokio::time::timeout(Duration::from_secs(15), code)
        .await
        .unwrap();
    assert_eq!(code.unwrap(), Some(0));
}

#[test]
fn check_says_what_is_wrong_without_starting() {
    let directory = tempfile::tempdir().unwrap();
    let good = service::configuration(directory.path(), &[], &json!({}));
    let good = write(directory.path(), &good);
    let (code, text) = Process::run(&["check", "--config", &good]);
    assert_eq!(code, Some(0), "{text}");
    let bad = json!({"blobserve": {"repos": {"registry.example.com/a": {"workdri": "/x"}}}});
    let bad = write(directory.path(), &bad);
    let (code, text) = Process::run(&["check", "--config", &bad]);
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    assert!(
        text.contains("workdri") && text.contains("`workdir`"),
        "{text}"
    );
    assert!(
        !directory.path().join("blobs").exists(),
        "nothing was started"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stopped_reading_does_not_hold_up_the_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let registry = Registry::start().await;
    let layer = Layer::new().file("big", noise(7, 40 << 20));
    registry.push("team/app", "v1", &Image::of(layer));
    let settings = json!({"drainDelay": "0s", "listing": true});
    let mut site = Site::start(&[&registry], settings).await;
    site.head(&registry.path("team/app:v1", ""))
        .await
        .expect(200);
    let mut open = Vec::new();
    // The file goes out by our own loop, what is made while it is sent by hyper.
    for target in ["/big", "/?download=tgz", "/?download=zip"] {
        let path = registry.path("team/app:v1", target);
        let mut socket = tokio::net::TcpStream::connect(site.client.0).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200", "{target}");
        open.push(socket);
    }
    let stop = tokio::time::timeout(Duration::from_secs(20), site.take().stop());
    assert!(stop.await.is_ok(), "it waits for those who take nothing");
    drop(open);
}
