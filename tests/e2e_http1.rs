//! One connection, many requests: what is answered from memory is what the recipe would say, and
//! whatever is out of the ordinary is answered as well.
#![allow(clippy::unwrap_used)]
mod support;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A keep-alive connection that writes raw bytes and reads one answer at a time.
struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Without what changes from answer to answer.
    fn fields(&self) -> Vec<String> {
        let mut fields: Vec<_> = self
            .head
            .lines()
            .map(str::to_ascii_lowercase)
            .filter(|line| !line.starts_with("date: "))
            .collect();
        fields[1..].sort();
        fields
    }
}

impl Connection {
    async fn to(site: &Site) -> Connection {
        let stream = TcpStream::connect(site.client.0).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            unread: Vec::new(),
        }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Answer {
        let end = loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            self.more().await;
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let mut answer = Answer {
            head,
            body: Vec::new(),
        };
        let length = match answer.status() {
            304 => 0,
            _ => answer.field("content-length").unwrap().parse().unwrap(),
        };
        while self.unread.len() < length {
            self.more().await;
        }
        answer.body = self.unread.drain(..length).collect();
        answer
    }

    async fn more(&mut self) {
        let read = self.stream.read_buf(&mut self.unread).await.unwrap();
        assert!(read > 0, "closed, with {} bytes unread", self.unread.len());
    }

    async fn get(&mut self, path: &str, fields: &str) -> Answer {
        self.send(&get(path, fields)).await;
        self.answer().await
    }

