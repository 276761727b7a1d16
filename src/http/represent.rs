//! Representations: what can be sent of a file or a listing, what RFC 9110 compares it by, and the
//! answers that are made of it. Never touches pages that may not be in memory on the reactor.

use super::body::{Body, WINDOW, Whole};
use super::cache::CachePolicy;
use super::conditional;
use super::content_type;
use super::deadline::Deadline;
use super::decide::{Decision, Facts, decide};
use super::encoding;
use super::error;
use super::inline::{InlineVars, MOST_PAGE};
use super::listing::Rendered;
use super::offer::{self, Offer};
use crate::config::Encodings;
use crate::images::{Coding, FileNode, Images, View, ViewInfo};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_128;

pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const SVG: &str = "image/svg+xml";
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// Bytes of a page that InlineVars are applied to where they are read; more goes to another thread.
const QUICK_PAGE: u64 = 64 << 10;

/// One representation of a resource.
pub(super) struct Representation {
    content: Content,
    content_type: HeaderValue,
    etag: HeaderValue,
    /// Seconds since 1970.
    last_modified: Option<u64>,
    cache: CachePolicy,
    /// Content-Encoding, where one is applied.
    coding: Option<Coding>,
    /// The request would get no other representation with the same date.
    alone: bool,
    vary: Vary,
    /// The view, when the same request would be answered with the same content again as long as it is
    /// current. None where a better answer may come (or the content is not a file).
    settled: Option<Arc<ViewInfo>>,
}

/// What the choice of the representation depended on.
#[derive(Clone, Copy, Default)]
struct Vary {
    encoding: bool,
    inline: bool,
}

impl Vary {
    fn set(self, headers: &mut HeaderMap) {
        let names = match (self.encoding, self.inline) {
            (false, false) => return,
            (true, false) => "accept-encoding",
            (false, true) => "x-blobserve-inlinevars",
            (true, true) => "accept-encoding, x-blobserve-inlinevars",
        };
        headers.insert(header::VARY, HeaderValue::from_static(names));
    }
}

/// What a representation's bytes are.
#[derive(Clone)]
pub(super) enum Content {
    File(Arc<FileNode>),
    Bytes(Bytes),
}

/// Of a file: content type by name or content, InlineVars on index pages. `path` is the file's in the image.
///
/// # Errors
/// The answer that says that the disk does not give the file.
pub(super) async fn of_file(
    (images, view): (&Images, &View),
    (node, path): (FileNode, &[u8]),
    (method, headers): (&Method, &HeaderMap),
    deadline: Deadline,
) -> Result<Representation, Response<Body>> {
    let node = Arc::new(node);
    let content_type = match content_type::by_extension(path) {
        Some(content_type) => content_type,
        None => {
            let start = 0..node.length.min(content_type::SNIFFED);
            content_type::sniff(&read(&node, start).await?)
        }
    };
    let inlined = node.length <= MOST_PAGE
        && !view.info.inline_static.is_empty()
        && path.rsplit(|byte| *byte == b'/').next() == Some(b"index.html");
    if inlined
        && let Some(vars) = InlineVars::of(headers)
        && let Some(page) = Box::pin(fill_in(view, &node, vars)).await?
    {
        return Ok(Representation {
            etag: etag(xxh3_128(&page)),
            content: Content::Bytes(page.into()),
            content_type,
            last_modified: None,
            cache: CachePolicy::validated(&view.info),
            coding: None,
            alone: true,
            vary: Vary {
                encoding: view.info.encodings != Encodings::Off,
                inline: true,
            },
            settled: None,
        });
    }
    let to = (method, headers);
    let start = match content_type == SVG {
        true => read(&node, 0..node.length.min(2)).await?,
        false => Bytes::new(),
    };
    let offer = match encoding::stored(path, &start) {
        Some(coding) => Offer::stored(node, coding),
        None => offer::choose((images, view), (node, path), &content_type, to, deadline).await?,
    };
    let vary = Vary {
        encoding: offer.varies,
        inline: inlined,
    };
    let Some(node) = offer.file else {
        let mut refusal = error::not_acceptable();
        vary.set(refusal.headers_mut());
        return Err(refusal);
    };
    Ok(Representation {
        etag: etag(node.hash),
        last_modified: conditional::last_modified(node.mtime, SystemTime::now()),
        content: Content::File(node),
        content_type,
        coding: offer.coding,
        alone: offer.alone,
        // A page that InlineVars can change is not decided by the digest alone.
        cache: match inlined {
            true => CachePolicy::changing(&view.info),
            false => CachePolicy::of(&view.info),
        },
        vary,
        settled: (offer.settled && !view.info.is_passing()).then(|| view.info.clone()),
    })
}

