//! Puts the parts together and runs them: probes first, then the blobspace, the listener and
//! prePull; SIGTERM drains. What `serve` and `run` start, and what the tests start in-process.

use crate::access_log::AccessLog;
use crate::admin;
use crate::blobspace::{Blobspace, Tuning};
use crate::config::{self, Config};
use crate::control::Control;
use crate::http;
use crate::images::{Ask, Images};
use crate::metrics::Metrics;
use crate::pack::Pack;
use crate::reference::Reference;
use crate::registry::Registries;
use crate::shutdown::{Lifecycle, Phase};
use crate::tls::Certificates;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Requests in flight end within this time after accepting has ended.
const LAST_REQUESTS: Duration = Duration::from_secs(30);
/// The access log is written out within this time at the end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How often the gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(1);
/// Every so many times, last uses of images are written down too.
const USES: u64 = 60;

/// A running service. Dropping it does not stop it; see [`Service::stop`].
pub struct Service {
    /// The address that answers (the port is chosen by the system where the configuration says 0).
    pub address: SocketAddr,
    /// Address that answers over TLS, where configured; the same where nothing answers in cleartext.
    pub tls_address: Option<SocketAddr>,
    /// Address of `/live` and `/ready`, where configured.
    pub probe_address: Option<SocketAddr>,
    /// Address of `/metrics`, where configured.
    pub metrics_address: Option<SocketAddr>,
    /// Watch or move its phase.
    pub lifecycle: Lifecycle,
    drain_delay: Duration,
    images: Images,
    certificates: Option<Certificates>,
    access_log: Option<AccessLog>,
    blobspace: Arc<Blobspace<Pack>>,
    /// Ends when the last connection has.
    serving: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    failure: watch::Receiver<Option<String>>,
}

impl Service {
    /// Opens listeners and blobspace. Returns once it listens; prePull goes on behind
    /// (wait for [`Phase::Ready`], or for [`Service::failed`]).
    ///
    /// # Errors
    /// One line, for the operator: an address or a directory that cannot be used.
    pub async fn start(config: Config) -> Result<Service, String> {
        let config = Arc::new(config);
        let lifecycle = Lifecycle::default();
        let metrics = Arc::new(Metrics::new());
        let registries =
            Registries::new(&config, metrics.clone()).map_err(|error| error.to_string())?;
        let registries = Arc::new(registries);

        let mut background = Vec::new();
        let mut probe_address = None;
        if let Some(wanted) = config.readiness_probe_addr {
            let (listener, address) =
                bind(&config::binding_order(wanted), "readinessProbeAddr").await?;
            let probes = admin::probes(lifecycle.clone(), &config, registries.clone());
            background.push(tokio::spawn(admin::serve(listener, probes)));
            probe_address = Some(address);
        }
        let mut metrics_address = None;
        if let Some(wanted) = config.prometheus_addr {
            let (listener, address) =
                bind(&config::binding_order(wanted), "prometheusAddr").await?;
            let exposition = admin::metrics(metrics.clone());
            background.push(tokio::spawn(admin::serve(listener, exposition)));
            metrics_address = Some(address);
        }

        let space = config.blob_space.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let tuning = Tuning {
                source_bytes: space.keep_compressed_bytes,
                ..Tuning::default()
            };
            Blobspace::open_tuned(&space.location, space.max_size_bytes, tuning)
        });
        let blobspace = opening
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let images = Images::new(&config, registries, blobspace.clone(), metrics.clone());
        background.push(tokio::spawn(gauges(
            metrics.clone(),
            images.clone(),
            blobspace.clone(),
        )));

        match Control::bind(blobspace.root()) {
            Ok(control) => background.push(tokio::spawn(control.serve(images.clone()))),
            // Images are served without it.
            Err(error) => {
                tracing::warn!(%error, "no control socket: `blobserve images` cannot ask this process");
            }
        }

        let mut listeners = Vec::new();
        let (mut address, mut tls_address, mut certificates) = (None, None, None);
        if !config.tls.as_ref().is_some_and(|tls| tls.only) {
            let (listener, bound) = bind(&config.listen, "blobserve.address").await?;
            listeners.push((listener, None));
            address = Some(bound);
        }
        if let Some(tls) = &config.tls {
            let loaded = Certificates::load(tls)?;
            let (listener, bound) = bind(&tls.listen, "blobserve.tls.address").await?;
            listeners.push((listener, Some(loaded.acceptor()?)));
            background.push(tokio::spawn(loaded.clone().watch()));
            tls_address = Some(bound);
            certificates = Some(loaded);
        }
        let address = address.or(tls_address).ok_or("nothing to listen on")?;
        let access_log = config.access_log.as_ref();
        let access_log = access_log.map(|log| AccessLog::open(log, metrics.clone()));
        let access_log = access_log.transpose()?;
        let server = http::Server::new(
            &config,
            images.clone(),
            metrics,
            lifecycle.clone(),
            access_log.clone(),
        );
        let serving = tokio::spawn(server.run(listeners, LAST_REQUESTS));

        let (fail, failure) = watch::channel(None);
        background.push(tokio::spawn(pre_pull(
            config.clone(),
            images.clone(),
            lifecycle.clone(),
            fail,
        )));
        Ok(Service {
            address,
            tls_address,
            probe_address,
            metrics_address,
            lifecycle,
            drain_delay: config.drain_delay,
            images,
            certificates,
            access_log,
            blobspace,
            serving,
            background,
            failure,
        })
    }

    /// Waits for a failure that must end the process; for ever, when there is none.
    pub async fn failed(&mut self) -> String {
        let failed = self.failure.wait_for(Option::is_some).await;
        let failed = failed.ok().and_then(|failed| failed.clone());
        match failed {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Opens the access log's file anew and looks at the certificate's files, as SIGHUP does. May wait
    /// for a disk.
    pub fn reload(&self) {
        if let Some(access_log) = &self.access_log {
            access_log.reopen();
        }
        if let Some(certificates) = &self.certificates {
            certificates.look(true);
        }
    }

    /// Drains and stops, as SIGTERM does; returns when all has ended.
    pub async fn stop(self) {
        self.lifecycle.enter(Phase::Draining);
        self.images.drain();
        tokio::time::sleep(self.drain_delay).await;
        self.lifecycle.enter(Phase::Stopping);
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the listener ended abnormally");
        }
        for task in self.background {
            task.abort();
            // It has let go of all it has, the control socket for one; that it was aborted is no news.
            let _ = task.await;
        }
        let (blobspace, images) = (self.blobspace, self.images);
        let access_log = self.access_log;
        let closing = move || {
            if let Some(access_log) = access_log {
                access_log.close(LAST_LINES);
            }
            images.write_uses();
            blobspace.close();
        };
        if let Err(error) = tokio::task::spawn_blocking(closing).await {
            tracing::error!(%error, "closing the blobspace failed");
        }
    }
}

