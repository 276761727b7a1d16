//! The 512-byte header block.

use super::{Checked, text};
use crate::pack::shown;
use std::borrow::Cow;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// Name in two parts.
pub(super) struct Name<'a> {
    prefix: &'a [u8],
    name: &'a [u8],
}

impl<'a> Name<'a> {
    /// The parts joined.
    pub(super) fn full(&self) -> Cow<'a, [u8]> {
        if self.prefix.is_empty() {
            return Cow::Borrowed(self.name);
        }
        Cow::Owned([self.prefix, b"/", self.name].concat())
    }
}

/// A header block whose checksum holds and whose numbers are numbers.
pub(super) struct Block<'a> {
    pub(super) name: Name<'a>,
    pub(super) link: &'a [u8],
    pub(super) typeflag: u8,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: i64,
}

impl<'a> Block<'a> {
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Checked<Block<'a>> {
        let stated = octal(&block[148..156]).ok_or("a header's checksum is no number")?;
        // The field itself counts as spaces. Some old writers summed signed bytes: 256 less
        // for each byte above 127.
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        let unsigned = sum(block) - sum(&block[148..156]) + 8 * 32;
        if stated != unsigned {
            let high = block[..148]
                .iter()
                .chain(&block[156..])
                .filter(|b| **b > 127)
                .count();
            if i64::try_from(stated) != Ok(unsigned as i64 - 256 * high as i64) {
                return Err("a header's checksum does not match (no tar, or damaged)".to_owned());
            }
        }
        let name = text(&block[..100]);
        let number = |range: std::ops::Range<usize>, what: &str| {
            numeric(&block[range])
                .ok_or_else(|| format!("entry `{}`: its {what} is no number", shown(name)))
        };
        let mode = number(100..108, "mode")?;
        number(108..116, "user id")?;
        number(116..124, "group id")?;
        let size = number(124..136, "size")?;
        let mtime = number(136..148, "modification time")?;
        let typeflag = block[156];
        let mut prefix: &[u8] = &[];
        let magic = &block[257..265];
        if magic.starts_with(b"ustar\0") {
            number(329..337, "device number")?;
            number(337..345, "device number")?;
            let star = &block[508..] == b"tar\0";
            prefix = text(&block[345..if star { 476 } else { 500 }]);
        } else if magic == b"ustar  \0" {
            number(329..337, "device number")?;
            number(337..345, "device number")?;
            // Where others have the prefix. Some writers put one here all the same.
            number(345..357, "access time")?;
            number(357..369, "change time")?;
        }
        Ok(Block {
            link: text(&block[157..257]),
            typeflag,
            size: u64::try_from(size)
                .map_err(|_| format!("entry `{}`: its size is negative", shown(name)))?,
            mode: (mode & 0o7777) as u32,
            mtime,
            name: Name { prefix, name },
        })
    }
}

/// Octal digits between spaces and NULs; empty is 0 (as in Go).
fn octal(field: &[u8]) -> Option<u64> {
    let blank = |b: &u8| matches!(b, b' ' | b'\0');
    let Some(start) = field.iter().position(|b| !blank(b)) else {
        return Some(0);
    };
    let end = field.iter().rposition(|b| !blank(b))? + 1;
    let digits = text(&field[start..end]);
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Octal, or two's complement in base 256 when the first bit is set (GNU).
fn numeric(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field).and_then(|value| i64::try_from(value).ok());
    }
    let negative = first & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (i, byte) in field.iter().enumerate() {
        let byte = match (i, negative) {
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        value = value.checked_mul(256)? | i128::from(byte);
    }
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let table: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"12345670", Some(0o12345670)),
            (b"0000849\0", None),
            (b"-000644\0", None),
            (b"64 4   \0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xff\0\0\0\0\0\0\0\0\0\0\0", None),
        ];
        for (field, expected) in table {
            assert_eq!(
                numeric(field),
                *expected,
                "{:?}",
                field.escape_ascii().to_string()
            );
        }
    }
}
