//! What is told about an image: its manifest, and what refers to it.
#![allow(clippy::unwrap_used)]

mod support;
use serde_json::Value;
use support::*;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SBOM: &str = "application/vnd.example.sbom+json";
const SIGNATURE: &str = "application/vnd.example.signature";

async fn about(registry: &Registry, more: Value) -> Site {
    let mut settings = json!({"repos": {registry.name("team/app"): {"about": true}}});
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    Site::start(&[registry], settings).await
}

async fn told(site: &Site, path: &str) -> Value {
    let answer = site.get(path).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.body.ends_with(b"}\n"));
    serde_json::from_slice(&answer.body).unwrap()
}

/// An artifact that refers to `subject`, of another content for each `number`.
fn referrer(subject: (&str, &[u8]), kind: &str, number: usize) -> Image {
    let layer = Layer::new().encoding(Encoding::Raw(b"{}".to_vec()));
    let subject = json!({"mediaType": MANIFEST, "digest": subject.0, "size": subject.1.len()});
    Image::of(layer.media_type(EMPTY))
        .config(EMPTY, b"{}")
        .member("artifactType", json!(kind))
        .member("subject", subject)
        .annotation("number", &number.to_string())
}

fn digests(told: &Value) -> Vec<&str> {
    let referrers = told["referrers"].as_array().unwrap();
    referrers
        .iter()
        .map(|one| one["digest"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_told_and_no_layer_is_fetched() {
    let registry = Registry::start().await;
    let layer = |path: &str| Layer::new().file(path, path);
    let image = Image::of(layer("index.html").annotation("of", "layer"))
        .layer(layer("b"))
        .annotation(
            "org.opencontainers.image.source",
            "https://example.com/\u{fc}",
        );
    let pushed = registry.push("team/app", "v1", &image);
    let site = about(&registry, json!({})).await;
    let path = registry.path("team/app:v1", "/?manifest=1");
    let found = told(&site, &path).await;
    let manifest: Value = serde_json::from_slice(&pushed.manifest).unwrap();
    let named = |descriptor: &Value| {
        json!({"mediaType": descriptor["mediaType"], "digest": descriptor["digest"],
            "size": descriptor["size"], "annotations": {}})
    };
    let (mut first, mut second) = (named(&manifest["layers"][0]), named(&manifest["layers"][1]));
    first["annotations"] = json!({"of": "layer"});
    first["diffID"] = json!(layer("index.html").diff_id());
    second["diffID"] = json!(layer("b").diff_id());
    let expected = json!({
        "reference": format!("{}:v1", registry.name("team/app")),
        "digest": pushed.digest,
        "mediaType": MANIFEST,
        "size": pushed.manifest.len(),
        "artifactType": null,
        "platform": "linux/amd64",
        "subject": null,
        "annotations": {"org.opencontainers.image.source": "https://example.com/\u{fc}"},
        "indexes": [],
        "config": named(&manifest["config"]),
        "layers": [first, second],
    });
    assert_eq!(found, expected);
    // Without the slash, with other keys, under the digest.
    let bare = registry.path("team/app:v1", "?x&manifest=1");
    assert_eq!(told(&site, &bare).await, expected);
    let exact = registry.path(&format!("team/app@{}", pushed.digest), "/?manifest=1");
    let mut of_digest = expected.clone();
    of_digest["reference"] = json!(format!("{}@{}", registry.name("team/app"), pushed.digest));
    assert_eq!(told(&site, &exact).await, of_digest);
    for layer in &pushed.layers {
        assert_eq!(registry.count_blob_gets(layer), 0);
    }
    assert_eq!(registry.count_blob_gets(&pushed.config), 1);
    assert_eq!(
        registry.count("HEAD", "/manifests/v1"),
        1,
        "the tag is believed for a while"
    );
    assert_eq!(registry.count_manifest_gets(&pushed.digest), 1);
    // Files are files.
    for path in [
        "/index.html?manifest=1",
        "/?manifest=0",
        "/?referrers=yes",
        "/",
    ] {
        let answer = site.get(&registry.path("team/app:v1", path)).await;
        assert_eq!(answer.expect(200).text(), "index.html", "{path}");
    }
    assert_eq!(registry.count_manifest_gets(&pushed.digest), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_one_as_any_other() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("hi"));
    registry.list(Lists::Whole);
    let repo = json!({"about": true, "responseHeaders": {"X-Own": "yes"},
        "cors": {"origins": ["https://a.example"]}, "cache": {"maxAge": "1h", "surrogateKey": true}});
    let settings = json!({"repos": {registry.name("team/app"): repo}});
    let site = Site::start(&[&registry], settings).await;
    let tag = registry.path("team/app:v1", "/");
    let exact = registry.path(&format!("team/app@{}", pushed.digest), "/");
    for root in [&tag, &exact] {
        for query in ["?manifest=1", "?referrers=1"] {
            let path = format!("{root}{query}");
            let origin = [("Origin", "https://a.example")];
            let answer = site.get_with(&path, &origin).await.expect(200);
            assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
            assert_eq!(answer.header("x-own"), Some("yes"));
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, Some("https://a.example"));
            let keys = answer.header("surrogate-key").unwrap();
            assert!(keys.contains(&pushed.digest), "{keys}");
            let head = site.request("HEAD", &path, &[]).await.expect(200);
            assert_eq!(head.header("etag"), answer.header("etag"));
            let length = answer.body.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()));
            assert!(head.body.is_empty());
            let range = site.request("GET", &path, &[("Range", "bytes=0-1")]).await;
            assert_eq!(range.expect(206).body, b"{\n");
            let failed = [("If-Match", "\"other\"")];
            site.request("GET", &path, &failed).await.expect_error(412);
            let digest = [("Want-Repr-Digest", "sha-256=1")];
            let hashed = site.request("GET", &path, &digest).await.expect(200);
            assert!(hashed.header("repr-digest").is_some());
            let refused = site.request("POST", &path, &[]).await.expect_error(405);
            assert!(refused.header("allow").unwrap().starts_with("GET, HEAD"));
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_not_on_a_query_says_nothing() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &Image::page("hi"));
    for mode in [blobserve::config::Mode::Serve, blobserve::config::Mode::Run] {
        let site = Site::launch(mode, &[&registry], json!({})).await;
        for query in ["?manifest=1", "?referrers=1"] {
            let path = registry.path("team/app:v1", &format!("/{query}"));
            assert_eq!(site.get(&path).await.expect(200).text(), "hi");
        }
        site.stop().await;
    }
    assert_eq!(registry.count("GET", "/referrers/"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_on_the_way_and_artifacts_say_what_they_are() {
    let registry = Registry::start().await;
    let ours = Image::page("amd64").annotation("of", "manifest");
    let inner = Index::new()
        .image("linux/arm64/v8", &Image::page("arm"))
        .image("linux/amd64", &ours);
    let (inner_bytes, _, _) = inner.build();
    let outer = Index::new().index(&inner);
    let (bytes, _, images) = outer.build();
    registry.push_index("team/app", "inner", &inner);
    registry.push_index("team/app", "v1", &outer);
    assert_eq!(images.len(), 3);
    // The same index, and with it something to say.
    let mut annotated: Value = serde_json::from_slice(&bytes).unwrap();
    annotated["annotations"] = json!({"of": "index"});
    annotated["manifests"][0]["annotations"] = json!({"of": "entry"});
    annotated["artifactType"] = json!("application/vnd.example.set");
    let digest = registry.tag("team/app", "v2", INDEX, annotated.to_string().as_bytes());
    let site = about(&registry, json!({})).await;
    let found = told(&site, &registry.path("team/app:v2", "/?manifest=1")).await;
    assert_eq!(found["digest"], json!(ours.build().digest));
    assert_eq!(found["annotations"], json!({"of": "manifest"}));
    assert_eq!(found["indexes"][0]["digest"], json!(digest));
    assert_eq!(found["indexes"][0]["annotations"], json!({"of": "index"}));
    assert_eq!(
        found["indexes"][0]["artifactType"],
        json!("application/vnd.example.set")
    );
    let entry = &found["indexes"][0]["entry"];
    assert_eq!(entry["annotations"], json!({"of": "entry"}));
    assert_eq!(entry["digest"], json!(image::sha256(&inner_bytes)));
    assert_eq!(entry["mediaType"], json!(INDEX));
    assert_eq!(found["indexes"][1]["digest"], entry["digest"]);
    assert_eq!(
        found["indexes"][1]["entry"]["platform"],
        json!("linux/amd64")
    );
    assert_eq!(found["indexes"].as_array().unwrap().len(), 2);

    let file = |kind: &str| {
        Layer::new()
            .encoding(Encoding::Raw(b"x".to_vec()))
            .media_type(kind)
    };
    let helm = "application/vnd.cncf.helm.config.v1+json";
    let subject = json!({"mediaType": MANIFEST, "digest": digest, "size": 3});
    let nothing = Image::default()
        .config(EMPTY, b"{}")
        .member("artifactType", json!(SBOM));
    for (tag, image, kind, layers) in [
        (
            "bare",
            Image::of(file("a/b")).config(EMPTY, b"{}"),
            json!(null),
            1,
        ),
        (
            "chart",
            Image::of(file("a/b")).config(helm, b"{}"),
            json!(helm),
            1,
        ),
        (
            "nothing",
            nothing.clone().member("subject", subject),
            json!(SBOM),
            0,
        ),
    ] {
        let pushed = registry.push("team/app", tag, &image);
        let found = told(
            &site,
            &registry.path(&format!("team/app:{tag}"), "/?manifest=1"),
        )
        .await;
        assert_eq!(found["artifactType"], kind, "{tag}");
        assert_eq!(found["platform"], json!(null), "{tag}");
        assert_eq!(found["layers"].as_array().unwrap().len(), layers, "{tag}");
        assert_eq!(found["subject"].is_null(), tag != "nothing");
        for layer in found["layers"].as_array().unwrap() {
            assert_eq!(layer["diffID"], json!(null));
        }
        assert_eq!(registry.count_blob_gets(&pushed.config), 0, "{tag}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_listed_whole_in_pages_and_by_the_tag_schema() {
    for lists in [
        Lists::Whole,
        Lists::Pages(2),
        Lists::Pages(1),
        Lists::Never,
        Lists::Html,
        Lists::Status(400),
        Lists::Status(405),
        Lists::Status(501),
    ] {
        let registry = Registry::start().await;
        let pushed = registry.push("team/app", "v1", &Image::page("hi"));
        let other = registry.push("team/app", "v2", &Image::page("other"));
        let subject = (pushed.digest.as_str(), pushed.manifest.as_slice());
        let mut expected = Vec::new();
        let mut entries = Vec::new();
        for (number, kind) in [SBOM, SIGNATURE, SBOM, SIGNATURE, SBOM]
            .into_iter()
            .enumerate()
        {
            let image = referrer(subject, kind, number).build();
            registry.tag("team/app", &format!("r{number}"), MANIFEST, &image.manifest);
            entries.push(json!({"mediaType": MANIFEST, "digest": image.digest,
                "size": image.manifest.len(), "artifactType": kind,
                "annotations": {"number": number.to_string()}}));
            expected.push((kind, image.digest));
        }
        let unrelated = referrer((&other.digest, &other.manifest), SBOM, 9).build();
        registry.tag("team/app", "r9", MANIFEST, &unrelated.manifest);
        expected.sort();
        if !matches!(lists, Lists::Whole | Lists::Pages(_)) {
            let twice = entries[0].clone();
            entries.push(twice);
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
            let tag = pushed.digest.replace(':', "-");
            registry.tag("team/app", &tag, INDEX, index.to_string().as_bytes());
        }
        registry.list(lists.clone());
        let site = about(&registry, json!({})).await;
        let path = registry.path("team/app:v1", "/?referrers=1");
        let found = told(&site, &path).await;
        let of = |wanted: &str| -> Vec<&str> {
            let fits = expected
                .iter()
                .filter(|(kind, _)| wanted.is_empty() || *kind == wanted);
            fits.map(|(_, digest)| digest.as_str()).collect()
        };
        assert_eq!(digests(&found), of(""), "{lists:?}");
        assert_eq!(found["digest"], json!(pushed.digest));
        assert_eq!(found["artifactType"], json!(null));
        let mut first = found["referrers"][0].clone();
        let number = first["annotations"]["number"]
            .as_str()
            .unwrap()
            .parse::<usize>()
            .unwrap();
        assert_eq!(first, entries[number], "{lists:?}");
        first["size"] = json!(0);
        let asked = registry.requests();
        let filtered = path.clone() + "&artifactType=application/vnd.example.sbom%2Bjson";
        let found = told(&site, &filtered).await;
        assert_eq!(digests(&found), of(SBOM));
        assert_eq!(found["artifactType"], json!(SBOM));
        let found = told(&site, &format!("{path}&artifactType={SIGNATURE}")).await;
        assert_eq!(digests(&found), of(SIGNATURE));
        let found = told(&site, &format!("{path}&artifactType=none")).await;
        assert!(digests(&found).is_empty());
        assert_eq!(registry.requests(), asked, "one list answers every filter");
        assert_eq!(registry.count("GET", "/blobs/"), 0);
        // What nothing refers to, and what nobody knows.
        let nobody = format!("team/app@sha256:{}", "0".repeat(64));
        let found = told(&site, &registry.path(&nobody, "/?referrers=1")).await;
        assert!(digests(&found).is_empty());
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ask_one_flight_asks_and_the_list_is_believed_then_stale_then_gone() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("hi"));
    let subject = (pushed.digest.as_str(), pushed.manifest.as_slice());
    registry.push("team/app", "r1", &referrer(subject, SBOM, 1));
    registry.list(Lists::Whole);
    let site = about(&registry, json!({"tagTtl": "1s", "staleIfError": "1h"})).await;
    let path = registry.path(&format!("team/app@{}", pushed.digest), "/?referrers=1");
    let read_only = [("X-BlobServe-ReadOnly", "true")];
    site.request("GET", &path, &read_only)
        .await
        .expect_error(404);
    assert_eq!(registry.requests(), 0);
    let asking = (0..20).map(|_| site.request("GET", &path, &[]));
    for answer in futures_util::future::join_all(asking).await {
        answer.expect(200);
    }
    assert_eq!(registry.count("GET", "/referrers/"), 1);
    registry.push("team/app", "r2", &referrer(subject, SBOM, 2));
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(digests(&told(&site, &path).await).len(), 2, "asked again");
    registry
        .fault(Fault::Status {
            code: 403,
            retry_after: None,
        })
        .on_referrers();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    site.request("GET", &path, &[]).await.expect_error(403);
    registry.heal();
    assert_eq!(digests(&told(&site, &path).await).len(), 2);
    registry
        .fault(Fault::Status {
            code: 500,
            retry_after: Some(3600),
        })
        .on_referrers();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let asked = registry.count("GET", "/referrers/");
    assert_eq!(digests(&told(&site, &path).await).len(), 2, "stale");
    assert_eq!(digests(&told(&site, &path).await).len(), 2, "stale");
    assert_eq!(registry.count("GET", "/referrers/"), asked + 1, "a pause");
    let known = site.request("GET", &path, &read_only).await.expect(200);
    assert!(known.text().contains(SBOM));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_end_is_told_as_far_as_it_is_read_and_says_that_it_goes_on() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("hi"));
    let subject = (pushed.digest.as_str(), pushed.manifest.as_slice());
    for number in 0..3 {
        let one = referrer(subject, SBOM, number);
        registry.push("team/app", &format!("r{number}"), &one);
    }
    let settings =
        json!({"tagTtl": "1s", "staleIfError": "0s", "limits": {"manifestBytes": "64KiB"}});
    let site = about(&registry, settings).await;
    let path = registry.path(&format!("team/app@{}", pushed.digest), "/?referrers=1");
    let entry = |number: usize| {
        json!({"mediaType": MANIFEST, "digest": format!("sha256:{number:064x}"), "size": 1,
            "annotations": {"a": "x".repeat(20_000)}})
    };
    let page = |numbers: &[usize]| {
        let entries: Vec<Value> = numbers.iter().map(|number| entry(*number)).collect();
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        list.to_string().into_bytes()
    };
    registry.list(Lists::Whole);
    let whole = told(&site, &path).await;
    assert_eq!(digests(&whole).len(), 3);
    assert_eq!(whole.get("truncated"), None);

    // 32 pages, of which the first has something.
    registry.list(Lists::Endless);
    registry
        .fault(Fault::Bytes(page(&[1])))
        .once()
        .on_referrers();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let asked = registry.count("GET", "/referrers/");
    let of_type = format!("{path}&artifactType=nobody/s");
    for (path, there) in [(&path, 1), (&of_type, 0)] {
        let found = told(&site, path).await;
        assert_eq!(digests(&found).len(), there, "{path}");
        assert_eq!(found["truncated"], json!(true), "{path}");
        if there > 0 {
            assert_eq!(registry.count("GET", "/referrers/"), asked + 32);
        }
    }

    // The third page would be beyond `limits.manifestBytes` of all of them.
    registry.heal();
    for numbers in [&[1][..], &[2], &[3, 4]] {
        registry
            .fault(Fault::Bytes(page(numbers)))
            .once()
            .on_referrers();
    }
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let found = told(&site, &path).await;
    assert_eq!(digests(&found).len(), 2);
    assert_eq!(found["truncated"], json!(true));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_outlives_a_restart_while_its_registry_fails_and_goes_when_it_is_denied() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("hi"));
    let subject = (pushed.digest.as_str(), pushed.manifest.as_slice());
    registry.push("team/app", "r1", &referrer(subject, SBOM, 1));
    registry.list(Lists::Whole);
    let site = about(&registry, json!({"tagTtl": "1s", "staleIfError": "1h"})).await;
    let path = registry.path(&format!("team/app@{}", pushed.digest), "/?referrers=1");
    let before = told(&site, &path).await;
    assert_eq!(digests(&before).len(), 1);
    let failing = Fault::Status {
        code: 500,
        retry_after: Some(3600),
    };
    registry.fault(failing).on_anything();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let site = site.restart().await;
    assert_eq!(told(&site, &path).await, before);
    let site = site.restart().await;
    let read_only = [("X-BlobServe-ReadOnly", "true")];
    let known = site.request("GET", &path, &read_only).await.expect(200);
    assert!(known.text().contains(SBOM));

    registry.heal();
    let denying = Fault::Status {
        code: 403,
        retry_after: None,
    };
    registry.fault(denying).on_referrers();
    site.request("GET", &path, &[]).await.expect_error(403);
    let site = site.restart().await;
    site.request("GET", &path, &read_only)
        .await
        .expect_error(404);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_registries_say_wrong_is_told_in_a_line() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("hi"));
    let site = about(&registry, json!({"limits": {"manifestBytes": "64KiB"}})).await;
    let root = registry.path(&format!("team/app@{}", pushed.digest), "/");
    let referrers = format!("{root}?referrers=1");
    let entry = |size: usize| {
        json!({"mediaType": MANIFEST, "digest": pushed.digest, "size": 1,
            "annotations": {"a": "x".repeat(size)}})
    };
    let list = |size| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(size)]}).to_string()
    };
    registry.list(Lists::Whole);
    for (bytes, part) in [
        (
            b"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"\xff\"}]}".to_vec(),
            "not readable",
        ),
        (list(70_000).into_bytes(), "larger than 65536 bytes"),
        (
            format!("{}1", "[".repeat(4000)).into_bytes(),
            "not readable",
        ),
        (
            b"{\"schemaVersion\":2,\"manifests\":[{}]}".to_vec(),
            "digest is missing",
        ),
        (pushed.manifest.clone(), "is a manifest"),
        (Vec::new(), "not readable"),
    ] {
        registry.fault(Fault::Bytes(bytes)).once().on_referrers();
        let text = site
            .request("GET", &referrers, &[])
            .await
            .expect_error(502)
            .text();
        assert!(text.contains(part), "{text}");
        assert!(
            text.contains(&format!(
                "referrers of `{}@{}`",
                registry.name("team/app"),
                pushed.digest
            )),
            "{text}"
        );
    }
    let elsewhere = Registry::start().await;
    for url in [
        format!("{}/v2/team/app/referrers/x", elsewhere.base()),
        "/v2/team/secret/referrers/x".into(),
    ] {
        registry.list(Lists::Elsewhere(url));
        let text = site
            .request("GET", &referrers, &[])
            .await
            .expect_error(502)
            .text();
        assert!(text.contains("elsewhere"), "{text}");
    }
    assert_eq!(elsewhere.requests(), 0);
    registry.list(Lists::Never);
    let tag = pushed.digest.replace(':', "-");
    registry.tag("team/app", &tag, MANIFEST, &pushed.manifest);
    let text = site
        .request("GET", &referrers, &[])
        .await
        .expect_error(502)
        .text();
    assert!(
        text.contains("is a manifest") && text.contains(&tag),
        "{text}"
    );

    // Manifests: what can be served is not always what can be told.
    for (number, (member, value, part)) in [
        ("subject", json!({"size": 1}), "subject.digest is missing"),
        ("annotations", json!(["a"]), "not readable"),
        ("mediaType", json!(null), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut manifest: Value = serde_json::from_slice(&pushed.manifest).unwrap();
        manifest[member] = value;
        let digest = registry.tag(
            "team/app",
            &format!("m{number}"),
            MANIFEST,
            manifest.to_string().as_bytes(),
        );
        let root = registry.path(&format!("team/app:m{number}"), "/");
        site.get(&root).await.expect(200);
        let answer = site
            .request("GET", &format!("{root}?manifest=1"), &[])
            .await;
        if part.is_empty() {
            assert_eq!(
                serde_json::from_slice::<Value>(&answer.expect(200).body).unwrap()["mediaType"],
                MANIFEST
            );
            continue;
        }
        let text = answer.expect_error(502).text();
        assert!(text.contains(part) && text.contains(&digest), "{text}");
    }
    let nobody = format!("sha256:{}", "0".repeat(64));
    for version in [":none".to_owned(), format!("@{nobody}")] {
        let missing = registry.path(&format!("team/app{version}"), "/?manifest=1");
        site.request("GET", &missing, &[]).await.expect_error(404);
        let asked = registry.requests();
        site.request("GET", &missing, &[]).await.expect_error(404);
        assert_eq!(
            registry.requests(),
            asked,
            "the no is remembered: {version}"
        );
    }
    let forbidden = Site::start(&[&registry], json!({"allowAnyRepo": false})).await;
    let path = registry.path("team/app:v1", "/?manifest=1");
    forbidden.request("GET", &path, &[]).await.expect_error(403);
    forbidden.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_is_told_and_what_is_known_survives_its_registry() {
    let registry = Registry::start().await;
    let one = registry.push("team/app", "v1", &Image::page("one"));
    let site = about(&registry, json!({"tagTtl": "1s"})).await;
    let path = registry.path("team/app:v1", "/?manifest=1");
    let read_only = [("X-BlobServe-ReadOnly", "true")];
    site.request("GET", &path, &read_only)
        .await
        .expect_error(404);
    assert_eq!(told(&site, &path).await["digest"], json!(one.digest));
    site.request("GET", &path, &read_only).await.expect(200);
    let two = registry.push("team/app", "v1", &Image::page("two"));
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(told(&site, &path).await["digest"], json!(two.digest));
    // Nothing of the second image was fetched but what it took to tell.
    assert_eq!(registry.count_blob_gets(&two.layers[0]), 0);
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    registry
        .fault(Fault::Status {
            code: 500,
            retry_after: Some(3600),
        })
        .on_anything();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(
        told(&site, &path).await["digest"],
        json!(two.digest),
        "stale"
    );
    let site = site.restart().await;
    assert_eq!(
        told(&site, &path).await["digest"],
        json!(two.digest),
        "over a restart"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_hosts_and_origins_tell_of_their_image() {
    let registry = Registry::start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("hi"));
    let name = registry.name("team/app");
    let settings = json!({
        "repos": {name.clone(): {"about": true, "origin": true}},
        "hosts": {"docs.example": {"reference": format!("{name}:v1"), "workdir": "/x"}},
        "origins": {"domain": "user.example"},
    });
    let site = Site::start(&[&registry], settings).await;
    let found = site
        .get_with("/?manifest=1", &[("Host", "docs.example")])
        .await
        .expect(200);
    assert!(found.text().contains(&pushed.digest));
    let path = registry.path("team/app:v1", "/");
    let answer = site.get(&format!("{path}?manifest=1")).await.expect(200);
    assert!(answer.text().contains(&pushed.digest));
    let moved = site.request("GET", &path, &[]).await.expect(307);
    let location = moved
        .header("location")
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    let host = location.split('/').next().unwrap();
    let found = site
        .get_with("/?manifest=1", &[("Host", host)])
        .await
        .expect(200);
    assert!(found.text().contains(&pushed.digest));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_redirects_are_as_for_manifests() {
    let auth = Auth::Bearer {
        realm: None,
        lifetime: std::time::Duration::from_secs(60),
        login: Some(("user".into(), "secret".into())),
    };
    let registry = Registry::builder().auth(auth).start().await;
    let pushed = registry.push("team/app", "v1", &Image::page("hi"));
    let subject = (pushed.digest.as_str(), pushed.manifest.as_slice());
    registry.push("team/app", "r1", &referrer(subject, SBOM, 1));
    registry.list(Lists::Whole);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    let auths = json!({"auths": {registry.host(): {"username": "user", "password": "secret"}}});
    std::fs::write(&file, auths.to_string()).unwrap();
    let site = about(&registry, json!({"dockerAuth": file})).await;
    let path = registry.path("team/app:v1", "/?referrers=1");
    assert_eq!(digests(&told(&site, &path).await).len(), 1);
    site.stop().await;
    let site = about(&registry, json!({})).await;
    let text = site
        .request("GET", &path, &[])
        .await
        .expect_error(403)
        .text();
    assert!(text.contains("401"), "{text}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_searched_for_what_refers_to_an_image() {
    let directory = tempfile::tempdir().unwrap();
    let write = |bytes: &[u8]| {
        let digest = image::sha256(bytes);
        let path = directory
            .path()
            .join("blobs")
            .join(digest.replace(':', "/"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        json!({"mediaType": MANIFEST, "digest": digest, "size": bytes.len()})
    };
    let page = Image::page("hi").build();
    for (_, bytes) in &page.blobs {
        write(bytes);
    }
    let subject = (page.digest.as_str(), page.manifest.as_slice());
    let mut main = write(&page.manifest);
    main["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let [listed, nested, tagged] = [1, 2, 3].map(|number| referrer(subject, SBOM, number).build());
    let helm = referrer(subject, "", 4)
        .config("application/vnd.cncf.helm.config.v1+json", b"{}")
        .build();
    let index = |entries: &[Value]| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
    };
    let as_index = |mut entry: Value| {
        entry["mediaType"] = json!(INDEX);
        entry
    };
    let gone = json!({"mediaType": MANIFEST, "digest": image::sha256(b"gone"), "size": 4});
    let within = as_index(write(
        index(&[write(&nested.manifest), gone.clone()]).as_bytes(),
    ));
    let mut by_tag = write(&tagged.manifest);
    by_tag["artifactType"] = json!(SBOM);
    let mut schema = as_index(write(index(&[by_tag]).as_bytes()));
    let tag = page.digest.replace(':', "-");
    schema["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let entries = [
        main,
        write(&listed.manifest),
        write(&helm.manifest),
        gone,
        within,
        schema,
    ];
    std::fs::write(directory.path().join("index.json"), index(&entries)).unwrap();
    std::fs::write(
        directory.path().join("oci-layout"),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
    )
    .unwrap();
    let archive = tempfile::tempdir().unwrap().keep().join("images.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    tar.append_dir_all(".", directory.path()).unwrap();
    tar.into_inner().unwrap();
    let settings = json!({
        "registries": {"layout.local": {"layout": directory.path()}, "archive.local": {"archive": archive}},
        "repos": {"layout.local/app": {"about": true}, "archive.local/app": {"about": true}},
    });
    let site = Site::start(&[], settings).await;
    for host in ["layout.local", "archive.local"] {
        let root = format!("/{host}/app:v1/");
        let found = told(&site, &format!("{root}?referrers=1")).await;
        let mut all = [&listed, &nested, &tagged, &helm].map(|one| one.digest.as_str());
        all.sort_unstable();
        let mut there = digests(&found);
        there.sort_unstable();
        assert_eq!(there, all, "{host}");
        let of_type = |kind: &str| format!("{root}?referrers=1&artifactType={kind}");
        let found = told(&site, &of_type("application/vnd.cncf.helm.config.v1+json")).await;
        assert_eq!(digests(&found), [helm.digest.as_str()]);
        assert_eq!(found["referrers"][0]["annotations"]["number"], json!("4"));
        let found = told(&site, &format!("{root}?manifest=1")).await;
        assert_eq!(found["digest"], json!(page.digest));
    }
    // A list is remembered: of another image, with a manifest that is broken by now.
    let path = directory
        .path()
        .join("blobs")
        .join(listed.digest.replace(':', "/"));
    std::fs::write(path, vec![b' '; listed.manifest.len()]).unwrap();
    let other = format!("/layout.local/app@{}/?referrers=1", listed.digest);
    let text = site
        .request("GET", &other, &[])
        .await
        .expect_error(502)
        .text();
    assert!(
        text.contains(&format!("manifest {}", listed.digest)),
        "{text}"
    );
    site.stop().await;
    std::fs::remove_file(&archive).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_for_referrers_where_they_say_what_tags_mean() {
    for mirror_tags in [false, true] {
        let (registry, mirror) = (Registry::start().await, Registry::start().await);
        let pushed = registry.push("team/app", "v1", &Image::page("hi"));
        mirror.push("team/app", "v1", &Image::page("hi"));
        let subject = (pushed.digest.as_str(), pushed.manifest.as_slice());
        for (number, holder) in [&registry, &mirror, &mirror].into_iter().enumerate() {
            let image = referrer(subject, SBOM, number);
            holder.push("team/app", &format!("r{number}"), &image);
            holder.list(Lists::Pages(1));
        }
        let mut settings = json!({"registries": {mirror.host(): mirror.settings()}});
        let mut own = registry.settings();
        own["mirrors"] = json!([mirror.host()]);
        own["mirrorTags"] = json!(mirror_tags);
        settings["registries"][registry.host()] = own;
        settings["tagTtl"] = json!("1s");
        let site = about(&registry, settings).await;
        let path = registry.path(&format!("team/app@{}", pushed.digest), "/?referrers=1");
        let expected = if mirror_tags { 2 } else { 1 };
        assert_eq!(digests(&told(&site, &path).await).len(), expected);
        let asked = mirror.log();
        assert_eq!(asked.len(), if mirror_tags { 2 } else { 0 });
        for one in &asked {
            assert_eq!(one.path.matches("ns=").count(), 1, "{}", one.path);
        }
        // One that has no lists, or fails, is left for the next.
        for lists in [Lists::Never, Lists::Status(500)] {
            mirror.list(lists);
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            assert_eq!(digests(&told(&site, &path).await).len(), 1);
        }
        site.stop().await;
    }
}
