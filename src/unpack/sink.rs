//! The last stage: tar parsing, entry policy and pack, and what became of them. Bytes that are no tar
//! make one file.

use super::memory::Memory;
use super::policy::{Policy, Rejected, rejected};
use super::tar::{Parser, Receiver, TarError};
use super::{Expected, Form, UnpackError};
use crate::config::Limits;
use crate::pack::{Origin, Summary};
use std::io::Write;

/// Parser and pack of one layer.
pub(super) struct Sink<'a, W> {
    /// None: the bytes are a file.
    parser: Option<Parser>,
    policy: Policy<'a, W>,
    /// What went wrong before the first byte.
    failed: Option<Rejected>,
    /// Why the tar is refused, once it is.
    refused: Option<String>,
}

impl<'a, W: Write> Sink<'a, W> {
    pub(super) fn new(
        out: W,
        limits: &'a Limits,
        memory: &'a Memory,
        expected: &Expected,
    ) -> Sink<'a, W> {
        let mut sink = Sink {
            failed: None,
            parser: Some(Parser::new(limits.header_bytes)),
            policy: Policy::new(out, limits, memory),
            refused: None,
        };
        match &expected.form {
            Form::Tar => {}
            Form::TarBelow(directory) => sink.policy.put_below(directory),
            Form::File(path) => {
                sink.parser = None;
                sink.failed = sink.policy.file(path, expected.size).err();
            }
        }
        sink
    }

    /// Whether the tar is refused, so that the rest is only hashed.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Takes decompressed bytes. Err ends the unpacking at once; a refusal is kept until
    /// [`Sink::finish`], after the digest is known.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        if self.refused.is_some() {
            return Ok(());
        }
        let fed = match (self.failed.take(), &mut self.parser) {
            (Some(failed), _) => Err(TarError::Receiver(failed)),
            (None, Some(parser)) => parser.feed(bytes, &mut self.policy),
            (None, None) => self.policy.content(bytes).map_err(TarError::Receiver),
        };
        match fed {
            Ok(()) => Ok(()),
            Err(TarError::Refused(why) | TarError::Receiver(Rejected::Layer(why))) => {
                self.refused = Some(why);
                Ok(())
            }
            Err(TarError::Cap(why) | TarError::Receiver(Rejected::Cap(why))) => {
                Err(UnpackError::Refused(why))
            }
            Err(TarError::Receiver(Rejected::Fatal(error))) => Err(error),
        }
    }

    /// Err is the reason for a refusal, if there is one (the stream's end included).
    pub(super) fn check(&self) -> Result<(), String> {
        if self.failed.is_some() {
            return Err("its file cannot be written".to_owned());
        }
        match &self.refused {
            Some(why) => Err(why.clone()),
            None => self.parser.as_ref().map_or(Ok(()), Parser::finish),
        }
    }

    /// Writes the pack's index.
    pub(super) fn finish(self, origin: &Origin) -> Result<(W, Summary), UnpackError> {
        self.policy
            .into_writer()
            .finish(origin)
            .map_err(|error| match rejected(error) {
                Rejected::Layer(why) | Rejected::Cap(why) => UnpackError::Refused(why),
                Rejected::Fatal(error) => error,
            })
    }
}
