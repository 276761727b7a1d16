//! Which host a request names: `Host`, or the authority of its target (absolute form, `:authority`),
//! by RFC 9112 §3.2 and RFC 9113 §8.3.1. Pure. What is no host is refused before anything is looked up.

use http::header;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri, Version};
use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Longest host in bytes: a DNS name in text with its last dot.
const MOST_NAME: usize = 254;

/// A host as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host<'a> {
    /// Lower-case, without the dot of the root. What is not spelled in DNS's letters is as it was sent.
    pub(super) name: Cow<'a, str>,
    /// None: none was named, so it is that of the scheme.
    pub(super) port: Option<u16>,
}

/// Why a request is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    #[error("a request names exactly one Host (RFC 9112 §3.2)")]
    Number,
    #[error("the Host is not a host name or address with a port at most (RFC 9110 §7.2)")]
    Grammar,
    #[error("the target of the request is neither a path nor an http or https URL (RFC 9112 §3.2)")]
    Form,
    #[error("Host and :authority differ (RFC 9113 §8.3.1)")]
    Differs,
}

/// Whether the target has a form that its method may have (RFC 9112 §3.2, RFC 9113 §8.3.1), of a scheme that
/// we serve. What comes after it may take it for a path.
pub(super) fn check_form(method: &Method, target: &Uri) -> Result<(), HostError> {
    let served = target
        .scheme()
        .is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let fits = match (method, target.path()) {
        // An authority alone.
        (&Method::CONNECT, _) => true,
        (&Method::OPTIONS, "*") => true,
        (_, path) => path.starts_with('/'),
    };
    match served && fits {
        true => Ok(()),
        false => Err(HostError::Form),
    }
}

/// The host of a request. None: an HTTP/1.0 request that names none.
pub(super) fn of_request(request: &Parts) -> Result<Option<Host<'_>>, HostError> {
    named(request.version, &request.uri, &request.headers)
}

fn named<'a>(
    version: Version,
    target: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Option<Host<'a>>, HostError> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err(HostError::Number),
        (field, None) => field.map(|field| parse(field.as_bytes())).transpose()?,
    };
    let authority = target.authority().map(|it| parse(it.as_str().as_bytes()));
    match (field, authority.transpose()?) {
        // HTTP/1.1 asks for the field whatever its target says; later versions for either.
        (None, None) if version >= Version::HTTP_11 => Err(HostError::Number),
        (None, Some(_)) if version == Version::HTTP_11 => Err(HostError::Number),
        (Some(field), Some(authority)) if version > Version::HTTP_11 && field != authority => {
            Err(HostError::Differs)
        }
        // RFC 9112 §3.2.2: the target's authority goes before the field.
        (field, authority) => Ok(authority.or(field)),
    }
}

/// `uri-host [":" port]` (RFC 9110 §7.2, RFC 3986 §3.2.2), of a URI with a scheme that has hosts: not
/// empty, and no user information.
pub(super) fn parse(field: &[u8]) -> Result<Host<'_>, HostError> {
    let text = std::str::from_utf8(field).map_err(|_| HostError::Grammar)?;
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, _) = rest.split_once(']').ok_or(HostError::Grammar)?;
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| HostError::Grammar)?;
            text.split_at(address.len() + 2)
        }
        None => {
            let name = text.find(':').unwrap_or(text.len());
            is_registered_name(&text[..name])
                .then(|| text.split_at(name))
                .ok_or(HostError::Grammar)?
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        // RFC 3986 §6.2.3: an empty port is none.
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| HostError::Grammar)?)
        }
        _ => return Err(HostError::Grammar),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Grammar);
    }
    Ok(Host {
        name: match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        },
        port,
    })
}

