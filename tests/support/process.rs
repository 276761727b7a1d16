//! The real binary, as a user starts it; it can be killed at any moment and started again.

use super::client::Client;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running `blobserve`. Killed when dropped.
pub struct Process {
    child: Child,
    /// Sends requests to it.
    pub client: Client,
    /// What it wrote to standard output and error, line by line.
    pub lines: mpsc::Receiver<String>,
}

impl Process {
    /// Runs `blobserve serve --config FILE` and waits for the line that names its address.
    pub fn serve(config: &Path) -> Process {
        Process::start(&["serve", "--config", &config.to_string_lossy()])
    }

    /// Runs `blobserve` with these arguments and waits for the line that names its address.
    pub fn start(arguments: &[&str]) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_blobserve"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take().expect("piped"), sender.clone());
        forward(child.stderr.take().expect("piped"), sender);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = Vec::new();
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some(address) = address(&line) {
                let client = Client(address);
                return Process {
                    child,
                    client,
                    lines,
                };
            }
            seen.push(line);
        }
        // Not dropped as a Process yet, so it is ended here.
        let _ = child.kill();
        let _ = child.wait();
        panic!("no line names the address:\n{}", seen.join("\n"));
    }

    /// Runs `blobserve` with these arguments to its end; exit code and all that it wrote.
    pub fn run(arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_blobserve"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }

    /// kill -9, and waits until it has ended.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let id = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a line such as `… http://127.0.0.1:8080/ …`.
fn address(line: &str) -> Option<SocketAddr> {
    let rest = &line[line.find("http://")? + "http://".len()..];
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || ".:[]".contains(c)))
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn forward(from: impl Read + Send + 'static, to: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // The reader may be gone; the pipe is drained all the same.
            let _ = to.send(line);
        }
    });
}
