//! The recipe that answers a request:
//!
//! 1. Host, method and Upgrade; preflights of CORS end here.
//! 2. Reference and file path: as the Host serves them ([`hosts`]), or cut from the raw URL path.
//! 3. The view of the image: warm, or waited for until the deadline; one of its upper layers, if their
//!    answer is that of all of them ([`early`]). Where the image has an origin of its own, a path URL
//!    redirects there. What is asked about the image needs no view ([`about`]).
//! 4. What the path leads to: file, index file, redirect to the slash, listing
//!    ([`locate`](super::locate)); rules of the image, fallback, page for 404s around them ([`lead`]).
//!    A document of a tag may redirect to its digest.
//! 5. The representation: content type, InlineVars, validators, cache policy ([`represent`]).
//! 6. Conditions (RFC 9110 §13), then the range (§14): [`decide`](mod@super::decide).
//! 7. Headers and body; what the image says of its files, and over that what every answer of the
//!    repository carries ([`Outcome`], [`fields`]). What a browser would have been redirected for in 3 or 4 is
//!    stored by no cache.

use super::about;
use super::access::Visit;
use super::body::Body;
use super::cache::CachePolicy;
use super::deadline::Deadline;
use super::directory::{Above, Directories};
use super::early;
use super::error;
use super::fields;
use super::host::{self, Host};
use super::hosts::{self, Hosts, Serves};
use super::lead::{How, Lead, Site, lead};
use super::listing::{self, Query};
use super::locate::Wanted;
use super::outcome::Outcome;
use super::path::{self, FilePath, PathError};
use super::redirect::{self, Documents};
use super::repr_digest;
use super::represent::{self, NOSNIFF};
use crate::config::SiteConfig;
use crate::images::{Ask, Images, View, ViewInfo};
use crate::reference::{Reference, Target, split_target};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;

const READ_ONLY: HeaderName = HeaderName::from_static("x-blobserve-readonly");
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox allow-scripts");

/// What the recipe needs. One per listener.
pub(super) struct Serve {
    pub(super) images: Images,
    pub(super) hosts: Hosts,
    /// For the first byte; None: no deadline.
    pub(super) timeout: Option<Duration>,
    /// HEAD of a path that GET would answer with 404 says 200.
    pub(super) head_any_path: bool,
    /// Images that are not configured by name are answered with a sandbox: all path URLs share one origin.
    pub(super) sandbox_unconfigured: bool,
    pub(super) directories: Directories,
}

/// A request's URL, understood.
struct Asked<'a> {
    target: Target<'a>,
    /// None: one that no file can have.
    path: Option<FilePath>,
    deadline: Deadline,
}

impl Asked<'_> {
    /// The image itself.
    fn is_root(&self) -> bool {
        matches!(self.target.path, "" | "/")
    }

    /// What of it decides where it leads in the image.
    fn wanted<'a>(&'a self, info: &'a ViewInfo, request: &'a Parts) -> Wanted<'a> {
        let raw = self.target.path;
        Wanted {
            workdir: &info.workdir,
            path: self.path.as_ref(),
            raw,
            bare: raw.is_empty().then_some(self.target.reference_text),
            query: request.uri.query(),
            listing: info.listing,
            of_directory: query(info, request).of_directory(),
        }
    }

    /// Whether a view of upper layers gives the answer that the whole image would give. HEAD of the reference
    /// asks for the whole image.
    fn of_upper_layers(&self, view: &View, request: &Parts) -> bool {
        let warms_up = request.method == Method::HEAD && self.is_root();
        let wanted = self.wanted(&view.info, request);
        !warms_up && early::suffices(view, wanted, (&request.method, &request.headers))
    }
}

