//! Credential helpers: `docker-credential-<name> get`, the server on standard input, JSON on
//! standard output. Run off the reactor, at most [`TIMEOUT`], one at a time per server; what it
//! said is remembered for a while.

use super::Credential;
use crate::registry::error::Failure;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// How long a helper may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a helper's answer is used.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How long "no credentials" is used.
const REMEMBERED_NONE: Duration = Duration::from_secs(10);
/// Servers that are remembered.
const SERVERS: usize = 1_024;
/// Bytes of an answer.
const MAX_BYTES: u64 = 64 << 10;

type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Option<Credential>)>>>;

/// What helpers said, by helper and server.
#[derive(Default)]
pub(super) struct Helpers {
    /// Held for the look-up only; a slot's own lock is held while its helper runs.
    slots: Mutex<HashMap<(String, String), Slot>>,
    /// Where helpers lie, when not on `PATH`.
    pub(super) directory: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Helpers {
    /// Asks helper `name` about `host`; `fresh`: whatever it said before.
    pub(super) async fn ask(
        &self,
        name: &str,
        host: &str,
        fresh: bool,
    ) -> Result<Option<Credential>, Failure> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() >= SERVERS {
                slots.clear();
            }
            slots
                .entry((name.to_owned(), host.to_owned()))
                .or_default()
                .clone()
        };
        let mut slot = slot.lock().await;
        if let Some((when, said)) = &*slot {
            let age = if said.is_some() {
                REMEMBERED
            } else {
                REMEMBERED_NONE
            };
            if !fresh && when.elapsed() < age {
                return Ok(said.clone());
            }
        }
        let said = self.run(name, host).await?;
        *slot = Some((Instant::now(), said.clone()));
        Ok(said)
    }

    async fn run(&self, name: &str, host: &str) -> Result<Option<Credential>, Failure> {
        let fail = |what: &str| Failure::denied(format!("credential helper {name:?} {what}"));
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(fail("is not a helper's name"));
        }
        let server = match host {
            "docker.io" => "https://index.docker.io/v1/",
            other => other,
        };
        let program = format!("docker-credential-{name}");
        let program = self
            .directory
            .as_ref()
            .map_or(program.clone().into(), |dir| dir.join(program));
        let exchange = async {
            let mut child = Command::new(&program)
                .arg("get")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| fail(&format!("does not start: {}", error.kind())))?;
            if let Some(mut stdin) = child.stdin.take() {
                // A helper that does not read what it is asked fails by its answer.
                let _ = stdin.write_all(server.as_bytes()).await;
            }
            let mut out = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                let _ = stdout.take(MAX_BYTES).read_to_end(&mut out).await;
            }
            let status = child
                .wait()
                .await
                .map_err(|_| fail("cannot be waited for"))?;
            Ok((status, out))
        };
        let (status, out) = match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(fail(&format!(
                    "gave no answer within {} s",
                    TIMEOUT.as_secs()
                )));
            }
        };
        if !status.success() {
            // The protocol's way to say "none", on standard output.
            if String::from_utf8_lossy(&out).contains("credentials not found") {
                return Ok(None);
            }
            return Err(fail("failed"));
        }
        let answer: Answer =
            serde_json::from_slice(&out).map_err(|_| fail("gave an answer that is none"))?;
        Ok(Some(match answer.username.as_str() {
            "<token>" => Credential::Identity(answer.secret),
            _ => Credential::Basic {
                username: answer.username,
                password: answer.secret,
            },
        }))
    }
}
