//! `_headers`: path patterns, each with the fields that its answers get.
//!
//! A line that starts with a slash is a pattern; lines indented below it are `Name: value`. One `*` in a
//! pattern matches anything, slashes too; `:name` one component. A name given twice in one block is
//! joined by commas; of two blocks that match, the later one's value holds.

use super::pattern::{Pattern, literal};
use super::{Fault, Faults, fields, lines};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Patterns of one file.
const MOST_BLOCKS: usize = 500;
/// Names of fields in one file, so that an answer's are bounded.
const MOST_NAMES: usize = 64;
/// Bytes of one value.
const MOST_VALUE: usize = 4 << 10;

/// The rules of one `_headers`.
#[derive(Debug, Default)]
pub struct Headers {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    pattern: Pattern,
    /// Some: a `*` follows, and then this text.
    rest: Option<Vec<u8>>,
    fields: HeaderMap,
}

impl Headers {
    /// Reads a file. `taken` says why a field is not for images, where the configuration has set it.
    pub fn parse(
        bytes: &[u8],
        taken: impl Fn(&HeaderName) -> Option<&'static str>,
    ) -> (Headers, Vec<Fault>) {
        let mut faults = Faults::default();
        let (mut blocks, mut names): (Vec<Block>, Vec<HeaderName>) = (Vec::new(), Vec::new());
        // Fields below a pattern that is at fault are part of that fault.
        let mut skipping = false;
        for (number, line) in lines(bytes, &mut faults) {
            if !line.starts_with([' ', '\t']) {
                if blocks.len() >= MOST_BLOCKS {
                    let more = "patterns: this one and what follows is ignored";
                    faults.push(number, format!("more than {MOST_BLOCKS} {more}"));
                    break;
                }
                let block = Block::parse(line);
                skipping = block.is_err();
                match block {
                    Ok(block) => blocks.push(block),
                    Err(message) => faults.push(number, message),
                }
                continue;
            }
            if skipping {
                continue;
            }
            let Some(block) = blocks.last_mut() else {
                let next = "write a path like `/*` before it, not indented";
                faults.push(number, format!("no pattern stands above it: {next}"));
                continue;
            };
            let read = field(line.trim_start()).and_then(|(name, value)| {
                let refused = fields::refused_to_images(&name).or_else(|| taken(&name));
                if let Some(why) = refused {
                    return Err(format!("`{name}` cannot be set here: it {why}"));
                }
                if !names.contains(&name) {
                    if names.len() >= MOST_NAMES {
                        return Err(format!(
                            "`{name}`: more than {MOST_NAMES} names of fields in one file"
                        ));
                    }
                    names.push(name.clone());
                }
                block.set(name, value)
            });
            if let Err(message) = read {
                faults.push(number, message);
            }
        }
        (Headers { blocks }, faults.finish())
    }

    /// The fields for a path (decoded, with its slash at the start), in order: what comes later replaces what came
    /// before.
    pub fn of(&self, path: &[u8]) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let matching = self.blocks.iter().filter(move |block| block.matches(path));
        matching.flat_map(|block| block.fields.iter())
    }
}

impl Block {
    fn parse(text: &str) -> Result<Block, String> {
        if !text.starts_with('/') {
            return Err(format!(
                "{text:?} is neither a path (start it with `/`) nor a field (indent it)"
            ));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!(
                "{text:?} holds a space, write `%20`; fields go below, indented"
            ));
        }
        let (before, rest) = match text.split_once('*') {
            None => (text, None),
            Some((_, after)) if after.contains('*') => {
                return Err(format!("{text:?} holds more than one `*`"));
            }
            Some((_, after)) if after.contains("/:") => {
                return Err(format!(
                    "{text:?}: placeholders stand before the `*`, which matches anything"
                ));
            }
            Some((before, after)) => (before, Some(suffix(after)?)),
        };
        Ok(Block {
            pattern: Pattern::parse(before)?,
            rest,
            fields: HeaderMap::new(),
        })
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), String> {
        let value = match self.fields.get(&name) {
            None => value,
            Some(there) => {
                let joined = [there.as_bytes(), b", ", value.as_bytes()].concat();
                if joined.len() > MOST_VALUE {
                    return Err(format!(
                        "`{name}`: its values are longer than {MOST_VALUE} bytes together"
                    ));
                }
                HeaderValue::from_bytes(&joined).map_err(|_| format!("`{name}`: odd value"))?
            }
        };
        self.fields.insert(name, value);
        Ok(())
    }

    fn matches(&self, path: &[u8]) -> bool {
        let left = self.pattern.strip(path, &mut Vec::new());
        match (left, &self.rest) {
            (None, _) => false,
            (Some(left), None) => left.is_empty(),
            (Some(left), Some(suffix)) => left.ends_with(suffix),
        }
    }
}

/// What follows a `*`: text, slashes included.
fn suffix(text: &str) -> Result<Vec<u8>, String> {
    let components: Result<Vec<_>, _> = text.split('/').map(literal).collect();
    Ok(components?.join(&b'/'))
}

