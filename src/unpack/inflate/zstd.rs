//! Zstandard (RFC 8878): any number of frames, skippable ones among them (zstd:chunked puts
//! its table of contents into some at the end). The header of each frame is read here before libzstd
//! sees it, so that its window is admitted before it is allocated.

use super::DecodeError;
use ::zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

/// The largest window that is taken, as libzstd's own default: 128 MiB. `zstd --ultra -22`
/// stays within it, `--long=31` does not.
const WINDOW_LOG: u32 = 27;
/// Longest header of a frame (RFC 8878, section 3.1.1.1), its magic number included.
const LONGEST_HEADER: usize = 18;

/// Where in the stream the next byte is.
enum State {
    /// Between frames, or in the header of one.
    Header,
    /// Bytes left of a skippable frame.
    Skip(u32),
    /// In a frame.
    Frame,
}

/// State of the decoder.
pub(in crate::unpack) struct Zstd {
    context: DCtx<'static>,
    state: State,
    /// The header so far.
    header: Vec<u8>,
    /// Bytes that a frame's window may take.
    allowed: u64,
    /// The largest window so far.
    window: u64,
}

/// A frame's header, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// More bytes are needed.
    Short,
    /// A skippable frame with so many bytes.
    Skippable(u32),
    /// A frame: bytes of its header, bytes of its window.
    Frame { length: usize, window: u64 },
    /// Neither.
    Unknown,
}

/// Whether a zstd stream may start with these bytes.
pub(super) fn is_magic(start: &[u8]) -> bool {
    matches!(
        start,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

/// RFC 8878, sections 3.1.1.1 and 3.1.2.
fn header(bytes: &[u8]) -> Header {
    let number = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    match bytes {
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, rest @ ..] => match rest {
            [a, b, c, d, ..] => Header::Skippable(u32::from_le_bytes([*a, *b, *c, *d])),
            _ => Header::Short,
        },
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] => {
            let single_segment = descriptor & 0x20 != 0;
            let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
            let size = match descriptor >> 6 {
                0 => usize::from(single_segment),
                flag => 1 << flag,
            };
            let before = usize::from(!single_segment);
            let length = before + dictionary + size;
            if rest.len() < length {
                return Header::Short;
            }
            let window = if single_segment {
                let stated = number(&rest[length - size..length]);
                stated + if size == 2 { 256 } else { 0 }
            } else {
                let base = 1u64 << (10 + (rest[0] >> 3));
                base + base / 8 * u64::from(rest[0] & 7)
            };
            Header::Frame {
                length: 5 + length,
                window,
            }
        }
        [] | [_] | [_, _] | [_, _, _] | [0x28, 0xb5, 0x2f, 0xfd] => Header::Short,
        _ => Header::Unknown,
    }
}

impl Zstd {
    /// `allowed`: bytes of memory that a window may take.
    pub(super) fn new(allowed: u64) -> Result<Zstd, DecodeError> {
        let unusable = |why: &str| DecodeError::Refused(format!("zstd cannot be read: {why}"));
        let mut context = DCtx::try_create().ok_or_else(|| unusable("no memory"))?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
            .map_err(|code| unusable(get_error_name(code)))?;
        Ok(Zstd {
            context,
            state: State::Header,
            header: Vec::with_capacity(LONGEST_HEADER),
            allowed,
            window: 0,
        })
    }

    /// The largest window so far, in bytes.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header) && self.header.is_empty()
    }

    pub(super) fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize), DecodeError> {
        let mut used = 0;
        while used < input.len() {
            match self.state {
                State::Header => {
                    self.header.push(input[used]);
                    used += 1;
                    self.frame()?;
                }
                State::Skip(left) => {
                    let skipped = (input.len() - used).min(left as usize);
                    used += skipped;
                    self.state = match left - skipped as u32 {
                        0 => State::Header,
                        left => State::Skip(left),
                    };
                }
                State::Frame => {
                    let (read, produced, ended) = self.run(&input[used..], output)?;
                    used += read;
                    if ended {
                        self.state = State::Header;
                    }
                    if produced > 0 || (!ended && read == 0) {
                        return Ok((used, produced));
                    }
                }
            }
        }
        Ok((used, 0))
    }

    /// Looks at the header so far; begins the frame when it is whole.
    fn frame(&mut self) -> Result<(), DecodeError> {
        match header(&self.header) {
            Header::Short => return Ok(()),
            Header::Unknown => {
                return Err("bytes that are no zstd frame follow the last one".into());
            }
            Header::Skippable(bytes) => {
                self.state = match bytes {
                    0 => State::Header,
                    bytes => State::Skip(bytes),
                };
            }
            Header::Frame { length, window } => {
                if window > 1 << WINDOW_LOG {
                    return Err(DecodeError::Refused(format!(
                        "a zstd frame needs a window of {window} bytes, more than {}",
                        1 << WINDOW_LOG
                    )));
                }
                if window > self.allowed {
                    return Err(DecodeError::Memory(window));
                }
                self.window = self.window.max(window);
                let start = std::mem::take(&mut self.header);
                let mut fed = 0;
                while fed < length {
                    let (read, _, _) = self.run(&start[fed..], &mut [])?;
                    if read == 0 {
                        return Err("a zstd frame has an unusable header".into());
                    }
                    fed += read;
                }
                self.state = State::Frame;
            }
        }
        self.header.clear();
        Ok(())
    }

    /// Returns (bytes read, bytes produced, the frame ended).
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize, bool), DecodeError> {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(output);
        let left = self
            .context
            .decompress_stream(&mut to, &mut from)
            .map_err(|code| {
                DecodeError::Refused(format!(
                    "the zstd stream is damaged: {}",
                    get_error_name(code)
                ))
            })?;
        Ok((from.pos(), to.pos(), left == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_header_says_its_length_and_its_window() {
        let frame = |length, window| Header::Frame { length, window };
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        let table: &[(&[u8], Header)] = &[
            (&[], Header::Short),
            (&magic[..3], Header::Short),
            (&magic, Header::Short),
            (&[0x28, 0xb5, 0x2f, 0xfe], Header::Unknown),
            (&[0x28, 0xb5, 1], Header::Short),
            (b"\x50\x2a\x4d\x18\x01\0\0", Header::Short),
            (b"\x5f\x2a\x4d\x18\x01\x02\0\0", Header::Skippable(0x201)),
            // Window descriptor: exponent 13, mantissa 0; then 1.
            (
                &[magic.as_slice(), &[0, 13 << 3]].concat(),
                frame(6, 8 << 20),
            ),
            (
                &[magic.as_slice(), &[0, 13 << 3 | 1]].concat(),
                frame(6, 9 << 20),
            ),
            // Single segment, one byte of size.
            (&[magic.as_slice(), &[0x20, 200]].concat(), frame(6, 200)),
            // Two bytes of size say 256 less than they mean.
            (&[magic.as_slice(), &[0x60, 0, 1]].concat(), frame(7, 512)),
            // Dictionary number of four bytes and eight bytes of size.
            (
                &[magic.as_slice(), &[0xc3, 13 << 3], &[0; 12]].concat(),
                frame(18, 8 << 20),
            ),
            (
                &[magic.as_slice(), &[0xc3, 0], &[0; 11]].concat(),
                Header::Short,
            ),
        ];
        for (bytes, expected) in table {
            assert_eq!(&header(bytes), expected, "{bytes:x?}");
        }
    }
}
