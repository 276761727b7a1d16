//! Which response fields may be set from outside, by a configuration or by an image.

use http::header::{self, HeaderName};

/// Fields that say how the answer's bytes are to be read.
const FRAMING: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "content-range",
    "trailer",
];
/// Fields of a connection (RFC 9110 §7.6.1); besides these all of `proxy-…`.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "te",
    "upgrade",
    "http2-settings",
];
/// Fields that are made for each answer, and would contradict it.
const OURS: &[&str] = &[
    "accept-ranges",
    "age",
    "allow",
    "authentication-info",
    "content-digest",
    "content-location",
    "content-md5",
    "date",
    "digest",
    "etag",
    "last-modified",
    "location",
    "refresh",
    "repr-digest",
    "retry-after",
    "vary",
    "via",
    "warning",
    "www-authenticate",
];
/// Fields that concern a whole origin, which images may share.
const OF_ORIGIN: &[&str] = &[
    "accept-ch",
    "alt-svc",
    "clear-site-data",
    "critical-ch",
    "expect-ct",
    "nel",
    "origin-agent-cluster",
    "public-key-pins",
    "report-to",
    "strict-transport-security",
];
/// Beginnings of fields that a proxy in front acts upon, and of our own.
const OF_PROXIES: &[&str] = &[
    "cache-tag",
    "cdn-cache-control",
    "surrogate-",
    "x-accel-",
    "x-blobserve-",
    "x-lighttpd-",
    "x-reproxy-",
    "x-sendfile",
];

/// Why nobody may set this field; None: it may be set.
pub fn refused(name: &HeaderName) -> Option<&'static str> {
    let name = name.as_str();
    if FRAMING.contains(&name) {
        return Some("says how the answer's bytes are read, which blobserve knows");
    }
    if HOP_BY_HOP.contains(&name) || name.starts_with("proxy-") {
        return Some("concerns one connection only");
    }
    if OURS.contains(&name) {
        return Some("is made for each answer");
    }
    match name {
        "set-cookie" | "set-cookie2" => {
            Some("would be sent to every image of the origin: nothing here sets cookies")
        }
        "service-worker-allowed" => {
            Some("would let one image's worker answer for every image of the origin")
        }
        "x-content-type-options" => Some("is `nosniff` always"),
        _ => None,
    }
}

/// Why an image may not set this field, though a configuration may.
pub fn refused_to_images(name: &HeaderName) -> Option<&'static str> {
    if let Some(why) = refused(name) {
        return Some(why);
    }
    let name = name.as_str();
    if OF_ORIGIN.contains(&name) {
        return Some("concerns the whole origin, and so is for the configuration");
    }
    if OF_PROXIES.iter().any(|start| name.starts_with(start)) {
        return Some("is an order to proxies, and so is for the configuration");
    }
    None
}

/// The field describes the file that was asked for. Errors, redirects and pages that stand in for
/// something else are not that: it would make an error's text a page, or have it cached.
pub fn of_file(name: &HeaderName) -> bool {
    [
        header::CONTENT_TYPE,
        header::CONTENT_DISPOSITION,
        header::CONTENT_LANGUAGE,
        header::CACHE_CONTROL,
        header::EXPIRES,
        header::PRAGMA,
    ]
    .contains(name)
        || ["cdn-cache-control", "surrogate-control"].contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_or_binds_is_set_by_nobody_and_what_concerns_others_not_by_images() {
        // May be set by a configuration, by an image; describes a file.
        let table = [
            ("content-length", false, false, false),
            ("transfer-encoding", false, false, false),
            ("content-encoding", false, false, false),
            ("content-range", false, false, false),
            ("trailer", false, false, false),
            ("connection", false, false, false),
            ("keep-alive", false, false, false),
            ("te", false, false, false),
            ("upgrade", false, false, false),
            ("proxy-authenticate", false, false, false),
            ("proxy-connection", false, false, false),
            ("date", false, false, false),
            ("etag", false, false, false),
            ("location", false, false, false),
            ("refresh", false, false, false),
            ("vary", false, false, false),
            ("set-cookie", false, false, false),
            ("set-cookie2", false, false, false),
            ("service-worker-allowed", false, false, false),
            ("x-content-type-options", false, false, false),
            ("strict-transport-security", true, false, false),
            ("clear-site-data", true, false, false),
            ("x-accel-redirect", true, false, false),
            ("x-sendfile", true, false, false),
            ("surrogate-key", true, false, false),
            ("x-frame-options", true, true, false),
            ("content-security-policy", true, true, false),
            ("access-control-allow-origin", true, true, false),
            ("x-anything", true, true, false),
            ("link", true, true, false),
            ("content-type", true, true, true),
            ("content-disposition", true, true, true),
            ("cache-control", true, true, true),
        ];
        for (name, configured, by_image, describes) in table {
            let name = HeaderName::from_static(name);
            assert_eq!(refused(&name).is_none(), configured, "{name}");
            assert_eq!(refused_to_images(&name).is_none(), by_image, "{name}");
            assert_eq!(of_file(&name), describes, "{name}");
        }
    }
}
