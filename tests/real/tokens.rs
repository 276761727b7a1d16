//! A token service as the distribution specification has it, for docker-registry: RS256 with `x5c`.
//! OpenSSL signs.

use crate::binary::text;
use crate::parts::run;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who it says it is.
pub const ISSUER: &str = "token service of the tests";
/// What its tokens are for.
pub const SERVICE: &str = "registry of the tests";
/// The user that gets tokens, and the password.
pub const USER: (&str, &str) = ("reader", "p@ss:word");

/// A running token service; ends with the test's runtime.
pub struct Tokens {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it signs with, for the registry's `rootcertbundle`.
    pub certificate: PathBuf,
    shared: Arc<Shared>,
    _directory: tempfile::TempDir,
}

struct Shared {
    key: PathBuf,
    /// DER, base64.
    certificate: String,
    /// `scope` of each token given out, in order.
    issued: Mutex<Vec<String>>,
}

impl Tokens {
    /// Makes a key and starts.
    pub async fn start() -> Tokens {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
        let parameters = rcgen::CertificateParams::new(vec!["tokens.test".to_owned()]);
        let certificate = parameters
            .expect("a name")
            .self_signed(&pair)
            .expect("a certificate");
        let (key, pem) = (
            directory.path().join("key.pem"),
            directory.path().join("certificate.pem"),
        );
        std::fs::write(&key, pair.serialize_pem()).expect("written");
        std::fs::write(&pem, certificate.pem()).expect("written");
        let shared = Arc::new(Shared {
            key,
            certificate: STANDARD.encode(certificate.der()),
            issued: Mutex::new(Vec::new()),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Tokens {
            address,
            certificate: pem,
            shared,
            _directory: directory,
        }
    }

    /// Its URL, for the registry's `realm`.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Scopes of the tokens given out since this was last asked.
    pub fn take_issued(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.issued.lock().expect("a list"))
    }
}

/// `GET /token?service=…&scope=…`, as the password's owner.
async fn answer(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let expected = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", USER.0, USER.1))
    );
    if headers
        .get(header::AUTHORIZATION)
        .is_none_or(|value| value.as_bytes() != expected.as_bytes())
    {
        return (StatusCode::UNAUTHORIZED, "who is it?").into_response();
    }
    let query = query.unwrap_or_default();
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    if !pairs.contains(&("service".to_owned(), SERVICE.to_owned())) {
        return (StatusCode::BAD_REQUEST, "another service").into_response();
    }
    let scopes: Vec<_> = pairs
        .iter()
        .filter(|(name, _)| name == "scope")
        .flat_map(|(_, value)| value.split(' '))
        .collect();
    shared.issued.lock().expect("a list").push(scopes.join(" "));
    let token = tokio::task::spawn_blocking({
        let scopes: Vec<Value> = scopes.iter().filter_map(|scope| access(scope)).collect();
        move || sign(&shared, &scopes)
    });
    let body = json!({"token": token.await.expect("signed"), "expires_in": 300}).to_string();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// `repository:team/app:pull,push` as a claim.
fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
}

fn sign(shared: &Shared, access: &[Value]) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [shared.certificate]});
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": USER.0, "jti": format!("{now}"),
        "iat": now, "nbf": now - 10, "exp": now + 300, "access": access,
    });
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = run(
        "openssl",
        &["dgst", "-sha256", "-sign", text(&shared.key)],
        signed.as_bytes(),
    );
    format!("{signed}.{}", encode(&signature))
}
