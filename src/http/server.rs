//! The server of images: what [`Listen`] accepts, [`Serve`] answers and [`Metrics`] count.

use super::body::Body;
use super::hosts::Hosts;
use super::listen::{Listen, Respond};
use super::reactors::Reactors;
use super::serve::Serve;
use crate::config::{Config, Mode};
use crate::images::Images;
use crate::metrics::Metrics;
use crate::shutdown::Lifecycle;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Connections at once; one more is refused with a 503.
const MOST_CONNECTIONS: usize = 10_000;

/// Answers on one listener. Clones share.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    serve: Serve,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
}

impl Server {
    /// Puts it together. Starts nothing.
    pub fn new(
        config: &Config,
        images: Images,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> Server {
        let serve = Serve {
            images,
            hosts: Hosts::new(config),
            timeout: config.timeout,
            head_any_path: config.head_any_path,
            sandbox_unconfigured: config.mode == Mode::Serve,
        };
        Server(Arc::new(Shared {
            serve,
            metrics,
            lifecycle,
        }))
    }

    /// Accepts until the phase is [`Phase::Stopping`](crate::shutdown::Phase::Stopping); returns when the
    /// last connection has ended, `limit` later at the latest.
    pub async fn run(self, listener: TcpListener, limit: Duration) {
        let shared = self.0;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reactors = Reactors::start(cores)
            .inspect_err(|error| tracing::warn!(%error, "connections share one runtime"))
            .ok();
        let listen = Listen {
            reactors,
            most_connections: MOST_CONNECTIONS,
            lifecycle: shared.lifecycle.clone(),
            limit,
            tls: None,
            metrics: Some(shared.metrics.clone()),
        };
        listen.run(listener, shared).await;
    }
}

impl Respond for Shared {
    async fn respond(&self, request: &Parts) -> Response<Body> {
        let started = Instant::now();
        let response = self.serve.answer(request).await;
        self.metrics
            .served(&request.method, response.status(), started.elapsed());
        response
    }

    fn remembered(&self, status: StatusCode, elapsed: Duration) {
        self.metrics.served(&Method::GET, status, elapsed);
    }
}
