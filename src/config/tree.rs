//! A configuration text as a tree that knows its lines. JSON is read as JSON, everything
//! else as YAML 1.2 (core schema). Aliases and tags are refused, so a tree is never larger
//! than its text.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Deepest nesting; the schema needs 7.
const DEPTH_MAX: usize = 32;

/// A value and where it begins.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text, repeated keys too.
    Map(Vec<Entry>),
}

#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key, from 1.
    pub(super) line: usize,
    pub(super) value: Node,
}

/// A line (from 1) and what is wrong there.
pub(super) type Fault = (usize, String);

/// Reads a whole text. `json`: the file says that it is JSON, which decides the words of an
/// error only.
pub(super) fn read(text: &str, json: bool) -> Result<Node, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with('{') {
        return yaml(text);
    }
    // JSON is nearly a subset of YAML: tabs and escaped surrogates are where it is not.
    let mut json_reader = Json {
        whole: text,
        offset: 0,
        line: 1,
    };
    match json_reader.node(text.trim_start(), 0) {
        Ok(node) => Ok(node),
        Err(fault) if json => Err(fault),
        Err(_) => yaml(text),
    }
}

fn yaml(text: &str) -> Result<Node, Fault> {
    let mut reader = Yaml {
        parser: Parser::new_from_str(text),
        last_line: 1,
    };
    let mut document = None;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            _ if document.is_some() => {
                return Err((
                    line,
                    "a second document begins here, one is read: remove the `---`".into(),
                ));
            }
            event => document = Some(reader.node(event, line, 0)?),
        }
    }
    Ok(document.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

struct Yaml<'a> {
    parser: Parser<'a, StrInput<'a>>,
    last_line: usize,
}

impl<'a> Yaml<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Fault> {
        match self.parser.next_event() {
            Some(Ok((event, Span { start, .. }))) => {
                self.last_line = start.line();
                Ok((event, start.line()))
            }
            Some(Err(error)) => Err((error.marker().line(), format!("not YAML: {}", error.info()))),
            None => Err((self.last_line, "not YAML: the text ends too early".into())),
        }
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, Fault> {
        if depth > DEPTH_MAX {
            return Err((line, format!("nested more than {DEPTH_MAX} deep")));
        }
        let value = match event {
            Event::Scalar(text, style, _, tag) => {
                untagged(tag.as_deref(), line)?;
                match style {
                    ScalarStyle::Plain => plain(text),
                    _ => Value::Text(text.into_owned()),
                }
            }
            Event::SequenceStart(_, tag) => {
                untagged(tag.as_deref(), line)?;
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(list),
                        (event, line) => list.push(self.node(event, line, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(_, tag) => {
                untagged(tag.as_deref(), line)?;
                let mut map = Vec::new();
                loop {
                    let (key, line) = match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(map),
                        (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                        (_, line) => return Err((line, "a key that is not a text".into())),
                    };
                    let (event, value_line) = self.next()?;
                    let value = self.node(event, value_line, depth + 1)?;
                    map.push(Entry { key, line, value });
                }
            }
            Event::Alias(_) => {
                return Err((
                    line,
                    "an alias (`*name`) is not supported: write the value out".into(),
                ));
            }
            event => return Err((line, format!("not YAML: unexpected {event:?}"))),
        };
        Ok(Node { line, value })
    }
}

fn untagged(tag: Option<&saphyr_parser::Tag>, line: usize) -> Result<(), Fault> {
    match tag {
        Some(tag) => Err((line, format!("a tag (`{tag}`) is not supported: remove it"))),
        None => Ok(()),
    }
}

/// YAML 1.2.2 §10.3.2, tag resolution of the core schema.
fn plain(text: Cow<'_, str>) -> Value {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        number if is_number(number) => Value::Number(text.into_owned()),
        _ => Value::Text(text.into_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let based = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix).is_some_and(|digits| {
            !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix))
        })
    };
    let special =
        matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    let begins = unsigned
        .strip_prefix('.')
        .unwrap_or(unsigned)
        .starts_with(|first: char| first.is_ascii_digit());
    special || based("0x", 16) || based("0o", 8) || begins && unsigned.parse::<f64>().is_ok()
}

/// One level of JSON: scalars, or keys with values that are still text.
enum Level<'a> {
    Scalar(Value),
    List(Vec<&'a RawValue>),
    Map(Vec<(String, &'a RawValue)>),
}

/// Reads JSON level by level: where a value lies in the whole text tells its line. Each level
/// is scanned again for the one below, so the work is the text's length times its depth.
struct Json<'a> {
    whole: &'a str,
    /// The place of the last line that was asked for, and that line: values come in order.
    offset: usize,
    line: usize,
}

impl<'a> Json<'a> {
    /// The line in which `part`, a slice of the whole, begins.
    fn line_of(&mut self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.whole.as_ptr() as usize);
        if let Some(passed) = self.whole.as_bytes().get(self.offset..offset) {
            self.line += passed.iter().filter(|byte| **byte == b'\n').count();
            self.offset = offset;
        }
        self.line
    }

    fn node(&mut self, part: &'a str, depth: usize) -> Result<Node, Fault> {
        let line = self.line_of(part);
        if depth > DEPTH_MAX {
            return Err((line, format!("nested more than {DEPTH_MAX} deep")));
        }
        let level = serde_json::from_str::<Level<'_>>(part).map_err(|error| {
            (
                line + error.line().saturating_sub(1),
                format!("not JSON: {error}"),
            )
        })?;
        let value = match level {
            Level::Scalar(value) => value,
            Level::List(list) => {
                let nodes = list.into_iter().map(|raw| self.node(raw.get(), depth + 1));
                Value::List(nodes.collect::<Result<_, _>>()?)
            }
            Level::Map(map) => {
                let entries = map.into_iter().map(|(key, raw)| {
                    let value = self.node(raw.get(), depth + 1)?;
                    Ok(Entry {
                        key,
                        line: value.line,
                        value,
                    })
                });
                Value::Map(entries.collect::<Result<_, Fault>>()?)
            }
        };
        Ok(Node { line, value })
    }
}

