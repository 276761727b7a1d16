//! Puts the parts together and runs them: listeners first, then prePull, then ready;
//! SIGTERM drains. What `serve` and `run` start, and what the tests start in-process.

use crate::config::Config;
use crate::shutdown::Lifecycle;
use std::net::SocketAddr;

/// A running service. Dropping it does not stop it; see [`Service::stop`].
pub struct Service {
    /// The address that answers (the port is chosen by the system where the configuration says 0).
    pub address: SocketAddr,
    /// Address of `/live` and `/ready`, where configured.
    pub probe_address: Option<SocketAddr>,
    /// Address of `/metrics`, where configured.
    pub metrics_address: Option<SocketAddr>,
    /// Watch or move its phase.
    pub lifecycle: Lifecycle,
}

impl Service {
    /// Opens listeners and blobspace. Returns once it listens; prePull goes on behind
    /// (wait for [`crate::shutdown::Phase::Ready`]). Errors are one line, for the operator.
    pub async fn start(config: Config) -> Result<Service, String> {
        let _ = config;
        todo!()
    }
    /// Drains and stops, as SIGTERM does; returns when all has ended.
    pub async fn stop(self) {
        todo!()
    }
}
