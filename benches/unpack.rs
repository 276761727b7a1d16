//! How fast a layer becomes a pack: `cargo bench --bench unpack -- [files] [bytes a file]`.
//! Makes a layer of small files that compress about 5 : 1, unpacks it both ways, compares with
//! `tar xzf` into a new directory, and prints milliseconds, MB/s and peak memory.

use blobserve::config::Limits;
use blobserve::digest::Digest;
use blobserve::pack::Pack;
use blobserve::unpack::{Expected, Form, Resources, Threads, unpack};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let files = numbers.first().copied().unwrap_or(62_000);
    let bytes = numbers.get(1).copied().unwrap_or(4_400);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layer = dir.path().join("layer.tar.gz");
    let diff_id = make_layer(&layer, files, bytes);
    let expected = Expected {
        digest: digest_of(&layer),
        size: std::fs::metadata(&layer).expect("the layer").len(),
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        diff_id: Some(diff_id),
        form: Form::Tar,
    };
    println!(
        "layer: {files} files of {bytes} bytes, {} bytes gzip",
        expected.size
    );
    for threads in [Threads::Three, Threads::One] {
        let mut times: Vec<Duration> = Vec::new();
        let mut last = None;
        for round in 0..ROUNDS {
            let path = dir.path().join(format!("{round}.pack"));
            let start = Instant::now();
            last = Some(unpack_once(&layer, &path, &expected, threads));
            times.push(start.elapsed());
            std::fs::remove_file(&path).expect("removing the pack");
        }
        times.sort();
        let median = times[ROUNDS / 2];
        let (summary, index) = last.expect("a round");
        println!(
            "{threads:?}: {} ms, {:.0} MB/s of content, {} entries, {:.1} index bytes an entry, peak anonymous memory so far {} KiB",
            median.as_millis(),
            summary.content_bytes as f64 / 1e6 / median.as_secs_f64(),
            summary.entries,
            index as f64 / summary.entries as f64,
            peak_kib(),
        );
    }
    let start = Instant::now();
    let target = dir.path().join("tree");
    std::fs::create_dir(&target).expect("a directory");
    let status = Command::new("tar")
        .arg("xzf")
        .arg(&layer)
        .arg("-C")
        .arg(&target)
        .status();
    assert!(status.expect("tar").success());
    println!("tar xzf: {} ms", start.elapsed().as_millis());
}

fn unpack_once(
    layer: &Path,
    path: &Path,
    expected: &Expected,
    threads: Threads,
) -> (blobserve::pack::Summary, u64) {
    let limits = Limits {
        layer_bytes: 16 << 30,
        ratio: 200,
        entries: 2_000_000,
        path_bytes: 4096,
        header_bytes: 1 << 20,
        manifest_bytes: 4 << 20,
    };
    let resources = Resources {
        threads,
        index_bytes: 512 << 20,
    };
    let blob = File::open(layer).expect("the layer");
    let out = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let out = out.expect("a new pack");
    let (out, summary) = unpack(blob, expected, &limits, &resources, out).expect("unpacks");
    let pack = Pack::open(out).expect("opens");
    assert!(
        pack.lookup(b"usr/lib/node_modules/package-0/dist/file-0.js")
            .is_some()
    );
    let index = summary.pack_bytes - summary.content_bytes;
    (summary, index)
}

/// Writes the layer with gzip's own level; returns the diff ID.
fn make_layer(path: &Path, files: u64, bytes: u64) -> Digest {
    let tar = path.with_extension("");
    let mut builder = tar::Builder::new(std::io::BufWriter::new(File::create(&tar).expect("tar")));
    let words: Vec<String> = (0..512u64)
        .map(|i| format!("export function name{:x}() {{ ", i * 2_654_435_761))
        .collect();
    let mut random = fastrand::Rng::with_seed(1);
    let mut content = Vec::new();
    for i in 0..files {
        content.clear();
        while (content.len() as u64) < bytes {
            content.extend_from_slice(words[random.usize(..words.len())].as_bytes());
        }
        content.truncate(bytes as usize);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o644);
        let name = format!("usr/lib/node_modules/package-{}/dist/file-{i}.js", i / 20);
        builder
            .append_data(&mut header, name, content.as_slice())
            .expect("tar");
    }
    builder
        .into_inner()
        .and_then(|mut out| out.flush())
        .expect("tar");
    let diff_id = digest_of(&tar);
    let status = Command::new("gzip")
        .arg("-6")
        .arg(&tar)
        .status()
        .expect("gzip");
    assert!(status.success());
    diff_id
}

/// SHA-256 of a file, read in pieces.
fn digest_of(path: &Path) -> Digest {
    let mut hasher = blobserve::digest::Hasher::new(blobserve::digest::Algorithm::Sha256);
    let mut reader = BufReader::new(File::open(path).expect("a file"));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer).expect("a file") {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    hasher.finish()
}

/// Most anonymous memory that was resident at once, from /proc (0 where there is none).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let files = field("RssFile:").unwrap_or(0);
    field("VmHWM:").unwrap_or(0).saturating_sub(files)
}