impl<'de> Deserialize<'de> for Level<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Level<'de>, D::Error> {
        deserializer.deserialize_any(LevelVisitor)
    }
}

struct LevelVisitor;

impl<'de> Visitor<'de> for LevelVisitor {
    type Value = Level<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Level<'de>, E> {
        Ok(Level::Scalar(Value::Null))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Level<'de>, E> {
        Ok(Level::Scalar(Value::Bool(value)))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Level<'de>, E> {
        Ok(Level::Scalar(Value::Number(value.to_string())))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Level<'de>, E> {
        Ok(Level::Scalar(Value::Number(value.to_string())))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Level<'de>, E> {
        Ok(Level::Scalar(Value::Number(value.to_string())))
    }
    fn visit_str<E>(self, value: &str) -> Result<Level<'de>, E> {
        Ok(Level::Scalar(Value::Text(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Level<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(raw) = access.next_element()? {
            list.push(raw);
        }
        Ok(Level::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Level<'de>, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Level::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree without lines, as JSON-like text.
    fn shape(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) => format!("#{text}"),
            Value::Text(text) => format!("{text:?}"),
            Value::List(list) => {
                format!("[{}]", list.iter().map(shape).collect::<Vec<_>>().join(","))
            }
            Value::Map(map) => {
                let entries = map
                    .iter()
                    .map(|entry| format!("{}={}", entry.key, shape(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn yaml_and_json_make_the_same_trees() {
        let table = [
            ("", "null"),
            ("# nothing\n", "null"),
            ("a: 1\nb: [x, '1', 2.5]\n", "{a=#1,b=[\"x\",\"1\",#2.5]}"),
            (
                "a:\nb: ~\nc: null\nd: ''\n",
                "{a=null,b=null,c=null,d=\"\"}",
            ),
            (
                "a: yes\nb: true\nc: 1.2.3\nd: 0x1F\ne: 5s\nf: 1e3\n",
                "{a=\"yes\",b=true,c=\"1.2.3\",d=#0x1F,e=\"5s\",f=#1e3}",
            ),
            (
                "a: |\n  x\n  y\nb: >-\n  x\n  y\n",
                "{a=\"x\\ny\\n\",b=\"x y\"}",
            ),
            ("a: 1\na: 2\n", "{a=#1,a=#2}"),
            ("\u{feff}a: 1", "{a=#1}"),
            ("{\"a\":1,\"a\":{\"b\":[]}}", "{a=#1,a={b=[]}}"),
            (
                "{\n\t\"a\":\t[\n\t\ttrue,\n\t\tnull\n\t],\n\t\"b\": -1.5\n}\n",
                "{a=[true,null],b=#-1.5}",
            ),
            ("{\"a\": \"\\ud83d\\ude00\\/\"}", "{a=\"😀/\"}"),
            ("{a: b, # flow\n c: [d]}", "{a=\"b\",c=[\"d\"]}"),
            (
                "{\"bytes\": 18446744073709551615}",
                "{bytes=#18446744073709551615}",
            ),
        ];
        for (text, wanted) in table {
            let node = read(text, false).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
            assert_eq!(shape(&node), wanted, "{text:?}");
        }
    }

    #[test]
    fn every_value_knows_its_line() {
        let yaml = "# top\na:\n  b: 1\n  c:\n    - x\n    - y\n";
        let json = "{\n\t\"a\": {\n\t\t\"b\": 1,\n\"c\": [\n\"x\",\n\"y\"]}}";
        for text in [yaml, json] {
            let Value::Map(top) = read(text, false).unwrap().value else {
                panic!("a map")
            };
            let Value::Map(a) = &top[0].value.value else {
                panic!("a map")
            };
            let Value::List(c) = &a[1].value.value else {
                panic!("a list")
            };
            assert_eq!(
                [top[0].line, a[0].line, a[1].line, c[0].line, c[1].line],
                [2, 3, 4, 5, 6],
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_where_it_stands() {
        let deep = "[".repeat(40);
        let table = [
            ("a: &x 1\nb: *x\n", false, 2, "alias"),
            ("a: !!str 1\n", false, 1, "tag"),
            ("a: 1\n---\nb: 1\n", false, 3, "second document"),
            ("? [a]\n: 1\n", false, 1, "key that is not a text"),
            ("a: [1\nb: 2\n", false, 2, "not YAML"),
            ("a: b: c\n", false, 1, "not YAML"),
            ("{\"a\": 1,\n \"b\": }", true, 2, "not JSON"),
            ("{\"a\": 1,\n \"b\": 2} x", true, 2, "not JSON"),
            ("{\"a\": 1,\n \"b\": 'x', ]", false, 2, "not YAML"),
            (&deep, false, 1, "nested more than 32 deep"),
        ];
        for (text, json, line, words) in table {
            let (at, message) = read(text, json).expect_err(text);
            assert!(
                at == line && message.contains(words),
                "{text:?}: line {at}: {message}"
            );
        }
    }

    #[test]
    fn a_laughing_text_costs_no_more_than_its_length() {
        let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (from, to) in ('a'..='y').zip('b'..='z') {
            text.push_str(&format!(
                "{to}: &{to} [{}*{from}]\n",
                format!("*{from}, ").repeat(8)
            ));
        }
        assert!(read(&text, false).is_err());
    }
}
