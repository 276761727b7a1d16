//! A registry that does what a test says: real sockets, HTTP/1.1 by hand, so that it can tear,
//! stall and lie.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) target: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What goes wrong while answering.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fault {
    None,
    /// The connection closes after so many bytes of the body.
    Tear(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// No byte of an answer.
    Mute,
    /// The body ends with the connection, after so many bytes.
    Unframed(usize),
}

#[derive(Clone)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fault: Fault,
}

pub(super) fn answer(status: u16) -> Answer {
    Answer {
        status,
        headers: vec![],
        body: vec![],
        fault: Fault::None,
    }
}

impl Answer {
    pub(super) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Answer {
        let value = value.to_string();
        self.headers.push((name.to_owned(), value));
        self
    }
    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }
    pub(super) fn fault(mut self, fault: Fault) -> Answer {
        self.fault = fault;
        self
    }
}

type Handler = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

/// A listening server; ends with the runtime of its test.
#[derive(Clone)]
pub(super) struct Server {
    /// `127.0.0.1:port`.
    pub(super) host: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves `handler`, which gets the request and how many came before it.
    pub(super) async fn start(
        handler: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    ) -> Server {
        Server::serve(None, handler).await
    }

    pub(super) async fn serve(
        tls: Option<tokio_rustls::TlsAcceptor>,
        handler: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (handler, into): (Arc<Handler>, _) = (Arc::new(handler), log.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (handler, log, tls) = (handler.clone(), into.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(socket, &*handler, &log).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                converse(socket, &*handler, &log).await;
                            }
                        }
                    }
                });
            }
        });
        Server { host, log }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.log.lock().expect("log").clone()
    }

    /// `GET /v2/…` and so on, one text a request.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked()
            .iter()
            .map(|asked| format!("{} {}", asked.method, asked.target))
            .collect()
    }

    pub(super) fn port(&self) -> &str {
        self.host.rsplit_once(':').expect("port").1
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    handler: &Handler,
    log: &Mutex<Vec<Asked>>,
) {
    while let Some(asked) = request(&mut socket).await {
        let before = {
            let mut log = log.lock().expect("log");
            log.push(asked.clone());
            log.len() - 1
        };
        let answer = handler(&asked, before);
        if answer.fault == Fault::Mute {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
        if !matches!(answer.fault, Fault::Unframed(_))
            && !answer.headers.iter().any(|(n, _)| n == "Content-Length")
        {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body = if asked.method == "HEAD" {
            &[][..]
        } else {
            &answer.body[..]
        };
        let end = match answer.fault {
            Fault::Tear(n) | Fault::Stall(n) | Fault::Unframed(n) => n.min(body.len()),
            _ => body.len(),
        };
        let bytes = [head.as_bytes(), b"\r\n", &body[..end]].concat();
        if socket.write_all(&bytes).await.is_err() || socket.flush().await.is_err() {
            return;
        }
        match answer.fault {
            Fault::None => {}
            Fault::Stall(_) => tokio::time::sleep(Duration::from_secs(60)).await,
            _ => return,
        }
    }
}

async fn request<S: AsyncRead + Unpin>(socket: &mut S) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut asked = Asked {
        method: first.next()?.into(),
        target: first.next()?.into(),
        headers,
        body: String::new(),
    };
    let length = asked
        .header("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}
