//! The tree that a layer's entries make, while the pack is written: what containerd does
//! applying the tar in order within a root, on records instead of a file system.
//!
//! Costs are linear overall: a removed node only loses its LIVE flag and its table slot and
//! stays in its parent's list; a list is walked once, when its directory goes.
//! Where live directory `a/b` is in the table, so are all its ancestors: the longest
//! existing prefix of a path is found by bisection, not by a walk.

mod layers;

use super::format::{DANGLING, IMPLICIT, LIVE, MOVED, NONE, OPEN, RECORD_LEN, Record};
use super::{EntryHeader, Kind, PackError};
use hashbrown::HashTable;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

/// Links followed on the way to one entry (as Linux counts).
pub(super) const MAX_LINKS: u32 = 40;
/// Bytes of a path or link target that a record can hold.
pub(super) const MAX_PATH: usize = u16::MAX as usize;

/// Records, strings and the live nodes by path.
pub(super) struct Tree {
    pub(super) records: Vec<Record>,
    pub(super) strings: Vec<u8>,
    live: HashTable<u32>,
    seed: u64,
    /// The first dangling hard link.
    pub(super) dangling: Option<u32>,
    /// While layers are merged.
    layers: Option<layers::Layers>,
    /// Work areas, kept to save allocations.
    path: Vec<u8>,
    stack: Vec<u32>,
}

/// Where a hard link's target is.
enum Target {
    Here,
    /// Only lower layers can tell what it is.
    Below,
}

fn hash(path: &[u8], seed: u64) -> u64 {
    super::format::path_hash(path, seed)
}

/// Tree path of a record.
pub(super) fn tree_path<'a>(record: &Record, strings: &'a [u8]) -> &'a [u8] {
    let start = record.strings.get() as usize;
    let raw = record.raw_len.get() as usize;
    let (from, len) = if record.flags & MOVED != 0 {
        (start + raw, record.tree_len.get() as usize)
    } else {
        (start, raw)
    };
    strings.get(from..from + len).unwrap_or_default()
}

/// A path for a message: printable, at most 200 characters.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut short: String = text
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(200).is_some() {
        short.push('…');
    }
    short
}

impl Tree {
    pub(super) fn new() -> Tree {
        let mut tree = Tree {
            records: Vec::new(),
            strings: Vec::new(),
            live: HashTable::new(),
            seed: fastrand::u64(..),
            dangling: None,
            layers: None,
            path: Vec::new(),
            stack: Vec::new(),
        };
        let mut root = Record::new_zeroed();
        root.kind = Kind::Directory as u8;
        root.flags = LIVE | IMPLICIT;
        root.mode = U16::new(0o755);
        root.first = U32::new(NONE);
        root.next = U32::new(NONE);
        tree.records.push(root);
        tree.insert(0);
        tree
    }

    /// Bytes in use: records, strings, table (and what finishing adds per node).
    pub(super) fn bytes(&self) -> u64 {
        let table = self.live.capacity() * 8 / 7 * 5;
        let own = self.records.len() * (RECORD_LEN + 8) + self.strings.len() + table;
        // Merging, all of it is copied in the end.
        let factor = if self.layers.is_some() { 2 } else { 1 };
        (own * factor) as u64
    }

    /// Live nodes.
    pub(super) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Frees the table of the building phase.
    pub(super) fn drop_table(&mut self) {
        self.live = HashTable::new();
    }

    fn find(&self, path: &[u8]) -> Option<u32> {
        let same = |id: &u32| tree_path(&self.records[*id as usize], &self.strings) == path;
        self.live.find(hash(path, self.seed), same).copied()
    }

    fn insert(&mut self, id: u32) {
        let Tree {
            records,
            strings,
            live,
            seed,
            ..
        } = self;
        let of = |id: &u32| hash(tree_path(&records[*id as usize], strings), *seed);
        live.insert_unique(of(&id), id, of);
    }

    /// Takes `id` out of the table and its LIVE flag away.
    fn kill(&mut self, id: u32) {
        let path_hash = hash(
            tree_path(&self.records[id as usize], &self.strings),
            self.seed,
        );
        if let Ok(slot) = self.live.find_entry(path_hash, |other| *other == id) {
            slot.remove();
        }
        self.records[id as usize].flags &= !LIVE;
    }

