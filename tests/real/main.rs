//! The real binary against real parts: `docker-registry`, `skopeo`, `umoci`, `buildah`, a root file
//! system of Debian by `mmdebstrap`, `containerd`, `oras`, Helm's SDK, `promtool`, `strace`, `curl`,
//! `nginx`, `httplint`, Chromium, and OpenSSL for a token service's signatures. `install.sh` fetches what is missing. Everything listens
//! on loopback; nothing but the installation leaves the machine.
//!
//! ```text
//! cargo test --features real --test real
//! ```

// A test binary exports nothing; `pub` says what a file offers to the others.
#![allow(unreachable_pub)]

mod artifacts;
mod binary;
mod browser;
mod builds;
mod clients;
mod disk;
mod kill;
mod layered;
mod layouts;
mod makers;
mod metrics;
mod parts;
mod proxies;
mod registries;
mod sources;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod trees;
mod webm;
