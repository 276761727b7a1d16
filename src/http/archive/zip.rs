//! Zip (APPNOTE 6.3.10), written without seeking: sizes and checksum of a file follow it (§4.3.9), zip64
//! where numbers need it (§4.5.3), times in UTC (`UT`, beside DOS's own), modes as Unix has them. A name
//! that is not UTF-8 is stored as the bytes that it is, without the flag that says UTF-8.

use super::stream::Chunks;
use super::walk::{Entry, Walk, copy, name, record};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::{self, Write};

const LEVEL: Compression = Compression::new(4);
/// From here on sizes have 64 bits: what does not compress grows by less than the rest.
const LARGE: u64 = 0xf000_0000;
const ALL: u64 = 0xffff_ffff;
const FOLLOWS: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;
/// By Unix (3), of 4.5, which has zip64.
const MADE_BY: u16 = 3 << 8 | 45;

pub(super) fn write(walk: Walk<'_>, chunks: &mut Chunks) -> io::Result<()> {
    let (mut directory, mut entries) = (Vec::new(), 0u64);
    for entry in walk {
        add(&entry, chunks, &mut directory)?;
        entries += 1;
    }
    let (start, size) = (chunks.written(), directory.len() as u64);
    chunks.write_all(&directory)?;
    end(entries, start, size, chunks)
}

/// Writes a file, and what the central directory says of it.
fn add(entry: &Entry, chunks: &mut Chunks, directory: &mut Vec<u8>) -> io::Result<()> {
    let name = name(entry);
    let offset = chunks.written();
    let length = entry.file.as_ref().map_or(0, |file| file.length);
    let large = length >= LARGE;
    let utf8 = if std::str::from_utf8(&name).is_ok() {
        UTF8
    } else {
        0
    };
    let (method, flags) = match length {
        0 => (0u16, utf8),
        _ => (8, utf8 | FOLLOWS),
    };
    let (version, sizes) = if large { (45u16, ALL) } else { (20, 0) };
    let time = dos_time(entry.mtime);
    let ut = ut(entry.mtime);
    let mut extra = ut.clone();
    if large {
        extra.extend_from_slice(&zip64(&[0, 0]));
    }
    record(
        &[
            b"PK\x03\x04",
            &version.to_le_bytes(),
            &flags.to_le_bytes(),
            &method.to_le_bytes(),
            &time.to_le_bytes(),
            &0u32.to_le_bytes(),
            &low(sizes),
            &low(sizes),
            &short(name.len()),
            &short(extra.len()),
            &name,
            &extra,
        ],
        chunks,
    )?;
    let (mut checksum, mut compressed) = (0u32, 0);
    if let Some(file) = &entry.file
        && length > 0
    {
        let start = chunks.written();
        let mut hasher = crc32fast::Hasher::new();
        let mut deflate = DeflateEncoder::new(&mut *chunks, LEVEL);
        copy(file, |bytes| {
            hasher.update(bytes);
            deflate.write_all(bytes)
        })?;
        deflate.finish()?;
        (checksum, compressed) = (hasher.finalize(), chunks.written() - start);
        chunks.write_all(b"PK\x07\x08")?;
        chunks.write_all(&checksum.to_le_bytes())?;
        for size in [compressed, length] {
            let size = size.to_le_bytes();
            chunks.write_all(if large { &size } else { &size[..4] })?;
        }
    }
    let kind: u32 = if entry.file.is_some() {
        0o100_000
    } else {
        0o040_000
    };
    let attributes = (kind | entry.mode) << 16 | u32::from(entry.file.is_none()) << 4;
    let mut big = Vec::new();
    if large {
        big.extend_from_slice(&[length, compressed]);
    }
    if offset >= ALL {
        big.push(offset);
    }
    let mut extra = ut;
    if !big.is_empty() {
        extra.extend_from_slice(&zip64(&big));
    }
    let version = if big.is_empty() { 20u16 } else { 45 };
    let said = |size| low(if large { ALL } else { size });
    record(
        &[
            b"PK\x01\x02",
            &MADE_BY.to_le_bytes(),
            &version.to_le_bytes(),
            &flags.to_le_bytes(),
            &method.to_le_bytes(),
            &time.to_le_bytes(),
            &checksum.to_le_bytes(),
            &said(compressed),
            &said(length),
            &short(name.len()),
            &short(extra.len()),
            // No comment, on the first disk, no internal attributes.
            &[0; 6],
            &attributes.to_le_bytes(),
            &low(offset),
            &name,
            &extra,
        ],
        directory,
    )
}