    /// Removes a node and all below it.
    fn remove(&mut self, id: u32) {
        self.stack.push(id);
        while let Some(id) = self.stack.pop() {
            self.kill(id);
            let record = &mut self.records[id as usize];
            if record.kind != Kind::Directory as u8 {
                continue;
            }
            let mut child = record.first.get();
            record.first = U32::new(NONE);
            while child != NONE {
                let record = &self.records[child as usize];
                if record.flags & LIVE != 0 {
                    self.stack.push(child);
                }
                child = record.next.get();
            }
        }
    }

    fn kind(&self, id: u32) -> u8 {
        self.records[self.behind(id) as usize].kind
    }

    /// The record that holds the content of a hard link; others are their own.
    fn behind(&self, id: u32) -> u32 {
        let record = &self.records[id as usize];
        if record.kind == Kind::HardLink as u8 {
            record.first.get()
        } else {
            id
        }
    }

    /// Adds an entry to log and tree; returns its record's number.
    pub(super) fn add(&mut self, header: &EntryHeader<'_>, offset: u64) -> Result<u32, PackError> {
        let mut record = new_record(header);
        if header.kind == Kind::File {
            record.offset = offset.into();
        }
        check_lengths(header)?;
        if matches!(header.kind, Kind::Whiteout | Kind::Opaque) {
            self.store(&mut record, header.path, None, header.link)?;
            return self.push(record);
        }
        let mut path = std::mem::take(&mut self.path);
        let id = self.place(header, record, &mut path);
        self.path = path;
        id
    }

    fn place(
        &mut self,
        header: &EntryHeader<'_>,
        mut record: Record,
        path: &mut Vec<u8>,
    ) -> Result<u32, PackError> {
        let is_directory = header.kind == Kind::Directory;
        path.clear();
        path.extend_from_slice(header.path);
        if path.is_empty() {
            if !is_directory {
                return Err(PackError::Layer(
                    "an entry replaces the root directory".into(),
                ));
            }
            return self.replace_root(record);
        }
        let known = self.walk_parent(path, header.path)?;
        if self.is_unsure() {
            return Ok(0);
        }
        if is_directory {
            record.flags |= self.openness(path, known);
        }
        if let Some(old) = self.find(path) {
            if is_directory && self.kind(old) == Kind::Directory as u8 {
                let moved = (path.as_slice() != header.path).then_some(path.as_slice());
                self.store(&mut record, header.path, moved, header.link)?;
                record.first = self.records[old as usize].first;
                self.kill(old);
                self.records[old as usize].first = U32::new(NONE);
                let parent = self.parent_of(path, known)?;
                let id = self.attach(record, parent)?;
                self.takes_over(id, old);
                self.touch(path, known);
                return Ok(id);
            }
            self.remove(old);
        }
        let name_start = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
        let mut parent = self.find(&path[..known]).unwrap_or(0);
        let moved = (path.as_slice() != header.path).then_some(path.as_slice());
        self.store(&mut record, header.path, moved, header.link)?;
        // Implied parents share the bytes of this entry's path.
        let start = record.strings.get()
            + if moved.is_some() {
                u32::from(record.raw_len.get())
            } else {
                0
            };
        let mut from = known;
        if from + 1 < name_start {
            self.unhide(path, from);
        }
        while from + 1 < name_start {
            let begin = if from == 0 { 0 } else { from + 1 };
            let end = begin + memchr::memchr(b'/', &path[begin..]).unwrap_or(path.len() - begin);
            let mut implied = Record::new_zeroed();
            implied.kind = Kind::Directory as u8;
            implied.flags = IMPLICIT;
            implied.mode = U16::new(0o755);
            implied.strings = U32::new(start);
            implied.raw_len = U16::new(end as u16);
            implied.first = U32::new(NONE);
            parent = self.attach(implied, parent)?;
            from = end;
        }
        if header.kind == Kind::HardLink {
            match self.link_to_target(header, &mut record)? {
                Target::Here => {}
                Target::Below if self.layers.is_some() => {
                    record.flags |= OPEN;
                    record.first = U32::new(self.records.len() as u32);
                }
                Target::Below => {
                    record.flags |= DANGLING;
                    let id = self.push(record)?;
                    self.dangling.get_or_insert(id);
                    return Ok(id);
                }
            }
        }
        let id = self.attach(record, parent)?;
        self.touch(path, known);
        Ok(id)
    }

    fn parent_of(&self, path: &[u8], known: usize) -> Result<u32, PackError> {
        self.find(&path[..known])
            .ok_or_else(|| PackError::Layer(format!("`{}` has no parent", shown(path))))
    }

