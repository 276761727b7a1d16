//! The recipe that answers a request:
//!
//! 1. Method, Upgrade.
//! 2. Reference and file path, cut from the raw URL path.
//! 3. The view of the image: warm, or waited for until the deadline.
//! 4. The file that the path leads to: index file, redirect to the slash, listing.
//! 5. The representation: content type, InlineVars, validators, cache policy.
//! 6. Conditions (RFC 9110 §13), then the range (§14).
//! 7. Headers and body.

use super::body::{Body, WINDOW};
use super::cache::CachePolicy;
use super::conditional::{self, Precondition, Validators};
use super::content_type;
use super::error;
use super::inline::{INLINE_VARS, InlineVars, MOST_PAGE};
use super::listing;
use super::path::{self, FilePath};
use super::range::{self, Selection};
use crate::images::{Ask, DirectoryNode, FileNode, Images, Node, View};
use crate::reference::{Reference, split_target};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const READ_ONLY: HeaderName = HeaderName::from_static("x-blobserve-readonly");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What the recipe needs. One per listener.
pub(super) struct Serve {
    pub(super) images: Images,
    /// For the first byte; None: no deadline.
    pub(super) timeout: Option<Duration>,
    pub(super) head_any_path: bool,
    /// Images that are not configured by name are answered with a sandbox: all path URLs share one origin.
    pub(super) sandbox_unconfigured: bool,
}

/// What step 4 finds.
enum Found {
    File { node: Arc<FileNode>, path: Vec<u8> },
    Listing(DirectoryNode),
    Redirect(String),
    Nothing,
}

/// What step 5 makes: one representation, and what RFC 9110 compares it by.
struct Representation {
    content: Content,
    content_type: HeaderValue,
    etag: HeaderValue,
    /// Seconds since 1970.
    last_modified: Option<u64>,
    cache: CachePolicy,
    vary: Option<HeaderValue>,
}

enum Content {
    File(Arc<FileNode>),
    Bytes(Bytes),
}

impl Serve {
    /// Answers a request whose body is not looked at.
    pub(super) async fn answer(&self, request: &Parts) -> Response<Body> {
        // 1.
        let head = match request.method {
            Method::GET => false,
            Method::HEAD => true,
            _ => return method_not_allowed(),
        };
        if asks_for_websocket(&request.headers) {
            return error::error(StatusCode::NOT_FOUND, "no websocket here");
        }
        // 2.
        let target = match split_target(request.uri.path()) {
            Ok(target) => target,
            Err(failed) => return error::reference(&failed),
        };
        let file_path = match path::file_path(target.path) {
            Ok(file_path) => file_path,
            Err(failed) => return error::error(StatusCode::BAD_REQUEST, &failed.to_string()),
        };
        // 3.
        let view = match self.view(&target.reference, &request.headers).await {
            Ok(view) => view,
            Err(response) => return response,
        };
        // 4.
        let is_root = matches!(target.path, "" | "/");
        let found = find(&view, &file_path, target.path, request.uri.query());
        if view.poisoned() {
            return unreadable();
        }
        // 5.
        let representation = match found {
            Found::File { node, path } => represent_file(&view, node, &path, &request.headers).await,
            Found::Listing(directory) => Ok(represent_listing(&file_path, is_root, &directory)),
            Found::Redirect(location) => return self.finish(&view, redirect(&view, &location)),
            Found::Nothing if head && (is_root || self.head_any_path) => {
                return self.finish(&view, warmed_up(&view));
            }
            Found::Nothing => return self.finish(&view, not_found(&target.reference, &file_path)),
        };
        let representation = match representation {
            Ok(representation) => representation,
            Err(response) => return response,
        };
        // 6. and 7.
        self.finish(&view, respond(representation, &request.headers, head).await)
    }

    async fn view(&self, reference: &Reference, headers: &HeaderMap) -> Result<View, Response<Body>> {
        if let Some(view) = self.images.warm(reference) {
            return Ok(view);
        }
        let read_only = headers.get(READ_ONLY).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        let asking = self.images.get(reference, if read_only { Ask::ReadOnly } else { Ask::Normal });
        let outcome = match self.timeout {
            None => asking.await,
            Some(deadline) => match tokio::time::timeout(deadline, asking).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(error::timeout()),
            },
        };
        outcome.map_err(|failed| error::image(&failed))
    }

    /// What every answer out of an image carries.
    fn finish(&self, view: &View, mut response: Response<Body>) -> Response<Body> {
        if self.sandbox_unconfigured && !view.info.configured {
            let sandbox = HeaderValue::from_static("sandbox allow-scripts");
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, sandbox);
        }
        response
    }
}

