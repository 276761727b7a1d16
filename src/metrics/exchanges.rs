//! Requests and answers by method and status: a histogram each, of which the total is read off.
//!
//! One count is two atomic additions on a cell that is found by index and thread; cells come into being with
//! the first count, so only what happened is exposed.

use http::{Method, StatusCode};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Label values of `method`; the last stands for every other method.
const METHODS: [&str; 8] = [
    "get", "head", "post", "put", "patch", "delete", "options", "other",
];
/// Status codes 100 to 599, and one place for whatever else.
const CODES: usize = 501;
/// Upper bounds, in microseconds: from a warm answer to a cold one that waits for its registry.
const BOUNDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// One direction's counts. Clones share.
#[derive(Clone)]
pub(super) struct Exchanges(Arc<Inner>);

struct Inner {
    total: Desc,
    duration: Desc,
    cells: Box<[OnceLock<Box<[Cell; SHARDS]>>]>,
}

/// Threads count in cells of their own, as far as there are, so that a count takes no line from another core.
const SHARDS: usize = 4;
static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
}

/// One pair of method and code, as counted by some threads.
#[derive(Default)]
#[repr(align(64))]
struct Cell {
    /// Not cumulative; the last is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Exchanges {
    /// `<name>_total` and `<name>_duration_seconds`.
    pub(super) fn new(name: &str, help: &str) -> Exchanges {
        let desc = |suffix: &str, help: String| {
            let labels = vec!["method".to_owned(), "code".to_owned()];
            super::valid(Desc::new(
                format!("{name}_{suffix}"),
                help,
                labels,
                HashMap::new(),
            ))
        };
        Exchanges(Arc::new(Inner {
            total: desc("total", format!("{help}.")),
            duration: desc(
                "duration_seconds",
                format!("{help}: time until the head of the answer."),
            ),
            cells: (0..METHODS.len() * CODES)
                .map(|_| OnceLock::new())
                .collect(),
        }))
    }

    /// Counts one.
    pub(super) fn count(&self, method: &Method, code: StatusCode, elapsed: Duration) {
        let code = usize::from(code.as_u16() - 100).min(CODES - 1);
        let cells = self.0.cells[method_index(method) * CODES + code].get_or_init(Box::default);
        let cell = &cells[SHARD.with(|shard| *shard)];
        let micros = elapsed.as_micros();
        let bucket = BOUNDS.iter().position(|bound| micros <= u128::from(*bound));
        cell.buckets[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        cell.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        _ => METHODS.len() - 1,
    }
}

impl Cell {
    fn histogram(cells: &[Cell]) -> Histogram {
        let sum = |one: &dyn Fn(&Cell) -> &AtomicU64| {
            let counts = cells.iter().map(|cell| one(cell).load(Ordering::Relaxed));
            counts.sum::<u64>()
        };
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (index, bound) in BOUNDS.iter().enumerate() {
            count += sum(&|cell| &cell.buckets[index]);
            let mut exposed = Bucket::default();
            exposed.set_upper_bound(*bound as f64 / 1e6);
            exposed.set_cumulative_count(count);
            buckets.push(exposed);
        }
        count += sum(&|cell| &cell.buckets[BOUNDS.len()]);
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum(&|cell| &cell.nanoseconds) as f64 / 1e9);
        histogram
    }
}

impl Collector for Exchanges {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.total, &self.0.duration]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (mut totals, mut durations) = (Vec::new(), Vec::new());
        for (index, cell) in self.0.cells.iter().enumerate() {
            let Some(cell) = cell.get() else {
                continue;
            };
            let code = match index % CODES {
                code if code == CODES - 1 => "other".to_owned(),
                code => (code + 100).to_string(),
            };
            // In the order of their names, as the text format has labels.
            let labels = vec![
                label("code", code),
                label("method", METHODS[index / CODES].to_owned()),
            ];
            let histogram = Cell::histogram(&cell[..]);
            let mut counter = Counter::default();
            counter.set_value(histogram.get_sample_count() as f64);
            let mut total = Metric::from_label(labels.clone());
            total.set_counter(counter);
            totals.push(total);
            let mut duration = Metric::from_label(labels);
            duration.set_histogram(histogram);
            durations.push(duration);
        }
        vec![
            family(&self.0.total, MetricType::COUNTER, totals),
            family(&self.0.duration, MetricType::HISTOGRAM, durations),
        ]
    }
}

fn label(name: &str, value: String) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value);
    label
}

fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
