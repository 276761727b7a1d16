//! `replacements`: literal search and replace in files of a layer, into a side pack.
//! Pure of network: reads the base tree, writes a pack of the modified files only.
//!
//! A rule's path is relative to the layer's root, and links on it are followed inside the
//! image. Rules run one after another, each on the result of those before it. Since the side pack
//! holds tree paths, a caller looks a resolved node's path up there before it serves the base's bytes.

use crate::config::Replacement;
use crate::digest::Digest;
use crate::merge::Tree;
use crate::pack::{Entry, EntryHeader, Kind, Pack, PackError, Summary, Writer};
use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Deref;

/// The replacements of one repository, in order.
#[derive(Clone, Debug)]
pub struct Rules(Vec<Replacement>);

/// A file's content by where it lies in the base (layer, offset, length): the same for all its hard links.
type Range = (u16, u64, u64);

impl Rules {
    /// None when there are no replacements.
    pub fn new(replacements: &[Replacement]) -> Option<Rules> {
        (!replacements.is_empty()).then(|| Rules(replacements.to_vec()))
    }
    /// Names the rules: equal rules, equal fingerprint (128 bits of SHA-256, hex). Part of the side pack's key.
    pub fn fingerprint(&self) -> String {
        let mut text = b"blobserve replacements 1\n".to_vec();
        for rule in &self.0 {
            for part in [&rule.path, &rule.search, &rule.replacement] {
                text.extend_from_slice(&(part.len() as u64).to_le_bytes());
                text.extend_from_slice(part.as_bytes());
            }
        }
        let mut hex = Digest::sha256(&text).hex();
        hex.truncate(32);
        hex
    }
    /// Bytes of memory that [`Rules::apply`] needs where files do not grow to more than twice their size.
    pub fn memory<P: Deref<Target = Pack>>(&self, base: &Tree<P>) -> u64 {
        let paths = self.0.iter().map(|rule| rule_path(&rule.path));
        let files = paths.filter_map(|path| base.resolve(&path).ok());
        let files: HashMap<Range, u64> = files.map(|file| (range(&file), file.length)).collect();
        files.values().fold(64 << 10, |sum: u64, length| {
            sum.saturating_add(length.saturating_mul(3))
        })
    }
    /// Writes a pack that holds the modified files, under every path of the tree that
    /// leads to the same content (hard links change together). Also returns one warning
    /// line for each rule whose file is missing; `workdir` helps to word it.
    ///
    /// # Errors
    /// [`PackError::TooLarge`]: more than `most_bytes` of memory would be held.
    pub fn apply<P: Deref<Target = Pack>, W: Write>(
        &self,
        base: &Tree<P>,
        workdir: Option<&str>,
        most_bytes: u64,
        out: W,
    ) -> Result<(W, Summary, Vec<String>), PackError> {
        let mut modified: HashMap<Range, Vec<u8>> = HashMap::new();
        let mut warnings = Vec::new();
        for rule in &self.0 {
            let file = base
                .resolve(&rule_path(&rule.path))
                .ok()
                .filter(|e| e.kind == Kind::File);
            let Some(file) = file else {
                warnings.push(missing(base, rule, workdir));
                continue;
            };
            if file.length == 0 {
                // Nothing to find; and the next file may begin where an empty one lies.
                continue;
            }
            let there = modified.remove(&range(&file));
            let others: u64 = modified.values().map(|content| content.len() as u64).sum();
            // As it was and as it is to be are held at once.
            let check = |now: u64, then: u64| match others.saturating_add(now).saturating_add(then)
            {
                held if held > most_bytes => Err(PackError::TooLarge(format!(
                    "replacements need more than {most_bytes} bytes of memory"
                ))),
                _ => Ok(()),
            };
            let now = there
                .as_ref()
                .map_or(file.length, |there| there.len() as u64);
            check(now, 0)?;
            let content = match there {
                Some(content) => content,
                None => content_of(base, &file)?.to_vec(),
            };
            let (search, replacement) = (rule.search.as_bytes(), rule.replacement.as_bytes());
            let then = length_after(&content, search, replacement);
            check(now, then)?;
            let replaced = replace(content, search, replacement);
            modified.insert(range(&file), replaced);
        }
        let mut writer = Writer::new(out);
        for node in base
            .nodes()
            .filter(|node| node.kind == Kind::File && node.length > 0)
        {
            let Some(content) = modified.get(&range(&node)) else {
                continue;
            };
            let header = EntryHeader {
                path: node.path,
                kind: Kind::File,
                link: b"",
                mode: node.mode,
                mtime: node.mtime,
            };
            writer.entry(&header, content.len() as u64)?;
            writer.content(content)?;
        }
        if base.poisoned() {
            return Err(PackError::Io(io::Error::other(
                "a page of the base pack could not be read",
            )));
        }
        let (out, summary) = writer.finish(&base.origin())?;
        Ok((out, summary, warnings))
    }
}

