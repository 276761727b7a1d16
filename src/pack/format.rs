//! The bytes of a pack, version 2. All integers are little endian, nothing is assumed of the
//! page size; sections of the index start at multiples of 8.
//!
//! ```text
//! header    16 bytes  magic, version, zero
//! contents            regular files, in tar order, no padding between them
//! records   64 each   in archive order, the root and implied directories among them
//! table      4 each   open addressing, power of two slots: record number of a live node
//! children   4 each   record numbers of live nodes; a directory's are contiguous and sorted
//! strings             raw path, tree path (where it differs), link target of each record
//! footer   272 bytes  where the sections are, counts, what it was made from, checksums
//! ```
//!
//! A merged index is the same without contents: its records say in which layer's pack (`source`)
//! their range lies, and only live nodes have one, hard links being what they link to. One over layers that
//! are not here is never kept; it has whiteouts among its nodes, and [`OPEN`] ones.

use super::Origin;
use crate::digest::{Algorithm, Digest};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of the header.
pub(super) const MAGIC: [u8; 8] = *b"blobpack";
/// First bytes of the footer.
pub(super) const FOOTER_MAGIC: [u8; 8] = *b"packfoot";
/// A slot of the table that holds no record; also the end of a list while building.
pub(super) const NONE: u32 = u32::MAX;

/// The record is a node of the tree (not replaced by a later entry).
pub(super) const LIVE: u8 = 1;
/// No tar entry: a directory that another entry's path implied, or the root.
pub(super) const IMPLICIT: u8 = 2;
/// The tree path differs from the raw path and follows it in the strings.
pub(super) const MOVED: u8 = 4;

/// A hard link whose target is not in this layer. Not in the tree.
pub(super) const DANGLING: u8 = 8;

/// In an index over layers that are not here: they may have more in this directory; or, of a hard link, its
/// target is theirs.
pub(super) const OPEN: u8 = 16;

/// Start of the file.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    pub(super) zero: U32,
}

/// One tar entry or implied directory.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Record {
    /// Where its strings start: raw path, tree path if [`MOVED`], link target.
    pub(super) strings: U32,
    pub(super) raw_len: U16,
    pub(super) tree_len: U16,
    pub(super) link_len: U16,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) mode: U16,
    /// In a merged index: the number of the layer whose pack has the content. Else 0.
    pub(super) source: U16,
    /// Directory: index of its first child in the children section (while building: newest
    /// child's record number). Hard link: record number of the node it stands for.
    pub(super) first: U32,
    /// Directory: number of children (while building: next record in the parent's list).
    pub(super) next: U32,
    pub(super) mtime: I64,
    pub(super) offset: U64,
    pub(super) length: U64,
    /// XXH3-128, low half first.
    pub(super) hash: [U64; 2],
}

/// End of the file.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Footer {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    pub(super) record_count: U32,
    pub(super) slot_count: U32,
    pub(super) child_count: U32,
    pub(super) records: U64,
    pub(super) table: U64,
    pub(super) children: U64,
    pub(super) strings: U64,
    pub(super) strings_len: U64,
    /// Tar entries, whiteouts and replaced ones included.
    pub(super) entries: U64,
    /// End of the contents; they start after the header.
    pub(super) content_end: U64,
    pub(super) pack_bytes: U64,
    /// Seed of the table's hash: XXH3-64 of the strings, so that no layer can choose
    /// paths that collide.
    pub(super) seed: U64,
    /// XXH3-64 of everything from `records` to the footer.
    pub(super) index_checksum: U64,
    /// The record number of the first dangling hard link, and one. 0: there is none.
    pub(super) dangling: U32,
    /// A merged index: how many packs its ranges lie in. 0: in this one.
    pub(super) source_count: U32,
    pub(super) zero: U64,
    pub(super) origin: OriginRecord,
    /// XXH3-64 of the footer's bytes before this field.
    pub(super) footer_checksum: U64,
}

/// [`Origin`] on disk.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct OriginRecord {
    pub(super) size: U64,
    /// 1: SHA-256, 2: SHA-512; of `digest`, then of `diff_id`.
    pub(super) algorithms: [u8; 2],
    pub(super) zero: [u8; 6],
    pub(super) digest: [u8; 64],
    pub(super) diff_id: [u8; 64],
}

impl OriginRecord {
    pub(super) fn new(origin: &Origin) -> OriginRecord {
        let mut record = OriginRecord::new_zeroed();
        record.size = origin.size.into();
        for (index, (digest, bytes)) in [
            (&origin.digest, &mut record.digest),
            (&origin.diff_id, &mut record.diff_id),
        ]
        .into_iter()
        .enumerate()
        {
            record.algorithms[index] = match digest.algorithm() {
                Algorithm::Sha256 => 1,
                Algorithm::Sha512 => 2,
            };
            bytes[..digest.bytes().len()].copy_from_slice(digest.bytes());
        }
        record
    }

    /// None: not an origin that this version writes.
    pub(super) fn origin(&self) -> Option<Origin> {
        let digest = |algorithm, bytes: &[u8; 64]| {
            let algorithm = match algorithm {
                1 => Algorithm::Sha256,
                2 => Algorithm::Sha512,
                _ => return None,
            };
            Digest::from_bytes(algorithm, &bytes[..algorithm.length()])
        };
        Some(Origin {
            digest: digest(self.algorithms[0], &self.digest)?,
            size: self.size.get(),
            diff_id: digest(self.algorithms[1], &self.diff_id)?,
        })
    }
}

/// The header of every pack of this version.
pub(super) const FORMAT_START: Header = Header {
    magic: MAGIC,
    version: U32::new(super::FORMAT_VERSION),
    zero: U32::ZERO,
};
pub(super) const HEADER_LEN: usize = size_of::<Header>();
pub(super) const RECORD_LEN: usize = size_of::<Record>();
pub(super) const FOOTER_LEN: usize = size_of::<Footer>();

/// Slots of the table for `live` nodes: at most three quarters full.
pub(super) fn slots_for(live: usize) -> usize {
    (live + live / 3 + 1).next_power_of_two().max(8)
}

/// Hash of a tree path in the table.
pub(super) fn path_hash(path: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(path, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format() {
        assert_eq!((HEADER_LEN, RECORD_LEN, FOOTER_LEN), (16, 64, 272));
    }
}
