//! The first stage: reads the compressed stream to its end, decompresses it into recycled
//! buffers, keeps the byte caps, and hands both kinds of bytes on.

use super::inflate::{DecodeError, Decoder, MAGIC_BYTES};
use super::memory::Memory;
use super::{Expected, Form, UnpackError};
use crate::config::Limits;
use std::io::{ErrorKind, Read};

/// Bytes of a buffer of decompressed data.
pub(super) const PLAIN: usize = 1 << 20;
/// Bytes of a buffer of compressed data.
pub(super) const COMPRESSED: usize = 256 << 10;
/// Below this many decompressed bytes the ratio is not looked at.
const RATIO_FLOOR: u64 = 64 << 20;

/// A buffer on its way through the stages; only `..filled` means anything.
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) filled: usize,
}

impl Chunk {
    pub(super) fn new(size: usize) -> Chunk {
        Chunk {
            bytes: vec![0; size],
            filled: 0,
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// The stages behind this one went away; their own error says why.
pub(super) struct Gone;

/// The stages behind the first. Each call gives an empty buffer back.
pub(super) trait Next {
    /// Compressed bytes, to be hashed.
    fn compressed(&mut self, chunk: Chunk) -> Result<Chunk, Gone>;
    /// Decompressed bytes, to be hashed and parsed.
    fn plain(&mut self, chunk: Chunk) -> Result<Chunk, Gone>;
    /// False once decompressed bytes are of no use: the tar is refused already.
    fn wants_plain(&self) -> bool;
}

/// How the stream ended.
pub(super) enum Ended {
    /// Read to the end.
    Complete {
        /// Bytes read.
        size: u64,
        /// Why the compression format is refused, if it is.
        refused: Option<String>,
    },
    /// Not read to the end, for this reason.
    Failed(UnpackError),
    /// Not read to the end, since nobody wants it.
    Gone,
}

/// Runs the stage.
pub(super) fn run<R: Read, N: Next>(
    blob: R,
    expected: &Expected,
    limits: &Limits,
    memory: &Memory,
    next: &mut N,
) -> Ended {
    let mut stage = Stage {
        blob,
        expected,
        limits,
        memory,
        size: 0,
        plain_bytes: 0,
        refused: None,
    };
    match stage.run(next) {
        Ok(()) => Ended::Complete {
            size: stage.size,
            refused: stage.refused,
        },
        Err(Stop::Failed(error)) => Ended::Failed(error),
        Err(Stop::Gone) => Ended::Gone,
    }
}

enum Stop {
    Failed(UnpackError),
    Gone,
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Stop {
        Stop::Gone
    }
}

struct Stage<'a, R> {
    blob: R,
    expected: &'a Expected,
    limits: &'a Limits,
    memory: &'a Memory,
    size: u64,
    plain_bytes: u64,
    refused: Option<String>,
}

impl<R: Read> Stage<'_, R> {
    fn run<N: Next>(&mut self, next: &mut N) -> Result<(), Stop> {
        let mut input = Chunk::new(COMPRESSED);
        let mut output = Chunk::new(PLAIN);
        let mut decoder: Option<Decoder> = None;
        loop {
            self.fill(&mut input)?;
            let at_end = input.filled < input.bytes.len();
            if self.refused.is_none() && decoder.is_none() {
                let start = &input.data()[..input.filled.min(MAGIC_BYTES)];
                let media_type = &self.expected.media_type;
                let found = match self.expected.form {
                    Form::File(_) => Ok(Decoder::Plain),
                    _ => Decoder::detect(start, media_type, self.memory.most_for_decoder()),
                };
                match found {
                    Ok(found) => decoder = Some(found),
                    Err(error) => self.refuse(error)?,
                }
            }
            if let Some(decoder) = decoder.as_mut()
                && self.refused.is_none()
                && next.wants_plain()
            {
                output = self.inflate(decoder, input.data(), output, next)?;
                if at_end
                    && self.refused.is_none()
                    && let Err(why) = decoder.finish()
                {
                    self.refused = Some(why);
                }
            }
            input = next.compressed(input)?;
            if at_end {
                break;
            }
        }
        if output.filled > 0 {
            next.plain(output)?;
        }
        Ok(())
    }

    /// Fills the buffer; less than full means the stream's end.
    fn fill(&mut self, chunk: &mut Chunk) -> Result<(), Stop> {
        chunk.filled = 0;
        while chunk.filled < chunk.bytes.len() {
            match self.blob.read(&mut chunk.bytes[chunk.filled..]) {
                Ok(0) => break,
                Ok(n) => chunk.filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Failed(UnpackError::Read(error))),
            }
        }
        self.size += chunk.filled as u64;
        if self.size > self.expected.size {
            return Err(Stop::Failed(UnpackError::Mismatch(format!(
                "is longer than the {} bytes that its manifest says",
                self.expected.size
            ))));
        }
        Ok(())
    }

    fn inflate<N: Next>(
        &mut self,
        decoder: &mut Decoder,
        mut input: &[u8],
        mut output: Chunk,
        next: &mut N,
    ) -> Result<Chunk, Stop> {
        // A full output buffer may leave bytes inside the decoder: go on until it has room.
        loop {
            match decoder.decode(input, &mut output.bytes[output.filled..]) {
                Ok((used, produced)) => {
                    input = &input[used..];
                    output.filled += produced;
                    self.plain_bytes += produced as u64;
                }
                Err(error) => {
                    self.refuse(error)?;
                    return Ok(output);
                }
            }
            self.memory.decoder_holds(decoder.memory());
            self.check_caps()?;
            if output.filled == output.bytes.len() {
                output = next.plain(output)?;
                output.filled = 0;
                if !next.wants_plain() {
                    return Ok(output);
                }
            } else if input.is_empty() {
                return Ok(output);
            }
        }
    }

    /// The compression is no good: the rest is only hashed. Or it needs more memory: stop.
    fn refuse(&mut self, error: DecodeError) -> Result<(), Stop> {
        match error {
            DecodeError::Refused(why) => {
                self.refused = Some(why);
                Ok(())
            }
            DecodeError::Memory(_) => {
                let most = self.memory.limit();
                Err(Stop::Failed(UnpackError::Memory(most)))
            }
        }
    }

    fn check_caps(&self) -> Result<(), Stop> {
        let bytes = self.plain_bytes;
        let why = if bytes > self.limits.layer_bytes {
            format!(
                "more than {} bytes (limits.layerBytes)",
                self.limits.layer_bytes
            )
        } else if bytes > RATIO_FLOOR && bytes / self.limits.ratio.max(1) > self.expected.size {
            format!(
                "more than {} times its size (limits.ratio)",
                self.limits.ratio
            )
        } else {
            return Ok(());
        };
        Err(Stop::Failed(UnpackError::Refused(format!(
            "decompresses to {why}"
        ))))
    }
}
