//! blobserve serves the files of container images and OCI artifacts over HTTP.
//!
//! Modules in reading order, from a request's text to the bytes on disk:
//!
//! 1. [`digest`], [`mod@reference`], [`oci`]: the vocabulary. Digests, image
//!    references, manifests. Pure.
//! 2. [`config`]: the configuration file, checked once, then only read; [`mod@rules`]: what an image itself
//!    says about how it is served. Pure.
//! 3. [`http`]: listener, the recipe that answers a request, and the pure
//!    decisions in it (ranges, conditions, content types, cache policy).
//! 4. [`images`]: the facade. A reference becomes a view of files; one flight
//!    per thing; freshness of tags.
//! 5. [`registry`]: manifests and blobs from registries and OCI layouts; [`archive`]: tar files
//!    of images, as layouts.
//! 6. [`unpack`], [`modify`] and [`encode`]: a compressed layer becomes a pack, verified; a
//!    pack becomes a side pack with replacements applied, or with encoded variants of files.
//! 7. [`pack`]: the file format that a layer is stored and served in.
//!    [`merge`]: several layers as one tree.
//! 8. [`blobspace`]: the size-bounded directory that holds packs and records.
//! 9. [`service`], [`admin`], [`metrics`], [`access_log`], [`control`], [`shutdown`], [`cli`]: assembly, probes, counters,
//!    one line an answer, life cycle, the commands.
//!
//! `ARCHITECTURE.md` draws the map and states the rules between the modules.

pub mod access_log;
pub mod admin;
pub mod archive;
pub mod blobspace;
pub mod cli;
pub mod config;
pub mod control;
pub mod digest;
pub mod encode;
pub mod http;
pub mod images;
pub mod merge;
pub mod metrics;
pub mod modify;
pub mod oci;
pub mod pack;
pub mod reference;
pub mod registry;
pub mod rules;
pub mod service;
pub mod shutdown;
pub mod tls;
pub mod unpack;
