//! Content types: by extension; for an extension that nobody knows, by content, and never HTML.

use http::HeaderValue;
use std::cell::RefCell;
use std::collections::HashMap;

/// Bytes of content that decide, for an unknown extension.
pub(super) const SNIFFED: u64 = 512;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Where the table of `mime_guess` is older than the registry of media types, or says no charset.
const OVERRIDES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("cjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("wasm", "application/wasm"),
    ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"),
    ("ico", "image/x-icon"),
    ("avif", "image/avif"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("md", "text/markdown; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("toml", "application/toml"),
    ("ts", "text/plain; charset=utf-8"),
    ("onnx", "application/octet-stream"),
    ("safetensors", "application/octet-stream"),
];

thread_local! {
    /// By lower-case extension; each extension is looked up once per thread. Bounded by [`MOST_KNOWN`].
    static KNOWN: RefCell<HashMap<Box<str>, Option<HeaderValue>>> = RefCell::default();
}
/// Extensions remembered per thread: names in images are not ours to bound.
const MOST_KNOWN: usize = 1024;

/// By the extension of the path's last component. None: unknown, look at the content ([`sniff`]).
pub(super) fn by_extension(path: &[u8]) -> Option<HeaderValue> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let dot = name.iter().rposition(|byte| *byte == b'.')?;
    let extension = std::str::from_utf8(&name[dot + 1..])
        .ok()
        .filter(|extension| extension.len() <= 16)?;
    KNOWN.with_borrow_mut(|known| {
        if let Some(value) = known.get(extension) {
            return value.clone();
        }
        let value = look_up(&extension.to_ascii_lowercase());
        if known.len() < MOST_KNOWN {
            known.insert(extension.into(), value.clone());
        }
        value
    })
}

fn look_up(extension: &str) -> Option<HeaderValue> {
    if let Some((_, value)) = OVERRIDES.iter().find(|(name, _)| *name == extension) {
        return Some(HeaderValue::from_static(value));
    }
    let guess = mime_guess::from_ext(extension).first_raw()?;
    if guess.starts_with("text/") {
        return HeaderValue::from_maybe_shared(format!("{guess}; charset=utf-8")).ok();
    }
    Some(HeaderValue::from_static(guess))
}

/// By the first [`SNIFFED`] bytes: UTF-8 text without control characters, or bytes. Never HTML, so that
/// nothing becomes a page by its content alone.
pub(super) fn sniff(start: &[u8]) -> HeaderValue {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character that the end of the window cut in two.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return BYTES,
    };
    let binary =
        |c: char| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    if text.chars().any(binary) {
        BYTES
    } else {
        TEXT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_from_the_extension_or_from_harmless_content() {
        for (path, expected) in [
            ("a/index.html", Some("text/html; charset=utf-8")),
            ("x.JS", Some("text/javascript; charset=utf-8")),
            ("x.wasm", Some("application/wasm")),
            ("x.png", Some("image/png")),
            ("x.csv", Some("text/csv; charset=utf-8")),
            ("dir.js/README", None),
            ("LICENSE", None),
            ("x.unheardof", None),
        ] {
            let found = by_extension(path.as_bytes());
            assert_eq!(
                found.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{path}"
            );
        }
        assert_eq!(sniff(b"<html><script>"), TEXT);
        assert_eq!(sniff("gr\u{fc}n".as_bytes()), TEXT);
        assert_eq!(sniff(&"\u{fc}".as_bytes()[..1]), BYTES);
        assert_eq!(sniff("ab\u{fc}".as_bytes()[..3].as_ref()), TEXT);
        assert_eq!(sniff(b"\x7fELF\0"), BYTES);
        assert_eq!(sniff(b""), TEXT);
    }
}
