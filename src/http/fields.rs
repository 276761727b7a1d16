//! The fields that a repository's answers carry besides those that describe them: what the image's
//! `_headers` say of its files, and over that what the configuration says of all answers; preflights of
//! CORS (<https://fetch.spec.whatwg.org/#http-cors-protocol>). Pure.

use super::body::Body;
use super::cache;
use super::error;
use crate::config::{CorsConfig, ResourcePolicy, SiteConfig};
use crate::rules::{Headers, fields};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// Fields of requests for files.
const REQUEST_HEADERS: &str = "Accept, Cache-Control, Content-Type, If-Match, If-Modified-Since, If-None-Match, \
If-Range, If-Unmodified-Since, Range, Want-Repr-Digest";
/// Fields of answers with files that scripts may not read without being told.
const EXPOSE_HEADERS: &str =
    "Accept-Ranges, Content-Encoding, Content-Range, Date, ETag, Repr-Digest";
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// A file that is an answer.
#[derive(Clone, Copy)]
pub(super) struct File {
    /// It is what was asked for, and stands for nothing else.
    pub(super) asked: bool,
    /// It is as the image has it.
    pub(super) as_pushed: bool,
}

/// What the image says of an answer with one of its files. `path` is what was asked for, decoded, with its
/// slash at the start.
pub(super) fn of_image(response: &mut Response<Body>, rules: &Headers, path: &[u8], file: File) {
    let headers = response.headers_mut();
    for (name, value) in rules.of(path) {
        match *name == header::CACHE_CONTROL {
            true if file.asked => cache::of_image(headers, value, file.as_pushed),
            true => {}
            false => set(headers, name, value, file.asked),
        }
    }
}

/// What the configuration says of every answer of the repository. `asked`: as for [`File`].
pub(super) fn of_configuration(
    response: &mut Response<Body>,
    site: &SiteConfig,
    request: &HeaderMap,
    asked: bool,
) {
    let headers = response.headers_mut();
    for (name, value) in &site.headers {
        set(headers, name, value, asked);
    }
    if let Some(tokens) = &site.sandbox {
        sandbox(headers, &tokens.join(" "), site);
    }
    if let Some(policy) = site.resource_policy {
        let policy = HeaderValue::from_static(match policy {
            ResourcePolicy::SameOrigin => "same-origin",
            ResourcePolicy::SameSite => "same-site",
            ResourcePolicy::CrossOrigin => "cross-origin",
        });
        headers.insert(RESOURCE_POLICY, policy);
    }
    if !site.cors.origins.is_empty() {
        of_cors(headers, &site.cors, request);
    }
}

/// A field that describes a file is for the file that was asked for only.
fn set(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue, asked: bool) {
    if fields::of_file(name) && !asked {
        return;
    }
    if name == header::CONTENT_TYPE {
        // None in a 304; and parts of a file have one of their own.
        match headers.get(name) {
            Some(there) if !there.as_bytes().starts_with(b"multipart/byteranges") => {}
            _ => return,
        }
    }
    headers.insert(name, value.clone());
}

/// A policy of the configuration holds beside the sandbox: in a list, all of them do.
fn sandbox(headers: &mut HeaderMap, tokens: &str, site: &SiteConfig) {
    let name = header::CONTENT_SECURITY_POLICY;
    let mut policy = format!("sandbox {tokens}").trim_end().to_owned();
    if let Some((_, other)) = site.headers.iter().find(|(there, _)| *there == name) {
        policy = format!("{policy}, {}", String::from_utf8_lossy(other.as_bytes()));
    }
    // Tokens are of a known list, and the other policy was a value already.
    if let Ok(value) = HeaderValue::try_from(policy) {
        headers.insert(name, value);
    }
}

