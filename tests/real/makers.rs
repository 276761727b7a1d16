//! What the tools that people have make, each served as the tree that it was made of: images by
//! buildah and containerd, artifacts by ORAS and Helm.

use crate::binary::{Home, text};
use crate::builds::Build;
use crate::layouts::{Layout, WORKDIR, site_in};
use crate::parts::{Server, free_address, installed, run};
use crate::registries::{Access, Registry};
use crate::support::noise;
use crate::trees::is_the_tree;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_buildah_builds_is_served_from_wherever_it_was_pushed() {
    let home = Home::new();
    let root = home.path("context/root");
    site_in(&root.join(WORKDIR.trim_start_matches('/')), "built");
    let build = Build::of("FROM scratch\nADD root /\n", &home.path("context"));
    let registry = Registry::start(&Access::Open);
    // buildah would name the layer that is there already, in the other compression.
    let second = Registry::start(&Access::Open);
    let (host, other) = (registry.host(), second.host());
    let (oci, docker) = (home.path("oci.tar"), home.path("docker.tar"));
    let remote = |tag: &str| format!("docker://{host}/team/app:{tag}");
    let table: [(&[&str], String, String); 5] = [
        (
            &["--format=oci"],
            remote("oci"),
            format!("{host}/team/app:oci"),
        ),
        (
            &["--format=v2s2"],
            remote("docker"),
            format!("{host}/team/app:docker"),
        ),
        (
            &["--format=oci", "--compression-format=zstd"],
            format!("docker://{other}/team/app:zstd"),
            format!("{other}/team/app:zstd"),
        ),
        (
            &[],
            format!("oci-archive:{}:v1", oci.display()),
            "oci.localhost/team/app:v1".to_owned(),
        ),
        (
            &[],
            format!("docker-archive:{}:team/app:v1", docker.display()),
            "docker.localhost/team/app:v1".to_owned(),
        ),
    ];
    for (options, target, _) in &table {
        build.push(options, target);
    }
    for ((_, source, _), suffix) in table.iter().zip(["v1.tar+gzip", "tar.gzip", "v1.tar+zstd"]) {
        let raw = ["inspect", "--raw", "--tls-verify=false", source];
        let manifest: Value = serde_json::from_slice(&run("skopeo", &raw, b"")).expect("JSON");
        let media_type = manifest["layers"][0]["mediaType"].as_str();
        assert!(
            media_type.is_some_and(|it| it.ends_with(suffix)),
            "{source}: {manifest}"
        );
    }
    let blobserve = home.serve(&json!({
        "listing": true,
        "repos": {
            format!("{host}/team/app"): {},
            format!("{other}/team/app"): {},
            "oci.localhost/team/app": {},
            "docker.localhost/team/app": {},
        },
        "registries": {
            "oci.localhost": {"archive": oci},
            "docker.localhost": {"archive": docker},
        },
    }));
    for (options, target, image) in &table {
        println!("{target} {options:?}");
        let compared = is_the_tree(&blobserve, &format!("/{image}"), &root).await;
        assert!(compared.files > 500, "{compared:?}");
    }
}

