//! What a view shows: paths to files and directories, links followed inside the image,
//! modified files in place of the layer's own.

use super::ViewInfo;
use super::integrity::Place;
use crate::blobspace::{Lease, WeakLease};
use crate::merge::Tree;
use crate::pack::{Entry, Kind, Pack, ResolveError};
use bytes::Bytes;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

/// The files of one image, leased: valid as long as it is held. Cheap to make and to drop.
#[derive(Clone)]
pub struct View {
    /// Shared by all views of the reference.
    pub info: Arc<ViewInfo>,
    pub(super) base: Files,
    pub(super) modified: Option<Lease<Pack>>,
}

/// The tree of one layer or of several, with their packs leased.
pub(super) type Files = Tree<Lease<Pack>>;

/// [`Files`] without keeping the packs.
pub(super) struct KnownFiles {
    index: WeakLease<Pack>,
    layers: Option<Box<[WeakLease<Pack>]>>,
}

/// What a path leads to, links followed.
pub enum Node {
    /// A regular file.
    File(FileNode),
    /// A directory.
    Directory(DirectoryNode),
}

/// A regular file of a view.
pub struct FileNode {
    pub(super) pack: Lease<Pack>,
    pub(super) offset: u64,
    /// Bytes of content.
    pub length: u64,
    /// XXH3-128 of the content.
    pub hash: u128,
    /// Seconds since 1970; None when the file was modified by a replacement.
    pub mtime: Option<i64>,
}

/// A regular file, remembered without keeping its pack.
pub struct KnownFile {
    pack: WeakLease<Pack>,
    offset: u64,
    length: u64,
    hash: u128,
    mtime: Option<i64>,
}

/// A directory of a view.
pub struct DirectoryNode {
    view: View,
    id: u32,
}

/// What a directory holds, links followed (what leads nowhere or is not served is left out).
pub struct Child {
    /// File name, any bytes.
    pub name: Vec<u8>,
    /// What it is, or leads to.
    pub node: Node,
    /// Seconds since 1970; None where a replacement modified the file.
    pub mtime: Option<i64>,
    /// Permission bits.
    pub mode: u32,
}

impl View {
    /// Follows `path` (bytes, cleaned, relative to the image's root, not to the workdir).
    ///
    /// # Errors
    /// [`ResolveError::NotFound`] also for what is there and never served: devices, fifos, sockets.
    /// [`ResolveError::Below`] only from a view of upper layers, see [`super::Images::get_early`].
    pub fn find(&self, path: &[u8]) -> Result<Node, ResolveError> {
        let entry = self.base.resolve(path)?;
        match entry.kind {
            Kind::Directory => Ok(Node::Directory(DirectoryNode {
                view: self.clone(),
                id: entry.id,
            })),
            Kind::File => {
                let file = file(&self.base, self.modified.as_ref(), &entry);
                Ok(Node::File(file.ok_or(ResolveError::NotFound)?))
            }
            _ => Err(ResolveError::NotFound),
        }
    }

    /// A page of one of the packs could not be read: look-ups since may be wrong.
    pub fn poisoned(&self) -> bool {
        self.base.poisoned() || self.modified.as_ref().is_some_and(|pack| pack.poisoned())
    }

    /// Files that lie beside the file that `path` leads to, under its name and one of these suffixes; beside the
    /// link too, where the path is one. None for a modified file: what lies beside it was made of other bytes.
    pub fn beside<const N: usize>(
        &self,
        path: &[u8],
        suffixes: [&str; N],
    ) -> [Option<FileNode>; N] {
        let there = self.base.resolve(path).ok().filter(|it| !self.modifies(it));
        let Some(there) = there else {
            return suffixes.map(|_| None);
        };
        let names = self.names(path, &there);
        suffixes.map(|suffix| {
            let mut names = names.iter().flatten().map(|name| suffixed(name, suffix));
            names.find_map(|name| self.sidecar(&name, &there))
        })
    }

