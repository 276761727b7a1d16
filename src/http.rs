//! The listener, and the recipe that answers a request.
//!
//! `server` accepts and speaks HTTP; `serve` is the recipe, each step of it a function; the decisions
//! in it (`path`, `conditional`, `range`, `content_type`, `cache`, `inline`, `listing`) are pure and
//! tested as tables; `error` maps what can fail to statuses; `body` sends. Never sees a disk path,
//! a registry or a pack: only views of [`crate::images`].

mod body;
mod cache;
mod conditional;
mod content_type;
mod error;
mod inline;
mod listing;
mod path;
mod range;
mod serve;
mod server;

use body::Body;
pub use server::Server;
