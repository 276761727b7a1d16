//! Requests as bytes over a socket, and answers taken apart without any strictness of our own:
//! what comes back is for the tables to judge.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back on one connection.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Everything, to look for what must not be in it.
    pub(super) bytes: Vec<u8>,
    /// Of the first answer; None: there was none.
    pub(super) status: Option<u16>,
    /// Names in lower case, in order.
    pub(super) headers: Vec<(String, String)>,
    /// The body, chunked framing removed.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A header's values, joined as RFC 9110 §5.3 joins them.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.iter().filter(|(n, _)| n == name);
        values
            .map(|(_, value)| value.clone())
            .reduce(|all, value| format!("{all}, {value}"))
    }
    /// How many status lines came.
    pub(super) fn responses(&self) -> usize {
        memchr::memmem::find_iter(&self.bytes, b"HTTP/1.1 ").count()
            + memchr::memmem::find_iter(&self.bytes, b"HTTP/1.0 ").count()
    }
}

/// Sends the bytes, and reads until the server closes or has been silent for `patience`.
/// With `half`, says first that no more will come.
pub(super) async fn send(
    address: SocketAddr,
    request: &[u8],
    half: bool,
    patience: Duration,
) -> Answer {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    // The server may have refused and closed before it read everything.
    let mut written = socket.write_all(request).await;
    if half && written.is_ok() {
        written = socket.shutdown().await;
    }
    drop(written);
    let mut bytes = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(patience, socket.read_buf(&mut bytes)).await {}
    parse(bytes)
}

/// A request with `Connection: close`; header values as Latin-1.
pub(super) async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(String, String)],
) -> Answer {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    bytes.extend_from_slice(b"Host: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: ").as_bytes());
        bytes.extend(latin1(value));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    send(address, &bytes, false, Duration::from_secs(10)).await
}

/// One byte for each character, as the tables write bytes.
pub(super) fn latin1(text: &str) -> Vec<u8> {
    let byte = |character| u8::try_from(u32::from(character)).expect("Latin-1");
    text.chars().map(byte).collect()
}

fn parse(bytes: Vec<u8>) -> Answer {
    let mut answer = Answer::default();
    if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        answer.status = status.and_then(|status| status.parse().ok());
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let header = (name.to_ascii_lowercase(), value.trim().to_owned());
            answer.headers.push(header);
        }
        answer.body = bytes[end + 4..].to_vec();
        if answer.header("transfer-encoding").as_deref() == Some("chunked") {
            answer.body = dechunk(&answer.body);
        }
    }
    answer.bytes = bytes;
    answer
}

/// The content of chunks, as far as there are any.
fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = memchr::memmem::find(bytes, b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let size = size.split(';').next().unwrap_or_default().trim();
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else {
            break;
        };
        let rest = &bytes[end + 2..];
        let Some(chunk) = rest.get(..size) else { break };
        body.extend_from_slice(chunk);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    body
}