/// None: the result would be too large (logged), so the page stays as it is.
async fn fill_in(
    view: &View,
    node: &Arc<FileNode>,
    vars: InlineVars,
) -> Result<Option<Vec<u8>>, Response<Body>> {
    let page = read(node, 0..node.length).await?;
    let info = view.info.clone();
    if node.length <= QUICK_PAGE {
        return Ok(vars.apply(&page, &info.inline_static));
    }
    let filling = tokio::task::spawn_blocking(move || vars.apply(&page, &info.inline_static));
    filling.await.map_err(|failed| {
        tracing::error!(error = %failed, "applying InlineVars failed");
        error::unreadable()
    })
}

impl Representation {
    /// Of a directory, or of what is told about an image.
    pub(super) fn of_listing(
        info: &Arc<ViewInfo>,
        rendered: Rendered,
        content_type: HeaderValue,
    ) -> Representation {
        Representation {
            content: Content::Bytes(rendered.text),
            content_type,
            etag: rendered.etag,
            last_modified: None,
            // Another version of this program lists in another way.
            cache: CachePolicy::validated(info),
            coding: None,
            alone: true,
            vary: Vary::default(),
            settled: None,
        }
    }

    /// InlineVars can change it, or have.
    pub(super) fn is_inlined(&self) -> bool {
        self.vary.inline
    }

    /// Something else than a digest and the file's path decides that this is the answer.
    pub(super) fn changing(mut self, info: &Arc<ViewInfo>) -> Representation {
        self.cache = CachePolicy::changing(info);
        self
    }

    /// The same request, told apart by fields that the cache of answers does not look at, may be answered
    /// otherwise.
    pub(super) fn unsettled(mut self) -> Representation {
        self.settled = None;
        self
    }

    /// 404 with this as its page: whole, whatever the request's conditions and ranges, and never stored.
    ///
    /// # Errors
    /// As [`of_file`].
    pub(super) async fn not_found(
        mut self,
        method: &Method,
    ) -> Result<Response<Body>, Response<Body>> {
        let length = self.length();
        let body = match *method {
            Method::HEAD => Body::of_length(length),
            _ => self.body(0..length).await?,
        };
        self.cache = CachePolicy::NEVER;
        let mut response = self.response(StatusCode::NOT_FOUND, body);
        for name in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }

    /// Conditions, range, headers, body.
    ///
    /// # Errors
    /// As [`of_file`].
    pub(super) async fn answer(
        self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Response<Body>> {
        let length = self.length();
        let facts = Facts {
            etag: &self.etag,
            last_modified: self.last_modified,
            length,
            date_is_strong: self.alone,
        };
        let decision = match decide(method, headers, &facts) {
            // The parts would be encoded, and the multipart around them not, which no field can say.
            Decision::Parts(_) if self.coding.is_some() => Decision::Whole,
            decision => decision,
        };
        let status = decision.status();
        match decision {
            Decision::Whole => {
                let body = match *method {
                    Method::HEAD => Body::of_length(length),
                    _ => self.body(0..length).await?,
                };
                let body = self.marked(body);
                Ok(self.response(status, body))
            }
            Decision::Part(range) => {
                let body = self.body(range.clone()).await?;
                let mut response = self.response(status, body);
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_RANGE, content_range(&range, length));
                Ok(response)
            }
            Decision::Parts(ranges) => Box::pin(self.multipart(&ranges)).await,
            Decision::NotModified => {
                let body = self.marked(Body::default());
                Ok(self.response(status, body))
            }
            Decision::PreconditionFailed => {
                let text = "this is not the version that the condition names";
                let mut response = error::error(status, text);
                self.vary.set(response.headers_mut());
                Ok(response)
            }
            Decision::Unsatisfiable => {
                let mut response = error::unsatisfiable(length);
                self.vary.set(response.headers_mut());
                Ok(response)
            }
        }
    }

