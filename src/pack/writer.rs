//! Writes a pack front to back: contents as they come, the index at the end.

use super::format::{
    FOOTER_MAGIC, FORMAT_START, Footer, HEADER_LEN, IMPLICIT, NONE, OriginRecord, Record,
    path_hash, slots_for,
};
use super::tree::{Tree, tree_path};
use super::{EntryHeader, FORMAT_VERSION, Kind, Origin, PackError, Summary};
use std::io::{self, Write};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Writes smaller than this are gathered.
const DIRECT: usize = 64 << 10;
/// Bytes gathered before they are written.
const BUFFER: usize = 256 << 10;

/// The state of one pack being written.
pub(super) struct State<W> {
    out: W,
    buffer: Vec<u8>,
    /// Bytes given to `write` so far, the buffer's included.
    position: u64,
    tree: Tree,
    entries: u64,
    file: Option<OpenFile>,
    hasher: Box<Xxh3>,
}

/// The file whose content is being written.
struct OpenFile {
    id: u32,
    length: u64,
    missing: u64,
    hash: Option<u128>,
}

impl<W: Write> State<W> {
    pub(super) fn new(out: W) -> State<W> {
        let mut buffer = Vec::with_capacity(BUFFER);
        buffer.extend_from_slice(FORMAT_START.as_bytes());
        State {
            out,
            buffer,
            position: HEADER_LEN as u64,
            tree: Tree::new(),
            entries: 0,
            file: None,
            hasher: Box::new(Xxh3::new()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        if bytes.len() >= DIRECT && self.buffer.is_empty() {
            self.out.write_all(bytes)?;
        } else if bytes.len() >= DIRECT {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
            self.out.write_all(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.position += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn entry(&mut self, header: &EntryHeader<'_>, size: u64) -> Result<(), PackError> {
        self.close_file()?;
        if size != 0 && header.kind != Kind::File {
            return Err(PackError::Layer(format!(
                "a {:?} with {size} bytes",
                header.kind
            )));
        }
        let id = self.tree.add(header, self.position)?;
        self.entries += 1;
        if header.kind == Kind::File {
            self.file = Some(OpenFile {
                id,
                length: size,
                missing: size,
                hash: None,
            });
        }
        Ok(())
    }

    pub(super) fn content(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let len = bytes.len() as u64;
        let file = match &mut self.file {
            Some(file) if file.missing >= len => file,
            _ => {
                return Err(PackError::Layer(format!(
                    "{len} bytes more than an entry's size"
                )));
            }
        };
        if len == file.length {
            file.hash = Some(xxh3_128(bytes));
        } else {
            if file.missing == file.length {
                self.hasher.reset();
            }
            self.hasher.update(bytes);
        }
        file.missing -= len;
        self.write(bytes)?;
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), PackError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        if file.missing != 0 {
            return Err(PackError::Layer(format!(
                "a file's content is {} bytes shorter than its size",
                file.missing
            )));
        }
        let hash = match file.hash {
            Some(hash) => hash,
            None if file.length == 0 => xxh3_128(b""),
            None => self.hasher.digest128(),
        };
        let record = &mut self.tree.records[file.id as usize];
        record.length = file.length.into();
        record.hash = [U64::new(hash as u64), U64::new((hash >> 64) as u64)];
        Ok(())
    }

    pub(super) fn index_bytes(&self) -> u64 {
        self.tree.bytes()
    }

    pub(super) fn finish(mut self, origin: &Origin) -> Result<(W, Summary), PackError> {
        self.close_file()?;
        let children = self.tree.sorted_children();
        self.seal(origin, &children, 0)
    }

    /// Writes a merged index: of the tree into which so many layers were replayed.
    pub(super) fn merged(
        out: W,
        mut tree: Tree,
        sources: u32,
        origin: &Origin,
    ) -> Result<(W, Summary), PackError> {
        let children = tree.sorted_children();
        let mut state = State::new(out);
        state.tree = tree.compacted(&children)?;
        drop(tree);
        let explicit = |record: &&Record| record.flags & IMPLICIT == 0;
        state.entries = state.tree.records.iter().filter(explicit).count() as u64;
        let children: Vec<U32> = (0..children.len() as u32).map(U32::new).collect();
        state.seal(origin, &children, sources)
    }

    /// Writes index and footer.
    fn seal(
        mut self,
        origin: &Origin,
        children: &[U32],
        sources: u32,
    ) -> Result<(W, Summary), PackError> {
        let content_end = self.position;
        let seed = xxh3_64(&self.tree.strings);
        let table = table(&self.tree, children, seed);

        let mut checksum = Xxh3::new();
        let pad = (8 - self.position % 8) % 8;
        self.write(&[0; 8][..pad as usize])?;
        let mut footer = Footer::new_zeroed();
        let tree = std::mem::replace(&mut self.tree, Tree::new());
        let mut starts = [0u64; 4];
        let sections: [&[u8]; 4] = [
            tree.records_bytes(),
            table.as_bytes(),
            children.as_bytes(),
            &tree.strings,
        ];
        for (section, start) in sections.iter().zip(&mut starts) {
            *start = self.position;
            let pad = &[0; 8][..(8 - section.len() % 8) % 8];
            for bytes in [section, pad] {
                checksum.update(bytes);
                self.write(bytes)?;
            }
        }
        footer.magic = FOOTER_MAGIC;
        footer.version = FORMAT_VERSION.into();
        footer.record_count = (tree.records.len() as u32).into();
        footer.slot_count = (table.len() as u32).into();
        footer.child_count = (children.len() as u32).into();
        [
            footer.records,
            footer.table,
            footer.children,
            footer.strings,
        ] = starts.map(U64::new);
        footer.strings_len = (tree.strings.len() as u64).into();
        footer.entries = self.entries.into();
        footer.content_end = content_end.into();
        footer.pack_bytes = (self.position + size_of::<Footer>() as u64).into();
        footer.seed = seed.into();
        footer.dangling = tree.dangling.map_or(0, |id| id + 1).into();
        footer.source_count = sources.into();
        footer.origin = OriginRecord::new(origin);
        footer.index_checksum = checksum.digest().into();
        let checked = size_of::<Footer>() - 8;
        footer.footer_checksum = xxh3_64(&footer.as_bytes()[..checked]).into();
        self.write(footer.as_bytes())?;
        self.out.write_all(&self.buffer)?;
        self.out.flush()?;
        let summary = Summary {
            entries: self.entries,
            content_bytes: content_end - HEADER_LEN as u64,
            pack_bytes: self.position,
        };
        Ok((self.out, summary))
    }
}

/// The table of the live nodes (they are exactly the children array, root first).
fn table(tree: &Tree, children: &[U32], seed: u64) -> Vec<U32> {
    let mut table = vec![U32::new(NONE); slots_for(children.len())];
    let mask = table.len() - 1;
    for id in children {
        let path = tree_path(&tree.records[id.get() as usize], &tree.strings);
        let mut slot = path_hash(path, seed) as usize & mask;
        while table[slot].get() != NONE {
            slot = (slot + 1) & mask;
        }
        table[slot] = *id;
    }
    table
}
