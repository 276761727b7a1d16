//! Content codings: RFC 9110 §12.5.3. Pure: what a request accepts, what is on offer, which of it is sent;
//! and which content types are worth encoding at all.

use crate::images::Coding;
use http::header::{self, HeaderMap};

/// How much a client wants a coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weight {
    /// Thousandths, from 0 (not acceptable) to 1000; `LAST` for identity where nothing is said of it.
    quality: u16,
    /// Named, not meant by `*`.
    named: bool,
    /// Position in the field.
    position: usize,
}

/// Above "not acceptable", below the smallest quality there is: all are counted up by one.
const LAST: u16 = 1;

/// What a request's Accept-Encoding says. None: no such field, which only means that nothing was said, so what
/// everybody understands is sent.
#[derive(Clone, Debug, Default)]
pub struct Accepted(Option<String>);

impl Accepted {
    /// All fields together are one list. One that is not text says nothing.
    pub(super) fn of(headers: &HeaderMap) -> Accepted {
        let mut fields = headers.get_all(header::ACCEPT_ENCODING).iter();
        let Some(first) = fields.next() else {
            return Accepted(None);
        };
        let mut list = first.to_str().unwrap_or_default().to_owned();
        for field in fields {
            list.push(',');
            list.push_str(field.to_str().unwrap_or_default());
        }
        Accepted(Some(list))
    }

    /// Of one field's value.
    pub fn parse(field: Option<&str>) -> Accepted {
        Accepted(field.map(str::to_owned))
    }

    /// The one to be sent of the `offered`: the highest quality; among equals what stands first in
    /// `preferred`, then what the client names and names first. None: none of them is acceptable (406).
    pub fn best(&self, offered: &[&str], preferred: &[&str]) -> Option<usize> {
        let rank = |index: &usize| {
            let weight = self.weight(offered[*index]);
            let is_it = |name: &&str| name.eq_ignore_ascii_case(offered[*index]);
            let preference = preferred.iter().position(is_it);
            // Smaller goes first.
            (
                u16::MAX - weight.quality,
                preference.unwrap_or(usize::MAX),
                !weight.named,
                weight.position,
            )
        };
        (0..offered.len())
            .filter(|index| self.weight(offered[*index]).quality > 0)
            .min_by_key(rank)
    }

    fn weight(&self, coding: &str) -> Weight {
        let identity = coding.eq_ignore_ascii_case("identity");
        let default = Weight {
            quality: if identity { LAST } else { 0 },
            named: false,
            position: usize::MAX,
        };
        let mut found = default;
        let list = self.0.as_deref().unwrap_or_default();
        for (position, element) in list.split(',').enumerate() {
            let mut parts = element.split(';');
            let name = parts.next().unwrap_or_default().trim_matches([' ', '\t']);
            // §8.4.1.3: recipients take x-gzip for gzip.
            let named = name.eq_ignore_ascii_case(coding)
                || (name.eq_ignore_ascii_case("x-gzip") && coding.eq_ignore_ascii_case("gzip"));
            if !named && (name != "*" || found.position != usize::MAX) {
                continue;
            }
            // What has no readable quality says nothing.
            if let Some(quality) = quality(parts) {
                let thing = Weight {
                    quality: if quality > 0 { quality + LAST } else { 0 },
                    named,
                    position,
                };
                if named {
                    return thing;
                }
                found = thing;
            }
        }
        found
    }
}

/// Thousandths (§12.4.2); 1000 where nothing is said. None: not a quality.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    let found = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let name = name.trim_matches([' ', '\t']);
        name.eq_ignore_ascii_case("q")
            .then(|| value.trim_matches([' ', '\t']))
    });
    let Some(text) = found else {
        return Some(1000);
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || fraction.len() > 3 || !matches!(whole, "0" | "1") {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        _ => (fraction == 0).then_some(1000),
    }
}

/// The coding that a file is stored in, by its name and first bytes: `x.svgz` is SVG in gzip. It has no other
/// form, so it is sent in that one whatever is accepted (RFC 9110 §12.5.3 lets a server do so, Apache does).
pub(super) fn stored(path: &[u8], start: &[u8]) -> Option<Coding> {
    let named =
        path.len() > SVGZ.len() && path[path.len() - SVGZ.len()..].eq_ignore_ascii_case(SVGZ);
    (named && start.starts_with(Coding::Gzip.magic())).then_some(Coding::Gzip)
}

const SVGZ: &[u8] = b".svgz";

/// What a content type says about encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Text and the like: compresses well.
    Compressible,
    /// Nobody knows: what the image has beside it is sent, nothing is made.
    Unknown,
    /// Compressed already: never encoded again.
    Compressed,
}

/// By the content type's essence.
pub(super) fn worth(content_type: &[u8]) -> Worth {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let essence = content_type[..end].trim_ascii();
    let slash = memchr::memchr(b'/', essence).unwrap_or(essence.len());
    let (kind, subtype) = (
        &essence[..slash],
        essence.get(slash + 1..).unwrap_or_default(),
    );
    let text = subtype.ends_with(b"+json") || subtype.ends_with(b"+xml");
    match kind {
        b"text" => Worth::Compressible,
        _ if text => Worth::Compressible,
        b"application" if COMPRESSIBLE.contains(&subtype) => Worth::Compressible,
        b"application" if COMPRESSED.contains(&subtype) => Worth::Compressed,
        b"application" if subtype.ends_with(b"+zip") => Worth::Compressed,
        b"font" if matches!(subtype, b"ttf" | b"otf" | b"collection") => Worth::Compressible,
        b"image" if matches!(subtype, b"bmp" | b"x-icon" | b"vnd.microsoft.icon") => {
            Worth::Compressible
        }
        b"image" | b"video" | b"audio" | b"font" => Worth::Compressed,
        _ => Worth::Unknown,
    }
}

