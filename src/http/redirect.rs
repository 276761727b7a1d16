//! Redirects as answers; and from a tag to the digest that it means, so that a page and what it loads are
//! of one image.

use super::body::Body;
use super::cache::CachePolicy;
use super::content_type;
use super::error;
use super::fields;
use super::lead::{How, Lead};
use super::path;
use crate::images::ViewInfo;
use crate::reference::{Reference, Target, Version};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use std::sync::Arc;

/// What a redirect to another URL of the same file depends on beside the URL.
pub(super) const OURS: &str = "X-BlobServe-ReadOnly, X-BlobServe-InlineVars";

/// `location` is made by us; what of the request stands in it may still be no field.
///
/// # Errors
/// The 400 that says so.
pub(super) fn answer(
    status: u16,
    location: &str,
    cache: &CachePolicy,
) -> Result<Response<Body>, Response<Body>> {
    let value = HeaderValue::try_from(location).map_err(|_| {
        let text = "the query cannot be kept in a redirect";
        error::error(StatusCode::BAD_REQUEST, text)
    })?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    let mut response = error::error(status, &format!("moved to {location}"));
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value);
    cache.put(headers);
    Ok(response)
}

/// What becomes of an image's documents at their path URLs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Documents {
    Stay,
    /// They redirect to the digest.
    Move,
    /// They would, but for this request, which is no browser's.
    Moved,
}

/// Pages are what browsers come for; what those load they find beside them.
/// Returns how it came to be the answer; None: it is no page.
pub(super) fn document<F, D>(led: &Lead<F, D>) -> Option<How> {
    const HTML: &[u8] = b"text/html";
    match led {
        Lead::File(_, _, How::NotFound) => None,
        Lead::File(_, path, how) => {
            let found = content_type::by_extension(path)?;
            found.as_bytes().starts_with(HTML).then_some(*how)
        }
        Lead::Redirect { .. } | Lead::Listing(_) | Lead::Nothing => None,
    }
}

/// The image that the reference means now.
pub(super) fn exact(info: &ViewInfo) -> Reference {
    Reference {
        repository: info.reference.repository.clone(),
        version: Version::Digest(info.digest),
    }
}

/// What was asked for, under the digest that the tag means now.
pub(super) fn to_digest(
    info: &Arc<ViewInfo>,
    target: &Target<'_>,
    request: &Parts,
    how: How,
) -> Result<Response<Body>, Response<Body>> {
    let exact = exact(info).to_string();
    let sibling = exact.rsplit('/').next().unwrap_or_default();
    let (raw, query) = (target.path, request.uri.query());
    let location = path::under(raw, raw.is_empty(), sibling, query);
    let mut response = answer(307, &location, &CachePolicy::of(info))?;
    fields::vary(response.headers_mut(), OURS);
    if how == How::Fallback {
        fields::vary(response.headers_mut(), "Accept");
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_documents_and_what_they_load_is_not() {
        let file = |path: &str, how| Lead::<(), ()>::File((), path.as_bytes().to_vec(), how);
        for (led, how) in [
            (file("a/index.html", How::Asked), Some(How::Asked)),
            (file("a/x.HTM", How::Rewritten), Some(How::Rewritten)),
            (file("index.html", How::Fallback), Some(How::Fallback)),
            (file("404.html", How::NotFound), None),
            (file("a.js", How::Asked), None),
            (file("html", How::Asked), None),
            (Lead::Listing(()), None),
            (Lead::Nothing, None),
        ] {
            assert_eq!(document(&led), how, "{led:?}");
        }
    }

    #[test]
    fn a_redirect_cannot_be_made_into_another_header() {
        let response = answer(301, "./a/?b\r\nX-Injected: 1", &CachePolicy::NEVER);
        assert_eq!(response.unwrap_err().status(), 400);
        let response = answer(308, "./a/?b=1", &CachePolicy::IMMUTABLE).unwrap();
        assert_eq!(response.status(), 308);
        assert_eq!(response.headers()["location"], "./a/?b=1");
        let cache = response.headers()["cache-control"].to_str().unwrap();
        assert!(cache.contains("immutable"), "{cache}");
    }
}
