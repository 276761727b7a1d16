//! The listener, and the recipe that answers a request.
//!
//! `listen` accepts connections, `transport` is TCP or TLS, `socket` keeps their time and `http1` reads
//! their requests; `respond` is the border; `server` counts; `serve` is the recipe.
//! The decisions in it (`path`, `locate`, `lead`, `decide` over `conditional` and `range`, `content_type`,
//! `cache`, `encoding`, `inline`, `listing`, `fields`, `host`, `hosts`) are pure and tested as tables; `offer`
//! chooses the file, a sidecar or a variant, `represent` makes answers of them,
//! `about` answers what is asked about an image,
//! `directory` answers where listings are on (`listing`, `archive`), `error` maps what can fail to statuses, `body` sends.
//!
//! Never sees a disk path, a registry or a pack: only views of [`crate::images`].

// What cannot be told is an answer as well, and moves as one.
#[allow(clippy::result_large_err)]
mod about;
mod access;
mod archive;
mod body;
mod cache;
mod conditional;
mod content_type;
mod deadline;
mod decide;
mod directory;
mod early;
mod encoding;
mod error;
mod fields;
mod frames;
mod host;
mod hosts;
mod http1;
mod inline;
mod lead;
mod listen;
mod listing;
mod locate;
mod offer;
mod outcome;
mod path;
mod plain;
mod range;
mod reactors;
#[allow(clippy::result_large_err)]
mod redirect;
mod remembered;
mod render;
mod repr_digest;
mod represent;
mod respond;
// What cannot be served is an answer as well, and moves as one.
#[allow(clippy::result_large_err)]
mod serve;
mod server;
mod socket;
mod streams;
mod transport;

pub(crate) use body::Body;
pub use decide::{Decision, Facts, decide};
pub use encoding::Accepted;
pub(crate) use listen::Listen;
pub(crate) use respond::Respond;
pub use server::Server;
