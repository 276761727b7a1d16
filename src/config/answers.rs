//! `cache`: how long, and by whom, answers that may change are reused. The section stands at the top,
//! and in a repository for what differs there.

use super::decode::{Reader, Section};
use super::tree::Node;
use super::{CacheConfig, Lifetime};
use std::time::Duration;

pub(super) const CACHE: &[&str] = &[
    "maxAge",
    "staleWhileRevalidate",
    "staleIfError",
    "cdnMaxAge",
    "cdnStaleWhileRevalidate",
    "cdnStaleIfError",
    "surrogateKey",
    "cacheTag",
];
/// RFC 9111 §1.2.2: what every cache can count.
const MOST_SECONDS: u64 = i32::MAX as u64;

/// Keys that are absent are as in `otherwise`.
pub(super) fn cache(
    reader: &mut Reader<'_>,
    node: &Node,
    at: &str,
    otherwise: &CacheConfig,
) -> CacheConfig {
    let section = reader.section(node, at, CACHE, |_| None);
    let mut age = |key| seconds(reader, &section, key);
    let browser = Lifetime {
        max_age: age("maxAge").unwrap_or(otherwise.browser.max_age),
        stale_while_revalidate: age("staleWhileRevalidate")
            .unwrap_or(otherwise.browser.stale_while_revalidate),
        stale_if_error: age("staleIfError").unwrap_or(otherwise.browser.stale_if_error),
    };
    let of_cdn = [
        age("cdnMaxAge"),
        age("cdnStaleWhileRevalidate"),
        age("cdnStaleIfError"),
    ];
    let cdn = match (of_cdn, otherwise.cdn) {
        ([None, None, None], cdn) => cdn,
        ([max_age, stale_while_revalidate, stale_if_error], cdn) => {
            let cdn = cdn.unwrap_or_default();
            Some(Lifetime {
                max_age: max_age.unwrap_or(cdn.max_age),
                stale_while_revalidate: stale_while_revalidate
                    .unwrap_or(cdn.stale_while_revalidate),
                stale_if_error: stale_if_error.unwrap_or(cdn.stale_if_error),
            })
        }
    };
    CacheConfig {
        browser,
        cdn,
        surrogate_key: reader
            .flag(section.get("surrogateKey"))
            .unwrap_or(otherwise.surrogate_key),
        cache_tag: reader
            .flag(section.get("cacheTag"))
            .unwrap_or(otherwise.cache_tag),
    }
}

/// A duration as header fields have it: whole seconds.
fn seconds(reader: &mut Reader<'_>, section: &Section<'_>, key: &'static str) -> Option<u64> {
    let line = section.get(key)?.line;
    let wanted = reader.duration(section.get(key))?;
    let seconds = wanted.as_secs();
    if wanted != Duration::from_secs(seconds) {
        let message = "header fields have whole seconds: write for example \"1s\" or \"1m30s\"";
        reader.error(line, &section.path_of(key), message);
    }
    if seconds > MOST_SECONDS {
        let message = format!("{seconds}s is more than caches can count, {MOST_SECONDS}s at most");
        reader.error(line, &section.path_of(key), &message);
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Mode, parse};
    use crate::reference::Repository;

    fn read(text: &str) -> Result<Config, String> {
        match parse(text, "config.yaml", Mode::Serve) {
            Ok(loaded) => Ok(loaded.config),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_repository_says_of_the_cache_only_what_differs() {
        let text = "blobserve:
  cache: {maxAge: 1m, staleIfError: 1h, surrogateKey: true}
  repos:
    a.example/plain: {}
    a.example/own: {cache: {maxAge: 0s, cdnMaxAge: 1h30m}}
";
        let config = read(text).unwrap();
        let repo = |name: &str| &config.repos[&Repository::parse(name).unwrap()];
        let wanted = CacheConfig {
            browser: Lifetime {
                max_age: 60,
                stale_while_revalidate: 0,
                stale_if_error: 3600,
            },
            cdn: None,
            surrogate_key: true,
            cache_tag: false,
        };
        assert_eq!(config.cache, wanted);
        assert_eq!(repo("a.example/plain").cache, None);
        let own = repo("a.example/own").cache.unwrap();
        assert_eq!(own.browser.max_age, 0);
        assert_eq!(own.browser.stale_if_error, 3600);
        assert!(own.surrogate_key);
        let cdn = own.cdn.unwrap();
        assert_eq!((cdn.max_age, cdn.stale_if_error), (5400, 0));
    }

    #[test]
    fn lifetimes_are_whole_seconds_that_caches_can_count() {
        for (text, wanted) in [
            (
                "cache: {maxAge: 1500ms}",
                "cache.maxAge: header fields have whole seconds",
            ),
            (
                "cache: {cdnMaxAge: 600000h}",
                "cache.cdnMaxAge: 2160000000s is more than caches can count",
            ),
            (
                "cache: {maxage: 1s}",
                "cache.maxage: unknown key, did you mean `maxAge`?",
            ),
            (
                "cache: 60s",
                "cache: is the text \"60s\", a map is expected",
            ),
        ] {
            let errors = read(&format!("blobserve: {{{text}}}")).unwrap_err();
            assert!(errors.contains(wanted), "{text}: {errors}");
        }
    }
}
