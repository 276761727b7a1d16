//! Counters, under the names that existing installations scrape. Updated by direct calls,
//! two atomic operations each for a request; there is no middleware.
//!
//! `http_server_requests_total`, `http_server_requests_duration_seconds` and their `http_client_…`
//! twins carry the labels `method` (lower-case; what is no common method is `other`) and `code`.
//! Totals are read off the histograms' cells when scraped, so a request is counted once.

mod exchanges;

use crate::blobspace::Usage;
use exchanges::Exchanges;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::time::Duration;

/// Upper bounds of a cold fetch's duration, in seconds.
const FETCH_BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// All metrics of the process. One per process, shared by `Arc`.
pub struct Metrics {
    registry: Registry,
    server: Exchanges,
    client: Exchanges,
    cold_fetches: HistogramVec,
    flights: IntGauge,
    queued: IntGauge,
    packs: IntGauge,
    bytes: IntGaugeVec,
    evictions: IntCounter,
    encoded: IntCounterVec,
    encoded_bytes: IntCounterVec,
    connections: IntGauge,
    refused: IntCounter,
    handshakes_failed: IntCounter,
    log_lines_dropped: IntCounter,
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
        let metrics = Metrics {
            server: Exchanges::new("http_server_requests", "Requests answered"),
            client: Exchanges::new("http_client_requests", "Requests sent to registries"),
            cold_fetches: valid(HistogramVec::new(
                HistogramOpts::new(
                    "blobserve_layer_fetch_duration_seconds",
                    "Fetches of a layer from its registry until it could be served, by outcome.",
                )
                .buckets(FETCH_BUCKETS.to_vec()),
                &["outcome"],
            )),
            flights: gauge("blobserve_flights", "Images being resolved or fetched now."),
            queued: gauge(
                "blobserve_downloads_queued",
                "Downloads that wait for a worker.",
            ),
            packs: gauge(
                "blobserve_blobspace_packs",
                "Sealed packs in the blobspace.",
            ),
            bytes: valid(IntGaugeVec::new(
                Opts::new(
                    "blobserve_blobspace_bytes",
                    "Bytes that count against maxSizeBytes, by state: sealed, compressed (layers kept as they came), leased (evicted, still read), reserved, records.",
                ),
                &["state"],
            )),
            evictions: counter(
                "blobserve_blobspace_evictions_total",
                "Packs evicted to make room.",
            ),
            encoded: valid(IntCounterVec::new(
                Opts::new(
                    "blobserve_variants_made_total",
                    "Encoded variants of files that were made, by content coding.",
                ),
                &["coding"],
            )),
            encoded_bytes: valid(IntCounterVec::new(
                Opts::new(
                    "blobserve_variants_bytes_total",
                    "Bytes of the files that variants were made of (source) and of the variants (encoded), by content coding.",
                ),
                &["coding", "side"],
            )),
            connections: gauge("blobserve_connections", "Client connections open now."),
            refused: counter(
                "blobserve_connections_refused_total",
                "Client connections refused because too many were open.",
            ),
            handshakes_failed: counter(
                "blobserve_tls_handshakes_failed_total",
                "TLS handshakes of clients that came to no end: refused, broken off or too slow.",
            ),
            log_lines_dropped: counter(
                "blobserve_access_log_dropped_total",
                "Lines of the access log that were dropped: its file takes them too slowly, or not at all.",
            ),
            registry,
        };
        metrics.register(metrics.server.clone());
        metrics.register(metrics.client.clone());
        metrics.register(metrics.cold_fetches.clone());
        metrics.register(metrics.flights.clone());
        metrics.register(metrics.queued.clone());
        metrics.register(metrics.packs.clone());
        metrics.register(metrics.bytes.clone());
        metrics.register(metrics.evictions.clone());
        metrics.register(metrics.encoded.clone());
        metrics.register(metrics.encoded_bytes.clone());
        metrics.register(metrics.connections.clone());
        metrics.register(metrics.refused.clone());
        metrics.register(metrics.handshakes_failed.clone());
        metrics.register(metrics.log_lines_dropped.clone());
        metrics.register(ProcessCollector::for_self());
        metrics
    }

    fn register(&self, collector: impl Collector + 'static) {
        valid(self.registry.register(Box::new(collector)));
    }

    /// One answered request (`http_server_requests_total`, `…_duration_seconds`; labels `method`, `code`).
    pub fn served(&self, method: &http::Method, code: http::StatusCode, elapsed: Duration) {
        self.server.count(method, code, elapsed);
    }

    /// One exchange with a registry (`http_client_requests_total`, `…_duration_seconds`).
    pub fn fetched(&self, method: &http::Method, code: http::StatusCode, elapsed: Duration) {
        self.client.count(method, code, elapsed);
    }

    /// One cold fetch of a layer, by outcome: a word of a small fixed set.
    pub fn cold_fetch(&self, outcome: &'static str, seconds: f64) {
        self.cold_fetches
            .with_label_values(&[outcome])
            .observe(seconds);
    }

    /// Flights under way and downloads that wait for a worker, as they are now.
    pub fn activity(&self, flights: usize, queued: usize) {
        self.flights.set(as_gauge(flights as u64));
        self.queued.set(as_gauge(queued as u64));
    }

    /// The blobspace's sizes, as they are now, and its evictions so far.
    pub fn blobspace(&self, usage: &Usage) {
        self.packs.set(as_gauge(usage.packs));
        for (state, bytes) in [
            (
                "sealed",
                usage.sealed_bytes.saturating_sub(usage.source_bytes),
            ),
            ("compressed", usage.source_bytes),
            ("leased", usage.leased_bytes),
            ("reserved", usage.reserved_bytes),
            ("records", usage.record_bytes),
        ] {
            self.bytes.with_label_values(&[state]).set(as_gauge(bytes));
        }
        let counted = self.evictions.get();
        self.evictions
            .inc_by(usage.evictions.saturating_sub(counted));
    }

    /// One variant was made, in this coding, of a file of `source` bytes.
    pub fn encoded(&self, coding: &'static str, source: u64, encoded: u64) {
        self.encoded.with_label_values(&[coding]).inc();
        for (side, bytes) in [("source", source), ("encoded", encoded)] {
            let counter = self.encoded_bytes.with_label_values(&[coding, side]);
            counter.inc_by(bytes);
        }
    }

    /// A client connection was accepted; it is counted as open until the guard is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// A client connection was refused: too many were open.
    pub fn connection_refused(&self) {
        self.refused.inc();
    }

    /// A client began a TLS handshake; it counts as failed when the guard is dropped.
    pub fn handshake(&self) -> Handshake {
        Handshake(Some(self.handshakes_failed.clone()))
    }

    /// Lines of the access log that nobody will read.
    pub fn log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.inc_by(lines);
    }

    /// Text exposition format, process metrics included.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# metrics cannot be rendered: {error}\n"))
    }
}