    fn replace_root(&mut self, mut record: Record) -> Result<u32, PackError> {
        let old = self.find(b"").unwrap_or(0);
        record.first = self.records[old as usize].first;
        self.kill(old);
        record.flags |= LIVE | (self.records[old as usize].flags & OPEN);
        let id = self.push(record)?;
        self.insert(id);
        self.takes_over(id, old);
        Ok(id)
    }

    /// Makes the record what its target is.
    fn link_to_target(
        &self,
        header: &EntryHeader<'_>,
        record: &mut Record,
    ) -> Result<Target, PackError> {
        let refuse = |why: &str| {
            PackError::Layer(format!(
                "hard link `{}` to `{}`: {why}",
                shown(header.path),
                shown(header.link)
            ))
        };
        let mut target = Vec::with_capacity(header.link.len());
        clean_into(&mut target, header.link);
        let known = self.walk_parent(&mut target, header.path)?;
        let name = target.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let found = if known == name {
            self.find(&target)
        } else {
            None
        };
        if self.forgive() || (found.is_none() && self.is_open(&target[..known])) {
            return Ok(Target::Below);
        }
        let found = found.filter(|id| self.kind(*id) != Kind::Whiteout as u8);
        let Some(found) = found else {
            return match self.layers {
                None => Ok(Target::Below),
                Some(_) => Err(refuse("the target does not exist")),
            };
        };
        let target = self.behind(found);
        let node = &self.records[target as usize];
        if node.kind == Kind::HardLink as u8 {
            return Ok(Target::Below);
        }
        if node.kind == Kind::Directory as u8 {
            if node.flags & IMPLICIT != 0 && self.layers.is_none() {
                // A lower layer may have a link there.
                return Ok(Target::Below);
            }
            return Err(refuse("the target is a directory"));
        }
        record.first = U32::new(target);
        record.mode = node.mode;
        record.mtime = node.mtime;
        record.offset = node.offset;
        record.length = node.length;
        record.hash = node.hash;
        record.source = node.source;
        Ok(Target::Here)
    }

    /// Rewrites `path` so that no parent of its last component is a symbolic link (as
    /// containerd's `fs.RootPath`: targets are joined and cleaned, never above the root).
    /// Returns how many bytes of it name the deepest directory that exists.
    fn walk_parent(&self, path: &mut Vec<u8>, shown_as: &[u8]) -> Result<usize, PackError> {
        let mut links = 0;
        let mut ends: Vec<usize> = Vec::new();
        loop {
            let parent = memchr::memrchr(b'/', path).unwrap_or(0);
            if self.is_directory(&path[..parent]) {
                return Ok(parent);
            }
            // Bisect for the longest prefix that is a directory.
            ends.clear();
            ends.extend(memchr::memchr_iter(b'/', &path[..parent]));
            let good = ends.partition_point(|end| self.is_directory(&path[..*end]));
            let known = if good == 0 { 0 } else { ends[good - 1] };
            let next = ends.get(good).copied().unwrap_or(parent);
            let Some(node) = self.find(&path[..next]) else {
                if self.is_open(&path[..known]) {
                    self.doubt();
                }
                return Ok(known);
            };
            let record = &self.records[self.behind(node) as usize];
            if record.kind == Kind::Whiteout as u8 {
                return Ok(known);
            }
            if record.kind == Kind::HardLink as u8 {
                self.doubt();
                return Ok(known);
            }
            if record.kind != Kind::Symlink as u8 {
                return Err(PackError::Layer(format!(
                    "entry `{}`: `{}` is not a directory",
                    shown(shown_as),
                    shown(&path[..next])
                )));
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(PackError::Layer(format!(
                    "entry `{}`: more than {MAX_LINKS} links on the way",
                    shown(shown_as)
                )));
            }
            let link = self.link(record);
            let mut joined = Vec::with_capacity(link.len() + path.len());
            if link.first() != Some(&b'/') {
                clean_into(&mut joined, &path[..known]);
            }
            clean_into(&mut joined, link);
            if !joined.is_empty() {
                joined.push(b'/');
            }
            joined.extend_from_slice(&path[next + 1..]);
            if joined.len() > MAX_PATH {
                return Err(PackError::Layer(format!(
                    "entry `{}`: links make a path of {} bytes, more than {MAX_PATH}",
                    shown(shown_as),
                    joined.len()
                )));
            }
            *path = joined;
        }
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        self.find(path)
            .is_some_and(|id| self.records[id as usize].kind == Kind::Directory as u8)
    }