    /// Its bytes, all of them.
    pub(super) fn content(&self) -> Content {
        self.content.clone()
    }

    fn length(&self) -> u64 {
        match &self.content {
            Content::File(node) => node.length,
            Content::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// The body, with what may be remembered of the whole.
    fn marked(&self, mut body: Body) -> Body {
        if let (Content::File(file), Some(view)) = (&self.content, &self.settled) {
            let (view, file) = (view.clone(), file.clone());
            body.settle(Whole { view, file });
        }
        body
    }

    async fn body(&self, range: Range<u64>) -> Result<Body, Response<Body>> {
        let mut body = Body::default();
        self.push(&mut body, range).await?;
        Ok(body)
    }

    /// Adds a range. Its first window is in memory before anything is sent, so that a disk that cannot
    /// read it is still told by a status.
    async fn push(&self, body: &mut Body, range: Range<u64>) -> Result<(), Response<Body>> {
        match &self.content {
            Content::File(node) => {
                let window = range.start..range.end.min(range.start + WINDOW);
                let bytes = read(node, window.clone()).await?;
                body.push_bytes(bytes);
                body.push_file(node, window.end..range.end);
            }
            Content::Bytes(bytes) => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                body.push_bytes(bytes.slice(index(range.start)..index(range.end)));
            }
        }
        Ok(())
    }

    /// multipart/byteranges, RFC 9110 §14.6.
    async fn multipart(self, ranges: &[Range<u64>]) -> Result<Response<Body>, Response<Body>> {
        let boundary = format!("{:032x}", fastrand::u128(..));
        let length = self.length();
        let content_type = String::from_utf8_lossy(self.content_type.as_bytes()).into_owned();
        let mut body = Body::default();
        for range in ranges {
            let (start, last) = (range.start, range.end - 1);
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\
                 Content-Range: bytes {start}-{last}/{length}\r\n\r\n"
            );
            body.push_bytes(head.into());
            self.push(&mut body, range.clone()).await?;
        }
        body.push_bytes(format!("\r\n--{boundary}--\r\n").into());
        let mut response = self.response(StatusCode::PARTIAL_CONTENT, body);
        let multipart = format!("multipart/byteranges; boundary={boundary}");
        let multipart = HeaderValue::try_from(multipart).unwrap_or(HTML);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, multipart);
        Ok(response)
    }

    fn response(self, status: StatusCode, body: Body) -> Response<Body> {
        // One allocation: more fields than any answer has.
        let mut headers = HeaderMap::with_capacity(12);
        if status != StatusCode::NOT_MODIFIED {
            headers.insert(header::CONTENT_TYPE, self.content_type);
            headers.insert(header::ACCEPT_RANGES, BYTES);
            if let Some(coding) = self.coding {
                let token = HeaderValue::from_static(coding.token());
                headers.insert(header::CONTENT_ENCODING, token);
            }
            // A 304 has the entity tag, so RFC 9110 §15.4.5 leaves the date away.
            if let Some(modified) = self.last_modified {
                headers.insert(header::LAST_MODIFIED, http_date(modified));
            }
        }
        headers.insert(header::ETAG, self.etag);
        self.cache.put(&mut headers);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        self.vary.set(&mut headers);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Part of a file, its pages in memory: off the reactor where they are not yet.
pub(super) async fn read(node: &Arc<FileNode>, range: Range<u64>) -> Result<Bytes, Response<Body>> {
    if !range.is_empty() && !node.resident(range.clone()) {
        Box::pin(populate(node, range.clone())).await?;
    }
    if node.poisoned() {
        return Err(error::unreadable());
    }
    Ok(node.bytes(range))
}

async fn populate(node: &Arc<FileNode>, range: Range<u64>) -> Result<(), Response<Body>> {
    let node = node.clone();
    let populated = tokio::task::spawn_blocking(move || node.populate(range)).await;
    let populated = populated.map_err(std::io::Error::other);
    populated.and_then(|done| done).map_err(|failed| {
        tracing::error!(error = %failed, "reading a pack failed");
        error::unreadable()
    })
}

/// A strong entity tag out of the content's hash, the same under every name and tag.
pub(super) fn etag(hash: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'"'; 34];
    for (index, byte) in hash.to_be_bytes().into_iter().enumerate() {
        text[1 + 2 * index] = DIGITS[usize::from(byte >> 4)];
        text[2 + 2 * index] = DIGITS[usize::from(byte & 15)];
    }
    // Digits and quotes are visible ASCII, so this cannot fail.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("\"\""))
}

