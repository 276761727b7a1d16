//! Counters, under the names that existing installations scrape. Updated by direct calls,
//! one or two atomic operations each; there is no middleware.

use crate::blobspace::Usage;
use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::OnceLock;
use std::time::Duration;

/// Upper bounds of the latency buckets in seconds: from a warm file to a cold image.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds for cold fetches in seconds.
const FETCH_SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Status codes that have a place of their own in a [`Requests`].
const CODES: std::ops::Range<usize> = 100..600;

/// All metrics of the process. One per process, shared by `Arc`.
pub struct Metrics {
    registry: Registry,
    served: Requests,
    fetched: Requests,
    cold: HistogramVec,
    flights: IntGauge,
    queued: IntGauge,
    packs: IntGauge,
    space: IntGaugeVec,
}

/// Requests by method and code: a counter and a histogram, found once per pair.
struct Requests {
    total: IntCounterVec,
    seconds: HistogramVec,
    /// GET, then HEAD, by code. What the hot path uses.
    common: [Vec<OnceLock<(IntCounter, prometheus::Histogram)>>; 2],
}

impl Requests {
    fn new(registry: &Registry, side: &str, what: &str) -> Requests {
        let labels = ["method", "code"];
        let name = |rest: &str| format!("http_{side}_requests_{rest}");
        let total = register(registry, IntCounterVec::new(Opts::new(name("total"), format!("{what}.")), &labels));
        let options = HistogramOpts::new(name("duration_seconds"), format!("Seconds of {}.", what.to_lowercase()));
        let seconds = register(registry, HistogramVec::new(options.buckets(SECONDS.to_vec()), &labels));
        let common = || CODES.map(|_| OnceLock::new()).collect();
        Requests { total, seconds, common: [common(), common()] }
    }

    fn count(&self, method: &Method, code: StatusCode, elapsed: Duration) {
        let find = || {
            let labels = [label(method), code.as_str()];
            (self.total.with_label_values(&labels), self.seconds.with_label_values(&labels))
        };
        let row = match *method {
            Method::GET => Some(&self.common[0]),
            Method::HEAD => Some(&self.common[1]),
            _ => None,
        };
        let place = row.and_then(|row| row.get(usize::from(code.as_u16()) - CODES.start));
        match place {
            Some(place) => {
                let (total, seconds) = place.get_or_init(find);
                total.inc();
                seconds.observe(elapsed.as_secs_f64());
            }
            None => {
                let (total, seconds) = find();
                total.inc();
                seconds.observe(elapsed.as_secs_f64());
            }
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Registers everything in a registry of its own.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        let cold = HistogramOpts::new("blobserve_layer_fetch_duration_seconds", "Seconds of a cold fetch of a layer, by outcome.");
        let space = Opts::new("blobserve_blobspace_bytes", "Bytes of the blobspace, by what holds them.");
        let metrics = Metrics {
            served: Requests::new(&registry, "server", "Requests answered"),
            fetched: Requests::new(&registry, "client", "Requests sent to registries"),
            cold: register(&registry, HistogramVec::new(cold.buckets(FETCH_SECONDS.to_vec()), &["outcome"])),
            flights: gauge("blobserve_flights", "Images being resolved or fetched."),
            queued: gauge("blobserve_downloads_queued", "Downloads that wait for a place in the pool."),
            packs: gauge("blobserve_blobspace_packs", "Sealed packs."),
            space: register(&registry, IntGaugeVec::new(space, &["state"])),
            registry,
        };
        #[cfg(target_os = "linux")]
        if let Err(error) =
            metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
        {
            tracing::warn!(%error, "no process metrics");
        }
        metrics
    }

    /// One answered request (`http_server_requests_total`, `…_duration_seconds`; labels `method`, `code`).
    pub fn served(&self, method: &Method, code: StatusCode, elapsed: Duration) {
        self.served.count(method, code, elapsed);
    }

    /// One exchange with a registry (`http_client_requests_total`, `…_duration_seconds`).
    pub fn fetched(&self, method: &Method, code: StatusCode, elapsed: Duration) {
        self.fetched.count(method, code, elapsed);
    }

    /// One cold fetch of a layer, by outcome.
    pub fn cold_fetch(&self, outcome: &'static str, seconds: f64) {
        self.cold.with_label_values(&[outcome]).observe(seconds);
    }

    /// Flights under way, and downloads that wait for a place.
    pub fn activity(&self, flights: usize, queued: usize) {
        self.flights.set(as_gauge(flights as u64));
        self.queued.set(as_gauge(queued as u64));
    }

    /// What the blobspace holds.
    pub fn blobspace(&self, usage: &Usage) {
        self.packs.set(as_gauge(usage.packs));
        for (state, bytes) in [
            ("sealed", usage.sealed_bytes),
            ("leased", usage.leased_bytes),
            ("reserved", usage.reserved_bytes),
            ("records", usage.record_bytes),
        ] {
            self.space.with_label_values(&[state]).set(as_gauge(bytes));
        }
    }

    /// Text exposition format, process metrics included.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Bounds the label: a client may send any method.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        "PATCH" => "patch",
        _ => "other",
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Names and labels are constants of this file, and each is registered once: an error is a fault of the
/// program that every test would show.
#[allow(clippy::expect_used)]
fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a metric's name and labels are valid");
    registry.register(Box::new(metric.clone())).expect("a metric is registered once");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_the_names_that_installations_scrape() {
        let metrics = Metrics::new();
        let moment = Duration::from_millis(2);
        metrics.served(&Method::GET, StatusCode::OK, moment);
        metrics.served(&Method::GET, StatusCode::OK, moment);
        metrics.served(&Method::from_bytes(b"BREW").unwrap(), StatusCode::METHOD_NOT_ALLOWED, moment);
        metrics.fetched(&Method::HEAD, StatusCode::NOT_FOUND, moment);
        metrics.cold_fetch("ok", 0.3);
        let text = metrics.render();
        for line in [
            "http_server_requests_total{code=\"200\",method=\"get\"} 2",
            "http_server_requests_total{code=\"405\",method=\"other\"} 1",
            "http_server_requests_duration_seconds_count{code=\"200\",method=\"get\"} 2",
            "http_client_requests_total{code=\"404\",method=\"head\"} 1",
            "blobserve_layer_fetch_duration_seconds_count{outcome=\"ok\"} 1",
            "process_open_fds ",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