fn range(entry: &Entry<'_>) -> Range {
    (entry.source, entry.offset, entry.length)
}

fn content_of<'a, P: Deref<Target = Pack>>(
    base: &'a Tree<P>,
    entry: &Entry<'_>,
) -> Result<&'a [u8], PackError> {
    let outside = || PackError::Corrupt("a file lies outside the pack".to_owned());
    let holder = base.holder(entry).ok_or_else(outside)?;
    holder.populate(entry.offset, entry.length)?;
    base.content(entry).ok_or_else(outside)
}

fn rule_path(path: &str) -> Vec<u8> {
    path.trim_matches('/').as_bytes().to_vec()
}

fn missing(base: &Pack, rule: &Replacement, workdir: Option<&str>) -> String {
    let path = &rule.path;
    if let Some(workdir) = workdir
        .map(|dir| dir.trim_matches('/'))
        .filter(|dir| !dir.is_empty())
    {
        let longer = format!("{workdir}/{}", path.trim_start_matches('/'));
        let found = base.resolve(longer.as_bytes());
        if found.is_ok_and(|entry| entry.kind == Kind::File) {
            return format!(
                "replacements: no file `{path}` in the layer; paths are relative to the layer's root, did you mean `{longer}`?"
            );
        }
    }
    format!("replacements: no file `{path}` in the layer; nothing is replaced there")
}

/// Bytes of what [`replace`] returns.
fn length_after(content: &[u8], search: &[u8], replacement: &[u8]) -> u64 {
    if search.is_empty() {
        return content.len() as u64;
    }
    let count = memchr::memmem::find_iter(content, search).count() as u64;
    let kept = content.len() as u64 - count * search.len() as u64;
    kept.saturating_add(count.saturating_mul(replacement.len() as u64))
}