/// Step 4. `raw` is the path as it stood in the URL.
fn find(view: &View, file_path: &FilePath, raw: &str, query: Option<&str>) -> Found {
    let path = path::join(&view.info.workdir, &file_path.bytes);
    match view.find(&path) {
        Ok(Node::File(node)) if !file_path.directory => Found::File { node: Arc::new(node), path },
        Ok(Node::Directory(_)) if !file_path.directory && !raw.is_empty() => {
            let name = file_path.bytes.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            Found::Redirect(format!("./{}/{query}", path::encode(name)))
        }
        Ok(Node::Directory(directory)) => {
            let index = path::join(&path, b"index.html");
            match view.find(&index) {
                Ok(Node::File(node)) => Found::File { node: Arc::new(node), path: index },
                _ if view.info.listing => Found::Listing(directory),
                _ => Found::Nothing,
            }
        }
        _ => Found::Nothing,
    }
}

/// Step 5 for a file.
async fn represent_file(
    view: &View,
    node: Arc<FileNode>,
    path: &[u8],
    headers: &HeaderMap,
) -> Result<Representation, Response<Body>> {
    let content_type = match content_type::by_extension(path) {
        Some(content_type) => content_type,
        None => content_type::sniff(&read(&node, 0..node.length.min(content_type::SNIFFED)).await?),
    };
    let rules = &view.info.inline_static;
    let inlined = !rules.is_empty() && (path == b"index.html" || path.ends_with(b"/index.html"));
    let last_modified = conditional::last_modified(node.mtime, SystemTime::now());
    if inlined && node.length <= MOST_PAGE
        && let Some(vars) = InlineVars::of(headers)
    {
        let page = read(&node, 0..node.length).await?;
        let info = view.info.clone();
        let replaced = tokio::task::spawn_blocking(move || vars.apply(&page, &info.inline_static)).await;
        let Ok(page) = replaced else {
            return Err(error::error(StatusCode::INTERNAL_SERVER_ERROR, "applying InlineVars failed"));
        };
        let etag = etag(xxhash_rust::xxh3::xxh3_128(&page));
        return Ok(Representation {
            content: Content::Bytes(page.into()),
            content_type,
            etag,
            last_modified: None,
            cache: CachePolicy::Revalidate,
            vary: Some(HeaderValue::from_name(INLINE_VARS)),
        });
    }
    Ok(Representation {
        etag: etag(node.hash),
        content: Content::File(node),
        content_type,
        last_modified,
        cache: if view.info.immutable && !inlined { CachePolicy::Immutable } else { CachePolicy::Revalidate },
        vary: inlined.then(|| HeaderValue::from_name(INLINE_VARS)),
    })
}

/// Step 5 for a directory.
fn represent_listing(file_path: &FilePath, is_root: bool, directory: &DirectoryNode) -> Representation {
    let page = listing::page(&file_path.bytes, !is_root, &directory.children());
    Representation {
        etag: etag(xxhash_rust::xxh3::xxh3_128(page.as_bytes())),
        content: Content::Bytes(page.into()),
        content_type: HTML,
        last_modified: None,
        cache: CachePolicy::Revalidate,
        vary: None,
    }
}

/// Steps 6 and 7.
async fn respond(it: Representation, headers: &HeaderMap, head: bool) -> Response<Body> {
    let validators = Validators { etag: &it.etag, last_modified: it.last_modified };
    match conditional::evaluate(headers, validators) {
        Precondition::Proceed => {}
        Precondition::NotModified => return it.response(StatusCode::NOT_MODIFIED, Body::default()),
        Precondition::Failed => {
            return error::error(StatusCode::PRECONDITION_FAILED, "the file is not the one that the condition names");
        }
    }
    let length = it.length();
    let selection = match headers.get(header::RANGE).and_then(|value| value.to_str().ok()) {
        Some(value) if !head && conditional::range_allowed(headers, validators) => range::select(value, length),
        _ => Selection::Whole,
    };
    match selection {
        Selection::Whole if head => it.headers_only(),
        Selection::Whole => {
            let body = it.body(&[0..length]);
            it.response(StatusCode::OK, body)
        }
        Selection::One(range) => {
            let body = it.body(std::slice::from_ref(&range));
            let mut response = it.response(StatusCode::PARTIAL_CONTENT, body);
            response.headers_mut().insert(header::CONTENT_RANGE, content_range(&range, length));
            response
        }
        Selection::Many(ranges) => it.multipart(&ranges),
        Selection::Unsatisfiable => {
            let mut response = error::error(StatusCode::RANGE_NOT_SATISFIABLE, "the range begins past the end of the file");
            let unsatisfied = HeaderValue::try_from(format!("bytes */{length}"));
            response.headers_mut().extend(unsatisfied.ok().map(|value| (header::CONTENT_RANGE, value)));
            response
        }
    }
}

