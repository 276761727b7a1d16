//! Directories as pages and as JSON: readable and sortable without script, in light and dark; names of
//! any bytes are links that lead to them, and never markup.
//!
//! What a caller may rely on: [`Options`] are all that decides between two listings of one directory;
//! [`render`] is pure; every link is relative to the directory's URL, so it holds behind any proxy.
//! [`Listings`] renders off the reactor and remembers, in bounded memory.

pub(super) mod accept;
mod html;
mod json;
mod remembered;
mod time;

pub(super) use remembered::{Key, Listings, Rendered};

use std::cmp::Ordering;

/// `?sort=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    #[default]
    Name,
    Size,
    Modified,
}

/// `?format=`, or what Accept prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Format {
    Html,
    Json,
}

/// What the query of a request says of a directory. Keys and values that are not known say nothing, as the
/// page that a directory may have reads its own out of the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) format: Option<Format>,
    pub(super) download: Option<super::archive::Format>,
    pub(super) sort: Sort,
    pub(super) descending: bool,
    pub(super) integrity: bool,
}

impl Query {
    /// Of several values of one key, the last.
    pub(super) fn of(query: Option<&str>) -> Query {
        let mut found = Query::default();
        for part in query.unwrap_or_default().split('&') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("format", "html") => found.format = Some(Format::Html),
                ("format", "json") => found.format = Some(Format::Json),
                ("download", name) => {
                    found.download = super::archive::Format::named(name).or(found.download);
                }
                ("sort", "name") => found.sort = Sort::Name,
                ("sort", "size") => found.sort = Sort::Size,
                ("sort", "modified") => found.sort = Sort::Modified,
                ("order", "asc") => found.descending = false,
                ("order", "desc") => found.descending = true,
                ("integrity", "1") => found.integrity = true,
                _ => {}
            }
        }
        found
    }

    /// Asks for something of the directory itself, whatever page it has.
    pub(super) fn of_directory(&self) -> bool {
        self.format.is_some() || self.download.is_some()
    }
}

/// All that decides between two listings of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Options {
    pub(super) format: Format,
    pub(super) sort: Sort,
    pub(super) descending: bool,
    /// With the SRI of each file.
    pub(super) integrity: bool,
}

/// The directory that is listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    /// Cleaned, below the reference.
    pub(super) path: &'a [u8],
    /// Components between the reference and the end of the URL, as clients count them.
    pub(super) depth: usize,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Any bytes but NUL and slash.
    pub(super) name: Vec<u8>,
    pub(super) directory: bool,
    /// Bytes; nothing of directories.
    pub(super) length: u64,
    /// Seconds since 1970; None where the image does not say.
    pub(super) mtime: Option<i64>,
    /// `sha256-…` (W3C Subresource Integrity), where it was asked for.
    pub(super) integrity: Option<String>,
}

/// The listing's text. Directories come before files, in whatever order.
pub(super) fn render(directory: Directory<'_>, options: Options, lines: &mut [Line]) -> String {
    lines.sort_by(|a, b| order(a, b, options));
    match options.format {
        Format::Html => html::page(directory, options, lines),
        Format::Json => json::array(lines),
    }
}

/// Equal ones are in the order of their names, which are bytes.
fn order(a: &Line, b: &Line, options: Options) -> Ordering {
    let by_key = match options.sort {
        Sort::Name => a.name.cmp(&b.name),
        Sort::Size => a.length.cmp(&b.length),
        Sort::Modified => a.mtime.cmp(&b.mtime),
    };
    let by_key = match options.descending {
        true => by_key.reverse(),
        false => by_key,
    };
    let by_kind = b.directory.cmp(&a.directory);
    by_kind.then(by_key).then_with(|| a.name.cmp(&b.name))
}

/// The policy of the pages (<https://www.w3.org/TR/CSP3/>): they hold a style sheet, and nothing else is
/// loaded or run.
pub(super) fn policy() -> http::HeaderValue {
    html::policy()
}

/// If that is the policy of our pages: the same in a sandbox, for images that share an origin with others.
pub(super) fn sandboxed(policy: &http::HeaderValue) -> Option<http::HeaderValue> {
    html::sandboxed(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn line(name: &[u8], directory: bool, length: u64, mtime: Option<i64>) -> Line {
        Line {
            name: name.to_vec(),
            directory,
            length,
            mtime,
            integrity: None,
        }
    }

    #[test]
    fn directories_come_first_and_equal_ones_by_name() {
        let lines = [
            line(b"b", false, 1, Some(30)),
            line(b"a", false, 2, Some(10)),
            line(b"c", false, 1, None),
            line(b"z", true, 0, Some(20)),
            line(b"y", true, 0, Some(5)),
        ];
        for (sort, descending, names) in [
            (Sort::Name, false, "yzabc"),
            (Sort::Name, true, "zycba"),
            (Sort::Size, false, "yzbca"),
            (Sort::Size, true, "yzabc"),
            (Sort::Modified, false, "yzcab"),
            (Sort::Modified, true, "zybac"),
        ] {
            let options = Options {
                format: Format::Json,
                sort,
                descending,
                integrity: false,
            };
            let mut sorted = lines.to_vec();
            sorted.sort_by(|a, b| order(a, b, options));
            let found: Vec<u8> = sorted.iter().map(|line| line.name[0]).collect();
            assert_eq!(String::from_utf8(found).unwrap(), names, "{options:?}");
        }
    }

    #[test]
    fn a_query_says_what_it_says_and_no_more() {
        let table = [
            (None, Query::default()),
            (
                Some("v=1&format=xml&sort=&order=up&download="),
                Query::default(),
            ),
            (
                Some("format=json&integrity=1"),
                Query {
                    format: Some(Format::Json),
                    integrity: true,
                    ..Query::default()
                },
            ),
            (
                Some("sort=size&order=desc&format=html&sort=modified"),
                Query {
                    format: Some(Format::Html),
                    sort: Sort::Modified,
                    descending: true,
                    ..Query::default()
                },
            ),
            (
                Some("download=zip&download=rar"),
                Query {
                    download: Some(super::super::archive::Format::Zip),
                    ..Query::default()
                },
            ),
        ];
        for (query, expected) in table {
            assert_eq!(Query::of(query), expected, "{query:?}");
            let asks = expected.format.is_some() || expected.download.is_some();
            assert_eq!(Query::of(query).of_directory(), asks, "{query:?}");
        }
    }
}
