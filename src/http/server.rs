//! The server of images: what [`Listen`] accepts, [`Serve`] answers and [`Metrics`] count.

use super::access::Visit;
use super::body::Body;
use super::directory::Directories;
use super::hosts::Hosts;
use super::listen::Listen;
use super::reactors::Reactors;
use super::respond::Respond;
use super::serve::Serve;
use crate::access_log::AccessLog;
use crate::config::{Config, Mode};
use crate::images::Images;
use crate::metrics::Metrics;
use crate::shutdown::Lifecycle;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Connections at once; one more is refused with a 503.
const MOST_CONNECTIONS: usize = 10_000;

/// Answers on one listener. Clones share.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    serve: Serve,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    access_log: Option<AccessLog>,
}

impl Server {
    /// Puts it together. Starts nothing.
    pub fn new(
        config: &Config,
        images: Images,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
        access_log: Option<AccessLog>,
    ) -> Server {
        let serve = Serve {
            images,
            hosts: Hosts::new(config),
            timeout: config.timeout,
            head_any_path: config.head_any_path,
            sandbox_unconfigured: config.mode == Mode::Serve,
            directories: Directories::new(),
        };
        Server(Arc::new(Shared {
            serve,
            metrics,
            lifecycle,
            access_log,
        }))
    }

    /// Accepts until the phase is [`Phase::Stopping`](crate::shutdown::Phase::Stopping); returns when the
    /// last connection has ended, `limit` later at the latest. Where there is an acceptor beside a
    /// listener, it shakes hands with each of its clients; all share the places for connections.
    pub async fn run(self, listeners: Vec<(TcpListener, Option<TlsAcceptor>)>, limit: Duration) {
        let shared = self.0;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reactors = Reactors::start(cores)
            .inspect_err(|error| tracing::warn!(%error, "connections share one runtime"))
            .map(Arc::new)
            .ok();
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let all = listeners.into_iter().map(|(listener, tls)| {
            let listen = Listen {
                reactors: reactors.clone(),
                places: places.clone(),
                lifecycle: shared.lifecycle.clone(),
                limit,
                tls,
                metrics: Some(shared.metrics.clone()),
            };
            listen.run(listener, shared.clone())
        });
        futures_util::future::join_all(all).await;
    }
}

impl Respond for Shared {
    async fn respond(&self, request: &Parts) -> Response<Body> {
        let started = Instant::now();
        let mut response = self.serve.answer(request).await;
        self.metrics
            .served(&request.method, response.status(), started.elapsed());
        if let Some(visit) = Visit::of(&request.extensions) {
            visit.answered(response.status());
            response.body_mut().belongs_to(visit.clone());
        }
        response
    }

    async fn rehearse(&self, request: &Parts) -> Response<Body> {
        self.serve.answer(request).await
    }

    fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    fn answered(&self, method: &Method, status: StatusCode, elapsed: Duration) {
        self.metrics.served(method, status, elapsed);
    }
}
