//! Keys of `repos.<name>`, and of `hosts.<name>` for what differs there, that say how files make a site:
//! fallbacks, rules out of the image, and the fields that answers carry.

use super::decode::{Field, Reader, Section};
use super::named::inside;
use super::tree::Node;
use super::{CorsConfig, ResourcePolicy, SiteConfig};
use crate::rules::fields;
use http::header::{self, HeaderName, HeaderValue};
use url::Url;

pub(super) const CORS: &[&str] = &[
    "origins",
    "credentials",
    "requestHeaders",
    "exposeHeaders",
    "maxAge",
];
/// What a sandbox may allow, by the HTML standard.
const SANDBOX_TOKENS: &[&str] = &[
    "allow-downloads",
    "allow-forms",
    "allow-modals",
    "allow-orientation-lock",
    "allow-pointer-lock",
    "allow-popups",
    "allow-popups-to-escape-sandbox",
    "allow-presentation",
    "allow-same-origin",
    "allow-scripts",
    "allow-storage-access-by-user-activation",
    "allow-top-navigation",
    "allow-top-navigation-by-user-activation",
    "allow-top-navigation-to-custom-protocols",
];

/// The keys stand among others in `section`. What is absent is as in `otherwise`; `false` in place of a text
/// or a list says that there is none, whatever `otherwise` has.
pub(super) fn site(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    otherwise: &SiteConfig,
) -> SiteConfig {
    let stated = |key| section.get(key).is_some();
    let given = |key| section.get(key).filter(|field| !field.is_false());
    let mut site = otherwise.clone();
    if stated("spaFallback") {
        site.spa_fallback = reader.word(given("spaFallback"), file);
    }
    if stated("notFoundPage") {
        site.not_found_page = reader.word(given("notFoundPage"), file);
    }
    if let Some(honoured) = reader.flag(section.get("redirectsFile")) {
        site.redirects_file = honoured;
    }
    if let Some(honoured) = reader.flag(section.get("headersFile")) {
        site.headers_file = honoured;
    }
    if stated("responseHeaders") {
        site.headers = response_headers(reader, section.get("responseHeaders"));
    }
    if stated("sandbox") {
        let tokens = given("sandbox");
        site.sandbox = tokens
            .is_some()
            .then(|| reader.texts(tokens, sandbox_token));
    }
    if stated("crossOriginResourcePolicy") {
        let policy = given("crossOriginResourcePolicy");
        site.resource_policy = reader.text(policy, resource_policy);
    }
    if let Some(node) = section.node("cors") {
        site.cors = cors(reader, node, &section.path_of("cors"), &otherwise.cors);
    }
    site
}

/// A file below the workdir, cleaned.
fn file(text: &str) -> Result<String, String> {
    inside(text)?;
    let components = text.split('/').filter(|part| !matches!(*part, "" | "."));
    let path = components.collect::<Vec<_>>().join("/");
    if path.is_empty() || text.ends_with('/') {
        return Err(format!(
            "{text:?} names no file, write for example \"/index.html\""
        ));
    }
    Ok(path)
}

fn sandbox_token(text: &str) -> Result<String, String> {
    match SANDBOX_TOKENS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is nothing that a sandbox allows, there are: {}",
            SANDBOX_TOKENS.join(", ")
        )),
    }
}

fn resource_policy(text: &str) -> Result<ResourcePolicy, String> {
    match text {
        "same-origin" => Ok(ResourcePolicy::SameOrigin),
        "same-site" => Ok(ResourcePolicy::SameSite),
        "cross-origin" => Ok(ResourcePolicy::CrossOrigin),
        _ => Err(format!(
            "{text:?} is not known, write `same-origin`, `same-site` or `cross-origin`"
        )),
    }
}

fn response_headers(
    reader: &mut Reader<'_>,
    field: Option<Field<'_>>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, path, node) in reader.named(field, configurable) {
        if let Some(value) = reader.text_at(&path, node, header_value) {
            headers.retain(|(there, _)| *there != name);
            headers.push((name, value));
        }
    }
    headers
}

