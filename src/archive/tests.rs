//! Archives made by the `tar` crate, ordinary and hostile.

use super::*;
use crate::digest::Digest;
use crate::oci;
use std::io::Write;
use tar::{Builder, EntryType, Header};

const MOST: u64 = 4 << 20;

fn member(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, content: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    // The crate refuses the names that are wanted here.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, content).expect("a member");
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, content) in files {
        member(&mut tar, EntryType::Regular, name, "", content);
    }
    tar.into_inner().expect("a tar")
}

fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("written");
    Archive::open(file.path(), MOST).map(|(archive, _)| archive)
}

fn content(archive: &Archive, name: &str) -> Option<Bytes> {
    let section = archive.find(name).expect("findable")?;
    section.read(MOST).expect("readable")
}

#[track_caller]
fn refused(bytes: &[u8], part: &str) {
    let error = open(bytes).map(drop).expect_err(part).to_string();
    assert!(error.contains(part), "{part:?} is not in: {error}");
}

#[test]
fn the_files_of_a_layout_are_ranges_of_the_archive() {
    let long = format!("blobs/sha256/{}", "0".repeat(200));
    let mut tar = Builder::new(Vec::new());
    let big = vec![7; 3_000_000];
    for (name, bytes) in [
        ("oci-layout", &b"{}"[..]),
        ("./index.json", b"{\"manifests\":[]}"),
        ("blobs/sha256/a", &big),
        ("blobs/sha256/empty", b""),
    ] {
        member(&mut tar, EntryType::Regular, name, "", bytes);
    }
    let mut header = Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    tar.append_data(&mut header, &long, &b"far"[..])
        .expect("a long name");
    member(&mut tar, EntryType::Directory, "blobs/", "", b"");
    member(
        &mut tar,
        EntryType::Symlink,
        "blobs/sha256/link",
        "../sha256/a",
        b"",
    );
    member(&mut tar, EntryType::Link, "hard", "oci-layout", b"");
    let archive = open(&tar.into_inner().expect("a tar")).expect("an archive");
    assert_eq!(
        content(&archive, "index.json").as_deref(),
        Some(&b"{\"manifests\":[]}"[..])
    );
    assert_eq!(
        content(&archive, "blobs/sha256/a").as_deref(),
        Some(&big[..])
    );
    assert_eq!(
        content(&archive, "blobs/sha256/link").as_deref(),
        Some(&big[..])
    );
    assert_eq!(content(&archive, "hard").as_deref(), Some(&b"{}"[..]));
    assert_eq!(
        content(&archive, "blobs/sha256/empty").as_deref(),
        Some(&b""[..])
    );
    assert_eq!(content(&archive, &long).as_deref(), Some(&b"far"[..]));
    assert_eq!(content(&archive, "blobs/sha256/b"), None);
    assert_eq!(content(&archive, "blobs"), None);
    let mut section = archive.find("blobs/sha256/a").unwrap().unwrap();
    assert_eq!(section.take(10).unwrap().len(), 10);
    assert_eq!(
        section.clone().read(10).unwrap(),
        None,
        "more than 10 bytes"
    );
    assert_eq!(section.read(MOST).unwrap().unwrap().len(), big.len() - 10);
}

#[test]
fn hostile_archives_are_refused_by_name() {
    let index = ("index.json", &b"{}"[..]);
    let link = |kind, name: &str, to: &str| {
        let mut tar = Builder::new(Vec::new());
        member(&mut tar, EntryType::Regular, "index.json", "", b"{}");
        member(&mut tar, kind, name, to, b"");
        tar.into_inner().expect("a tar")
    };
    refused(&tar_of(&[("../a", b"x"), index]), "member `../a` leads out");
    refused(&tar_of(&[("/etc/a", b"x"), index]), "`/etc/a` leads out");
    refused(&tar_of(&[index, index]), "`index.json` is there twice");
    refused(
        &link(EntryType::Symlink, "a/b", "../../etc/passwd"),
        "`a/b` is a link that leads out",
    );
    refused(&link(EntryType::Symlink, "b", "/etc/passwd"), "leads out");
    refused(&link(EntryType::Link, "b", "../a"), "leads out");
    refused(&link(EntryType::Fifo, "b", ""), "a device or a fifo");
    refused(b"\x1f\x8b\x08 and so on", "is gzip-compressed");
    refused(b"\x28\xb5\x2f\xfd and so on", "is zstd-compressed");
    refused(&[b'x'; 2048], "checksum");
    refused(b"", "holds no index.json");
    refused(&tar_of(&[("README", b"x")]), "holds no index.json");
    let whole = tar_of(&[index, ("blobs/sha256/a", &[1; 5000])]);
    refused(&whole[..1024 + 512 + 4000], "is truncated: 1120 bytes");
    refused(&whole[..1024 + 100], "within a header");
    let looped = open(&{
        let mut tar = Builder::new(Vec::new());
        member(&mut tar, EntryType::Regular, "index.json", "", b"{}");
        member(&mut tar, EntryType::Symlink, "a", "b", b"");
        member(&mut tar, EntryType::Symlink, "b", "a", b"");
        tar.into_inner().expect("a tar")
    });
    let error = looped.expect("an archive").find("a").expect_err("a loop");
    assert!(error.to_string().contains("more than 8 links"), "{error}");
    let gone = Archive::open(Path::new("/nowhere/x.tar"), MOST).map(drop);
    assert_eq!(gone, Err(ArchiveError::Absent));
    let directory = Archive::open(Path::new("/"), MOST).map(drop);
    assert!(matches!(directory, Err(ArchiveError::Refused(_))));
}