impl Representation {
    fn length(&self) -> u64 {
        match &self.content {
            Content::File(node) => node.length,
            Content::Bytes(bytes) => bytes.len() as u64,
        }
    }

    fn body(&self, ranges: &[Range<u64>]) -> Body {
        let mut body = Body::default();
        for range in ranges {
            self.push(&mut body, range.clone());
        }
        body
    }

    fn push(&self, body: &mut Body, range: Range<u64>) {
        match &self.content {
            // The common case, and the quickest: small and in memory.
            Content::File(node) if range.end - range.start <= WINDOW && node.resident(range.clone()) => {
                body.push_bytes(node.bytes(range));
            }
            Content::File(node) => body.push_file(node, range),
            Content::Bytes(bytes) => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                body.push_bytes(bytes.slice(index(range.start)..index(range.end)));
            }
        }
    }

    /// multipart/byteranges, RFC 9110 §14.6.
    fn multipart(self, ranges: &[Range<u64>]) -> Response<Body> {
        let boundary = format!("{:032x}", fastrand::u128(..));
        let length = self.length();
        let content_type = String::from_utf8_lossy(self.content_type.as_bytes()).into_owned();
        let mut body = Body::default();
        for range in ranges {
            let last = range.end - 1;
            let start = range.start;
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: bytes {start}-{last}/{length}\r\n\r\n"
            );
            body.push_bytes(head.into());
            self.push(&mut body, range.clone());
        }
        body.push_bytes(format!("\r\n--{boundary}--\r\n").into());
        let mut response = self.response(StatusCode::PARTIAL_CONTENT, body);
        let multipart = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"));
        response.headers_mut().extend(multipart.ok().map(|value| (header::CONTENT_TYPE, value)));
        response
    }

    /// The answer to HEAD: as to GET, without the body.
    fn headers_only(self) -> Response<Body> {
        let length = self.length();
        let mut response = self.response(StatusCode::OK, Body::default());
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        response
    }

    fn response(self, status: StatusCode, body: Body) -> Response<Body> {
        let mut headers = HeaderMap::with_capacity(12);
        if status != StatusCode::NOT_MODIFIED {
            headers.insert(header::CONTENT_TYPE, self.content_type);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.length()));
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        headers.insert(header::ETAG, self.etag);
        if let Some(modified) = self.last_modified {
            headers.insert(header::LAST_MODIFIED, http_date(modified));
        }
        headers.insert(header::CACHE_CONTROL, self.cache.header());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        if let Some(vary) = self.vary {
            headers.insert(header::VARY, vary);
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Reads part of a file for ourselves, off the reactor where its pages are not in memory.
async fn read(node: &Arc<FileNode>, range: Range<u64>) -> Result<Bytes, Response<Body>> {
    if !node.resident(range.clone()) {
        let (ahead, pages) = (node.clone(), range.clone());
        let populated = tokio::task::spawn_blocking(move || ahead.populate(pages)).await;
        if !matches!(populated, Ok(Ok(()))) {
            return Err(unreadable());
        }
    }
    Ok(node.bytes(range))
}

/// A strong entity tag out of the content's hash, the same under every name and tag.
fn etag(hash: u128) -> HeaderValue {
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

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    upgrades.any(|value| {
        let names = value.as_bytes().split(|byte| *byte == b',');
        names.map(<[u8]>::trim_ascii).any(|name| name.eq_ignore_ascii_case(b"websocket"))
    })
}

fn method_not_allowed() -> Response<Body> {
    let mut response = error::error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn redirect(view: &View, location: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::try_from(location) else {
        return error::error(StatusCode::BAD_REQUEST, "the query cannot be kept in a redirect");
    };
    let mut response = error::error(StatusCode::MOVED_PERMANENTLY, "moved to the same path with a slash");
    let cache = if view.info.immutable { CachePolicy::Immutable } else { CachePolicy::Revalidate };
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, cache.header());
    response
}

/// The image is ready, which is what a HEAD asked.
fn warmed_up(view: &View) -> Response<Body> {
    let mut response = Response::new(Body::default());
    let cache = if view.info.immutable { CachePolicy::Immutable } else { CachePolicy::Revalidate };
    response.headers_mut().insert(header::CACHE_CONTROL, cache.header());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

fn not_found(reference: &Reference, file_path: &FilePath) -> Response<Body> {
    let path = String::from_utf8_lossy(&file_path.bytes);
    error::error(StatusCode::NOT_FOUND, &format!("no file {path:?} in {reference}"))
}

fn unreadable() -> Response<Body> {
    error::error(StatusCode::INTERNAL_SERVER_ERROR, "the disk cannot read this file, try again")
}
