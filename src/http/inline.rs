//! `X-BlobServe-InlineVars`: search and replace in a page, on request.

use crate::config::InlineStatic;
use http::{HeaderMap, HeaderName};
use memchr::memmem;
use serde::Deserialize;

/// The request header.
pub(super) const INLINE_VARS: HeaderName = HeaderName::from_static("x-blobserve-inlinevars");
/// Bytes of the header; a longer one changes nothing.
const MOST_HEADER: usize = 8 << 10;
/// Bytes of the page; a longer one is served untouched.
pub(super) const MOST_PAGE: u64 = 8 << 20;
/// Bytes of what is made of it, whatever the values of the header are; else it is served untouched.
const MOST_RESULT: usize = 32 << 20;

/// The header's values, as they stand for `${ide}` and `${supervisor}`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct InlineVars {
    ide: String,
    supervisor: String,
}

impl InlineVars {
    /// None: no header, or one that changes nothing (too long, not JSON; logged).
    pub(super) fn of(headers: &HeaderMap) -> Option<InlineVars> {
        let value = headers.get(INLINE_VARS)?;
        if value.len() > MOST_HEADER {
            tracing::warn!(
                bytes = value.len(),
                "X-BlobServe-InlineVars is longer than {MOST_HEADER} bytes, ignored"
            );
            return None;
        }
        parse(value.as_bytes())
            .inspect_err(|error| tracing::warn!(%error, "X-BlobServe-InlineVars is not the JSON expected, ignored"))
            .ok()
    }

    /// Applies the rules one after another, each on the result of the one before. None (logged): the
    /// result would be larger than [`MOST_RESULT`].
    pub(super) fn apply(&self, page: &[u8], rules: &[InlineStatic]) -> Option<Vec<u8>> {
        let mut page = page.to_vec();
        for rule in rules {
            let replacement = self.expand(&rule.replacement);
            let Some(replaced) = replace(&page, rule.search.as_bytes(), replacement.as_bytes())
            else {
                tracing::warn!(search = %rule.search, "X-BlobServe-InlineVars would make a page larger than {MOST_RESULT} bytes, ignored");
                return None;
            };
            page = replaced;
        }
        Some(page)
    }

    /// Puts the values in, in one pass: what a value holds is not looked at again.
    fn expand(&self, template: &str) -> String {
        let variables = [("${ide}", &self.ide), ("${supervisor}", &self.supervisor)];
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let known = variables.iter().find(|(name, _)| rest.starts_with(name));
            let (text, length) = known.map_or(("${", 2), |(name, value)| (value, name.len()));
            out.push_str(text);
            rest = &rest[length..];
        }
        out + rest
    }
}

/// An object of texts, as existing installations send and read it: the last of repeated keys wins,
/// null is the empty text, other keys mean nothing.
fn parse(json: &[u8]) -> Result<InlineVars, serde_json::Error> {
    let mut values: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)?;
    let mut text = |name| {
        let value = values.remove(name).unwrap_or_default();
        Option::<String>::deserialize(value).map(Option::unwrap_or_default)
    };
    Ok(InlineVars {
        ide: text("ide")?,
        supervisor: text("supervisor")?,
    })
}

/// None: the result would be larger than [`MOST_RESULT`].
fn replace(text: &[u8], search: &[u8], replacement: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut from = 0;
    for at in memmem::find_iter(text, search) {
        out.extend_from_slice(&text[from..at]);
        out.extend_from_slice(replacement);
        from = at + search.len();
        if out.len() > MOST_RESULT {
            return None;
        }
    }
    out.extend_from_slice(&text[from..]);
    (out.len() <= MOST_RESULT).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_applied_in_order_with_the_values_of_the_header() {
        let rules = [("IDE", "${ide}/${supervisor}"), ("a/b", "c")].map(|(search, replacement)| {
            InlineStatic {
                search: search.into(),
                replacement: replacement.into(),
            }
        });
        let vars = InlineVars {
            ide: "a".into(),
            supervisor: "b".into(),
        };
        assert_eq!(vars.apply(b"<IDE> IDE.", &rules).unwrap(), b"<c> c.");
    }

    #[test]
    fn a_header_that_cannot_be_used_changes_nothing() {
        let headers = |value: &str| HeaderMap::from_iter([(INLINE_VARS, value.parse().unwrap())]);
        assert!(InlineVars::of(&headers("{\"ide\":\"x\"}")).is_some());
        assert!(InlineVars::of(&headers("{ide")).is_none());
        assert!(
            InlineVars::of(&headers(&format!("{{\"ide\":\"{}\"}}", "x".repeat(9000)))).is_none()
        );
        assert!(InlineVars::of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn values_are_read_as_existing_installations_read_them() {
        let cases = [
            (r#"{"ide":"a","supervisor":"b"}"#, Some(("a", "b"))),
            (r#"{"ide":"a","ide":"b"}"#, Some(("b", ""))),
            (r#"{"ide":null,"other":[1]}"#, Some(("", ""))),
            ("{}", Some(("", ""))),
            (r#"{"ide":1}"#, None),
            (r#"["a","b"]"#, None),
            ("[]", None),
            (r#""a""#, None),
        ];
        for (json, expected) in cases {
            let expected = expected.map(|(ide, supervisor)| InlineVars {
                ide: ide.into(),
                supervisor: supervisor.into(),
            });
            assert_eq!(parse(json.as_bytes()).ok(), expected, "{json}");
        }
    }

    #[test]
    fn values_are_put_in_once_and_unknown_variables_stay() {
        let vars = InlineVars {
            ide: "${supervisor}".into(),
            supervisor: "s".into(),
        };
        for (template, text) in [
            ("${ide}|${supervisor}", "${supervisor}|s"),
            ("${other} $ide ${", "${other} $ide ${"),
            ("", ""),
        ] {
            assert_eq!(vars.expand(template), text);
        }
    }

    #[test]
    fn no_header_makes_a_page_without_bound() {
        let rules = [InlineStatic {
            search: "a".into(),
            replacement: "${ide}".into(),
        }];
        let vars = InlineVars {
            ide: "x".repeat(8000),
            ..InlineVars::default()
        };
        assert!(vars.apply(&[b'a'; 4000], &rules).is_some());
        assert!(vars.apply(&[b'a'; 8000], &rules).is_none());
    }
}
