//! Buffers that threads fill and the thread that empties them.

use super::line::Clock;
use crate::metrics::Metrics;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// Buffers; threads share them when there are more.
const BUFFERS: usize = 16;
/// Bytes that wait in a buffer at most; a line that finds more is dropped.
const MOST_WAITING: usize = 1 << 20;
/// Bytes in a buffer that wake the thread before its time.
const WAKE: usize = 64 << 10;
/// How long a line waits at most, while there is someone to take it.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
    /// Says, by closing, that the thread has ended.
    ended: Mutex<Receiver<()>>,
}

struct Shared {
    buffers: [Mutex<Buffer>; BUFFERS],
    reopen: AtomicBool,
    closing: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Locked while a line is put into it, and while it is swapped for an empty one: never during a write.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    clock: Clock,
}

/// Where lines go.
enum Out {
    Standard,
    File(PathBuf, File),
}

impl Writer {
    pub(super) fn start(file: Option<PathBuf>, metrics: Arc<Metrics>) -> Result<Writer, String> {
        let out = match file {
            None => Out::Standard,
            Some(path) => match append(&path) {
                Ok(file) => Out::File(path, file),
                Err(error) => {
                    return Err(format!(
                        "accessLog.file: {} cannot be opened: {error}",
                        path.display()
                    ));
                }
            },
        };
        let shared = Arc::new(Shared {
            buffers: Default::default(),
            reopen: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            metrics,
        });
        let (running, ended) = mpsc::channel();
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                of_thread.work(out);
                drop::<mpsc::Sender<()>>(running);
            })
            .map_err(|error| format!("accessLog: no thread to write it: {error}"))?;
        Ok(Writer {
            shared,
            thread: thread.thread().clone(),
            ended: Mutex::new(ended),
        })
    }

    /// `write` appends one line, with its end.
    pub(super) fn line(&self, write: impl FnOnce(&mut Vec<u8>, &mut Clock)) {
        let mut buffer = locked(&self.shared.buffers[own()]);
        let before = buffer.bytes.len();
        if before >= MOST_WAITING {
            drop(buffer);
            self.shared.metrics.log_lines_dropped(1);
            return;
        }
        let Buffer { bytes, clock } = &mut *buffer;
        write(bytes, clock);
        let full = before < WAKE && bytes.len() >= WAKE;
        drop(buffer);
        if full {
            self.thread.unpark();
        }
    }

    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.thread.unpark();
    }

    pub(super) fn close(&self, limit: Duration) {
        self.shared.closing.store(true, Ordering::Release);
        self.thread.unpark();
        // Nothing is sent: it ends by the sender's drop.
        let _ = locked(&self.ended).recv_timeout(limit);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread writes out what is there, and goes.
        self.shared.closing.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Shared {
    fn work(&self, mut out: Out) {
        let mut bytes = Vec::new();
        let mut failing = false;
        loop {
            // Asked first: what was written before the word is written out after it.
            let closing = self.closing.load(Ordering::Acquire);
            if self.reopen.swap(false, Ordering::Acquire) {
                out.reopen();
            }
            for buffer in &self.buffers {
                bytes.clear();
                std::mem::swap(&mut bytes, &mut locked(buffer).bytes);
                if bytes.is_empty() {
                    continue;
                }
                let written = out.write(&bytes);
                if let Err(error) = &written {
                    let lost = memchr::memchr_iter(b'\n', &bytes).count();
                    self.metrics.log_lines_dropped(lost as u64);
                    if !failing {
                        tracing::error!(
                            "accessLog: {out} cannot be written, lines are lost: {error}"
                        );
                    }
                }
                failing = written.is_err();
            }
            // What a burst took is given back.
            bytes.shrink_to(WAKE);
            if closing {
                return;
            }
            std::thread::park_timeout(FLUSH);
        }
    }
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Out::Standard => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Out::File(_, file) => file.write_all(bytes),
        }
    }

    fn reopen(&mut self) {
        if let Out::File(path, file) = self {
            match append(path) {
                Ok(opened) => *file = opened,
                Err(error) => tracing::error!(
                    "accessLog.file: {} cannot be opened anew, the one that was open goes on: {error}",
                    path.display()
                ),
            }
        }
    }
}

impl std::fmt::Display for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Out::Standard => f.write_str("standard output"),
            Out::File(path, _) => path.display().fmt(f),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// The buffer of this thread: dealt out in turn, so that each reactor has its own.
fn own() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let dealt = NEXT.fetch_add(1, Ordering::Relaxed) % BUFFERS;
            own.set(Some(dealt));
            dealt
        })
    })
}

/// A panic while a line is written leaves half a line, which is no reason to write no more.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
