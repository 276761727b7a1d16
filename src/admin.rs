//! `/live`, `/ready` and `/metrics`, on their own addresses: axum routers.
//!
//! `/live` says that the process runs; `/ready` that it should get requests: 503 before prePull has
//! ended and again from the moment a drain begins. `/ready?full=1` lists the checks as JSON:
//! `{"status", "phase", "checks": [{"name", "ok", "error"}]}`, one check for the registry of each
//! configured host. They change the status only with `readiness: registry`.

use crate::config::{Config, Readiness};
use crate::http::{Body, Listen, Respond};
use crate::metrics::Metrics;
use crate::registry::Registries;
use crate::shutdown::{Lifecycle, Phase};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Request;
use http::request::Parts;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

/// Connections at once on one of these addresses.
const MOST_CONNECTIONS: usize = 256;
/// One check's time: an orchestrator's probe gives up after 2 s (COMPATIBILITY).
const CHECK_TIME: Duration = Duration::from_millis(1500);
/// How long what the checks found is used again, however many probes come.
const CHECKS_LAST: Duration = Duration::from_secs(2);
const TEXT: &str = "text/plain; charset=utf-8";
/// The text format's own type, version 0.0.4.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/live` and `/ready`.
pub fn probes(lifecycle: Lifecycle, config: &Config, registries: Arc<Registries>) -> Router {
    let hosts: BTreeSet<String> = config
        .repos
        .keys()
        .map(|name| name.host().to_owned())
        .collect();
    let check = move |host: String| -> Checking {
        let registries = registries.clone();
        Box::pin(async move {
            let checked = registries.check(&host).await;
            checked.map_err(|error| error.to_string())
        })
    };
    let checks = Checks {
        names: hosts.into_iter().collect(),
        check: Box::new(check),
        time: CHECK_TIME,
        last: Mutex::new(None),
    };
    probe_router(lifecycle, config.readiness, checks)
}

/// `/metrics`.
pub fn metrics(metrics: Arc<Metrics>) -> Router {
    async fn render(State(metrics): State<Arc<Metrics>>) -> Response {
        answer(StatusCode::OK, EXPOSITION, metrics.render())
    }
    Router::new()
        .route("/metrics", get(render))
        .with_state(metrics)
}

/// Answers on a listener until the future is dropped: probes are answered to the very end.
/// Connections have the limits and timeouts of the main listener.
pub async fn serve(listener: TcpListener, router: Router) {
    let listen = Listen {
        reactors: None,
        tls: None,
        places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        lifecycle: Lifecycle::default(),
        limit: Duration::ZERO,
        metrics: None,
    };
    let routes = Routes(TowerToHyperService::new(router));
    listen.run(listener, Arc::new(routes)).await;
}

/// A router as what a listener asks.
struct Routes(TowerToHyperService<Router>);

impl Respond for Routes {
    async fn respond(&self, request: &Parts) -> http::Response<Body> {
        let request = Request::from_parts(request.clone(), axum::body::Body::empty());
        let Ok(response) = self.0.call(request).await;
        let (head, body) = response.into_parts();
        // Texts of our own: they are in memory already.
        let bytes = axum::body::to_bytes(body, usize::MAX).await;
        http::Response::from_parts(head, Body::from(bytes.unwrap_or_default()))
    }

    fn answered(&self, _: &http::Method, _: StatusCode, _: Duration) {}
}

type Checking = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The checks, and what they found last.
struct Checks {
    names: Vec<String>,
    check: Box<dyn Fn(String) -> Checking + Send + Sync>,
    time: Duration,
    /// Held while the checks run, so that they run once however many probes wait.
    last: Mutex<Option<(Instant, Arc<[Check]>)>>,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Checks {
    async fn run(&self) -> Arc<[Check]> {
        let mut last = self.last.lock().await;
        if let Some((when, found)) = &*last
            && when.elapsed() < CHECKS_LAST
        {
            return found.clone();
        }
        let all = self.names.iter().map(|name| self.one(name));
        let found: Arc<[Check]> = futures_util::future::join_all(all).await.into();
        *last = Some((Instant::now(), found.clone()));
        found
    }

    async fn one(&self, name: &str) -> Check {
        let checked = tokio::time::timeout(self.time, (self.check)(name.to_owned())).await;
        let error = match checked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(format!("no answer from {name} within {:?}", self.time)),
        };
        Check {
            name: name.to_owned(),
            ok: error.is_none(),
            error,
        }
    }
}

struct Probe {
    lifecycle: Lifecycle,
    readiness: Readiness,
    checks: Checks,
}

#[derive(Deserialize)]
struct Wanted {
    full: Option<String>,
}

/// What `/ready?full=1` says.
#[derive(Serialize)]
struct Full<'a> {
    status: &'static str,
    phase: &'static str,
    checks: &'a [Check],
}

fn probe_router(lifecycle: Lifecycle, readiness: Readiness, checks: Checks) -> Router {
    let probe = Arc::new(Probe {
        lifecycle,
        readiness,
        checks,
    });
    let live = || async { answer(StatusCode::OK, TEXT, "ok\n".to_owned()) };
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .with_state(probe)
}

