//! What each tar member becomes in the pack: names cleaned, whiteouts recognized (OCI image
//! specification, layer.md, "Whiteouts"), caps kept. Names are cleaned as containerd does:
//! lexically, and `..` stops at the root.

use super::UnpackError;
use super::memory::Memory;
use super::tar::{Member, MemberKind, Receiver};
use crate::config::Limits;
use crate::pack::{EntryHeader, Kind, PackError, Writer, clean_into, shown};
use std::io::Write;

/// Why an entry was not taken.
pub(super) enum Rejected {
    /// The layer is no good.
    Layer(String),
    /// A cap was passed: do not read on.
    Cap(String),
    /// Anything else that ends the unpacking.
    Fatal(UnpackError),
}

/// Hands members over to the pack's writer.
pub(super) struct Policy<'a, W> {
    writer: Writer<W>,
    limits: &'a Limits,
    memory: &'a Memory,
    entries: u64,
    path: Vec<u8>,
    /// Where a hard link leads, if entries are put below a directory.
    link: Vec<u8>,
    /// The directory that all entries lie below; empty: the root.
    below: Vec<u8>,
    /// Content of the current member is thrown away.
    skip: bool,
}

impl<'a, W: Write> Policy<'a, W> {
    pub(super) fn new(out: W, limits: &'a Limits, memory: &'a Memory) -> Policy<'a, W> {
        Policy {
            writer: Writer::new(out),
            limits,
            memory,
            entries: 0,
            path: Vec::new(),
            link: Vec::new(),
            below: Vec::new(),
            skip: false,
        }
    }

    /// Puts all entries below a directory, given by its clean path.
    pub(super) fn put_below(&mut self, directory: &[u8]) {
        self.below = directory.to_vec();
    }

    /// The layer is this file, of so many bytes that follow; nothing else.
    pub(super) fn file(&mut self, path: &[u8], size: u64) -> Result<(), Rejected> {
        let header = EntryHeader {
            path,
            kind: Kind::File,
            link: b"",
            mode: 0o644,
            mtime: 0,
        };
        self.writer.entry(&header, size).map_err(rejected)
    }

    pub(super) fn into_writer(self) -> Writer<W> {
        self.writer
    }
}

/// Sorts the writer's errors by whose fault they are.
pub(super) fn rejected(error: PackError) -> Rejected {
    match error {
        PackError::Io(error) => Rejected::Fatal(UnpackError::Write(error)),
        PackError::TooLarge(_) => Rejected::Cap(error.to_string()),
        PackError::Layer(why) => Rejected::Layer(why),
        PackError::Corrupt(_) => Rejected::Layer(error.to_string()),
    }
}

/// Puts a clean path below a directory, unless it lies there already (ORAS's directories name themselves in
/// each of their entries).
fn place(path: &mut Vec<u8>, below: &[u8]) {
    let rest = path.strip_prefix(below);
    if below.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
        return;
    }
    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
    path.splice(0..0, [below, slash].concat());
}

/// Splits a whiteout's name: (kind, hidden name). Err for names that hide nothing valid.
fn whiteout(name: &[u8]) -> Result<Option<(Kind, &[u8])>, ()> {
    match name.strip_prefix(b".wh.") {
        None => Ok(None),
        Some(b".wh..opq") => Ok(Some((Kind::Opaque, b""))),
        Some(b"" | b"." | b"..") => Err(()),
        Some(hidden) => Ok(Some((Kind::Whiteout, hidden))),
    }
}

