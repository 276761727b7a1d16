//! What Prometheus makes of `/metrics`.

use crate::binary::Home;
use crate::layouts::{Layout, WORKDIR};
use crate::parts::{free_address, installed, run};
use crate::registries::{Access, Registry};
use crate::support::Client;
use serde_json::json;

/// Names that existing installations have dashboards and alerts on.
const COMPATIBLE: [&str; 4] = [
    "http_client_requests_total",
    "http_client_requests_duration_seconds",
    "http_server_requests_total",
    "http_server_requests_duration_seconds",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_has_nothing_to_say_and_the_compatible_names_are_there() {
    installed();
    let registry = Registry::start(&Access::Open);
    registry.push(&Layout::of_a_site("metrics"), "team/app:v1", "oci");
    let metrics = free_address();
    let home = Home::new();
    let repository = format!("{}/team/app", registry.host());
    let blobserve = home.serve(&json!({
        "repos": {&repository: {"workdir": WORKDIR}},
        "prometheusAddr": metrics.to_string(),
    }));
    blobserve
        .get_expecting(200, &format!("/{repository}:v1/"))
        .await;
    blobserve
        .get_expecting(404, &format!("/{repository}:v1/nothing"))
        .await;
    blobserve
        .client
        .request("HEAD", &format!("/{repository}:v1/"), &[])
        .await
        .expect(200);

    let text = Client(metrics)
        .request("GET", "/metrics", &[])
        .await
        .expect(200)
        .text();
    let said = run("promtool", &["check", "metrics"], text.as_bytes());
    assert_eq!(String::from_utf8_lossy(&said), "", "promtool check metrics");
    for name in COMPATIBLE {
        let family = format!("# TYPE {name} ");
        assert!(text.contains(&family), "no {family:?}:\n{text}");
    }
    let line = |name: &str, labels: [&str; 2]| {
        let found = text
            .lines()
            .find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        let value = found
            .and_then(|line| line.rsplit(' ').next())
            .and_then(|value| value.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} with {labels:?}:\n{text}"))
    };
    assert_eq!(
        line(
            "http_server_requests_total{",
            [r#"code="200""#, r#"method="get""#]
        ),
        1.0
    );
    assert_eq!(
        line(
            "http_server_requests_total{",
            [r#"code="404""#, r#"method="get""#]
        ),
        1.0
    );
    assert!(
        line(
            "http_client_requests_total{",
            [r#"code="200""#, r#"method="get""#]
        ) >= 3.0
    );
    assert!(
        text.contains("\nprocess_resident_memory_bytes "),
        "process metrics"
    );
}
