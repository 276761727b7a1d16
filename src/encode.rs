//! Content codings (RFC 9110 §8.4.1): one file's bytes → its encoded bytes. Pure but for the time it takes;
//! never called on a thread that serves (see `images/variants`).

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};

/// A content coding that we choose and make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Brotli, RFC 7932.
    Br,
    /// Zstandard, RFC 8878; window of 8 MiB at most (RFC 9659).
    Zstd,
    /// RFC 1952.
    Gzip,
}

/// Brotli's quality, see ARCHITECTURE, Encodings.
const BR_QUALITY: i32 = 6;
/// Brotli's window, 2^22 bytes: what its own tool takes.
const BR_WINDOW: i32 = 22;
/// Zstandard's level.
const ZSTD_LEVEL: i32 = 12;
/// What RFC 9659 allows as a content coding: 2^23 bytes.
const ZSTD_WINDOW: u32 = 23;
/// Deflate's level.
const GZIP_LEVEL: u32 = 9;
/// Source bytes between two looks at whether to stop.
const STEP: usize = 128 << 10;

impl Coding {
    /// In the order of our preference, where a client has none.
    pub const ALL: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    /// Its name in Accept-Encoding and Content-Encoding.
    pub const fn token(self) -> &'static str {
        match self {
            Coding::Br => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What a sidecar's name has behind the name of its file.
    pub const fn suffix(self) -> &'static str {
        match self {
            Coding::Br => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }

    /// The bytes that every stream of this coding begins with; none for Brotli, which has no such bytes.
    pub const fn magic(self) -> &'static [u8] {
        match self {
            Coding::Br => b"",
            Coding::Zstd => b"\x28\xb5\x2f\xfd",
            Coding::Gzip => b"\x1f\x8b",
        }
    }
}

/// Encodes `source`. None as soon as `stop` says so, or as soon as more than `most` bytes come out: then it is not worth it.
/// Equal input, equal output.
///
/// # Errors
/// Those of an encoder that has no memory.
pub fn encode(
    coding: Coding,
    source: &[u8],
    most: usize,
    stop: impl Fn() -> bool,
) -> io::Result<Option<Vec<u8>>> {
    let out = Bounded {
        bytes: Vec::new(),
        most,
        over: false,
    };
    let done = match coding {
        Coding::Br => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: BR_QUALITY,
                lgwin: BR_WINDOW,
                size_hint: source.len(),
                ..Default::default()
            };
            let mut encoder = brotli::CompressorWriter::with_params(out, STEP, &params);
            let fed = feed(&mut encoder, source, stop);
            fed.map(|whole| whole.then(|| encoder.into_inner()))
        }
        Coding::Zstd => zstd_encoder(out, source.len()).and_then(|mut encoder| {
            match feed(&mut encoder, source, stop)? {
                true => encoder.finish().map(Some),
                false => Ok(None),
            }
        }),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(out, Compression::new(GZIP_LEVEL));
            match feed(&mut encoder, source, stop) {
                Ok(true) => encoder.finish().map(Some),
                other => other.map(|_| None),
            }
        }
    };
    match done {
        // Looked at, since Brotli's writer swallows the error of its last bytes.
        Ok(Some(out)) if !out.over => Ok(Some(out.bytes)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(None),
        Err(error) => Err(error),
    }
}

fn zstd_encoder(out: Bounded, length: usize) -> io::Result<zstd::Encoder<'static, Bounded>> {
    let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
    // With the size it takes no more window, and memory, than the file needs.
    encoder.set_pledged_src_size(Some(length as u64))?;
    encoder.include_contentsize(true)?;
    if length > 1 << ZSTD_WINDOW {
        encoder.window_log(ZSTD_WINDOW)?;
    }
    Ok(encoder)
}

/// False: stopped.
fn feed(encoder: &mut impl Write, source: &[u8], stop: impl Fn() -> bool) -> io::Result<bool> {
    for piece in source.chunks(STEP) {
        if stop() {
            return Ok(false);
        }
        encoder.write_all(piece)?;
    }
    Ok(true)
}

/// Bytes, up to a bound.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
    /// Something was refused, so the bytes are not whole.
    over: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.over || self.bytes.len() + bytes.len() > self.most {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
            Coding::Zstd => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut out),
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..length).map(|_| random.u8(..)).collect()
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes_and_begins_as_it_should() {
        let mut mixed = noise(3 * STEP);
        mixed.extend(b"function f() { return 1 }\n".repeat(40_000));
        for source in [&b"x"[..], &b"abc ".repeat(300), &mixed] {
            for coding in Coding::ALL {
                let made = encode(coding, source, usize::MAX, || false)
                    .unwrap()
                    .unwrap();
                assert!(decode(coding, &made) == source, "{coding:?}");
                assert!(made.starts_with(coding.magic()), "{coding:?}");
                let again = encode(coding, source, usize::MAX, || false).unwrap();
                assert!(again.as_ref() == Some(&made), "{coding:?} again");
            }
        }
    }

    #[test]
    fn what_is_not_worth_it_or_not_wanted_any_more_is_none() {
        let source = noise(4 * STEP);
        for coding in Coding::ALL {
            let most = source.len() * 9 / 10;
            let made = encode(coding, &source, most, || false).unwrap();
            assert!(made.is_none(), "{coding:?} saves nothing");
            let asked = std::cell::Cell::new(0);
            let stop = || asked.replace(asked.get() + 1) == 1;
            let made = encode(coding, &source, usize::MAX, stop).unwrap();
            assert!(made.is_none(), "{coding:?} stops");
            assert_eq!(asked.get(), 2, "{coding:?}: stops at once");
        }
    }

    #[test]
    fn zstd_needs_no_larger_window_than_clients_have() {
        let source = b"0123456789abcdef".repeat(600_000);
        let made = encode(Coding::Zstd, &source, usize::MAX, || false)
            .unwrap()
            .unwrap();
        let mut decoder = zstd::Decoder::new(&made[..]).unwrap();
        decoder.window_log_max(ZSTD_WINDOW).unwrap();
        let mut out = Vec::new();
        decoder.read_to_end(&mut out).unwrap();
        assert_eq!(out.len(), source.len());
    }
}
