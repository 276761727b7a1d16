//! HTTP/2, frame by frame.

use super::*;
use tokio::io::{AsyncRead, AsyncWrite};

#[test]
fn an_empty_body_is_said_to_be_one() {
    let table = [
        (200, Body::default(), None, Some("0")),
        (404, Body::default(), None, Some("0")),
        (200, Body::default(), Some("7"), Some("7")),
        (204, Body::default(), None, None),
        (304, Body::default(), None, None),
        (200, Body::from("a".to_owned()), None, None),
        (200, Body::unmeasured(), None, None),
    ];
    for (status, body, said, expected) in table {
        let mut response = Response::new(body);
        *response.status_mut() = status.try_into().unwrap();
        if let Some(said) = said {
            let said = HeaderValue::from_static(said);
            response.headers_mut().insert(header::CONTENT_LENGTH, said);
        }
        measure(&mut response);
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.map(|length| length.to_str().unwrap());
        assert_eq!(length, expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn http_2_without_a_whole_head_is_closed_before_the_limit() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let begun = |head: &[u8]| [PREFACE, &frame(4, 0, 0, &[]), head].concat();
    // HEADERS without END_HEADERS, what it says to come of it, and what it is continued by.
    let (open, cut) = (frame(1, 0x1, 1, b"\x82\x86"), frame(1, 0x5, 1, b"\x82\x86"));
    let table: [(&str, Vec<u8>, Vec<u8>); 7] = [
        ("a part of the preface", PREFACE[..23].to_vec(), Vec::new()),
        ("the preface", PREFACE.to_vec(), Vec::new()),
        ("a part of SETTINGS", begun(b"")[..30].to_vec(), Vec::new()),
        ("SETTINGS", begun(b""), Vec::new()),
        ("a part of HEADERS", begun(&cut[..10]), Vec::new()),
        ("HEADERS to be continued", begun(&open), Vec::new()),
        (
            "HEADERS that drip",
            begun(&open),
            frame(9, 0, 1, b"\0\x01a\x01b"),
        ),
    ];
    for secret in [false, true] {
        let (acceptor, connector) = tls(&[b"h2"]);
        let server = running_over(secret.then_some(acceptor), 100).await;
        for (case, sent, more) in &table {
            let started = tokio::time::Instant::now();
            let client = server.connect().await;
            let frames = if secret {
                let name = "localhost".try_into().unwrap();
                dripped(connector.connect(name, client).await.unwrap(), sent, more).await
            } else {
                dripped(client, sent, more).await
            };
            let took = started.elapsed();
            let range = HEAD_TIMEOUT..crate::http::socket::HEAD_LIMIT;
            assert!(range.contains(&took), "{case}, TLS {secret}: {took:?}");
            let goaway = memchr::memmem::find(&frames, b"\0\0\x08\x07\0").is_some();
            let known = sent.len() > 23;
            assert!(goaway || !known, "{case}, TLS {secret}: {frames:?}");
        }
    }
}

/// Sends the bytes, then `more` every 3 s; what came until the end.
async fn dripped(client: impl AsyncRead + AsyncWrite, sent: &[u8], more: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(client);
    writing.write_all(sent).await.unwrap();
    let dripping = async {
        while !more.is_empty() && writing.write_all(more).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut frames = Vec::new();
    tokio::select! {
        // A reset is an end, too.
        _ = reading.read_to_end(&mut frames) => {}
        () = dripping => {}
    }
    frames
}

#[tokio::test]
async fn http_2_by_prior_knowledge_is_served_and_sent_away_when_draining() {
    let server = running(100).await;
    let ask = async |sender: h2::client::SendRequest<Bytes>| {
        let request = Request::get("http://x/").body(()).unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let mut response = response.await.unwrap();
        let mut body = Vec::new();
        while let Some(data) = response.body_mut().data().await {
            body.extend_from_slice(&data.unwrap());
        }
        (response.status(), body)
    };
    let handshake = async || {
        let client = server.connect().await;
        let (sender, connection) = h2::client::handshake(client).await.unwrap();
        (sender, tokio::spawn(connection))
    };
    let (sender, connection) = handshake().await;
    let (status, body) = ask(sender.clone()).await;
    assert_eq!((status.as_u16(), body), (200, b"hello".to_vec()));
    server.lifecycle.enter(Phase::Draining);
    let (late, late_connection) = handshake().await;
    let (status, _) = ask(late).await;
    assert_eq!(status, 200, "one that comes late is answered first");
    for connection in [connection, late_connection] {
        let ended = tokio::time::timeout(Duration::from_secs(5), connection).await;
        let ended = ended.expect("it is sent away").unwrap();
        assert!(ended.is_ok(), "by GOAWAY, not by a cut: {ended:?}");
    }
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn ten_thousand_resets_are_sent_away_and_hold_up_nobody() {
    const GOAWAY: u8 = 7;
    let server = running(100).await;
    let mut attacker = server.connect().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    // GET, http, :path /counted, :authority x, from the static table of HPACK (RFC 7541 appendix A).
    let request = b"\x82\x86\x04\x08/counted\x01\x01x";
    for stream in (1..20_000).step_by(2) {
        bytes.extend(frame(1, 0x5, stream, request));
        bytes.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
    }
    let (mut reading, mut writing) = attacker.split();
    let attack = async {
        // What comes after it was sent away is refused.
        let _ = writing.write_all(&bytes).await;
        std::future::pending::<()>().await;
    };
    let outcome = async {
        loop {
            let mut head = [0; 9];
            reading.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            reading.read_exact(&mut payload).await.unwrap();
            if head[3] == GOAWAY {
                return payload[4..8].to_vec();
            }
        }
    };
    let told = async {
        tokio::select! {
            reason = outcome => reason,
            () = attack => Vec::new(),
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await;
    // ENHANCE_YOUR_CALM (RFC 9113 §7).
    assert_eq!(told.expect("it is sent away"), 0xbu32.to_be_bytes());
    let most = server.hangs.most.load(Ordering::Relaxed);
    assert!(most <= 2 * MOST_STREAMS as usize, "{most} at once");
    let mut other = server.connect().await;
    other.write_all(&get("/")).await.unwrap();
    hello(&mut other).await;
    drop(attacker);
    for _ in 0..500 {
        if server.hangs.now.load(Ordering::Relaxed) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "{} answers outlive their client",
        server.hangs.now.load(Ordering::Relaxed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_2_that_answers_pings_and_takes_nothing_is_closed() {
    const PING: u8 = 6;
    let server = running(100).await;
    let mut client = server.connect().await;
    let began = tokio::time::Instant::now();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    bytes.extend(frame(1, 0x5, 1, b"\x82\x86\x84\x01\x01x"));
    client.write_all(&bytes).await.unwrap();
    let mut head = [0; 9];
    let mut pings = 0;
    while client.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        client.read_exact(&mut payload).await.unwrap();
        assert_ne!(head[3], 0, "its window is closed");
        if head[3] == PING && head[4] == 0 {
            pings += 1;
            // It may be closed by now.
            let _ = client.write_all(&frame(PING, 1, 0, &payload)).await;
        }
    }
    let seconds = began.elapsed().as_secs();
    assert!((60..=62).contains(&seconds), "closed after {seconds} s");
    assert!(pings > 0, "it was asked whether it is there");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_http_2_that_is_not_taken_is_reset_while_others_move() {
    const DATA: u8 = 0;
    const RESET: u8 = 3;
    const WINDOW: u8 = 8;
    let server = running(100).await;
    let mut client = server.connect().await;
    let began = tokio::time::Instant::now();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let window = |stream: u32, more: u32| frame(WINDOW, 0, stream, &more.to_be_bytes());
    bytes.extend(window(0, 1 << 24));
    // Never taken; taken but for the last of it; taken byte by byte; taken at once, again and again.
    let large = b"\x82\x86\x04\x06/large\x01\x01x";
    bytes.extend(frame(1, 0x5, 1, large));
    bytes.extend(frame(1, 0x5, 3, large));
    bytes.extend(window(3, LARGE as u32 - 1));
    bytes.extend(frame(1, 0x5, 5, large));
    client.write_all(&bytes).await.unwrap();
    let (mut reading, mut writing) = client.into_split();
    let asking = tokio::spawn(async move {
        for round in 0..20_u32 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let stream = 7 + 2 * round;
            let mut bytes = frame(1, 0x5, stream, b"\x82\x86\x84\x01\x01x");
            bytes.extend(window(stream, 5));
            bytes.extend(window(5, 1));
            writing.write_all(&bytes).await.unwrap();
        }
        writing
    });
    let (mut taken, mut reset) = ([0; 60], Vec::new());
    let mut head = [0; 9];
    while taken[45] < 5 {
        reading
            .read_exact(&mut head)
            .await
            .expect("the connection lives");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        reading.read_exact(&mut payload).await.unwrap();
        match head[3] {
            DATA => taken[stream as usize] += length,
            RESET => reset.push((stream, began.elapsed().as_secs(), payload)),
            _ => {}
        }
    }
    drop(asking.await.unwrap());
    assert_eq!(taken[1], 0);
    assert_eq!(taken[3], LARGE - 1);
    assert!((19..=20).contains(&taken[5]), "{} bytes", taken[5]);
    // All that was asked for later was answered.
    assert!(
        (7..=45).step_by(2).all(|stream| taken[stream] == 5),
        "{taken:?}"
    );
    let cancel = 8u32.to_be_bytes();
    assert_eq!(reset.len(), 2, "{reset:?}");
    for (stream, seconds, reason) in reset {
        assert!(stream == 1 || stream == 3, "{stream}");
        assert!((60..=130).contains(&seconds), "{stream} after {seconds} s");
        assert_eq!(reason, cancel);
    }
}