const COMPRESSIBLE: &[&[u8]] = &[
    b"javascript",
    b"x-javascript",
    b"ecmascript",
    b"typescript",
    b"json",
    b"json5",
    b"xml",
    b"xml-dtd",
    b"yaml",
    b"x-yaml",
    b"toml",
    b"wasm",
    b"sql",
    b"x-sql",
    b"rtf",
    b"x-sh",
    b"x-ndjson",
    b"postscript",
    b"vnd.ms-fontobject",
    b"x-font-ttf",
    b"x-font-otf",
    b"x-httpd-php",
    b"x-tex",
    b"x-subrip",
    b"graphql",
    b"n-triples",
    b"sparql-query",
];

const COMPRESSED: &[&[u8]] = &[
    b"zip",
    b"gzip",
    b"x-gzip",
    b"zstd",
    b"x-bzip",
    b"x-bzip2",
    b"x-xz",
    b"x-lzma",
    b"x-lzip",
    b"x-compress",
    b"x-7z-compressed",
    b"x-rar-compressed",
    b"vnd.rar",
    b"java-archive",
    b"vnd.android.package-archive",
    b"x-font-woff",
    b"font-woff",
    b"ogg",
    b"mp4",
];

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [&str; 3] = ["br", "zstd", "gzip"];

    #[test]
    fn the_best_coding_is_the_clients_then_ours() {
        let all = ["br", "zstd", "gzip", "identity"];
        // Field, on offer, what is sent.
        let table: [(Option<&str>, &[&str], Option<&str>); 24] = [
            (None, &all, Some("identity")),
            (Some(""), &all, Some("identity")),
            (Some("gzip, deflate, br, zstd"), &all, Some("br")),
            (Some("gzip, deflate, zstd"), &all, Some("zstd")),
            (Some("gzip, deflate, br, zstd"), &all[2..], Some("gzip")),
            (Some("gzip, deflate, br, zstd"), &all[3..], Some("identity")),
            (Some("gzip;q=1.0, br;q=0.9"), &all, Some("gzip")),
            (Some("gzip;q=0.001"), &all, Some("gzip")),
            (Some("br;q=0"), &all, Some("identity")),
            (Some("BR"), &all, Some("br")),
            (Some("x-gzip"), &all, Some("gzip")),
            (Some("*"), &all, Some("br")),
            (Some("*;q=0.5, gzip"), &all, Some("gzip")),
            (Some("identity, gzip;q=0.5"), &all, Some("identity")),
            (Some("*, br;q=0"), &all, Some("zstd")),
            (Some("gzip, identity;q=0"), &all, Some("gzip")),
            (Some("gzip, identity;q=0"), &all[3..], None),
            (Some("identity;q=0"), &all, None),
            (Some("*;q=0"), &all, None),
            (Some("*;q=0, gzip"), &all[3..], None),
            (Some("*;q=0, identity;q=0.1"), &all, Some("identity")),
            (
                Some("gzip;q=2, br;q=x, zstd;q=0.1234"),
                &all,
                Some("identity"),
            ),
            (Some("gzip ; q=0.5 , br\t;Q=0.6"), &all, Some("br")),
            (Some("compress, ,,;q=1"), &all, Some("identity")),
        ];
        for (field, offered, sent) in table {
            let best = Accepted::parse(field).best(offered, &OURS);
            assert_eq!(best.map(|index| offered[index]), sent, "{field:?}");
        }
    }

    #[test]
    fn a_file_is_stored_in_gzip_by_its_name_and_its_first_bytes() {
        for (path, start, coding) in [
            ("a/x.svgz", &b"\x1f\x8b"[..], Some(Coding::Gzip)),
            ("a/X.SVGZ", b"\x1f\x8b\x08", Some(Coding::Gzip)),
            ("a/x.svgz", b"<svg", None),
            ("a/x.svgz", b"", None),
            ("a/x.svg", b"\x1f\x8b", None),
            ("a/x.svg.gz", b"\x1f\x8b", None),
            (".svgz", b"\x1f\x8b", None),
        ] {
            assert_eq!(stored(path.as_bytes(), start), coding, "{path} {start:?}");
        }
    }

    #[test]
    fn several_fields_are_one_list() {
        let mut headers = HeaderMap::new();
        assert!(Accepted::of(&headers).0.is_none());
        for value in ["gzip;q=0.5", "br"] {
            headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
        }
        let best = Accepted::of(&headers).best(&["gzip", "br"], &OURS);
        assert_eq!(best, Some(1));
    }

    #[test]
    fn what_is_compressed_already_is_never_encoded_again() {
        use Worth::{Compressed, Compressible, Unknown};
        for (content_type, expected) in [
            ("text/html; charset=utf-8", Compressible),
            ("text/javascript", Compressible),
            ("application/json", Compressible),
            ("application/manifest+json", Compressible),
            ("application/wasm", Compressible),
            ("image/svg+xml", Compressible),
            ("image/x-icon", Compressible),
            ("font/ttf", Compressible),
            ("font/woff2", Compressed),
            ("image/png", Compressed),
            ("video/mp4", Compressed),
            ("application/zip", Compressed),
            ("application/gzip", Compressed),
            ("application/epub+zip", Compressed),
            ("application/octet-stream", Unknown),
            ("application/pdf", Unknown),
            ("odd", Unknown),
        ] {
            assert_eq!(worth(content_type.as_bytes()), expected, "{content_type}");
        }
    }
}