/// `reg-name`, IPv4 addresses among them; not empty, for the schemes `http` and `https` allow no empty
/// host (RFC 9110 §4.2.1).
fn is_registered_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let hex = bytes.get(at + 1..at + 3).unwrap_or_default();
                if hex.len() != 2 || !hex.iter().all(u8::is_ascii_hexdigit) {
                    return false;
                }
                at += 3;
            }
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' => at += 1,
            byte if byte.is_ascii_alphanumeric() => at += 1,
            _ => return false,
        }
    }
    (1..=MOST_NAME).contains(&bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: Option<u16>) -> Host<'_> {
        Host {
            name: name.into(),
            port,
        }
    }

    #[test]
    fn a_target_is_a_path_or_an_url_of_ours() {
        for (method, target, fits) in [
            ("GET", "/", true),
            ("GET", "/docs", true),
            ("GET", "//h/docs", true),
            ("GET", "docs", false),
            ("GET", "docs:80", false),
            ("GET", "*", false),
            ("HEAD", "*", false),
            ("OPTIONS", "*", true),
            ("OPTIONS", "docs", false),
            ("GET", "http://h", true),
            ("GET", "http://h/docs", true),
            ("GET", "HTTPS://h/docs", true),
            ("GET", "ftp://h/docs", false),
            ("POST", "ws://h/docs", false),
            ("CONNECT", "h:80", true),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let form = check_form(&method, &target.parse().unwrap());
            assert_eq!(form.is_ok(), fits, "{method} {target}");
        }
    }

    #[test]
    fn case_port_and_root_dot_do_not_tell_hosts_apart() {
        for (field, name, port) in [
            ("docs.example.com", "docs.example.com", None),
            ("DOCS.Example.COM", "docs.example.com", None),
            ("docs.example.com.", "docs.example.com", None),
            ("docs.example.com:8080", "docs.example.com", Some(8080)),
            ("docs.example.com.:8080", "docs.example.com", Some(8080)),
            ("docs.example.com:", "docs.example.com", None),
            ("localhost", "localhost", None),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]:65535", "[::1]", Some(65535)),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
            ("a_b", "a_b", None),
            ("b%C3%BCcher.example", "b%c3%bccher.example", None),
        ] {
            assert_eq!(parse(field.as_bytes()), Ok(host(name, port)), "{field}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(MOST_NAME + 1);
        for field in [
            "",
            ".",
            ":80",
            "a b",
            "a b/",
            "a/",
            "a/b",
            "user@host",
            "user:pw@host",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "a:8 0",
            "http://a",
            "a?b",
            "a#b",
            "a\\b",
            "a%",
            "a%2",
            "a%zz",
            "[::1",
            "::1",
            "[::1]x",
            "[]",
            "[v1.x]",
            "[127.0.0.1]",
            "[::1%25eth0]",
            "a\tb",
            "b\u{fc}cher",
            "a\"b",
            "a<b",
            "{a}",
            "a|b",
            "a^b",
            "a`b",
            &long,
        ] {
            assert_eq!(
                parse(field.as_bytes()),
                Err(HostError::Grammar),
                "{field:?}"
            );
        }
        assert_eq!(parse(b"\xff"), Err(HostError::Grammar));
    }

    #[test]
    fn the_target_goes_before_the_field_and_there_is_exactly_one() {
        const ONE: Version = Version::HTTP_11;
        const TWO: Version = Version::HTTP_2;
        // Version, target, Host fields, the host or why not.
        type Case<'a> = (Version, &'a str, &'a [&'a str], Result<&'a str, HostError>);
        let table: [Case<'_>; 14] = [
            (ONE, "/", &["a"], Ok("a")),
            (ONE, "http://b/", &["a"], Ok("b")),
            (ONE, "/", &[], Err(HostError::Number)),
            (ONE, "http://b/", &[], Err(HostError::Number)),
            (ONE, "/", &["a", "a"], Err(HostError::Number)),
            (ONE, "/", &["a", "b"], Err(HostError::Number)),
            (ONE, "/", &["a b"], Err(HostError::Grammar)),
            (ONE, "http://u@b/", &["a"], Err(HostError::Grammar)),
            (ONE, "http://b/", &["a b"], Err(HostError::Grammar)),
            (Version::HTTP_10, "/", &[], Ok("")),
            (TWO, "http://b/", &[], Ok("b")),
            (TWO, "http://b/", &["B"], Ok("b")),
            (TWO, "http://b/", &["a"], Err(HostError::Differs)),
            (TWO, "/", &[], Err(HostError::Number)),
        ];
        for (version, target, fields, wanted) in table {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::HOST, field.parse().unwrap());
            }
            let target = target.parse().unwrap();
            let got = named(version, &target, &headers);
            let got = got.map(|host| host.map_or(String::new(), |host| host.name.into_owned()));
            assert_eq!(
                got,
                wanted.map(str::to_owned),
                "{version:?} {target} {fields:?}"
            );
        }
    }
}
