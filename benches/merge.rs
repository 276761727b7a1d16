//! How long merging takes: `cargo bench --bench merge`. Makes layers of small files, each with some of what
//! layers do to each other, merges their indexes, and prints milliseconds, microseconds an entry and
//! bytes of the merged index. Linear: the microseconds an entry stay as they are.

use blobserve::digest::Digest;
use blobserve::merge::merge;
use blobserve::pack::{EntryHeader, Kind, Origin, Pack, Writer};
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;

fn main() {
    println!("layers  entries  merge ms  us an entry  index bytes");
    for (layers, files) in [
        // As many entries in more and more layers.
        (1, 100_000),
        (10, 10_000),
        (100, 1_000),
        (500, 200),
        // More and more entries, in few layers and in many.
        (10, 1_000),
        (10, 100_000),
        (500, 20),
        (500, 2_000),
    ] {
        let packs: Vec<Box<Pack>> = (0..layers)
            .map(|number| Box::new(layer(number, files)))
            .collect();
        let entries: u64 = packs.iter().map(|pack| pack.entries()).sum();
        let mut times: Vec<Duration> = Vec::new();
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            let out = tempfile::tempfile().expect("a temporary file");
            let start = Instant::now();
            let (_, summary) = merge(&packs, u64::MAX, out).expect("merged");
            times.push(start.elapsed());
            bytes = summary.pack_bytes;
        }
        times.sort();
        let median = times[ROUNDS / 2];
        println!(
            "{layers:6}  {entries:7}  {:8.1}  {:11.3}  {bytes:11}",
            median.as_secs_f64() * 1e3,
            median.as_secs_f64() * 1e6 / entries as f64,
        );
    }
}

/// A layer of so many files: a tenth of them replace those of the layer below, a directory of that one is
/// opaque, and a file of it is hidden.
fn layer(number: usize, files: usize) -> Pack {
    let mut writer = Writer::new(tempfile::tempfile().expect("a temporary file"));
    let mut put = |path: &str, kind: Kind| {
        let header = EntryHeader {
            path: path.as_bytes(),
            kind,
            link: b"",
            mode: 0o644,
            mtime: 1_700_000_000,
        };
        let content: &[u8] = if kind == Kind::File { b"content" } else { b"" };
        writer
            .entry(&header, content.len() as u64)
            .expect("an entry");
        writer.content(content).expect("content");
    };
    put("usr", Kind::Directory);
    put("usr/lib", Kind::Directory);
    put(
        &format!("usr/lib/{}/opaque", number.saturating_sub(1)),
        Kind::Opaque,
    );
    put(
        &format!("usr/lib/{}/11/hidden", number.saturating_sub(1)),
        Kind::Whiteout,
    );
    for file in 0..files {
        let owner = match file % 10 {
            0 => number.saturating_sub(1),
            _ => number,
        };
        put(
            &format!("usr/lib/{owner}/{}/file-{file}.txt", file % 97),
            Kind::File,
        );
    }
    let name = Digest::sha256(format!("{number} {files}").as_bytes());
    let origin = Origin {
        digest: name,
        size: 1,
        diff_id: name,
    };
    let (file, _) = writer.finish(&origin).expect("a pack");
    Pack::open(file).expect("a pack just written opens")
}
