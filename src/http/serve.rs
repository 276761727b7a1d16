//! The recipe that answers a request:
//!
//! 1. Method and Upgrade.
//! 2. Reference and file path, cut from the raw URL path.
//! 3. The view of the image: warm, or waited for until the deadline.
//! 4. What the path leads to: file, index file, redirect to the slash, listing ([`locate`]).
//! 5. The representation: content type, InlineVars, validators, cache policy ([`represent`]).
//! 6. Conditions (RFC 9110 §13), then the range (§14): [`decide`](mod@super::decide).
//! 7. Headers and body; what every answer out of an image carries.

use super::body::Body;
use super::cache::CachePolicy;
use super::error;
use super::locate::{Located, Wanted, locate};
use super::path::{self, FilePath, PathError};
use super::represent::{self, NOSNIFF};
use crate::images::{Ask, Images, View};
use crate::reference::{Reference, Target, split_target};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use std::time::Duration;

const READ_ONLY: HeaderName = HeaderName::from_static("x-blobserve-readonly");
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox allow-scripts");

/// What the recipe needs. One per listener.
pub(super) struct Serve {
    pub(super) images: Images,
    /// For the first byte; None: no deadline.
    pub(super) timeout: Option<Duration>,
    /// HEAD of a path that GET would answer with 404 says 200.
    pub(super) head_any_path: bool,
    /// Images that are not configured by name are answered with a sandbox: all path URLs share one origin.
    pub(super) sandbox_unconfigured: bool,
}

/// A request's URL path, understood.
struct Asked<'a> {
    target: Target<'a>,
    /// None: one that no file can have.
    path: Option<FilePath>,
}

impl Serve {
    /// Answers a request whose body is not looked at.
    pub(super) async fn answer(&self, request: &Parts) -> Response<Body> {
        // An error is an answer, too.
        let (Ok(response) | Err(response)) = self.recipe(request).await;
        match request.method {
            Method::HEAD => without_body(response),
            _ => response,
        }
    }

    async fn recipe(&self, request: &Parts) -> Result<Response<Body>, Response<Body>> {
        admit(request)?;
        let asked = understand(request.uri.path())?;
        let view = self.view(&asked.target.reference, &request.headers).await?;
        let (Ok(mut response) | Err(mut response)) = self.of_image(&view, &asked, request).await;
        if self.sandbox_unconfigured && !view.info.configured {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
        }
        Ok(response)
    }

    /// Step 3.
    async fn view(
        &self,
        reference: &Reference,
        headers: &HeaderMap,
    ) -> Result<View, Response<Body>> {
        if let Some(view) = self.images.warm(reference) {
            return Ok(view);
        }
        // Boxed, as all that is not warm: hyper moves the whole future of an answer.
        let asking = Box::pin(self.images.get(reference, ask(headers)));
        let outcome = match self.timeout {
            None => asking.await,
            // The download goes on.
            Some(deadline) => match tokio::time::timeout(deadline, asking).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(error::timeout()),
            },
        };
        outcome.map_err(|failed| error::image(&failed))
    }

    /// Steps 4 to 7.
    async fn of_image(
        &self,
        view: &View,
        asked: &Asked<'_>,
        request: &Parts,
    ) -> Result<Response<Body>, Response<Body>> {
        let raw = asked.target.path;
        let root = matches!(raw, "" | "/");
        let wanted = Wanted {
            workdir: &view.info.workdir,
            path: asked.path.as_ref(),
            bare: raw.is_empty().then_some(asked.target.reference_text),
            query: request.uri.query(),
            listing: view.info.listing,
        };
        let located = locate(view, wanted);
        if view.poisoned() {
            return Err(error::unreadable());
        }
        let head = request.method == Method::HEAD;
        let representation = match located {
            Located::File(node, path) => {
                represent::of_file(view, node, &path, &request.headers).await?
            }
            // HEAD of the reference is the warm-up call of proxies: the image is ready, which is all it asks.
            Located::Redirect(_) if head && root => return Ok(warmed_up()),
            Located::Nothing if head && (root || self.head_any_path) => return Ok(warmed_up()),
            Located::Redirect(location) => {
                return redirect(&location, &CachePolicy::of(&view.info));
            }
            Located::Listing(directory) => {
                let path = asked.path.as_ref().map(|path| path.bytes.as_slice());
                Box::pin(represent::of_listing(
                    &view.info,
                    path.unwrap_or_default(),
                    root,
                    directory,
                ))
                .await?
            }
            Located::Nothing => return Err(not_found(&asked.target)),
        };
        representation
            .answer(&request.method, &request.headers)
            .await
    }
}

