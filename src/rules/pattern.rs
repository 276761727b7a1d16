//! Patterns of paths: text as it is, and `:name` for one whole component. Matched from the start, in
//! one pass, without backtracking.

use percent_encoding::percent_decode_str;

/// The name that stands for what a `*` matched.
pub(super) const SPLAT: &str = "splat";

/// A pattern, or the part of one before its `*`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    names: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Decoded; slashes are separators.
    Text(Vec<u8>),
    /// One component, not empty.
    Component,
}

impl Pattern {
    /// Reads a pattern without `*`: empty, or starting with a slash.
    ///
    /// # Errors
    /// What is wrong with it, with the value.
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        let mut pattern = Pattern {
            parts: Vec::new(),
            names: Vec::new(),
        };
        if text.is_empty() {
            return Ok(pattern);
        }
        let Some(below) = text.strip_prefix('/') else {
            return Err(format!(
                "{text:?} is not a path of this site, start it with `/`"
            ));
        };
        let count = below.split('/').count();
        for (index, component) in below.split('/').enumerate() {
            pattern.text(b"/");
            match component.strip_prefix(':') {
                Some(name) => pattern.component(name)?,
                None if component.is_empty() && index + 1 < count => {
                    return Err(format!(
                        "{text:?} holds `//`, which no path does: write one slash"
                    ));
                }
                None => pattern.text(&literal(component)?),
            }
        }
        Ok(pattern)
    }

    fn component(&mut self, name: &str) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!(
                "\":{name}\" is not a placeholder, write `:` and a name of letters, digits and `_`"
            ));
        }
        if name == SPLAT {
            return Err("`:splat` stands for what `*` matched: write `*` here".into());
        }
        if self.names.iter().any(|there| there == name) {
            return Err(format!(
                "`:{name}` stands there twice, give each its own name"
            ));
        }
        self.names.push(name.to_owned());
        self.parts.push(Part::Component);
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        match self.parts.last_mut() {
            Some(Part::Text(before)) => before.extend_from_slice(text),
            _ => self.parts.push(Part::Text(text.to_vec())),
        }
    }

    /// Names of its placeholders, in order.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Matches the start of `path` and returns what is left of it; puts what the placeholders stand for
    /// behind what `captured` holds. None: no match (`captured` then holds anything).
    pub(super) fn strip<'p>(
        &self,
        path: &'p [u8],
        captured: &mut Vec<&'p [u8]>,
    ) -> Option<&'p [u8]> {
        let mut rest = path;
        for part in &self.parts {
            rest = match part {
                Part::Text(text) => rest.strip_prefix(text.as_slice())?,
                Part::Component => {
                    let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
                    if end == 0 {
                        return None;
                    }
                    captured.push(&rest[..end]);
                    &rest[end..]
                }
            };
        }
        Some(rest)
    }
}

/// Letters, digits and `_`, not starting with a digit.
pub(super) fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(word) && text.starts_with(|first: char| !first.is_ascii_digit())
}

/// One component of a path, decoded once.
///
/// # Errors
/// It is one that no cleaned path holds.
pub(super) fn literal(component: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    let mut encodings = component.split('%').skip(1).map(str::bytes);
    if !encodings.all(|mut tail| digit(tail.next()) && digit(tail.next())) {
        return Err(format!(
            "{component:?} holds an incomplete percent-encoding, write `%25` for a percent sign"
        ));
    }
    let bytes: Vec<u8> = percent_decode_str(component).collect();
    if bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(format!(
            "{component:?} holds an encoded slash or NUL, which no file name does"
        ));
    }
    if matches!(bytes.as_slice(), b"." | b"..") {
        return Err(format!(
            "{component:?} is a dot segment, which could leave the image: write the path without"
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_components_from_the_start() {
        type Found<'a> = Option<(&'a str, &'a [&'a str])>;
        let table: &[(&str, &str, Found<'_>)] = &[
            ("", "/a", Some(("/a", &[]))),
            ("/a", "/a", Some(("", &[]))),
            ("/a", "/ab", Some(("b", &[]))),
            ("/a", "/b", None),
            ("/a/", "/a", None),
            ("/:x", "/a/b", Some(("/b", &["a"]))),
            ("/:x/:y", "/a/b", Some(("", &["a", "b"]))),
            ("/:x/b/:y", "/a/b/c/d", Some(("/d", &["a", "c"]))),
            ("/:x", "/", None),
            ("/a/:x/c", "/a//c", None),
            ("/a%20b/%c3%bc", "/a b/\u{fc}", Some(("", &[]))),
            ("/a:b", "/a:b", Some(("", &[]))),
        ];
        for (pattern, path, wanted) in table {
            let pattern = Pattern::parse(pattern).unwrap();
            let mut captured = Vec::new();
            let rest = pattern.strip(path.as_bytes(), &mut captured);
            let rest = rest.map(|rest| std::str::from_utf8(rest).unwrap());
            let captured: Vec<&str> = captured
                .iter()
                .map(|bytes| std::str::from_utf8(bytes).unwrap())
                .collect();
            assert_eq!(rest, wanted.map(|(rest, _)| rest), "{pattern:?} {path}");
            if let Some((_, wanted)) = wanted {
                assert_eq!(captured, *wanted, "{pattern:?} {path}");
            }
        }
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for text in [
            "a", "/a//b", "//a", "/a/../b", "/.", "/%2e%2e", "/a%2fb", "/%00", "/%", "/%zz", "/:",
            "/:1", "/:a-b", "/:splat", "/:a/:a",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
