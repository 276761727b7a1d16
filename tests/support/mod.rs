//! What the integration tests share: images of any shape, registries that misbehave on
//! request, and the real service to put between them and a client. Everything runs over
//! real sockets on loopback; nothing leaves the machine.
//!
//! ```text
//! let registry = Registry::start().await;
//! let pushed = registry.push("team/app", "v1", &Image::of(Layer::new().file("index.html", "hi")));
//! registry.fault(Fault::TearAfter { bytes: 100 }).once().on_blob(&pushed.layers[0]);
//! let site = Site::start(&[&registry], json!({"timeout": "2s"})).await;
//! let answer = site.get(&registry.path("team/app:v1", "/index.html")).await;
//! ```

// Every test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod commands;
pub mod image;
pub mod process;
pub mod registry;
pub mod service;

#[allow(unused_imports)]
pub use {
    client::{Client, Response},
    image::{Encoding, Image, Index, Layer},
    process::Process,
    registry::{Auth, Fault, Lists, Pushed, Registry},
    serde_json::json,
    service::Site,
};

/// Deterministic bytes that do not compress: xorshift from `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress well without being a bomb: a KiB of noise again and again.
pub fn ballast(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = noise(seed, 1024).repeat(length.div_ceil(1024));
    bytes.truncate(length);
    bytes
}