/// Step 1.
fn admit(request: &Parts) -> Result<(), Response<Body>> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(error::method());
    }
    if asks_for_websocket(&request.headers) {
        let text = "no websocket is served here";
        return Err(error::error(StatusCode::NOT_FOUND, text));
    }
    Ok(())
}

/// Any other Upgrade is ignored (RFC 9110 §7.8): curl and nginx send one for HTTP/2.
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    upgrades.any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    })
}

/// Step 2.
fn understand(raw: &str) -> Result<Asked<'_>, Response<Body>> {
    let target = split_target(raw).map_err(|failed| error::reference(&failed))?;
    let path = match path::file_path(target.path) {
        Ok(path) => Some(path),
        Err(PathError::Separator) => None,
        Err(failed) => return Err(error::error(StatusCode::BAD_REQUEST, &failed.to_string())),
    };
    Ok(Asked { target, path })
}

fn ask(headers: &HeaderMap) -> Ask {
    match headers.get(READ_ONLY) {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"true") => Ask::ReadOnly,
        _ => Ask::Normal,
    }
}

/// HEAD: the same head, the length of the body that GET would send, no body.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if head.status != StatusCode::NOT_MODIFIED {
        let length = HeaderValue::from(body.length());
        head.headers.insert(header::CONTENT_LENGTH, length);
    }
    Response::from_parts(head, Body::default())
}

fn redirect(location: &str, cache: &CachePolicy) -> Result<Response<Body>, Response<Body>> {
    let location = HeaderValue::try_from(location).map_err(|_| {
        let text = "the query cannot be kept in a redirect";
        error::error(StatusCode::BAD_REQUEST, text)
    })?;
    let text = "moved to the same path with a slash";
    let mut response = error::error(StatusCode::MOVED_PERMANENTLY, text);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    cache.put(headers);
    Ok(response)
}

/// 200 for a HEAD that GET would answer otherwise: never to be stored for that GET.
fn warmed_up() -> Response<Body> {
    let mut response = Response::new(Body::default());
    let headers = response.headers_mut();
    CachePolicy::NEVER.put(headers);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

fn not_found(target: &Target<'_>) -> Response<Body> {
    let text = format!("no file {:?} in {}", target.path, target.reference);
    error::error(StatusCode::NOT_FOUND, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// Method, request fields, the status of a refusal.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<u16>);

    #[test]
    fn methods_and_upgrades_are_admitted_or_refused() {
        let table: [Case<'_>; 9] = [
            ("GET", &[], None),
            ("HEAD", &[], None),
            ("POST", &[], Some(405)),
            ("OPTIONS", &[], Some(405)),
            ("BREW", &[], Some(405)),
            ("GET", &[("upgrade", "websocket")], Some(404)),
            ("GET", &[("upgrade", "h2c, WebSocket")], Some(404)),
            (
                "GET",
                &[("connection", "upgrade"), ("upgrade", "h2c")],
                None,
            ),
            ("GET", &[("connection", "upgrade")], None),
        ];
        for (method, fields, refused) in table {
            let refusal = admit(&request(method, fields)).err();
            let status = refusal.as_ref().map(|refusal| refusal.status().as_u16());
            assert_eq!(status, refused, "{method} {fields:?}");
            if refused == Some(405) {
                assert_eq!(refusal.unwrap().headers()["allow"], "GET, HEAD");
            }
        }
    }

    #[test]
    fn read_only_is_asked_for_by_the_word_true() {
        for (fields, expected) in [
            (&[][..], Ask::Normal),
            (&[("x-blobserve-readonly", "true")], Ask::ReadOnly),
            (&[("x-blobserve-readonly", "True")], Ask::ReadOnly),
            (&[("x-blobserve-readonly", "false")], Ask::Normal),
        ] {
            assert_eq!(ask(&request("GET", fields).headers), expected, "{fields:?}");
        }
    }

    #[test]
    fn head_says_the_length_and_sends_nothing() {
        let response = without_body(error::error(StatusCode::NOT_FOUND, "gone"));
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(response.body().length(), 0);
        let response = without_body(Response::new(Body::of_length(1 << 40)));
        assert_eq!(response.headers()["content-length"], "1099511627776");
    }

    #[test]
    fn a_redirect_cannot_be_made_into_another_header() {
        let answer = redirect("./a/?b\r\nX-Injected: 1", &CachePolicy::NEVER);
        assert_eq!(answer.unwrap_err().status(), 400);
        let answer = redirect("./a/?b=1", &CachePolicy::IMMUTABLE).unwrap();
        assert_eq!(answer.headers()["location"], "./a/?b=1");
        let cache = answer.headers()["cache-control"].to_str().unwrap();
        assert!(cache.contains("immutable"), "{cache}");
    }
}