fn of_cors(headers: &mut HeaderMap, cors: &CorsConfig, request: &HeaderMap) {
    if !cors.allows_all() {
        // An answer to no origin, or to one that is not allowed, is another one too.
        vary(headers, "Origin");
    }
    if allow(headers, cors, request) {
        let more = cors.expose_headers.iter().map(String::as_str);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            list(EXPOSE_HEADERS, more),
        );
    }
}

/// Says that the request's origin may read the answer, if it may.
fn allow(headers: &mut HeaderMap, cors: &CorsConfig, request: &HeaderMap) -> bool {
    let origin = request.get(header::ORIGIN);
    let allowed = match origin {
        _ if cors.allows_all() => HeaderValue::from_static("*"),
        Some(origin) if origin.to_str().is_ok_and(|text| cors.allows(text)) => origin.clone(),
        _ => return false,
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if cors.credentials {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    true
}

/// The request asks whether a script may send another one.
pub(super) fn is_preflight(request: &Parts) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight. None: the repository has no CORS. An origin that is not allowed is told so by
/// the absence of any permission, which browsers explain better than a status.
pub(super) fn preflight(site: &SiteConfig, request: &HeaderMap) -> Option<Response<Body>> {
    let cors = &site.cors;
    if cors.origins.is_empty() {
        return None;
    }
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::VARY, PREFLIGHT_VARY);
    if allow(headers, cors, request) {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, HEAD"),
        );
        let more = cors.request_headers.iter().map(String::as_str);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            list(REQUEST_HEADERS, more),
        );
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from(cors.max_age.as_secs()),
        );
    }
    Some(response)
}

/// Methods where there is CORS.
pub(super) const METHODS_WITH_CORS: &str = "GET, HEAD, OPTIONS";

/// The answer to what is no preflight, and neither GET nor HEAD (RFC 9110 §9.3.7, §15.5.6). `site`: what the
/// configuration says of the image that is named, if it is served.
pub(super) fn other_method(method: &Method, site: Option<&SiteConfig>) -> Response<Body> {
    let options = site.is_some_and(|site| !site.cors.origins.is_empty());
    if !options || *method != Method::OPTIONS {
        return error::method(options);
    }
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allowed = HeaderValue::from_static(METHODS_WITH_CORS);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

fn list<'a>(first: &'static str, more: impl Iterator<Item = &'a str>) -> HeaderValue {
    let mut text = first.to_owned();
    for name in more {
        text += ", ";
        text += name;
    }
    // Names of fields, checked by the configuration.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(first))
}

