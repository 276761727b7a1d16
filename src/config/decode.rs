//! Typed access to a tree that collects every fault instead of stopping at the first, each
//! with file, line, path, value and next step. Strict and lenient reading differ here only.

use super::tree::{Entry, Node, Value};
use super::{Mode, units};
use crate::digest::clipped;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Collects what is wrong and what is odd.
pub(super) struct Reader<'f> {
    file: &'f str,
    pub(super) mode: Mode,
    errors: Vec<(usize, String)>,
    warnings: Vec<(usize, String)>,
}

/// A map whose keys the schema knows.
pub(super) struct Section<'a> {
    path: String,
    /// Where it begins, for what is missing in it.
    pub(super) line: usize,
    keys: &'static [&'static str],
    found: Vec<(&'static str, &'a Entry)>,
}

/// A value that is there (a null is not), and its path.
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) line: usize,
    value: &'a Value,
}

impl<'f> Reader<'f> {
    pub(super) fn new(file: &'f str, mode: Mode) -> Reader<'f> {
        Reader {
            file,
            mode,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// All that was told to it, in the order of the text: errors, warnings.
    pub(super) fn finish(mut self) -> (Vec<String>, Vec<String>) {
        self.errors.sort_by_key(|(line, _)| *line);
        self.warnings.sort_by_key(|(line, _)| *line);
        let texts =
            |faults: Vec<(usize, String)>| faults.into_iter().map(|(_, text)| text).collect();
        (texts(self.errors), texts(self.warnings))
    }

    pub(super) fn error(&mut self, line: usize, path: &str, message: &str) {
        let text = self.line(line, path, message);
        self.errors.push((line, text));
    }

    pub(super) fn warn(&mut self, line: usize, path: &str, message: &str) {
        let text = self.line(line, path, message);
        self.warnings.push((line, text));
    }

    /// Wrong under `serve`, odd under `run`.
    pub(super) fn fault(&mut self, line: usize, path: &str, message: &str) {
        match self.mode {
            Mode::Serve => self.error(line, path, message),
            Mode::Run => self.warn(line, path, message),
        }
    }

    fn line(&self, line: usize, path: &str, message: &str) -> String {
        match path {
            "" => format!("{}:{line}: {message}", self.file),
            _ => format!("{}:{line}: {path}: {message}", self.file),
        }
    }

    /// Opens a map with the keys `keys`. `path` is what comes before its keys in messages, and
    /// `hint` says where an unknown key belongs, if anywhere.
    pub(super) fn section<'a>(
        &mut self,
        node: &'a Node,
        path: &str,
        keys: &'static [&'static str],
        hint: impl Fn(&str) -> Option<&'static str>,
    ) -> Section<'a> {
        let mut section = Section {
            path: path.to_owned(),
            line: node.line,
            keys,
            found: Vec::new(),
        };
        for entry in self.entries(&node.value, node.line, path) {
            let same = |key: &&&'static str| match self.mode {
                Mode::Serve => **key == entry.key,
                Mode::Run => key.eq_ignore_ascii_case(&entry.key),
            };
            let at = join(path, &entry.key);
            let Some(key) = keys.iter().find(same) else {
                let next = hint(&entry.key).map(|place| format!(", it belongs {place}"));
                let next = next.or_else(|| {
                    nearest(&entry.key, keys).map(|key| format!(", did you mean `{key}`?"))
                });
                let next = next.unwrap_or_else(|| format!(", known here: {}", keys.join(", ")));
                self.fault(entry.line, &at, &format!("unknown key{next}"));
                continue;
            };
            match section.found.iter_mut().find(|(found, _)| found == key) {
                Some((_, first)) => {
                    self.repeated(entry.line, &at, first.line);
                    *first = entry;
                }
                None => section.found.push((key, entry)),
            }
        }
        section
    }

    /// Says that a key comes twice; the last one is used, where that is allowed.
    pub(super) fn repeated(&mut self, line: usize, path: &str, first: usize) {
        self.fault(
            line,
            path,
            &format!("repeated, it is in line {first} too: keep one (the last counts under `run`)"),
        );
    }

    fn entries<'a>(&mut self, value: &'a Value, line: usize, path: &str) -> &'a [Entry] {
        match value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                self.error(
                    line,
                    path,
                    &format!("is {}, a map is expected", describe(other)),
                );
                &[]
            }
        }
    }

    /// The entries of a map with keys of the user's choice: what `name` makes of each, its path,
    /// its value. A name that comes twice, however it is written, is told; both entries are there.
    pub(super) fn named<'a, K: Clone + Eq + Hash>(
        &mut self,
        field: Option<Field<'a>>,
        name: impl Fn(&str) -> Result<K, String>,
    ) -> Vec<(K, String, &'a Node)> {
        let (mut named, mut lines) = (Vec::new(), HashMap::new());
        let Some(field) = field else {
            return named;
        };
        for entry in self.entries(field.value, field.line, &field.path) {
            let path = join(&field.path, &entry.key);
            let name = match name(&entry.key) {
                Ok(name) => name,
                Err(message) => {
                    self.error(entry.line, &path, &message);
                    continue;
                }
            };
            if let Some(first) = lines.insert(name.clone(), entry.line) {
                self.repeated(entry.line, &path, first);
            }
            named.push((name, path, &entry.value));
        }
        named
    }

    /// The elements of a list, each with its path.
    pub(super) fn list<'a>(&mut self, field: Option<Field<'a>>) -> Vec<(String, &'a Node)> {
        let Some(field) = field else {
            return Vec::new();
        };
        let Value::List(list) = field.value else {
            self.error(
                field.line,
                &field.path,
                &format!("is {}, a list is expected", describe(field.value)),
            );
            return Vec::new();
        };
        let path = |(index, node)| (format!("{}[{index}]", field.path), node);
        list.iter().enumerate().map(path).collect()
    }

    /// A list of texts that `check` accepts, each as it returns it.
    pub(super) fn texts(
        &mut self,
        field: Option<Field<'_>>,
        check: impl Fn(&str) -> Result<String, String>,
    ) -> Vec<String> {
        let list = self.list(field).into_iter();
        let texts = list.filter_map(|(path, node)| {
            let field = Field {
                path,
                line: node.line,
                value: &node.value,
            };
            self.text(Some(field), &check)
        });
        texts.collect()
    }

    /// A text, by its path, that `check` accepts, as it returns it.
    pub(super) fn text_at<T>(
        &mut self,
        path: &str,
        node: &Node,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let field = Field {
            path: path.to_owned(),
            line: node.line,
            value: &node.value,
        };
        self.text(Some(field), check)
    }

    /// A text that `check` accepts, as it returns it.
    pub(super) fn text<T>(
        &mut self,
        field: Option<Field<'_>>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.value(field, "a text", |value| match value {
            Value::Text(text) => Some(check(text)),
            _ => None,
        })
    }

    /// Like [`Reader::text`], for what is as good as absent when empty: existing installations
    /// write empty texts, a person means something else.
    pub(super) fn word<T>(
        &mut self,
        field: Option<Field<'_>>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let field = field?;
        let empty = matches!(field.value, Value::Text(text) if text.is_empty());
        if empty && self.mode == Mode::Serve {
            self.error(
                field.line,
                &field.path,
                "is empty, give a value or remove the key",
            );
        }
        if empty {
            None
        } else {
            self.text(Some(field), check)
        }
    }

    pub(super) fn flag(&mut self, field: Option<Field<'_>>) -> Option<bool> {
        self.value(field, "true or false", |value| match value {
            Value::Bool(value) => Some(Ok(*value)),
            _ => None,
        })
    }

    pub(super) fn number(
        &mut self,
        field: Option<Field<'_>>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(field, &wanted, |value| match value {
            Value::Number(text) => {
                let number = text.parse().ok().filter(|number| range.contains(number));
                Some(number.ok_or_else(|| format!("{text} is not {wanted}")))
            }
            _ => None,
        })
    }

    /// Bytes, from `least` on.
    pub(super) fn size(&mut self, field: Option<Field<'_>>, least: u64) -> Option<u64> {
        self.value(
            field,
            "a size like 1048576 or \"512MiB\"",
            |value| match value {
                Value::Number(text) | Value::Text(text) => Some(match units::bytes(text) {
                    Ok(size) if size < least => {
                        Err(format!("{text} is too small, {least} bytes at least"))
                    }
                    other => other,
                }),
                _ => None,
            },
        )
    }

    pub(super) fn duration(&mut self, field: Option<Field<'_>>) -> Option<Duration> {
        self.value(field, "a duration like \"5s\"", |value| match value {
            Value::Number(text) => Some(units::nanoseconds(text)),
            Value::Text(text) => Some(units::duration(text)),
            _ => None,
        })
    }

    /// `read`: None for another type than `wanted` says.
    fn value<T>(
        &mut self,
        field: Option<Field<'_>>,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<Result<T, String>>,
    ) -> Option<T> {
        let field = field?;
        let message = match read(field.value) {
            Some(Ok(value)) => return Some(value),
            Some(Err(message)) => message,
            None => {
                let quotes = matches!(
                    (field.value, wanted),
                    (Value::Number(_) | Value::Bool(_), "a text")
                );
                let next = if quotes { ": put it in quotes" } else { "" };
                format!("is {}, {wanted} is expected{next}", describe(field.value))
            }
        };
        self.error(field.line, &field.path, &message);
        None
    }
}

