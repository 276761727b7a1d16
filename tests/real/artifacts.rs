//! What is told of artifacts and images that ORAS and skopeo pushed. docker-registry keeps no lists of
//! referrers, so `oras attach` keeps them under tags, as the distribution specification has it.

use crate::binary::{Home, text};
use crate::layouts::Layout;
use crate::parts::run;
use crate::registries::{Access, Registry};
use crate::support::image::sha256;
use serde_json::{Value, json};
use std::path::Path;

const KIND: &str = "application/vnd.example.report+json";
const OTHER: &str = "application/vnd.example.signature";

/// Runs ORAS in a directory; the JSON that it prints.
fn oras(directory: &Path, arguments: &[&str]) -> Value {
    let oras = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oras/usr/bin/oras");
    let mut all = vec!["-C", text(directory), text(&oras)];
    all.extend(arguments);
    all.extend(["--format", "json"]);
    serde_json::from_slice(&run("env", &all, b"")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_oras_pushes_and_attaches_is_told_from_registries_and_layouts() {
    let registry = Registry::start(&Access::Open);
    let home = Home::new();
    let files = home.path("files");
    std::fs::create_dir_all(files.join("docs")).expect("a directory");
    for (name, content) in [
        ("report.txt", "all is well\n"),
        ("docs/index.html", "<p>docs"),
        ("scan.json", "{}"),
    ] {
        std::fs::write(files.join(name), content).expect("written");
    }
    let repository = format!("{}/team/data", registry.host());
    let layout = home.path("layout");
    let layout_target = format!("{}:v1", layout.display());
    let blobserve = home.serve(&json!({
        "repos": {&repository: {"about": true}, "layout.local/data": {"about": true}},
        "registries": {"layout.local": {"layout": layout}},
    }));
    let told = async |reference: &str, query: &str| -> Value {
        let path = format!("/{reference}/?{query}");
        let answer = blobserve.get_expecting(200, &path).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        serde_json::from_slice(&answer.body).expect("JSON")
    };
    for (how, target, reference) in [
        (
            "--plain-http",
            format!("{repository}:v1"),
            format!("{repository}:v1"),
        ),
        (
            "--oci-layout",
            layout_target,
            "layout.local/data:v1".to_owned(),
        ),
    ] {
        let push = [
            "push",
            how,
            "--artifact-type",
            KIND,
            "--annotation",
            "note=pushed by oras",
            &target,
            "report.txt:text/plain",
            "docs/:application/vnd.acme.docs.layer.v1+tar",
        ];
        let pushed = oras(&files, &push);
        let mut attached = Vec::new();
        for (kind, note) in [(KIND, "one"), (OTHER, "two"), (KIND, "three")] {
            let note = format!("note={note}");
            let attach = [
                "attach",
                how,
                "--artifact-type",
                kind,
                "--annotation",
                &note,
                &target,
                "scan.json:application/json",
            ];
            attached.push((kind, oras(&files, &attach)["digest"].clone()));
        }
        for (path, content) in [("/report.txt", "all is well\n"), ("/docs/", "<p>docs")] {
            let path = format!("/{reference}{path}");
            let answer = blobserve.get_expecting(200, &path).await;
            assert_eq!(answer.text(), content, "{path}");
        }
        let manifest = told(&reference, "manifest=1").await;
        for member in ["digest", "size", "mediaType", "artifactType"] {
            assert_eq!(manifest[member], pushed[member], "{how} {member}");
        }
        assert_eq!(manifest["annotations"]["note"], json!("pushed by oras"));
        assert_eq!(
            manifest["layers"][0]["digest"],
            json!(sha256(b"all is well\n"))
        );
        let config = &manifest["config"]["mediaType"];
        assert_eq!(config, "application/vnd.oci.empty.v1+json");

        let referrers = told(&reference, "referrers=1").await;
        assert_eq!(referrers["digest"], pushed["digest"]);
        let listed = |list: &Value, member: &str| -> Vec<(String, String, String)> {
            let entries = list[member].as_array().expect("an array").iter();
            let mut entries: Vec<_> = entries
                .map(|entry| {
                    let said = [
                        &entry["digest"],
                        &entry["artifactType"],
                        &entry["annotations"]["note"],
                    ];
                    said.map(|value| value.as_str().unwrap_or_default().to_owned())
                        .into()
                })
                .collect();
            entries.sort();
            entries
        };
        // What ORAS finds itself.
        let found = oras(&files, &["discover", how, &target]);
        let member = match found["referrers"].is_array() {
            true => "referrers",
            false => "manifests",
        };
        assert_eq!(
            listed(&referrers, "referrers"),
            listed(&found, member),
            "{how}"
        );
        assert_eq!(referrers["referrers"].as_array().map(Vec::len), Some(3));
        let query = "referrers=1&artifactType=application/vnd.example.report%2Bjson";
        let reports = told(&reference, query).await;
        assert_eq!(
            reports["referrers"].as_array().map(Vec::len),
            Some(2),
            "{how}"
        );
        let (base, _) = reference.rsplit_once(':').expect("a tag");
        let (_, digest) = &attached[1];
        let exact = format!("{base}@{}", digest.as_str().expect("a digest"));
        let of_other = told(&exact, "manifest=1").await;
        assert_eq!(of_other["subject"]["digest"], pushed["digest"], "{how}");
        assert_eq!(of_other["artifactType"], json!(OTHER));
        assert_eq!(told(&exact, "referrers=1").await["referrers"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_told_alike_from_its_layout_and_from_a_registry() {
    let layout = Layout::of_a_site("told");
    let registry = Registry::start(&Access::Open);
    registry.push(&layout, "team/app:v1", "oci");
    let image = layout.image();
    let (directory, _) = image.rsplit_once(':').expect("a tag");
    let name = format!("{}/team/app", registry.host());
    let home = Home::new();
    let blobserve = home.serve(&json!({
        "repos": {&name: {"about": true}, "layout.local/app": {"about": true}},
        "registries": {"layout.local": {"layout": directory}},
    }));
    let mut told = Vec::new();
    for reference in [format!("{name}:v1"), "layout.local/app:v1".to_owned()] {
        let path = format!("/{reference}/?manifest=1");
        let answer = blobserve.get_expecting(200, &path).await;
        let mut value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(value["reference"], json!(reference));
        assert!(value["layers"][0]["diffID"].is_string());
        assert_eq!(value["artifactType"], json!(null));
        value["reference"] = json!(null);
        told.push(value);
        let path = format!("/{reference}/?referrers=1");
        let answer = blobserve.get_expecting(200, &path).await;
        let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(value["referrers"], json!([]));
    }
    assert_eq!(told[0], told[1], "skopeo copies manifests as they are");
}