/// Adds a name to `Vary`, which stays one field.
pub(super) fn vary(headers: &mut HeaderMap, name: &'static str) {
    let value = match headers.get(header::VARY) {
        None => HeaderValue::from_static(name),
        Some(there) => {
            let there = String::from_utf8_lossy(there.as_bytes());
            let mut names = there.split(',').map(str::trim);
            if names.any(|there| there.eq_ignore_ascii_case(name)) {
                return;
            }
            // Both are names of fields.
            HeaderValue::try_from(format!("{there}, {name}"))
                .unwrap_or(HeaderValue::from_static("*"))
        }
    };
    headers.insert(header::VARY, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn site() -> SiteConfig {
        let value = HeaderValue::from_static;
        SiteConfig {
            headers: vec![
                (header::X_FRAME_OPTIONS, value("DENY")),
                (header::CACHE_CONTROL, value("max-age=60")),
            ],
            ..SiteConfig::default()
        }
    }

    fn cors(origins: &[&str]) -> CorsConfig {
        CorsConfig {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            expose_headers: vec!["X-More".into()],
            request_headers: vec!["X-Asked".into()],
            max_age: Duration::from_secs(60),
            ..CorsConfig::default()
        }
    }

    fn answer(fields: &[(&'static str, &'static str)]) -> Response<Body> {
        let mut response = Response::new(Body::default());
        for (name, value) in fields {
            let name = HeaderName::from_static(name);
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn get<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
        let mut all = response.headers().get_all(name).iter();
        let value = all.next().map(|value| value.to_str().unwrap());
        assert!(all.next().is_none(), "{name} is there twice");
        value
    }

    fn origin(origin: Option<&'static str>) -> HeaderMap {
        let value = origin.map(HeaderValue::from_static);
        HeaderMap::from_iter(value.map(|value| (header::ORIGIN, value)))
    }

    #[test]
    fn the_configuration_goes_before_the_image_and_files_before_what_stands_for_them() {
        let text = "/*\n X-Frame-Options: SAMEORIGIN\n X-Image: 1\n Cache-Control: max-age=9\n Content-Type: text/x\n";
        let (rules, _) = Headers::parse(text.as_bytes(), |_| None);
        let html = [("content-type", "text/html"), ("cache-control", "no-cache")];
        let multipart = [("content-type", "multipart/byteranges; boundary=x")];
        let table = [
            (&html[..], true, Some("max-age=60"), Some("text/x")),
            (&html, false, Some("no-cache"), Some("text/html")),
            (&[], true, Some("max-age=60"), None),
            (
                &multipart,
                true,
                Some("max-age=60"),
                Some("multipart/byteranges; boundary=x"),
            ),
        ];
        for (fields, asked, cache, kind) in table {
            let mut response = answer(fields);
            let file = File {
                asked,
                as_pushed: true,
            };
            of_image(&mut response, &rules, b"/a", file);
            of_configuration(&mut response, &site(), &HeaderMap::new(), asked);
            assert_eq!(get(&response, "x-frame-options"), Some("DENY"));
            assert_eq!(get(&response, "x-image"), Some("1"));
            assert_eq!(get(&response, "cache-control"), cache, "{fields:?} {asked}");
            assert_eq!(get(&response, "content-type"), kind, "{fields:?} {asked}");
            assert_eq!(get(&response, "vary"), None);
        }
    }

    #[test]
    fn sandbox_and_resource_policy_are_said_as_configured() {
        let table = [
            (None, None, None),
            (Some(&[][..]), None, Some("sandbox")),
            (
                Some(&["allow-scripts", "allow-forms"]),
                None,
                Some("sandbox allow-scripts allow-forms"),
            ),
            (
                Some(&["allow-scripts"]),
                Some("default-src 'self'"),
                Some("sandbox allow-scripts, default-src 'self'"),
            ),
            (None, Some("default-src 'self'"), Some("default-src 'self'")),
        ];
        for (tokens, policy, wanted) in table {
            let policy = policy.map(HeaderValue::from_static);
            let site = SiteConfig {
                sandbox: tokens.map(|tokens| tokens.iter().map(|&token| token.into()).collect()),
                headers: Vec::from_iter(
                    policy.map(|policy| (header::CONTENT_SECURITY_POLICY, policy)),
                ),
                resource_policy: Some(ResourcePolicy::SameSite),
                ..SiteConfig::default()
            };
            let mut response = answer(&[("content-security-policy", "of the image")]);
            of_configuration(&mut response, &site, &HeaderMap::new(), true);
            let wanted = wanted.unwrap_or("of the image");
            assert_eq!(get(&response, "content-security-policy"), Some(wanted));
            let policy = get(&response, "cross-origin-resource-policy");
            assert_eq!(policy, Some("same-site"));
        }
    }

    #[test]
    fn an_origin_is_told_what_it_may_read_and_caches_that_it_matters() {
        let a = "https://a.example";
        let list: &[&str] = &[a, "https://*.b.example"];
        // Origins, the request's; Access-Control-Allow-Origin, Vary.
        let table: &[(&[&str], _, _, _)] = &[
            (&[], Some(a), None, None),
            (&["*"], Some(a), Some("*"), None),
            (&["*"], None, Some("*"), None),
            (list, Some(a), Some(a), Some("Origin")),
            (
                list,
                Some("https://x.b.example"),
                Some("https://x.b.example"),
                Some("Origin"),
            ),
            (list, Some("https://evil.example"), None, Some("Origin")),
            (list, Some("null"), None, Some("Origin")),
            (list, None, None, Some("Origin")),
        ];
        for (origins, asked, allowed, varies) in table {
            let site = SiteConfig {
                cors: cors(origins),
                ..SiteConfig::default()
            };
            let mut response = answer(&[]);
            of_configuration(&mut response, &site, &origin(*asked), true);
            let got = get(&response, "access-control-allow-origin");
            assert_eq!(got, *allowed, "{origins:?} {asked:?}");
            assert_eq!(get(&response, "vary"), *varies, "{origins:?} {asked:?}");
            let exposed = get(&response, "access-control-expose-headers");
            assert_eq!(exposed.is_some(), allowed.is_some());
            assert!(exposed.is_none_or(|names| names.ends_with("ETag, Repr-Digest, X-More")));
        }
    }

    #[test]
    fn a_preflight_is_answered_for_whoever_may_ask() {
        let request = |method: &str, fields: &[&'static str]| {
            let mut request = http::Request::builder().method(method);
            for name in fields {
                request = request.header(*name, "https://a.example");
            }
            request.body(()).unwrap().into_parts().0
        };
        let both = ["origin", "access-control-request-method"];
        for (method, fields, preflight) in [
            ("OPTIONS", &both[..], true),
            ("OPTIONS", &both[..1], false),
            ("OPTIONS", &both[1..], false),
            ("GET", &both, false),
        ] {
            assert_eq!(is_preflight(&request(method, fields)), preflight);
        }
        let mut site = SiteConfig::default();
        assert!(preflight(&site, &origin(Some("https://a.example"))).is_none());
        site.cors = cors(&["https://a.example"]);
        site.cors.credentials = true;
        let yes = preflight(&site, &origin(Some("https://a.example"))).unwrap();
        assert_eq!(yes.status(), 204);
        for (name, wanted) in [
            ("access-control-allow-origin", "https://a.example"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, HEAD"),
            ("access-control-max-age", "60"),
        ] {
            assert_eq!(get(&yes, name), Some(wanted));
        }
        let allowed = get(&yes, "access-control-allow-headers").unwrap();
        assert!(allowed.contains("If-None-Match") && allowed.ends_with(", X-Asked"));
        let no = preflight(&site, &origin(Some("https://evil.example"))).unwrap();
        assert_eq!(no.status(), 204);
        assert_eq!(get(&no, "access-control-allow-origin"), None);
        assert_eq!(get(&no, "access-control-allow-methods"), None);
        for response in [yes, no] {
            assert!(get(&response, "vary").unwrap().starts_with("Origin, "));
        }
    }

    #[test]
    fn a_method_that_is_not_allowed_is_told_which_are() {
        let (without, mut with) = (SiteConfig::default(), SiteConfig::default());
        with.cors = cors(&["https://a.example"]);
        for (method, site, status, allow) in [
            (Method::POST, None, 405, "GET, HEAD"),
            (Method::OPTIONS, None, 405, "GET, HEAD"),
            (Method::OPTIONS, Some(&without), 405, "GET, HEAD"),
            (Method::POST, Some(&with), 405, "GET, HEAD, OPTIONS"),
            (Method::OPTIONS, Some(&with), 204, "GET, HEAD, OPTIONS"),
        ] {
            let response = other_method(&method, site);
            assert_eq!(response.status(), status, "{method}");
            assert_eq!(get(&response, "allow"), Some(allow), "{method}");
        }
    }

    #[test]
    fn vary_stays_one_field() {
        let mut headers = HeaderMap::new();
        for (name, wanted) in [
            ("Accept-Encoding", "Accept-Encoding"),
            ("Origin", "Accept-Encoding, Origin"),
            ("Origin", "Accept-Encoding, Origin"),
            ("Accept", "Accept-Encoding, Origin, Accept"),
        ] {
            vary(&mut headers, name);
            assert_eq!(headers[header::VARY], wanted);
        }
    }
}
