//! `serve` and `run`: start the service, say where it is, stop it on SIGTERM or SIGINT.

use crate::config::{self, Config, Mode};
use crate::service::Service;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Threads for work that blocks, beside those of the unpacks: tokio's default.
const BLOCKING_THREADS: usize = 512;
/// Time for what still runs when the service has ended.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Runs until a signal or a failure that ends the service.
pub(super) fn serve(path: &Path, mode: Mode, address: Option<&str>) -> ExitCode {
    match run(path, mode, address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blobserve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, mode: Mode, address: Option<&str>) -> Result<(), String> {
    let loaded = config::load(path, mode).map_err(|error| error.to_string())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut config = loaded.config;
    if let Some(address) = address {
        config.set_address(address)?;
    }
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS + config.workers)
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let ended = runtime.block_on(until_signal(config));
    // A download that waits for space on disk is not waited for: its file is swept at the next start.
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

/// A connection, a download and a large pack each take a descriptor; the limit that a shell or a container
/// runtime sets to begin with is for programs that use `select`, which we do not.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        let limit = limit.current;
        tracing::warn!(%error, limit, "the limit of open files cannot be raised");
    }
}

async fn until_signal(config: Config) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    // Where it would mean nothing, a terminal that is closed ends us, as it ends others.
    let reloads = config.tls.is_some() || config.access_log.is_some();
    let mut hangup = reloads.then(|| listen(SignalKind::hangup())).transpose()?;
    let cleartext = !config.tls.as_ref().is_some_and(|tls| tls.only);
    let example = example_path(&config);
    let mut service = Service::start(config).await?;
    announce(&service, cleartext, example.as_deref());
    loop {
        tokio::select! {
            error = service.failed() => {
                service.stop().await;
                return Err(error);
            }
            _ = terminate.recv() => tracing::info!("SIGTERM, draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT, draining"),
            () = hung_up(hangup.as_mut()) => {
                tracing::info!("SIGHUP, opening the access log and looking at the certificate anew");
                tokio::task::block_in_place(|| service.reload());
                continue;
            }
        }
        break;
    }
    tokio::select! {
        () = service.stop() => {}
        _ = interrupt.recv() => tracing::info!("SIGINT again, stopping at once"),
    }
    Ok(())
}

/// Waits for the signal; for ever, where it is not listened for.
async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// `/<repository>:<tag>/` of the first repository with a tag to pre-pull.
fn example_path(config: &Config) -> Option<String> {
    config
        .repos
        .iter()
        .find_map(|(name, repo)| Some(format!("/{name}:{}/", repo.pre_pull.first()?)))
}

/// One line on standard output, for people and for scripts that wait for it.
fn announce(service: &Service, cleartext: bool, example: Option<&str>) {
    let address = service.address;
    let scheme = if cleartext { "http" } else { "https" };
    let mut line = format!("listening on {scheme}://{address}");
    if let Some(tls) = service.tls_address.filter(|_| cleartext) {
        line.push_str(&format!(" and https://{tls}"));
    }
    if let Some(path) = example {
        let host = match address.ip() {
            ip if ip.is_unspecified() => format!("localhost:{}", address.port()),
            _ => address.to_string(),
        };
        line.push_str(&format!(" , open {scheme}://{host}{path}"));
    }
    let mut out = std::io::stdout().lock();
    // Whoever closed our standard output does not want the line.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