/// A field that a configuration may set.
fn configurable(text: &str) -> Result<HeaderName, String> {
    let name = header_name(text)?;
    let key = match name.as_str() {
        "cross-origin-resource-policy" => Some("crossOriginResourcePolicy"),
        name if name.starts_with("access-control-") => Some("cors"),
        _ => None,
    };
    if let Some(key) = key {
        return Err(format!("has a key of its own, write `{key}`"));
    }
    if name == header::CONTENT_TYPE {
        let next = "give the file an extension, or set it in the image's `_headers`";
        return Err(format!("cannot be set for all files: {next}"));
    }
    match fields::refused(&name) {
        Some(why) => Err(format!("cannot be set: it {why}, remove it")),
        None => Ok(name),
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!("{text:?} is not the name of a header, write for example \"X-Frame-Options\"")
    })
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    if text.trim_matches([' ', '\t']) != text || text.is_empty() {
        return Err(format!(
            "{text:?} is empty, or has spaces at its ends: give the value alone"
        ));
    }
    HeaderValue::from_str(text).map_err(|_| {
        format!("{text:?} is not the value of a header: write it in ASCII, in one line")
    })
}

/// Keys that are absent are as in `otherwise`.
fn cors(reader: &mut Reader<'_>, node: &Node, at: &str, otherwise: &CorsConfig) -> CorsConfig {
    let section = reader.section(node, at, CORS, |_| None);
    let mut config = otherwise.clone();
    for (key, list, check) in [
        ("origins", &mut config.origins, origin as fn(&str) -> _),
        ("requestHeaders", &mut config.request_headers, listed_header),
        ("exposeHeaders", &mut config.expose_headers, listed_header),
    ] {
        if let Some(field) = section.get(key) {
            *list = reader.texts(Some(field), check);
        }
    }
    if let Some(credentials) = reader.flag(section.get("credentials")) {
        config.credentials = credentials;
    }
    if let Some(max_age) = reader.duration(section.get("maxAge")) {
        config.max_age = max_age;
    }
    if config.credentials && config.origins.iter().any(|origin| origin == "*") {
        let message =
            "browsers send none where every origin is allowed: name the origins, or remove it";
        reader.error(section.line, &section.path_of("credentials"), message);
    }
    config
}

fn listed_header(text: &str) -> Result<String, String> {
    header_name(text).map(|_| text.to_owned())
}

/// As browsers write it in `Origin`; or `*` for all, or with `*.` before a host for all below that.
fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let plain = text.replacen("://*.", "://", 1);
    let serialized = Url::parse(&plain).map(|url| url.origin().ascii_serialization());
    match serialized {
        Ok(origin) if origin == plain && origin.starts_with("http") && !plain.contains('*') => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "{text:?} is not an origin, write for example \"https://app.example.com\", \"https://*.example.com\" (in lower case, no path, no default port) or \"*\""
        )),
    }
}

impl SiteConfig {
    /// Why an image may not set this field: the configuration has.
    pub fn sets(&self, name: &HeaderName) -> Option<&'static str> {
        let set = match name.as_str() {
            "content-security-policy" if self.sandbox.is_some() => true,
            "cross-origin-resource-policy" => self.resource_policy.is_some(),
            name if name.starts_with("access-control-") => !self.cors.origins.is_empty(),
            _ => self.headers.iter().any(|(there, _)| there == name),
        };
        set.then_some("is set by the configuration")
    }
}

