//! What is not wanted: requests that cannot be told from what comes behind them (an answer, a line in the
//! access log, and the end), and bodies.

use super::framing::{After, Refusal};
use super::{Conversation, DESK, Manner};
use crate::access_log::{Answered, Asked};
use crate::http::error;
use crate::http::respond::Respond;
use http::{Method, Version};
use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

/// Bytes of a refused request that are looked at for the log.
pub(super) const MOST_LINE: usize = 8 << 10;
/// How long a client may go on sending after its last answer: it may read only then.
const LINGER: Duration = Duration::from_secs(2);

impl<R: Respond> Conversation<'_, R> {
    /// Says why, and closes. `start`: of the request.
    pub(super) async fn refuse(&mut self, refusal: Refusal, start: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        let (method, target, version) = first_line(start);
        let manner = Manner {
            after: After::EndUnread,
            bodiless: method == b"HEAD",
            chunks: false,
        };
        let mut response = error::error(refusal.status, refusal.text);
        if manner.bodiless {
            response = crate::http::serve::without_body(response);
        }
        let bytes = response.body().length();
        {
            let pulse = self.pulse.clone();
            let _answering = pulse.answer();
            self.send(response, None, manner).await?;
        }
        let known = Method::from_bytes(method).unwrap_or_default();
        let duration = began.elapsed();
        self.respond.answered(&known, refusal.status, duration);
        if let (Some(log), Some(remote)) = (self.respond.access_log(), self.remote) {
            let asked = Asked {
                remote,
                method,
                target,
                version,
                host: None,
                referer: None,
                user_agent: None,
            };
            let answered = Answered {
                status: refusal.status.as_u16(),
                bytes,
                duration,
                reference: None,
                cache: None,
            };
            log.write(&asked, &answered);
        }
        self.linger().await
    }

    /// Takes a body that was not asked for, in the time that a head has.
    pub(super) async fn skip(&mut self, mut body: u64) -> io::Result<()> {
        let known =
            usize::try_from(body).map_or(self.unread.len(), |body| body.min(self.unread.len()));
        self.unread.drain(..known);
        body -= known as u64;
        if body > 0 {
            self.pulse.read();
            poll_fn(|context| {
                DESK.with_borrow_mut(|desk| {
                    while body > 0 {
                        let room = usize::try_from(body)
                            .unwrap_or(usize::MAX)
                            .min(desk.input.len());
                        let mut free = ReadBuf::new(&mut desk.input[..room]);
                        ready!(self.socket.poll_take(context, &mut free))?;
                        match free.filled().len() {
                            0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                            read => body -= read as u64,
                        }
                    }
                    Poll::Ready(io::Result::Ok(()))
                })
            })
            .await?;
            self.pulse.exchanged(Instant::now());
        }
        Ok(())
    }

    /// Closes, but first takes what still comes, since closing with unread bytes would take the answer back
    /// (RFC 9112 §9.6).
    pub(super) async fn linger(&mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        let ignored = poll_fn(|context| {
            DESK.with_borrow_mut(|desk| {
                loop {
                    let mut free = ReadBuf::new(&mut desk.input);
                    ready!(self.socket.poll_take(context, &mut free))?;
                    if free.filled().is_empty() {
                        return Poll::Ready(io::Result::Ok(()));
                    }
                }
            })
        });
        // Whoever sends longer than that has not read the answer until now.
        tokio::time::timeout(LINGER, ignored)
            .await
            .unwrap_or(Ok(()))
    }
}

/// Method, target and version, as far as the bytes have them: for the log, which escapes what is odd. Without
/// a space all of the line is the target.
fn first_line(start: &[u8]) -> (&[u8], &[u8], Version) {
    let start = start.trim_ascii_start();
    let line = start
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(3, |byte| *byte == b' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), version) => {
            let old = version.is_some_and(|version| version.starts_with(b"HTTP/1.0"));
            let version = if old {
                Version::HTTP_10
            } else {
                Version::HTTP_11
            };
            (method, target, version)
        }
        _ => (b"-", line, Version::HTTP_11),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_what_there_is_of_a_line() {
        const OLD: Version = Version::HTTP_10;
        const NEW: Version = Version::HTTP_11;
        let table: [(&str, &str, &str, Version); 6] = [
            ("GET /a HTTP/1.1\r\nA : b\r\n\r\n", "GET", "/a", NEW),
            ("\r\nHEAD /a HTTP/1.0\r\n", "HEAD", "/a", OLD),
            ("GET /a b HTTP/1.1\r\n", "GET", "/a", NEW),
            ("GET /aaaa", "GET", "/aaaa", NEW),
            ("\u{16}\u{3}\u{1}x\r\n", "-", "\u{16}\u{3}\u{1}x", NEW),
            ("", "-", "", NEW),
        ];
        for (start, method, target, version) in table {
            let expected = (method.as_bytes(), target.as_bytes(), version);
            assert_eq!(first_line(start.as_bytes()), expected, "{start:?}");
        }
    }
}