    /// Whether [`View::beside`] says what it would say with the layers that are still to come. Where
    /// none is here for a name, theirs makes no difference: it is of a lower layer than the file.
    pub fn decides_beside<const N: usize>(&self, path: &[u8], suffixes: [&str; N]) -> bool {
        let Ok(there) = self.base.resolve(path) else {
            return false;
        };
        let names = self.names(path, &there);
        suffixes.iter().all(|suffix| {
            let mut names = names.iter().flatten().map(|name| suffixed(name, suffix));
            names.all(|name| {
                let found = self.base.lookup(&name);
                !found.is_some_and(|it| it.kind == Kind::Symlink)
                    || self.base.resolve(&name).map(drop) != Err(ResolveError::Below)
            })
        })
    }

    /// What sidecars have before their suffix: the file's own path, and the one of the link to it.
    fn names(&self, path: &[u8], there: &Entry<'_>) -> [Option<Vec<u8>>; 2] {
        let link = (there.path != path).then(|| {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let (above, name) = match slash {
                Some(slash) => (&path[..slash], &path[slash + 1..]),
                None => (&[][..], path),
            };
            let mut link = self.base.resolve(above).ok()?.path.to_vec();
            if !link.is_empty() {
                link.push(b'/');
            }
            link.extend_from_slice(name);
            Some(link)
        });
        [Some(there.path.to_vec()), link.flatten()]
    }

    /// The file of that name, its parents being no links. Not one of a lower layer than the file that it is to
    /// stand for: it was made of what that was there.
    fn sidecar(&self, name: &[u8], of: &Entry<'_>) -> Option<FileNode> {
        let mut file = self.base.lookup(name).filter(|it| it.source >= of.source)?;
        if file.kind == Kind::Symlink {
            file = self.base.resolve(name).ok()?;
        }
        if file.kind != Kind::File || file.source < of.source || self.modifies(&file) {
            return None;
        }
        Some(FileNode::new(
            self.base.holder(&file)?,
            &file,
            Some(file.mtime),
        ))
    }

    fn modifies(&self, entry: &Entry<'_>) -> bool {
        let modified = self.modified.as_ref();
        modified.is_some_and(|pack| pack.lookup(entry.path).is_some())
    }
}

/// The file at a cleaned path from the image's root, links followed, as a view of these packs has it.
pub(super) fn file_at(
    base: &Files,
    modified: Option<&Lease<Pack>>,
    path: &[u8],
) -> Option<FileNode> {
    let entry = base.resolve(path).ok()?;
    (entry.kind == Kind::File).then(|| file(base, modified, &entry))?
}

/// None: its content is not where the index says, which no index of ours does.
fn file(base: &Files, modified: Option<&Lease<Pack>>, entry: &Entry<'_>) -> Option<FileNode> {
    let modified = modified.and_then(|pack| Some((pack, pack.lookup(entry.path)?)));
    match modified {
        Some((pack, entry)) => Some(FileNode::new(pack, &entry, None)),
        None => {
            let holder = base.holder(entry)?;
            Some(FileNode::new(holder, entry, Some(entry.mtime)))
        }
    }
}

impl KnownFiles {
    pub(super) fn of(files: &Files) -> KnownFiles {
        let layers = files.layers();
        KnownFiles {
            index: files.index().downgrade(),
            layers: layers.map(|layers| layers.iter().map(Lease::downgrade).collect()),
        }
    }

    /// None once one of the packs is evicted.
    pub(super) fn upgrade(&self) -> Option<Files> {
        let index = self.index.upgrade()?;
        match &self.layers {
            None => Some(Tree::of_layer(index)),
            Some(layers) => {
                let layers: Option<Arc<[_]>> = layers.iter().map(WeakLease::upgrade).collect();
                Tree::merged(index, layers?)
            }
        }
    }
}

impl FileNode {
    pub(super) fn new(pack: &Lease<Pack>, entry: &Entry<'_>, mtime: Option<i64>) -> FileNode {
        FileNode {
            pack: pack.clone(),
            offset: entry.offset,
            length: entry.length,
            hash: entry.hash,
            mtime,
        }
    }

