//! Layers over each other in one tree (OCI image specification, layer.md, "Applying
//! Changesets"): each layer's log is replayed over what the lower ones left.
//!
//! A whiteout hides what lower layers have, wherever in its archive it stands: what its own layer
//! has there stays. So every node knows the last layer that *touched* it, that is, made it or
//! something below it. Costs stay linear: a directory's list is swept once a layer, and
//! loses its dead records then.
//!
//! *Over layers that are not here* the tree has what those cannot change: a node of it is a node of the whole
//! tree, whatever is below. A directory that may have more in it is [`OPEN`]; a whiteout in an open
//! directory stays as a node, which says that nothing is there; a hard link whose target is not here is an open
//! node. What an entry does through a directory that is not in the tree could happen anywhere, if a lower
//! layer has a link there: its layer counts as one of those that are not here, and so do all below it.

use super::super::format::{IMPLICIT, LIVE, NONE, OPEN, Record};
use super::super::{Entry, EntryHeader, Kind, PackError};
use super::{Tree, check_lengths, new_record, tree_path};
use std::cell::Cell;
use zerocopy::little_endian::{U16, U32};

/// Which layer a node was last touched and swept by; layers count from 1.
#[derive(Clone, Copy)]
struct Mark {
    touched: u16,
    swept: u16,
}

/// Where the name of the directory ends that `path` lies in.
fn parent_end(path: &[u8]) -> usize {
    memchr::memrchr(b'/', path).unwrap_or(0)
}

/// What merging knows beside the tree.
pub(super) struct Layers {
    marks: Vec<Mark>,
    /// The layer being replayed.
    layer: u16,
    /// Layers that are not here lie below.
    upper: bool,
    /// An entry of it led through what layers that are not here decide. Never without those.
    unsure: Cell<bool>,
}

impl Layers {
    /// A record was made.
    pub(super) fn pushed(&mut self) {
        let touched = self.layer;
        self.marks.push(Mark { touched, swept: 0 });
    }

    fn is_touched(&self, id: u32) -> bool {
        self.marks[id as usize].touched == self.layer
    }

    /// False if it was already.
    fn touch(&mut self, id: u32) -> bool {
        let mark = &mut self.marks[id as usize];
        let fresh = mark.touched != self.layer;
        mark.touched = self.layer;
        fresh
    }

    /// False if it was already.
    fn sweep(&mut self, id: u32) -> bool {
        let mark = &mut self.marks[id as usize];
        let fresh = mark.swept != self.layer;
        mark.swept = self.layer;
        fresh
    }
}

impl Tree {
    /// An empty tree that layers are replayed into.
    pub(in crate::pack) fn of_layers() -> Tree {
        let mut tree = Tree::new();
        let root = Mark {
            touched: 0,
            swept: 0,
        };
        tree.layers = Some(Layers {
            marks: vec![root],
            layer: 0,
            upper: false,
            unsure: Cell::new(false),
        });
        tree
    }

    /// The same over layers that are not here: the root may have anything in it.
    pub(in crate::pack) fn of_upper_layers() -> Tree {
        let mut tree = Tree::of_layers();
        tree.records[0].flags |= OPEN;
        if let Some(layers) = &mut tree.layers {
            layers.upper = true;
        }
        tree
    }

    /// The current layer and those below it are as those that are not here.
    pub(in crate::pack) fn forget(&mut self) {
        let layer = self.layers.as_ref().map_or(0, |layers| layers.layer);
        *self = Tree::of_upper_layers();
        if let Some(layers) = &mut self.layers {
            layers.layer = layer;
        }
    }

    /// What was replayed last could happen anywhere: only [`Tree::forget`] helps.
    pub(in crate::pack) fn is_unsure(&self) -> bool {
        let layers = self.layers.as_ref();
        layers.is_some_and(|layers| layers.unsure.get())
    }

