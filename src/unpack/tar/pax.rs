//! PAX extended headers: records `length key=value\n` (POSIX.1-2001 pax, "pax Extended
//! Header"). An empty value leaves the header's own.

use super::Checked;
use crate::pack::shown;

/// The records that mean something to us.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<i64>,
    /// The member is sparse, in one of GNU's or star's ways.
    pub(super) sparse: bool,
}

impl Pax {
    /// Parses all records. A later record replaces an earlier one of its key.
    pub(super) fn parse(mut records: &[u8]) -> Checked<Pax> {
        let mut pax = Pax::default();
        while !records.is_empty() {
            let (key, value, rest) =
                record(records).ok_or("a PAX header holds a malformed record")?;
            records = rest;
            pax.apply(key, value)?;
        }
        Ok(pax)
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Checked<()> {
        let given = (!value.is_empty()).then_some(value);
        let bad = || format!("PAX record {}={} is not valid", shown(key), shown(value));
        match key {
            b"path" | b"linkpath" => {
                if value.contains(&0) {
                    return Err(format!("PAX record {} holds a NUL", shown(key)));
                }
                let field = if key == b"path" {
                    &mut self.path
                } else {
                    &mut self.link_path
                };
                *field = given.map(<[u8]>::to_vec);
            }
            b"size" => {
                self.size = given.map(|v| decimal(v).ok_or_else(bad)).transpose()?;
            }
            b"mtime" => {
                self.mtime = given.map(|v| seconds(v).ok_or_else(bad)).transpose()?;
            }
            b"hdrcharset" if !matches!(value, b"" | b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {
                return Err(bad());
            }
            b"SCHILY.realsize" | b"SCHILY.filetype" => self.sparse = true,
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            // Owners, times and attributes that nothing here uses; comments; vendors' keys.
            _ => {}
        }
        Ok(())
    }

    /// Readers differ on global records (containerd ignores them), so those that would
    /// change what is served are refused.
    pub(super) fn check_global(&self) -> Checked<()> {
        if self.path.is_some() || self.link_path.is_some() || self.size.is_some() || self.sparse {
            return Err("a global PAX header sets path, linkpath, size or sparse".to_owned());
        }
        Ok(())
    }
}

/// Splits the first record off: key, value, the rest.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // 20 digits hold any length; do not search a megabyte for the space.
    let space = records.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    if length <= space + 1 || length > records.len() {
        return None;
    }
    let (record, rest) = records.split_at(length);
    let body = record[space + 1..].strip_suffix(b"\n")?;
    let equals = memchr::memchr(b'=', body)?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let value: u64 = plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok())??;
    (value <= i64::MAX as u64).then_some(value)
}

/// `[-]seconds[.fraction]`, rounded towards the past.
fn seconds(value: &[u8]) -> Option<i64> {
    let (negative, value) = match value {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, value),
    };
    let dot = memchr::memchr(b'.', value);
    let whole = i64::try_from(decimal(&value[..dot.unwrap_or(value.len())])?).ok()?;
    let fraction = dot.map_or(&[][..], |dot| &value[dot + 1..]);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let part = i64::from(fraction.iter().any(|b| *b != b'0'));
    Some(if negative { -whole - part } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_towards_the_past() {
        let table: &[(&str, Option<i64>)] = &[
            ("1", Some(1)),
            ("1.9", Some(1)),
            ("-1", Some(-1)),
            ("-1.5", Some(-2)),
            ("-1.0", Some(-1)),
            ("1.", Some(1)),
            ("", None),
            (".5", None),
            ("1.2.3", None),
            ("+1", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            "9 a=b\n",
            "6 a=b ",
            "5 ab\n",
            "6 a=b",
            "x a=b\n",
            "0 a=b\n",
            " a=b\n",
            "5 =b\n",
            "06 a=b\nz",
        ] {
            assert!(Pax::parse(records.as_bytes()).is_err(), "{records:?}");
        }
        for records in ["6 a=b\n", "5 a=\n", "12 path=abc\n", "8 path=\n"] {
            assert!(Pax::parse(records.as_bytes()).is_ok(), "{records:?}");
        }
    }
}
