//! `tar/expected.json`: 109 archives. Where readers agree we list exactly that or refuse;
//! where they disagree, Go's view or a refusal; what all reject we refuse.

use blobserve::config::Limits;
use blobserve::digest::Digest;
use blobserve::pack::{Kind, Pack};
use blobserve::unpack::{Expected, Form, Resources, Threads, UnpackError, unpack};
use serde_json::Value;
use std::collections::BTreeSet;

/// Unpacks the file as one layer.
pub(super) fn unpack_layer(bytes: &[u8], threads: Threads) -> Result<Pack, UnpackError> {
    let expected = Expected {
        digest: Digest::sha256(bytes),
        size: bytes.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        diff_id: None,
        form: Form::Tar,
    };
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
        index_bytes: 64 << 20,
    };
    let file = tempfile::tempfile().expect("a temporary file");
    let (file, _) = unpack(bytes, &expected, &limits, &resources, file)?;
    Ok(Pack::open(file).expect("a pack just written opens"))
}

fn clean(name: &str) -> Vec<u8> {
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(name).collect();
    let mut out: Vec<&[u8]> = Vec::new();
    for part in bytes.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(out.pop()),
            part => out.push(part),
        }
    }
    out.join(&b'/')
}

type Listing = Vec<(Vec<u8>, String, Option<String>)>;

fn listing(pack: &Pack) -> Listing {
    pack.log()
        .map(|entry| {
            let kind = match entry.kind {
                Kind::File => "0",
                Kind::HardLink => "1",
                Kind::Symlink => "2",
                Kind::Directory => "5",
                _ => "x",
            };
            let hash = (entry.kind == Kind::File).then(|| {
                let range = entry.offset as usize..(entry.offset + entry.length) as usize;
                Digest::sha256(&pack.bytes()[range]).hex()
            });
            (entry.path.to_vec(), kind.to_owned(), hash)
        })
        .collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[test]
fn archives_are_listed_as_readers_agree_or_refused() {
    let dir = super::cases_dir().join("tar");
    let table: Value =
        serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let table = table.as_object().unwrap();
    assert!(table.len() > 100);
    let (mut served, mut wrong) = (BTreeSet::new(), Vec::new());
    for (name, case) in table {
        // The readers of the table know no zstd: the answer is that of the archive in it.
        let inner = name.strip_suffix(".zst").and_then(|tar| table.get(tar));
        let case = inner.unwrap_or(case);
        let bytes = std::fs::read(dir.join(name)).unwrap();
        let class = case["cls"].as_str().unwrap();
        for threads in [Threads::One, Threads::Three] {
            let pack = match unpack_layer(&bytes, threads) {
                Ok(pack) => pack,
                Err(UnpackError::Refused(why)) => {
                    println!("{name} ({class}): {why}");
                    continue;
                }
                Err(other) => panic!("{name}: {other}"),
            };
            served.insert(name.as_str());
            let got = listing(&pack);
            let right = match class {
                "agree3" | "agree2" => {
                    let expected: Listing = case["entries"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|e| {
                            let name = clean(e["name"].as_str().unwrap());
                            (name, text(&e["type"]).unwrap(), text(&e["sha256"]))
                        })
                        .collect();
                    got == expected
                }
                "disagree" => {
                    let expected: Vec<(Vec<u8>, Option<String>)> = case["go_files"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|pair| (clean(pair[0].as_str().unwrap()), text(&pair[1])))
                        .collect();
                    let files = got.iter().filter(|(_, kind, _)| kind == "0");
                    case["go_ok"] == true
                        && files
                            .map(|(name, _, hash)| (name.clone(), hash.clone()))
                            .eq(expected)
                }
                _ => false,
            };
            if !right {
                wrong.push(format!("{name} ({class}): {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The ordinary ones are served, not refused.
    println!("{} of {} served", served.len(), table.len());
    assert!(
        served.len() >= 70,
        "only {} archives are served",
        served.len()
    );
}