impl Field<'_> {
    /// `false`: where no flag is expected, that there is none of it.
    pub(super) fn is_false(&self) -> bool {
        matches!(self.value, Value::Bool(false))
    }
}

impl<'a> Section<'a> {
    /// The value of a key of this section's schema.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(
            self.keys.contains(&key),
            "`{key}` is missing in the schema of `{}`",
            self.path
        );
        let (_, entry) = self.found.iter().find(|(found, _)| *found == key)?;
        match &entry.value.value {
            Value::Null => None,
            value => Some(Field {
                path: join(&self.path, key),
                line: entry.line,
                value,
            }),
        }
    }

    /// The value of a key as a tree, null or not.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.found
            .iter()
            .find(|(found, _)| *found == key)
            .map(|(_, entry)| &entry.value)
    }

    /// The path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

/// `path.key`, the key in quotes where it is more than a word.
pub(super) fn join(path: &str, key: &str) -> String {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let key = match !key.is_empty() && key.bytes().all(word) {
        true => clipped(key),
        false => format!("{:?}", clipped(key)),
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

fn nearest(key: &str, keys: &[&'static str]) -> Option<&'static str> {
    // The distance costs the product of both lengths.
    if key.len() > 64 {
        return None;
    }
    let key = key.to_lowercase();
    let distance = |known: &&&'static str| strsim::damerau_levenshtein(&key, &known.to_lowercase());
    let known = keys.iter().min_by_key(distance)?;
    (distance(&known) <= known.len() / 3).then_some(*known)
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => format!("the number {}", clipped(text)),
        Value::Text(text) => format!("the text {:?}", clipped(text)),
        Value::List(_) => "a list".into(),
        Value::Map(_) => "a map".into(),
    }
}
