use super::*;

const D1: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const D2: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn descriptor(digest: &str, extra: &str) -> String {
    format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":7{extra}}}"#)
}

fn manifest(members: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{},{members}}}"#,
        descriptor(D1, "")
    )
}

#[test]
fn ordinary_documents_are_read() {
    let text = manifest(&format!(
        r#""mediaType":"{MANIFEST}","artifactType":"a/b","layers":[{}],"annotations":{{"a":1}}"#,
        descriptor(D2, r#","urls":["https://x/"],"data":"aGk=""#)
    ));
    // The registry's Content-Type is wrong; the document decides.
    let Ok(Document::Manifest(manifest)) = parse_document(Some(INDEX), text.as_bytes()) else {
        panic!("not a manifest: {text}");
    };
    assert_eq!(manifest.config.digest.to_string(), D1);
    assert_eq!(manifest.layers[0].digest.to_string(), D2);
    assert_eq!(manifest.layers[0].size, 7);
    assert_eq!(manifest.layers[0].urls, ["https://x/"]);
    assert_eq!(manifest.artifact_type.as_deref(), Some("a/b"));

    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        descriptor(
            D1,
            r#","platform":{"os":"linux","architecture":"arm","variant":"v6"}"#
        ),
        descriptor(
            D2,
            r#","annotations":{"vnd.docker.reference.type":"attestation-manifest","org.opencontainers.image.ref.name":"t"}"#
        ),
    );
    let Ok(Document::Index(entries)) = parse_document(None, text.as_bytes()) else {
        panic!("not an index: {text}");
    };
    assert_eq!(
        entries[0].platform.as_ref().map(|p| p.variant.as_deref()),
        Some(Some("v6"))
    );
    assert!(!entries[0].attestation && entries[1].attestation);
    assert_eq!(entries[1].ref_name.as_deref(), Some("t"));

    let empty = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":null}}"#);
    assert_eq!(
        parse_document(None, empty.as_bytes()),
        Ok(Document::Index(vec![]))
    );
}

