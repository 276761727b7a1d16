//! `WWW-Authenticate`: RFC 9110 §11.6.1, and the bearer scheme of the distribution
//! specification. Several challenges may stand in one header, and a header may come twice.

use http::{HeaderMap, header};
use std::collections::BTreeMap;

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Lower-case.
    pub scheme: String,
    /// Names in lower case, values unescaped; of a repeated name the first.
    pub params: BTreeMap<String, String>,
}

/// Parses the value of one `WWW-Authenticate` header; None if it is not well formed.
pub fn parse_challenges(value: &str) -> Option<Vec<Challenge>> {
    let challenges = http_auth::parse_challenges(value).ok()?;
    let owned = challenges.into_iter().map(|challenge| {
        let mut params = BTreeMap::new();
        for (name, value) in challenge.params {
            params
                .entry(name.to_ascii_lowercase())
                .or_insert_with(|| value.to_unescaped());
        }
        Challenge {
            scheme: challenge.scheme.to_ascii_lowercase(),
            params,
        }
    });
    Some(owned.collect())
}

/// All challenges of an answer; headers that are not well formed are left out.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    (headers.get_all(header::WWW_AUTHENTICATE).iter())
        .filter_map(|value| parse_challenges(value.to_str().ok()?))
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_in_all_their_forms() {
        type Expected<'a> = Option<&'a [(&'a str, &'a [(&'a str, &'a str)])]>;
        let table: &[(&str, Expected<'_>)] = &[
            (
                r#"Bearer realm="https://auth.example/token",service="s",scope="a b:c,d""#,
                Some(&[(
                    "bearer",
                    &[
                        ("realm", "https://auth.example/token"),
                        ("scope", "a b:c,d"),
                        ("service", "s"),
                    ],
                )]),
            ),
            (r#"BASIC Realm="x""#, Some(&[("basic", &[("realm", "x")])])),
            (
                r#"Basic realm="a", Bearer realm="b" , service=c"#,
                Some(&[
                    ("basic", &[("realm", "a")]),
                    ("bearer", &[("realm", "b"), ("service", "c")]),
                ]),
            ),
            (
                r#"Bearer realm="a\"\\b""#,
                Some(&[("bearer", &[("realm", r#"a"\b"#)])]),
            ),
            (
                r#"Bearer realm="a",realm="b",empty="""#,
                Some(&[("bearer", &[("empty", ""), ("realm", "a")])]),
            ),
            (r#"Bearer realm="a"#, None),
            ("", None),
            (",", None),
        ];
        for (text, expected) in table {
            let found = parse_challenges(text);
            let expected = expected.map(|challenges| {
                let challenge = |(scheme, params): &(&str, &[(&str, &str)])| Challenge {
                    scheme: (*scheme).to_owned(),
                    params: params
                        .iter()
                        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                        .collect(),
                };
                challenges.iter().map(challenge).collect::<Vec<_>>()
            });
            assert_eq!(found.filter(|found| !found.is_empty()), expected, "{text}");
        }
    }
}
