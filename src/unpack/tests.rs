//! Tests of the pipeline: what is verified, what is refused, and whose fault it is.

mod whole;

use super::*;
use crate::pack::{Kind, Pack};
use flate2::{Compression, write::GzEncoder};

const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn limits() -> Limits {
    Limits {
        layer_bytes: 1 << 30,
        ratio: 200,
        entries: 1000,
        path_bytes: 300,
        header_bytes: 4096,
        manifest_bytes: 1 << 20,
    }
}

fn expected(blob: &[u8], tar: &[u8]) -> Expected {
    Expected {
        digest: Digest::sha256(blob),
        size: blob.len() as u64,
        media_type: MEDIA_TYPE.into(),
        diff_id: Some(Digest::sha256(tar)),
        form: Form::Tar,
    }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

/// A zstd frame that states its window as 2 to the power of `log`, whatever it needs.
fn zstd_with_window(bytes: &[u8], log: u32) -> Vec<u8> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(log).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Gives a few bytes a read, as a network does.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(buffer.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

const MODES: [Threads; 2] = [Threads::One, Threads::Three];

/// Unpacks both ways, which must agree, and returns the result.
fn run(blob: &[u8], expected: &Expected, limits: &Limits) -> Result<Pack, UnpackError> {
    let results = MODES.map(|threads| {
        let resources = Resources {
            threads,
            index_bytes: 1 << 20,
        };
        let out = tempfile::tempfile().unwrap();
        unpack(Drip(blob, 70_001), expected, limits, &resources, out)
    });
    let [one, three] = results;
    match (one, three) {
        (Ok((file, a)), Ok((_, b))) => {
            assert_eq!(a, b);
            Ok(Pack::open(file).unwrap())
        }
        (Err(a), Err(b)) => {
            assert_eq!(a.to_string(), b.to_string());
            Err(a)
        }
        (a, b) => panic!("one thread: {:?}, three: {:?}", a.err(), b.err()),
    }
}

fn content(pack: &Pack, path: &str) -> Vec<u8> {
    let entry = pack
        .lookup(path.as_bytes())
        .unwrap_or_else(|| panic!("no {path}"));
    assert_eq!(entry.kind, Kind::File);
    pack.bytes()[entry.offset as usize..(entry.offset + entry.length) as usize].to_vec()
}

#[test]
fn layers_are_unpacked_whatever_their_wrapping() {
    // Larger than several buffers, so that members straddle them.
    let mut random = fastrand::Rng::with_seed(7);
    let big: Vec<u8> = (0..4 << 20).map(|_| random.u8(..16)).collect();
    let tar = tar_of(&[("a", b"1"), ("big", &big), ("z/last", b"2")]);
    let (first, second) = tar.split_at(tar.len() / 3);
    let mut named = flate2::GzBuilder::new()
        .filename("layer.tar")
        .comment("c")
        .extra(vec![7; 300])
        .write(Vec::new(), Compression::fast());
    named.write_all(&tar).unwrap();
    let mut trailing = tar.clone();
    trailing.extend_from_slice(b"what follows the end of the archive is hashed, not read");
    let table: &[(&str, Vec<u8>, &[u8])] = &[
        ("gzip", gzip(&tar), &tar),
        ("plain_tar_that_says_gzip", tar.clone(), &tar),
        ("two_members", [gzip(first), gzip(second)].concat(), &tar),
        (
            "an_empty_member_between",
            [gzip(first), gzip(b""), gzip(second)].concat(),
            &tar,
        ),
        (
            "zeros_after_the_last_member",
            [gzip(&tar), vec![0; 700]].concat(),
            &tar,
        ),
        ("every_header_field", named.finish().unwrap(), &tar),
        ("bytes_after_the_archives_end", gzip(&trailing), &trailing),
        ("zstd_that_says_gzip", zstd(&tar), &tar),
        (
            "zstd_frames_and_skippable_ones",
            [
                b"\x50\x2a\x4d\x18\0\0\0\0".to_vec(),
                zstd(first),
                b"\x5f\x2a\x4d\x18\x05\0\0\0table".to_vec(),
                zstd(b""),
                zstd(second),
                b"\x50\x2a\x4d\x18\x04\0\0\0last".to_vec(),
            ]
            .concat(),
            &tar,
        ),
        (
            "a_zstd_frame_of_one_segment",
            ::zstd::bulk::compress(&tar, 1).unwrap(),
            &tar,
        ),
    ];
    for (name, blob, plain) in table {
        let pack =
            run(blob, &expected(blob, plain), &limits()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(content(&pack, "a"), b"1", "{name}");
        assert_eq!(content(&pack, "z/last"), b"2", "{name}");
        assert!(content(&pack, "big") == big, "{name}");
        pack.verify_contents().unwrap();
    }
}

#[derive(Debug, PartialEq)]
enum Fault {
    Refused,
    Mismatch,
    Memory,
    Read,
    Write,
}

fn fault(error: &UnpackError) -> Fault {
    match error {
        UnpackError::Refused(_) => Fault::Refused,
        UnpackError::Mismatch(_) => Fault::Mismatch,
        UnpackError::Memory(_) => Fault::Memory,
        UnpackError::Read(_) => Fault::Read,
        UnpackError::Write(_) => Fault::Write,
    }
}

#[test]
fn what_is_wrong_is_refused_and_the_text_says_why() {
    let tar = tar_of(&[("a", b"1")]);
    let good = gzip(&tar);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut blob = good.clone();
        change(&mut blob);
        blob
    };
    let honest = |blob: &[u8]| expected(blob, &tar);
    let bad_tar = [b"x".repeat(512), tar.clone()].concat();
    let end = good.len();
    type Row<'a> = (&'a str, Vec<u8>, Expected, Fault, &'a str);
    let mut table: Vec<Row<'_>> = Vec::new();
    let crc = with(&|b| b[end - 8] ^= 1);
    table.push((
        "bad_crc",
        crc.clone(),
        honest(&crc),
        Fault::Refused,
        "CRC-32",
    ));
    let length = with(&|b| b[end - 4] ^= 1);
    table.push((
        "bad_length",
        length.clone(),
        honest(&length),
        Fault::Refused,
        "length",
    ));
    let cut = with(&|b| b.truncate(end - 9));
    table.push((
        "cut_short",
        cut.clone(),
        honest(&cut),
        Fault::Refused,
        "ends in the middle",
    ));
    let junk = with(&|b| b.extend_from_slice(b"junk"));
    table.push((
        "junk_after",
        junk.clone(),
        honest(&junk),
        Fault::Refused,
        "follow the last",
    ));
    table.push((
        "other_bytes",
        crc,
        honest(&good),
        Fault::Mismatch,
        "other bytes",
    ));
    table.push((
        "too_short",
        cut,
        honest(&good),
        Fault::Mismatch,
        "ends after",
    ));
    table.push((
        "too_long",
        junk,
        honest(&good),
        Fault::Mismatch,
        "longer than",
    ));
    let other = Expected {
        diff_id: Some(Digest::sha256(b"")),
        ..honest(&good)
    };
    table.push(("diff_id", good.clone(), other, Fault::Refused, "diff ID"));
    let blob = gzip(&bad_tar);
    table.push((
        "no_tar",
        blob.clone(),
        honest(&blob),
        Fault::Refused,
        "checksum",
    ));
    table.push((
        "no_tar_of_another_digest",
        blob,
        Expected {
            size: gzip(&bad_tar).len() as u64,
            ..honest(&good)
        },
        Fault::Mismatch,
        "other bytes",
    ));
    let frame = zstd(&tar);
    let mut flipped = frame.clone();
    flipped[9..20].fill(0xff);
    let wide = zstd_with_window(&vec![0; 2 << 20], 28);
    let rows: [(&str, Vec<u8>, &str); 6] = [
        ("zstd_damaged", flipped, "zstd stream is damaged"),
        (
            "zstd_cut_short",
            frame[..frame.len() - 3].to_vec(),
            "zstd stream ends in the middle",
        ),
        (
            "zstd_with_zeros_behind",
            [frame.clone(), vec![0; 9]].concat(),
            "no zstd frame follow",
        ),
        (
            "zstd_skips_over_its_end",
            [frame.as_slice(), b"\x50\x2a\x4d\x18\x09\0\0\0short"].concat(),
            "ends in the middle",
        ),
        (
            "zstd_window",
            wide,
            "a window of 268435456 bytes, more than 134217728",
        ),
        (
            "xz",
            b"\xfd7zXZ\0....".to_vec(),
            "xz, which is not supported",
        ),
    ];
    for (name, blob, text) in rows {
        let said = honest(&blob);
        table.push((name, blob, said, Fault::Refused, text));
    }
    let whiteout = gzip(&tar_of(&[(".wh.", b"")]));
    let said = Expected {
        diff_id: None,
        ..honest(&whiteout)
    };
    table.push((
        "whiteout_of_nothing",
        whiteout,
        said,
        Fault::Refused,
        "whiteout",
    ));
    for (name, blob, expected, kind, text) in table {
        let error = run(&blob, &expected, &limits())
            .err()
            .unwrap_or_else(|| panic!("{name}"));
        assert_eq!(fault(&error), kind, "{name}: {error}");
        assert!(error.to_string().contains(text), "{name}: {error}");
    }
}

#[test]
fn caps_are_named_with_their_value_and_key() {
    let many: Vec<(String, &[u8])> = (0..1001).map(|i| (format!("f{i}"), &b""[..])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    let long = "p/".repeat(151) + "x";
    let longer = "p/".repeat(3000) + "x";
    let zeros = vec![0; 100 << 20];
    let table: &[(&str, Vec<u8>, &str, &str)] = &[
        ("entries", tar_of(&many), "1000", "limits.entries"),
        ("path", tar_of(&[(&long, b"")]), "300", "limits.pathBytes"),
        (
            "extension header",
            tar_of(&[(&longer, b"")]),
            "4096",
            "limits.headerBytes",
        ),
        ("ratio", tar_of(&[("zeros", &zeros)]), "200", "limits.ratio"),
    ];
    for (name, tar, value, key) in table {
        let blob = gzip(tar);
        let ratio = if *name == "ratio" { 200 } else { 1 << 40 };
        let error = run(&blob, &expected(&blob, tar), &Limits { ratio, ..limits() })
            .err()
            .unwrap();
        let text = error.to_string();
        assert_eq!(fault(&error), Fault::Refused, "{name}");
        assert!(text.contains(value) && text.contains(key), "{name}: {text}");
    }
    let blob = gzip(&tar_of(&[("zeros", &zeros)]));
    let small = Limits {
        layer_bytes: 1 << 20,
        ..limits()
    };
    let text = run(&blob, &expected(&blob, b""), &small)
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("1048576") && text.contains("limits.layerBytes"),
        "{text}"
    );
}

#[test]
fn a_wide_zstd_window_is_admitted_as_memory() {
    let tar = tar_of(&[("a", &vec![1; 2 << 20])]);
    let unpack_with = |log, index_bytes| {
        let blob = zstd_with_window(&tar, log);
        let resources = Resources {
            threads: Threads::Three,
            index_bytes,
        };
        let out = tempfile::tempfile().unwrap();
        let said = expected(&blob, &tar);
        unpack(blob.as_slice(), &said, &limits(), &resources, out).map(|_| ())
    };
    // 8 MiB are free, more is not.
    assert!(unpack_with(23, 1 << 20).is_ok());
    for log in [24, 27] {
        let error = unpack_with(log, 1 << 20).unwrap_err();
        assert_eq!(fault(&error), Fault::Memory, "{log}");
        assert!(unpack_with(log, 121 << 20).is_ok());
    }
}

/// Fails after some bytes.
struct Broken(u64);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        let n = buffer.len().min(self.0 as usize);
        buffer[..n].fill(0);
        self.0 -= n as u64;
        Ok(n)
    }
}

impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 < bytes.len() as u64 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0 -= bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_of_source_target_and_memory_are_told_apart() {
    let mut random = fastrand::Rng::with_seed(3);
    let big: Vec<u8> = (0..6 << 20).map(|_| random.u8(..)).collect();
    let tar = tar_of(&[("big", &big), ("b", b"")]);
    let expected = expected(&tar, &tar);
    for threads in MODES {
        let resources = Resources {
            threads,
            index_bytes: 1 << 20,
        };
        let read = unpack(
            Broken(4 << 20),
            &expected,
            &limits(),
            &resources,
            io::sink(),
        );
        let error = read.err().unwrap();
        assert_eq!(fault(&error), Fault::Read);
        let write = unpack(
            tar.as_slice(),
            &expected,
            &limits(),
            &resources,
            Broken(2 << 20),
        );
        let UnpackError::Write(error) = write.err().unwrap() else {
            panic!("not Write")
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let little = Resources {
            threads,
            index_bytes: 100,
        };
        let memory = unpack(tar.as_slice(), &expected, &limits(), &little, io::sink());
        assert_eq!(fault(&memory.err().unwrap()), Fault::Memory);
    }
}

/// Damages a layer at random, raw and inside the gzip; nothing may panic or hang.
#[test]
fn damaged_layers_never_panic() {
    let seed = std::env::var("BLOBSERVE_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BLOBSERVE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let long = "d/".repeat(80) + "file";
    let tar = tar_of(&[("a", b"1"), (&long, &[7; 2000]), ("b/c", b"23")]);
    for round in 0..400 {
        let mut inner = tar.clone();
        let mut blob = if round % 2 == 0 {
            Vec::new()
        } else {
            gzip(&tar)
        };
        let target = if round % 2 == 0 {
            &mut inner
        } else {
            &mut blob
        };
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..target.len());
            target[at] = random.u8(..);
        }
        if round % 2 == 0 {
            fix_tar_checksums(&mut inner);
            blob = inner.clone();
        }
        let said = Expected {
            diff_id: None,
            ..expected(&blob, &inner)
        };
        if let Ok(pack) = run(&blob, &said, &limits()) {
            pack.verify_contents().unwrap();
        }
    }
}

/// Makes every block that looks like a header pass its checksum.
fn fix_tar_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn bytes_that_are_no_tar_make_one_file_whatever_they_look_like() {
    for blob in [
        gzip(b"a gzip that stays one"),
        b"BZh9 no tar".to_vec(),
        Vec::new(),
    ] {
        let of = |path: &str| Expected {
            diff_id: None,
            form: Form::File(path.into()),
            ..expected(&blob, b"")
        };
        let wanted = of("a/b.bin");
        let pack = run(&blob, &wanted, &limits()).expect("a pack");
        assert_eq!(pack.origin().digest, wanted.identity());
        assert_ne!(wanted.identity(), of("a/c.bin").identity());
        assert!(content(&pack, "a/b.bin") == blob);
        let lie = Expected {
            digest: Digest::sha256(b"other bytes"),
            ..wanted
        };
        let error = run(&blob, &lie, &limits()).map(drop);
        assert!(matches!(error, Err(UnpackError::Mismatch(_))), "{error:?}");
    }
}
