//! The members of a tar file as ranges of it, found by its headers alone.

use super::{ArchiveError, MOST_MEMBERS, MOST_NAME_BYTES};
use crate::unpack::tar::{Member, MemberKind, Parser, Receiver, TarError};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Links that lead to links.
const MOST_LINKS: usize = 8;
/// Bytes of one member's extension headers.
const HEADER_BYTES: usize = 1 << 20;

/// What a name stands for.
#[derive(Debug)]
enum Known {
    /// First byte, and behind the last.
    File(u64, u64),
    /// A name in the archive.
    Link(String),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members {
    known: HashMap<String, Known>,
    name_bytes: usize,
    /// Where the content of the member at hand begins.
    at: u64,
}

impl Members {
    /// Reads the headers of a tar file of so many bytes.
    pub(super) fn read(file: &File, size: u64) -> Result<Members, ArchiveError> {
        let (mut members, mut parser) = (Members::default(), Parser::new(HEADER_BYTES));
        let mut position = 0;
        let mut block = [0; BLOCK];
        while position < size {
            let read = block_at(file, &mut block, position)?;
            if position == 0 {
                compressed(&block[..read])?;
            }
            position += read as u64;
            members.at = position;
            parser.feed(&block[..read], &mut members).map_err(refused)?;
            if parser.is_at_end() || read < BLOCK {
                break;
            }
            let content = parser.skip_content();
            position = position.saturating_add(content);
            if position > size {
                let missing = position - size;
                let text = format!("is truncated: {missing} bytes are missing");
                return Err(ArchiveError::Refused(text));
            }
        }
        parser.finish().map_err(ArchiveError::Refused)?;
        Ok(members)
    }

    /// The range that a name stands for.
    pub(super) fn find(&self, name: &str) -> Result<Option<(u64, u64)>, ArchiveError> {
        let mut at = name;
        for _ in 0..=MOST_LINKS {
            match self.known.get(at) {
                None => return Ok(None),
                Some(Known::File(start, end)) => return Ok(Some((*start, *end))),
                Some(Known::Link(target)) => at = target,
            }
        }
        let text = format!("more than {MOST_LINKS} links from {name:?} on");
        Err(ArchiveError::Refused(text))
    }
}

impl Receiver for Members {
    type Error = ArchiveError;

    fn member(&mut self, member: &Member<'_>) -> Result<(), ArchiveError> {
        let shown = || {
            String::from_utf8_lossy(member.name)
                .escape_debug()
                .to_string()
        };
        let odd = |why: &str| Err(ArchiveError::Refused(format!("member `{}` {why}", shown())));
        let Some(name) = within("", member.name) else {
            return odd("leads out of it");
        };
        let known = match member.kind {
            MemberKind::File => Known::File(self.at, self.at.saturating_add(member.size)),
            MemberKind::Directory => return Ok(()),
            MemberKind::Special => return odd("is a device or a fifo"),
            MemberKind::HardLink => match within("", member.link) {
                Some(target) => Known::Link(target),
                None => return odd("is a link that leads out of it"),
            },
            MemberKind::Symlink => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                match within(directory, member.link) {
                    Some(target) => Known::Link(target),
                    None => return odd("is a link that leads out of it"),
                }
            }
        };
        let target = match &known {
            Known::Link(target) => target.len(),
            Known::File(..) => 0,
        };
        self.name_bytes = self.name_bytes.saturating_add(name.len() + target);
        if self.known.len() >= MOST_MEMBERS || self.name_bytes > MOST_NAME_BYTES {
            let text = format!(
                "has more than {MOST_MEMBERS} members, or more than {MOST_NAME_BYTES} bytes of names"
            );
            return Err(ArchiveError::Refused(text));
        }
        match self.known.entry(name) {
            Entry::Vacant(vacant) => drop(vacant.insert(known)),
            Entry::Occupied(_) => return odd("is there twice"),
        }
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// `path` below `directory`, without `.` and empty components. None: it is absolute, climbs above the
/// root, is empty or no UTF-8, which no name of an image archive is.
fn within(directory: &str, path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    if path.starts_with('/') {
        return None;
    }
    let mut components: Vec<&str> = Vec::new();
    for component in directory.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()?),
            name => components.push(name),
        }
    }
    // The root itself (`./`) is a directory, and no file's name.
    Some(components.join("/"))
}

fn refused(error: TarError<ArchiveError>) -> ArchiveError {
    match error {
        TarError::Refused(why) | TarError::Cap(why) => ArchiveError::Refused(why),
        TarError::Receiver(error) => error,
    }
}

fn block_at(file: &File, block: &mut [u8; BLOCK], position: u64) -> Result<usize, ArchiveError> {
    let mut filled = 0;
    while filled < BLOCK {
        match file.read_at(&mut block[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// By the magic number of what docker, podman and skopeo are piped through.
fn compressed(start: &[u8]) -> Result<(), ArchiveError> {
    let form = match start {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "bzip2",
        [0x04, 0x22, 0x4d, 0x18, ..] => "lz4",
        _ => return Ok(()),
    };
    Err(ArchiveError::Refused(format!(
        "is {form}-compressed, so that no part of it can be read alone: decompress it first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        for (directory, path, expected) in [
            ("", "index.json", Some("index.json")),
            ("", "./blobs//sha256/a", Some("blobs/sha256/a")),
            ("", "a/../b", Some("b")),
            ("", "../b", None),
            ("", "a/../../b", None),
            ("", "/etc/passwd", None),
            ("", "./", Some("")),
            ("one", "../two/layer.tar", Some("two/layer.tar")),
            ("one", "../../two", None),
            ("one", "/two", None),
        ] {
            assert_eq!(
                within(directory, path.as_bytes()).as_deref(),
                expected,
                "{directory} {path}"
            );
        }
        assert_eq!(within("", b"\xff"), None);
    }

    #[test]
    fn a_compressed_archive_is_told_by_its_first_bytes() {
        let table: [(&[u8], Option<&str>); 9] = [
            (b"\x1f\x8b\x08", Some("is gzip-compressed, ")),
            (b"\x28\xb5\x2f\xfd\x04", Some("is zstd-compressed, ")),
            (b"\xfd7zXZ\0\0\x04", Some("is xz-compressed, ")),
            (b"BZh91AY&SY", Some("is bzip2-compressed, ")),
            (b"\x04\x22\x4d\x18\x64", Some("is lz4-compressed, ")),
            (b"BZhello", None),
            (b"\xfd7zX", None),
            (b"index.json", None),
            (b"", None),
        ];
        for (start, expected) in table {
            let said = compressed(start).err().map(|error| error.to_string());
            let fits = match (&said, expected) {
                (Some(said), Some(words)) => {
                    said.starts_with(words) && said.ends_with("decompress it first")
                }
                (said, expected) => said.is_none() && expected.is_none(),
            };
            assert!(fits, "{start:?}: {said:?}");
        }
    }
}