#[test]
fn hostile_documents_are_refused_with_member_and_value() {
    let layer = |members: &str| manifest(&format!(r#""layers":[{{{members}}}]"#));
    let table = [
        ("", "EOF"),
        ("<html>", "Content-Type \"text/html\""),
        ("{}", "neither config and layers nor manifests"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
        (
            &manifest(r#""schemaVersion":3"#),
            "duplicate field `schemaVersion`",
        ),
        (
            r#"{"schemaVersion":"2","manifests":[]}"#,
            "schemaVersion is \"2\", not 2",
        ),
        (
            &manifest(r#""layers":[],"manifests":[]"#),
            "members of a manifest",
        ),
        (&manifest(r#""manifests":[]"#), "members of a manifest"),
        (
            &manifest(r#""layers":[],"layers":[]"#),
            "duplicate field `layers`",
        ),
        (
            &manifest(&format!(r#""layers":[],"mediaType":"{INDEX}""#)),
            "members say otherwise",
        ),
        (
            &format!(r#"{{"layers":[],"mediaType":"{MANIFEST}"}}"#),
            "config is missing",
        ),
        (
            &layer(&format!(r#""digest":"{D1}""#)),
            "layers[0].size is missing",
        ),
        (
            &layer(&format!(r#""digest":"{D1}","size":-1"#)),
            "layers[0].size is -1",
        ),
        (
            &layer(&format!(r#""digest":"{D1}","size":1.5"#)),
            "layers[0].size is 1.5",
        ),
        (
            &layer(&format!(r#""digest":"{D1}","size":9223372036854775808"#)),
            "9223372036854775808",
        ),
        (
            &layer(&format!(r#""digest":"{D1}","size":1e400"#)),
            "not readable",
        ),
        (&layer(r#""size":1"#), "layers[0].digest is missing"),
        (&layer(r#""size":1,"digest":5"#), "layers[0].digest is 5"),
        (
            &layer(r#""size":1,"digest":"sha256:../../etc""#),
            "layers[0].digest: \"sha256:../../etc\"",
        ),
        (
            &layer(r#""size":1,"digest":"md5:d41d8cd98f00b204e9800998ecf8427e""#),
            "not supported",
        ),
        (
            &layer(&format!(r#""size":1,"digest":"{D1}","urls":"x""#)),
            "layers[0].urls is \"x\"",
        ),
    ];
    for (text, expected) in table {
        let error = parse_document(Some("text/html"), text.as_bytes()).expect_err(text);
        assert!(error.0.contains(expected), "{text}: {error}");
        assert!(!error.0.contains('\n'), "{error}");
    }
    let many = vec![descriptor(D1, ""); 100_000].join(",");
    let error = parse_document(None, manifest(&format!(r#""layers":[{many}]"#)).as_bytes())
        .expect_err("100k layers");
    assert_eq!(error.0, "manifest has 100000 layers, more than 1000");
    let deep = "[".repeat(100_000);
    assert!(parse_document(None, manifest(&format!(r#""x":{deep}"#)).as_bytes()).is_err());
    let long = layer(&format!(r#""size":1,"digest":"{}""#, "é".repeat(100_000)));
    assert!(
        parse_document(None, long.as_bytes())
            .expect_err("long")
            .0
            .len()
            < 1_000
    );
}

#[test]
fn configurations_are_read_and_refused() {
    let text = format!(
        r#"{{"rootfs":{{"type":"layers","diff_ids":["{D1}","{D2}"]}},"config":{{"Labels":{{"a":"b"}},"Cmd":null}}}}"#
    );
    let config = parse_config(text.as_bytes()).expect("ordinary");
    assert_eq!(config.diff_ids.len(), 2);
    assert_eq!(config.labels["a"], "b");
    for text in ["{}", r#"{"config":null}"#, r#"{"config":{"Labels":null}}"#] {
        assert_eq!(
            parse_config(text.as_bytes()),
            Ok(ImageConfig::default()),
            "{text}"
        );
    }
    for (text, expected) in [
        (
            r#"{"rootfs":{"diff_ids":["sha256:0"]}}"#,
            "rootfs.diff_ids[0]: \"sha256:0\"",
        ),
        (r#"{"rootfs":{"diff_ids":[7]}}"#, "rootfs.diff_ids[0] is 7"),
        (r#"{"config":{"Labels":{"a":7}}}"#, "config.Labels.a is 7"),
        ("nope", "not readable"),
    ] {
        let error = parse_config(text.as_bytes()).expect_err(text);
        assert!(error.0.contains(expected), "{text}: {error}");
    }
    assert!(is_image_config(
        "application/vnd.oci.image.config.v1+json; charset=utf-8"
    ));
    assert!(!is_image_config("application/vnd.oci.empty.v1+json"));
}

fn entry(platform: &str) -> IndexEntry {
    let mut parts = platform.split('/').map(str::to_owned);
    IndexEntry {
        descriptor: Descriptor {
            media_type: match platform {
                "index" => "application/vnd.oci.image.index.v1+json".to_owned(),
                _ => platform.to_owned(),
            },
            digest: D1.parse().expect("digest"),
            size: 1,
            urls: vec![],
            annotations: BTreeMap::new(),
        },
        attestation: platform == "attestation",
        ref_name: None,
        artifact_type: None,
        platform: match (parts.next(), parts.next()) {
            (Some(os), Some(architecture)) => Some(Platform {
                os: os.split('(').next().unwrap_or_default().to_owned(),
                architecture,
                variant: parts.next(),
                os_version: os
                    .split_once('(')
                    .map(|(_, version)| version.trim_end_matches(')').to_owned()),
            }),
            _ => None,
        },
    }
}

#[test]
fn the_entry_of_the_platform_is_chosen() {
    let table: &[(&str, &[&str], Result<usize, &str>)] = &[
        ("linux/amd64", &["linux/arm64", "linux/amd64"], Ok(1)),
        ("linux/amd64", &["attestation", "linux/arm64/v8"], Ok(1)),
        ("linux/amd64", &["", "attestation"], Ok(0)),
        (
            "linux/amd64",
            &["linux/s390x", "linux/arm/v6", ""],
            Err("(no platform) linux/arm/v6 linux/s390x"),
        ),
        ("linux/amd64", &["attestation"], Err("")),
        ("linux/amd64", &[], Err("")),
        ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Ok(1)),
        (
            "linux/amd64",
            &["linux/amd64/v3", "windows/amd64"],
            Err("linux/amd64/v3 windows/amd64"),
        ),
        (
            "linux/amd64/v3",
            &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
            Ok(1),
        ),
        ("linux/arm64", &["linux/arm64/v9", "linux/arm64/v8"], Ok(1)),
        ("linux/arm64/v8", &["linux/amd64", "linux/arm64"], Ok(1)),
        (
            "linux/arm",
            &["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"],
            Ok(2),
        ),
        ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Ok(1)),
        ("linux/arm/v6", &["linux/arm/v7", "linux/arm/v5"], Ok(1)),
        ("linux/amd64", &["linux/amd64", "linux/amd64"], Ok(0)),
        ("linux/amd64", &["linux/arm64", "index"], Err("within 1")),
        ("linux/amd64", &["index", "attestation"], Err("within 0")),
        ("linux/amd64", &["index", "linux/amd64"], Ok(1)),
        (
            "windows(10.0.17763.5)/amd64",
            &[
                "windows(10.0.20348.9)/amd64",
                "windows(10.0.17763.2)/amd64",
                "windows(10.0.17763.9)/amd64",
            ],
            Ok(2),
        ),
        (
            "windows(10.0.17763.5)/amd64",
            &[
                "windows/amd64",
                "windows(10.0.17763.9)/amd64",
                "windows(10.0.17763.5)/amd64",
            ],
            Ok(2),
        ),
        (
            "windows(10.0.17763)/amd64",
            &["windows(10.0.20348.9)/amd64", "windows(10.1)/amd64"],
            Err("windows(10.0.20348.9)/amd64 windows(10.1)/amd64"),
        ),
        (
            "windows/amd64",
            &["windows(10.0.20348.9)/amd64", "windows(10.0.17763.9)/amd64"],
            Ok(0),
        ),
    ];
    for (wanted, entries, expected) in table {
        let index: Vec<_> = entries.iter().map(|platform| entry(platform)).collect();
        let wanted = entry(wanted).platform.expect("platform");
        let place = |chosen: &IndexEntry| {
            let same = |entry: &IndexEntry| std::ptr::eq(entry, chosen);
            index.iter().position(same).expect("of index")
        };
        let chosen = match choose(&index, &wanted) {
            Choice::Entry(chosen) | Choice::Only(chosen) => Ok(place(chosen)),
            Choice::Within(within) => {
                let places: Vec<_> = within.into_iter().map(|e| place(e).to_string()).collect();
                Err(format!("within {}", places.join(" ")))
            }
            Choice::None(platforms) => Err(platforms.join(" ")),
        };
        assert_eq!(
            chosen,
            expected.map_err(str::to_owned),
            "{wanted:?} of {entries:?}"
        );
    }
}

#[test]
fn media_types_have_no_case() {
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    let shouted = |media_type: &str| media_type.to_ascii_uppercase();
    assert!(is_index(&shouted(LIST)));
    assert!(is_index(&format!("{} ; charset=UTF-8", shouted(LIST))));
    assert!(is_manifest("Application/vnd.OCI.image.manifest.v1+JSON"));
    assert!(is_image_config("application/vnd.oci.image.Config.v1+json"));
    assert!(is_json("Application/JSON"));
    // What the document calls itself, and what its answer is called where it does not.
    let empty = r#"{"schemaVersion": 2}"#;
    let read = parse_document(Some(&shouted(LIST)), empty.as_bytes());
    assert!(matches!(read, Ok(Document::Index(entries)) if entries.is_empty()));
    let named = format!(r#"{{"mediaType": "{}"}}"#, shouted(LIST));
    assert!(matches!(
        parse_document(None, named.as_bytes()),
        Ok(Document::Index(_))
    ));
    let layer = |media_type: &str| {
        let text = format!(
            r#"{{"mediaType": "{media_type}", "digest": "sha256:{}", "size": 1}}"#,
            "0".repeat(64)
        );
        let manifest = format!(r#"{{"schemaVersion": 2, "config": {text}, "layers": [{text}]}}"#);
        match parse_document(None, manifest.as_bytes()) {
            Ok(Document::Manifest(manifest)) => manifest.layers[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(check_layer(&layer("a/b.TAR+GZIP")), Ok(()));
    let refused = check_layer(&layer("a/b.tar+gzip+Encrypted"));
    assert!(refused.is_err_and(|why| why.contains("encrypted")));
}
