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
            registries.blob(&app, descriptor).await.expect("opens"),
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
    let result = registries.blob(&app, &descriptor(b"secret")).await;
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
