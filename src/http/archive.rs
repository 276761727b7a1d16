//! What is below a directory as one file, `.tar.gz` or `.zip`, made while it is sent.
//!
//! What a caller may rely on: nothing is made on the reactor; a few [`CHUNK`]s are held however large the
//! archive is, so a slow client slows the making; it ends when the client goes; [`AT_ONCE`] at once, and
//! one more is told to come again. The archive holds what the URLs below the directory serve: links are
//! followed inside the image, but for a link to a directory that the entry lies in. The same files make
//! the same archive: sorted by name, with the times and modes of the image, of no user.

mod stream;
mod tar;
mod walk;
mod zip;

use super::body::Body;
use super::cache::CachePolicy;
use super::error;
use super::path::encode;
use super::represent::NOSNIFF;
use crate::images::DirectoryNode;
use crate::rules::Rules;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use std::io;
use std::sync::Arc;
use stream::Chunks;
pub(super) use stream::Stream;
use tokio::sync::Semaphore;
use walk::{TooMuch, Walk};

/// Archives in the making.
const AT_ONCE: usize = 2;
/// Bytes sent at a time.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for the client.
const WAITING: usize = 4;

/// `?download=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    TarGz,
    Zip,
}

impl Format {
    pub(super) fn named(name: &str) -> Option<Format> {
        match name {
            "tgz" | "tar.gz" => Some(Format::TarGz),
            "zip" => Some(Format::Zip),
            _ => None,
        }
    }

    /// Entries of one archive. A zip's are listed at its end, and held in memory until then.
    fn most_entries(self) -> u64 {
        match self {
            Format::TarGz => 2_000_000,
            Format::Zip => 250_000,
        }
    }
}

/// See the module. One per listener.
pub(super) struct Archives(Arc<Semaphore>);

impl Archives {
    pub(super) fn new() -> Archives {
        Archives(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// `path`: the directory's, below the workdir. `name`: of the file, before its extension. `head`: only
    /// the head of the answer is wanted.
    ///
    /// # Errors
    /// The answer that says why not.
    pub(super) async fn answer(
        &self,
        (directory, path): (DirectoryNode, Vec<u8>),
        rules: Arc<Rules>,
        name: &[u8],
        format: Format,
        head: bool,
    ) -> Result<Response<Body>, Response<Body>> {
        let mut response = Response::new(Body::unmeasured());
        let headers = response.headers_mut();
        let (content_type, extension) = match format {
            Format::TarGz => ("application/gzip", "tar.gz"),
            Format::Zip => ("application/zip", "zip"),
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_DISPOSITION, disposition(name, extension));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        // Large, and quick to make again.
        CachePolicy::NEVER.put(headers);
        if head {
            return Ok(response);
        }
        let place = self.0.clone().try_acquire_owned();
        let place = place.map_err(|_| error::timeout())?;
        // Told while a status can still say so: a look at the index only.
        let measuring = tokio::task::spawn_blocking(move || {
            let measured = Walk::new(&directory, &path, &rules).measure(format.most_entries());
            (measured, directory, path, rules)
        });
        let (measured, directory, path, rules) = measuring.await.map_err(|failed| {
            tracing::error!(error = %failed, "measuring an archive failed");
            error::unreadable()
        })?;
        measured.map_err(|TooMuch(why)| error::error(StatusCode::FORBIDDEN, &why))?;
        if directory.poisoned() {
            return Err(error::unreadable());
        }
        let (chunks, body) = stream::pair();
        let making = std::thread::Builder::new().name("archive".into());
        let started = making.spawn(move || {
            let _place = place;
            chunks.end(|chunks| make(format, Walk::new(&directory, &path, &rules), chunks));
        });
        started.map_err(|failed| {
            tracing::error!(error = %failed, "no thread for an archive");
            error::timeout()
        })?;
        *response.body_mut() = Body::of_stream(body);
        Ok(response)
    }
}

fn make(format: Format, walk: Walk<'_>, chunks: &mut Chunks) -> io::Result<()> {
    match format {
        Format::TarGz => tar::write(walk, chunks),
        Format::Zip => zip::write(walk, chunks),
    }
}

/// RFC 6266, with the name's own bytes beside one that every client reads (RFC 8187).
fn disposition(name: &[u8], extension: &str) -> HeaderValue {
    let plain: String = String::from_utf8_lossy(name)
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || "._-+@".contains(c) => c,
            _ => '_',
        })
        .collect();
    let plain = plain.trim_start_matches('.');
    let plain = if plain.is_empty() { "files" } else { plain };
    let text = match std::str::from_utf8(name) {
        Ok(name) if name != plain && !name.is_empty() && !name.chars().any(char::is_control) => {
            let exact = encode(name.as_bytes());
            format!(
                "attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{exact}.{extension}"
            )
        }
        _ => format!("attachment; filename=\"{plain}.{extension}\""),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_safe_and_exact_where_it_can_be() {
        for (name, expected) in [
            (&b"docs"[..], "attachment; filename=\"docs.zip\""),
            (b"", "attachment; filename=\"files.zip\""),
            (
                b"..",
                "attachment; filename=\"files.zip\"; filename*=UTF-8''...zip",
            ),
            (
                b"a\"b;c",
                "attachment; filename=\"a_b_c.zip\"; filename*=UTF-8''a%22b%3Bc.zip",
            ),
            (
                "caf\u{e9}".as_bytes(),
                "attachment; filename=\"caf_.zip\"; filename*=UTF-8''caf%C3%A9.zip",
            ),
            (b"x\xff", "attachment; filename=\"x_.zip\""),
            (b"a\r\nb", "attachment; filename=\"a__b.zip\""),
        ] {
            assert_eq!(disposition(name, "zip"), expected, "{name:?}");
        }
    }
}