/// What is asked of a directory, where directories are listed.
fn query(info: &ViewInfo, request: &Parts) -> Query {
    match info.listing {
        true => Query::of(request.uri.query()),
        false => Query::default(),
    }
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
        let bad =
            |failed: host::HostError| error::error(StatusCode::BAD_REQUEST, &failed.to_string());
        host::check_form(&request.method, &request.uri).map_err(bad)?;
        let host = host::of_request(request).map_err(bad)?;
        let serves = self.hosts.of(host.as_ref());
        if fields::is_preflight(request)
            && let Some(answer) = Box::pin(self.preflight(&serves, request)).await
        {
            return Ok(answer);
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            return Err(Box::pin(self.other_method(&serves, request)).await);
        }
        no_websocket(&request.headers)?;
        let deadline = Deadline::after(self.timeout);
        let asked = asked(self.target(&serves, request.uri.path()).await?, deadline)?;
        let reference = &asked.target.reference;
        if let Some(visit) = Visit::of(&request.extensions) {
            visit.asks(reference);
        }
        if let Some(question) = about::question(asked.target.path, request.uri.query())
            && self.images.shows_about(&reference.repository)
        {
            let ask = ask(&request.headers);
            return Box::pin(self.tell(question, reference, ask, &serves, request)).await;
        }
        let shared = matches!(serves, Serves::Paths);
        let may_redirect = hosts::may_redirect(&request.method, &request.headers);
        let has_origin = shared && self.images.has_origins(&reference.repository);
        if has_origin && may_redirect {
            return Box::pin(self.to_origin(&asked, host.as_ref(), request)).await;
        }
        let view = match self.view(&serves, &asked, request).await {
            Ok(view) => view,
            Err(mut response) => {
                if let Some(site) = self.site(&serves, reference) {
                    fields::of_configuration(&mut response, site, &request.headers, false);
                }
                return Err(response);
            }
        };
        let view = match serves {
            Serves::Origin(label) if !view.info.origin => return Err(no_origin(label)),
            Serves::Paths | Serves::Image(_) | Serves::Origin(_) => view,
        };
        let documents = match shared && view.info.redirect_to_digest {
            true if may_redirect => Documents::Move,
            true => Documents::Moved,
            false => Documents::Stay,
        };
        let outcome = match self.of_image(&view, &asked, request, documents).await {
            Ok(outcome) => outcome,
            Err(response) => response.into(),
        };
        let elsewhere = has_origin || outcome.elsewhere;
        let path = asked.path.as_ref();
        let mut response = outcome.complete(&view.info, path, &request.headers);
        if elsewhere {
            // A cache that looks at no field of ours would give it to browsers.
            CachePolicy::NEVER.put(response.headers_mut());
        }
        response.body_mut().uses(&view.info);
        if shared {
            self.sandbox(&mut response, &view.info);
        }
        Ok(response)
    }

    /// Images that share an origin are kept apart.
    fn sandbox(&self, response: &mut Response<Body>, info: &ViewInfo) {
        if self.sandbox_unconfigured && !info.configured {
            let headers = response.headers_mut();
            let own = headers.get(header::CONTENT_SECURITY_POLICY);
            let sandbox = own.and_then(listing::sandboxed).unwrap_or(SANDBOX);
            headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
        }
    }

    /// Step 1, for scripts of other origins. Never asks a registry.
    async fn preflight(&self, serves: &Serves<'_>, request: &Parts) -> Option<Response<Body>> {
        let target = self.target(serves, request.uri.path()).await.ok()?;
        let site = self.site(serves, &target.reference)?;
        fields::preflight(site, &request.headers)
    }

    /// Step 1, for methods that no file has. Never asks a registry.
    async fn other_method(&self, serves: &Serves<'_>, request: &Parts) -> Response<Body> {
        let target = self.target(serves, request.uri.path()).await.ok();
        let site = target.and_then(|target| self.site(serves, &target.reference));
        fields::other_method(&request.method, site)
    }

    /// What the configuration says of answers with this reference's files. None: it is not served. Never waits.
    pub(super) fn site<'a>(
        &'a self,
        serves: &Serves<'a>,
        reference: &Reference,
    ) -> Option<&'a SiteConfig> {
        let own = match serves {
            Serves::Image(host) => host.shown.site(),
            Serves::Paths | Serves::Origin(_) => None,
        };
        own.or_else(|| self.images.site(&reference.repository))
    }

    /// Step 2.
    async fn target<'a>(
        &self,
        serves: &Serves<'_>,
        raw: &'a str,
    ) -> Result<Target<'a>, Response<Body>> {
        let reference = match serves {
            Serves::Paths => {
                return split_target(raw).map_err(|failed| error::reference(&failed));
            }
            Serves::Image(host) => host.reference.clone(),
            Serves::Origin(label) => match self.images.warm_origin(label) {
                Some(reference) => reference,
                None => Box::pin(self.images.find_origin(label))
                    .await
                    .ok_or_else(|| no_origin(label))?,
            },
        };
        Ok(Target {
            reference,
            reference_text: "",
            path: raw,
        })
    }

    /// Step 3, as the host shows it.
    async fn view(
        &self,
        serves: &Serves<'_>,
        asked: &Asked<'_>,
        request: &Parts,
    ) -> Result<View, Response<Body>> {
        let view = match self.images.warm(&asked.target.reference) {
            Some(view) => view,
            None => self.cold(serves, asked, request).await?,
        };
        let Serves::Image(host) = serves else {
            return Ok(view);
        };
        match host.shown.of(&view) {
            Some(view) => Ok(view),
            None => asked.deadline.wait(Box::pin(host.shown.make(view))).await,
        }
    }

    /// The view, fetched: of upper layers, if those give the answer.
    async fn cold(
        &self,
        serves: &Serves<'_>,
        asked: &Asked<'_>,
        request: &Parts,
    ) -> Result<View, Response<Body>> {
        if let Some(visit) = Visit::of(&request.extensions) {
            visit.waits();
        }
        // Boxed, as all that is not warm: hyper moves the whole future of an answer.
        let suffices = |view: &View| match serves {
            Serves::Image(host) => {
                let shown = host.shown.of(view);
                shown.is_some_and(|view| asked.of_upper_layers(&view, request))
            }
            Serves::Paths | Serves::Origin(_) => asked.of_upper_layers(view, request),
        };
        let ask = ask(&request.headers);
        let reference = &asked.target.reference;
        let asking = Box::pin(self.images.get_early(reference, ask, suffices));
        asked.deadline.wait(asking).await
    }

    /// Step 3, where the image's files are elsewhere: they are not fetched for that. The label is on disk before
    /// anyone is sent there.
    async fn to_origin(
        &self,
        asked: &Asked<'_>,
        host: Option<&Host<'_>>,
        request: &Parts,
    ) -> Result<Response<Body>, Response<Body>> {
        let reference = &asked.target.reference;
        if let Some(visit) = Visit::of(&request.extensions) {
            visit.waits();
        }
        let resolving = asked.deadline.wait(self.images.resolve(reference));
        let info = match resolving.await {
            Ok(info) => info,
            Err(mut response) => {
                if let Some(site) = self.images.site(&reference.repository) {
                    fields::of_configuration(&mut response, site, &request.headers, false);
                }
                return Err(response);
            }
        };
        let (Ok(response) | Err(response)) =
            self.moved_to_origin(&info, asked, host, request).await;
        let outcome = Outcome::from(response);
        let mut response = outcome.complete(&info, asked.path.as_ref(), &request.headers);
        self.sandbox(&mut response, &info);
        Ok(response)
    }

    async fn moved_to_origin(
        &self,
        info: &Arc<ViewInfo>,
        asked: &Asked<'_>,
        host: Option<&Host<'_>>,
        request: &Parts,
    ) -> Result<Response<Body>, Response<Body>> {
        let label = match info.redirect_to_digest {
            true => self.images.origin(&redirect::exact(info)).await,
            false => self.images.origin(&info.reference).await,
        };
        let port = host.and_then(|host| host.port);
        let (path, query) = (asked.target.path, request.uri.query());
        let location = self
            .hosts
            .location(&label, port, path, query)
            .ok_or_else(|| no_origin(&label))?;
        let mut response = redirect::answer(307, &location, &CachePolicy::of(info))?;
        fields::vary(response.headers_mut(), redirect::OURS);
        Ok(response)
    }

    /// Steps 4 to 7.
    async fn of_image(
        &self,
        view: &View,
        asked: &Asked<'_>,
        request: &Parts,
        documents: Documents,
    ) -> Result<Outcome, Response<Body>> {
        let raw = asked.target.path;
        let query = query(&view.info, request);
        let wanted = asked.wanted(&view.info, request);
        let site = Site {
            config: &view.info.site,
            rules: &view.info.rules,
        };
        let led = lead(view, wanted, site, &request.headers);
        if view.poisoned() {
            return Err(error::unreadable());
        }
        let head = request.method == Method::HEAD;
        // HEAD of the reference is the warm-up call of proxies: the image is ready, which is all it asks.
        let ready = match led {
            Lead::Redirect { .. } => asked.is_root(),
            Lead::Nothing | Lead::File(_, _, How::NotFound) => {
                asked.is_root() || self.head_any_path
            }
            Lead::File(..) | Lead::Listing(_) => false,
        };
        if head && ready {
            return Ok(warmed_up().into());
        }
        let document = redirect::document(&led);
        if documents == Documents::Move
            && let Some(how) = document
        {
            return Ok(redirect::to_digest(&view.info, &asked.target, request, how)?.into());
        }
        let (representation, how) = match led {
            Lead::File(node, path, how) => {
                // A page for 404s is sent as it is: the request asked for something else, in other codings too.
                let nothing = HeaderMap::new();
                let headers = match how {
                    How::NotFound => &nothing,
                    _ => &request.headers,
                };
                let to = (&request.method, headers);
                let file =
                    represent::of_file((&self.images, view), (node, &path), to, asked.deadline)
                        .await?;
                (file, Some(how))
            }
            Lead::Redirect {
                status,
                location,
                by_rule,
            } => {
                let cache = match by_rule {
                    true => CachePolicy::changing(&view.info),
                    false => CachePolicy::of(&view.info),
                };
                return Ok(redirect::answer(status, &location, &cache)?.into());
            }
            Lead::Listing(directory) => {
                let path = asked.path.as_ref().map(|path| path.bytes.as_slice());
                let above = Above {
                    path: path.unwrap_or_default(),
                    raw,
                };
                let answer = self
                    .directories
                    .answer(self, view, directory, above, query, request);
                return Ok(Box::pin(answer).await?.into());
            }
            Lead::Nothing => return Err(not_found(&asked.target)),
        };
        let (method, headers) = (&request.method, &request.headers);
        let hashed = repr_digest::wanted(headers, &view.info).then(|| representation.content());
        let as_pushed = !view.info.modified && !representation.is_inlined();
        let mut answer = match how {
            Some(How::Asked) | None => representation.answer(method, headers).await?,
            Some(How::Rewritten) => {
                representation
                    .changing(&view.info)
                    .answer(method, headers)
                    .await?
            }
            Some(How::Fallback) => {
                let provisional = representation.changing(&view.info).unsettled();
                let mut answer = provisional.answer(method, headers).await?;
                fields::vary(answer.headers_mut(), "Accept");
                answer
            }
            Some(How::NotFound) => representation.not_found(method).await?,
        };
        if let Some(content) = hashed {
            Box::pin(repr_digest::put(
                &mut answer,
                content,
                self.images.integrity(),
            ))
            .await;
        }
        Ok(Outcome {
            response: answer,
            how,
            as_pushed,
            elsewhere: documents == Documents::Moved && document.is_some(),
        })
    }
}

