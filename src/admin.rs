//! `/live`, `/ready` and `/metrics`, on their own addresses: axum routers, beside the serving
//! path so that neither can be slowed by the other.

use crate::config::{Config, Readiness};
use crate::metrics::Metrics;
use crate::registry::Registries;
use crate::shutdown::{Lifecycle, Phase};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What `/ready` looks at.
struct Probes {
    lifecycle: Lifecycle,
    registries: Arc<Registries>,
    /// Hosts of the repositories that are configured by name.
    hosts: BTreeSet<String>,
    readiness: Readiness,
}

#[derive(serde::Deserialize)]
struct ReadyQuery {
    full: Option<String>,
}

#[derive(serde::Serialize)]
struct Check {
    name: String,
    /// `None`: it passed.
    error: Option<String>,
}

/// `/live`: 200 as long as the process answers. `/ready`: 200 between the end of prePull and SIGTERM, and with
/// `readiness: registry` only while the registries answer; `?full=1` lists the checks.
pub fn probes(lifecycle: Lifecycle, config: &Config, registries: Arc<Registries>) -> Router {
    let hosts = config.repos.keys().map(|repository| repository.host().to_owned()).collect();
    let probes = Arc::new(Probes { lifecycle, registries, hosts, readiness: config.readiness });
    Router::new().route("/live", get(|| async { "ok\n" })).route("/ready", get(ready)).with_state(probes)
}

/// `/metrics`.
pub fn metrics(metrics: Arc<Metrics>) -> Router {
    let render = move || async move {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
    };
    Router::new().route("/metrics", get(render))
}

/// Answers until the process stops: probes outlive draining, so that they can say so.
pub async fn serve(listener: TcpListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "a probe or metrics listener ended");
    }
}

async fn ready(State(probes): State<Arc<Probes>>, Query(query): Query<ReadyQuery>) -> Response {
    let phase = probes.lifecycle.phase();
    let full = query.full.is_some_and(|full| !matches!(full.as_str(), "0" | "false"));
    let mut checks = vec![Check {
        name: "self".to_owned(),
        error: match phase {
            Phase::Starting => Some("prePull has not ended".to_owned()),
            Phase::Ready => None,
            Phase::Draining | Phase::Stopping => Some("shutting down".to_owned()),
        },
    }];
    let mut is_ready = phase == Phase::Ready;
    if full || (is_ready && probes.readiness == Readiness::Registry) {
        let of_registries = check_registries(&probes).await;
        if probes.readiness == Readiness::Registry {
            is_ready &= of_registries.iter().all(|check| check.error.is_none());
        }
        checks.extend(of_registries);
    }
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if full {
        return (status, axum::Json(serde_json::json!({ "ready": is_ready, "checks": checks }))).into_response();
    }
    let failed: Vec<_> =
        checks.into_iter().filter_map(|check| Some(format!("{}: {}", check.name, check.error?))).collect();
    let text = if is_ready { "ok\n".to_owned() } else { format!("{}\n", failed.join("; ")) };
    (status, text).into_response()
}

/// All at once: a probe has two seconds.
async fn check_registries(probes: &Probes) -> Vec<Check> {
    let mut running = JoinSet::new();
    for host in probes.hosts.clone() {
        let registries = probes.registries.clone();
        running.spawn(async move {
            let error = registries.check(&host).await.err().map(|error| error.to_string());
            Check { name: format!("registry {host}"), error }
        });
    }
    let mut checks = running.join_all().await;
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    checks
}
