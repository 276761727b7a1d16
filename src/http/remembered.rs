//! Answers that were given a moment ago, by what decides them, so that the same question costs one
//! look-up. One memory a reactor, so nothing is locked.
//!
//! HTTP/1.1 sends the text that was remembered; HTTP/2 takes the fields ([`recall`]).

use super::access::Visit;
use super::body::{Body, WINDOW, Whole};
use super::plain::{Plain, is_harmless};
use super::render;
use crate::images::{FileNode, KnownFile, ViewInfo};
use hashbrown::{DefaultHashBuilder, HashMap};
use http::header::{self, HeaderMap};
use http::{Response, StatusCode, request};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that all memories of the process hold at most, about.
const MOST_BYTES: usize = 32 << 20;
/// Counted for an answer beside its texts.
const OVERHEAD: usize = 256;
/// Longest target, host and encodings of one that is remembered.
const MOST_KEY: usize = 2048;

thread_local! {
    static MEMORY: RefCell<Remembered> = RefCell::default();
}

/// Lets `f` at this thread's memory. Not to be nested.
pub(super) fn with<T>(f: impl FnOnce(&mut Remembered) -> T) -> T {
    MEMORY.with_borrow_mut(f)
}

/// The remembered answer to a request of HTTP/2, if it still stands.
pub(super) fn recall(request: &request::Parts) -> Option<Response<Body>> {
    let plain = Plain::of(request)?;
    let target = request.uri.path_and_query()?.as_str();
    with(|memory| {
        let answer = memory.get(target, &plain)?;
        let Some(file) = answer.current(Instant::now()) else {
            memory.forget();
            return None;
        };
        if !file.resident(0..file.length.min(WINDOW)) {
            return None;
        }
        let mut response = Response::new(Body::default());
        *response.headers_mut() = answer.fields.clone();
        let length = file.length;
        response.body_mut().push_file(&Arc::new(file), 0..length);
        response.body_mut().uses(&answer.view);
        Some(response)
    })
}

/// Remembers what the recipe says to a request of HTTP/2, if it will stand.
pub(super) fn remember(request: &request::Parts, response: &Response<Body>) {
    let Some(whole) = response.body().settled() else {
        return;
    };
    let key = Plain::of(request)
        .zip(request.uri.path_and_query())
        .and_then(|(plain, target)| Key::of(target.as_str(), &plain));
    let answer = Answer::of(response.status(), response.headers(), whole, None);
    if let (Some(key), Some(answer)) = (key, answer) {
        with(|memory| memory.put(key, answer));
    }
}

/// What decides a plain request's answer: target, Host, Accept-Encoding.
pub(super) struct Key(Box<[u8]>);

/// A 200 whose body is a whole file, and the 304 that says that the client has it.
pub(super) struct Answer {
    view: Arc<ViewInfo>,
    file: KnownFile,
    /// The 200's head without Date, Connection and the empty line.
    pub(super) head: Box<[u8]>,
    /// The same of the 304.
    pub(super) not_modified: Box<[u8]>,
    etag: Box<[u8]>,
    /// The 200's fields, for HTTP/2.
    fields: HeaderMap,
    /// The image, for the access log; empty where there is none.
    pub(super) reference: Box<str>,
}