    /// The content as shared bytes, without a copy. Panics if the range is not within `0..length`.
    pub fn bytes(&self, range: Range<u64>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "range outside of the file"
        );
        if range.is_empty() {
            return Bytes::new();
        }
        let start = to_index(self.offset + range.start);
        let end = to_index(self.offset + range.end);
        Bytes::from_owner(Slice {
            pack: self.pack.clone(),
            start,
            end,
        })
    }

    /// Where it lies: the same for all views that show it.
    pub(super) fn place(&self) -> Place {
        Place {
            pack: self.pack.number(),
            offset: self.offset,
            length: self.length,
        }
    }

    /// The content, borrowed. Panics if the range is not within `0..length`.
    pub fn slice(&self, range: Range<u64>) -> &[u8] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "range outside of the file"
        );
        let start = to_index(self.offset + range.start);
        let end = to_index(self.offset + range.end);
        &self.pack.bytes()[start..end]
    }

    /// Writes a part of the content to a socket, as much as it takes; bytes sent. Copies nothing where the
    /// system can do without.
    ///
    /// # Errors
    /// Those of the socket and of the disk.
    pub fn send(&self, socket: impl AsFd, range: Range<u64>) -> std::io::Result<u64> {
        self.pack.send(
            socket,
            self.offset + range.start,
            range.end.saturating_sub(range.start),
        )
    }

    /// To be had again with [`KnownFile::get`].
    pub fn known(&self) -> KnownFile {
        KnownFile {
            pack: self.pack.downgrade(),
            offset: self.offset,
            length: self.length,
            hash: self.hash,
            mtime: self.mtime,
        }
    }

    /// Whether all pages of the range are in memory. See [`Pack::resident`].
    pub fn resident(&self, range: Range<u64>) -> bool {
        self.pack
            .resident(self.offset + range.start, range.end - range.start)
    }

    /// Reads the range's pages in. Blocking. See [`Pack::populate`].
    pub fn populate(&self, range: Range<u64>) -> std::io::Result<()> {
        self.pack
            .populate(self.offset + range.start, range.end - range.start)
    }

    /// A page could not be read: bytes read since may be zeros and must not be sent.
    pub fn poisoned(&self) -> bool {
        self.pack.poisoned()
    }
}

impl KnownFile {
    /// The file, while its pack is open and not evicted: a use of the pack.
    pub fn get(&self) -> Option<FileNode> {
        Some(FileNode {
            pack: self.pack.upgrade()?,
            offset: self.offset,
            length: self.length,
            hash: self.hash,
            mtime: self.mtime,
        })
    }
}

impl DirectoryNode {
    /// Sorted by name (bytes).
    pub fn children(&self) -> Vec<Child> {
        self.view
            .base
            .children(self.id)
            .filter_map(|child| self.child(&child))
            .collect()
    }

    /// The same number, the same directory of the view.
    pub fn number(&self) -> u32 {
        self.id
    }

    /// See [`View::poisoned`].
    pub fn poisoned(&self) -> bool {
        self.view.poisoned()
    }

    fn child(&self, entry: &Entry<'_>) -> Option<Child> {
        let view = &self.view;
        let name = entry.path.rsplit(|byte| *byte == b'/').next()?.to_vec();
        let target = match entry.kind {
            Kind::Symlink => view.base.resolve(entry.path).ok()?,
            _ => *entry,
        };
        let (node, mtime) = match target.kind {
            Kind::Directory => {
                let directory = DirectoryNode {
                    view: view.clone(),
                    id: target.id,
                };
                (Node::Directory(directory), Some(target.mtime))
            }
            Kind::File => {
                let file = file(&view.base, view.modified.as_ref(), &target)?;
                let mtime = file.mtime;
                (Node::File(file), mtime)
            }
            _ => return None,
        };
        Some(Child {
            name,
            node,
            mtime,
            mode: target.mode,
        })
    }
}

fn suffixed(name: &[u8], suffix: &str) -> Vec<u8> {
    let mut name = name.to_vec();
    name.extend_from_slice(suffix.as_bytes());
    name
}

/// Part of a mapping, as an owner of bytes: keeps the lease while anyone holds the bytes.
struct Slice {
    pack: Lease<Pack>,
    start: usize,
    end: usize,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.pack.bytes()[self.start..self.end]
    }
}

/// Offsets of a mapping fit the address space: [`Pack::open`] checked them against its length.
fn to_index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