/// End of the central directory, §4.3.14 to §4.3.16.
fn end(entries: u64, start: u64, size: u64, out: &mut impl Write) -> io::Result<()> {
    if entries >= 0xffff || start >= ALL || size >= ALL {
        let at = start + size;
        record(
            &[
                b"PK\x06\x06",
                &44u64.to_le_bytes(),
                &MADE_BY.to_le_bytes(),
                &45u16.to_le_bytes(),
                &[0; 8],
                &entries.to_le_bytes(),
                &entries.to_le_bytes(),
                &size.to_le_bytes(),
                &start.to_le_bytes(),
                b"PK\x06\x07",
                &[0; 4],
                &at.to_le_bytes(),
                &1u32.to_le_bytes(),
            ],
            out,
        )?;
    }
    let count = u16::try_from(entries).unwrap_or(u16::MAX).to_le_bytes();
    record(
        &[
            b"PK\x05\x06",
            &[0; 4],
            &count,
            &count,
            &low(size),
            &low(start),
            &[0; 2],
        ],
        out,
    )
}

/// 32 bits, all set where those do not hold it.
fn low(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

/// Paths are bounded far below.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes()
}

/// The extra field of 64-bit numbers.
fn zip64(values: &[u64]) -> Vec<u8> {
    let mut field = vec![1, 0];
    field.extend_from_slice(&short(8 * values.len()));
    values
        .iter()
        .for_each(|value| field.extend_from_slice(&value.to_le_bytes()));
    field
}

/// The extra field `UT`; nothing for a time that it does not hold.
fn ut(mtime: i64) -> Vec<u8> {
    let mut field = b"UT\x05\x00\x01".to_vec();
    match i32::try_from(mtime) {
        Ok(mtime) => field.extend_from_slice(&mtime.to_le_bytes()),
        Err(_) => field.clear(),
    }
    field
}

/// Of 1980 to 2107, in steps of two seconds.
fn dos_time(mtime: i64) -> u32 {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_198;
    let mtime = mtime.clamp(FIRST, LAST);
    let (days, seconds) = (mtime.div_euclid(86_400), mtime.rem_euclid(86_400));
    // The date by the calendar, counted from 1980 on.
    let (mut year, mut day) = (1980, days - FIRST / 86_400);
    let leap = |year: i64| year % 4 == 0 && year != 2100;
    while day >= 365 + i64::from(leap(year)) {
        day -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let date = (year - 1980) << 9 | month << 5 | (day + 1);
    let time = (seconds / 3600) << 11 | (seconds / 60 % 60) << 5 | ((seconds % 60) / 2);
    u32::try_from(date << 16 | time).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_times_are_those_of_the_calendar() {
        let of = |y: u32, mo: u32, d: u32, h: u32, mi: u32, s: u32| {
            ((y - 1980) << 9 | mo << 5 | d) << 16 | h << 11 | mi << 5 | (s / 2)
        };
        for (mtime, expected) in [
            (0, of(1980, 1, 1, 0, 0, 0)),
            (951_782_400, of(2000, 2, 29, 0, 0, 0)),
            (1_700_000_000, of(2023, 11, 14, 22, 13, 20)),
            (4_107_542_400, of(2100, 3, 1, 0, 0, 0)),
            (i64::MAX, of(2107, 12, 31, 23, 59, 58)),
        ] {
            assert_eq!(dos_time(mtime), expected, "{mtime}");
        }
    }

    #[test]
    fn the_end_has_64_bits_where_it_needs_them() {
        for (entries, start, wide) in [(3, 100, false), (0xffff, 100, true), (3, 5 << 30, true)] {
            let mut out = Vec::new();
            end(entries, start, 46, &mut out).unwrap();
            assert_eq!(out.starts_with(b"PK\x06\x06"), wide);
            assert_eq!(out.len(), if wide { 56 + 20 + 22 } else { 22 });
            assert!(out[out.len() - 22..].starts_with(b"PK\x05\x06"));
        }
    }
}
