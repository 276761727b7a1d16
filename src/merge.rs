//! Several layers as one tree: the root file system that a runtime makes of them. Merges the
//! indexes of packs; copies no content. Pure: knows no network and no disk layout.
//!
//! What a caller may rely on: the tree is the one that applying the layers' archives in order makes (OCI
//! image specification, layer.md, "Applying Changesets"; where it leaves something open, what
//! containerd and umoci do): a whiteout hides what lower layers have and nothing of its own layer; an
//! opaque directory hides all that lower layers have in it; what is no directory replaces
//! what is there, a directory over a directory keeps its content; parents that are links are followed
//! inside the image; a hard link is what its target was at that time, in whichever layer. Costs grow
//! linearly with the entries.
//!
//! The merged index is named by the chain ID of its layers. Where a file lies in a layer's
//! pack follows from the diff ID and the version of the format alone: so an index stays right when a layer's
//! pack is evicted and made again, from whichever compression of it.

#[cfg(test)]
mod tests;

use crate::digest::Digest;
use crate::pack::{Entry, Merger, Origin, Pack, PackError, Summary};
use std::io::Write;
use std::ops::Deref;
use std::sync::Arc;

/// The chain ID of layers, base first (OCI image specification, config.md, "Layer ChainID"). None
/// without layers.
pub fn chain_id(diff_ids: impl IntoIterator<Item = Digest>) -> Option<Digest> {
    diff_ids
        .into_iter()
        .reduce(|chain, diff_id| Digest::sha256(format!("{chain} {diff_id}").as_bytes()))
}

/// Writes the merged index of the layers' packs, base first, of at most `most_bytes` of memory.
///
/// # Errors
/// [`PackError::Layer`]: the layers cannot be applied over each other; [`PackError::TooLarge`].
pub fn merge<P: Deref<Target = Pack>, W: Write>(
    layers: &[P],
    most_bytes: u64,
    out: W,
) -> Result<(W, Summary), PackError> {
    replay(Merger::new(), layers, most_bytes, out)
}

/// The same of the top layers alone, base first, while those below them are not here yet. What this index finds,
/// or says is not there, is so in the tree of all layers too, whatever the others are, if that
/// can be made at all; where they can change the answer it is [`ResolveError::Below`](crate::pack::ResolveError). A
/// directory that is found may have more in it.
///
/// # Errors
/// As [`merge`]: the tree of all layers cannot be made either.
pub fn merge_upper<P: Deref<Target = Pack>, W: Write>(
    layers: &[P],
    most_bytes: u64,
    out: W,
) -> Result<(W, Summary), PackError> {
    replay(Merger::upper(), layers, most_bytes, out)
}

fn replay<P: Deref<Target = Pack>, W: Write>(
    mut merger: Merger,
    layers: &[P],
    most_bytes: u64,
    out: W,
) -> Result<(W, Summary), PackError> {
    let chain = chain_id(layers.iter().map(|layer| layer.origin().diff_id));
    let chain = chain.ok_or_else(|| PackError::Layer("there are no layers".into()))?;
    for layer in layers {
        merger.layer(layer)?;
        if merger.index_bytes() > most_bytes {
            return Err(PackError::TooLarge(format!(
                "merging needs more than {most_bytes} bytes of memory"
            )));
        }
    }
    let origin = Origin {
        digest: chain,
        size: layers.iter().map(|layer| layer.origin().size).sum(),
        diff_id: chain,
    };
    merger.finish(&origin, out)
}

/// Bytes of memory that [`merge`] needs for these layers, at most.
pub fn memory<P: Deref<Target = Pack>>(layers: &[P]) -> u64 {
    // A record takes 168 bytes and twice its strings, in the layer's index 76 and its strings.
    let indexes: u64 = layers.iter().map(|layer| layer.index_bytes()).sum();
    indexes / 2 * 5 + (64 << 10)
}

/// A tree and the packs that hold its contents: one layer's own pack, or a merged index with
/// those of its layers. Look-ups are the index's ([`Deref`]).
#[derive(Clone)]
pub struct Tree<P> {
    index: P,
    layers: Option<Arc<[P]>>,
}

impl<P: Deref<Target = Pack>> Tree<P> {
    /// The tree of one layer.
    pub fn of_layer(pack: P) -> Tree<P> {
        Tree {
            index: pack,
            layers: None,
        }
    }
    /// The tree of a merged index. None: it is not of so many layers.
    pub fn merged(index: P, layers: Arc<[P]>) -> Option<Tree<P>> {
        (index.sources() == layers.len()).then_some(Tree {
            index,
            layers: Some(layers),
        })
    }
    /// The pack whose records are looked up.
    pub fn index(&self) -> &P {
        &self.index
    }
    /// The layers of a merged index, base first.
    pub fn layers(&self) -> Option<&[P]> {
        self.layers.as_deref()
    }
    /// The pack that holds a file's content. None where it lies outside of it, which no index
    /// of ours says.
    pub fn holder(&self, entry: &Entry<'_>) -> Option<&P> {
        match &self.layers {
            None => Some(&self.index),
            Some(layers) => layers.get(usize::from(entry.source)),
        }
        .filter(|pack| pack.holds(entry.offset, entry.length))
    }
    /// A file's content. Touches its pages.
    pub fn content(&self, entry: &Entry<'_>) -> Option<&[u8]> {
        let start = usize::try_from(entry.offset).ok()?;
        let end = usize::try_from(entry.offset.checked_add(entry.length)?).ok()?;
        self.holder(entry)?.bytes().get(start..end)
    }
    /// A page of one of the packs could not be read.
    pub fn poisoned(&self) -> bool {
        let layers = self.layers.as_deref().unwrap_or_default();
        self.index.poisoned() || layers.iter().any(|pack| pack.poisoned())
    }
}

impl<P: Deref<Target = Pack>> Deref for Tree<P> {
    type Target = Pack;
    fn deref(&self) -> &Pack {
        &self.index
    }
}
