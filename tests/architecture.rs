//! The rules between the modules, as ARCHITECTURE.md states them, held against the source text.
//!
//! Every path that non-test code names (`use` trees unfolded, `super` and `self` resolved) is
//! looked at; comments and strings are not. Test code (`#[cfg(test)]`, `tests.rs`) may name anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest that a source file may be, in lines.
const MOST_LINES: usize = 600;

/// What a module may name of this crate, and what it must not name of others (prefixes of paths).
/// A module that is not listed (`cli`, `service`, `admin`, `shutdown`) puts the parts together.
struct Rule {
    module: &'static str,
    may_name: &'static [&'static str],
    must_not_name: &'static [&'static str],
    because: &'static str,
}

/// Everything that reaches beyond this process by network, or needs a reactor.
const OUTSIDE: &[&str] = &[
    "tokio",
    "axum",
    "hyper",
    "hyper_util",
    "reqwest",
    "socket2",
    "std::net",
];
/// HTTP, on either side.
const PROTOCOL: &[&str] = &["axum", "hyper", "hyper_util", "http", "reqwest", "std::net"];

const RULES: &[Rule] = &[
    Rule {
        module: "digest",
        may_name: &[],
        must_not_name: OUTSIDE,
        because: "vocabulary is pure",
    },
    Rule {
        module: "reference",
        may_name: &["digest"],
        must_not_name: OUTSIDE,
        because: "vocabulary is pure",
    },
    Rule {
        module: "oci",
        may_name: &["digest", "reference"],
        must_not_name: OUTSIDE,
        because: "vocabulary is pure",
    },
    Rule {
        module: "rules",
        may_name: &["digest"],
        must_not_name: OUTSIDE,
        because: "rules of an image are read and matched without any effect",
    },
    Rule {
        module: "config",
        may_name: &["digest", "reference", "oci", "rules"],
        must_not_name: &["tokio", "axum", "hyper", "reqwest"],
        because: "a configuration is read once, by `check` too, which starts nothing",
    },
    Rule {
        module: "pack",
        may_name: &["digest"],
        must_not_name: OUTSIDE,
        because: "a pack never opens a socket, and knows no reactor and no HTTP",
    },
    Rule {
        module: "merge",
        may_name: &["digest", "pack"],
        must_not_name: OUTSIDE,
        because: "indexes are merged without network or disk layout",
    },
    Rule {
        module: "modify",
        may_name: &["config", "digest", "merge", "pack"],
        must_not_name: OUTSIDE,
        because: "rules turn one pack into another, without network or disk layout",
    },
    Rule {
        module: "encode",
        may_name: &[],
        must_not_name: OUTSIDE,
        because: "bytes become other bytes",
    },
    Rule {
        module: "unpack",
        may_name: &["config", "digest", "pack"],
        must_not_name: &[
            "tokio",
            "axum",
            "hyper",
            "reqwest",
            "std::net",
            "std::fs",
            "std::path",
        ],
        because: "unpacking reads a `Read` and writes a `Write`",
    },
    Rule {
        module: "archive",
        may_name: &["digest", "oci", "unpack"],
        must_not_name: OUTSIDE,
        because: "an archive is a file",
    },
    Rule {
        module: "registry",
        may_name: &["archive", "config", "digest", "metrics", "oci", "reference"],
        must_not_name: &["axum", "flate2", "memmap2", "tar"],
        because: "a registry knows nothing of tar and of our disk",
    },
    Rule {
        module: "blobspace",
        may_name: &["digest"],
        must_not_name: PROTOCOL,
        because: "the blobspace does not know what a pack contains nor where it came from",
    },
    Rule {
        module: "images",
        may_name: &[
            "blobspace",
            "config",
            "digest",
            "encode",
            "merge",
            "metrics",
            "modify",
            "oci",
            "pack",
            "reference",
            "registry",
            "rules",
            "unpack",
        ],
        must_not_name: PROTOCOL,
        because: "the facade knows no status code",
    },
    Rule {
        module: "http",
        may_name: &[
            "access_log",
            "config",
            "digest",
            "images",
            "metrics",
            "reference",
            "rules",
            "shutdown",
        ],
        must_not_name: &["reqwest", "std::fs", "std::path", "tokio::fs", "memmap2"],
        because: "HTTP sees no registry type and no disk path",
    },
    Rule {
        module: "access_log",
        may_name: &["config", "metrics"],
        must_not_name: &["tokio", "axum", "hyper", "reqwest"],
        because: "a line is put into a buffer, and a plain thread writes it",
    },
    Rule {
        module: "control",
        may_name: &["images"],
        must_not_name: &["axum", "hyper", "reqwest", "std::net"],
        because: "commands come by a Unix socket, and the catalogue carries them out",
    },
    Rule {
        module: "metrics",
        may_name: &["blobspace"],
        must_not_name: &["tokio", "axum", "hyper", "reqwest"],
        because: "a counter is an atomic operation",
    },
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/pack/mapping.rs"];

#[test]
fn every_module_names_only_what_its_rule_allows() {
    let mut faults = Vec::new();
    for rule in RULES {
        let files = sources()
            .into_iter()
            .filter(|source| source.module() == rule.module);
        let mut any = false;
        for source in files {
            any = true;
            faults.extend(source.paths().iter().filter_map(|path| {
                let fault = rule.fault(path)?;
                Some(format!(
                    "{}: `{path}`: {fault}: {}",
                    source.name, rule.because
                ))
            }));
        }
        assert!(
            any,
            "no file of module `{}`: rename it in the rules too",
            rule.module
        );
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn unsafe_stands_where_it_has_to() {
    let with: Vec<_> = sources()
        .into_iter()
        .filter(|source| {
            source
                .tokens
                .iter()
                .any(|token| token == "unsafe" || token == "unsafe_code")
        })
        .map(|source| source.name)
        .filter(|name| !UNSAFE.contains(&name.as_str()))
        .collect();
    assert!(
        with.is_empty(),
        "unsafe code in {with:?}, allowed in {UNSAFE:?}"
    );
}

#[test]
fn no_source_file_is_longer_than_a_few_screens() {
    let long: Vec<_> = files_below(&root().join("src"))
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:?}");
}

#[test]
fn every_dependency_has_a_reason_and_every_reason_a_dependency() {
    let map = read(&root().join("ARCHITECTURE.md"));
    let reasons: BTreeSet<String> = table(&map, "## Dependencies").into_iter().collect();
    let used = dependencies(&read(&root().join("Cargo.toml")));
    assert!(used.len() > 20, "the manifest was not understood: {used:?}");
    let unexplained: Vec<_> = used.difference(&reasons).collect();
    let gone: Vec<_> = reasons.difference(&used).collect();
    assert!(
        unexplained.is_empty(),
        "in Cargo.toml, without a line in ARCHITECTURE.md, Dependencies: {unexplained:?}"
    );
    assert!(
        gone.is_empty(),
        "in ARCHITECTURE.md, Dependencies, but not in Cargo.toml: {gone:?}"
    );
}

#[test]
fn every_module_is_on_the_map() {
    let map = read(&root().join("ARCHITECTURE.md"));
    let modules: BTreeSet<_> = sources()
        .iter()
        .map(|source| source.module().to_owned())
        .collect();
    let missing: Vec<_> = modules
        .iter()
        .filter(|module| !map.contains(&format!("`{module}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md does not name {missing:?}"
    );
}

impl Rule {
    /// What is wrong with naming `path`.
    fn fault(&self, path: &str) -> Option<String> {
        if let Some(inside) = path.strip_prefix("crate::") {
            let module = inside.split("::").next().unwrap_or_default();
            let allowed = module == self.module || self.may_name.contains(&module);
            return (!allowed).then(|| format!("`{}` may name {:?}", self.module, self.may_name));
        }
        let forbidden =
            |prefix: &&&str| path == **prefix || path.starts_with(&format!("{prefix}::"));
        let prefix = self.must_not_name.iter().find(forbidden)?;
        Some(format!("`{}` must not name `{prefix}`", self.module))
    }
}

/// The text of one file under `src`, as tokens without comments, strings and test code.
struct Source {
    /// From the root of the repository.
    name: String,
    tokens: Vec<String>,
}

impl Source {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let inside = self.name.trim_start_matches("src/");
        inside.split(['/', '.']).next().unwrap_or_default()
    }

    /// How many modules deep it is: 0 for lib.rs, 1 for `src/pack.rs`, 2 for `src/pack/tree.rs`.
    fn depth(&self) -> usize {
        match self.name.as_str() {
            "src/lib.rs" | "src/main.rs" => 0,
            name => name.matches('/').count(),
        }
    }

    /// Every path of two segments or more, absolute.
    fn paths(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if is_word(&self.tokens[at]) {
                at = self.path(at, &[], &mut found);
            } else {
                at += 1;
            }
        }
        found
    }

    /// Reads one path or `use` tree that starts at `at` under `prefix`; returns where it ends.
    fn path(&self, mut at: usize, prefix: &[String], found: &mut BTreeSet<String>) -> usize {
        let mut segments = prefix.to_vec();
        loop {
            match self.tokens.get(at).map(String::as_str) {
                Some("{") if !segments.is_empty() => {
                    at += 1;
                    while let Some(token) = self.tokens.get(at).filter(|token| *token != "}") {
                        at = if is_word(token) {
                            self.path(at, &segments, found)
                        } else {
                            at + 1
                        };
                    }
                    return at + 1;
                }
                Some(word) if is_word(word) => segments.push(word.to_owned()),
                // `*`, or the `<` of a type argument: the path up to here.
                _ => break,
            }
            at += 1;
            if self.tokens.get(at).is_some_and(|token| token == "::") {
                at += 1;
            } else {
                break;
            }
        }
        // `a as b` in a tree.
        while self.tokens.get(at).is_some_and(|token| token == "as") && !prefix.is_empty() {
            at += 2;
        }
        if let Some(path) = self.absolute(&segments) {
            found.insert(path);
        }
        at
    }

    fn absolute(&self, segments: &[String]) -> Option<String> {
        let up = segments
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let inside = &segments[up..];
        if up > 0 {
            return (up >= self.depth()).then(|| format!("crate::{}", inside.join("::")));
        }
        let first = segments.first()?;
        (first != "self" && segments.len() > 1).then(|| segments.join("::"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// All files of the library but those that hold tests.
fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    for path in files_below(&root.join("src")) {
        let name = path
            .strip_prefix(&root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        if !name.ends_with("/tests.rs")
            && !name.contains("/tests/")
            && name != "src/main.rs"
            && name != "src/lib.rs"
        {
            sources.push(Source {
                name,
                tokens: without_tests(&tokens(&read(&path))),
            });
        }
    }
    sources
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single characters; comments, literals and white space dropped.
fn tokens(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let next = rest.chars().next().expect("not at the end");
        at += if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else if next.is_alphanumeric() || next == '_' {
            let length = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !next.is_whitespace() {
                tokens.push(next.to_string());
            }
            next.len_utf8()
        };
    }
    tokens
}

/// Length of a comment that may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a string, raw string, byte string or character at the start of `text`.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            rest.starts_with('"') || (prefix.ends_with('r') && raw_hashes(rest).is_some())
        })
    });
    if let Some(prefix) = prefix {
        let body = &text[prefix.len()..];
        if prefix.ends_with('r') {
            let hashes = raw_hashes(body)?;
            let close = format!("\"{}", "#".repeat(hashes));
            let length = body[hashes + 1..].find(&close)?;
            return Some(prefix.len() + hashes + 1 + length + close.len());
        }
        return Some(prefix.len() + quoted(body, b'"')?);
    }
    let body = text.strip_prefix('b').unwrap_or(text);
    let mut chars = body.strip_prefix('\'')?.chars();
    // `'a` of a lifetime has no closing quote after one character.
    let is_character = chars.next()? == '\\' || chars.next()? == '\'';
    is_character
        .then(|| quoted(body, b'\''))?
        .map(|length| text.len() - body.len() + length)
}

/// Number of `#` between `r` and the quote.
fn raw_hashes(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    text[hashes..].starts_with('"').then_some(hashes)
}

/// Length of a literal with backslash escapes, quotes included.
fn quoted(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while *bytes.get(at)? != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    Some(at + 1)
}

/// Drops every item under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(MARK.len()).eq(MARK.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0usize;
        while at < tokens.len() {
            let token = tokens[at].as_str();
            at += 1;
            match token {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(token, "}" | ";") {
                break;
            }
        }
    }
    kept
}

