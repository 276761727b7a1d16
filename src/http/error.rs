//! Errors as answers: one line of text, and the status by what went wrong. The only place that
//! maps [`ImageError`] to a status.

use super::body::Body;
use super::cache::CachePolicy;
use crate::images::ImageError;
use crate::reference::ReferenceError;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

/// Longest text of an error, in bytes.
const MOST_TEXT: usize = 1024;
/// The body that retrying proxies of existing installations look for.
const TIMEOUT: &str = "timeout";

/// The deadline has passed, or too many wait: exactly these 7 bytes, and when to come again.
pub(super) fn timeout() -> Response<Body> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT.to_owned());
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// One line of text.
pub(super) fn error(status: StatusCode, text: &str) -> Response<Body> {
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if line.len() + c.len_utf8() > MOST_TEXT {
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    plain(status, line)
}

/// By what went wrong with the image.
pub(super) fn image(failed: &ImageError) -> Response<Body> {
    let status = match failed {
        ImageError::Busy(_) => return timeout(),
        ImageError::Forbidden(_) | ImageError::Denied(_) => StatusCode::FORBIDDEN,
        ImageError::NotFound(_) => StatusCode::NOT_FOUND,
        ImageError::Wrong(_) | ImageError::Failing { .. } => StatusCode::BAD_GATEWAY,
        ImageError::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
        ImageError::TooLarge(_) => StatusCode::INSUFFICIENT_STORAGE,
        ImageError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = error(status, &failed.to_string());
    if let ImageError::Failing {
        retry_after: Some(seconds),
        ..
    } = failed
    {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    response
}

/// The disk does not give what it should.
pub(super) fn unreadable() -> Response<Body> {
    let text = "the disk cannot read this file, try again";
    error(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// 406: identity is refused, and of what is accepted there is nothing (RFC 9110 §12.5.3).
pub(super) fn not_acceptable() -> Response<Body> {
    let text = "this is not sent in any coding that Accept-Encoding allows: allow identity";
    error(StatusCode::NOT_ACCEPTABLE, text)
}

/// 416: says how long the representation is (RFC 9110 §15.5.17).
pub(super) fn unsatisfiable(length: u64) -> Response<Body> {
    let text = "the range begins past the end of the file";
    let mut response = error(StatusCode::RANGE_NOT_SATISFIABLE, text);
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

/// 405: says what is allowed. `options`: this, too.
pub(super) fn method(options: bool) -> Response<Body> {
    let (text, allowed) = match options {
        false => ("only GET and HEAD are answered here", "GET, HEAD"),
        true => (
            "only GET, HEAD and OPTIONS are answered here",
            super::fields::METHODS_WITH_CORS,
        ),
    };
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, text);
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// By what is wrong with the reference in the URL.
pub(super) fn reference(failed: &ReferenceError) -> Response<Body> {
    let status = match failed {
        ReferenceError::Escapes(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::NOT_FOUND,
    };
    error(status, &failed.to_string())
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    CachePolicy::NEVER.put(headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn each_failure_has_its_status_and_a_line_of_text() {
        use ImageError::*;
        let failing = |retry_after| Failing {
            message: "later".into(),
            retry_after,
        };
        let table = [
            (
                NotFound("no such image".into()),
                404,
                None,
                "no such image\n",
            ),
            (Denied("denied".into()), 403, None, "denied\n"),
            (
                Wrong("digest\r\ndiffers\0".into()),
                502,
                None,
                "digest\\r\\ndiffers\\u{0}\n",
            ),
            (failing(Some(7)), 502, Some("7"), "later\n"),
            (failing(None), 502, None, "later\n"),
            (Silent("silent".into()), 504, None, "silent\n"),
            (Busy("queue full".into()), 503, Some("1"), "timeout"),
            (TooLarge("too large".into()), 507, None, "too large\n"),
            (Internal("disk".into()), 500, None, "disk\n"),
        ];
        for (failed, status, retry_after, text) in table {
            let response = image(&failed);
            assert_eq!(response.status(), status, "{failed:?}");
            let headers = response.headers();
            let after = headers.get("retry-after");
            assert_eq!(
                after.map(|value| value.to_str().unwrap()),
                retry_after,
                "{failed:?}"
            );
            assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["cache-control"], "no-store");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, text, "{failed:?}");
        }
    }

    #[test]
    fn a_reference_that_is_none_is_404_and_one_that_is_left_400() {
        let missing = ReferenceError::VersionMissing("a/b".into());
        for (failed, status) in [
            (ReferenceError::Grammar("x".into()), 404),
            (missing, 404),
            (ReferenceError::Escapes("/..".into()), 400),
        ] {
            assert_eq!(reference(&failed).status(), status, "{failed:?}");
        }
    }

    #[tokio::test]
    async fn a_long_text_is_cut() {
        let response = error(StatusCode::NOT_FOUND, &"ä".repeat(10_000));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() <= MOST_TEXT + 1 && body.ends_with("ä\n".as_bytes()));
    }
}