    pub(super) fn doubt(&self) {
        if let Some(layers) = &self.layers {
            layers.unsure.set(true);
        }
    }

    /// Ends the doubt, and says whether there was any.
    pub(super) fn forgive(&self) -> bool {
        let layers = self.layers.as_ref();
        layers.is_some_and(|layers| layers.unsure.replace(false))
    }

    fn is_upper(&self) -> bool {
        let layers = self.layers.as_ref();
        layers.is_some_and(|layers| layers.upper)
    }

    /// It is a directory, and layers that are not here may have more in it.
    pub(super) fn is_open(&self, directory: &[u8]) -> bool {
        self.is_upper()
            && self
                .find(directory)
                .is_some_and(|id| self.records[id as usize].flags & OPEN != 0)
    }

    /// [`OPEN`], if a directory that is made at `path` will be; `path[..known]` is there.
    pub(super) fn openness(&self, path: &[u8], known: usize) -> u8 {
        if !self.is_upper() {
            return 0;
        }
        let is_open = match self.find(path) {
            Some(old) if self.kind(old) == Kind::Directory as u8 => self.is_open(path),
            Some(_) => false,
            None => known == parent_end(path) && self.is_open(&path[..known]),
        };
        if is_open { OPEN } else { 0 }
    }

    /// What is below `path[..known]` on the way is made: no whiteout says any more that it is not there.
    pub(super) fn unhide(&mut self, path: &[u8], known: usize) {
        if !self.is_upper() {
            return;
        }
        let begin = if known == 0 { 0 } else { known + 1 };
        let end = memchr::memchr(b'/', &path[begin..]).map_or(path.len(), |slash| begin + slash);
        if let Some(whiteout) = self.find(&path[..end]) {
            self.remove(whiteout);
        }
    }

    /// What is replayed from now on is the next layer's.
    pub(in crate::pack) fn next_layer(&mut self) -> Result<(), PackError> {
        let layers = self.layers.as_mut();
        let next = layers.and_then(|layers| Some((layers.layer.checked_add(1)?, layers)));
        match next {
            Some((next, layers)) => layers.layer = next,
            None => return Err(PackError::TooLarge("more than 65,535 layers".into())),
        }
        Ok(())
    }

    /// Applies an entry of the current layer's log.
    pub(in crate::pack) fn replay(&mut self, entry: &Entry<'_>) -> Result<(), PackError> {
        let header = EntryHeader {
            path: entry.path,
            kind: entry.kind,
            link: entry.link,
            mode: entry.mode,
            mtime: entry.mtime,
        };
        check_lengths(&header)?;
        let mut path = std::mem::take(&mut self.path);
        let done = match entry.kind {
            Kind::Whiteout => self.hide(&header, &mut path),
            Kind::Opaque => {
                self.clear(entry.path, &mut path);
                Ok(())
            }
            _ => {
                let mut record = new_record(&header);
                if matches!(entry.kind, Kind::File | Kind::Symlink) {
                    let layer = self.layers.as_ref().map_or(0, |layers| layers.layer);
                    record.source = U16::new(layer.saturating_sub(1));
                }
                if entry.kind == Kind::File {
                    record.offset = entry.offset.into();
                    record.length = entry.length.into();
                    record.hash = [
                        (entry.hash as u64).into(),
                        ((entry.hash >> 64) as u64).into(),
                    ];
                }
                self.place(&header, record, &mut path).map(|_| ())
            }
        };
        self.path = path;
        done
    }

