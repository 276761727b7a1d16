//! Programs of the machine: run to their end, or running until dropped.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest that a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Installs what is missing, once; fails the test when that fails.
pub fn installed() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/install.sh");
        run(script.to_str().expect("UTF-8"), &[] as &[&str], b"");
    });
}

/// Runs a program to its end with `input`; what it wrote to standard output. Fails the test, with
/// all that it wrote, unless it succeeds.
#[track_caller]
pub fn run(program: &str, arguments: &[impl AsRef<OsStr>], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    // All inputs here are smaller than a pipe. One that is not read is not wanted.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// An address on loopback that nobody listens on.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("an address")
}

/// A running server. Killed when dropped.
pub struct Server(Child);

impl Server {
    /// Starts a program and waits until it listens at `address`. Its log goes to the file `log`.
    pub fn start(program: &str, arguments: &[&OsStr], address: SocketAddr, log: &Path) -> Server {
        let file = std::fs::File::create(log).expect("a log");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let began = Instant::now();
        let ended = loop {
            if TcpStream::connect(address).is_ok() {
                return Server(child);
            }
            let ended = child.try_wait().expect("a state");
            if ended.is_some() || began.elapsed() > PATIENCE {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let _ = child.kill();
        let _ = child.wait();
        let log = std::fs::read_to_string(log).unwrap_or_default();
        panic!("{program} does not listen at {address} ({ended:?}):\n{log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
