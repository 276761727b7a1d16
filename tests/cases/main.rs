//! Cases that others wrote, from the folder beside the checkout; `BLOBSERVE_CASES` names
//! another one.

mod encoding;
mod http;
mod layers;
mod oci;
mod paths;
mod references;
mod registry;
mod root;
#[path = "../support/mod.rs"]
mod support;
mod tar;
mod wire;

use std::path::PathBuf;

/// The folder of the cases.
fn cases_dir() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/cases");
    std::env::var_os("BLOBSERVE_CASES").map_or_else(|| beside.into(), PathBuf::from)
}