fn field(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Some((name, value)) = line.split_once(':') else {
        return Err(format!("{line:?} is not a field, write `Name: value`"));
    };
    let value = value.trim_matches([' ', '\t']);
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(format!(
            "{name:?} is not the name of a field, write `Name: value`"
        ));
    };
    if value.len() > MOST_VALUE {
        return Err(format!(
            "`{parsed}`: its value is longer than {MOST_VALUE} bytes"
        ));
    }
    match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(value) if !value.is_empty() => Ok((parsed, value)),
        Ok(_) => Err(format!("`{parsed}` has no value")),
        Err(_) => Err(format!("`{parsed}`: its value holds a control character")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Headers, Vec<usize>) {
        let taken = |name: &HeaderName| (name == "x-frame-options").then_some("is taken");
        let (headers, faults) = Headers::parse(text.as_bytes(), taken);
        (headers, faults.iter().map(|fault| fault.line).collect())
    }

    fn of(headers: &Headers, path: &str) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers.of(path.as_bytes()) {
            map.insert(name, value.clone());
        }
        let mut all: Vec<String> = map
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn each_path_gets_the_fields_of_the_patterns_that_match_it() {
        let text = "# all\r\n/*\r\n  X-A: 1\r\n\tX-B: b: c\r\n\n/assets/*\n  X-A: 2\n  # note\n  X-A: 3\n/*.js\n  X-Js: y\n\
            /docs/:page/x\n  X-Page: y\n/exact\n  X-Exact: y\n";
        let (headers, faults) = parsed(text);
        assert_eq!(faults, [] as [usize; 0]);
        let table: &[(&str, &[&str])] = &[
            ("/", &["x-a=1", "x-b=b: c"]),
            ("/assets/", &["x-a=2, 3", "x-b=b: c"]),
            ("/assets", &["x-a=1", "x-b=b: c"]),
            ("/assets/deep/a.js", &["x-a=2, 3", "x-b=b: c", "x-js=y"]),
            ("/docs/a/x", &["x-a=1", "x-b=b: c", "x-page=y"]),
            ("/docs/a/b/x", &["x-a=1", "x-b=b: c"]),
            ("/exact", &["x-a=1", "x-b=b: c", "x-exact=y"]),
            ("/exact/", &["x-a=1", "x-b=b: c"]),
        ];
        for (path, wanted) in table {
            assert_eq!(of(&headers, path), *wanted, "{path}");
        }
    }

    #[test]
    fn a_bad_line_is_a_fault_and_the_others_hold() {
        let table = [
            ("  X-A: 1\n", 1),
            ("https://example.com/*\n  X-A: 1\n", 1),
            ("/a b\n  X-A: 1\n", 1),
            ("/a/*/b*\n  X-A: 1\n", 1),
            ("/*/:a\n  X-A: 1\n", 1),
            ("/../a\n  X-A: 1\n", 1),
            ("/:splat\n  X-A: 1\n", 1),
            ("/*/../a\n", 1),
            ("/a\n  no field\n", 2),
            ("/a\n  X A: 1\n", 2),
            ("/a\n  X-A:\n", 2),
            ("/a\n  X-A: \x01\n", 2),
            ("/a\n  Set-Cookie: a=b\n", 2),
            ("/a\n  SERVICE-WORKER-ALLOWED: /\n", 2),
            ("/a\n  Transfer-Encoding: chunked\n", 2),
            ("/a\n  X-Accel-Redirect: /internal\n", 2),
            ("/a\n  X-Frame-Options: DENY\n", 2),
        ];
        for (text, line) in table {
            let text = format!("{text}/ok\n  X-Ok: 1\n");
            let (headers, faults) = parsed(&text);
            assert_eq!(faults, [line], "{text:?}");
            assert_eq!(of(&headers, "/ok"), ["x-ok=1"], "{text:?}");
            assert!(of(&headers, "/a").is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_value_cannot_become_another_field() {
        // A bare CR is no end of a line, and no part of a value.
        let (headers, faults) = parsed("/a\n  X-A: 1\rSet-Cookie: x\n");
        assert_eq!(faults, [2]);
        assert!(of(&headers, "/a").is_empty());
    }

    #[test]
    fn rules_are_bounded() {
        let blocks: String = (0..MOST_BLOCKS + 5)
            .map(|number| format!("/{number}\n X-A: 1\n"))
            .collect();
        let (headers, faults) = parsed(&blocks);
        assert_eq!(headers.blocks.len(), MOST_BLOCKS);
        assert_eq!(faults, [2 * MOST_BLOCKS + 1]);
        let names: String = (0..MOST_NAMES + 5)
            .map(|number| format!(" X-{number}: 1\n"))
            .collect();
        let (headers, faults) = parsed(&format!("/*\n{names}"));
        assert_eq!(of(&headers, "/").len(), MOST_NAMES);
        assert_eq!(faults.len(), 5);
        let long = format!("/*\n X-A: {}\n", "a".repeat(MOST_VALUE + 1));
        assert_eq!(parsed(&long).1, [2]);
        let many = format!("/*\n{}", " X-A: aaaaaaaaaaaaaaaaaaaa\n".repeat(1000));
        let (headers, faults) = parsed(&many);
        assert!(of(&headers, "/")[0].len() < MOST_VALUE + 10);
        assert_eq!(faults.len(), super::super::MOST_FAULTS + 1);
    }
}
