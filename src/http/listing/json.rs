//! A listing as an array of objects.

use super::super::path::encode;
use super::{Line, time};
use serde::Serialize;

/// A name that is not UTF-8 is shown with U+FFFD in place of what is not; `href` has every byte.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    r#type: &'static str,
    /// None: a directory.
    size: Option<u64>,
    modified: Option<String>,
    href: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    integrity: Option<&'a str>,
}

pub(super) fn array(lines: &[Line]) -> String {
    let mut out = String::with_capacity(16 + lines.len() * 128);
    out.push('[');
    for (index, line) in lines.iter().enumerate() {
        let name = String::from_utf8_lossy(&line.name);
        let slash = if line.directory { "/" } else { "" };
        let entry = Entry {
            name: &name,
            r#type: if line.directory { "directory" } else { "file" },
            size: (!line.directory).then_some(line.length),
            modified: line.mtime.and_then(time::rfc3339),
            href: format!("./{}{slash}", encode(&line.name)),
            integrity: line.integrity.as_deref(),
        };
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        // Texts and numbers: nothing that JSON has no form for.
        if let Ok(text) = serde_json::to_string(&entry) {
            out.push_str(&text);
        }
    }
    out.push_str("\n]\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn each_entry_says_what_it_is_and_where() {
        let mut hashed = line(b"a b\"\n", false, 5, Some(1_700_000_000));
        hashed.integrity = Some("sha256-x".into());
        let text = array(&[
            line(b"d\xff", true, 0, Some(0)),
            hashed,
            line(b"m", false, 0, None),
        ]);
        let expected = json!([
            {"name": "d\u{fffd}", "type": "directory", "size": null,
             "modified": "1970-01-01T00:00:00Z", "href": "./d%FF/"},
            {"name": "a b\"\n", "type": "file", "size": 5, "modified": "2023-11-14T22:13:20Z",
             "href": "./a%20b%22%0A", "integrity": "sha256-x"},
            {"name": "m", "type": "file", "size": 0, "modified": null, "href": "./m"},
        ]);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        assert_eq!(
            serde_json::from_str::<Value>(&array(&[])).unwrap(),
            json!([])
        );
    }
}
