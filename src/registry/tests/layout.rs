//! Layout directories, ordinary and hostile.

use super::*;
use std::os::unix::fs::symlink;
use std::path::Path;

const HOST: &str = "demo.local";

fn put(dir: &Path, content: &[u8]) -> Descriptor {
    let descriptor = descriptor(content);
    std::fs::create_dir_all(dir.join("blobs/sha256")).expect("mkdir");
    std::fs::write(
        dir.join("blobs/sha256").join(descriptor.digest.hex()),
        content,
    )
    .expect("write");
    descriptor
}

/// Writes `index.json` with (tag, content) entries.
fn index(dir: &Path, entries: &[(&str, &[u8])]) {
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, content)| {
            let Descriptor { digest, size, .. } = put(dir, content);
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},
                "annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#
            )
        })
        .collect();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    );
    std::fs::write(dir.join("index.json"), text).expect("write");
}

fn registries(dir: &Path) -> Registries {
    let mut config = naming(&[HOST]);
    let layout = Some(dir.to_owned());
    config.registries.insert(
        HOST.into(),
        RegistryConfig {
            layout,
            ..Default::default()
        },
    );
    client(&config)
}

#[tokio::test]
async fn a_layout_is_read_like_a_registry() {
    let dir = tempfile::tempdir().expect("dir");
    let full = format!("{HOST}/team/app:full");
    index(
        dir.path(),
        &[
            ("one", b"{\"one\":1}"),
            (&full, b"{\"two\":2}"),
            ("a", b"{}"),
            ("a", b"{\"b\":1}"),
        ],
    );
    let (registries, app) = (registries(dir.path()), app(HOST));
    for (name, content) in [("one", &b"{\"one\":1}"[..]), ("full", b"{\"two\":2}")] {
        let digest = registries.resolve(&app, name).await.expect(name);
        assert_eq!(digest, Digest::sha256(content));
        let by_tag = registries.manifest(&app, &tag(name)).await.expect(name);
        let by_digest = registries
            .manifest(&app, &Version::Digest(digest))
            .await
            .expect(name);
        assert_eq!(
            (&by_tag.bytes[..], &by_digest.bytes[..]),
            (content, content)
        );
        assert_eq!(
            by_digest.media_type.as_deref(),
            Some("application/vnd.oci.image.manifest.v1+json")
        );
    }
    refused(
        registries.resolve(&app, "a").await,
        RegistryErrorKind::Wrong,
        "several images",
    );
    refused(
        registries.resolve(&app, "two").await,
        RegistryErrorKind::NotFound,
        "which has [\"a\"",
    );
    let absent = Digest::sha256(b"absent");
    refused(
        registries.probe_blob(&app, &absent).await,
        RegistryErrorKind::NotFound,
        "blobs/sha256/",
    );
    refused(
        registries.manifest(&app, &Version::Digest(absent)).await,
        RegistryErrorKind::NotFound,
        "blobs/",
    );

    let content: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 253) as u8).collect();
    let mut layer = put(dir.path(), &content);
    registries
        .probe_blob(&app, &layer.digest)
        .await
        .expect("there");
    let read = async |descriptor: &Descriptor| {
        let (mut blob, mut out) = (
            registries.blob(&app, descriptor, &[]).await.expect("opens"),
            Vec::new(),
        );
        while let Some(piece) = blob.next().await.expect("piece") {
            assert!(piece.len() <= 256 << 10);
            out.extend_from_slice(&piece);
        }
        out
    };
    assert!(read(&layer).await == content);
    layer.size = 10;
    assert_eq!(read(&layer).await.len(), 11);
    registries.check(HOST).await.expect("ready");
}

#[tokio::test]
async fn the_repositorys_own_directory_comes_first() {
    let dir = tempfile::tempdir().expect("dir");
    index(dir.path(), &[("t", b"{\"outer\":1}")]);
    let own = dir.path().join("team/app");
    std::fs::create_dir_all(&own).expect("mkdir");
    let (registries, app) = (registries(dir.path()), app(HOST));
    let now = async || {
        registries
            .manifest(&app, &tag("t"))
            .await
            .expect("manifest")
            .bytes
    };
    assert_eq!(now().await, "{\"outer\":1}", "no oci-layout in it");
    index(&own, &[("t", b"{\"inner\":1}")]);
    assert_eq!(now().await, "{\"inner\":1}");
}