async fn ready(State(probe): State<Arc<Probe>>, Query(wanted): Query<Wanted>) -> Response {
    let full = wanted.full.is_some_and(|full| full != "0");
    let phase = probe.lifecycle.phase();
    let (mut is_ready, word) = match phase {
        Phase::Starting => (false, "starting"),
        Phase::Ready => (true, "ready"),
        Phase::Draining => (false, "draining"),
        Phase::Stopping => (false, "stopping"),
    };
    let counts = probe.readiness == Readiness::Registry;
    let checks = if full || (counts && is_ready) {
        probe.checks.run().await
    } else {
        Arc::default()
    };
    let failed = checks.iter().find(|check| !check.ok);
    is_ready &= !counts || failed.is_none();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if full {
        let full = Full {
            status: if is_ready { "ready" } else { "not ready" },
            phase: word,
            checks: &checks,
        };
        let text = serde_json::to_string_pretty(&full).unwrap_or_default();
        return answer(status, "application/json", text + "\n");
    }
    let line = match failed
        .filter(|_| counts)
        .and_then(|check| check.error.as_deref())
    {
        Some(error) => format!("{error}\n"),
        None => format!("{word}\n"),
    };
    answer(status, TEXT, line)
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Checks of which `bad.example` fails and `silent.example` never answers.
    fn checks(names: &[&str], run: Arc<AtomicUsize>) -> Checks {
        let check = move |name: String| -> Checking {
            run.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match name.as_str() {
                    "bad.example" => Err("bad.example says 500".to_owned()),
                    "silent.example" => std::future::pending().await,
                    _ => Ok(()),
                }
            })
        };
        Checks {
            names: names.iter().map(ToString::to_string).collect(),
            check: Box::new(check),
            time: Duration::from_millis(20),
            last: Mutex::new(None),
        }
    }

    /// Serves on loopback and asks once; returns the answer's head and body.
    async fn ask(router: Router, path: &str) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, router));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        serving.abort();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn each_phase_and_check_gives_its_status() {
        use Phase::{Draining, Ready, Starting, Stopping};
        use Readiness::{Registry, SelfOnly};
        let good: &[&str] = &["good.example"];
        let bad: &[&str] = &["good.example", "bad.example"];
        let silent: &[&str] = &["silent.example"];
        let table = [
            (Starting, SelfOnly, good, "/live", 200, "ok"),
            (Starting, SelfOnly, good, "/ready", 503, "starting"),
            (Ready, SelfOnly, good, "/ready", 200, "ready"),
            (Draining, SelfOnly, good, "/ready", 503, "draining"),
            (Stopping, SelfOnly, good, "/ready", 503, "stopping"),
            (Stopping, SelfOnly, good, "/live", 200, "ok"),
            (Ready, SelfOnly, bad, "/ready", 200, "ready"),
            (Ready, Registry, good, "/ready", 200, "ready"),
            (Ready, Registry, bad, "/ready", 503, "bad.example says 500"),
            (
                Ready,
                Registry,
                silent,
                "/ready",
                503,
                "no answer from silent.example",
            ),
            (Starting, Registry, bad, "/ready", 503, "starting"),
            (
                Ready,
                SelfOnly,
                bad,
                "/ready?full=1",
                200,
                "\"error\": \"bad.example says 500\"",
            ),
            (Ready, Registry, bad, "/ready?full=1", 503, "\"not ready\""),
            (Ready, Registry, good, "/ready?full=1", 200, "\"ok\": true"),
            (Ready, Registry, good, "/ready?full=0", 200, "ready"),
            (Ready, SelfOnly, good, "/else", 404, ""),
        ];
        for (phase, readiness, names, path, status, words) in table {
            let lifecycle = Lifecycle::default();
            lifecycle.enter(phase);
            let checks = checks(names, Arc::default());
            let (head, body) = ask(probe_router(lifecycle, readiness, checks), path).await;
            let case = format!("{phase:?} {readiness:?} {names:?} {path}");
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{case}: {head}"
            );
            assert!(body.contains(words), "{case}: {body}");
            if path.ends_with("full=1") {
                let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert_eq!(
                    parsed["checks"].as_array().unwrap().len(),
                    names.len(),
                    "{case}"
                );
            }
        }
    }

    #[tokio::test]
    async fn many_probes_run_the_checks_once() {
        let run = Arc::new(AtomicUsize::new(0));
        let checks = Arc::new(checks(&["good.example", "bad.example"], run.clone()));
        let probes = (0..50).map(|_| checks.run());
        let found = futures_util::future::join_all(probes).await;
        assert!(found.iter().all(|found| found.len() == 2 && !found[1].ok));
        assert_eq!(run.load(Ordering::Relaxed), 2, "each check once");
    }

    #[tokio::test]
    async fn metrics_are_exposed_in_the_text_format() {
        let all = Arc::new(Metrics::new());
        all.served(&axum::http::Method::GET, StatusCode::OK, Duration::ZERO);
        let (head, body) = ask(metrics(all), "/metrics").await;
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        assert!(
            body.contains("http_server_requests_total{code=\"200\",method=\"get\"} 1"),
            "{body}"
        );
    }
}
