//! `config.example.yaml` says what the types say: every key, with its default.

use blobserve::config::{self, Config, HostConfig, Mode};
use blobserve::reference::{Reference, Repository};
use std::collections::BTreeSet;
use std::path::Path;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.yaml");

fn example() -> String {
    std::fs::read_to_string(FILE).expect("config.example.yaml")
}

fn read(text: &str) -> Config {
    match config::parse(text, FILE, Mode::Serve) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{error}"),
    }
}

/// The line without the `#` before a key; prose has a space behind its `#`.
fn uncommented(line: &str) -> String {
    let text = line.trim_start();
    match text.strip_prefix('#') {
        Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => {
            format!("{}{key}", &line[..line.len() - text.len()])
        }
        _ => line.to_owned(),
    }
}

fn all_uncommented() -> String {
    example()
        .lines()
        .map(|line| uncommented(line) + "\n")
        .collect()
}

/// The paths of the keys in the text, by indentation; names of the user's choice as `*`.
fn paths(text: &str) -> Vec<String> {
    let mut stack: Vec<(usize, String)> = Vec::new();
    let mut paths = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        let Some((key, _)) = line.split_once(':') else {
            continue;
        };
        let indentation = key.len() - key.trim_start().len();
        stack.retain(|(above, _)| *above < indentation);
        let parent = stack
            .last()
            .map(|(_, path)| path.clone())
            .unwrap_or_default();
        let path = match parent.as_str() {
            "" => key.trim().to_owned(),
            "blobserve.registries" | "blobserve.repos" | "blobserve.hosts" => format!("{parent}.*"),
            _ => format!("{parent}.{}", key.trim()),
        };
        stack.push((indentation, path.clone()));
        paths.push(path);
    }
    paths
}

#[test]
fn every_key_of_the_schema_stands_once_in_its_place() {
    let paths = paths(&all_uncommented());
    let stands: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    assert_eq!(stands.len(), paths.len(), "a key stands twice: {paths:?}");
    let known = config::known_keys();
    let (elements, keys): (Vec<_>, Vec<_>) = known.iter().partition(|key| key.contains("[]"));
    let names = [
        "blobserve.registries.*",
        "blobserve.repos.*",
        "blobserve.hosts.*",
    ];
    let wanted: BTreeSet<&str> = keys.into_iter().map(String::as_str).chain(names).collect();
    assert_eq!(stands, wanted);
    // Elements of lists have no default, so they stand in the prose above their list.
    let example = example();
    let lines: Vec<&str> = example
        .lines()
        .map(|line| line.trim_start().trim_start_matches(['#', ' ', '-']))
        .collect();
    assert!(elements.len() >= 5, "{elements:?}");
    for path in elements {
        let (list, key) = path.split_once("[].").expect("an element's key");
        let list = list.rsplit('.').next().expect("a list's key");
        let end = lines
            .iter()
            .position(|line| line.starts_with(&format!("{list}:")))
            .expect("the list");
        let above = &lines[end.saturating_sub(4)..end];
        assert!(
            above
                .iter()
                .any(|line| line.starts_with(&format!("{key}:"))),
            "{path} is not shown: {above:?}"
        );
    }
}

#[test]
fn the_values_behind_a_hash_are_the_defaults() {
    assert_eq!(read(&all_uncommented()), read(&example()));
    // Equal defaults by luck are none: each such line is read, so nonsense in it is an error.
    let example = example();
    let lines: Vec<&str> = example.lines().collect();
    let mut hidden = 0;
    for (number, line) in lines.iter().enumerate() {
        let open = uncommented(line);
        if open == *line {
            continue;
        }
        hidden += 1;
        let (key, _) = open.split_once(':').expect("a key");
        let wrong = format!("{key}: {{nonsense: 1}}");
        let text: Vec<&str> = (0..lines.len())
            .map(|at| {
                if at == number {
                    wrong.as_str()
                } else {
                    lines[at]
                }
            })
            .collect();
        let result = config::parse(&text.join("\n"), FILE, Mode::Serve);
        assert!(result.is_err(), "line {}: {line}: is not read", number + 1);
    }
    assert!(hidden > 25, "{hidden} keys stand behind a #");
}

#[test]
fn only_the_demonstration_differs_from_the_defaults() {
    let example = read(&example());
    let mut expected = read("");
    let (site, demo) = (
        Repository::parse("demo.localhost/site").expect("a name"),
        "demo.localhost",
    );
    let directory = Path::new(FILE).parent().expect("a directory");
    expected.blob_space.location = directory.join(".cache/blobserve");
    expected.repos.entry(site.clone()).or_default().workdir = Some("/srv/site".into());
    expected.repos.entry(site).or_default().pre_pull = vec!["v1".into()];
    expected.registries.entry(demo.into()).or_default().layout =
        Some(directory.join("demo/layout"));
    let host = HostConfig {
        reference: Reference::parse("demo.localhost/site:v1").expect("a reference"),
        workdir: None,
        listing: None,
        cache: None,
        site: None,
        encodings: None,
        repr_digest: None,
    };
    expected.hosts.insert("site.localhost".into(), host);
    assert_eq!(example, expected);
}

#[test]
fn it_is_read_without_a_warning() {
    let loaded =
        config::load(Path::new(FILE), Mode::Serve).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}
