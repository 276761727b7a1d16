//! What may be contacted: redirects, private addresses, TLS.

use super::*;

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_without_the_authorization() {
    let storage = Server::start(|_, _| answer(200).body("layer")).await;
    let to = format!("http://{}/signed?x=1", storage.host);
    let registry = Server::start(move |asked, _| match asked.header("authorization") {
        Some("Basic dTpw") => answer(307).header("Location", &to),
        _ => answer(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    let dir = tempfile::tempdir().expect("dir");
    let mut config = naming(&[&registry.host, &storage.host]);
    config.docker_auth = Some(auth::docker_config(&dir, &registry.host));
    let registries = client(&config);
    let mut blob = registries
        .blob(&app(&registry.host), &descriptor(b"layer"), &[])
        .await
        .expect("blob");
    assert_eq!(
        blob.next().await.expect("piece").as_deref(),
        Some(&b"layer"[..])
    );
    assert_eq!(storage.lines(), ["GET /signed?x=1"]);
    assert_eq!(storage.asked()[0].header("authorization"), None);
}

#[tokio::test]
async fn redirects_do_not_reach_what_is_not_named_nor_go_on_for_ever() {
    let inside = Server::start(|_, _| answer(200).body("secret")).await;
    let denied = RegistryErrorKind::Denied;
    let table = [
        (
            format!("http://{}/x", inside.host),
            denied,
            "private or special",
        ),
        (
            format!("http://localhost:{}/x", inside.port()),
            denied,
            "private or special",
        ),
        (
            format!("http://[::ffff:127.0.0.1]:{}/x", inside.port()),
            denied,
            "without TLS",
        ),
        (
            "http://169.254.169.254/latest/meta-data".into(),
            denied,
            "without TLS",
        ),
        (
            "https://169.254.169.254/latest/meta-data".into(),
            denied,
            "private or special",
        ),
        ("https://[fe80::1]/".into(), denied, "private or special"),
        ("http://registry.example.com/".into(), denied, "without TLS"),
        (
            "file:///etc/passwd".into(),
            RegistryErrorKind::Wrong,
            "no usable Location",
        ),
        (
            "/v2/team/app/manifests/t".into(),
            RegistryErrorKind::Wrong,
            "more than 5 redirects",
        ),
    ];
    for (target, kind, text) in table {
        let registry = {
            let target = target.clone();
            Server::start(move |_, _| answer(302).header("Location", &target)).await
        };
        refused(
            manifest(&naming(&[&registry.host]), &registry.host).await,
            kind,
            text,
        );
        assert!(registry.asked().len() <= 6, "{target}");
    }
    assert!(inside.asked().is_empty(), "{:?}", inside.lines());
}

#[tokio::test]
async fn private_hosts_are_contacted_only_when_named_or_allowed() {
    let server = Server::start(|_, _| answer(200).body(MANIFEST)).await;
    let name = format!("localhost:{}", server.port());
    refused(
        manifest(&config(), &server.host).await,
        RegistryErrorKind::Denied,
        "private or special",
    );
    refused(
        manifest(&config(), &name).await,
        RegistryErrorKind::Denied,
        "private or special",
    );
    refused(
        manifest(&naming(&["other.example"]), &name).await,
        RegistryErrorKind::Denied,
        "private",
    );
    assert!(server.asked().is_empty());
    assert!(manifest(&naming(&[&name]), &name).await.is_ok());
    let mut open = config();
    open.allow_private = true;
    assert!(manifest(&open, &server.host).await.is_ok());
    let mut listed = config();
    listed
        .registries
        .insert(name.clone(), RegistryConfig::default());
    assert!(manifest(&listed, &name).await.is_ok());
}

type Issuer = rcgen::Issuer<'static, rcgen::KeyPair>;

/// A CA: what signs, and its certificate.
fn authority(names: &[&str]) -> (Issuer, rcgen::Certificate) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).expect("names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("key");
    let certificate = params.self_signed(&key).expect("certificate");
    (Issuer::new(params, key), certificate)
}

/// A TLS server with this certificate.
async fn tls_server(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Server {
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("key");
    let tls = tokio_rustls::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("certificate");
    Server::serve(Some(Arc::new(tls).into()), |_, _| {
        answer(200).body(MANIFEST)
    })
    .await
}

#[tokio::test]
async fn a_private_ca_is_trusted_for_its_registry_only() {
    let (issuer, ca) = authority(&[]);
    let key = rcgen::KeyPair::generate().expect("key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = rcgen::CertificateParams::new(names).expect("names");
    let leaf = leaf.signed_by(&key, &issuer).expect("leaf");
    let server = tls_server(&leaf, &key).await;

    let dir = tempfile::tempdir().expect("dir");
    let pem = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        RegistryConfig {
            ca: Some(path),
            ..Default::default()
        }
    };
    let (name, address) = (format!("localhost:{}", server.port()), &server.host);
    let mut config = naming(&[&name, address]);
    config
        .registries
        .insert(name.clone(), pem("ca.pem", &ca.pem()));
    config
        .registries
        .insert(address.clone(), pem("other.pem", &authority(&[]).1.pem()));
    let registries = client(&config);
    assert!(registries.manifest(&app(&name), &tag("t")).await.is_ok());
    let wrong = RegistryErrorKind::Wrong;
    let result = registries.manifest(&app(address), &tag("t")).await;
    refused(result, wrong, "put the PEM file of a private CA into `ca`");

    // Loopback without a ca is plain HTTP, which this server does not speak.
    config.registries.clear();
    assert!(manifest(&config, &name).await.is_err());
    config
        .registries
        .insert(name.clone(), pem("none.pem", "no certificate"));
    let error = Registries::new(&config, Arc::new(Metrics::new()))
        .err()
        .expect("refused");
    assert!(
        error.to_string().contains("holds no PEM certificate"),
        "{error}"
    );

    let (issuer, own) = authority(&["localhost"]);
    let server = tls_server(&own, issuer.key()).await;
    let name = format!("localhost:{}", server.port());
    let mut config = naming(&[&name]);
    config
        .registries
        .insert(name.clone(), pem("own.pem", &own.pem()));
    refused(
        manifest(&config, &name).await,
        wrong,
        "a CA's own certificate",
    );
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let dir = tempfile::tempdir().expect("dir");
    let pem = dir.path().join("ca.pem");
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("key");
    std::fs::write(&pem, key.cert.pem()).expect("write");
    let mut config = naming(&[&host]);
    let settings = RegistryConfig {
        ca: Some(pem),
        ..Default::default()
    };
    config.registries.insert(host.clone(), settings);
    let result = manifest(&config, &host).await;
    refused(result, RegistryErrorKind::Wrong, "does not speak TLS");
}