fn http_date(seconds: u64) -> HeaderValue {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

fn content_range(range: &Range<u64>, length: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes */*"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use http_body_util::BodyExt;

    fn page(text: &'static [u8]) -> Representation {
        Representation {
            content: Content::Bytes(Bytes::from_static(text)),
            content_type: HTML,
            etag: etag(xxh3_128(text)),
            last_modified: Some(1_700_000_000),
            cache: CachePolicy::IMMUTABLE,
            coding: None,
            alone: true,
            vary: Vary {
                encoding: true,
                inline: true,
            },
            settled: None,
        }
    }

    #[tokio::test]
    async fn each_answer_carries_what_its_status_asks_for() {
        const TYPED: &[&str] = &["content-type", "accept-ranges", "last-modified"];
        let table: [(&str, &str, u16, &str, &[&str]); 6] = [
            ("x", "", 200, "0123456789", TYPED),
            ("range", "bytes=2-4", 206, "234", TYPED),
            ("if-none-match", "*", 304, "", &[]),
            ("if-match", "\"x\"", 412, "this is not", &["content-type"]),
            ("range", "bytes=10-", 416, "the range", &["content-range"]),
            ("range", "bytes=0-0,9-9", 206, "\r\n--", TYPED),
        ];
        for (name, value, status, start, more) in table {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]);
            let it = page(b"0123456789");
            let answer = it.answer(&Method::GET, &headers).await.unwrap();
            assert_eq!(answer.status(), status, "{name}: {value}");
            let common: &[&str] = match status {
                412 | 416 => &["cache-control"],
                _ => &["cache-control", "etag", "vary"],
            };
            let dated = answer.headers().contains_key("last-modified");
            assert_eq!(dated, status < 300, "{value}");
            for field in common.iter().chain(more) {
                assert!(answer.headers().contains_key(*field), "{value}: {field}");
            }
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            let stored = answer.headers()["cache-control"] != "no-store";
            assert_eq!(stored, status < 400, "{value}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body.starts_with(start.as_bytes()), "{value}: {body:?}");
        }
    }

    #[tokio::test]
    async fn several_ranges_come_in_parts_of_the_length_that_is_said() {
        let headers =
            HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-1, -2"))]);
        let it = page(b"0123456789");
        let answer = it.answer(&Method::GET, &headers).await.unwrap();
        let said = answer.body().length();
        let content_type = answer.headers()["content-type"].to_str().unwrap();
        let boundary = content_type
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap()
            .to_owned();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len() as u64, said);
        let part = |range: &str, bytes: &str| {
            format!(
                "\r\n--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\n\
                 Content-Range: bytes {range}/10\r\n\r\n{bytes}"
            )
        };
        let whole = part("0-1", "01") + &part("8-9", "89") + &format!("\r\n--{boundary}--\r\n");
        assert_eq!(body, whole);
    }

    #[test]
    fn an_entity_tag_is_quoted_hexadecimal_of_all_128_bits() {
        assert_eq!(etag(0x0f), "\"0000000000000000000000000000000f\"");
        assert_eq!(etag(u128::MAX), format!("\"{}\"", "f".repeat(32)).as_str());
    }
}
