//! Decompression, without input or output of its own: bytes in, bytes out. The border
//! behind which further formats fit: a variant of [`Decoder`] each. eStargz is gzip and
//! zstd:chunked is zstd, and they are read as that.
//!
//! Gzip is read here member by member (RFC 1952), since a layer may consist of many
//! (eStargz, pigz -i), and each member's CRC-32 and length are checked. Zeros after the last
//! member are padding; anything else there is refused.

mod zstd;

use self::zstd::Zstd;
use flate2::{Decompress, FlushDecompress, Status};

/// How many first bytes [`Decoder::detect`] needs (fewer only at the stream's end).
pub(super) const MAGIC_BYTES: usize = 6;

/// Why bytes are not decompressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// They are no good.
    Refused(String),
    /// So many bytes of memory would be needed.
    Memory(u64),
}

impl From<String> for DecodeError {
    fn from(why: String) -> DecodeError {
        DecodeError::Refused(why)
    }
}

impl From<&str> for DecodeError {
    fn from(why: &str) -> DecodeError {
        DecodeError::Refused(why.to_owned())
    }
}

/// A decompressor for one layer.
pub(super) enum Decoder {
    /// The tar itself.
    Plain,
    /// One or more gzip members.
    Gzip(Box<Gzip>),
    /// One or more zstd frames.
    Zstd(Box<Zstd>),
}

impl Decoder {
    /// Chooses by the first bytes: media types lie. `memory`: bytes that it may hold beside its
    /// buffers.
    pub(super) fn detect(
        start: &[u8],
        media_type: &str,
        memory: u64,
    ) -> Result<Decoder, DecodeError> {
        let essence = media_type.split(';').next().unwrap_or_default();
        let essence = essence.to_ascii_lowercase();
        match start {
            [0x1f, 0x8b, ..] => Ok(Decoder::Gzip(Box::new(Gzip::new()))),
            _ if zstd::is_magic(start) => Ok(Decoder::Zstd(Box::new(Zstd::new(memory)?))),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(unsupported("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Err(unsupported("bzip2")),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(unsupported("lz4")),
            [] if essence.contains("gzip") => Err("the gzip stream is empty".into()),
            [] if essence.contains("zstd") => Err("the zstd stream is empty".into()),
            _ => Ok(Decoder::Plain),
        }
    }

    /// Decodes what it can; returns (bytes consumed, bytes produced). Both 0 only when
    /// `input` or `output` is empty.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize), DecodeError> {
        match self {
            Decoder::Plain => {
                let n = input.len().min(output.len());
                output[..n].copy_from_slice(&input[..n]);
                Ok((n, n))
            }
            Decoder::Gzip(gzip) => Ok(gzip.decode(input, output)?),
            Decoder::Zstd(zstd) => zstd.decode(input, output),
        }
    }

    /// Bytes that the decoder holds beside its buffers, at most.
    pub(super) fn memory(&self) -> u64 {
        match self {
            Decoder::Plain | Decoder::Gzip(_) => 0,
            Decoder::Zstd(zstd) => zstd.window(),
        }
    }

    /// To be called after the last byte: an unfinished stream is an error.
    pub(super) fn finish(&self) -> Result<(), String> {
        let name = match self {
            Decoder::Plain => return Ok(()),
            Decoder::Gzip(gzip) if matches!(gzip.state, State::Between | State::Padding) => {
                return Ok(());
            }
            Decoder::Gzip(_) => "gzip",
            Decoder::Zstd(zstd) if zstd.is_between_frames() => return Ok(()),
            Decoder::Zstd(_) => "zstd",
        };
        Err(format!("the {name} stream ends in the middle"))
    }
}

fn unsupported(format: &str) -> DecodeError {
    DecodeError::Refused(format!("its bytes are {format}, which is not supported"))
}

/// Where in the gzip stream the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The fixed header's byte of that number.
    Fixed(u8),
    ExtraLength(u8),
    Extra(u16),
    Name,
    Comment,
    HeaderCrc(u8),
    Body,
    /// The trailer's byte of that number.
    Trailer(u8),
    /// After a member: another one, padding, or the end.
    Between,
    Padding,
}

/// State of the gzip decoder.
pub(super) struct Gzip {
    state: State,
    /// Header flags that are still to be handled.
    flags: u8,
    /// The field being read: extra length, header CRC, trailer.
    field: u64,
    header_crc: crc32fast::Hasher,
    inflate: Decompress,
    crc: crc32fast::Hasher,
}

const HAS_CRC: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

