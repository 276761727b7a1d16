//! Whether a token realm is asked, and with what.
//!
//! A registry names its token service in the challenge, so a hostile registry can name any
//! address. BEHAVIOUR, Security: "a token realm on another host or port only if listed in
//! `tokenHosts`", and a credential goes to the registry's own token service only. What we make
//! of it:
//!
//! | realm | asked | with the credential |
//! |---|---|---|
//! | the registry's own host and port | yes | yes |
//! | listed in `tokenHosts` (Docker Hub's `auth.docker.io` is built in) | yes | yes |
//! | another public host or port, `https` | yes, public addresses only | **no**, anonymously |
//! | another literal address that is not public | no | no |
//! | `http`, where the registry is not plain HTTP itself | no | no |
//! | `http` of another host or port | only if listed, and loopback or `plainHttp` itself | yes |
//!
//! The third line gives a hostile registry no more than a redirect would, and lets public images
//! of registries whose token service lies elsewhere (registry.gitlab.com) be pulled unconfigured.

use super::address::{Class, classify};
use super::site::{authority, is_loopback, literal, origin};
use url::Url;

/// What a realm is judged by.
#[derive(Clone, Copy, Debug)]
pub struct RealmRules<'a> {
    /// `host[:port]` of the registry that named the realm.
    pub registry: &'a str,
    /// That registry is spoken to without TLS.
    pub plain: bool,
    /// Token services that the operator listed, `host[:port]`.
    pub token_hosts: &'a [String],
    /// Hosts with `plainHttp`.
    pub plain_hosts: &'a [String],
}

/// A realm that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// Where.
    pub url: Url,
    /// The registry's credential may go there; else it is asked anonymously, and only at a
    /// public address.
    pub trusted: bool,
}

/// Judges the realm of a challenge. The error says why it is not asked.
pub fn judge_realm(realm: &str, rules: &RealmRules<'_>) -> Result<Realm, String> {
    let url = Url::parse(realm).map_err(|_| "token realm is not a URL".to_owned())?;
    let Some(target) = origin(&url) else {
        return Err("token realm names no host".to_owned());
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("token realm has user information in it".to_owned());
    }
    let plain = match url.scheme() {
        "https" => false,
        "http" if rules.plain => true,
        "http" => {
            return Err("token realm is http, which `plainHttp` does not allow here".to_owned());
        }
        other => return Err(format!("token realm has scheme {other:?}")),
    };
    let own = authority(rules.registry, rules.plain) == Some(target.clone())
        || (authority(rules.registry, plain) == Some(target.clone()));
    let is = |host: &String| authority(host, plain) == Some(target.clone());
    let listed = rules.token_hosts.iter().any(is);
    let shown = || match url.port() {
        Some(port) => format!("{}:{port}", target.0),
        None => target.0.clone(),
    };
    if plain && !own && !(listed && (is_loopback(&target.0) || rules.plain_hosts.iter().any(is))) {
        return Err(format!("token realm is http on another host, {}", shown()));
    }
    if own || listed {
        return Ok(Realm { url, trusted: true });
    }
    let near = literal(&url).is_some_and(|address| classify(address) != Class::Public);
    if near || is_loopback(&target.0) {
        return Err(format!(
            "token realm is on another host, {0}; list {0:?} in `tokenHosts` if it is right",
            shown()
        ));
    }
    Ok(Realm {
        url,
        trusted: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_are_judged() {
        let lists = [
            "auth.example",
            "auth.example:8443",
            "127.0.0.1:5001",
            "10.0.0.9",
        ]
        .map(str::to_owned);
        let plain_hosts = ["10.0.0.9".to_owned()];
        // realm, registry, registry is plain, Some(trusted) or refused
        let table = [
            ("https://r.example/token", "r.example", false, Some(true)),
            (
                "https://r.example:443/token",
                "r.example",
                false,
                Some(true),
            ),
            ("https://R.example/token", "r.example", false, Some(true)),
            (
                "https://r.example:8443/token",
                "r.example",
                false,
                Some(false),
            ),
            ("https://auth.example/token", "r.example", false, Some(true)),
            (
                "https://auth.example:8443/token",
                "r.example",
                false,
                Some(true),
            ),
            (
                "https://auth.example:9/token",
                "r.example",
                false,
                Some(false),
            ),
            (
                "https://other.example/token",
                "r.example",
                false,
                Some(false),
            ),
            (
                "https://other.example/token",
                "r.example",
                true,
                Some(false),
            ),
            ("http://r.example/token", "r.example", false, None),
            ("http://auth.example/token", "r.example", true, None),
            ("http://r.example/token", "r.example", true, Some(true)),
            (
                "http://127.0.0.1:5001/token",
                "127.0.0.1:5000",
                true,
                Some(true),
            ),
            ("http://10.0.0.9/token", "127.0.0.1:5000", true, Some(true)),
            ("http://10.0.0.8/token", "127.0.0.1:5000", true, None),
            ("https://127.1/token", "r.example", false, None),
            ("https://2130706433/token", "r.example", false, None),
            (
                "https://[::ffff:169.254.169.254]/token",
                "r.example",
                false,
                None,
            ),
            ("https://localhost/token", "r.example", false, None),
            ("https://user:pw@r.example/token", "r.example", false, None),
            ("ftp://r.example/token", "r.example", false, None),
            ("file:///etc/passwd", "r.example", false, None),
            ("/token", "r.example", false, None),
            ("", "r.example", false, None),
        ];
        for (realm, registry, plain, expected) in table {
            let rules = RealmRules {
                registry,
                plain,
                token_hosts: &lists,
                plain_hosts: &plain_hosts,
            };
            let found = judge_realm(realm, &rules).map(|realm| realm.trusted).ok();
            assert_eq!(found, expected, "{realm} of {registry}");
        }
    }
}
