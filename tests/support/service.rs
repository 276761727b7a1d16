//! The real service, in this process, on a blobspace of its own that goes when the test ends.

use super::client::{Client, Response};
use super::registry::Registry;
use blobserve::config::{Config, Mode, parse};
use blobserve::service::Service;
use blobserve::shutdown::Phase;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running service and its directory.
pub struct Site {
    service: Option<Service>,
    /// Sends requests to it.
    pub client: Client,
    directory: tempfile::TempDir,
    config: Config,
}

/// The whole configuration: defaults that suit tests, then `settings` over them (what stands
/// under `blobserve:` in the file). Registries are named, so that they may be contacted.
pub fn configuration(directory: &Path, registries: &[&Registry], settings: &Value) -> Value {
    let mut config = json!({
        "address": "127.0.0.1:0",
        "drainDelay": "0s",
        "allowAnyRepo": true,
        "blobSpace": {"location": directory.join("blobs")},
        "registries": {},
    });
    for registry in registries {
        config["registries"][registry.host()] = registry.settings();
    }
    merge(&mut config, settings);
    json!({ "blobserve": config })
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

impl Site {
    /// Starts it and waits until it is ready.
    pub async fn start(registries: &[&Registry], settings: Value) -> Site {
        let site = Site::launch(Mode::Serve, registries, settings).await;
        let ready = site.phase_reached(Phase::Ready);
        tokio::time::timeout(Duration::from_secs(30), ready)
            .await
            .expect("it gets ready");
        site
    }

    /// Starts it and does not wait.
    pub async fn launch(mode: Mode, registries: &[&Registry], settings: Value) -> Site {
        match Site::try_launch(mode, registries, settings).await {
            Ok(site) => site,
            Err(error) => panic!("the service does not start: {error}"),
        }
    }

    /// Starts it, or says why not.
    pub async fn try_launch(
        mode: Mode,
        registries: &[&Registry],
        settings: Value,
    ) -> Result<Site, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = configuration(directory.path(), registries, &settings).to_string();
        let loaded = parse(&text, "test.json", mode).map_err(|error| error.to_string())?;
        let service = Service::start(loaded.config.clone()).await?;
        Ok(Site {
            config: loaded.config,
            client: Client(service.address),
            service: Some(service),
            directory,
        })
    }

    /// Stops it and starts it again, on the same blobspace, at another port.
    pub async fn restart(mut self) -> Site {
        self.take().stop().await;
        let service = Service::start(self.config.clone()).await;
        let service = service.unwrap_or_else(|error| panic!("it does not start again: {error}"));
        self.client = Client(service.address);
        self.service = Some(service);
        self.phase_reached(Phase::Ready).await;
        self
    }

    /// GET. A 200 is asked for again with its ETag, and must be 304 then.
    pub async fn get(&self, path: &str) -> Response {
        self.get_with(path, &[]).await
    }
    /// GET with headers. A 200 is asked for again with its ETag, and must be 304 then.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let response = self.client.request("GET", path, headers).await;
        if response.status == 200 {
            let etag = response.header("etag");
            let etag = etag.unwrap_or_else(|| panic!("GET {path}: no ETag: {response:?}"));
            assert!(etag.starts_with('"'), "strong and quoted: {etag}");
            let mut again = headers.to_vec();
            again.push(("If-None-Match", etag));
            let second = self.client.request("GET", path, &again).await;
            assert_eq!(second.status, 304, "GET {path} with its ETag {etag}");
            assert_eq!(second.header("etag"), Some(etag), "a 304 names its ETag");
        }
        response
    }
    /// HEAD.
    pub async fn head(&self, path: &str) -> Response {
        self.client.request("HEAD", path, &[]).await
    }
    /// Any request, asked once.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.client.request(method, path, headers).await
    }

    /// Sends to the address of `/live` and `/ready`.
    pub fn probe(&self) -> Client {
        let service = self.service.as_ref().expect("it runs");
        Client(service.probe_address.expect("readinessProbeAddr is set"))
    }
    /// Sends to the address of `/metrics`.
    pub fn metrics(&self) -> Client {
        let service = self.service.as_ref().expect("it runs");
        Client(service.metrics_address.expect("prometheusAddr is set"))
    }
    /// Where it answers over TLS.
    pub fn tls_address(&self) -> std::net::SocketAddr {
        let service = self.service.as_ref().expect("it runs");
        service.tls_address.expect("tls is set")
    }
    /// What SIGHUP does.
    pub fn reload(&self) {
        self.service.as_ref().expect("it runs").reload();
    }
    /// Waits for a phase of its life.
    pub async fn phase_reached(&self, phase: Phase) {
        let service = self.service.as_ref().expect("it runs");
        service.lifecycle.reached(phase).await;
    }
    /// The directory that is ours in the blobspace.
    pub fn blobspace(&self) -> PathBuf {
        self.directory.path().join("blobs/blobserve-v1")
    }
    /// Bytes on disk below [`Site::blobspace`]`/packs` and `/tmp`, and how many files they are.
    pub fn disk(&self) -> (u64, usize) {
        let files = self.files();
        (files.values().sum(), files.len())
    }
    /// The same bytes while others write: as many as there were at one moment, at least. Looking takes its time, in
    /// which a file that was counted may go and another come; what two looks both saw was there between them.
    pub fn disk_at_once(&self) -> u64 {
        let (first, second) = (self.files(), self.files());
        let both = first
            .iter()
            .filter_map(|(file, bytes)| Some(*bytes.min(second.get(file)?)));
        both.sum()
    }
    /// Inode → bytes on disk.
    fn files(&self) -> BTreeMap<u64, u64> {
        let (packs, tmp) = (self.blobspace().join("packs"), self.blobspace().join("tmp"));
        usage(&packs).chain(usage(&tmp)).collect()
    }
    /// Waits until packs and temporary files are as `before`, and fails the test if they never are.
    pub async fn disk_is(&self, before: (u64, usize)) {
        for _ in 0..400 {
            if self.disk() == before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.disk(), before, "(bytes, files) in packs and tmp");
    }
    /// The service itself, to stop it by hand.
    pub fn take(&mut self) -> Service {
        self.service.take().expect("it runs")
    }
    /// Drains and stops.
    pub async fn stop(mut self) {
        if let Some(service) = self.service.take() {
            tokio::time::timeout(Duration::from_secs(30), service.stop())
                .await
                .expect("it stops");
        }
    }
}

/// Inode and bytes of what is directly in a directory; nothing, if it is not there.
fn usage(directory: &Path) -> impl Iterator<Item = (u64, u64)> + use<> {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let found = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    found.map(|metadata| (metadata.ino(), metadata.blocks() * 512))
}