    /// A whiteout. Where its parent is no directory there is nothing to hide.
    fn hide(&mut self, header: &EntryHeader<'_>, path: &mut Vec<u8>) -> Result<(), PackError> {
        path.clear();
        path.extend_from_slice(header.path);
        let end = match self.walk_parent(path, header.path) {
            Ok(known) if known == parent_end(path) && !self.is_unsure() => known,
            _ => return Ok(()),
        };
        match self.find(path) {
            Some(id) if self.is_touched(id) => {
                if self.kind(id) == Kind::Directory as u8 {
                    self.sweep(id);
                }
                return Ok(());
            }
            Some(id) => self.remove(id),
            None => {}
        }
        if self.is_open(&path[..end]) {
            let mut record = new_record(header);
            self.store(&mut record, path, None, b"")?;
            let parent = self.parent_of(path, end)?;
            self.attach(record, parent)?;
        }
        Ok(())
    }

    /// An opaque marker of a directory, to which links may lead.
    fn clear(&mut self, directory: &[u8], path: &mut Vec<u8>) {
        path.clear();
        path.extend_from_slice(directory);
        // The marker itself, whose parent is asked for.
        path.extend_from_slice(if path.is_empty() { b"." } else { b"/." });
        let Ok(known) = self.walk_parent(path, directory) else {
            return;
        };
        if known == parent_end(path)
            && let Some(id) = self.find(&path[..known])
        {
            self.sweep(id);
        }
    }

    fn is_touched(&self, id: u32) -> bool {
        let layers = self.layers.as_ref();
        layers.is_some_and(|layers| layers.is_touched(id))
    }

    /// Removes what lower layers have below a directory.
    fn sweep(&mut self, directory: u32) {
        let mut stack = vec![directory];
        while let Some(id) = stack.pop() {
            let fresh = self.layers.as_mut().is_some_and(|layers| layers.sweep(id));
            if !fresh {
                continue;
            }
            self.records[id as usize].flags &= !OPEN;
            let mut child = self.records[id as usize].first.get();
            let mut kept = NONE;
            while child != NONE {
                let record = &self.records[child as usize];
                let next = record.next.get();
                if record.flags & LIVE != 0 {
                    if self.is_touched(child) {
                        if record.kind == Kind::Directory as u8 {
                            stack.push(child);
                        }
                        self.records[child as usize].next = U32::new(kept);
                        kept = child;
                    } else {
                        self.remove(child);
                    }
                }
                child = next;
            }
            self.records[id as usize].first = U32::new(kept);
        }
    }

    /// The node has the children of another one, which it replaced.
    pub(super) fn takes_over(&mut self, id: u32, old: u32) {
        if let Some(layers) = &mut self.layers {
            layers.marks[id as usize].swept = layers.marks[old as usize].swept;
        }
    }

    /// The current layer has something below the directory `path[..end]`: it is touched, and so are
    /// its parents.
    pub(super) fn touch(&mut self, path: &[u8], mut end: usize) {
        while self.layers.is_some() {
            let Some(id) = self.find(&path[..end]) else {
                return;
            };
            // Where a directory is touched, its parents are.
            let fresh = self.layers.as_mut().is_some_and(|layers| layers.touch(id));
            if !fresh || end == 0 {
                return;
            }
            end = memchr::memrchr(b'/', &path[..end]).unwrap_or(0);
        }
    }

    /// The live nodes alone, each directory before its children, and hard links as what they link
    /// to. `children` is what [`Tree::sorted_children`] returned; the new one is the identity.
    pub(in crate::pack) fn compacted(&self, children: &[U32]) -> Result<Tree, PackError> {
        let mut compact = Tree::new();
        compact.drop_table();
        compact.records.clear();
        compact.records.reserve_exact(children.len());
        for id in children {
            let id = id.get();
            let behind = &self.records[self.behind(id) as usize];
            let mut record: Record = self.records[id as usize];
            if record.kind == Kind::HardLink as u8 {
                record.kind = behind.kind;
                record.first = U32::ZERO;
            }
            record.flags &= LIVE | IMPLICIT | OPEN;
            record.tree_len = U16::ZERO;
            let path = tree_path(&self.records[id as usize], &self.strings);
            compact.store(&mut record, path, None, self.link(behind))?;
            compact.records.push(record);
        }
        Ok(compact)
    }
}