    /// Reads to the end.
    async fn closed(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((self.unread.len(), rest.len()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_from_memory_gives_way_to_a_better_encoding() {
    let text = "the same words again and again\n".repeat(200);
    let mut layer = Layer::new();
    for number in 0..8 {
        layer = layer.file(&format!("{number}.txt"), format!("{number} {text}"));
    }
    let (registry, site) = served(layer, json!({})).await;
    let mut connection = Connection::to(&site).await;
    let path = |number: usize| registry.path("team/app:v1", &format!("/{number}.txt"));
    // Who accepts nothing has the answer remembered; that is not the one for others.
    for _ in 0..3 {
        let answer = connection.get(&path(0), "").await;
        assert_eq!(answer.body, format!("0 {text}").as_bytes());
    }
    let accept = "Accept-Encoding: gzip, deflate, br, zstd\r\n";
    let mut first = Vec::new();
    for number in 0..8 {
        let mut answer = connection.get(&path(number), accept).await;
        assert_eq!(answer.field("content-encoding"), None, "{number}");
        for _ in 0..500 {
            if answer.field("content-encoding").is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            answer = connection.get(&path(number), accept).await;
        }
        assert_eq!(answer.field("content-encoding"), Some("br"), "{number}");
        first.push(answer);
    }
    // The side packs of the first were merged into later ones meanwhile: the answers stand.
    for round in 0..3 {
        for (number, first) in first.iter().enumerate() {
            let again = connection.get(&path(number), accept).await;
            assert_eq!(again.fields(), first.fields(), "{number} {round}");
            assert_eq!(again.body, first.body, "{number} {round}");
            let etag = first.field("etag").unwrap();
            let fields = format!("{accept}If-None-Match: {etag}\r\n");
            let unchanged = connection.get(&path(number), &fields).await;
            assert_eq!(unchanged.status(), 304, "{number} {round}");
            let plain = connection.get(&path(number), "").await;
            assert_eq!(plain.body, format!("{number} {text}").as_bytes());
        }
    }
    site.stop().await;
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n{fields}\r\n")
}

async fn served(layer: Layer, settings: serde_json::Value) -> (Registry, Site) {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::of(layer));
    let site = Site::start(&[&registry], settings).await;
    (registry, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_question_has_the_same_answer_and_others_have_theirs() {
    let layer = Layer::new()
        .file("a.js", "let a = 1;")
        .file("b.js", "let b = 2;");
    let (registry, site) = served(layer, json!({"prometheusAddr": "127.0.0.1:0"})).await;
    let (a, b) = (
        registry.path("team/app:v1", "/a.js"),
        registry.path("team/app:v1", "/b.js"),
    );
    let mut connection = Connection::to(&site).await;
    let first = connection.get(&a, "").await;
    let etag = first.field("etag").unwrap().to_owned();
    let known = format!("If-None-Match: {etag}\r\n");
    let fresh = connection.get(&b, &known).await;
    assert_eq!((fresh.status(), fresh.body), (200, b"let b = 2;".to_vec()));
    let recipes_304 = connection
        .get(&a, &format!("{known}Range: bytes=0-0\r\n"))
        .await;
    for _ in 0..3 {
        let again = connection.get(&a, "User-Agent: x\r\nCookie: y\r\n").await;
        assert_eq!((again.fields(), &again.body), (first.fields(), &first.body));
        let same = connection.get(&a, &known).await;
        assert_eq!((same.status(), same.body.len()), (304, 0));
        assert_eq!(same.fields(), recipes_304.fields());
        let other = connection.get(&a, "If-None-Match: \"x\"\r\n").await;
        assert_eq!(other.fields(), first.fields());
        let part = connection.get(&a, "Range: bytes=4-4\r\n").await;
        assert_eq!((part.status(), part.body), (206, b"a".to_vec()));
        let other = connection.get(&b, "").await;
        assert_eq!(other.body, b"let b = 2;");
        let query = connection.get(&format!("{a}?v=2"), "").await;
        assert_eq!(query.fields(), first.fields());
    }
    let wanted = [
        "http_server_requests_total{code=\"200\",method=\"get\"} 14",
        "http_server_requests_total{code=\"206\",method=\"get\"} 3",
        "http_server_requests_total{code=\"304\",method=\"get\"} 4",
    ];
    // An answer is counted when it has been sent, which its client may see first.
    let mut counts = String::new();
    for _ in 0..100 {
        let scraped = site.metrics().request("GET", "/metrics", &[]).await;
        counts = scraped.expect(200).text();
        if wanted.iter().all(|line| counts.contains(line)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for line in wanted {
        assert!(counts.contains(line), "{line}\n{counts}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_asks_whether_it_has_the_file_is_answered_alike_each_time() {
    let layer = Layer::new().file("a.js", "let a = 1;");
    let (registry, site) = served(layer, json!({})).await;
    let path = registry.path("team/app:v1", "/a.js");
    let tag = site.get(&path).await.expect(200);
    let known = format!("If-None-Match: {}\r\n", tag.header("etag").unwrap());
    let mut connection = Connection::to(&site).await;
    let first = connection.get(&path, &known).await;
    assert_eq!(first.status(), 304);
    for _ in 0..3 {
        let again = connection.get(&path, &known).await;
        assert_eq!(again.fields(), first.fields());
    }
    let whole = connection.get(&path, "").await;
    assert_eq!((whole.status(), &whole.body[..]), (200, &b"let a = 1;"[..]));
    let other = connection.get(&path, "If-None-Match: \"other\"\r\n").await;
    assert_eq!(other.fields(), whole.fields());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_piece_and_in_single_bytes_are_answered_in_their_order() {
    let layer = Layer::new().file("a", "1").file("b", noise(7, 300_000));
    let (registry, site) = served(layer, json!({})).await;
    let (a, b) = (
        registry.path("team/app:v1", "/a"),
        registry.path("team/app:v1", "/b"),
    );
    let mut connection = Connection::to(&site).await;
    for _ in 0..2 {
        let all = get(&a, "") + &get(&b, "") + &get("/none", "") + &get(&a, "") + &get(&b, "");
        connection.send(&all).await;
        for (status, length) in [(200, 1), (200, 300_000), (404, 0), (200, 1), (200, 300_000)] {
            let answer = connection.answer().await;
            assert_eq!(answer.status(), status);
            assert!(status == 404 || answer.body.len() == length);
        }
    }
    for byte in get(&a, "").chars() {
        connection.send(&byte.to_string()).await;
    }
    assert_eq!(connection.answer().await.body, b"1");
    // A short body is skipped, whether it comes with what is behind it or by itself.
    let post = "POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 5\r\n\r\nhello";
    let all = get(&a, "") + post + &get(&a, "") + &get(&b, "Connection: close\r\n");
    connection.send(&all).await;
    for status in [200, 405, 200, 200] {
        assert_eq!(connection.answer().await.status(), status);
    }
    connection.closed().await;
    let mut connection = Connection::to(&site).await;
    let (head, body) = post.split_at(post.len() - 3);
    connection.send(head).await;
    assert_eq!(connection.answer().await.status(), 405);
    connection.send(&(body.to_owned() + &get(&a, ""))).await;
    assert_eq!(connection.answer().await.body, b"1");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_time_gets_every_byte_of_a_large_file() {
    let content = noise(9, 12 << 20);
    let layer = Layer::new().file("large.bin", &content).file("small", "1");
    let (registry, site) = served(layer, json!({})).await;
    let path = registry.path("team/app:v1", "/large.bin");
    for fields in [
        "",
        "",
        "",
        "Range: bytes=1-\r\n",
        "Range: bytes=0-9,1048576-\r\n",
    ] {
        let mut connection = Connection::to(&site).await;
        connection.send(&get(&path, fields)).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let answer = connection.answer().await;
        match fields {
            "" => assert!(answer.body == content),
            "Range: bytes=1-\r\n" => assert!(answer.body == content[1..]),
            _ => assert!(
                answer
                    .body
                    .windows(64)
                    .any(|part| part == &content[1 << 20..][..64])
            ),
        }
        let small = registry.path("team/app:v1", "/small");
        assert_eq!(connection.get(&small, "").await.body, b"1", "and goes on");
    }
    // One that goes away in the middle of it disturbs nobody.
    let mut connection = Connection::to(&site).await;
    connection.send(&get(&path, "")).await;
    connection.more().await;
    drop(connection);
    assert!(site.get(&path).await.expect(200).body == content);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_ends_with_its_tag_and_with_its_pack() {
    let layer = Layer::new().file("a", "old");
    let (registry, site) = served(layer, json!({"tagTtl": "300ms"})).await;
    let path = registry.path("team/app:v1", "/a");
    let mut connection = Connection::to(&site).await;
    for _ in 0..3 {
        assert_eq!(connection.get(&path, "").await.body, b"old");
    }
    registry.push("team/app", "v1", &Image::of(Layer::new().file("a", "new")));
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    for _ in 0..3 {
        assert_eq!(connection.get(&path, "").await.body, b"new");
    }
    // Evicted: other images push it out of a small blobspace.
    let (bound, size) = (1_200_000, 700_000);
    let content = noise(1, size);
    let layer = Layer::new().file("a", &content);
    let (registry, site) = served(layer, json!({"blobSpace": {"maxSizeBytes": bound}})).await;
    let path = registry.path("team/app:v1", "/a");
    let mut connection = Connection::to(&site).await;
    for round in 2..5 {
        for _ in 0..3 {
            assert!(connection.get(&path, "").await.body == content);
        }
        let image = Image::of(Layer::new().file("a", noise(round, size)));
        registry.push("team/app", &format!("v{round}"), &image);
        let other = registry.path(&format!("team/app:v{round}"), "/a");
        assert!(connection.get(&other, "").await.body == noise(round, size));
    }
    assert!(registry.count("GET", "/blobs/") > 4, "it was evicted");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_from_memory_send_their_clients_away_when_the_service_drains() {
    let layer = Layer::new().file("a", "1");
    let (registry, site) = served(layer, json!({"drainDelay": "2s"})).await;
    let path = registry.path("team/app:v1", "/a");
    let mut connection = Connection::to(&site).await;
    for _ in 0..3 {
        assert_eq!(connection.get(&path, "").await.field("connection"), None);
    }
    let idle = Connection::to(&site).await;
    let stopping = tokio::spawn(site.stop());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let last = connection.get(&path, "").await;
    assert_eq!(
        (last.field("connection"), &last.body[..]),
        (Some("close"), &b"1"[..])
    );
    connection.closed().await;
    idle.closed().await;
    stopping.await.unwrap();
}
