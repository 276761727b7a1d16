//! The pack: one immutable file that holds a layer. Contents of regular files in tar
//! order, then an index (path → kind, offset, length, mtime, mode, content hash), then a
//! footer with checksums and the format's version. Knows no tokio and no HTTP, and opens
//! no socket.
//!
//! A pack keeps the layer *as pushed*: every tar entry in order (entries that a later one
//! of the same layer replaced, and whiteouts, included), so that layers can be merged by
//! their indexes later; and a *tree*, the file system that this layer alone makes, which is
//! what [`Pack::lookup`] and [`Pack::resolve`] see. Links are index entries, resolved
//! inside the image; nothing on the host's file system can be reached through one.
//!
//! A *merged index* ([`Merger`]) is a pack without contents: the tree that several layers make, whose
//! ranges lie in the packs of those layers.

mod format;
mod kept;
mod mapping;
mod reader;
mod residency;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

pub(crate) use tree::{clean_into, shown};

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// Version of the format, part of every pack's name on disk.
pub const FORMAT_VERSION: u32 = 2;

/// What a tar entry or a node of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link; `link` is its target as written.
    Symlink = 3,
    /// Hard link; `link` is its target as written. In the tree it has the range, hash, mode of its target.
    HardLink = 4,
    /// Device, fifo or socket: never served, but it hides what a lower layer has there.
    Special = 5,
    /// `.wh.<name>`: hides the name in lower layers. Not in the tree.
    Whiteout = 6,
    /// `.wh..wh..opq`: hides the directory's content in lower layers. Not in the tree.
    Opaque = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::File,
            2 => Kind::Directory,
            3 => Kind::Symlink,
            4 => Kind::HardLink,
            5 => Kind::Special,
            6 => Kind::Whiteout,
            7 => Kind::Opaque,
            _ => return None,
        })
    }
}

/// One tar entry, in the order of the archive, as the parser hands it to the writer.
#[derive(Clone, Debug)]
pub struct EntryHeader<'a> {
    /// Cleaned path relative to the image's root: no leading or trailing slash, no empty, `.`
    /// or `..` component; empty for the root itself.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Link target as written, for links; the hidden name for whiteouts is in `path` (without `.wh.`).
    pub link: &'a [u8],
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970, may be negative.
    pub mtime: i64,
}

/// Writes a pack, front to back, in one pass. Nothing is readable until `finish` returned.
///
/// The tree that the entries make is the one that containerd makes of the same tar: parents
/// that are links are followed inside the root, missing parents are implied, a later entry
/// replaces an earlier one (with all below it; a directory over a directory keeps its
/// content), a hard link is the node that its target was at that time.
pub struct Writer<W>(writer::State<W>);

/// What a finished pack says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries in the archive's order.
    pub entries: u64,
    /// Bytes of file contents.
    pub content_bytes: u64,
    /// Bytes of the pack in all.
    pub pack_bytes: u64,
}

/// The blob that a pack was made from, verified; kept in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Digest of the compressed layer.
    pub digest: crate::digest::Digest,
    /// Bytes of the compressed layer.
    pub size: u64,
    /// Digest of the tar.
    pub diff_id: crate::digest::Digest,
}

/// Why a pack cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file is not a pack of this version, or a checksum does not match.
    #[error("not a usable pack: {0}")]
    Corrupt(String),
    /// More strings or entries than the format can hold (4 GiB of paths, 2^32 entries).
    #[error("layer does not fit the pack format: {0}")]
    TooLarge(String),
    /// The entries make no tree: a parent that is a file, a hard link to nothing, more than 40
    /// links. The layer is refused; nothing is wrong with the pack's file.
    #[error("{0}")]
    Layer(String),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<W: Write> Writer<W> {
    /// Starts a pack on an empty file. Writes come in pieces of 64 KiB or more, in order.
    pub fn new(out: W) -> Writer<W> {
        Writer(writer::State::new(out))
    }
    /// Starts an entry. For `Kind::File` the content follows by `content`, exactly `size` bytes.
    pub fn entry(&mut self, header: &EntryHeader<'_>, size: u64) -> Result<(), PackError> {
        self.0.entry(header, size)
    }
    /// Adds content to the entry that was started last.
    pub fn content(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.0.content(bytes)
    }
    /// Bytes of memory that the index holds so far, with those that `finish` adds.
    pub fn index_bytes(&self) -> u64 {
        self.0.index_bytes()
    }
    /// Writes index and footer. `origin` is kept as it is: whoever calls has verified it.
    pub fn finish(self, origin: &Origin) -> Result<(W, Summary), PackError> {
        self.0.finish(origin)
    }
}

/// Replays the logs of layers over each other, base first, and writes the tree that they make
/// as a merged index. See [`crate::merge`].
pub struct Merger {
    tree: tree::Tree,
    layers: u32,
}

impl Merger {
    /// No layer yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Merger {
        Merger {
            tree: tree::Tree::of_layers(),
            layers: 0,
        }
    }
    /// No layer yet, and layers below that are not here: what those can change is [`ResolveError::Below`].
    pub fn upper() -> Merger {
        Merger {
            tree: tree::Tree::of_upper_layers(),
            layers: 0,
        }
    }
    /// Adds a layer over those before. Its number, from 0, is [`Entry::source`].
    ///
    /// # Errors
    /// [`PackError::Layer`]: it cannot be applied over the lower ones (a hard link to nothing...).
    pub fn layer(&mut self, pack: &Pack) -> Result<(), PackError> {
        self.tree.next_layer()?;
        for entry in pack.log() {
            let replayed = self.tree.replay(&entry);
            if self.tree.is_unsure() {
                self.tree.forget();
                break;
            }
            replayed?;
        }
        if pack.poisoned() {
            return Err(PackError::Io(io::Error::other(
                "a page of a layer's index could not be read",
            )));
        }
        self.layers += 1;
        Ok(())
    }
    /// Bytes of memory held so far, with those that `finish` adds.
    pub fn index_bytes(&self) -> u64 {
        self.tree.bytes()
    }
    /// Writes the index. `origin` is kept as it is.
    pub fn finish<W: Write>(self, origin: &Origin, out: W) -> Result<(W, Summary), PackError> {
        writer::State::merged(out, self.tree, self.layers, origin)
    }
}

