//! Reads a mapped pack. Nothing in the file is trusted: every offset is checked where it is
//! used, so that a damaged pack gives "not found", never a panic.

use super::format::{
    FOOTER_LEN, FOOTER_MAGIC, FORMAT_START, Footer, HEADER_LEN, IMPLICIT, LIVE, NONE, OPEN,
    RECORD_LEN, Record, path_hash,
};
use super::kept::KeptFile;
use super::mapping::Mapping;
use super::residency::{self, Residency};
use super::tree::{MAX_LINKS, MAX_PATH};
use super::{Entry, FORMAT_VERSION, Kind, Origin, PackError, ResolveError};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

/// A mapping and where its sections are.
pub(super) struct Reader {
    pub(super) mapping: Mapping,
    file: Option<KeptFile>,
    residency: Residency,
    records: Range<usize>,
    table: Range<usize>,
    children: Range<usize>,
    strings: Range<usize>,
    content_end: u64,
    seed: u64,
    entries: u64,
    dangling: u32,
    pub(super) sources: u32,
    pub(super) origin: Origin,
}

fn corrupt(why: &str) -> PackError {
    PackError::Corrupt(why.to_owned())
}

impl Reader {
    pub(super) fn open(file: File) -> Result<Reader, PackError> {
        let length = file.metadata()?.len();
        if length < (HEADER_LEN + FOOTER_LEN) as u64 {
            return Err(corrupt("shorter than header and footer"));
        }
        let mapping = Mapping::new(&file)?;
        let bytes = mapping.bytes();
        let (body, end) = bytes
            .split_last_chunk::<FOOTER_LEN>()
            .ok_or_else(|| corrupt("shorter than its footer"))?;
        let footer = Footer::read_from_bytes(end).map_err(|_| corrupt("no footer"))?;
        if footer.magic != FOOTER_MAGIC || !bytes.starts_with(&FORMAT_START.magic) {
            return Err(corrupt("magic bytes are missing"));
        }
        if footer.version.get() != FORMAT_VERSION || !bytes.starts_with(FORMAT_START.as_bytes()) {
            return Err(corrupt("another version of the format"));
        }
        if xxh3_64(&end[..FOOTER_LEN - 8]) != footer.footer_checksum.get() {
            return Err(corrupt("footer's checksum does not match"));
        }
        if footer.pack_bytes.get() != bytes.len() as u64 {
            return Err(corrupt("length is not the one that the footer says"));
        }
        let section = |start: u64, len: u64| -> Result<Range<usize>, PackError> {
            let outside = || corrupt("a section lies outside the file");
            let end = start.checked_add(len).ok_or_else(outside)?;
            if end > body.len() as u64 || start < footer.records.get() {
                return Err(outside());
            }
            Ok(start as usize..end as usize)
        };
        let count = |n: U32, each: u64| u64::from(n.get()) * each;
        let records = section(
            footer.records.get(),
            count(footer.record_count, RECORD_LEN as u64),
        )?;
        let reader = Reader {
            table: section(footer.table.get(), count(footer.slot_count, 4))?,
            children: section(footer.children.get(), count(footer.child_count, 4))?,
            strings: section(footer.strings.get(), footer.strings_len.get())?,
            content_end: footer.content_end.get(),
            seed: footer.seed.get(),
            entries: footer.entries.get(),
            dangling: footer.dangling.get(),
            sources: footer.source_count.get(),
            origin: footer
                .origin
                .origin()
                .ok_or_else(|| corrupt("says no origin"))?,
            records,
            residency: Residency::new(length),
            file: KeptFile::keep(file, length),
            mapping,
        };
        if !footer.slot_count.get().is_power_of_two() {
            return Err(corrupt("table size is not a power of two"));
        }
        if reader.content_end > reader.records.start as u64 {
            return Err(corrupt("contents overlap the index"));
        }
        let index = &reader.mapping.bytes()[reader.records.start..bytes_len(&reader) - FOOTER_LEN];
        if xxh3_64(index) != footer.index_checksum.get() {
            return Err(corrupt("index's checksum does not match"));
        }
        if reader.mapping.poisoned() {
            return Err(corrupt("a page of the index could not be read"));
        }
        Ok(reader)
    }

    /// The footer that was there when the pack was opened is gone. A shortened file keeps the mapping of
    /// its last page, as zeros behind its end, so no signal tells; the footer tells, being the last of the file.
    pub(super) fn cut_short(&self) -> bool {
        let bytes = self.mapping.bytes();
        let footer = bytes.get(bytes.len().wrapping_sub(FOOTER_LEN)..);
        !footer.is_some_and(|footer| footer.starts_with(&FOOTER_MAGIC))
    }