impl<W: Write> Receiver for Policy<'_, W> {
    type Error = Rejected;

    fn member(&mut self, member: &Member<'_>) -> Result<(), Rejected> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Rejected::Cap(format!(
                "the layer has more than {} entries (limits.entries)",
                self.limits.entries
            )));
        }
        let cap = self.limits.path_bytes;
        if member.name.len() > cap || member.link.len() > cap {
            return Err(Rejected::Cap(format!(
                "entry `{}` has a path longer than {cap} bytes (limits.pathBytes)",
                shown(member.name)
            )));
        }
        self.path.clear();
        clean_into(&mut self.path, member.name);
        place(&mut self.path, &self.below);
        let kind = match member.kind {
            MemberKind::File => Kind::File,
            MemberKind::Directory => Kind::Directory,
            MemberKind::Symlink => Kind::Symlink,
            MemberKind::HardLink => Kind::HardLink,
            MemberKind::Special => Kind::Special,
        };
        // As containerd: whatever would replace the root is passed over.
        self.skip = self.path.is_empty() && kind != Kind::Directory;
        if self.skip {
            return Ok(());
        }
        let slash = memchr::memrchr(b'/', &self.path);
        let start = slash.map_or(0, |i| i + 1);
        let hides = whiteout(&self.path[start..]).map_err(|()| {
            Rejected::Layer(format!(
                "entry `{}` is not a valid whiteout",
                shown(member.name)
            ))
        })?;
        let (kind, link): (Kind, &[u8]) = match hides {
            // AUFS's own bookkeeping, which hides nothing.
            Some((Kind::Whiteout, hidden)) if hidden.starts_with(b".wh.") => {
                self.skip = true;
                return Ok(());
            }
            Some((kind, hidden)) => {
                let hidden = hidden.len();
                let from = self.path.len() - hidden;
                self.path.copy_within(from.., start);
                let end = if hidden == 0 {
                    slash.unwrap_or(0)
                } else {
                    start + hidden
                };
                self.path.truncate(end);
                self.skip = true;
                (kind, b"")
            }
            None if kind == Kind::HardLink && !self.below.is_empty() => {
                self.link.clear();
                clean_into(&mut self.link, member.link);
                place(&mut self.link, &self.below);
                (kind, &self.link)
            }
            None if matches!(kind, Kind::Symlink | Kind::HardLink) => (kind, member.link),
            None => (kind, b""),
        };
        let header = EntryHeader {
            path: &self.path,
            kind,
            link,
            mode: member.mode,
            mtime: member.mtime,
        };
        let size = if kind == Kind::File { member.size } else { 0 };
        self.writer.entry(&header, size).map_err(rejected)?;
        if !self.memory.fits(self.writer.index_bytes()) {
            let most = self.memory.limit();
            return Err(Rejected::Fatal(UnpackError::Memory(most)));
        }
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<(), Rejected> {
        if self.skip {
            return Ok(());
        }
        self.writer.content(bytes).map_err(rejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_within_the_root() {
        let table = [
            ("a/b", "a/b"),
            ("/a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("a/../b", "b"),
            ("../../b", "b"),
            ("a/b/../../..", ""),
            ("./", ""),
            ("...", "..."),
        ];
        for (name, expected) in table {
            let mut out = Vec::new();
            clean_into(&mut out, name.as_bytes());
            assert_eq!(out, expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn entries_of_a_directory_lie_below_it() {
        for (path, below, expected) in [
            ("a/b", "", "a/b"),
            ("docs/a", "docs", "docs/a"),
            ("docs", "docs", "docs"),
            ("docs2/a", "docs", "docs/docs2/a"),
            ("a", "x/docs", "x/docs/a"),
            ("", "docs", "docs"),
        ] {
            let mut placed = path.as_bytes().to_vec();
            place(&mut placed, below.as_bytes());
            assert_eq!(placed, expected.as_bytes(), "{path} below {below}");
        }
    }

    #[test]
    fn whiteouts_name_what_they_hide() {
        assert_eq!(whiteout(b"a"), Ok(None));
        assert_eq!(whiteout(b".wh.a"), Ok(Some((Kind::Whiteout, &b"a"[..]))));
        assert_eq!(
            whiteout(b".wh..wh..opq"),
            Ok(Some((Kind::Opaque, &b""[..])))
        );
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(whiteout(name), Err(()));
        }
    }
}
