//! What is below a directory, in the order of an archive: each directory before what it holds, names by
//! their bytes.

use super::super::path::join;
use crate::images::{Child, DirectoryNode, FileNode, Node};
use crate::rules::Rules;
use std::io::{self, Write};
use std::vec::IntoIter;

/// Bytes of files in one archive.
const MOST_BYTES: u64 = 64 << 30;
/// Bytes of a path in it. Links make longer ones than an image may have.
const MOST_PATH: usize = 4096;
/// Bytes read in at a time.
const WINDOW: u64 = 256 << 10;

/// Why an archive is refused.
#[derive(Debug)]
pub(super) struct TooMuch(pub(super) String);

pub(super) struct Walk<'a> {
    /// The directory's path below the workdir.
    base: &'a [u8],
    rules: &'a Rules,
    /// Of the entry that was last given, below the directory.
    path: Vec<u8>,
    /// The directories that it lies in: length of the path, number, what is left of them.
    above: Vec<(usize, u32, IntoIter<Child>)>,
}

/// One of an archive.
pub(super) struct Entry {
    /// Any bytes; no slash at the end.
    pub(super) path: Vec<u8>,
    /// None: a directory.
    pub(super) file: Option<FileNode>,
    /// Seconds since 1970; 0 where the image does not say.
    pub(super) mtime: i64,
    /// Permission bits.
    pub(super) mode: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(directory: &DirectoryNode, base: &'a [u8], rules: &'a Rules) -> Walk<'a> {
        Walk {
            base,
            rules,
            path: Vec::new(),
            above: vec![(0, directory.number(), directory.children().into_iter())],
        }
    }

    /// Fails for an archive that would be too large.
    pub(super) fn measure(self, most_entries: u64) -> Result<(), TooMuch> {
        let (mut entries, mut bytes) = (0, 0u64);
        for entry in self {
            entries += 1;
            bytes = bytes.saturating_add(entry.file.as_ref().map_or(0, |file| file.length));
            let why = match () {
                () if entries > most_entries => format!("{most_entries} entries"),
                () if bytes > MOST_BYTES => format!("{MOST_BYTES} bytes of files"),
                () if entry.path.len() > MOST_PATH => format!("{MOST_PATH} bytes of a path"),
                () => continue,
            };
            let text = format!("the archive would hold more than {why}, ask for a directory below");
            return Err(TooMuch(text));
        }
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let (length, _, children) = self.above.last_mut()?;
            self.path.truncate(*length);
            let Some(child) = children.next() else {
                self.above.pop();
                continue;
            };
            self.path = join(&self.path, &child.name);
            if self.rules.hide(&join(self.base, &self.path)) {
                continue;
            }
            let file = match child.node {
                Node::File(file) => Some(file),
                Node::Directory(directory) => {
                    let number = directory.number();
                    if self.above.iter().any(|(_, above, _)| *above == number) {
                        continue;
                    }
                    let children = directory.children().into_iter();
                    self.above.push((self.path.len(), number, children));
                    None
                }
            };
            return Some(Entry {
                path: self.path.clone(),
                file,
                mtime: child.mtime.unwrap_or(0),
                mode: child.mode & 0o777,
            });
        }
    }
}

/// Writes a file's content.
pub(super) fn copy(
    file: &FileNode,
    mut out: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    while at < file.length {
        let window = at..file.length.min(at + WINDOW);
        if !file.resident(window.clone()) {
            file.populate(window.clone())?;
        }
        at = window.end;
        let bytes = file.slice(window);
        // Bytes of a page that cannot be read look like zeros, once they are touched.
        out(bytes)?;
        if file.poisoned() {
            return Err(io::Error::other("a page of the pack cannot be read"));
        }
    }
    Ok(())
}

/// All bytes of a directory's name in an archive: with a slash at its end.
pub(super) fn name(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.clone();
    if entry.file.is_none() {
        name.push(b'/');
    }
    name
}

/// Little-endian numbers, and whatever else makes a record.
pub(super) fn record(parts: &[&[u8]], out: &mut impl Write) -> io::Result<()> {
    parts.iter().try_for_each(|part| out.write_all(part))
}