#[tokio::test]
async fn nothing_outside_the_layout_is_read() {
    let outside = tempfile::tempdir().expect("dir");
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").expect("write");
    let digest = Digest::sha256(b"secret");
    let wrong = RegistryErrorKind::Wrong;

    let dir = tempfile::tempdir().expect("dir");
    index(dir.path(), &[("t", b"{}")]);
    let at = dir.path().join("blobs/sha256").join(digest.hex());
    let (registries, app) = (registries(dir.path()), app(HOST));
    let by_digest = Version::Digest(digest);
    symlink(&secret, &at).expect("link");
    refused(
        registries.manifest(&app, &by_digest).await,
        wrong,
        "leads out of the layout",
    );
    let result = registries.blob(&app, &descriptor(b"secret"), &[]).await;
    refused(result.map(drop), wrong, "leads out of the layout");
    refused(
        registries.probe_blob(&app, &digest).await,
        wrong,
        "leads out of the layout",
    );

    std::fs::remove_file(&at).expect("remove");
    std::fs::create_dir(&at).expect("mkdir");
    refused(
        registries.manifest(&app, &by_digest).await,
        wrong,
        "not a regular file",
    );
    std::fs::remove_dir(&at).expect("remove");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &at,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("fifo");
    refused(
        registries.manifest(&app, &by_digest).await,
        wrong,
        "not a regular file",
    );
    std::fs::remove_file(&at).expect("remove");

    std::fs::write(&at, "tampered").expect("write");
    refused(
        registries.manifest(&app, &by_digest).await,
        wrong,
        "not sha256:",
    );
    std::fs::write(&at, vec![b'x'; 5_000]).expect("write");
    refused(
        registries.manifest(&app, &by_digest).await,
        wrong,
        "larger than 4096 bytes",
    );

    // A link of the repository's name that leads out is not its directory.
    let other = outside.path().join("layout");
    std::fs::create_dir(&other).expect("mkdir");
    index(&other, &[("t", b"{\"outside\":1}")]);
    symlink(&other, dir.path().join("team")).expect("link");
    let team = Repository::parse(&format!("{HOST}/team")).expect("name");
    assert_eq!(
        registries
            .manifest(&team, &tag("t"))
            .await
            .expect("manifest")
            .bytes,
        "{}"
    );

    std::fs::remove_file(dir.path().join("index.json")).expect("remove");
    symlink(other.join("index.json"), dir.path().join("index.json")).expect("link");
    refused(
        registries.resolve(&app, "t").await,
        wrong,
        "leads out of the layout",
    );
    std::fs::remove_file(dir.path().join("index.json")).expect("remove");
    std::fs::write(dir.path().join("index.json"), "[").expect("write");
    refused(
        registries.resolve(&app, "t").await,
        wrong,
        "index.json of the layout",
    );
}

#[tokio::test]
async fn an_archive_is_read_again_when_the_file_changes() {
    let dir = tempfile::tempdir().expect("dir");
    let layout = dir.path().join("layout");
    let path = dir.path().join("images.tar");
    let save = |content: &[u8]| {
        let _ = std::fs::remove_dir_all(&layout);
        std::fs::create_dir(&layout).expect("mkdir");
        index(&layout, &[("t", content)]);
        let new = dir.path().join("new.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&new).expect("a file"));
        tar.append_dir_all(".", &layout).expect("a tar");
        tar.finish().expect("a tar");
        std::fs::rename(&new, &path).expect("renamed");
    };
    let mut config = naming(&[HOST]);
    let archive = Some(path.clone());
    config.registries.insert(
        HOST.into(),
        RegistryConfig {
            archive,
            ..Default::default()
        },
    );
    let (registries, app) = (client(&config), app(HOST));
    refused(
        registries.resolve(&app, "t").await,
        RegistryErrorKind::NotFound,
        "archive",
    );
    refused(
        registries.check(HOST).await,
        RegistryErrorKind::Failing { retry_after: None },
        "its archive cannot be read",
    );
    for content in [&b"{\"first\":1}"[..], b"{\"second\":22}"] {
        save(content);
        let got = registries
            .manifest(&app, &tag("t"))
            .await
            .expect("manifest");
        assert_eq!(&got.bytes[..], content);
    }
    registries.check(HOST).await.expect("ready");
    std::fs::write(&path, "no tar").expect("written");
    refused(
        registries.manifest(&app, &tag("t")).await,
        RegistryErrorKind::Wrong,
        "the archive",
    );
}

#[tokio::test]
async fn a_full_name_decides_between_images_with_one_tag() {
    let dir = tempfile::tempdir().expect("dir");
    index(dir.path(), &[]);
    let entry = |content: &[u8], annotations: &str| {
        let Descriptor { digest, size, .. } = put(dir.path(), content);
        format!(r#"{{"digest":"{digest}","size":{size},"annotations":{{{annotations}}}}}"#)
    };
    let write = |entries: &[String]| {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        );
        std::fs::write(dir.path().join("index.json"), text).expect("write");
    };
    let named = |name: &str| {
        format!(r#""io.containerd.image.name":"{name}","org.opencontainers.image.ref.name":"v1""#)
    };
    write(&[
        entry(b"{\"a\":1}", &named("docker.io/team/app:v1")),
        entry(b"{\"b\":1}", &named("docker.io/library/solo:v1")),
    ]);
    let registries = registries(dir.path());
    let get = async |repository: &str, name: &str| {
        let repository = Repository::parse(&format!("{HOST}/{repository}")).expect("name");
        let document = registries.manifest(&repository, &tag(name)).await;
        document.map(|document| document.bytes)
    };
    assert_eq!(get("team/app", "v1").await.expect("one"), "{\"a\":1}");
    assert_eq!(get("solo", "v1").await.expect("other"), "{\"b\":1}");
    refused(get("x", "v1").await, RegistryErrorKind::Wrong, "several");
    refused(get("solo", "v2").await, RegistryErrorKind::NotFound, "has");
    write(&[entry(b"{\"a\":1}", "")]);
    assert_eq!(get("any", "latest").await.expect("only"), "{\"a\":1}");
    refused(get("any", "v1").await, RegistryErrorKind::NotFound, "has");
}
