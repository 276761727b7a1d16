//! `replacements`: literal search and replace in files of a layer, into a side pack.
//! Pure of network: reads the base pack, writes a pack of the modified files only.

use crate::config::Replacement;
use crate::pack::{Pack, PackError, Summary};
use std::io::Write;

/// The replacements of one repository, in order.
#[derive(Clone, Debug)]
pub struct Rules(Vec<Replacement>);

impl Rules {
    /// None when there are no replacements.
    pub fn new(replacements: &[Replacement]) -> Option<Rules> {
        let _ = replacements;
        todo!()
    }
    /// Names the rules: equal rules, equal fingerprint (128 bits of SHA-256, hex). Part of the side pack's key.
    pub fn fingerprint(&self) -> String {
        todo!()
    }
    /// Writes a pack that holds the modified files, under every path of the tree that
    /// leads to the same content (hard links change together). Also returns one warning
    /// line for each rule whose file is missing; `workdir` helps to word it.
    pub fn apply<W: Write>(
        &self,
        base: &Pack,
        workdir: Option<&str>,
        out: W,
    ) -> Result<(W, Summary, Vec<String>), PackError> {
        let _ = (base, workdir, out);
        todo!()
    }
}