    pub(super) fn entry_count(&self) -> u64 {
        self.entries
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.mapping.bytes().get(range.clone()).unwrap_or_default()
    }

    pub(super) fn index_len(&self) -> u64 {
        (self.strings.end - self.records.start) as u64
    }

    /// Whether the range lies within the contents.
    pub(super) fn holds(&self, offset: u64, length: u64) -> bool {
        offset
            .checked_add(length)
            .is_some_and(|end| end <= self.content_end)
    }

    /// The first hard link whose target is not in this layer.
    pub(super) fn dangling(&self) -> Option<Entry<'_>> {
        self.logged(self.dangling.checked_sub(1)?)
    }

    pub(super) fn record(&self, id: u32) -> Option<&Record> {
        let start = (id as usize).checked_mul(RECORD_LEN)?;
        let bytes = self.slice(&self.records).get(start..start + RECORD_LEN)?;
        Record::ref_from_bytes(bytes).ok()
    }

    pub(super) fn record_count(&self) -> u32 {
        (self.records.len() / RECORD_LEN) as u32
    }

    fn word(&self, section: &Range<usize>, index: u32) -> Option<u32> {
        let bytes = self
            .slice(section)
            .get(index as usize * 4..index as usize * 4 + 4)?;
        U32::read_from_bytes(bytes).ok().map(U32::get)
    }

    /// See [`super::Pack::resident`].
    pub(super) fn resident(&self, offset: u64, length: u64) -> bool {
        let regions = Residency::around(offset, length);
        let now = residency::now();
        if self.residency.is_recent(&regions, now) {
            return true;
        }
        let resident = self
            .mapping
            .resident(regions.start, regions.end - regions.start);
        if resident {
            self.residency.mark(&regions, now);
        }
        resident
    }

    /// See [`super::Pack::send`].
    pub(super) fn send(&self, to: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<u64> {
        let count = usize::try_from(length).unwrap_or(usize::MAX);
        if let Some(file) = &self.file {
            return Ok(file.send(to, offset, count)? as u64);
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.mapping.bytes();
        let bytes = bytes
            .get(start..start.saturating_add(count))
            .unwrap_or_default();
        Ok(rustix::io::write(to, bytes)? as u64)
    }

    /// See [`super::Pack::populate`].
    pub(super) fn populate(&self, offset: u64, length: u64) -> io::Result<()> {
        let regions = Residency::around(offset, length);
        self.mapping
            .populate(regions.start, regions.end - regions.start)?;
        self.residency.mark(&regions, residency::now());
        Ok(())
    }

    /// Raw path, tree path and link target of a record.
    fn names(&self, record: &Record) -> Option<(&[u8], &[u8], &[u8])> {
        let strings = self.slice(&self.strings);
        let raw_start = record.strings.get() as usize;
        let raw_end = raw_start + record.raw_len.get() as usize;
        let tree_end = raw_end + record.tree_len.get() as usize;
        let link_end = tree_end + record.link_len.get() as usize;
        let raw = strings.get(raw_start..raw_end)?;
        let moved = record.flags & super::format::MOVED != 0;
        let tree = if moved {
            strings.get(raw_end..tree_end)?
        } else {
            raw
        };
        Some((raw, tree, strings.get(tree_end..link_end)?))
    }

    fn entry<'a>(
        &'a self,
        id: u32,
        record: &'a Record,
        kind: u8,
        path: &'a [u8],
        link: &'a [u8],
    ) -> Option<Entry<'a>> {
        let (offset, length) = (record.offset.get(), record.length.get());
        let source = record.source.get();
        let good = match self.sources {
            0 => source == 0 && self.holds(offset, length),
            sources => u32::from(source) < sources,
        };
        if !good {
            return None;
        }
        Some(Entry {
            id,
            kind: Kind::from_byte(kind)?,
            path,
            link,
            mode: u32::from(record.mode.get()),
            mtime: record.mtime.get(),
            offset,
            length,
            source,
            hash: u128::from(record.hash[0].get()) | u128::from(record.hash[1].get()) << 64,
        })
    }

    /// A live node as the tree shows it: a hard link is what it links to.
    pub(super) fn node(&self, id: u32) -> Option<Entry<'_>> {
        let record = self.record(id)?;
        if record.flags & LIVE == 0 {
            return None;
        }
        let (_, path, link) = self.names(record)?;
        if record.kind == Kind::HardLink as u8 && record.flags & OPEN == 0 {
            let behind = self.record(record.first.get())?;
            return self.entry(id, record, behind.kind, path, self.names(behind)?.2);
        }
        self.entry(id, record, record.kind, path, link)
    }

    /// An entry as it was pushed; None for implied directories.
    pub(super) fn logged(&self, id: u32) -> Option<Entry<'_>> {
        let record = self.record(id)?;
        if record.flags & IMPLICIT != 0 {
            return None;
        }
        let (path, _, link) = self.names(record)?;
        self.entry(id, record, record.kind, path, link)
    }

    pub(super) fn lookup(&self, path: &[u8]) -> Option<Entry<'_>> {
        let slots = (self.table.len() / 4) as u32;
        let mut slot = path_hash(path, self.seed) as u32 & (slots - 1);
        for _ in 0..slots {
            let id = self.word(&self.table, slot)?;
            if id == NONE {
                return None;
            }
            if let Some(record) = self.record(id)
                && let Some((_, tree, _)) = self.names(record)
                && tree == path
            {
                return self.node(id);
            }
            slot = (slot + 1) & (slots - 1);
        }
        None
    }

    pub(super) fn children(&self, directory: u32) -> impl Iterator<Item = Entry<'_>> {
        let range = match self.record(directory) {
            Some(r) if r.kind == Kind::Directory as u8 && r.flags & LIVE != 0 => {
                r.first.get()..r.first.get().saturating_add(r.next.get())
            }
            _ => 0..0,
        };
        let end = range.end.min((self.children.len() / 4) as u32);
        (range.start..end).filter_map(|i| self.node(self.word(&self.children, i)?))
    }

    pub(super) fn resolve(&self, path: &[u8]) -> Result<Entry<'_>, ResolveError> {
        if let Some(entry) = self.lookup(path)
            && matches!(entry.kind, Kind::File | Kind::Directory)
        {
            return Ok(entry);
        }
        self.walk(path)
    }

    /// What it means that a directory does not have a name.
    fn lacking(&self, directory: &Entry<'_>) -> ResolveError {
        match self.record(directory.id) {
            Some(record) if record.flags & OPEN != 0 => ResolveError::Below,
            _ => ResolveError::NotFound,
        }
    }

    /// Component by component, as the kernel resolves a path for a process in the image.
    fn walk(&self, path: &[u8]) -> Result<Entry<'_>, ResolveError> {
        let mut done: Vec<u8> = Vec::with_capacity(path.len());
        let mut rest: Vec<u8> = path.to_vec();
        let mut from = 0;
        let mut links = 0;
        let mut here = self.lookup(b"").ok_or(ResolveError::NotFound)?;
        while from < rest.len() {
            let end = memchr::memchr(b'/', &rest[from..]).map_or(rest.len(), |i| from + i);
            let part = from..end;
            from = (end + 1).min(rest.len());
            if here.kind != Kind::Directory {
                return Err(ResolveError::NotFound);
            }
            match &rest[part.clone()] {
                b"" | b"." => continue,
                b".." => done.truncate(memchr::memrchr(b'/', &done).unwrap_or(0)),
                name => {
                    let parent = done.len();
                    if !done.is_empty() {
                        done.push(b'/');
                    }
                    done.extend_from_slice(name);
                    let next = self.lookup(&done).ok_or_else(|| self.lacking(&here))?;
                    match next.kind {
                        Kind::Symlink => {}
                        Kind::Whiteout => return Err(ResolveError::NotFound),
                        Kind::HardLink => return Err(ResolveError::Below),
                        _ => {
                            here = next;
                            continue;
                        }
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ResolveError::TooManyLinks);
                    }
                    if next.link.is_empty() || next.link.len() + rest.len() - from > MAX_PATH {
                        return Err(ResolveError::NotFound);
                    }
                    done.truncate(if next.link.starts_with(b"/") {
                        0
                    } else {
                        parent
                    });
                    let mut joined = next.link.to_vec();
                    joined.push(b'/');
                    joined.extend_from_slice(&rest[from..]);
                    rest = joined;
                    from = 0;
                }
            }
            here = self.lookup(&done).ok_or(ResolveError::NotFound)?;
        }
        Ok(here)
    }

    pub(super) fn verify_contents(&self) -> Result<(), PackError> {
        if self.sources > 0 {
            return Ok(());
        }
        for id in 0..self.record_count() {
            let Some(record) = self.record(id).filter(|r| r.kind == Kind::File as u8) else {
                continue;
            };
            let entry = self
                .logged(id)
                .ok_or_else(|| corrupt("a record is damaged"))?;
            let content = self.slice(
                &(entry.offset as usize..entry.offset as usize + record.length.get() as usize),
            );
            if xxh3_128(content) != entry.hash {
                let path = String::from_utf8_lossy(entry.path).into_owned();
                return Err(PackError::Corrupt(format!(
                    "content of `{path}` has changed"
                )));
            }
        }
        if self.mapping.poisoned() {
            return Err(corrupt("a page could not be read"));
        }
        Ok(())
    }
}

fn bytes_len(reader: &Reader) -> usize {
    reader.mapping.bytes().len()
}
