//! A small HTTP/1.1 client that sends what it is told: no decoding, no redirects, no
//! normalising of paths, one connection a request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest that any answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, chunked framing removed.
    pub body: Vec<u8>,
    /// From before connecting to the last byte.
    pub elapsed: Duration,
}

impl Response {
    /// The value of a header that must not be there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// Fails the test unless the status is `status`; returns itself.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }
    /// Fails the test unless this is an error by our rules: the status, text/plain with nosniff, and one line.
    #[track_caller]
    pub fn expect_error(self, status: u16) -> Response {
        let response = self.expect(status);
        let content_type = response.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("text/plain"), "{response:?}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        let text = response.text();
        assert!(!text.trim().is_empty(), "an error says what and why");
        assert!(!text.trim_end().contains('\n'), "one line: {text:?}");
        response
    }
}

/// Sends requests to one address.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub SocketAddr);

impl Client {
    /// Sends one request. Fails the test when there is no whole answer.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        match self.try_request(method, path, headers).await {
            Ok(response) => response,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Sends one request.
    pub async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, String> {
        tokio::time::timeout(PATIENCE, self.exchange(method, path, headers))
            .await
            .map_err(|_| format!("no whole answer within {PATIENCE:?}"))?
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, String> {
        let text = |error: std::io::Error| error.to_string();
        let start = Instant::now();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            request += &format!("Host: {}\r\n", self.0);
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        let mut socket = TcpStream::connect(self.0).await.map_err(text)?;
        socket.write_all(request.as_bytes()).await.map_err(text)?;
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).await.map_err(text)?;
        parse(method, &bytes, start.elapsed())
    }
}

fn parse(method: &str, bytes: &[u8], elapsed: Duration) -> Result<Response, String> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").ok_or("no end of the headers")?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let status = status
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or(format!("odd status line {status:?}"))?;
    let mut response = Response {
        status,
        headers: Vec::new(),
        body: bytes[end + 4..].to_vec(),
        elapsed,
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(format!("header {line:?}"))?;
        response
            .headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = dechunk(&response.body)?;
    } else if method != "HEAD" && status != 304 && status != 204 {
        let length: usize = response
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .ok_or("no Content-Length")?;
        if length != response.body.len() {
            let got = response.body.len();
            return Err(format!("body of {got} bytes, Content-Length {length}"));
        }
    } else if !response.body.is_empty() {
        return Err(format!("{method} {status} with a body"));
    }
    Ok(response)
}

fn dechunk(mut bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(bytes, b"\r\n").ok_or("torn chunk size")?;
        let size = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|error| error.to_string())?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(bytes.get(..size).ok_or("torn chunk")?);
        bytes = bytes.get(size + 2..).ok_or("torn chunk")?;
    }
}