impl Gzip {
    fn new() -> Gzip {
        Gzip {
            state: State::Fixed(0),
            flags: 0,
            field: 0,
            header_crc: crc32fast::Hasher::new(),
            inflate: Decompress::new(false),
            crc: crc32fast::Hasher::new(),
        }
    }

    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), String> {
        let mut used = 0;
        while used < input.len() {
            if self.state != State::Body {
                self.byte(input[used])?;
                used += 1;
                continue;
            }
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(&input[used..], output, FlushDecompress::None)
                .map_err(|_| "the gzip stream holds invalid deflate data".to_owned())?;
            let produced = (self.inflate.total_out() - before.1) as usize;
            used += (self.inflate.total_in() - before.0) as usize;
            self.crc.update(&output[..produced]);
            if status == Status::StreamEnd {
                self.state = State::Trailer(0);
                self.field = 0;
            }
            if produced > 0 || status != Status::StreamEnd {
                return Ok((used, produced));
            }
        }
        Ok((used, 0))
    }

    /// A byte of header, trailer or padding.
    fn byte(&mut self, byte: u8) -> Result<(), String> {
        if !matches!(self.state, State::HeaderCrc(_) | State::Trailer(_)) {
            self.header_crc.update(&[byte]);
        }
        self.state = match self.state {
            State::Fixed(at) => self.fixed(at, byte)?,
            State::ExtraLength(at) => {
                self.field |= u64::from(byte) << (8 * at);
                match (at, self.field as u16) {
                    (0, _) => State::ExtraLength(1),
                    (_, 0) => self.after(HAS_EXTRA),
                    (_, length) => State::Extra(length),
                }
            }
            State::Extra(1) => self.after(HAS_EXTRA),
            State::Extra(left) => State::Extra(left - 1),
            State::Name if byte == 0 => self.after(HAS_NAME),
            State::Comment if byte == 0 => self.after(HAS_COMMENT),
            State::HeaderCrc(0) => {
                self.field = u64::from(byte);
                State::HeaderCrc(1)
            }
            State::HeaderCrc(_) => {
                let stated = self.field | u64::from(byte) << 8;
                if stated != u64::from(self.header_crc.clone().finalize() as u16) {
                    return Err("a gzip header's CRC does not match".to_owned());
                }
                self.after(HAS_CRC)
            }
            State::Trailer(at) => {
                self.field |= u64::from(byte) << (8 * at);
                if at < 7 {
                    State::Trailer(at + 1)
                } else {
                    self.check_trailer()?
                }
            }
            State::Between if byte == 0x1f => {
                self.start_member();
                State::Fixed(1)
            }
            State::Between | State::Padding if byte == 0 => State::Padding,
            State::Between | State::Padding => {
                return Err("bytes that are no gzip member follow the last one".to_owned());
            }
            unchanged => unchanged,
        };
        Ok(())
    }

    fn start_member(&mut self) {
        self.inflate.reset(false);
        self.crc = crc32fast::Hasher::new();
        self.header_crc = crc32fast::Hasher::new();
        self.header_crc.update(&[0x1f]);
    }

    fn fixed(&mut self, at: u8, byte: u8) -> Result<State, String> {
        match (at, byte) {
            (0, 0x1f) | (1, 0x8b) | (2, 8) => {}
            (0 | 1, _) => return Err("bytes that are no gzip member follow the last one".into()),
            (2, method) => return Err(format!("gzip method {method} is not deflate")),
            (3, flags) if flags & RESERVED != 0 => {
                return Err(format!("gzip flags {flags:#04x} are reserved"));
            }
            (3, flags) => self.flags = flags,
            _ => {}
        }
        Ok(if at < 9 {
            State::Fixed(at + 1)
        } else {
            self.after(0)
        })
    }

    /// The state after the header part `done`.
    fn after(&mut self, done: u8) -> State {
        self.flags &= !(done | 1);
        self.field = 0;
        if self.flags & HAS_EXTRA != 0 {
            State::ExtraLength(0)
        } else if self.flags & HAS_NAME != 0 {
            State::Name
        } else if self.flags & HAS_COMMENT != 0 {
            State::Comment
        } else if self.flags & HAS_CRC != 0 {
            State::HeaderCrc(0)
        } else {
            State::Body
        }
    }

    fn check_trailer(&mut self) -> Result<State, String> {
        if self.field as u32 != self.crc.clone().finalize() {
            return Err("a gzip member's CRC-32 does not match its content".to_owned());
        }
        if (self.field >> 32) as u32 != self.inflate.total_out() as u32 {
            return Err("a gzip member's length does not match its content".to_owned());
        }
        Ok(State::Between)
    }
}
