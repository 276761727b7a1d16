//! The control socket: how the commands about images reach the running server.
//!
//! A Unix socket `control` (mode 0600) in the blobspace's directory (mode 0700): whoever may read the packs may ask,
//! nobody else; there is no TCP for it. One request a connection: a line of JSON, a
//! [`Command`]; the answer is a line `{"images": […]}` or `{"error": "…"}`. A socket that a killed server
//! left behind is replaced by the next one, which has the directory's lock by then.
//!
//! The socket is bound and reached through the directory's descriptor, so a long path does not hit the
//! 108 bytes of `sockaddr_un`.

use crate::images::{Catalogue, Command, ImageRecord, Images};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// Name of the socket.
const NAME: &str = "control";
/// Longest request, bytes.
const LONGEST: u64 = 64 << 10;
/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the command waits for the server's answer.
const ANSWER: Duration = Duration::from_secs(60);
/// After accepting failed (out of descriptors).
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Images(Vec<ImageRecord>),
    Error(String),
}

/// A bound socket; its name goes when this is dropped.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds it in the blobspace's own directory, whose lock the caller has.
    pub fn bind(root: &Path) -> io::Result<Control> {
        let path = root.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let directory = directory(root)?;
        let listener = UnixListener::bind(within(&directory))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Control { listener, path })
    }

    /// Answers until it is aborted.
    pub async fn serve(self, images: Images) {
        // Dropped before `images`, which keep the directory's lock: so the name that goes is ours.
        let control = self;
        loop {
            match control.listener.accept().await {
                Ok((stream, _)) => {
                    let images = images.clone();
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, &images).await {
                            tracing::debug!(%error, "control socket");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket: cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // What is left is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(stream: tokio::net::UnixStream, images: &Images) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut line = Vec::new();
    let mut from = tokio::io::BufReader::new(from.take(LONGEST));
    tokio::time::timeout(PATIENCE, from.read_until(b'\n', &mut line)).await??;
    let catalogue = images.catalogue();
    let work = move || match serde_json::from_slice::<Command>(&line) {
        Ok(command) => executed(&catalogue, &command),
        Err(error) => Answer::Error(format!("not a command: {error}")),
    };
    let answer = tokio::task::spawn_blocking(work).await;
    let answer = answer.unwrap_or_else(|_| Answer::Error("the command failed".into()));
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    tokio::time::timeout(PATIENCE, to.write_all(&bytes)).await?
}

fn executed(catalogue: &Catalogue, command: &Command) -> Answer {
    match catalogue.execute(command) {
        Ok(images) => Answer::Images(images),
        Err(error) => Answer::Error(error),
    }
}

/// Asks the server that runs on the directory. None: none does.
///
/// # Errors
/// The server's answer to a command that it did not carry out, or why it cannot be asked.
pub fn ask(root: &Path, command: &Command) -> Option<Result<Vec<ImageRecord>, String>> {
    let stream = directory(root).and_then(|directory| UnixStream::connect(within(&directory)));
    match stream {
        Ok(stream) => Some(asked(stream, command).unwrap_or_else(|error| {
            let path = root.join(NAME);
            Err(format!("{}: {error}", path.display()))
        })),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            None
        }
        Err(error) => Some(Err(format!("{}: {error}", root.join(NAME).display()))),
    }
}

fn asked(
    mut stream: UnixStream,
    command: &Command,
) -> io::Result<Result<Vec<ImageRecord>, String>> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    Ok(match serde_json::from_str(&answer)? {
        Answer::Images(images) => Ok(images),
        Answer::Error(error) => Err(error),
    })
}

fn directory(root: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(root)
}

fn within(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()))
}