impl Answer {
    /// None: this answer cannot stand for later ones.
    pub(super) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        whole: &Whole,
        visit: Option<&Visit>,
    ) -> Option<Answer> {
        let etag = headers.get(header::ETAG)?;
        if status != StatusCode::OK || !varies_by_the_key_only(headers) {
            return None;
        }
        let mut ok = Vec::with_capacity(512);
        render::status_and_fields(&mut ok, status, headers);
        render::content_length(&mut ok, whole.file.length);
        let mut not_modified = Vec::with_capacity(512);
        let mut fields = headers.clone();
        // RFC 9110 §15.4.5: what describes the content stays away, but for the entity tag.
        for name in [
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::ACCEPT_RANGES,
            header::LAST_MODIFIED,
        ] {
            fields.remove(name);
        }
        render::status_and_fields(&mut not_modified, StatusCode::NOT_MODIFIED, &fields);
        Some(Answer {
            view: whole.view.clone(),
            file: whole.file.known(),
            head: ok.into(),
            not_modified: not_modified.into(),
            etag: etag.as_bytes().into(),
            fields: headers.clone(),
            reference: visit.and_then(Visit::reference).unwrap_or_default().into(),
        })
    }

    /// The file, if the answer still is the one that the recipe would give.
    pub(super) fn current(&self, now: Instant) -> Option<FileNode> {
        if !self.view.is_current(now) {
            return None;
        }
        self.file.get().filter(|file| !file.poisoned())
    }

    /// Whether this If-None-Match names just this answer; any other one is for the recipe.
    pub(super) fn is(&self, etag: &[u8]) -> bool {
        *self.etag == *etag
    }

    /// What it is of.
    pub(super) fn view(&self) -> &Arc<ViewInfo> {
        &self.view
    }

    fn bytes(&self) -> usize {
        let texts = self.head.len() + self.not_modified.len() + self.etag.len();
        texts + self.reference.len() + OVERHEAD
    }
}

/// Whether all that the answer says it depends on (RFC 9110 §12.5.5) is in the key, or absent from every
/// plain request.
fn varies_by_the_key_only(headers: &HeaderMap) -> bool {
    headers.get_all(header::VARY).iter().all(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .map(str::trim)
                .all(|name| name != "*" && !is_harmless(name))
        })
    })
}

/// Two generations: when the young one is full it becomes the old one, which is forgotten.
pub(super) struct Remembered {
    young: HashMap<Box<[u8]>, Answer, DefaultHashBuilder>,
    old: HashMap<Box<[u8]>, Answer, DefaultHashBuilder>,
    /// Of the young one.
    bytes: usize,
    most: usize,
    key: Vec<u8>,
}

impl Default for Remembered {
    fn default() -> Remembered {
        let reactors = std::thread::available_parallelism().map_or(1, usize::from);
        Remembered::bounded(MOST_BYTES / reactors)
    }
}

impl Remembered {
    fn bounded(bytes: usize) -> Remembered {
        Remembered {
            young: HashMap::default(),
            old: HashMap::default(),
            bytes: 0,
            most: bytes / 2,
            key: Vec::new(),
        }
    }

    /// The answer to be tried.
    pub(super) fn get(&mut self, target: &str, plain: &Plain<'_>) -> Option<&Answer> {
        self.key.clear();
        write_key(&mut self.key, target, plain);
        if !self.young.contains_key(self.key.as_slice()) {
            let (key, answer) = self.old.remove_entry(self.key.as_slice())?;
            self.insert(key, answer);
        }
        self.young.get(self.key.as_slice())
    }

    /// Drops what [`Remembered::get`] gave last.
    pub(super) fn forget(&mut self) {
        if let Some((key, answer)) = self.young.remove_entry(self.key.as_slice()) {
            self.bytes -= key.len() + answer.bytes();
        }
    }

    pub(super) fn put(&mut self, key: Key, answer: Answer) {
        self.insert(key.0, answer);
    }

    fn insert(&mut self, key: Box<[u8]>, answer: Answer) {
        let bytes = key.len() + answer.bytes();
        if self.bytes + bytes > self.most {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        let added = key.len();
        if let Some(replaced) = self.young.insert(key, answer) {
            self.bytes -= added + replaced.bytes();
        }
    }
}

impl Key {
    /// None: too long to be remembered.
    pub(super) fn of(target: &str, plain: &Plain<'_>) -> Option<Key> {
        let mut key = Vec::new();
        write_key(&mut key, target, plain);
        (key.len() <= MOST_KEY).then(|| Key(key.into()))
    }
}

/// None of the three can hold the separator.
fn write_key(key: &mut Vec<u8>, target: &str, plain: &Plain<'_>) {
    key.extend_from_slice(target.as_bytes());
    key.push(0);
    key.extend_from_slice(plain.host);
    key.push(0);
    key.extend_from_slice(plain.accept_encoding);
}