fn replace(content: Vec<u8>, search: &[u8], replacement: &[u8]) -> Vec<u8> {
    let finder = memchr::memmem::Finder::new(search);
    if search.is_empty() || finder.find(&content).is_none() {
        return content;
    }
    let mut out = Vec::with_capacity(content.len());
    let mut done = 0;
    for at in finder.find_iter(&content) {
        out.extend_from_slice(&content[done..at]);
        out.extend_from_slice(replacement);
        done = at + search.len();
    }
    out.extend_from_slice(&content[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str, search: &str, replacement: &str) -> Replacement {
        Replacement {
            path: path.into(),
            search: search.into(),
            replacement: replacement.into(),
        }
    }

    fn base() -> Pack {
        let mut writer = Writer::new(tempfile::tempfile().unwrap());
        let entries: &[(&str, Kind, &str, &str)] = &[
            ("www/index.html", Kind::File, "", "aXbXc"),
            ("www/hard.html", Kind::HardLink, "www/index.html", ""),
            ("www/other.html", Kind::File, "", "aXbXc"),
            ("www/empty", Kind::File, "", ""),
            ("site", Kind::Symlink, "/www", ""),
        ];
        for (path, kind, link, content) in entries {
            let header = EntryHeader {
                path: path.as_bytes(),
                kind: *kind,
                link: link.as_bytes(),
                mode: 0o644,
                mtime: 7,
            };
            writer.entry(&header, content.len() as u64).unwrap();
            writer.content(content.as_bytes()).unwrap();
        }
        Pack::open(
            writer
                .finish(&crate::pack::Origin {
                    digest: Digest::sha256(b""),
                    size: 0,
                    diff_id: Digest::sha256(b""),
                })
                .unwrap()
                .0,
        )
        .unwrap()
    }

    /// Applies the rules; returns (path, content) of each file of the side pack, and the warnings.
    fn check(rules: &[Replacement], expected: &[(&str, &str)]) -> Vec<String> {
        let rules = Rules::new(rules).unwrap();
        let out = tempfile::tempfile().unwrap();
        let (file, _, warnings) = rules
            .apply(&Tree::of_layer(&base()), Some("/www"), 1 << 20, out)
            .unwrap();
        let pack = Pack::open(file).unwrap();
        let tree = Tree::of_layer(&pack);
        let got: Vec<(String, String)> = pack
            .nodes()
            .filter(|node| node.kind == Kind::File)
            .map(|node| {
                assert_eq!(node.mtime, 7);
                let content = content_of(&tree, &node).unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(node.path), text(content))
            })
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(p, c)| ((*p).to_owned(), (*c).to_owned()))
            .collect();
        assert_eq!(got, expected);
        warnings
    }

    #[test]
    fn hard_links_of_a_file_change_together_and_equal_files_do_not() {
        let both = [("www/index.html", "a--b--c"), ("www/hard.html", "a--b--c")];
        check(&[rule("www/index.html", "X", "--")], &both);
        check(&[rule("/www/hard.html", "X", "--")], &both);
    }

    #[test]
    fn no_more_memory_is_held_than_is_granted() {
        // Five bytes are held, and what they become.
        for (replacement, most, fits) in [
            ("", 8, true),
            ("", 7, false),
            ("1234567890", 28, true),
            ("1234567890", 27, false),
        ] {
            let rules = Rules::new(&[rule("www/other.html", "X", replacement)]).unwrap();
            let out = tempfile::tempfile().unwrap();
            let done = rules.apply(&Tree::of_layer(&base()), None, most, out);
            match done {
                Ok(_) => assert!(fits, "{replacement:?}, {most}"),
                Err(PackError::TooLarge(_)) => assert!(!fits, "{replacement:?}, {most}"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let both = [("www/index.html", "abc"), ("www/hard.html", "abc")];
        check(&[rule("site/index.html", "X", "")], &both);
    }

    #[test]
    fn rules_run_one_after_another_on_the_result() {
        let rules = [
            rule("www/other.html", "X", "YY"),
            rule("www/other.html", "YYb", "X"),
        ];
        check(&rules, &[("www/other.html", "aXYYc")]);
    }

    #[test]
    fn a_missing_file_is_a_warning_that_names_the_path_under_workdir() {
        let warnings = check(&[rule("other.html", "X", "Y"), rule("no", "X", "Y")], &[]);
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].contains("did you mean `www/other.html`"),
            "{}",
            warnings[0]
        );
        assert!(warnings[1].contains("`no`"), "{}", warnings[1]);
    }

    #[test]
    fn an_empty_file_stays_as_it_is() {
        assert!(check(&[rule("www/empty", "X", "Y")], &[]).is_empty());
    }

    #[test]
    fn the_fingerprint_is_frozen() {
        let rules = Rules::new(&[rule("a", "b", "c"), rule("d", "e", "")]).unwrap();
        assert_eq!(rules.fingerprint(), "a6c6f714ce276df4cc8ae8da133a8845");
        let swapped = Rules::new(&[rule("ab", "", "c"), rule("d", "e", "")]).unwrap();
        assert_ne!(rules.fingerprint(), swapped.fingerprint());
        assert!(Rules::new(&[]).is_none());
    }
}
