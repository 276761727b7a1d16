//! Destinations of rules: texts with places for what was captured. What comes out is a cleaned path and an
//! encoded query and fragment, whatever was captured.

use super::pattern::{SPLAT, is_name, literal};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode, percent_encode};
use std::borrow::Cow;

/// What a captured text may hold in a query: RFC 3986's unreserved characters.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// What the text of a query or fragment may not hold; `%` is taken for the start of an encoding.
const QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// `to`, with the places where captured texts go.
#[derive(Debug)]
pub(super) struct Template {
    path: Vec<Piece>,
    query: Option<Vec<Piece>>,
    fragment: Option<Vec<Piece>>,
}

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    /// Index of what was captured.
    Captured(usize),
    Splat,
}

/// What a rule matched.
pub(super) struct Matched<'a> {
    pub(super) captured: Vec<Cow<'a, [u8]>>,
    pub(super) splat: &'a [u8],
}

impl Template {
    /// Reads a destination; `names` are those of what is captured, `below`: there is a splat.
    ///
    /// # Errors
    /// What is wrong with it, with the value.
    pub(super) fn parse(
        text: &str,
        names: &[Cow<'_, str>],
        below: bool,
    ) -> Result<Template, String> {
        if !text.starts_with('/') || text.starts_with("//") || text.starts_with("/\\") {
            return Err(format!(
                "{text:?} leads to another host; rules stay in the image, write a path of it"
            ));
        }
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let pieces = |text| pieces(text, names, below);
        let mut path_pieces = Vec::new();
        for (index, component) in path.split('/').enumerate() {
            if index > 1 {
                path_pieces.push(Piece::Text(b"/".to_vec()));
            }
            if component == "." || component == ".." {
                literal(component)?;
            }
            for piece in pieces(component)? {
                path_pieces.push(match piece {
                    Piece::Text(bytes) => Piece::Text(decoded(&bytes)?),
                    piece => piece,
                });
            }
        }
        let template = Template {
            path: path_pieces,
            query: query.map(pieces).transpose()?,
            fragment: fragment.map(pieces).transpose()?,
        };
        // What holds no captured text is known to hold now.
        let fixed = template
            .path
            .iter()
            .all(|piece| matches!(piece, Piece::Text(_)));
        let nothing = Matched {
            captured: Vec::new(),
            splat: b"",
        };
        if fixed && template.path(&nothing, false).is_none() {
            return Err(format!(
                "{text:?} leaves the image: write the path without dot segments"
            ));
        }
        Ok(template)
    }

    /// Expands the path: cleaned, and whether a slash stands at its end. None: what was captured holds a
    /// separator, or makes a dot segment.
    pub(super) fn path(&self, matched: &Matched<'_>, directory: bool) -> Option<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        for piece in &self.path {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text),
                Piece::Splat => bytes.extend_from_slice(matched.splat),
                Piece::Captured(index) => {
                    let value = matched.captured.get(*index)?;
                    if value.contains(&b'/') || value.contains(&0) {
                        return None;
                    }
                    bytes.extend_from_slice(value);
                }
            }
        }
        let ends_open = matches!(self.path.last(), Some(Piece::Splat)) && directory;
        let directory = bytes.is_empty() || bytes.ends_with(b"/") || ends_open;
        let components = bytes.split(|byte| *byte == b'/');
        let components: Vec<&[u8]> = components.filter(|one| !one.is_empty()).collect();
        let dots = |component: &&[u8]| matches!(*component, b"." | b"..");
        (!components.iter().any(dots)).then(|| (components.join(&b'/'), directory))
    }

    /// Expands the query, encoded. None: it has none.
    pub(super) fn query(&self, matched: &Matched<'_>) -> Option<String> {
        Some(Template::text(self.query.as_ref()?, matched))
    }

    /// Expands the fragment, encoded. None: it has none.
    pub(super) fn fragment(&self, matched: &Matched<'_>) -> Option<String> {
        Some(Template::text(self.fragment.as_ref()?, matched))
    }

    fn text(pieces: &[Piece], matched: &Matched<'_>) -> String {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(bytes) => text.extend(percent_encode(bytes, QUERY)),
                Piece::Splat => text.extend(percent_encode(matched.splat, VALUE)),
                Piece::Captured(index) => {
                    let value = matched.captured.get(*index).map(Cow::as_ref);
                    text.extend(percent_encode(value.unwrap_or_default(), VALUE));
                }
            }
        }
        text
    }
}

/// Splits a text at its placeholders, which it leaves encoded as it is.
fn pieces(text: &str, names: &[Cow<'_, str>], below: bool) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(colon) = rest.find(':') {
        let (before, after) = (&rest[..colon], &rest[colon + 1..]);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = after.find(|c| !word(c)).unwrap_or(after.len());
        let name = &after[..end];
        if !is_name(name) {
            return Err(format!(
                "\":{name}\" is not a placeholder; for the character itself write `%3A`"
            ));
        }
        pieces.push(Piece::Text(before.as_bytes().to_vec()));
        pieces.push(match names.iter().position(|there| there == name) {
            Some(index) => Piece::Captured(index),
            None if name == SPLAT && below => Piece::Splat,
            None => {
                return Err(format!(
                    "nothing stands for `:{name}`: give it in the path to lead from (`:splat` needs `/*` there)"
                ));
            }
        });
        rest = &after[end..];
    }
    pieces.push(Piece::Text(rest.as_bytes().to_vec()));
    pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
    Ok(pieces)
}

/// A part of a component. Dots are looked at when it is whole.
fn decoded(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let text = String::from_utf8_lossy(bytes);
    let bytes: Vec<u8> = percent_decode(bytes).collect();
    if matches!(bytes.as_slice(), b"." | b"..") {
        return Ok(bytes);
    }
    literal(&text)
}

/// A query as it may stand in a header.
pub(super) fn encoded(query: &str) -> String {
    percent_encode(query.as_bytes(), QUERY).to_string()
}