    fn link(&self, record: &Record) -> &[u8] {
        let start = record.strings.get() as usize
            + record.raw_len.get() as usize
            + record.tree_len.get() as usize;
        self.strings
            .get(start..start + record.link_len.get() as usize)
            .unwrap_or_default()
    }

    fn store(
        &mut self,
        record: &mut Record,
        raw: &[u8],
        tree: Option<&[u8]>,
        link: &[u8],
    ) -> Result<(), PackError> {
        let start = u32::try_from(self.strings.len())
            .map_err(|_| PackError::TooLarge("more than 4 GiB of paths".into()))?;
        record.strings = U32::new(start);
        record.raw_len = U16::new(raw.len() as u16);
        self.strings.extend_from_slice(raw);
        if let Some(tree) = tree {
            record.flags |= MOVED;
            record.tree_len = U16::new(tree.len() as u16);
            self.strings.extend_from_slice(tree);
        }
        record.link_len = U16::new(link.len() as u16);
        self.strings.extend_from_slice(link);
        Ok(())
    }

    fn push(&mut self, record: Record) -> Result<u32, PackError> {
        let id = u32::try_from(self.records.len())
            .ok()
            .filter(|id| *id < NONE)
            .ok_or_else(|| PackError::TooLarge("more than 2^32 - 1 entries".into()))?;
        self.records.push(record);
        if let Some(layers) = &mut self.layers {
            layers.pushed();
        }
        Ok(id)
    }

    fn attach(&mut self, mut record: Record, parent: u32) -> Result<u32, PackError> {
        record.flags |= LIVE;
        record.next = self.records[parent as usize].first;
        let id = self.push(record)?;
        self.records[parent as usize].first = U32::new(id);
        self.insert(id);
        Ok(id)
    }

    /// Turns the lists of children into one array, each directory's part sorted by name,
    /// and clears what only building needed.
    pub(super) fn sorted_children(&mut self) -> Vec<U32> {
        let root = self.find(b"").unwrap_or(0);
        let mut children: Vec<U32> = Vec::with_capacity(self.live_count());
        self.drop_table();
        children.push(U32::new(root));
        let mut done = 0;
        // Breadth first: a record's `next` is read with its parent's list before it is reused.
        while done < children.len() {
            let id = children[done].get() as usize;
            done += 1;
            if self.records[id].kind != Kind::Directory as u8 {
                self.records[id].next = U32::ZERO;
                if self.records[id].kind != Kind::HardLink as u8 {
                    self.records[id].first = U32::ZERO;
                }
                continue;
            }
            let start = children.len();
            let mut child = self.records[id].first.get();
            while child != NONE {
                let record = &self.records[child as usize];
                if record.flags & LIVE != 0 {
                    children.push(U32::new(child));
                }
                child = record.next.get();
            }
            let path = |id: &U32| tree_path(&self.records[id.get() as usize], &self.strings);
            children[start..].sort_unstable_by(|a, b| path(a).cmp(path(b)));
            self.records[id].first = U32::new(start as u32);
            self.records[id].next = U32::new((children.len() - start) as u32);
        }
        for record in &mut self.records {
            if record.flags & LIVE == 0 {
                record.next = U32::ZERO;
                if record.kind != Kind::HardLink as u8 {
                    record.first = U32::ZERO;
                }
            }
        }
        children
    }

    pub(super) fn records_bytes(&self) -> &[u8] {
        self.records.as_bytes()
    }
}

fn check_lengths(header: &EntryHeader<'_>) -> Result<(), PackError> {
    let longest = header.path.len().max(header.link.len());
    if longest > MAX_PATH {
        return Err(PackError::TooLarge(format!(
            "a path of {longest} bytes, more than {MAX_PATH}"
        )));
    }
    Ok(())
}

/// A record for the entry, without strings and content.
fn new_record(header: &EntryHeader<'_>) -> Record {
    let mut record = Record::new_zeroed();
    record.kind = header.kind as u8;
    record.mode = U16::new((header.mode & 0o7777) as u16);
    record.mtime = header.mtime.into();
    record.first = U32::new(NONE);
    record.next = U32::new(NONE);
    record
}

/// Appends the components of `path` to the clean path in `out`; `..` takes one away and
/// stops at the root.
pub(crate) fn clean_into(out: &mut Vec<u8>, path: &[u8]) {
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                let end = memchr::memrchr(b'/', out).unwrap_or(0);
                out.truncate(end);
            }
            name => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(name);
            }
        }
    }
}
