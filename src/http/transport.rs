//! The byte stream under a connection: TCP as it is, or TLS over it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// HTTP/2 in ALPN (RFC 9113 §3.2).
const ALPN_HTTP2: &[u8] = b"h2";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.0 or 1.1, or something that is refused as such.
    Http1,
    /// HTTP/2, by prior knowledge or by ALPN.
    Http2,
}

/// An open connection to a client.
pub(super) enum Transport {
    /// Cleartext.
    Plain(TcpStream),
    /// After its handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Shakes hands where there is something to shake with. Bounded by nothing: the caller has the deadline.
    ///
    /// # Errors
    /// The client is no TLS client, has no parameters in common with us, or went away.
    pub(super) async fn open(
        stream: TcpStream,
        tls: Option<&TlsAcceptor>,
    ) -> io::Result<Transport> {
        match tls {
            None => Ok(Transport::Plain(stream)),
            // On the heap from the start: a connection in cleartext is not to be as large as this.
            Some(tls) => Ok(Transport::Tls(Box::new(
                Box::pin(tls.accept(stream)).await?,
            ))),
        }
    }

    /// The socket, where nothing stands between it and what is written.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Transport::Plain(stream) => Some(stream),
            Transport::Tls(_) => None,
        }
    }

    /// The client's address; unspecified for one that is gone already.
    pub(super) fn remote(&self) -> IpAddr {
        let stream = match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        };
        let address = stream.peer_addr().map(|address| address.ip());
        address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }

    /// What ALPN says; None: nothing, the first bytes tell.
    pub(super) fn agreed(&self) -> Option<Protocol> {
        match self {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => match stream.get_ref().1.alpn_protocol()? {
                ALPN_HTTP2 => Some(Protocol::Http2),
                _ => Some(Protocol::Http1),
            },
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
