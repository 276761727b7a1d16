//! Where images come from: every way to speak to a registry, and layouts without one.

use crate::binary::{Blobserve, Home, text};
use crate::layouts::{Layout, WORKDIR, page};
use crate::parts::{free_address, run};
use crate::registries::{Access, Registry};
use crate::support::Client;
use crate::tokens::{Tokens, USER};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// The site is there: its page, a file whose bytes are known, and a clear no for what is not.
async fn serves(blobserve: &Blobserve, image: &str, words: &str) {
    let index = blobserve.get_expecting(200, &format!("/{image}/")).await;
    assert_eq!(index.text(), page(words));
    assert_eq!(
        index.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let deep = blobserve
        .get_expecting(200, &format!("/{image}/docs/a/b/c/d/e/f/deep.txt"))
        .await;
    assert_eq!(deep.text(), "deep\n");
    let etag = deep.header("etag").expect("an ETag");
    let path = format!("/{image}/docs/a/b/c/d/e/f/deep.txt");
    let again = blobserve
        .client
        .request("GET", &path, &[("If-None-Match", etag)])
        .await;
    assert_eq!(again.status, 304, "{path} with its ETag");
    blobserve
        .get(&format!("/{image}/no-such-file"))
        .await
        .expect_error(404);
}

/// Configuration of one repository that is served from [`WORKDIR`].
fn repos(image: &str) -> Value {
    let (repository, _) = image.rsplit_once(':').expect("a tag");
    json!({repository: {"workdir": WORKDIR}})
}

/// A docker `config.json` with one user.
fn login(host: &str, user: &str, password: &str) -> String {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    json!({"auths": {host: {"auth": auth}}}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_come_over_plain_http_in_oci_and_in_docker_form() {
    let layout = Layout::of_a_site("plain");
    let registry = Registry::start(&Access::Open);
    for (format, tag) in [("oci", "oci"), ("v2s2", "docker")] {
        registry.push(&layout, &format!("team/app:{tag}"), format);
        let image = format!("{}/team/app:{tag}", registry.host());
        let home = Home::new();
        let blobserve = home.serve(&json!({"repos": repos(&image)}));
        serves(&blobserve, &image, "plain").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_registry_does_not_know_is_404() {
    let registry = Registry::start(&Access::Open);
    registry.push(&Layout::of_a_site("known"), "team/app:v1", "oci");
    let host = registry.host();
    let home = Home::new();
    let blobserve =
        home.serve(&json!({"allowAnyRepo": true, "registries": {&host: {"plainHttp": true}}}));
    let unknown = format!("sha256:{}", "0".repeat(64));
    for reference in [
        "team/app:v2".to_owned(),
        "team/other:v1".to_owned(),
        format!("team/app@{unknown}"),
    ] {
        blobserve
            .get(&format!("/{host}/{reference}/"))
            .await
            .expect_error(404);
    }
    let index = blobserve
        .get_expecting(200, &format!("/{host}/team/app:v1{WORKDIR}/"))
        .await;
    assert_eq!(index.text(), page("known"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_opens_a_registry_and_a_wrong_one_does_not() {
    let (user, password) = ("reader", "se:cret");
    let registry = Registry::start(&Access::Password(user, password));
    registry.push(&Layout::of_a_site("basic"), "team/app:v1", "oci");
    let image = format!("{}/team/app:v1", registry.host());
    let settings = |auth: Option<&str>| {
        let mut settings =
            json!({"repos": repos(&image), "registries": {registry.host(): {"plainHttp": true}}});
        if let Some(auth) = auth {
            settings["dockerAuth"] = auth.into();
        }
        settings
    };
    for (password, opens) in [
        (Some(password), true),
        (Some("wrong"), false),
        (None, false),
    ] {
        let home = Home::new();
        let auth = password
            .map(|password| home.write("auth.json", &login(&registry.host(), user, password)));
        let blobserve = home.serve(&settings(auth.as_deref().map(text)));
        if opens {
            serves(&blobserve, &image, "basic").await;
        } else {
            blobserve.get(&format!("/{image}/")).await.expect_error(403);
        }
        let log = blobserve.log();
        assert!(
            password.is_none_or(|password| !log.contains(password)),
            "a password is in the log:\n{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_put_right_while_it_runs_is_used() {
    let (user, password) = ("reader", "new");
    let registry = Registry::start(&Access::Password(user, password));
    registry.push(&Layout::of_a_site("renewed"), "team/app:v1", "oci");
    let (host, image) = (registry.host(), format!("{}/team/app:v1", registry.host()));
    // As Kubernetes mounts a secret: the file is a link into a directory that is swapped.
    let home = Home::new();
    let generation = |name: &str, password: &str| {
        std::fs::create_dir(home.path(name)).expect("a directory");
        home.write(&format!("{name}/auth.json"), &login(&host, user, password));
        let link = home.path("..next");
        std::os::unix::fs::symlink(name, &link).expect("a link");
        std::fs::rename(&link, home.path("..data")).expect("swapped");
    };
    generation("..1", "old");
    std::os::unix::fs::symlink("..data/auth.json", home.path("auth.json")).expect("a link");
    let blobserve = home.serve(&json!({
        "repos": repos(&image),
        "registries": {&host: {"plainHttp": true}},
        "dockerAuth": home.path("auth.json"),
    }));
    blobserve.get(&format!("/{image}/")).await.expect_error(403);
    generation("..2", password);
    let path = format!("/{image}/");
    let opens = async || blobserve.get(&path).await.status == 200;
    blobserve.until("the new password is not used", opens).await;
    serves(&blobserve, &image, "renewed").await;
}

/// An image in a registry that wants tokens, and who serves it.
struct BehindTokens {
    tokens: Tokens,
    _registry: Registry,
    image: String,
    _home: Home,
    blobserve: Blobserve,
}

impl BehindTokens {
    /// Starts them all; `listed`: the configuration names the token service.
    async fn start(listed: bool) -> BehindTokens {
        let tokens = Tokens::start().await;
        let registry = Registry::start(&Access::Tokens(&tokens));
        registry.push(&Layout::of_a_site("token"), "team/app:v1", "oci");
        tokens.take_issued();
        let (host, image) = (registry.host(), format!("{}/team/app:v1", registry.host()));
        let home = Home::new();
        let auth = home.write("auth.json", &login(&host, USER.0, USER.1));
        let service = tokens.address.to_string();
        let mut registries = json!({&host: {"plainHttp": true}});
        if listed {
            registries[&host]["tokenHosts"] = json!([&service]);
            registries[&service] = json!({"plainHttp": true});
        }
        let blobserve = home.serve(&json!({
            "repos": repos(&image), "registries": registries, "dockerAuth": auth,
        }));
        BehindTokens {
            tokens,
            _registry: registry,
            image,
            _home: home,
            blobserve,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_serves_a_whole_cold_fetch() {
    let site = BehindTokens::start(true).await;
    serves(&site.blobserve, &site.image, "token").await;
    assert_eq!(
        site.tokens.take_issued(),
        ["repository:team/app:pull"],
        "\n{}",
        site.blobserve.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_service_that_is_not_listed_is_not_asked() {
    let site = BehindTokens::start(false).await;
    let refused = site.blobserve.get(&format!("/{}/", site.image)).await;
    assert!(matches!(refused.status, 403 | 502), "{refused:?}");
    assert_eq!(site.tokens.take_issued(), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_ca_is_trusted_where_configured_and_nowhere_else() {
    let registry = Registry::start(&Access::Tls);
    let other = Registry::start(&Access::Tls);
    registry.push(&Layout::of_a_site("tls"), "team/app:v1", "oci");
    let (host, image) = (registry.host(), format!("{}/team/app:v1", registry.host()));
    for (ca, trusted) in [(registry.ca(), true), (other.ca(), false)] {
        let home = Home::new();
        let blobserve =
            home.serve(&json!({"repos": repos(&image), "registries": {&host: {"ca": ca}}}));
        if trusted {
            serves(&blobserve, &image, "tls").await;
        } else {
            let refused = blobserve.get(&format!("/{image}/")).await;
            assert!(
                (502..=504).contains(&refused.status),
                "{refused:?}\n{}",
                blobserve.log()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_helper_is_asked() {
    let (user, password) = ("robot", "from a helper");
    let registry = Registry::start(&Access::Password(user, password));
    registry.push(&Layout::of_a_site("helper"), "team/app:v1", "oci");
    let (host, image) = (registry.host(), format!("{}/team/app:v1", registry.host()));
    let mut home = Home::new();
    let helper = home.write(
        "docker-credential-tests",
        &format!(
            "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread -r server\n[ \"$server\" = {host} ] || exit 1\n\
             printf '{{\"ServerURL\": \"%s\", \"Username\": \"{user}\", \"Secret\": \"{password}\"}}' \"$server\"\n"
        ),
    );
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let search = std::env::var("PATH").unwrap_or_default();
    let directory = text(helper.parent().expect("a directory")).to_owned();
    home.set("PATH", &format!("{directory}:{search}"));
    let auth = home.write(
        "auth.json",
        &json!({"credHelpers": {&host: "tests"}}).to_string(),
    );
    let blobserve = home.serve(&json!({
        "repos": repos(&image),
        "registries": {&host: {"plainHttp": true}},
        "dockerAuth": auth,
    }));
    serves(&blobserve, &image, "helper").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_installation_starts_with_its_own_file() {
    let (user, password) = ("reader", "secret");
    let registry = Registry::start(&Access::Password(user, password));
    registry.push(&Layout::of_a_site("run"), "team/app:v1", "v2s2");
    let (host, image) = (registry.host(), format!("{}/team/app:v1", registry.host()));
    let home = Home::new();
    let auth = home.write("auth.json", &login(&host, user, password));
    let (listen, probes, metrics) = (free_address(), free_address(), free_address());
    let repository = format!("{host}/team/app");
    // Keys and nesting as COMPATIBILITY has them; there keys had no case, and unknown ones passed.
    let config = json!({
        "blobserve": {
            "port": listen.port(),
            "timeout": "30s",
            "repos": {repository: {
                "prePull": ["v1"],
                "workdir": WORKDIR,
                "replacements": [{"path": format!("{WORKDIR}/style.css"), "search": "2em", "replacement": "3em"}],
                "inlineStatic": [{"search": "<p>", "replacement": "<p class=\"${ide}\">"}],
            }},
            "allowanyrepo": false,
            "blobSpace": {"location": home.path("cache"), "maxSizeBytes": 1 << 30},
            "aKeyOfTheFuture": true,
        },
        "dockerAuth": auth,
        "pprofAddr": "127.0.0.1:6060",
        "prometheusAddr": metrics.to_string(),
        "readinessProbeAddr": probes.to_string(),
    });
    let file = home.write("config.json", &config.to_string());
    let blobserve = home.start(&["run", text(&file), "--address", &listen.to_string()]);
    let ready = async || Client(probes).request("GET", "/ready", &[]).await.status == 200;
    blobserve.until("not ready", ready).await;
    Client(probes)
        .request("GET", "/live", &[])
        .await
        .expect(200);
    let scraped = Client(metrics)
        .request("GET", "/metrics", &[])
        .await
        .expect(200)
        .text();
    assert!(
        scraped.contains("http_client_requests_total{"),
        "prePull asked the registry:\n{scraped}"
    );

    serves(&blobserve, &image, "run").await;
    let style = blobserve
        .get_expecting(200, &format!("/{image}/style.css"))
        .await;
    assert_eq!(style.text(), "body { margin: 3em }\n", "replaced");
    let hard = blobserve
        .get_expecting(200, &format!("/{image}/hard.css"))
        .await;
    assert_eq!(
        hard.text(),
        style.text(),
        "all hard links of a file change together"
    );
    let header = [("X-BlobServe-InlineVars", r#"{"ide": "code"}"#)];
    let inlined = blobserve
        .client
        .request("GET", &format!("/{image}/"), &header)
        .await
        .expect(200);
    assert_eq!(
        inlined.text(),
        page("run").replace("<p>", "<p class=\"code\">")
    );
    blobserve
        .get(&format!("/{host}/team/other:v1/"))
        .await
        .expect_error(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layouts_are_served_without_a_registry() {
    let layout = Layout::of_a_site("layout");
    let home = Home::new();
    // As skopeo writes one: below the repository's name in the directory.
    let copy = home.path("layouts/team/app");
    std::fs::create_dir_all(copy.parent().expect("a parent")).expect("a directory");
    let (source, target) = (
        format!("oci:{}", layout.image()),
        format!("oci:{}:v2", copy.display()),
    );
    run(
        "skopeo",
        &["--insecure-policy", "copy", "--quiet", &source, &target],
        b"",
    );
    let blobserve = home.serve(&json!({
        "repos": {
            "umoci.localhost/any/name": {"workdir": WORKDIR},
            "skopeo.localhost/team/app": {"workdir": WORKDIR},
        },
        "registries": {
            "umoci.localhost": {"layout": layout.oci()},
            "skopeo.localhost": {"layout": home.path("layouts")},
        },
    }));
    serves(&blobserve, "umoci.localhost/any/name:v1", "layout").await;
    serves(&blobserve, "skopeo.localhost/team/app:v2", "layout").await;
    blobserve
        .get("/skopeo.localhost/team/app:v1/")
        .await
        .expect_error(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_tag_is_seen_and_survives_its_registry() {
    let mut registry = Registry::start(&Access::Open);
    registry.push(&Layout::of_a_site("first"), "team/app:v1", "oci");
    let image = format!("{}/team/app:v1", registry.host());
    let settings = json!({"repos": repos(&image), "tagTtl": "1s"});
    let home = Home::new();
    let blobserve = home.serve(&settings);
    serves(&blobserve, &image, "first").await;

    registry.push(&Layout::of_a_site("second"), "team/app:v1", "oci");
    let path = format!("/{image}/");
    let moved = async || blobserve.get_expecting(200, &path).await.text() == page("second");
    blobserve.until("the tag's move is not seen", moved).await;

    registry.stop();
    drop(blobserve);
    let blobserve = home.serve(&settings);
    serves(&blobserve, &image, "second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_need_no_registry_either() {
    let layout = Layout::of_a_site("archive");
    let home = Home::new();
    let source = format!("oci:{}", layout.image());
    let (oci, docker) = (home.path("oci.tar"), home.path("docker.tar"));
    for target in [
        format!("oci-archive:{}:v1", oci.display()),
        format!("docker-archive:{}:team/app:v1", docker.display()),
    ] {
        let arguments = ["--insecure-policy", "copy", "--quiet", &source, &target];
        run("skopeo", &arguments, b"");
    }
    let blobserve = home.serve(&json!({
        "repos": {
            "oci.localhost/team/app": {"workdir": WORKDIR},
            "docker.localhost/team/app": {"workdir": WORKDIR},
        },
        "registries": {
            "oci.localhost": {"archive": oci},
            "docker.localhost": {"archive": docker},
        },
    }));
    serves(&blobserve, "oci.localhost/team/app:v1", "archive").await;
    serves(&blobserve, "docker.localhost/team/app:v1", "archive").await;
}
