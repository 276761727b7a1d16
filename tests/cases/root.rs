//! `http/root.tar`, the files that the tables ask for, as the layer of an image that the
//! real service has from a registry.

use crate::support::{Encoding, Image, Layer, Registry, Site, json};
use serde_json::Value;
use std::net::SocketAddr;

/// The service with that image. Ends when dropped.
pub(super) struct Root {
    _registry: Registry,
    _site: Site,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The image's reference path, without a slash at the end.
    pub(super) prefix: String,
}

impl Root {
    pub(super) async fn start() -> Root {
        Root::start_as(Layer::new(), json!({})).await
    }

    /// With the files of `layer` too, and these settings of the repository.
    pub(super) async fn start_as(layer: Layer, settings: Value) -> Root {
        let path = super::cases_dir().join("http/root.tar");
        let tar =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let registry = Registry::start().await;
        let layer = layer.without_end().raw(&tar).encoding(Encoding::Gzip);
        registry.push("cases/root", "v1", &Image::of(layer));
        let repos = json!({ registry.name("cases/root"): settings });
        let site = Site::start(&[&registry], json!({ "repos": repos })).await;
        Root {
            address: site.client.0,
            prefix: registry.path("cases/root:v1", ""),
            _registry: registry,
            _site: site,
        }
    }
}

/// The cases of a table in `http`.
pub(super) fn table(name: &str) -> Vec<Value> {
    let path = super::cases_dir().join("http").join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut table: Value = serde_json::from_slice(&text).expect(name);
    match table["cases"].take() {
        Value::Array(cases) if !cases.is_empty() => cases,
        other => panic!("{name}: no cases: {other}"),
    }
}
