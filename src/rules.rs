//! What an image itself says about how it is served: the files `_redirects` and `_headers` in its
//! workdir, in Netlify's format. Pure: bytes in, rules and faults out; a path in, a decision out.
//!
//! What a caller may rely on: parsing is bounded in size, rules and faults, and a line that is not
//! understood costs that line only. No rule leads out of the image, since a destination is a cleaned
//! path below the workdir, never a URL; no captured text becomes a separator, a dot segment or a
//! header. What an image may not set is decided in [`fields`], which the configuration asks too.
//! Whether a repository's images are asked at all is for the caller to know.

pub mod fields;
mod headers;
mod pattern;
mod redirects;
mod template;

pub use headers::Headers;
pub use redirects::{Action, Destination, Redirects};

use crate::digest::clipped;
use std::fmt;

/// Names of the files, in the workdir.
pub const REDIRECTS: &str = "_redirects";
/// See [`REDIRECTS`].
pub const HEADERS: &str = "_headers";
/// Bytes of one of the files; of a larger one nothing holds.
pub const MOST_BYTES: u64 = 256 << 10;
/// Faults of one file that are told; what more there are is counted in one line.
const MOST_FAULTS: usize = 20;

/// The rules of one image. None: its repository does not honour that file, so it is a file like others.
#[derive(Debug, Default)]
pub struct Rules {
    /// Of `_redirects`; empty if there is none.
    pub redirects: Option<Redirects>,
    /// Of `_headers`; empty if there is none.
    pub headers: Option<Headers>,
}

impl Rules {
    /// The path (cleaned, below the workdir) is of a file that is honoured, and so is not served.
    pub fn hide(&self, path: &[u8]) -> bool {
        (self.redirects.is_some() && path == REDIRECTS.as_bytes())
            || (self.headers.is_some() && path == HEADERS.as_bytes())
    }
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// What, with the value, and what to write instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

/// Faults of one file, bounded.
#[derive(Default)]
struct Faults {
    told: Vec<Fault>,
    more: usize,
}

impl Faults {
    fn push(&mut self, line: usize, message: impl Into<String>) {
        if self.told.len() >= MOST_FAULTS {
            self.more += 1;
            return;
        }
        let message = clipped(&message.into());
        self.told.push(Fault { line, message });
    }

    fn finish(mut self) -> Vec<Fault> {
        if let (Some(last), true) = (self.told.last(), self.more > 0) {
            let (line, more) = (last.line, self.more);
            let message = format!("and {more} more faults in the lines below");
            self.told.push(Fault { line, message });
        }
        self.told
    }
}

/// The lines of a file that say something, numbered from 1: no comments, no empty ones. A line that is not
/// UTF-8 is a fault.
fn lines<'a>(bytes: &'a [u8], faults: &mut Faults) -> Vec<(usize, &'a str)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(text) if text.trim_start().is_empty() || text.trim_start().starts_with('#') => {}
            Ok(text) => lines.push((index + 1, text.trim_end())),
            Err(_) => faults.push(index + 1, "is not UTF-8, save the file as UTF-8"),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
