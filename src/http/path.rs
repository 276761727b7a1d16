//! From the raw rest of a URL path to a path inside the image.

/// A path as the image knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePath {
    /// Decoded, cleaned, without leading or trailing slash; any bytes but NUL and `/` in a component.
    pub(super) bytes: Vec<u8>,
    /// Ended with a slash (or with a dot segment, which stands for one): a directory is meant.
    pub(super) directory: bool,
    /// Empty components between slashes, which are ignored here. Clients count them when they
    /// resolve a relative reference.
    pub(super) empty: usize,
}

impl FilePath {
    /// With a slash at the start, and at the end where one stood: the path that was asked for, decoded.
    pub(super) fn rooted(&self) -> Vec<u8> {
        let mut rooted = vec![b'/'];
        rooted.extend_from_slice(&self.bytes);
        if self.directory && !self.bytes.is_empty() {
            rooted.push(b'/');
        }
        rooted
    }

    /// This path with a slash at the end, relative to the URL that was asked for: there is one URL
    /// for a directory, however many slashes it was asked for with. The dot keeps a colon in the
    /// name from being read as a scheme (RFC 3986 §4.2).
    pub(super) fn as_directory(&self) -> String {
        let slashes = self.bytes.iter().filter(|byte| **byte == b'/').count();
        let (mut relative, shown) = match self.empty {
            0 => ("./".to_owned(), slashes),
            empty => ("../".repeat(slashes + empty), 0),
        };
        for component in self.bytes.split(|byte| *byte == b'/').skip(shown) {
            relative += &encode(component);
            relative.push('/');
        }
        relative
    }
}

/// Why a path cannot be served, whatever the image holds: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    #[error("the path leaves the image")]
    Escapes,
    #[error("the path holds an incomplete percent-encoding")]
    Encoding,
    #[error("the path holds an encoded slash or NUL")]
    Separator,
}

/// Decodes once (RFC 3986 §2.1), then removes dot segments (§5.2.4, encoded ones too), never above
/// the reference. `raw` is empty or starts with a slash. Empty components are ignored.
pub(super) fn file_path(raw: &str) -> Result<FilePath, PathError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut directory = raw.is_empty();
    for component in raw.split('/') {
        let start = bytes.len();
        if start > 0 && !component.is_empty() {
            bytes.push(b'/');
        }
        let from = bytes.len();
        decode(component.as_bytes(), &mut bytes)?;
        directory = match &bytes[from..] {
            b"" | b"." => {
                bytes.truncate(start);
                true
            }
            b".." => {
                bytes.truncate(start);
                if start == 0 {
                    return Err(PathError::Escapes);
                }
                let parent = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                bytes.truncate(parent);
                true
            }
            _ => false,
        };
    }
    let empty = raw.as_bytes().windows(2).filter(|two| two == b"//").count();
    Ok(FilePath {
        bytes,
        directory,
        empty,
    })
}

fn decode(component: &[u8], out: &mut Vec<u8>) -> Result<(), PathError> {
    let mut rest = component;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let byte = match byte {
            b'%' => {
                let (high, low) = match tail {
                    [high, low, ..] => (digit(*high)?, digit(*low)?),
                    _ => return Err(PathError::Encoding),
                };
                rest = &tail[2..];
                match high << 4 | low {
                    b'/' | 0 => return Err(PathError::Separator),
                    decoded => decoded,
                }
            }
            byte => byte,
        };
        out.push(byte);
    }
    Ok(())
}

fn digit(hex: u8) -> Result<u8, PathError> {
    char::from(hex)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
        .ok_or(PathError::Encoding)
}

