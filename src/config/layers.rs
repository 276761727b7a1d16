//! `repos.<name>.layers`: which layers of an image make the tree that is served.

use globset::{Glob, GlobMatcher};

/// See the module.
#[derive(Clone, Debug, Default)]
pub enum LayerSelection {
    /// The first one alone.
    #[default]
    First,
    /// All, merged as a runtime does.
    All,
    /// Those with these numbers, from 0, or from -1 counted from the last.
    Index(Vec<i64>),
    /// Those whose media type matches.
    MediaType(GlobMatcher),
    /// Those with this annotation, and this value if one is given.
    Annotation(String, Option<String>),
}

impl PartialEq for LayerSelection {
    fn eq(&self, other: &LayerSelection) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for LayerSelection {}

/// As it is written in the configuration.
impl std::fmt::Display for LayerSelection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LayerSelection::First => f.write_str("first"),
            LayerSelection::All => f.write_str("all"),
            LayerSelection::Index(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
                write!(f, "index={}", numbers.join(","))
            }
            LayerSelection::MediaType(glob) => write!(f, "mediaType={}", glob.glob()),
            LayerSelection::Annotation(name, None) => write!(f, "annotation={name}"),
            LayerSelection::Annotation(name, Some(value)) => {
                write!(f, "annotation={name}={value}")
            }
        }
    }
}

pub(super) fn parse(text: &str) -> Result<LayerSelection, String> {
    let unknown = || {
        Err(format!(
            "{text:?} selects no layers, write `first`, `all`, `index=0,-1`, `mediaType=GLOB` or `annotation=NAME=VALUE`"
        ))
    };
    match text.split_once('=') {
        None if text == "first" => Ok(LayerSelection::First),
        None if text == "all" => Ok(LayerSelection::All),
        Some(("index", numbers)) => {
            let numbers: Result<Vec<i64>, _> = numbers.split(',').map(str::parse).collect();
            match numbers {
                Ok(numbers) => Ok(LayerSelection::Index(numbers)),
                Err(_) => unknown(),
            }
        }
        Some(("mediaType", glob)) if !glob.is_empty() => match Glob::new(glob) {
            Ok(glob) => Ok(LayerSelection::MediaType(glob.compile_matcher())),
            Err(error) => Err(format!("{glob:?} is not a glob ({})", error.kind())),
        },
        Some(("annotation", rest)) if !rest.is_empty() => {
            let (name, value) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (rest, None),
            };
            Ok(LayerSelection::Annotation(name.to_owned(), value))
        }
        _ => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_written_as_it_is_read() {
        for text in [
            "first",
            "all",
            "index=0",
            "index=0,-1,3",
            "mediaType=application/vnd.*.tar+gzip",
            "annotation=org.example.kind",
            "annotation=org.example.kind=site=1",
        ] {
            let read = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "",
            "last",
            "index=",
            "index=a",
            "mediaType=",
            "mediaType=[",
            "annotation=",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