impl CorsConfig {
    /// Whether scripts of this origin, as it stood in a request's `Origin`, may read the answers.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins
            .iter()
            .any(|allowed| match allowed.split_once("://*.") {
                _ if allowed == "*" || allowed == origin => true,
                None => false,
                Some((scheme, host)) => {
                    let below = origin
                        .strip_prefix(scheme)
                        .and_then(|rest| rest.strip_prefix("://"))
                        .and_then(|rest| rest.strip_suffix(host))
                        .and_then(|rest| rest.strip_suffix('.'));
                    let of_host = |byte: u8| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
                    };
                    below.is_some_and(|below| !below.is_empty() && below.bytes().all(of_host))
                }
            })
    }

    /// Every origin may read the answers.
    pub fn allows_all(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mode, RepoConfig, parse};
    use super::*;
    use std::time::Duration;

    fn read(text: &str) -> Result<RepoConfig, Vec<String>> {
        let text = format!("blobserve: {{repos: {{a.b/c: {{{text}}}}}}}\n");
        match parse(&text, "test.yaml", Mode::Serve) {
            Ok(loaded) => Ok(loaded.config.repos.into_values().next().unwrap()),
            Err(error) => Err(error.0),
        }
    }

    #[test]
    fn a_site_is_read_cleaned() {
        let text = "spaFallback: /index.html, notFoundPage: errors//./404.html, redirectsFile: true, headersFile: true, \
            responseHeaders: {X-Frame-Options: DENY, x-b: \"1\"}, sandbox: [allow-scripts, allow-forms], \
            crossOriginResourcePolicy: same-site, \
            cors: {origins: [\"https://a.example:8443\", \"https://*.b.example\"], credentials: true, requestHeaders: [X-Q], \
            exposeHeaders: [X-E], maxAge: 1h}";
        let site = read(text).unwrap().site;
        assert_eq!(site.spa_fallback.as_deref(), Some("index.html"));
        assert_eq!(site.not_found_page.as_deref(), Some("errors/404.html"));
        assert!(site.redirects_file && site.headers_file);
        assert_eq!(site.headers[0].0, "x-frame-options");
        assert_eq!(site.headers[1].1, "1");
        assert_eq!(site.sandbox.unwrap(), ["allow-scripts", "allow-forms"]);
        assert_eq!(site.resource_policy, Some(ResourcePolicy::SameSite));
        assert_eq!(site.cors.max_age, Duration::from_secs(3600));
        assert_eq!(read("sandbox: []").unwrap().site.sandbox, Some(vec![]));
        assert_eq!(read("").unwrap().site, SiteConfig::default());
    }

    #[test]
    fn what_a_site_cannot_be_is_an_error_that_says_why() {
        let table = [
            ("spaFallback: /", "names no file"),
            ("spaFallback: a/../b", "leaves the image"),
            ("notFoundPage: errors/", "names no file"),
            ("redirectsFile: 1", "true or false"),
            ("sandbox: [scripts]", "nothing that a sandbox allows"),
            ("crossOriginResourcePolicy: none", "`same-origin`"),
            ("responseHeaders: {X Y: a}", "not the name of a header"),
            ("responseHeaders: {X-Y: \"a\\r\\nb\"}", "in one line"),
            ("responseHeaders: {X-Y: \" a\"}", "spaces at its ends"),
            ("responseHeaders: {X-Y: 5}", "put it in quotes"),
            ("responseHeaders: {X-Y: a, x-y: b}", "repeated"),
            (
                "responseHeaders: {Set-Cookie: a=b}",
                "cannot be set: it would be sent",
            ),
            ("responseHeaders: {Content-Length: \"1\"}", "cannot be set"),
            ("responseHeaders: {Connection: close}", "cannot be set"),
            (
                "responseHeaders: {Service-Worker-Allowed: /}",
                "cannot be set",
            ),
            (
                "responseHeaders: {X-Content-Type-Options: x}",
                "`nosniff` always",
            ),
            ("responseHeaders: {Content-Type: text/html}", "`_headers`"),
            (
                "responseHeaders: {Access-Control-Max-Age: \"1\"}",
                "write `cors`",
            ),
            (
                "responseHeaders: {Cross-Origin-Resource-Policy: same-site}",
                "write `crossOriginResourcePolicy`",
            ),
            ("cors: {origins: [example.com]}", "not an origin"),
            ("cors: {origins: [\"https://A.example\"]}", "not an origin"),
            ("cors: {origins: [\"https://a.example/\"]}", "not an origin"),
            (
                "cors: {origins: [\"https://a.example:443\"]}",
                "not an origin",
            ),
            ("cors: {origins: [\"https://*\"]}", "not an origin"),
            ("cors: {origins: [\"null\"]}", "not an origin"),
            (
                "cors: {origins: [\"*\"], credentials: true}",
                "name the origins",
            ),
            ("cors: {exposeHeaders: [\"a b\"]}", "not the name"),
            ("cors: {origin: [\"*\"]}", "did you mean `origins`"),
        ];
        for (text, part) in table {
            let errors = read(text).err().unwrap_or_default();
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert!(errors[0].contains(part), "{text}: {errors:?}");
        }
    }

    #[test]
    fn an_origin_is_allowed_as_a_whole_or_below_a_host() {
        let cors = CorsConfig {
            origins: vec![
                "https://a.example".into(),
                "https://*.b.example:8443".into(),
            ],
            ..CorsConfig::default()
        };
        for (origin, allowed) in [
            ("https://a.example", true),
            ("http://a.example", false),
            ("https://a.example:8443", false),
            ("https://x.a.example", false),
            ("https://a.example.evil.example", false),
            ("https://x.b.example:8443", true),
            ("https://x.y.b.example:8443", true),
            ("https://b.example:8443", false),
            ("https://.b.example:8443", false),
            ("https://evil.example/.b.example:8443", false),
            ("https://xb.example:8443", false),
            ("https://x.b.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(cors.allows(origin), allowed, "{origin}");
        }
    }
}
