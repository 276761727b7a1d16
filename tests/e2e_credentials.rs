//! Whose credentials go where, and which addresses are contacted.
mod support;
use std::time::{Duration, Instant};
use support::*;

const HELLO: &str = "hello";

async fn one_image() -> (Registry, Pushed) {
    let registry = Registry::start().await;
    let image = registry.push("team/app", "v1", &Image::page(HELLO));
    (registry, image)
}

/// A docker `config.json` with one login; the file ends with the returned handle.
fn docker_config(registry: &Registry, user: &str, password: &str) -> tempfile::NamedTempFile {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let config = json!({"auths": {registry.host(): {"auth": auth}}});
    std::fs::write(file.path(), config.to_string()).expect("written");
    file
}

fn login() -> Option<(String, String)> {
    Some(("me".to_owned(), "secret-word".to_owned()))
}

/// Settings with credentials for `team/app`, which is configured by name.
fn with_login(registry: &Registry, file: &tempfile::NamedTempFile) -> serde_json::Value {
    json!({"dockerAuth": file.path(), "repos": {registry.name("team/app"): {}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_and_bearer_logins_work_over_http_and_tls() {
    let basic = || Auth::Basic {
        user: "me".into(),
        password: "secret-word".into(),
    };
    let bearer = || Auth::Bearer {
        realm: None,
        lifetime: Duration::from_secs(60),
        login: login(),
    };
    let open = || Auth::Bearer {
        realm: None,
        lifetime: Duration::from_secs(60),
        login: None,
    };
    for (name, auth, tls) in [
        ("basic", basic(), false),
        ("bearer", bearer(), false),
        ("anonymous bearer", open(), false),
        ("basic, TLS", basic(), true),
        ("bearer, TLS", bearer(), true),
    ] {
        let builder = Registry::builder().auth(auth);
        let registry = if tls { builder.tls() } else { builder }.start().await;
        registry.push("team/app", "v1", &Image::page(HELLO));
        let file = docker_config(&registry, "me", "secret-word");
        let site = Site::start(&[&registry], with_login(&registry, &file)).await;
        let answer = site.get(&registry.path("team/app:v1", "/")).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_403_and_are_not_told() {
    let auth = Auth::Basic {
        user: "me".into(),
        password: "right".into(),
    };
    let registry = Registry::builder().auth(auth).start().await;
    registry.push("team/app", "v1", &Image::page(HELLO));
    let file = docker_config(&registry, "me", "secret-word");
    let site = Site::start(&[&registry], with_login(&registry, &file)).await;
    let answer = site.get(&registry.path("team/app:v1", "/")).await;
    let text = answer.expect_error(403).text();
    assert!(!text.contains("secret-word"), "{text}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_read_again_when_their_file_changes() {
    let auth = Auth::Basic {
        user: "me".into(),
        password: "secret-word".into(),
    };
    let registry = Registry::builder().auth(auth).start().await;
    registry.push("team/app", "v1", &Image::page(HELLO));
    let file = docker_config(&registry, "me", "stale");
    let site = Site::start(&[&registry], with_login(&registry, &file)).await;
    let path = registry.path("team/app:v1", "/");
    site.get(&path).await.expect_error(403);
    let fresh = docker_config(&registry, "me", "secret-word");
    std::fs::rename(fresh.path(), file.path()).unwrap();
    let start = Instant::now();
    while site.get(&path).await.status != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "never read again"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_refreshed() {
    let lifetime = Duration::from_secs(1);
    let auth = Auth::Bearer {
        realm: None,
        lifetime,
        login: None,
    };
    let registry = Registry::builder().auth(auth).start().await;
    registry.push("team/app", "v1", &Image::page("1"));
    registry.push("team/app", "v2", &Image::page("2"));
    let site = Site::start(&[&registry], json!({})).await;
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    tokio::time::sleep(lifetime * 2).await;
    site.get(&registry.path("team/app:v2", "/"))
        .await
        .expect(200);
    assert!(registry.count("GET", "/token") >= 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_elsewhere_is_asked_only_if_it_is_listed() {
    let service_auth = Auth::Bearer {
        realm: None,
        lifetime: Duration::from_secs(60),
        login: login(),
    };
    let service = Registry::builder().auth(service_auth).start().await;
    let auth = Auth::Bearer {
        realm: Some(service.base()),
        lifetime: Duration::from_secs(60),
        login: None,
    };
    let registry = Registry::builder()
        .auth(auth)
        .tokens(&service.tokens())
        .start()
        .await;
    registry.push("team/app", "v1", &Image::page(HELLO));
    let file = docker_config(&registry, "me", "secret-word");
    let path = registry.path("team/app:v1", "/");

    let site = Site::start(&[&registry], with_login(&registry, &file)).await;
    let answer = site.get(&path).await;
    assert!([403, 502].contains(&answer.status), "{}", answer.text());
    assert_eq!(service.requests(), 0, "{:#?}", service.log());
    site.stop().await;

    let mut settings = with_login(&registry, &file);
    settings["registries"][registry.host()]["tokenHosts"] = json!([service.host()]);
    let site = Site::start(&[&registry], settings).await;
    site.get(&path).await.expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_carries_no_credentials_to_another_host() {
    let auth = Auth::Basic {
        user: "me".into(),
        password: "secret-word".into(),
    };
    let registry = Registry::builder().auth(auth).start().await;
    let image = registry.push("team/app", "v1", &Image::page(HELLO));
    let store = Registry::start().await;
    store.push("team/app", "v1", &Image::page(HELLO));
    registry
        .fault(Fault::RedirectTo(store.base()))
        .on_blob(&image.layers[0]);
    let file = docker_config(&registry, "me", "secret-word");
    let site = Site::start(&[&registry, &store], with_login(&registry, &file)).await;
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    assert_eq!(store.count_blob_gets(&image.layers[0]), 1);
    let log = store.log();
    assert!(
        log.iter().all(|one| one.header("authorization").is_none()),
        "{log:#?}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_private_address_that_is_not_named_is_not_followed() {
    let (registry, image) = one_image().await;
    let store = Registry::start().await;
    registry
        .fault(Fault::RedirectTo(store.base()))
        .on_blob(&image.layers[0]);
    let site = Site::start(&[&registry], json!({})).await;
    let answer = site.get(&registry.path("team/app:v1", "/")).await;
    assert!([403, 502].contains(&answer.status), "{}", answer.text());
    assert_eq!(store.requests(), 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loopback_registry_that_is_not_named_is_not_contacted() {
    let (registry, _) = one_image().await;
    let site = Site::start(&[], json!({})).await;
    let answer = site.get(&registry.path("team/app:v1", "/")).await;
    assert!([403, 502].contains(&answer.status), "{}", answer.text());
    assert_eq!(registry.requests(), 0);
    site.stop().await;
    let site = Site::start(&[], json!({"allowPrivate": true})).await;
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_not_used_for_a_repository_that_is_not_configured() {
    let auth = Auth::Basic {
        user: "me".into(),
        password: "secret-word".into(),
    };
    let registry = Registry::builder().auth(auth).start().await;
    registry.push("team/other", "v1", &Image::page(HELLO));
    let file = docker_config(&registry, "me", "secret-word");
    let path = registry.path("team/other:v1", "/");
    let mut settings = with_login(&registry, &file);
    let site = Site::start(&[&registry], settings.clone()).await;
    site.get(&path).await.expect_error(403);
    let log = registry.log();
    assert!(
        log.iter().all(|one| one.header("authorization").is_none()),
        "{log:#?}"
    );
    site.stop().await;
    settings["anyRepoCredentials"] = json!(true);
    let site = Site::start(&[&registry], settings).await;
    site.get(&path).await.expect(200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_ca_that_is_not_configured_is_refused() {
    let registry = Registry::builder().tls().start().await;
    registry.push("team/app", "v1", &Image::page(HELLO));
    let settings = json!({"registries": {registry.host(): {}}, "timeout": "30s"});
    let site = Site::start(&[], settings).await;
    site.get(&registry.path("team/app:v1", "/"))
        .await
        .expect_error(502);
    site.stop().await;
}