/// Binds the first address that can be.
async fn bind(addresses: &[SocketAddr], key: &str) -> Result<(TcpListener, SocketAddr), String> {
    let mut last = format!("{key}: no address to listen on");
    for address in addresses {
        match TcpListener::bind(address)
            .await
            .and_then(|listener| listener.local_addr().map(|bound| (listener, bound)))
        {
            Ok(bound) => return Ok(bound),
            Err(error) => last = format!("{key}: cannot listen on {address}: {error}"),
        }
    }
    Err(last)
}

/// Fetches every `prePull` tag, then says ready. A tag that cannot be had, and is not known from before, is fatal.
async fn pre_pull(
    config: Arc<Config>,
    images: Images,
    lifecycle: Lifecycle,
    fail: watch::Sender<Option<String>>,
) {
    let pins = images.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || pins.apply_retain()).await {
        tracing::error!(%error, "pinning what `retain` names failed");
    }
    let mut pulls = tokio::task::JoinSet::new();
    for (name, repo) in &config.repos {
        for tag in &repo.pre_pull {
            let (images, text) = (images.clone(), format!("{name}:{tag}"));
            pulls.spawn(async move {
                let reference = Reference::parse(&text)
                    .map_err(|error| format!("prePull of {text}: {error}"))?;
                let Err(error) = images.get(&reference, Ask::Normal).await else {
                    return Ok(());
                };
                // However long ago it was validated.
                if images.get(&reference, Ask::ReadOnly).await.is_ok() {
                    tracing::warn!("prePull of {text}: {error}; it is known from before");
                    return Ok(());
                }
                Err(format!("prePull of {text}: {error}"))
            });
        }
    }
    while let Some(pulled) = pulls.join_next().await {
        if let Ok(Err(error)) = pulled {
            tracing::error!("{error}");
            fail.send_replace(Some(error));
            return;
        }
    }
    lifecycle.enter(Phase::Ready);
    tracing::info!("ready");
    // Kept until the service ends: a receiver whose sender is gone cannot wait.
    fail.closed().await;
}

/// Copies what others count into the gauges, until it is aborted.
async fn gauges(metrics: Arc<Metrics>, images: Images, blobspace: Arc<Blobspace<Pack>>) {
    // Not at once: a start has better to do.
    let first = tokio::time::Instant::now() + GAUGES;
    let mut every = tokio::time::interval_at(first, GAUGES);
    let mut ticks = 0u64;
    loop {
        every.tick().await;
        let (flights, queued) = images.activity();
        metrics.activity(flights, queued);
        ticks += 1;
        let (blobspace, images) = (blobspace.clone(), images.clone());
        let write_uses = ticks.is_multiple_of(USES);
        let look = move || {
            if write_uses {
                images.write_uses();
            }
            blobspace.usage()
        };
        // It waits for whoever changes names on disk.
        if let Ok(usage) = tokio::task::spawn_blocking(look).await {
            metrics.blobspace(&usage);
        }
    }
}