/// A header that says more bytes than anything has does not make the index larger, nor overflow.
#[test]
fn sizes_beyond_the_file_are_a_truncation() {
    for size in [
        b"77777777777\0".as_slice(),
        b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut tar = tar_of(&[("index.json", b"{}")]);
        tar[124..136].copy_from_slice(size);
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        refused(&tar, "is truncated");
    }
}

#[test]
fn what_docker_saves_is_read_as_a_layout() {
    let (plain, gzip) = (&b"a tar"[..], &b"\x1f\x8b\x08\0 a compressed tar"[..]);
    let diff_ids = [
        Digest::sha256(plain),
        Digest::sha256(b"what is in the gzip"),
    ];
    let config = format!(
        r#"{{"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#,
        diff_ids[0], diff_ids[1]
    );
    let manifest = br#"[
        {"Config":"c.json","RepoTags":["team/app:v1","docker.io/library/other:v1"],"Layers":["one/layer.tar","two.tar.gz"]},
        {"Config":"c.json","RepoTags":null,"Layers":["one/layer.tar","two.tar.gz"]}]"#;
    let files: [(&str, &[u8]); 4] = [
        ("manifest.json", manifest),
        ("c.json", config.as_bytes()),
        ("one/layer.tar", plain),
        ("two.tar.gz", gzip),
    ];
    let archive = open(&tar_of(&files)).expect("an archive");
    let index = content(&archive, "index.json").expect("made");
    let oci::Document::Index(entries) = oci::parse_document(None, &index).expect("an index") else {
        panic!("not an index");
    };
    let names: Vec<_> = (entries.iter())
        .map(|entry| entry.ref_name.as_deref())
        .collect();
    assert_eq!(names, [Some("v1"), Some("v1"), None]);
    let blob = |digest: &Digest| content(&archive, &format!("blobs/sha256/{}", digest.hex()));
    let made = blob(&entries[0].descriptor.digest).expect("a manifest");
    assert_eq!(Digest::sha256(&made), entries[0].descriptor.digest);
    let oci::Document::Manifest(manifest) = oci::parse_document(None, &made).expect("one") else {
        panic!("not a manifest");
    };
    assert_eq!(
        blob(&manifest.config.digest).as_deref(),
        Some(config.as_bytes())
    );
    let layers: Vec<_> = (manifest.layers.iter())
        .map(|layer| (layer.digest, layer.size, layer.media_type.as_str()))
        .collect();
    let tar = "application/vnd.docker.image.rootfs.diff.tar";
    assert_eq!(
        layers,
        [
            (diff_ids[0], plain.len() as u64, tar),
            (
                Digest::sha256(gzip),
                gzip.len() as u64,
                &*format!("{tar}.gzip")
            ),
        ]
    );
    for (layer, bytes) in manifest.layers.iter().zip([plain, gzip]) {
        assert_eq!(blob(&layer.digest).as_deref(), Some(bytes));
    }

    let other = |manifest: &str, config: &str| {
        tar_of(&[
            ("manifest.json", manifest.as_bytes()),
            ("c.json", config.as_bytes()),
        ])
    };
    let one = r#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["gone.tar"]}]"#;
    refused(&other("{}", ""), "manifest.json in it is not readable");
    refused(&other(one, "["), "\"c.json\" in it: image configuration");
    refused(&other(one, "{}"), "1 layers for the 0 diff IDs");
    refused(&other(one, &config), "1 layers for the 2 diff IDs");
    let matching = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, diff_ids[0]);
    refused(&other(one, &matching), "has no layer \"gone.tar\"");
    let absent = r#"[{"Config":"../c.json","Layers":[]}]"#;
    refused(&other(absent, ""), "has no configuration \"../c.json\"");
}

/// Since Docker 25: a layout, with docker's own names of the same files beside it.
#[test]
fn what_docker_saves_today_is_the_layout_that_it_is() {
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let both = tar_of(&[
        ("blobs/sha256/00", b"a layer"),
        ("index.json", index),
        (
            "manifest.json",
            br#"[{"Config":"gone","RepoTags":["a:b"],"Layers":["blobs/sha256/00"]}]"#,
        ),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("repositories", br#"{"a":{"b":"00"}}"#),
    ]);
    let archive = open(&both).expect("an archive");
    assert_eq!(
        content(&archive, "index.json").as_deref(),
        Some(&index[..]),
        "its own"
    );
    let layer = content(&archive, "blobs/sha256/00");
    assert_eq!(layer.as_deref(), Some(&b"a layer"[..]));
}

#[test]
fn what_docker_saved_before_1_10_is_refused_by_name() {
    let layer = "f00d/layer.tar";
    let old = tar_of(&[
        ("f00d/VERSION", b"1.0"),
        ("f00d/json", br#"{"id":"f00d","os":"linux"}"#),
        (layer, b"a tar"),
        ("repositories", br#"{"team/app":{"v1":"f00d"}}"#),
    ]);
    refused(&old, "before Docker 1.10");
    refused(&old, "`docker save` the image again");
    let neither = tar_of(&[(layer, b"a tar")]);
    refused(&neither, "holds no index.json");
}