/// What `docker save` writes since Docker 25 is what containerd exports: an OCI layout with Docker's
/// `manifest.json` beside its index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_containerd_exports_is_served_by_its_docker_name() {
    let layout = Layout::of_a_site("exported");
    let root = layout.unpacked();
    let home = Home::new();
    let (address, socket) = (free_address(), home.path("containerd.sock"));
    let configuration = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {socket:?}\ntcp_address = \"{address}\"\n",
        root = home.path("containerd"),
        state = home.path("containerd.state"),
    );
    let file = home.write("containerd.toml", &configuration);
    let arguments = [OsStr::new("--config"), file.as_os_str()];
    let log = home.path("containerd.log");
    let _containerd = Server::start("containerd", &arguments, address, &log);
    let name = "registry.example.com/team/app:v1";
    let (imported, exported) = (home.path("imported.tar"), home.path("exported.tar"));
    let source = format!("oci:{}", layout.image());
    let target = format!("oci-archive:{}:{name}", imported.display());
    let copy = ["--insecure-policy", "copy", "--quiet", &source, &target];
    run("skopeo", &copy, b"");
    let ctr = |arguments: &[&str]| {
        let command = ["--address", text(&socket), "images"];
        run("ctr", &[&command, arguments].concat(), b"")
    };
    ctr(&["import", "--no-unpack", text(&imported)]);
    ctr(&["export", text(&exported), name]);
    let members = run("tar", &["-tf", text(&exported)], b"");
    let members = String::from_utf8(members).expect("text");
    for member in ["oci-layout", "manifest.json"] {
        assert!(members.lines().any(|line| line == member), "{members}");
    }
    let blobserve = home.serve(&json!({
        "listing": true,
        "repos": {"saved.localhost/team/app": {}},
        "registries": {"saved.localhost": {"archive": exported}},
    }));
    let compared = is_the_tree(&blobserve, "/saved.localhost/team/app:v1", &root).await;
    assert!(compared.files > 500, "{compared:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_oras_pushes_is_served_by_its_titles() {
    let registry = Registry::start(&Access::Open);
    let home = Home::new();
    let pushed = home.path("pushed");
    for (name, content) in [
        ("report.txt", b"words\n".to_vec()),
        ("data/a b.json", b"{}\n".to_vec()),
        ("data/large.bin", noise(5, 3 << 20)),
        ("tree/index.html", b"<!doctype html>\n".to_vec()),
        ("tree/deep/er/one", noise(6, 70_000)),
    ] {
        let path = pushed.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("written");
    }
    std::os::unix::fs::symlink("../index.html", pushed.join("tree/deep/up")).expect("a link");
    let oras = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oras/usr/bin/oras");
    let repository = format!("{}/team/files", registry.host());
    let blobserve = home.serve(&json!({"listing": true, "repos": {&repository: {}}}));
    // With an artifact type and the empty configuration, and as before there was either.
    for (version, options) in [
        (
            "v1.1",
            &["--artifact-type=application/vnd.example.report"][..],
        ),
        ("v1.0", &[]),
    ] {
        let reference = format!("{repository}:{version}");
        let mut arguments = vec!["-C", text(&pushed), text(&oras), "push", "--plain-http"];
        arguments.extend(["--image-spec", version]);
        arguments.extend(options);
        arguments.extend([
            &reference,
            "report.txt:text/plain",
            "data/a b.json:application/json",
            "data/large.bin",
            "tree",
        ]);
        run("env", &arguments, b"");
        let compared = is_the_tree(&blobserve, &format!("/{reference}"), &pushed).await;
        assert_eq!((compared.files, compared.nothing), (6, 0), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_that_helm_pushes_is_served_as_its_files() {
    installed();
    let registry = Registry::start(&Access::Open);
    let home = Home::new();
    let (charts, unpacked) = (home.path("charts"), home.path("unpacked"));
    for directory in [&charts, &unpacked] {
        std::fs::create_dir(directory).expect("a directory");
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (python, script) = (
        here.join("target/python/bin/python"),
        here.join("tests/real/helm.py"),
    );
    let remote = format!("{}/charts", registry.host());
    let arguments = [text(&script), text(&charts), &remote];
    let package = run(text(&python), &arguments, b"");
    let package = String::from_utf8(package).expect("text");
    let arguments = ["-xzf", package.trim(), "-C", text(&unpacked)];
    run("tar", &arguments, b"");
    let blobserve = home.serve(&json!({
        "listing": true,
        "repos": {format!("{remote}/demo"): {}},
    }));
    let prefix = format!("/{remote}/demo:0.1.0");
    let compared = is_the_tree(&blobserve, &prefix, &unpacked).await;
    assert!(compared.files > 8, "{compared:?}");
    let chart = blobserve
        .get_expecting(200, &format!("{prefix}/demo/Chart.yaml"))
        .await;
    assert!(chart.text().contains("name: demo"), "{}", chart.text());
}
