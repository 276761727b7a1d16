//! Real sockets, and the clock of the runtime where a time matters.

use super::*;
use crate::http::body::Body;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

/// Bytes of `/large`.
const LARGE: usize = 100_000;

/// A listener whose `/hang` never answers, whose `/slow` does after 20 s, and the rest at once.
struct Running {
    address: SocketAddr,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    ended: JoinHandle<()>,
    hangs: Arc<Hangs>,
}

struct Hello(Arc<Hangs>);

impl Respond for Hello {
    async fn respond(&self, request: &Parts) -> Response<Body> {
        match request.uri.path() {
            "/hang" => std::future::pending().await,
            "/counted" => {
                let hanging = Hanging::begin(&self.0);
                std::future::pending::<()>().await;
                drop(hanging);
            }
            "/large" => return Response::new(Body::from("x".repeat(LARGE))),
            "/slow" => tokio::time::sleep(Duration::from_secs(20)).await,
            _ => {}
        }
        Response::new(Body::from("hello".to_owned()))
    }

    fn answered(&self, _: &Method, _: StatusCode, _: Duration) {}
}

async fn running(most_connections: usize) -> Running {
    running_over(None, most_connections).await
}

/// An acceptor with a certificate for `localhost`, and a client that trusts it and offers `alpn`.
fn tls(alpn: &[&[u8]]) -> (TlsAcceptor, tokio_rustls::TlsConnector) {
    use rustls::pki_types::PrivateKeyDer;
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    (Arc::new(server).into(), Arc::new(client).into())
}

async fn running_over(tls: Option<TlsAcceptor>, most_connections: usize) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (lifecycle, metrics) = (Lifecycle::default(), Arc::new(Metrics::new()));
    let listen = Listen {
        reactors: None,
        places: Arc::new(Semaphore::new(most_connections)),
        lifecycle: lifecycle.clone(),
        limit: Duration::from_secs(5),
        tls,
        metrics: Some(metrics.clone()),
    };
    let hangs = Arc::<Hangs>::default();
    let hello = Arc::new(Hello(hangs.clone()));
    let ended = tokio::spawn(listen.run(listener, hello));
    Running {
        address,
        lifecycle,
        metrics,
        ended,
        hangs,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

/// Reads one answer whose body is `hello`; returns its head.
async fn hello(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nhello") {
        let read = client.read_buf(&mut text).await.unwrap();
        let so_far = String::from_utf8_lossy(&text);
        assert!(read > 0, "closed after {so_far:?}");
    }
    String::from_utf8(text).unwrap()
}