/// Step 1.
fn no_websocket(headers: &HeaderMap) -> Result<(), Response<Body>> {
    if asks_for_websocket(headers) {
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

/// The rest of step 2.
fn asked(target: Target<'_>, deadline: Deadline) -> Result<Asked<'_>, Response<Body>> {
    let path = match path::file_path(target.path) {
        Ok(path) => Some(path),
        Err(PathError::Separator) => None,
        Err(failed) => return Err(error::error(StatusCode::BAD_REQUEST, &failed.to_string())),
    };
    Ok(Asked {
        target,
        path,
        deadline,
    })
}

pub(super) fn no_origin(label: &str) -> Response<Body> {
    let text = format!("no image has the origin {label:?}: ask for its path URL first");
    error::error(StatusCode::NOT_FOUND, &text)
}

fn ask(headers: &HeaderMap) -> Ask {
    match headers.get(READ_ONLY) {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"true") => Ask::ReadOnly,
        _ => Ask::Normal,
    }
}

/// HEAD: the same head, the length of the body that GET would send, no body.
pub(super) fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if !body.is_measured() {
        return Response::from_parts(head, Body::unmeasured());
    }
    if head.status != StatusCode::NOT_MODIFIED {
        let length = HeaderValue::from(body.length());
        head.headers.insert(header::CONTENT_LENGTH, length);
    }
    Response::from_parts(head, Body::default())
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

    #[test]
    fn a_websocket_is_not_served_and_other_upgrades_are_ignored() {
        let table: [(&[(&str, &str)], bool); 5] = [
            (&[], true),
            (&[("upgrade", "websocket")], false),
            (&[("upgrade", "h2c, WebSocket")], false),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], true),
            (&[("connection", "upgrade")], true),
        ];
        for (fields, served) in table {
            let refusal = no_websocket(&request("GET", fields).headers).err();
            let status = refusal.map(|refusal| refusal.status().as_u16());
            assert_eq!(status, (!served).then_some(404), "{fields:?}");
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
}
