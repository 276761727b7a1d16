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
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// One line of text.
pub(super) fn error(status: StatusCode, text: &str) -> Response<Body> {
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if line.len() + c.len_utf8() > MOST_TEXT {
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
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
    if let ImageError::Failing { retry_after: Some(seconds), .. } = failed {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
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
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, CachePolicy::Never.header());
    response
}
