//! The demonstration: the site in `demo/site`, served out of the OCI layout in `demo/layout`,
//! without a registry and without a network.
mod support;
use std::path::{Path, PathBuf};
use support::*;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")
}

/// Every file below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_demonstration_is_served_from_its_layout() {
    let settings = json!({
        "allowAnyRepo": false,
        "repos": {"demo.localhost/site": {"workdir": "/srv/site"}},
        "registries": {"demo.localhost": {"layout": demo().join("layout")}},
    });
    let site = Site::start(&[], settings).await;
    let sources = demo().join("site");
    let files = files(&sources);
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let name = file.strip_prefix(&sources).expect("below it");
        let name = name.to_str().expect("UTF-8");
        let path = format!("/demo.localhost/site:v1/{name}");
        let answer = site.get(&path).await.expect(200);
        assert_eq!(
            answer.body,
            std::fs::read(&file).expect("readable"),
            "{name}"
        );
    }
    let cases = [
        ("", 200, "text/html"),
        ("/about", 301, ""),
        ("/about/", 200, "text/html"),
        ("/strata.woff2", 200, "font/woff2"),
        ("/images/layers.svg", 200, "image/svg+xml"),
        ("/nothing", 404, "text/plain"),
    ];
    for (path, status, content_type) in cases {
        let answer = site.get(&format!("/demo.localhost/site:v1{path}")).await;
        let answer = answer.expect(status);
        let got = answer.header("content-type").unwrap_or_default();
        assert!(got.starts_with(content_type), "{path}: {got}");
    }
    site.get("/demo.localhost/site:v2/").await.expect_error(404);
    site.stop().await;
}