/// A cleaned path of the image, relative to the URL that was asked for: `raw` is what stood behind the
/// reference, `bare` the reference if that was nothing.
pub(super) fn relative(raw: &str, bare: Option<&str>, path: &[u8], directory: bool) -> String {
    let mut relative = match (bare, depth(raw)) {
        (Some(reference), _) => {
            let name = reference.rsplit('/').next().unwrap_or_default();
            format!("./{name}/")
        }
        // The dot keeps a colon in the name from being read as a scheme (RFC 3986 §4.2).
        (None, 0) => "./".to_owned(),
        (None, depth) => "../".repeat(depth),
    };
    let components = path.split(|byte| *byte == b'/');
    let encoded: Vec<String> = components.map(encode).collect();
    relative += &encoded.join("/");
    if directory && !path.is_empty() {
        relative.push('/');
    }
    relative
}

/// What was asked for, under another version of the same repository, relative to the URL that was asked
/// for; `raw` and `bare` are as for [`relative`]. `sibling` is a name and its version: it takes the place
/// of the last component of the reference.
pub(super) fn under(raw: &str, bare: bool, sibling: &str, query: Option<&str>) -> String {
    let mut relative = match bare {
        // The dot keeps the colon of a digest from being read as a scheme (RFC 3986 §4.2).
        true => "./".to_owned(),
        false => "../".repeat(depth(raw) + 1),
    };
    relative += sibling;
    relative += raw;
    if let Some(query) = query {
        relative.push('?');
        relative += query;
    }
    relative
}

