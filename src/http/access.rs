//! What is noted of a request while it is answered, for the access log.
//!
//! Whoever reads a request puts a [`Visit`] into its extensions, where there is an access log; the recipe
//! notes on it what it finds out, the body how much of it was taken. When the last of them is dropped,
//! whatever the reason, the answer has ended, and the line is written.

use crate::access_log::{AccessLog, Answered, Asked, Cache, GONE};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Extensions, Method, Uri, Version};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A request that will be logged when it is dropped.
pub(super) struct Visit {
    log: AccessLog,
    remote: IpAddr,
    began: Instant,
    method: Method,
    target: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    reference: OnceLock<String>,
    cold: AtomicBool,
    /// 0: there is no answer yet.
    status: AtomicU16,
    bytes: AtomicU64,
}

impl Visit {
    /// Notes the request, whose head came at `began`.
    pub(super) fn begin(log: &AccessLog, remote: IpAddr, began: Instant, request: &mut Parts) {
        let field = |name| request.headers.get(name).cloned();
        let visit = Visit {
            log: log.clone(),
            remote,
            began,
            method: request.method.clone(),
            target: request.uri.clone(),
            version: request.version,
            host: field(header::HOST),
            referer: field(header::REFERER),
            user_agent: field(header::USER_AGENT),
            reference: OnceLock::new(),
            cold: AtomicBool::new(false),
            status: AtomicU16::new(0),
            bytes: AtomicU64::new(0),
        };
        request.extensions.insert(Arc::new(visit));
    }

    /// That of the request with these extensions, if it will be logged.
    pub(super) fn of(extensions: &Extensions) -> Option<&Arc<Visit>> {
        extensions.get::<Arc<Visit>>()
    }

    /// The image that it asks for.
    pub(super) fn asks(&self, reference: &impl ToString) {
        // A request asks for one image.
        let _ = self.reference.set(reference.to_string());
    }

    /// The image that it asks for, if that is known.
    pub(super) fn reference(&self) -> Option<&str> {
        self.reference.get().map(String::as_str)
    }

    /// The image was not there.
    pub(super) fn waits(&self) {
        self.cold.store(true, Ordering::Relaxed);
    }

    /// The head of the answer is known.
    pub(super) fn answered(&self, status: http::StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// So many more bytes of the body were taken.
    pub(super) fn sent(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let whole;
        let target = match self.target.path_and_query() {
            Some(target) => target.as_str(),
            None => {
                whole = self.target.to_string();
                &whole
            }
        };
        // HTTP/2 names the host in the target.
        let authority = self.target.authority().map(|host| host.as_str().as_bytes());
        let asked = Asked {
            remote: self.remote,
            method: self.method.as_str().as_bytes(),
            target: target.as_bytes(),
            version: self.version,
            host: self.host.as_ref().map(HeaderValue::as_bytes).or(authority),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
        };
        let reference = self.reference.get();
        let cold = *self.cold.get_mut();
        let answered = Answered {
            status: match *self.status.get_mut() {
                0 => GONE,
                status => status,
            },
            bytes: *self.bytes.get_mut(),
            duration: self.began.elapsed(),
            reference: reference.map(String::as_str),
            cache: reference.map(|_| if cold { Cache::Cold } else { Cache::Warm }),
        };
        self.log.write(&asked, &answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AccessFormat, AccessLogConfig};
    use crate::metrics::Metrics;
    use crate::reference::Reference;
    use std::time::Duration;

    /// The lines about requests that `act` is given.
    fn lines(requests: &[&dyn Fn(Parts)]) -> Vec<serde_json::Value> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log");
        let config = AccessLogConfig {
            format: AccessFormat::Json,
            file: Some(file.clone()),
        };
        let log = AccessLog::open(&config, Arc::new(Metrics::new())).unwrap();
        for act in requests {
            let request = http::Request::get("http://example.org/a.b/c:1/x?y")
                .header("user-agent", "test\"")
                .body(());
            let mut parts = request.unwrap().into_parts().0;
            Visit::begin(&log, [192, 0, 2, 1].into(), Instant::now(), &mut parts);
            act(parts);
        }
        log.close(Duration::from_secs(30));
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_line_is_written_when_the_last_who_knows_of_the_request_is_gone() {
        let lines = lines(&[
            &drop,
            &|request| {
                let visit = Visit::of(&request.extensions).unwrap().clone();
                visit.asks(&Reference::parse("a.b/c:1").unwrap());
                drop(request);
                visit.answered(http::StatusCode::OK);
                visit.sent(7);
                visit.sent(8);
            },
            &|request| {
                let visit = Visit::of(&request.extensions).unwrap();
                visit.asks(&Reference::parse("a.b/c:1").unwrap());
                visit.waits();
                visit.answered(http::StatusCode::NOT_FOUND);
            },
        ]);
        assert_eq!(lines.len(), 3);
        for line in &lines {
            assert_eq!(line["target"], "/a.b/c:1/x?y");
            assert_eq!(
                (&line["host"], &line["userAgent"]),
                (&"example.org".into(), &"test\"".into())
            );
        }
        assert_eq!(
            (&lines[0]["status"], &lines[0]["bytes"]),
            (&499.into(), &0.into())
        );
        assert_eq!(lines[0]["cache"], serde_json::Value::Null);
        assert_eq!(
            (&lines[1]["status"], &lines[1]["bytes"]),
            (&200.into(), &15.into())
        );
        assert_eq!(
            (&lines[1]["cache"], &lines[1]["reference"]),
            (&"warm".into(), &"a.b/c:1".into())
        );
        assert_eq!(
            (&lines[2]["status"], &lines[2]["cache"]),
            (&404.into(), &"cold".into())
        );
    }
}
