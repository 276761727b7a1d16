//! The border between connections and answers: a connection knows nothing of images, an answer nothing
//! of sockets.

use super::body::Body;
use crate::access_log::AccessLog;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use std::future::Future;
use std::time::Duration;

/// Bytes of a request's head at most.
pub(super) const MOST_HEAD: usize = 64 << 10;

/// Who answers what a listener hears.
pub(crate) trait Respond: Send + Sync + 'static {
    /// Answers a request whose body is not looked at.
    fn respond(&self, request: &Parts) -> impl Future<Output = Response<Body>> + Send;

    /// The same, but nobody hears the answer, so it counts nowhere.
    fn rehearse(&self, request: &Parts) -> impl Future<Output = Response<Body>> + Send {
        self.respond(request)
    }

    /// A request was answered without asking [`Respond::respond`]: as it did a moment ago, or with a refusal.
    fn answered(&self, method: &Method, status: StatusCode, elapsed: Duration);

    /// Where answers are written down, if they are.
    fn access_log(&self) -> Option<&AccessLog> {
        None
    }
}