/// Names under `[dependencies]` and `[dev-dependencies]`.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| inside) {
            let name = name.trim();
            if !name.starts_with(['#', ' ']) {
                names.insert(name.split('.').next().unwrap_or(name).to_owned());
            }
        }
    }
    names
}

/// First cells, without back quotes, of the first table under a heading. Several names may share a line.
fn table(text: &str, heading: &str) -> Vec<String> {
    let section = text
        .split_once(&format!("{heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading:?}"))
        .1;
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = rows.skip(2).filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| {
            cell.split(',')
                .map(|name| name.trim().trim_matches('`').to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The reader above, on text whose paths are known.
#[test]
fn paths_are_found_whatever_their_spelling() {
    let text = r###"
        //! crate::comment::A
        use crate::{digest::Digest, pack::{self, Pack as P, tree::*}};
        use super::super::registry::Blob;
        use super::sibling::Here;
        /* crate::block /* nested */ ::B */
        const S: &str = "crate::string::C \" crate::d";
        const R: &str = r#"crate::raw::"E"#;
        const C: (char, u8) = ('"', b'\'');
        fn f<'a>(x: &'a http::StatusCode) -> Vec<std::net::IpAddr> { tokio::spawn(crate::config::load()) }
        #[cfg(test)]
        mod tests { use crate::images::Images; fn g() { { crate::http::h() } } }
        fn after() { axum::serve() }
    "###;
    let source = Source {
        name: "src/blobspace/disk.rs".to_owned(),
        tokens: without_tests(&tokens(text)),
    };
    let found = source.paths();
    let expected = [
        "axum::serve",
        "crate::config::load",
        "crate::digest::Digest",
        "crate::pack::Pack",
        "crate::pack::self",
        "crate::pack::tree",
        "crate::registry::Blob",
        "http::StatusCode",
        "std::net::IpAddr",
        "tokio::spawn",
    ];
    assert_eq!(
        found.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn a_rule_reports_what_it_forbids_and_nothing_else() {
    let rules: BTreeMap<_, _> = RULES.iter().map(|rule| (rule.module, rule)).collect();
    for (module, path, allowed) in [
        ("pack", "crate::pack::tree::Tree", true),
        ("pack", "crate::registry::Blob", false),
        ("pack", "std::net::TcpStream", false),
        ("pack", "std::fs::File", true),
        ("images", "http::StatusCode::OK", false),
        ("images", "httpdate::parse", true),
        ("http", "std::path::Path", false),
        ("http", "http::StatusCode", true),
        ("blobspace", "crate::pack::Pack", false),
    ] {
        assert_eq!(
            rules[module].fault(path).is_none(),
            allowed,
            "{module} names {path}"
        );
    }
}
