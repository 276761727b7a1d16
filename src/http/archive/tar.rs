//! The tar of an archive: GNU's form (`tar(5)`), which every reader knows, with `L` entries before names
//! of more than 100 bytes and base-256 for numbers that the octal digits do not hold. gzip around it says
//! no time and no name.

use super::stream::Chunks;
use super::walk::{Entry, Walk, copy, name};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};

const BLOCK: usize = 512;
/// Quick rather than small: it is made while somebody waits.
const LEVEL: Compression = Compression::new(4);

pub(super) fn write(walk: Walk<'_>, chunks: &mut Chunks) -> io::Result<()> {
    let mut out = GzEncoder::new(chunks, LEVEL);
    for entry in walk {
        let (length, kind) = match &entry.file {
            Some(file) => (file.length, b'0'),
            None => (0, b'5'),
        };
        let name = name(&entry);
        if name.len() > 100 {
            let mut long = name.clone();
            long.push(0);
            let at = Entry {
                mtime: 0,
                mode: 0o644,
                path: Vec::new(),
                file: None,
            };
            out.write_all(&header(b"././@LongLink", &at, long.len() as u64, b'L'))?;
            out.write_all(&long)?;
            pad(&mut out, long.len() as u64)?;
        }
        out.write_all(&header(&name, &entry, length, kind))?;
        if let Some(file) = &entry.file {
            copy(file, |bytes| out.write_all(bytes))?;
            pad(&mut out, length)?;
        }
    }
    out.write_all(&[0; 2 * BLOCK])?;
    out.finish().map(|_| ())
}

fn pad(out: &mut impl Write, length: u64) -> io::Result<()> {
    let over = (length % BLOCK as u64) as usize;
    match over {
        0 => Ok(()),
        over => out.write_all(&[0; BLOCK][over..]),
    }
}

fn header(name: &[u8], entry: &Entry, length: u64, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let shown = name.len().min(100);
    block[..shown].copy_from_slice(&name[..shown]);
    number(&mut block[100..108], i128::from(entry.mode));
    number(&mut block[108..116], 0);
    number(&mut block[116..124], 0);
    number(&mut block[124..136], i128::from(length));
    number(&mut block[136..148], i128::from(entry.mtime));
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Octal digits and a NUL, or the number itself with the top bit set.
fn number(field: &mut [u8], value: i128) {
    let digits = field.len() - 1;
    if (0..1i128 << (3 * digits)).contains(&value) {
        field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
        return;
    }
    let bytes = value.to_be_bytes();
    let start = bytes.len() - field.len();
    field.copy_from_slice(&bytes[start..]);
    field[0] |= 0x80;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_meant() {
        for (mtime, length, mode) in [
            (0, 0, 0o644),
            (1_700_000_000, 5, 0o755),
            (-1, (8 << 30) - 1, 0),
            (1 << 40, 1 << 40, 0o777),
        ] {
            let entry = Entry {
                path: Vec::new(),
                file: None,
                mtime,
                mode,
            };
            let block = header(b"a/\xff", &entry, length, b'0');
            let read = ::tar::Header::from_byte_slice(&block);
            assert_eq!(read.entry_size().unwrap(), length);
            assert_eq!(read.mtime().unwrap(), mtime as u64);
            assert_eq!(read.mode().unwrap(), mode);
            assert_eq!(read.path_bytes(), &b"a/\xff"[..]);
            let mut sum = block;
            sum[148..156].fill(b' ');
            let sum: u32 = sum.iter().map(|byte| u32::from(*byte)).sum();
            assert_eq!(read.cksum().unwrap(), sum);
        }
    }
}
