//! `blobserve` as its users start it, with a directory of its own.

use crate::support::{Client, Response};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Longest that it may take to say where it listens, or to do what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration and a blobspace, which survive the processes that use them.
pub struct Home {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// A running process. Killed when dropped.
pub struct Blobserve {
    child: Child,
    /// Sends requests to it.
    pub client: Client,
    log: Arc<Mutex<String>>,
}

impl Home {
    /// A new one, empty.
    pub fn new() -> Home {
        Home {
            directory: tempfile::tempdir().expect("a temporary directory"),
            environment: Vec::new(),
        }
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in it; its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Sets a variable of the environment that its processes see.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts `blobserve serve` with `settings` (what stands under `blobserve:`) over what every
    /// test needs.
    pub fn serve(&self, settings: &Value) -> Blobserve {
        let mut config = json!({
            "address": "127.0.0.1:0",
            "drainDelay": "0s",
            "blobSpace": {"location": self.path("cache")},
        });
        let settings = settings.as_object().expect("an object");
        for (key, value) in settings {
            config[key] = value.clone();
        }
        let file = self.write("blobserve.json", &json!({"blobserve": config}).to_string());
        self.start(&["serve", "--config", text(&file)])
    }

    /// Starts `blobserve` and waits for the line that names its address.
    pub fn start(&self, arguments: &[&str]) -> Blobserve {
        let mut child = Command::new(env!("CARGO_BIN_EXE_blobserve"))
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("piped"), log.clone());
        let (sender, lines) = mpsc::channel();
        let out = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // The receiver goes once the address is known; the pipe is drained all the same.
                let _ = sender.send(line);
            }
        });
        let began = Instant::now();
        while let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
            if let Some(address) = address(&line) {
                return Blobserve {
                    child,
                    client: Client(address),
                    log,
                };
            }
        }
        let _ = child.kill();
        let status = child.wait();
        panic!(
            "blobserve {arguments:?} names no address ({status:?}):\n{}",
            log.lock().expect("a log")
        );
    }
}

impl Blobserve {
    /// GET.
    pub async fn get(&self, path: &str) -> Response {
        self.client.request("GET", path, &[]).await
    }

    /// GET, and fails the test with the process's log unless the status is `status`.
    pub async fn get_expecting(&self, status: u16, path: &str) -> Response {
        let response = self.get(path).await;
        assert_eq!(
            response.status,
            status,
            "GET {path}: {}\nlog:\n{}",
            response.text(),
            self.log()
        );
        response
    }

    /// Waits until `there` says yes; fails the test with `what` and the process's log when that takes
    /// too long.
    pub async fn until(&self, what: &str, mut there: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !there().await {
            assert!(
                began.elapsed() < PATIENCE,
                "{what} after {PATIENCE:?}:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }
}

impl Drop for Blobserve {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path of ours as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut log = into.lock().expect("a log");
            log.push_str(&line);
            log.push('\n');
        }
    });
}

/// The first `http://host:port` of a line.
fn address(line: &str) -> Option<SocketAddr> {
    let rest = &line[line.find("http://")? + "http://".len()..];
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || ".:[]".contains(c)))
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}
