//! One kill -9 at each change that a first start, two cold fetches and the eviction between them make
//! on disk, by strace's fault injection; after each, the service starts on the same blobspace and
//! every answer is right.
//!
//! 1. An undisturbed run under strace gives the changes: system call, path, and which one of its
//!    kind on that path.
//! 2. For each, a run on an empty directory is killed as it enters that call: `strace -P PATH` counts
//!    only calls on that path, also when nothing is there yet.
//! 3. The binary starts on what is left.

use crate::binary::text;
use crate::parts::installed;
use crate::support::{
    Client, Image, Layer, Process, Registry, json, noise, service::configuration,
};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The system calls that change what is on disk.
const CALLS: &str = "openat,creat,write,writev,pwrite64,pwritev,rename,renameat,renameat2,link,linkat,\
                     symlink,symlinkat,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,mkdir,mkdirat,\
                     truncate,ftruncate,fallocate";
/// One of the two layers fits.
const BOUND: u64 = 4 << 20;
/// Files of an image, and bytes of each: a pack of several writes.
const FILES: u64 = 5;
const BYTES: usize = 500_000;
/// What is ours in the blobspace, relative to a run's directory.
const OURS: &str = "blobs/blobserve-v1/";
/// How often a moment is sought: temporary names can differ between two runs.
const TRIES: usize = 4;
/// Longest wait for an address, an answer or rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `nth` call of its kind on a path.
#[derive(Clone, Debug)]
struct Change {
    call: String,
    /// Relative to the run's directory; of a rename the old name, which strace looks at.
    path: String,
    /// As `path`, but of a rename the new name.
    target: String,
    nth: usize,
}

