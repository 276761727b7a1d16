//! One cache policy an answer, as a value; rendered in one place.
//!
//! What only a digest decides is immutable. What may change lasts as long as `cache` in the
//! configuration says (RFC 9111 §5.2.2, RFC 5861), at CDNs by `CDN-Cache-Control` (RFC 9213), and names
//! what it is of, to be purged by. Errors are never stored: whoever answers without choosing a policy
//! answers with [`CachePolicy::NEVER`].

use crate::config::{CacheConfig, Lifetime};
use crate::images::ViewInfo;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use std::fmt::{Display, Write};
use std::sync::Arc;

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// How long, and by whom, an answer may be reused; and what it is of.
#[derive(Clone, Debug)]
pub(super) struct CachePolicy {
    reuse: Reuse,
    /// None: of no image.
    of: Option<Arc<ViewInfo>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reuse {
    /// Nothing but a digest (or a tag declared so) decides the bytes: a year.
    Immutable,
    /// As the repository is configured.
    Configured,
    /// May be stored; is validated at each use, by CDNs too.
    Validated,
    /// Not stored.
    Never,
}

impl CachePolicy {
    /// Errors, and answers that stand for no other request.
    pub(super) const NEVER: CachePolicy = CachePolicy {
        reuse: Reuse::Never,
        of: None,
    };

    #[cfg(test)]
    pub(super) const IMMUTABLE: CachePolicy = CachePolicy {
        reuse: Reuse::Immutable,
        of: None,
    };

    /// Of what is in an image, as it is there.
    pub(super) fn of(info: &Arc<ViewInfo>) -> CachePolicy {
        let reuse = match info.immutable {
            true => Reuse::Immutable,
            false => Reuse::Configured,
        };
        CachePolicy {
            reuse,
            of: Some(info.clone()),
        }
    }

    /// Of what is in an image, where more than its digest decides the bytes: as those of a tag.
    pub(super) fn changing(info: &Arc<ViewInfo>) -> CachePolicy {
        CachePolicy {
            reuse: Reuse::Configured,
            of: Some(info.clone()),
        }
    }

    /// Of what the request, or this program, has a part in.
    pub(super) fn validated(info: &Arc<ViewInfo>) -> CachePolicy {
        CachePolicy {
            reuse: Reuse::Validated,
            of: Some(info.clone()),
        }
    }

