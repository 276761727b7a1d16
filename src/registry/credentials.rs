//! Credentials from a docker `config.json`: `auths`, `credHelpers`, `credsStore`.
//!
//! The file is looked at again when it is asked for and the last look is a second old: its
//! resolved path is compared by device, inode, size and times, so that Kubernetes' swap of the
//! `..data` link is seen. A file that cannot be read or parsed keeps the last good one, with one
//! warning per version of the file.

mod file;
mod helper;

use super::error::Failure;
use base64::Engine as _;
use file::DockerConfig;
use http::HeaderValue;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old a look at the file may be.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a `config.json`; Kubernetes' secrets end at 1 MiB.
const MAX_BYTES: u64 = 4 << 20;

/// What a registry is told. Its `Debug` tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// User name and password.
    Basic {
        /// Not secret, but not told either.
        username: String,
        /// Secret.
        password: String,
    },
    /// A refresh token for the token service.
    Identity(String),
    /// A bearer token for the registry itself.
    Bearer(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl Credential {
    /// As a `Basic` authorization; None if this is no user name and password.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Credential::Basic { username, password } = self else {
            return None;
        };
        let text =
            base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        secret_header(&format!("Basic {text}"))
    }

    /// As a `Bearer` authorization; None if it has to be exchanged for a token first.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        let Credential::Bearer(token) = self else {
            return None;
        };
        secret_header(&format!("Bearer {token}"))
    }
}

/// A header value that is never logged; None if the text cannot be one.
pub(super) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The credentials of one `config.json`, or none.
pub(super) struct Credentials {
    path: Option<PathBuf>,
    /// Held for the comparison only, never while reading.
    state: Mutex<State>,
    helpers: helper::Helpers,
}

struct State {
    looked: Option<Instant>,
    stamp: Option<Stamp>,
    config: Arc<DockerConfig>,
}

/// What tells one version of the file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Credentials {
    pub(super) fn new(path: Option<PathBuf>) -> Credentials {
        let state = State {
            looked: None,
            stamp: None,
            config: Arc::default(),
        };
        Credentials {
            path,
            state: Mutex::new(state),
            helpers: helper::Helpers::default(),
        }
    }

    /// The credential for `path` on `host`, as the file has it now. `fresh`: one from a helper
    /// was just refused, so do not use a remembered one.
    pub(super) async fn find(
        self: &Arc<Self>,
        host: &str,
        path: &str,
        fresh: bool,
    ) -> Result<Option<Credential>, Failure> {
        let Some(file) = self.path.clone() else {
            return Ok(None);
        };
        if fresh || self.due() {
            let this = self.clone();
            // A join error is a cancelled runtime: the last good file stays.
            let _ = tokio::task::spawn_blocking(move || this.look(&file)).await;
        }
        let config = self.lock().config.clone();
        match config.find(host, path) {
            file::Found::Nothing => Ok(None),
            file::Found::Credential(credential) => Ok(Some(credential)),
            file::Found::Helper(name) => self.helpers.ask(&name, host, fresh).await,
        }
    }

    fn due(&self) -> bool {
        self.lock()
            .looked
            .is_none_or(|looked| looked.elapsed() >= LOOK)
    }

    /// Reads the file if it is another one than before. Blocking.
    fn look(&self, path: &Path) {
        let stamp = stamp(path);
        {
            let mut state = self.lock();
            state.looked = Some(Instant::now());
            if state.stamp == stamp && stamp.is_some() {
                return;
            }
            if stamp.is_none() && state.stamp.is_none() && state.config.missing_was_told() {
                return;
            }
        }
        let read = read(path);
        let mut state = self.lock();
        state.stamp = stamp;
        match read {
            Ok(config) => state.config = Arc::new(config),
            Err(error) => {
                // Never the content: serde's message may quote it.
                tracing::warn!(
                    "dockerAuth {}: {error}; the credentials read before stay",
                    path.display()
                );
                if stamp.is_none() {
                    state.config = Arc::new(state.config.told_missing());
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows links: the target is what is compared.
fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

fn read(path: &Path) -> Result<DockerConfig, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {MAX_BYTES} bytes"));
    }
    DockerConfig::parse(&bytes)
}

#[cfg(test)]
mod tests;