/// Counts a connection as open while it is held. See [`Metrics::connection`].
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a handshake as failed, unless it succeeds. See [`Metrics::handshake`].
pub struct Handshake(Option<IntCounter>);

impl Handshake {
    /// It came to its end.
    pub fn succeeded(mut self) {
        self.0 = None;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if let Some(failed) = &self.0 {
            failed.inc();
        }
    }
}

fn gauge(name: &str, help: &str) -> IntGauge {
    valid(IntGauge::new(name, help))
}

fn counter(name: &str, help: &str) -> IntCounter {
    valid(IntCounter::new(name, help))
}

/// Names and labels are constants of this file: that they are valid and distinct is what its tests check.
fn valid<T>(made: Result<T, prometheus::Error>) -> T {
    made.unwrap_or_else(|error| unreachable!("a metric's name is not usable: {error}"))
}

/// A gauge is signed; nothing that is counted here comes near the difference.
fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, StatusCode};

    /// Everything that can be counted, once.
    fn busy() -> Metrics {
        let metrics = Metrics::new();
        let millis = Duration::from_millis;
        metrics.served(&Method::GET, StatusCode::OK, millis(1));
        metrics.served(&Method::GET, StatusCode::OK, millis(700));
        metrics.served(&Method::HEAD, StatusCode::NOT_FOUND, millis(2));
        let unheard = Method::from_bytes(b"BREW").unwrap();
        metrics.served(&unheard, StatusCode::METHOD_NOT_ALLOWED, millis(0));
        metrics.served(&Method::GET, StatusCode::from_u16(999).unwrap(), millis(0));
        metrics.fetched(
            &Method::GET,
            StatusCode::UNAUTHORIZED,
            Duration::from_secs(90),
        );
        metrics.cold_fetch("ok", 0.5);
        metrics.activity(3, 2);
        metrics.blobspace(&Usage {
            packs: 7,
            sealed_bytes: 1050,
            source_bytes: 50,
            leased_bytes: 200,
            reserved_bytes: 30,
            record_bytes: 4,
            evictions: 5,
        });
        metrics.encoded("br", 1000, 300);
        metrics.connection_refused();
        metrics.handshake().succeeded();
        drop(metrics.handshake());
        metrics.log_lines_dropped(6);
        metrics
    }

    #[test]
    fn what_was_counted_is_exposed_under_the_names_that_are_scraped() {
        let metrics = busy();
        let open = metrics.connection();
        drop(metrics.connection());
        let text = metrics.render();
        for line in [
            "# TYPE http_server_requests_total counter",
            "# TYPE http_server_requests_duration_seconds histogram",
            "http_server_requests_total{code=\"200\",method=\"get\"} 2",
            "http_server_requests_total{code=\"404\",method=\"head\"} 1",
            "http_server_requests_total{code=\"405\",method=\"other\"} 1",
            "http_server_requests_total{code=\"other\",method=\"get\"} 1",
            "http_server_requests_duration_seconds_count{code=\"200\",method=\"get\"} 2",
            "http_server_requests_duration_seconds_sum{code=\"200\",method=\"get\"} 0.701",
            "http_server_requests_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"0.001\"} 1",
            "http_server_requests_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"0.5\"} 1",
            "http_server_requests_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"1\"} 2",
            "http_server_requests_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"+Inf\"} 2",
            "http_client_requests_total{code=\"401\",method=\"get\"} 1",
            "http_client_requests_duration_seconds_bucket{code=\"401\",method=\"get\",le=\"10\"} 0",
            "http_client_requests_duration_seconds_bucket{code=\"401\",method=\"get\",le=\"+Inf\"} 1",
            "blobserve_layer_fetch_duration_seconds_count{outcome=\"ok\"} 1",
            "blobserve_flights 3",
            "blobserve_downloads_queued 2",
            "blobserve_blobspace_packs 7",
            "blobserve_blobspace_bytes{state=\"sealed\"} 1000",
            "blobserve_blobspace_bytes{state=\"compressed\"} 50",
            "blobserve_blobspace_bytes{state=\"leased\"} 200",
            "blobserve_blobspace_evictions_total 5",
            "blobserve_variants_made_total{coding=\"br\"} 1",
            "blobserve_variants_bytes_total{coding=\"br\",side=\"encoded\"} 300",
            "blobserve_variants_bytes_total{coding=\"br\",side=\"source\"} 1000",
            "blobserve_connections 1",
            "blobserve_connections_refused_total 1",
            "blobserve_tls_handshakes_failed_total 1",
            "blobserve_access_log_dropped_total 6",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no line `{line}` in\n{text}"
            );
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        drop(open);
        assert!(metrics.render().contains("blobserve_connections 0"));
    }

    #[test]
    fn every_family_has_its_help_and_a_name_by_the_conventions() {
        let text = busy().render();
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let mut words = line.split(' ').skip(2);
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            assert!(
                text.contains(&format!("# HELP {name} ")),
                "{name} has no help"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        }
    }
}