    /// Writes the header fields, in place of any that are there.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        let config = self.of.as_ref().map(|info| info.cache).unwrap_or_default();
        for name in [CDN_CACHE_CONTROL, SURROGATE_KEY, CACHE_TAG] {
            headers.remove(name);
        }
        headers.insert(CACHE_CONTROL, control(self.reuse, &config.browser));
        if let Some(cdn) = cdn(self.reuse, &config) {
            headers.insert(CDN_CACHE_CONTROL, cdn);
        }
        if let Some(info) = &self.of
            && self.reuse != Reuse::Never
        {
            let keys: [&dyn Display; 3] =
                [&info.reference.repository, &info.reference, &info.digest];
            let fields = [
                (config.surrogate_key, SURROGATE_KEY, ' '),
                (config.cache_tag, CACHE_TAG, ','),
            ];
            for (_, name, separator) in fields.into_iter().filter(|(wanted, ..)| *wanted) {
                if let Ok(value) = HeaderValue::try_from(purge_keys(&keys, separator)) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

/// Puts an image's own words in place of a policy, for CDNs too. `as_pushed`: the image alone decides the bytes;
/// where the configuration or the request has a part in them, only words that keep caches from giving them
/// without asking are heard.
pub(super) fn of_image(headers: &mut HeaderMap, value: &HeaderValue, as_pushed: bool) {
    let asks = |word: &str| ["no-store", "no-cache"].contains(&word.trim());
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    // Within quotes it would be no word.
    let forbids = !text.contains('"') && text.split(',').any(asks);
    if as_pushed || forbids {
        headers.insert(CACHE_CONTROL, value.clone());
        headers.remove(CDN_CACHE_CONTROL);
    }
}

fn control(reuse: Reuse, browser: &Lifetime) -> HeaderValue {
    HeaderValue::from_static(match reuse {
        Reuse::Immutable => "public, max-age=31536000, immutable",
        Reuse::Configured if *browser != Lifetime::default() => {
            return lasting("public, ", browser);
        }
        Reuse::Configured | Reuse::Validated => "no-cache",
        Reuse::Never => "no-store",
    })
}

/// None: the CDN goes by `Cache-Control`.
fn cdn(reuse: Reuse, config: &CacheConfig) -> Option<HeaderValue> {
    match (reuse, &config.cdn) {
        (Reuse::Configured, Some(cdn)) => Some(lasting("", cdn)),
        _ => None,
    }
}

/// A response directive each, what is zero left out but for the first: without it, a cache may guess.
fn lasting(start: &str, lifetime: &Lifetime) -> HeaderValue {
    let mut text = format!("{start}max-age={}", lifetime.max_age);
    for (name, seconds) in [
        ("stale-while-revalidate", lifetime.stale_while_revalidate),
        ("stale-if-error", lifetime.stale_if_error),
    ] {
        if seconds > 0 {
            // A String takes whatever is written to it.
            let _ = write!(text, ", {name}={seconds}");
        }
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-cache"))
}

/// Canonical names: by their grammar they are visible ASCII without space and comma.
fn purge_keys(keys: &[&dyn Display], separator: char) -> String {
    let mut text = String::new();
    for key in keys {
        if !text.is_empty() {
            text.push(separator);
        }
        let _ = write!(text, "{key}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_caches_do_of_its_own_bytes_and_forbids_for_others() {
        for (value, as_pushed, heard) in [
            ("public, max-age=9", true, true),
            ("public, max-age=9", false, false),
            ("private, max-age=9", false, false),
            ("No-Store", false, true),
            ("max-age=9 , no-cache", false, true),
            ("no-cache=\"set-cookie\", max-age=9", false, false),
            ("max-age=9, x=\"a, no-store, b\"", false, false),
            ("no-stored", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("of ours"));
            headers.insert(CDN_CACHE_CONTROL, HeaderValue::from_static("of ours"));
            of_image(&mut headers, &HeaderValue::from_static(value), as_pushed);
            let said = if heard { value } else { "of ours" };
            assert_eq!(headers[CACHE_CONTROL], said, "{value}");
            assert_eq!(headers.contains_key(CDN_CACHE_CONTROL), !heard, "{value}");
        }
    }

    fn seconds(max_age: u64, stale_while_revalidate: u64, stale_if_error: u64) -> Lifetime {
        Lifetime {
            max_age,
            stale_while_revalidate,
            stale_if_error,
        }
    }

    #[test]
    fn each_policy_has_its_directives() {
        use Reuse::*;
        let (zero, tag) = (seconds(0, 0, 0), seconds(60, 30, 86_400));
        let table = [
            (
                Immutable,
                zero,
                None,
                "public, max-age=31536000, immutable",
                None,
            ),
            (
                Immutable,
                tag,
                Some(tag),
                "public, max-age=31536000, immutable",
                None,
            ),
            (Configured, zero, None, "no-cache", None),
            (
                Configured,
                tag,
                None,
                "public, max-age=60, stale-while-revalidate=30, stale-if-error=86400",
                None,
            ),
            (
                Configured,
                seconds(0, 0, 60),
                None,
                "public, max-age=0, stale-if-error=60",
                None,
            ),
            (
                Configured,
                zero,
                Some(seconds(600, 0, 60)),
                "no-cache",
                Some("max-age=600, stale-if-error=60"),
            ),
            (
                Configured,
                tag,
                Some(zero),
                "public, max-age=60, stale-while-revalidate=30, stale-if-error=86400",
                Some("max-age=0"),
            ),
            (Validated, tag, Some(tag), "no-cache", None),
            (Never, tag, Some(tag), "no-store", None),
        ];
        for (reuse, browser, of_cdn, wanted, wanted_of_cdn) in table {
            let config = CacheConfig {
                browser,
                cdn: of_cdn,
                ..CacheConfig::default()
            };
            assert_eq!(control(reuse, &browser), wanted, "{reuse:?} {config:?}");
            let of_cdn = cdn(reuse, &config);
            let of_cdn = of_cdn.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(of_cdn, wanted_of_cdn, "{reuse:?} {config:?}");
        }
    }

    #[test]
    fn purge_keys_are_words_of_visible_ascii() {
        let reference = crate::reference::Reference::parse("[::1]:5000/team/app:v1.0_x").unwrap();
        let digest = crate::digest::Digest::sha256(b"");
        let keys = purge_keys(&[&reference.repository, &reference, &digest], ' ');
        let hex = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            keys,
            format!("[::1]:5000/team/app [::1]:5000/team/app:v1.0_x {hex}")
        );
        assert!(
            keys.bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        );
        assert!(!keys.contains(','));
    }
}