/// Directories between the reference and the last component, as clients count them: they resolve dot
/// segments first (RFC 3986 §5.2.4, encoded ones too, as browsers do), and an empty component is one like
/// others.
pub(super) fn depth(raw: &str) -> usize {
    let raw = raw.strip_prefix('/').unwrap_or(raw);
    let (mut depth, mut last) = (0usize, false);
    for component in raw.split('/') {
        let component = component.replace("%2e", ".").replace("%2E", ".");
        last = !matches!(component.as_str(), "." | "..");
        match component.as_str() {
            "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    // The last one is no directory, unless it is a dot segment.
    depth - usize::from(last)
}

/// Joins a directory and a path below it.
pub(super) fn join(directory: &[u8], below: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(directory.len() + below.len() + 1);
    joined.extend_from_slice(directory);
    if !directory.is_empty() && !below.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(below);
    joined
}

/// One path component as it may stand in a relative URL: everything but RFC 3986's unreserved characters
/// is encoded, so that no name can be read as a scheme, a query, a host or a header.
pub(super) fn encode(component: &[u8]) -> String {
    const KEPT: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    percent_encoding::percent_encode(component, &KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_url() {
        let table = [
            ("/a", "./a/"),
            ("/a/b", "./b/"),
            ("/a/../b", "./b/"),
            ("//a", "../a/"),
            ("/a//b", "../../a/b/"),
            ("///a/x:y", "../../../a/x%3Ay/"),
            // A client that takes `//..` away is below `/a` still.
            ("/a//../b", "../b/"),
        ];
        for (raw, location) in table {
            let asked = url::Url::parse(&format!("http://host/image:v1{raw}")).unwrap();
            let path = file_path(raw).unwrap();
            assert_eq!(path.as_directory(), location, "{raw}");
            let wanted: Vec<String> = path.bytes.split(|byte| *byte == b'/').map(encode).collect();
            let arrived = asked.join(location).unwrap();
            let wanted = format!("/image:v1/{}/", wanted.join("/"));
            assert_eq!(arrived.path(), wanted, "{raw}");
        }
    }

    #[test]
    fn a_relative_reference_leads_to_the_path_from_wherever_it_was_asked() {
        let raws = [
            "",
            "/",
            "/a",
            "/a/",
            "/a/b",
            "/a/b/c/",
            "//",
            "//a",
            "/a//b",
            "///",
            "/a/../b",
            "/a/b/..",
            "/a/.",
            "/a/%2e%2E/b/",
            "/./a",
            "/a//../b",
            "/a/b//%2e./c",
            "/%2e",
            "/x%2ey/z",
            "/.../a",
        ];
        let paths: [(&[u8], bool); 6] = [
            (b"", true),
            (b"x", false),
            (b"x/y", true),
            (b"a:b", false),
            (b"\xff ?#%/\r\n", false),
            (b"evil.example/%2e%2e", true),
        ];
        for raw in raws {
            let asked = url::Url::parse(&format!("http://host/team/image:v1{raw}")).unwrap();
            let bare = raw.is_empty().then_some("team/image:v1");
            for (path, directory) in paths {
                let location = relative(raw, bare, path, directory);
                let arrived = asked.join(&location).unwrap();
                let encoded: Vec<String> = path.split(|byte| *byte == b'/').map(encode).collect();
                let slash = if directory && !path.is_empty() {
                    "/"
                } else {
                    ""
                };
                let wanted = format!("/team/image:v1/{}{slash}", encoded.join("/"));
                assert_eq!(arrived.path(), wanted, "{raw} {location}");
                assert_eq!(arrived.host_str(), Some("host"), "{raw} {location}");
            }
        }
    }

    #[test]
    fn another_version_is_beside_the_one_that_was_asked_for() {
        let table = [
            ("", None, "./app@sha256:ab", "/team/app@sha256:ab"),
            ("", Some("q"), "./app@sha256:ab?q", "/team/app@sha256:ab?q"),
            ("/", None, "../app@sha256:ab/", "/team/app@sha256:ab/"),
            (
                "/a/x.html",
                Some("b=1&c"),
                "../../app@sha256:ab/a/x.html?b=1&c",
                "/team/app@sha256:ab/a/x.html?b=1&c",
            ),
            (
                "/a/../b",
                None,
                "../app@sha256:ab/a/../b",
                "/team/app@sha256:ab/b",
            ),
            (
                "/a/%2e%2E/b/",
                None,
                "../../app@sha256:ab/a/%2e%2E/b/",
                "/team/app@sha256:ab/b/",
            ),
            (
                "//evil.example/x",
                None,
                "../../../app@sha256:ab//evil.example/x",
                "/team/app@sha256:ab//evil.example/x",
            ),
            (
                "/x%3Ay",
                None,
                "../app@sha256:ab/x%3Ay",
                "/team/app@sha256:ab/x%3Ay",
            ),
        ];
        for (raw, query, location, path) in table {
            let relative = under(raw, raw.is_empty(), "app@sha256:ab", query);
            assert_eq!(relative, location);
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            let asked = format!("http://host/prefix/team/app:v1{raw}{query}");
            let arrived = url::Url::parse(&asked).unwrap().join(&relative).unwrap();
            let wanted = format!(
                "http://host/prefix{path}{}",
                if path.contains('?') { "" } else { &query }
            );
            assert_eq!(arrived.as_str(), wanted, "{raw}");
        }
    }

    #[test]
    fn paths_are_decoded_once_and_stay_inside() {
        let good: &[(&str, &[u8], bool)] = &[
            ("", b"", true),
            ("/", b"", true),
            ("/a", b"a", false),
            ("/a/", b"a", true),
            ("/a//b", b"a/b", false),
            ("/a/./b/.", b"a/b", true),
            ("/a/b/..", b"a", true),
            ("/a/%2e%2E/b", b"b", false),
            ("/%2525", b"%25", false),
            ("/a%20b+c", b"a b+c", false),
            ("/%ff", b"\xff", false),
            ("/...", b"...", false),
        ];
        for (raw, bytes, directory) in good {
            let path = FilePath {
                bytes: bytes.to_vec(),
                directory: *directory,
                empty: usize::from(*raw == "/a//b"),
            };
            assert_eq!(file_path(raw), Ok(path), "{raw}");
        }
        let bad = [
            ("/..", PathError::Escapes),
            ("/a/../../b", PathError::Escapes),
            ("/%2e%2e/x", PathError::Escapes),
            ("/%", PathError::Encoding),
            ("/%1", PathError::Encoding),
            ("/%zz", PathError::Encoding),
            ("/a%2fb", PathError::Separator),
            ("/a%00", PathError::Separator),
        ];
        for (raw, error) in bad {
            assert_eq!(file_path(raw), Err(error), "{raw}");
        }
    }
}
