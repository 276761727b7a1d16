//! From a compressed layer to a pack: decompress, verify, apply the entry policy.
//! Blocking and pure of network and disk layout: reads a `Read`, writes a `Write`.
//!
//! The recipe (each step in `unpack/`):
//! 1. Read compressed bytes, count and hash them (layer digest).
//! 2. Decompress into recycled 1 MiB buffers (`inflate`), under the caps.
//! 3. Hash the decompressed bytes (diff ID), on a thread of its own when cores are idle.
//! 4. Parse tar (`tar`), clean names, refuse what is not understood (`policy`).
//! 5. Write contents and index ([`crate::pack::Writer`]).
//! 6. Read the stream to its end; compare size, digest and diff ID. Only then `Ok`.

mod inflate;
mod memory;
mod policy;
mod sink;
mod source;
mod stages;
pub(crate) mod tar;
#[cfg(test)]
mod tests;

use crate::config::Limits;
use crate::digest::Digest;
use crate::pack::{Origin, Summary};
use source::Ended;
use std::io::{self, Read, Write};

/// What the manifest and the image configuration promise of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Size of the compressed bytes.
    pub size: u64,
    /// Media type, which may lie: the bytes decide where they contradict it.
    pub media_type: String,
    /// Digest of the tar; None when there is no image configuration.
    pub diff_id: Option<Digest>,
    /// What the bytes are.
    pub form: Form,
}

/// What the bytes of a layer are to become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// A tar, compressed or not: its tree.
    #[default]
    Tar,
    /// A tar of an artifact's directory, whose entries all come to lie below this clean path.
    TarBelow(Vec<u8>),
    /// No tar: the bytes as they are make the one file with this clean path.
    File(Vec<u8>),
}

impl Expected {
    /// What tells packs apart: the layer's digest, and what was made of it where that is more than its tree.
    pub fn identity(&self) -> Digest {
        let (form, path) = match &self.form {
            Form::Tar => return self.digest,
            Form::TarBelow(path) => ("below", path),
            Form::File(path) => ("file", path),
        };
        let start = format!("{form} {} ", self.digest);
        Digest::sha256(&[start.as_bytes(), path].concat())
    }
}

/// Why a layer was not unpacked. The texts say what it does; the caller knows its full name.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The bytes are those that the digest names, and they are no good (bomb, refused tar,
    /// wrong diff ID): trying again cannot help.
    #[error("{0}")]
    Refused(String),
    /// The bytes are not those that the manifest names (size or digest): the source is wrong.
    #[error("{0}")]
    Mismatch(String),
    /// The index, or a decoder's window, needs more memory than was admitted.
    #[error("layer needs more memory to unpack than {0} bytes")]
    Memory(u64),
    /// The source failed; the inner error is what its `Read` returned.
    #[error("reading the layer failed: {0}")]
    Read(#[source] io::Error),
    /// Writing failed; the inner error is what the `Write` returned.
    #[error("writing the pack failed: {0}")]
    Write(#[source] io::Error),
}

/// How one unpack may use the machine.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Three threads a layer (cores are idle), or one (as many layers as cores are in flight).
    pub threads: Threads,
    /// Bytes that the index may hold in memory, with what a zstd window has over 8 MiB.
    pub index_bytes: u64,
}

/// See [`Resources::threads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The caller's only.
    One,
    /// The caller's and two more, for the duration of the call.
    Three,
}

/// Unpacks a layer. When this returns Ok, size, digest and diff ID were verified over all of
/// the bytes. A refusal that was found before the stream's end is only reported as `Refused` after the
/// rest was read and the digest matched (else it is the source's fault: `Mismatch`), except
/// where reading on is the danger (caps). Never panics on any input.
pub fn unpack<R: Read + Send, W: Write + Send>(
    blob: R,
    expected: &Expected,
    limits: &Limits,
    resources: &Resources,
    out: W,
) -> Result<(W, Summary), UnpackError> {
    let memory = memory::Memory::new(resources.index_bytes);
    let mut sink = sink::Sink::new(out, limits, &memory, expected);
    let outcome = match resources.threads {
        Threads::One => stages::one_thread(blob, expected, limits, &memory, &mut sink)?,
        Threads::Three => stages::three_threads(blob, expected, limits, &memory, &mut sink)?,
    };
    let refused = match outcome.ended {
        Ended::Failed(error) => return Err(error),
        Ended::Gone => {
            return Err(UnpackError::Write(io::Error::other(
                "unpacking was abandoned",
            )));
        }
        Ended::Complete { size, .. } if size != expected.size => {
            return Err(UnpackError::Mismatch(format!(
                "ends after {size} bytes, its manifest says {}",
                expected.size
            )));
        }
        Ended::Complete { refused, .. } => refused,
    };
    if outcome.digest != expected.digest {
        return Err(UnpackError::Mismatch(format!(
            "came with other bytes (their digest is {})",
            outcome.digest
        )));
    }
    // The compression's fault explains a tar that is cut short, not the other way round.
    if let Some(why) = refused.or_else(|| sink.check().err()) {
        return Err(UnpackError::Refused(format!(
            "is refused ({}): {why}",
            expected.media_type
        )));
    }
    let found = outcome.diff_id;
    if expected.diff_id.is_some_and(|diff_id| diff_id != found) {
        return Err(UnpackError::Refused(format!(
            "holds a tar with digest {found}, not with the diff ID of the image's configuration"
        )));
    }
    let (digest, diff_id) = match expected.form {
        Form::Tar => (outcome.digest, found),
        // Packs of one blob under two names are two packs, in a chain too.
        Form::TarBelow(_) | Form::File(_) => (expected.identity(), expected.identity()),
    };
    sink.finish(&Origin {
        digest,
        size: expected.size,
        diff_id,
    })
}
