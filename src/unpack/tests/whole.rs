//! Whole layers: with tables of contents that are for others, and with very many files.

use super::*;

/// Both have a table of contents for who reads parts: eStargz as a file, and an empty member whose FEXTRA says
/// where; zstd:chunked in skippable frames. Both are all that is in the tar.
#[test]
fn estargz_and_zstd_chunked_are_read_as_what_they_also_are() {
    let files: [(&str, &[u8]); 3] = [
        ("a", b"1"),
        ("z/last", b"2"),
        ("stargz.index.json", b"{\"version\":1,\"entries\":[]}"),
    ];
    let tar = tar_of(&files);
    // A member an entry (512 bytes of header, 512 of content), and one for the end of the archive.
    let (mut estargz, mut chunked) = (Vec::new(), Vec::new());
    for piece in tar.chunks(1024) {
        estargz.extend(gzip(piece));
        chunked.extend(zstd(piece));
    }
    let footer = format!("SG\x16\0{:016x}STARGZ", estargz.len());
    let footer = flate2::GzBuilder::new()
        .extra(footer)
        .write(Vec::new(), Compression::none());
    estargz.extend(footer.finish().unwrap());
    let skippable = |content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [&b"\x50\x2a\x4d\x18"[..], &length, content].concat()
    };
    chunked.extend(skippable(&zstd(b"{\"version\":1,\"entries\":[]}")));
    chunked.extend(skippable(&[&[0; 56][..], b"GNUlInUx"].concat()));
    for (name, blob) in [("eStargz", estargz), ("zstd:chunked", chunked)] {
        let pack =
            run(&blob, &expected(&blob, &tar), &limits()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (path, there) in files {
            assert_eq!(content(&pack, path), there, "{name}: {path}");
        }
    }
}

/// Ten times as many files take ten times as long, not a hundred times: of this thread's own time, whoever
/// else the machine serves.
#[test]
fn unpacking_a_hundred_thousand_files_is_linear() {
    let worked = || -> u64 {
        let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        said.split(' ').next().unwrap().parse().unwrap()
    };
    let limits = Limits {
        entries: 1_000_000,
        ..limits()
    };
    let times = [10_000, 100_000].map(|count| {
        let paths: Vec<String> = (0..count)
            .map(|number| format!("usr/lib/{}/file-{number}.txt", number % 97))
            .collect();
        let files: Vec<(&str, &[u8])> = paths.iter().map(|path| (&**path, &b"x"[..])).collect();
        let tar = tar_of(&files);
        let expected = expected(&tar, &tar);
        let resources = Resources {
            threads: Threads::One,
            index_bytes: 1 << 28,
        };
        let rounds = [(); 2].map(|()| {
            let (before, out) = (worked(), tempfile::tempfile().unwrap());
            unpack(&tar[..], &expected, &limits, &resources, out).unwrap();
            worked() - before
        });
        rounds.into_iter().min().unwrap()
    });
    assert!(times[1] < 30 * times[0], "{times:?} ns");
}
