//! The access log: one line for each answer, written off the request's way.
//!
//! What a caller may rely on: writing a line never waits. A thread puts it into a buffer of its own
//! (bounded); one thread empties the buffers into the file, at least once a second and when the log
//! is closed. Lines that found their buffer full, and those that could not be written, are counted.
//! Lines of one thread are in the order in which their answers ended; those of two may be a second apart.
//!
//! Whatever a client sends ends up inside its line: control characters, quotes and bytes that are no
//! text are escaped.

mod line;
mod writer;

use crate::config::{AccessFormat, AccessLogConfig};
use crate::metrics::Metrics;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use writer::Writer;

/// What is logged of a request, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The client's address.
    pub remote: IpAddr,
    /// Its method.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// Its version.
    pub version: http::Version,
    /// The host that it names.
    pub host: Option<&'a [u8]>,
    /// `Referer`.
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
}

/// What is logged of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Its status; [`GONE`] for one that the client did not wait for.
    pub status: u16,
    /// Bytes of the body that were sent, or were on their way when the client left.
    pub bytes: u64,
    /// From the request's head to the end of the body.
    pub duration: Duration,
    /// The canonical image reference.
    pub reference: Option<&'a str>,
    /// Whether the image was there; None: no image was asked for.
    pub cache: Option<Cache>,
}

/// The status that stands for "the client left before there was one", as nginx has it.
pub const GONE: u16 = 499;

/// Whether an answer's image was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// It was: nothing was waited for.
    Warm,
    /// It had to be resolved or fetched.
    Cold,
}

/// An open access log. Clones share.
#[derive(Clone)]
pub struct AccessLog {
    format: AccessFormat,
    writer: Arc<Writer>,
}

impl AccessLog {
    /// Opens the file and starts the thread that writes.
    ///
    /// # Errors
    /// One line for the operator: the file cannot be opened, or there is no thread to be had.
    pub fn open(config: &AccessLogConfig, metrics: Arc<Metrics>) -> Result<AccessLog, String> {
        Ok(AccessLog {
            format: config.format,
            writer: Arc::new(Writer::start(config.file.clone(), metrics)?),
        })
    }

    /// Writes a line about an answer that has just ended. Does not wait.
    pub fn write(&self, asked: &Asked<'_>, answered: &Answered<'_>) {
        self.writer.line(|into, clock| {
            let now = clock.at(SystemTime::now());
            match self.format {
                AccessFormat::Combined => line::combined(into, &now, asked, answered),
                AccessFormat::Json => line::json(into, &now, asked, answered),
            }
        });
    }

    /// Opens the file anew, where there is one: whoever rotates logs has renamed it. The thread does it
    /// soon; if it cannot be opened the old one goes on, and the log says so.
    pub fn reopen(&self) {
        self.writer.reopen();
    }

    /// Writes out what is there and ends the thread; lines that come later are lost. Blocks until then,
    /// or until `limit` has gone by: who reads our standard output may have stopped reading.
    pub fn close(&self, limit: Duration) {
        self.writer.close(limit);
    }
}

#[cfg(test)]
mod tests;
