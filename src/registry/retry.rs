//! Asking again: exponential backoff with full jitter, `Retry-After` honoured.

use super::RegistryErrorKind;
use super::error::Failure;
use http::{HeaderMap, StatusCode, header};
use std::future::Future;
use std::time::{Duration, SystemTime};

/// How often and how patiently a request is asked again.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Attempts after the first.
    pub count: u32,
    /// The longest first wait; each further one is twice as long.
    pub base: Duration,
    /// The longest wait of all.
    pub cap: Duration,
    /// The longest `Retry-After` that is waited for; a longer one is passed on to the caller.
    pub retry_after: Duration,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries {
            count: 3,
            base: Duration::from_millis(200),
            cap: Duration::from_secs(5),
            retry_after: Duration::from_secs(10),
        }
    }
}

impl Retries {
    /// One attempt only.
    pub(super) fn none(self) -> Retries {
        Retries { count: 0, ..self }
    }

    /// The wait before the attempt after `failed` ones: anything up to the exponential bound,
    /// so that many clients that failed together do not come back together.
    pub(super) fn wait(&self, failed: u32) -> Duration {
        let bound = self
            .base
            .saturating_mul(1 << failed.saturating_sub(1).min(20))
            .min(self.cap);
        bound.mul_f64(fastrand::f64())
    }

    /// Calls `attempt` until it succeeds, fails for good or has failed `count + 1` times.
    /// The error comes with the number of attempts made.
    pub(super) async fn run<T, F, Fut>(&self, mut attempt: F) -> Result<T, (Failure, u32)>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut failed = 0;
        loop {
            let failure = match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            failed += 1;
            if !failure.transient || failed > self.count {
                return Err((failure, failed));
            }
            let mut wait = self.wait(failed);
            if let RegistryErrorKind::Failing {
                retry_after: Some(seconds),
            } = failure.kind
            {
                if Duration::from_secs(seconds) > self.retry_after {
                    return Err((failure, failed));
                }
                wait += Duration::from_secs(seconds);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// What an answer that is no success means.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap) -> Failure {
    use RegistryErrorKind::{Denied, NotFound, Wrong};
    let text = status.to_string();
    match status.as_u16() {
        404 | 410 => Failure::last(NotFound, text),
        401 | 403 => Failure::last(Denied, text),
        408 | 429 | 500..=599 => Failure {
            kind: RegistryErrorKind::Failing {
                retry_after: retry_after(headers, SystemTime::now()),
            },
            text,
            transient: true,
        },
        _ => Failure::last(Wrong, text),
    }
}

/// Whether the status says that a registry has no lists of referrers: 404 by the specification, and what
/// older registries and proxies answer to a path or an Accept that they do not know.
pub(super) fn unlisted(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 404 | 405 | 406 | 410 | 501)
}

/// `Retry-After` in seconds: a number or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 02:00:00 GMT").expect("date");
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sat, 21 Nov 2026 02:00:30 GMT", Some(30)),
            ("Sat, 21 Nov 2026 01:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("value"));
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
    }

    #[test]
    fn waits_grow_and_stay_under_the_cap() {
        let retries = Retries::default();
        for failed in 1..100 {
            let bound = Duration::from_millis(200 << (failed - 1).min(10)).min(retries.cap);
            assert!(retries.wait(failed) <= bound, "attempt {failed}");
        }
    }

    #[test]
    fn what_can_pass_is_transient_and_what_cannot_is_not() {
        for (status, transient) in [
            (429, true),
            (500, true),
            (503, true),
            (408, true),
            (401, false),
            (403, false),
            (404, false),
            (400, false),
        ] {
            let status = StatusCode::from_u16(status).expect("status");
            assert_eq!(
                refusal(status, &HeaderMap::new()).transient,
                transient,
                "{status}"
            );
        }
    }
}
