//! The loop beside hyper, which reads the same bytes.

use super::*;
use crate::http::transport::Transport;
use hyper::body::Incoming;
use hyper::server::conn;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

/// Answers with what it understood of a request.
struct Echo;

impl Respond for Echo {
    async fn respond(&self, request: &Parts) -> Response<Body> {
        let old = request.version == Version::HTTP_10;
        let mut text = format!("{} {} {old}", request.method, request.uri);
        for (name, value) in &request.headers {
            // hyper leaves one of two that are the same.
            if name == header::CONTENT_LENGTH {
                continue;
            }
            let value = String::from_utf8_lossy(value.as_bytes());
            text += &format!(" {name}={value}");
        }
        let response = Response::new(Body::from(text));
        match request.method {
            Method::HEAD => crate::http::serve::without_body(response),
            _ => response,
        }
    }

    fn answered(&self, _: &Method, _: StatusCode, _: Duration) {}
}

async fn own(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (pulse, lifecycle) = (Pulse::new(), Lifecycle::default());
        let mut socket = Socket::new(Transport::Plain(stream), pulse.clone());
        converse(&mut socket, &pulse, &lifecycle, &Echo).await;
    }
}

async fn hypers(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(async |request: http::Request<Incoming>| {
            let (request, _) = request.into_parts();
            Ok::<_, Infallible>(Echo.respond(&request).await)
        });
        let connection = conn::http1::Builder::new()
            .max_buf_size(MOST_HEAD)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        // What it refused it has answered.
        let _ = connection.await;
    }
}

/// Status and body of each answer; what a refusal says is not compared.
fn answers(bytes: &[u8]) -> Vec<(u16, String)> {
    let text = String::from_utf8_lossy(bytes).replace("HTTP/1.0 ", "HTTP/1.1 ");
    let each = text.split("HTTP/1.1 ").skip(1).map(|answer| {
        let status = answer[..3].parse().unwrap();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, if status == 200 { body } else { "" }.to_owned())
    });
    each.collect()
}

async fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> Vec<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut all = Vec::new();
    // A far side that has seen enough resets: what came before that counts.
    if stream.write_all(bytes).await.is_ok() && stream.shutdown().await.is_ok() {
        let reading = stream.read_to_end(&mut all);
        let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
    }
    answers(&all)
}

/// One request or two, more or less well-formed.
fn request(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    let mut add = |words: &[&str]| text += words[random.usize(..words.len())];
    for _ in 0..2 {
        add(&[
            "GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "get", "G", "G\u{e4}T",
        ]);
        add(&[" ", " ", " ", " ", " ", "  ", "\t"]);
        add(&[
            "/a",
            "/a?x=%00",
            "/",
            "*",
            "docs",
            "http://h/a",
            "ftp://h/a",
            "//h/a",
            "/\u{e4}",
            "/a#f",
            "/<>\"",
            "",
        ]);
        add(&[" ", " ", " ", " ", ""]);
        add(&[
            "HTTP/1.1",
            "HTTP/1.1",
            "HTTP/1.1",
            "HTTP/1.0",
            "HTTP/2.0",
            "HTTP/1.1 ",
        ]);
        add(&["\r\n", "\r\n", "\r\n", "\n"]);
        for _ in 0..3 {
            add(&[
                "",
                "Host: h\r\n",
                "host:\r\n",
                "Range: bytes=0-0\r\n",
                "Connection: close\r\n",
                "Connection: keep-alive\r\n",
                "Connection: x, close\r\n",
                "Connection: close\r\nConnection: keep-alive\r\n",
                "Content-Length: 0\r\n",
                "Content-Length: +1\r\n",
                "Content-Length: 1, 1\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked, identity\r\n",
                "Transfer-Encoding: \u{b}chunked\r\n",
                "Expect: x\r\n",
                "A : b\r\n",
                " folded\r\n",
                "X: \u{1}\r\n",
                "X: a\n",
                "Accept-Encoding: gzip\r\n",
                "Upgrade: websocket\r\n",
                "\u{e4}: b\r\n",
            ]);
        }
        add(&["\r\n"]);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_and_hyper_read_the_same_requests_out_of_the_same_bytes() {
    let seed = std::env::var("BLOBSERVE_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("BLOBSERVE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let listeners = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let [own_at, hypers_at] = listeners.each_ref().map(|it| it.local_addr().unwrap());
    let [first, second] = listeners;
    tokio::spawn(own(first));
    tokio::spawn(hypers(second));
    let mut seen = [0; 3];
    for round in 0..1000 {
        let text = request(&mut random);
        let said = raw(own_at, text.as_bytes()).await;
        let hypers = raw(hypers_at, text.as_bytes()).await;
        let case = format!("seed {seed}, round {round}: {text:?}\n{said:?}\n{hypers:?}");
        // Who sends a body gets one answer, or 400 where its end is told in two ways.
        let body = text.contains("Transfer-Encoding: chunked\r\n");
        let ways =
            text.matches("Transfer-Encoding").count() + text.matches("Content-Length").count();
        let same = said.iter().zip(&hypers).take_while(|(a, b)| a == b).count();
        let as_hyper = same == said.len() && same == hypers.len();
        let shorter = body && same == said.len();
        let refused = body && ways > 1 && said[same..] == [(400, String::new())];
        assert!(as_hyper || shorter || refused, "{case}");
        for (status, _) in said {
            seen[usize::from(status != 200)] += 1;
        }
        seen[2] += usize::from(body);
    }
    assert!(
        seen.iter().all(|count| *count > 10),
        "seed {seed}: {seen:?}"
    );
}

#[tokio::test]
async fn a_client_of_http_1_0_that_asks_to_stay_is_told_that_it_may() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(own(listener));
    let ask = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(ask.repeat(2).as_bytes()).await.unwrap();
    stream.write_all(b"GET /b HTTP/1.0\r\n\r\n").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(
        all.matches("\r\nconnection: keep-alive\r\n").count(),
        2,
        "{all}"
    );
    assert_eq!(all.matches("\r\nconnection: close\r\n").count(), 1, "{all}");
    assert_eq!(answers(all.as_bytes()).len(), 3, "{all}");
}

#[tokio::test]
async fn a_client_that_sends_on_after_its_answer_can_still_read_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(own(listener));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MOST_HEAD));
    for (head, status) in [
        ("POST /a HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n", 200),
        ("POST /a HTTP/1.1\r\nContent-Length: 4000000x\r\n\r\n", 400),
        (&long, 414),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..1000 {
            stream.write_all(&[b'x'; 4000]).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let statuses: Vec<_> = answers(&all).iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [status]);
    }
}