impl Change {
    /// Whether it is such a call on a path below what is ours.
    fn is(&self, call: &str, below: &str) -> bool {
        let target = self.target.strip_prefix(OURS).unwrap_or_default();
        self.call.starts_with(call) && target.starts_with(below)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_at_each_change_of_the_disk_every_answer_is_right() {
    installed();
    let registry = Registry::start().await;
    let layers: Vec<String> = (0..2)
        .map(|number| {
            let pushed = registry.push("team/app", &format!("v{number}"), &image(number));
            pushed.layers[0].clone()
        })
        .collect();
    let undisturbed = Run::new(&registry);
    assert!(
        undisturbed.under_strace(None).await.is_none(),
        "nothing kills it"
    );
    undisturbed.is_right_afterwards(&layers).await;
    let changes = undisturbed.changes();
    has_all_kinds(&changes);

    for change in &changes {
        println!("{change:?}");
        let mut killed = false;
        for _ in 0..TRIES {
            let run = Run::new(&registry);
            let ended = run.under_strace(Some(change)).await;
            run.is_right_afterwards(&layers).await;
            if let Some(status) = ended {
                assert_eq!(status.signal(), Some(9), "at {change:?}: {status}");
                killed = true;
                break;
            }
        }
        assert!(killed, "{change:?} was not met again");
    }
    println!("killed at each of {} changes of the disk", changes.len());
}

/// What the undisturbed run has to contain, or the kills prove less than they say.
fn has_all_kinds(changes: &[Change]) {
    let count = |call: &str, below: &str| changes.iter().filter(|c| c.is(call, below)).count();
    for (call, below, least) in [
        ("mkdir", "", 7),
        ("openat", "tmp/", 10),
        // Two packs, each in several writes, and a record for manifest, configuration, tag and claims.
        ("pwrite64", "tmp/", 14),
        ("rename", "boot-id", 1),
        ("rename", "packs/", 2),
        ("rename", "records/documents/", 4),
        ("rename", "records/tags/", 2),
        ("rename", "records/claims/", 2),
        ("fchmod", "packs/", 2),
        ("unlink", "packs/", 1),
    ] {
        let found = count(call, below);
        assert!(
            found >= least,
            "{found} × {call} below {below:?}, at least {least} expected: {changes:#?}"
        );
    }
    let several = |c: &&Change| c.is("pwrite64", "tmp/") && c.nth == 2;
    assert_eq!(
        changes.iter().filter(several).count(),
        2,
        "packs are written in several steps: {changes:#?}"
    );
}

fn image(number: u64) -> Image {
    let mut layer = Layer::new().file("index.html", format!("image {number}"));
    for file in 0..FILES {
        layer = layer.file(&format!("{file}.bin"), content(number, file));
    }
    Image::of(layer)
}

fn content(number: u64, file: u64) -> Vec<u8> {
    noise(number * 100 + file, BYTES)
}

/// One blobspace, from nothing to its end.
struct Run<'a> {
    directory: tempfile::TempDir,
    file: PathBuf,
    registry: &'a Registry,
}

impl Run<'_> {
    fn new(registry: &Registry) -> Run<'_> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let settings = json!({"blobSpace": {"maxSizeBytes": BOUND}});
        let file = directory.path().join("config.json");
        let config = configuration(directory.path(), &[registry], &settings);
        std::fs::write(&file, config.to_string()).expect("written");
        Run {
            directory,
            file,
            registry,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ours(&self) -> PathBuf {
        self.path(OURS)
    }

    /// Starts the binary, to be killed at `change`, and asks for both images. How it ended, if it did.
    async fn under_strace(&self, change: Option<&Change>) -> Option<ExitStatus> {
        let mut strace = Command::new("strace");
        // -D: the child is the binary itself. -y: descriptors with their paths.
        strace
            .args(["-D", "-f", "-qq", "-y", "-s", "8", "-e", "signal=none"])
            .arg("-o")
            .arg(self.path("strace.log"));
        match change {
            None => {
                strace.args(["-e", &format!("trace={CALLS}")]);
            }
            Some(Change {
                call, path, nth, ..
            }) => {
                strace.args(["-e", &format!("trace={call}"), "-P"]);
                strace.arg(self.path(path));
                strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")]);
            }
        }
        let out = self.path("out");
        strace
            .arg(env!("CARGO_BIN_EXE_blobserve"))
            .args(["serve", "--config", text(&self.file)])
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(File::create(&out).expect("a file"));
        let mut child = Traced(strace.spawn().expect("strace starts"), Instant::now());
        let client = loop {
            let line = std::fs::read_to_string(&out).unwrap_or_default();
            let address = line.split_once("http://").map(|(_, rest)| rest.trim_end());
            if let Some(address) = address.filter(|_| line.ends_with('\n')) {
                break Client(address.parse().expect("an address"));
            }
            if let Some(ended) = child.ended() {
                return Some(ended);
            }
            child.pause().await;
        };
        for number in 0..2 {
            let path = self
                .registry
                .path(&format!("team/app:v{number}"), "/index.html");
            let answered = client.try_request("GET", &path, &[]).await;
            // What goes on behind the answer (sync, tag) belongs to it; and it makes the order of
            // events the same in every run.
            let mut before = None;
            loop {
                if let Some(ended) = child.ended() {
                    return Some(ended);
                }
                let now = self.at_rest();
                if now.is_some() && now == before {
                    break;
                }
                before = now;
                child.pause().await;
                child.pause().await;
            }
            let answer = answered.expect("it lives, so it answers");
            assert_eq!(answer.expect(200).text(), format!("image {number}"));
        }
        None
    }

    /// How many packs and records there are, when nothing is being written and all packs are durable.
    fn at_rest(&self) -> Option<(usize, usize)> {
        let packs = files(&self.ours().join("packs"));
        let durable = packs.iter().all(|path| {
            let found = std::fs::metadata(path);
            found.is_ok_and(|found| found.permissions().mode() & 0o777 == 0o400)
        });
        let kinds = ["documents", "tags", "claims"];
        let records = kinds.map(|kind| files(&self.ours().join("records").join(kind)).len());
        let idle = files(&self.ours().join("tmp")).is_empty();
        (durable && idle).then(|| (packs.len(), records.iter().sum()))
    }

    /// Starts the binary on what is left: nothing half-done, sealed packs used, all answers right.
    async fn is_right_afterwards(&self, layers: &[String]) {
        let sealed = |number: &usize| {
            let digest = layers[*number].replace(':', "-");
            let names = files(&self.ours().join("packs"));
            names.iter().any(|name| text(name).contains(&digest))
        };
        let sealed = (0..2).find(sealed);
        let process = Process::serve(&self.file);
        assert_eq!(files(&self.ours().join("tmp")), [] as [PathBuf; 0]);
        if let Some(number) = sealed {
            let fetched = self.registry.count_blob_gets(&layers[number]);
            self.is_right(process.client, number as u64).await;
            let again = self.registry.count_blob_gets(&layers[number]);
            assert_eq!(fetched, again, "a sealed pack is not fetched again");
        }
        for number in [1, 0] {
            self.is_right(process.client, number).await;
            let sizes = files(&self.ours().join("packs")).into_iter().map(|path| {
                let found = std::fs::metadata(path);
                found.map_or(0, |found| found.len())
            });
            let bytes: u64 = sizes.sum();
            assert!(bytes <= BOUND, "{bytes} bytes of packs, {BOUND} allowed");
        }
        let began = Instant::now();
        while !files(&self.ours().join("tmp")).is_empty() {
            assert!(began.elapsed() < PATIENCE, "something is left in tmp");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.kill();
    }

    async fn is_right(&self, client: Client, number: u64) {
        let get = async |path: &str| {
            let path = self.registry.path(&format!("team/app:v{number}"), path);
            client.request("GET", &path, &[]).await.expect(200)
        };
        assert_eq!(get("/").await.text(), format!("image {number}"));
        for file in 0..FILES {
            let path = format!("/{file}.bin");
            let body = get(&path).await.body;
            assert!(body == content(number, file), "{path} of image {number}");
        }
    }

    /// The changes in strace's log, in order.
    fn changes(&self) -> Vec<Change> {
        let log = std::fs::read(self.path("strace.log")).expect("strace's log");
        let directory = format!("{}/", self.directory.path().display());
        let mut counts: HashMap<(String, String), usize> = HashMap::new();
        let mut changes = Vec::new();
        for line in String::from_utf8_lossy(&log).lines() {
            let Some((call, path, target)) = change(line, &directory) else {
                continue;
            };
            let nth = counts.entry((call.clone(), path.clone())).or_default();
            *nth += 1;
            changes.push(Change {
                call,
                path,
                target,
                nth: *nth,
            });
        }
        changes
    }
}

/// Call, first and last path of a line `PID call(…`, if it changes something in the blobspace below `directory`.
fn change(line: &str, directory: &str) -> Option<(String, String, String)> {
    let (_, line) = line.split_once(' ')?;
    let (call, arguments) = line.trim_start().split_once('(')?;
    let word = |c: char| c.is_ascii_alphanumeric();
    if !call.chars().all(word) || line.contains(" = -1 ") {
        return None;
    }
    if call == "openat" && !arguments.contains("O_CREAT") && !arguments.contains("O_TRUNC") {
        return None;
    }
    let paths = arguments.split(directory).skip(1);
    let mut paths = paths.filter_map(|rest| rest.split(['"', '>']).next());
    let path = paths.next().filter(|path| path.starts_with("blobs"))?;
    let target = paths.last().unwrap_or(path);
    Some((call.to_owned(), path.to_owned(), target.to_owned()))
}

/// The binary under strace. Killed when dropped; strace ends with it.
struct Traced(Child, Instant);

impl Traced {
    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a state")
    }

    async fn pause(&self) {
        assert!(self.1.elapsed() < PATIENCE, "it neither rests nor ends");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}
