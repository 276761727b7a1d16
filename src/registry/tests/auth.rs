//! Authorization flows.

use super::*;
use base64::Engine as _;
use std::path::PathBuf;

/// A `config.json` with user `u`, password `p` for `host`.
pub(super) fn docker_config(dir: &tempfile::TempDir, host: &str) -> PathBuf {
    let auth = base64::engine::general_purpose::STANDARD.encode("u:p");
    write(
        dir,
        &format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#),
    )
}

fn write(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).expect("write");
    path
}

fn challenge(realm: &str) -> Answer {
    let value =
        format!(r#"Bearer realm="{realm}",service="svc",scope="repository:team/app:pull,push""#);
    answer(401).header("WWW-Authenticate", value)
}

/// A registry that is its own token service at `/token`; `token` answers there.
async fn registry(
    token: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    accepts: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Server {
    Server::start(move |asked, before| {
        if asked.target.starts_with("/token") {
            return token(asked, before);
        }
        match asked
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
        {
            Some(bearer) if accepts(bearer) => answer(200).body(MANIFEST),
            _ => challenge(&format!(
                "http://{}/token",
                asked.header("host").expect("host")
            )),
        }
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_again() {
    let server = registry(
        |_, _| answer(200).body(r#"{"token":"good","expires_in":300}"#),
        |t| t == "good",
    )
    .await;
    let registries = client(&naming(&[&server.host]));
    for _ in 0..3 {
        registries
            .manifest(&app(&server.host), &tag("t"))
            .await
            .expect("manifest");
    }
    let manifest = "GET /v2/team/app/manifests/t";
    let token = "GET /token?service=svc&scope=repository%3Ateam%2Fapp%3Apull";
    assert_eq!(
        server.lines(),
        [manifest, token, manifest, manifest, manifest]
    );
    // Another repository needs a token of its own.
    let other = Repository::parse(&format!("{}/team/other", server.host)).expect("name");
    registries
        .manifest(&other, &tag("t"))
        .await
        .expect("manifest");
    assert_eq!(server.asked().len(), 8);
}

#[tokio::test]
async fn many_at_once_fetch_one_token() {
    let server = registry(
        |_, _| answer(200).body(r#"{"token":"good","expires_in":300}"#),
        |t| t == "good",
    )
    .await;
    let (registries, app) = (client(&naming(&[&server.host])), app(&server.host));
    let all = (0..20).map(|_| {
        let (registries, app) = (registries.clone(), app.clone());
        tokio::spawn(async move { registries.manifest(&app, &tag("t")).await.map(drop) })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.expect("task").expect("manifest");
    }
    let tokens = server
        .lines()
        .iter()
        .filter(|line| line.contains("/token"))
        .count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn a_token_that_runs_out_or_is_revoked_is_replaced() {
    // `n` of the token is the number of the request that fetched it; only the newest is accepted.
    let newest = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (set, get) = (newest.clone(), newest.clone());
    let order = std::sync::atomic::Ordering::SeqCst;
    let server = registry(
        move |_, before| {
            set.store(before, order);
            // The alias, and a life shorter than the margin.
            answer(200).body(format!(r#"{{"access_token":"t{before}","expires_in":1}}"#))
        },
        move |token| token == format!("t{}", get.load(order)),
    )
    .await;
    let (registries, app) = (client(&naming(&[&server.host])), app(&server.host));
    registries.manifest(&app, &tag("t")).await.expect("first");
    newest.store(999, order);
    registries
        .manifest(&app, &tag("t"))
        .await
        .expect("after revocation");
    let before = server.asked().len();
    tokio::time::sleep(Duration::from_millis(800)).await;
    registries
        .manifest(&app, &tag("t"))
        .await
        .expect("after its end");
    // Not sent again once it ran out: challenge, token, manifest.
    assert_eq!(server.asked()[before].header("authorization"), None);
    assert_eq!(server.asked().len(), before + 3);
}

#[tokio::test]
async fn a_token_that_is_refused_at_once_is_final() {
    let server = registry(|_, _| answer(200).body(r#"{"token":"bad"}"#), |_| false).await;
    let result = manifest(&naming(&[&server.host]), &server.host).await;
    refused(
        result,
        RegistryErrorKind::Denied,
        "401 Unauthorized anonymously; `dockerAuth` has no credential",
    );
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn odd_token_answers_are_errors_that_quote_nothing() {
    let table: &[(u16, &str, RegistryErrorKind, &str)] = &[
        (
            200,
            "secret",
            RegistryErrorKind::Wrong,
            "gives an answer that is not one",
        ),
        (200, "{}", RegistryErrorKind::Wrong, "gives no token"),
        (
            200,
            r#"{"token":"a\nb: c"}"#,
            RegistryErrorKind::Wrong,
            "cannot be sent",
        ),
        (
            401,
            "secret",
            RegistryErrorKind::Denied,
            "token service: 401 Unauthorized",
        ),
        (
            403,
            "",
            RegistryErrorKind::Denied,
            "token service: 403 Forbidden",
        ),
        (
            404,
            "",
            RegistryErrorKind::Wrong,
            "token service: 404 Not Found",
        ),
        (
            503,
            "",
            RegistryErrorKind::Failing { retry_after: None },
            "token service: 503",
        ),
        (
            302,
            "",
            RegistryErrorKind::Wrong,
            "token service: 302 Found",
        ),
    ];
    for (status, body, kind, text) in table {
        let (status, body) = (*status, (*body).to_owned());
        let server = registry(move |_, _| answer(status).body(body.clone()), |_| false).await;
        let result = manifest(&naming(&[&server.host]), &server.host).await;
        let error = result.clone().expect_err(text);
        assert!(!error.message.contains("secret"), "{error}");
        refused(result, *kind, text);
    }
    let server = registry(|_, _| answer(200).body(vec![b' '; 1 << 20]), |_| false).await;
    let result = manifest(&naming(&[&server.host]), &server.host).await;
    refused(result, RegistryErrorKind::Wrong, "answer is larger than");
}

#[tokio::test]
async fn the_credential_goes_to_its_own_token_service() {
    let dir = tempfile::tempdir().expect("dir");
    let server = registry(
        |asked, _| match asked.header("authorization") {
            Some("Basic dTpw") => answer(200).body(r#"{"token":"good"}"#),
            _ => answer(401),
        },
        |t| t == "good",
    )
    .await;
    let mut config = naming(&[&server.host]);
    config.docker_auth = Some(docker_config(&dir, &server.host));
    manifest(&config, &server.host).await.expect("manifest");
    assert!(
        server.lines()[1].ends_with("&account=u"),
        "{:?}",
        server.lines()
    );
    // The same repository, not in `repos`.
    let mut unnamed = config.clone();
    unnamed.repos.clear();
    unnamed
        .registries
        .insert(server.host.clone(), RegistryConfig::default());
    let result = manifest(&unnamed, &server.host).await;
    refused(result, RegistryErrorKind::Denied, "token service: 401");
    let sent = server
        .asked()
        .iter()
        .filter(|asked| asked.header("authorization") == Some("Basic dTpw"))
        .count();
    assert_eq!(sent, 1);
    unnamed.any_repo_credentials = true;
    manifest(&unnamed, &server.host)
        .await
        .expect("any repository's credentials");
}

#[tokio::test]
async fn a_refresh_token_is_posted() {
    let dir = tempfile::tempdir().expect("dir");
    let server = registry(
        |asked, _| {
            let form: std::collections::HashMap<_, _> =
                url::form_urlencoded::parse(asked.body.as_bytes())
                    .into_owned()
                    .collect();
            let is = |name: &str, value: &str| form.get(name).is_some_and(|v| v == value);
            let right = asked.method == "POST"
                && is("grant_type", "refresh_token")
                && is("refresh_token", "re&fresh")
                && is("scope", "repository:team/app:pull")
                && is("service", "svc")
                && !asked.target.contains("fresh");
            if right {
                answer(200).body(r#"{"access_token":"good"}"#)
            } else {
                answer(400)
            }
        },
        |t| t == "good",
    )
    .await;
    let mut config = naming(&[&server.host]);
    let text = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"re&fresh"}}}}}}"#,
        server.host
    );
    config.docker_auth = Some(write(&dir, &text));
    manifest(&config, &server.host).await.expect("manifest");
}

#[tokio::test]
async fn a_realm_elsewhere_is_asked_only_if_listed() {
    let service = Server::start(|_, _| answer(200).body(r#"{"token":"good"}"#)).await;
    let realm = format!("http://{}/token", service.host);
    let server = Server::start(move |asked, _| match asked.header("authorization") {
        Some("Bearer good") => answer(200).body(MANIFEST),
        _ => challenge(&realm),
    })
    .await;
    let dir = tempfile::tempdir().expect("dir");
    let mut config = naming(&[&server.host]);
    config.docker_auth = Some(docker_config(&dir, &server.host));
    let result = manifest(&config, &server.host).await;
    refused(
        result,
        RegistryErrorKind::Denied,
        "token realm is http on another host",
    );
    // Naming the host as a registry is not enough.
    config
        .repos
        .insert(app(&service.host), RepoConfig::default());
    assert!(manifest(&config, &server.host).await.is_err());
    assert!(service.asked().is_empty());
    let token_hosts = vec![service.host.clone()];
    config.registries.insert(
        server.host.clone(),
        RegistryConfig {
            token_hosts,
            ..Default::default()
        },
    );
    manifest(&config, &server.host).await.expect("listed");
    assert_eq!(
        service.asked()[0].header("authorization"),
        Some("Basic dTpw")
    );
}

#[tokio::test]
async fn basic_is_sent_when_asked_for_and_remembered() {
    let server = Server::start(|asked, _| match asked.header("authorization") {
        Some("Basic dTpw") => answer(200).body(MANIFEST),
        _ => answer(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let denied = RegistryErrorKind::Denied;
    refused(
        manifest(&naming(&[&server.host]), &server.host).await,
        denied,
        "wants user name and password",
    );
    let dir = tempfile::tempdir().expect("dir");
    let mut config = naming(&[&server.host]);
    config.docker_auth = Some(docker_config(&dir, &server.host));
    let registries = client(&config);
    for _ in 0..2 {
        registries
            .manifest(&app(&server.host), &tag("t"))
            .await
            .expect("manifest");
    }
    let sent: Vec<_> = server
        .asked()
        .iter()
        .map(|a| a.header("authorization").is_some())
        .collect();
    assert_eq!(sent, [false, false, true, true]);
}

#[tokio::test]
async fn a_password_that_was_changed_is_used_at_once() {
    let dir = tempfile::tempdir().expect("dir");
    let current = Arc::new(std::sync::Mutex::new("Basic dTpw".to_owned()));
    let accepted = current.clone();
    let server = Server::start(move |asked, _| {
        if asked.header("authorization") == Some(accepted.lock().expect("lock").as_str()) {
            return answer(200).body(MANIFEST);
        }
        answer(401).header("WWW-Authenticate", "Basic realm=\"x\"")
    })
    .await;
    let mut config = naming(&[&server.host]);
    config.docker_auth = Some(docker_config(&dir, &server.host));
    let (registries, app) = (client(&config), app(&server.host));
    registries.manifest(&app, &tag("t")).await.expect("first");
    let text = format!(
        r#"{{"auths":{{"{}":{{"username":"u","password":"new"}}}}}}"#,
        server.host
    );
    write(&dir, &text);
    *current.lock().expect("lock") = "Basic dTpuZXc=".into();
    registries.manifest(&app, &tag("t")).await.expect("second");
    assert_eq!(server.asked().len(), 4);
}