async fn rest(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = client.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_next_is_served() {
    let server = running(1).await;
    let mut first = server.connect().await;
    first.write_all(&get("/")).await.unwrap();
    hello(&mut first).await;
    let mut second = server.connect().await;
    second.write_all(&get("/")).await.unwrap();
    let refusal = rest(&mut second).await;
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    assert!(refusal.contains("\r\nRetry-After: 1\r\n"), "{refusal}");
    assert!(refusal.ends_with("\r\n\r\ntimeout"), "{refusal}");
    let counts = server.metrics.render();
    assert!(counts.contains("blobserve_connections 1"), "{counts}");
    assert!(
        counts.contains("blobserve_connections_refused_total 1"),
        "{counts}"
    );
    drop(first);
    for _ in 0..100 {
        let mut third = server.connect().await;
        third.write_all(&get("/")).await.unwrap();
        let mut start = [0; 12];
        third.read_exact(&mut start).await.unwrap();
        if &start == b"HTTP/1.1 200" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("its place was never given back");
}

/// What a client does: waits of seconds, and bytes.
enum Act {
    Wait(u64),
    Send(&'static [u8]),
    Hello,
}

#[tokio::test(start_paused = true)]
async fn each_way_to_be_slow_has_its_time() {
    use Act::{Hello, Send, Wait};
    const GET: Act = Send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    const SLOW: Act = Send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    // Seconds from the accept to the end, as the server sets it.
    let table: [(&str, &[Act], u64); 8] = [
        ("silence", &[], 14),
        ("half a preface", &[Send(b"PRI * HTTP/2.0")], 14),
        ("half a head", &[Wait(10), Send(b"GET / HT")], 14),
        (
            "a head that drips",
            &[
                Send(b"GET / HTTP/1.1\r\n"),
                Wait(5),
                Send(b"A: b\r\n"),
                Wait(5),
                Send(b"C: d\r\n"),
            ],
            14,
        ),
        ("a pause after an answer", &[GET, Hello], 75),
        (
            "a pause, an answer, a pause",
            &[GET, Hello, Wait(70), GET, Hello],
            145,
        ),
        (
            "half a second head",
            &[GET, Hello, Wait(60), Send(b"GET")],
            74,
        ),
        ("a slow answer, then a pause", &[SLOW, Hello], 95),
    ];
    let server = running(100).await;
    for (case, acts, seconds) in table {
        let started = tokio::time::Instant::now();
        let mut client = server.connect().await;
        for act in acts {
            match act {
                Wait(seconds) => tokio::time::sleep(Duration::from_secs(*seconds)).await,
                Send(bytes) => client.write_all(bytes).await.unwrap(),
                Hello => drop(hello(&mut client).await),
            }
        }
        assert_eq!(rest(&mut client).await, "", "{case}");
        assert_eq!(started.elapsed().as_secs(), seconds, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn draining_asks_to_leave_and_stopping_ends_within_the_limit() {
    let server = running(100).await;
    let (mut idle, mut busy, mut hanging) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    for client in [&mut idle, &mut busy] {
        client.write_all(&get("/")).await.unwrap();
        let head = hello(client).await;
        assert!(!head.contains("connection: close"), "{head}");
    }
    hanging.write_all(&get("/hang")).await.unwrap();
    server.lifecycle.enter(Phase::Draining);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // An idle connection is still served, and told.
    busy.write_all(&get("/")).await.unwrap();
    let head = hello(&mut busy).await;
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(rest(&mut busy).await, "");
    let mut late = server.connect().await;
    late.write_all(&get("/")).await.unwrap();
    assert!(hello(&mut late).await.contains("connection: close"));

    let stopped = tokio::time::Instant::now();
    server.lifecycle.enter(Phase::Stopping);
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(stopped.elapsed().as_secs(), 0, "idle ones go at once");
    server.ended.await.unwrap();
    assert_eq!(stopped.elapsed().as_secs(), 5, "the last one at the limit");
    assert_eq!(rest(&mut hanging).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn bodies_count_as_answered_until_they_are_dropped() {
    let pulse = Pulse::new();
    let body = Watched::new(Body::from("hello".to_owned()), pulse.answer());
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
    assert_eq!(pulse.due(), None);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    assert!(pulse.due().is_some());
}

#[tokio::test]
async fn alpn_or_else_the_first_bytes_choose_the_protocol_over_tls() {
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let get: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    // What is offered, what is sent, and how the answer begins: a SETTINGS frame or a status line.
    type Case<'a> = (&'a [&'a [u8]], &'a [u8], bool);
    let table: [Case<'_>; 5] = [
        (&[b"h2", b"http/1.1"], preface, true),
        (&[b"http/1.1"], get, false),
        (&[b"http/1.1", b"h2"], preface, true),
        (&[], get, false),
        (&[], preface, true),
    ];
    for (alpn, sent, http2) in table {
        let (acceptor, connector) = tls(alpn);
        let server = running_over(Some(acceptor), 100).await;
        let name = "localhost".try_into().unwrap();
        let mut client = connector
            .connect(name, server.connect().await)
            .await
            .unwrap();
        client.write_all(sent).await.unwrap();
        let mut start = [0; 9];
        client.read_exact(&mut start).await.unwrap();
        assert_eq!(&start[..8] == b"HTTP/1.1", !http2, "{alpn:?}: {start:?}");
        assert_eq!(start[3] == 4, http2, "{alpn:?}: {start:?}");
        assert!(
            server
                .metrics
                .render()
                .contains("handshakes_failed_total 0")
        );
    }
    let (acceptor, connector) = tls(&[b"spdy/3"]);
    let server = running_over(Some(acceptor), 100).await;
    let name = "localhost".try_into().unwrap();
    let refused = connector.connect(name, server.connect().await).await;
    assert!(refused.is_err(), "a protocol that we do not speak");
    assert!(
        server
            .metrics
            .render()
            .contains("handshakes_failed_total 1")
    );
}

#[tokio::test(start_paused = true)]
async fn slowness_over_tls_has_the_same_time_from_the_accept() {
    // What is sent in cleartext, and after a handshake.
    type Case<'a> = (&'a str, &'a [u8], Option<&'a [u8]>);
    let table: [Case<'_>; 5] = [
        ("silence", b"", None),
        ("half a hello", b"\x16\x03\x01\x02\0\x01\0", None),
        ("silence after the handshake", b"", Some(b"")),
        ("half a preface", b"", Some(b"PRI * HT")),
        ("half a head", b"", Some(b"GET / HTTP/1.1\r\n")),
    ];
    let (acceptor, connector) = tls(&[]);
    let server = running_over(Some(acceptor), 100).await;
    for (case, clear, secret) in table {
        let started = tokio::time::Instant::now();
        let mut client = server.connect().await;
        client.write_all(clear).await.unwrap();
        match secret {
            None => drop(rest(&mut client).await),
            Some(secret) => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let name = "localhost".try_into().unwrap();
                let mut client = connector.connect(name, client).await.unwrap();
                client.write_all(secret).await.unwrap();
                let mut left = Vec::new();
                let _ = client.read_to_end(&mut left).await;
                assert!(left.is_empty(), "{case}: {left:?}");
            }
        }
        assert_eq!(started.elapsed().as_secs(), 14, "{case}");
    }
    let counts = server.metrics.render();
    assert!(counts.contains("handshakes_failed_total 1"), "{counts}");
    assert!(counts.contains("blobserve_connections 0"), "{counts}");
}

/// Requests that hang now, and the most that did at once.
#[derive(Default)]
struct Hangs {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Hanging(Arc<Hangs>);

impl Hanging {
    fn begin(hangs: &Arc<Hangs>) -> Hanging {
        let now = 1 + hangs.now.fetch_add(1, Ordering::Relaxed);
        hangs.most.fetch_max(now, Ordering::Relaxed);
        Hanging(hangs.clone())
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

mod http2;