/// A pack, mapped into memory and ready to serve. Methods never panic and never read
/// outside the mapping, whatever the file holds.
pub struct Pack(reader::Reader);

/// A node of a pack's tree, or an entry of its log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Number of the record in the pack; stable.
    pub id: u32,
    /// What it is. A hard link to a file says `File` in the tree.
    pub kind: Kind,
    /// Path from the root, as [`EntryHeader::path`].
    pub path: &'a [u8],
    /// Link target as written.
    pub link: &'a [u8],
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Where the content starts in the pack.
    pub offset: u64,
    /// Bytes of content.
    pub length: u64,
    /// In a merged index: the number of the layer whose pack has the content; of a symbolic link, of the
    /// layer that has it. Else 0.
    pub source: u16,
    /// XXH3-128 of the content; makes the ETag.
    pub hash: u128,
}

/// Why a path does not lead to a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// No such path (or it goes through something that is not a directory).
    NotFound,
    /// More than 40 links on the way.
    TooManyLinks,
    /// Of an index over layers that are not here ([`Merger::upper`]): those decide.
    Below,
}

impl Pack {
    /// Maps a finished pack and checks footer and index checksum (not the contents).
    pub fn open(file: File) -> Result<Pack, PackError> {
        Ok(Pack(reader::Reader::open(file)?))
    }
    /// Looks a path of the tree up, following no link. One hash, one compare.
    pub fn lookup(&self, path: &[u8]) -> Option<Entry<'_>> {
        self.0.lookup(path)
    }
    /// Follows links, within the image's root, until a file, directory or special node.
    /// `..` in a link never leaves the root. The fast case is [`Pack::lookup`].
    pub fn resolve(&self, path: &[u8]) -> Result<Entry<'_>, ResolveError> {
        self.0.resolve(path)
    }
    /// Returns the node of the tree with that number.
    pub fn node(&self, id: u32) -> Option<Entry<'_>> {
        self.0.node(id)
    }
    /// The children of a directory, sorted by name (bytes).
    pub fn children(&self, directory: u32) -> impl Iterator<Item = Entry<'_>> {
        self.0.children(directory)
    }
    /// All nodes of the tree, in the order in which they came to be. The root is one of them.
    pub fn nodes(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.0.record_count()).filter_map(|id| self.0.node(id))
    }
    /// The layer's entries in the order of the archive, as pushed: replaced ones, whiteouts
    /// and opaque markers among them, implied directories not.
    pub fn log(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.0.record_count()).filter_map(|id| self.0.logged(id))
    }
    /// Entries of the layer's archive (the length of [`Pack::log`]).
    pub fn entries(&self) -> u64 {
        self.0.entry_count()
    }
    /// What the pack was made from; for a side pack, what its base was made from.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }
    /// Bytes of the index: records, table and strings.
    pub fn index_bytes(&self) -> u64 {
        self.0.index_len()
    }
    /// Of how many layers this is the merged index; 0 for a pack that holds its contents itself.
    pub fn sources(&self) -> usize {
        self.0.sources as usize
    }
    /// Whether the range lies within this pack's contents.
    pub fn holds(&self, offset: u64, length: u64) -> bool {
        self.0.holds(offset, length)
    }
    /// Why the layer makes no tree of its own: a hard link to a file of a lower layer. Its tree lacks
    /// what cannot be told; merging is for such layers.
    pub fn incomplete(&self) -> Option<String> {
        let entry = self.0.dangling()?;
        Some(format!(
            "hard link `{}` to `{}`: the target is not in this layer",
            shown(entry.path),
            shown(entry.link)
        ))
    }
    /// The whole mapping. A page that cannot be read poisons the pack (see [`Pack::poisoned`]).
    pub fn bytes(&self) -> &[u8] {
        self.0.mapping.bytes()
    }
    /// Whether all pages of the range were in memory within the last second, so that touching them
    /// does not block. False where the system cannot say. Asks the kernel once a second and region.
    pub fn resident(&self, offset: u64, length: u64) -> bool {
        self.0.resident(offset, length)
    }
    /// Reads the pages of the range in, and those beside them (blocking). Err when the disk cannot give them; poisons the pack.
    pub fn populate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.populate(offset, length)
    }
    /// Writes bytes of the pack to a socket or pipe, as many as it takes, and returns their number. Of a pack
    /// whose file is kept open the system copies no more than it must (`sendfile`); of others it copies
    /// from the mapping.
    ///
    /// # Errors
    /// Those of the far side and of the disk.
    pub fn send(&self, to: impl AsFd, offset: u64, length: u64) -> io::Result<u64> {
        self.0.send(to.as_fd(), offset, length)
    }
    /// True once a page of this mapping could not be read, or the file's end is no longer there
    /// (someone shortened it): what was read since may be zeros and must not be sent.
    pub fn poisoned(&self) -> bool {
        self.0.cut_short() || self.0.mapping.poisoned()
    }
    /// Checks every file's content hash. Slow; for packs that a crash of the machine may have torn.
    pub fn verify_contents(&self) -> Result<(), PackError> {
        self.0.verify_contents()
    }
}
