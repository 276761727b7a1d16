//! The content of a docker `config.json`.

use super::Credential;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use std::collections::HashMap;

/// A parsed file. Keys are `host[:port]` or `host[:port]/path` in lower case, Docker Hub's
/// spelled `docker.io`.
#[derive(Clone, Default)]
pub(super) struct DockerConfig {
    auths: HashMap<String, Credential>,
    helpers: HashMap<String, String>,
    store: Option<String>,
    /// The warning that there is no such file was given.
    missing: bool,
}

/// Where a credential comes from.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// There is none.
    Nothing,
    /// In the file.
    Credential(Credential),
    /// `docker-credential-<name>` knows.
    Helper(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    auths: Option<HashMap<String, Option<RawAuth>>>,
    cred_helpers: Option<HashMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct RawAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// The error names the place, never a value.
    pub(super) fn parse(bytes: &[u8]) -> Result<DockerConfig, String> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
            format!(
                "is not a docker config.json (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        let mut config = DockerConfig::default();
        let mut auths: Vec<_> = raw.auths.unwrap_or_default().into_iter().collect();
        // Two spellings of one host: the same one wins in every process.
        auths.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, auth) in auths {
            if let Some(credential) = auth.as_ref().and_then(credential) {
                config.auths.insert(normal(&key), credential);
            }
        }
        for (key, helper) in raw.cred_helpers.unwrap_or_default() {
            config.helpers.insert(normal(&key), helper);
        }
        config.store = raw.creds_store.filter(|store| !store.is_empty());
        Ok(config)
    }

    /// What the file says of repository `path` on `host`: the longest key that is a prefix of it.
    /// Docker's order: the host's helper, what the file holds, the store.
    pub(super) fn find(&self, host: &str, path: &str) -> Found {
        if let Some(helper) = self.helpers.get(host) {
            return Found::Helper(helper.clone());
        }
        let full = format!("{host}/{path}");
        let ends = full
            .match_indices('/')
            .map(|(end, _)| end)
            .chain([full.len()]);
        let mut prefixes: Vec<&str> = ends.map(|end| &full[..end]).collect();
        prefixes.reverse();
        if let Some(credential) = prefixes.iter().find_map(|prefix| self.auths.get(*prefix)) {
            return Found::Credential(credential.clone());
        }
        self.store.clone().map_or(Found::Nothing, Found::Helper)
    }

    pub(super) fn missing_was_told(&self) -> bool {
        self.missing
    }

    pub(super) fn told_missing(&self) -> DockerConfig {
        DockerConfig {
            missing: true,
            ..self.clone()
        }
    }
}

fn credential(raw: &RawAuth) -> Option<Credential> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = given(&raw.identitytoken) {
        return Some(Credential::Identity(token));
    }
    if let Some(token) = given(&raw.registrytoken) {
        return Some(Credential::Bearer(token));
    }
    if let Some(auth) = given(&raw.auth)
        && let Some((username, password)) = decode(&auth)
    {
        // `az acr login` and others put the refresh token here.
        return Some(match username.as_str() {
            "<token>" => Credential::Identity(password),
            _ => Credential::Basic { username, password },
        });
    }
    let (username, password) = (given(&raw.username)?, given(&raw.password)?);
    Some(Credential::Basic { username, password })
}

/// `user:password` in base64, with or without padding.
fn decode(auth: &str) -> Option<(String, String)> {
    let lax = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, lax)
        .decode(auth.trim())
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker's own tools pad the secret with NULs.
    Some((
        username.to_owned(),
        password.trim_end_matches('\0').to_owned(),
    ))
}

/// `https://index.docker.io/v1/`, `HOST/v2/`, `host` → `docker.io`, `host`, `host`.
fn normal(key: &str) -> String {
    let key = key.trim().to_ascii_lowercase();
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(&key);
    let key = key.trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    let (host, path) = key
        .split_once('/')
        .map_or((key, None), |(host, path)| (host, Some(path)));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    };
    path.map_or(host.to_owned(), |path| format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Found {
        let (username, password) = (username.to_owned(), password.to_owned());
        Found::Credential(Credential::Basic { username, password })
    }

    #[test]
    fn keys_in_all_their_spellings_find_their_host() {
        // `dTpw` is base64 of u:p.
        let table = [
            (
                r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#,
                "docker.io",
                basic("u", "p"),
            ),
            (
                r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#,
                "docker.io",
                basic("u", "p"),
            ),
            (
                r#"{"auths":{"https://r.example":{"auth":"dTpw"}}}"#,
                "r.example",
                basic("u", "p"),
            ),
            (
                r#"{"auths":{"r.example/v1/":{"auth":"dTpw"}}}"#,
                "r.example",
                basic("u", "p"),
            ),
            (
                r#"{"auths":{"http://R.example:5000/v2/":{"auth":"dTpw"}}}"#,
                "r.example:5000",
                basic("u", "p"),
            ),
            (
                r#"{"auths":{"r.example:5000":{"auth":"dTpw"}}}"#,
                "r.example",
                Found::Nothing,
            ),
            (
                r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#,
                "evil.r.example",
                Found::Nothing,
            ),
            (
                r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#,
                "r.example.evil",
                Found::Nothing,
            ),
            (
                r#"{"auths":{"r.example":{"username":"a","password":"b"}}}"#,
                "r.example",
                basic("a", "b"),
            ),
            (
                r#"{"auths":{"r.example":{"auth":"dTpwOnE="}}}"#,
                "r.example",
                basic("u", "p:q"),
            ),
            (
                r#"{"auths":{"r.example":{"auth":"dTpwOnE"}}}"#,
                "r.example",
                basic("u", "p:q"),
            ),
            (r#"{"auths":{"r.example":{}}}"#, "r.example", Found::Nothing),
            (
                r#"{"auths":{"r.example":null}}"#,
                "r.example",
                Found::Nothing,
            ),
            (
                r#"{"auths":{"r.example":{"auth":"%%%"}}}"#,
                "r.example",
                Found::Nothing,
            ),
            (
                r#"{"auths":{"r.example":{"auth":"dTpw","identitytoken":"t"}}}"#,
                "r.example",
                Found::Credential(Credential::Identity("t".into())),
            ),
            (
                r#"{"auths":{"r.example":{"registrytoken":"t"}}}"#,
                "r.example",
                Found::Credential(Credential::Bearer("t".into())),
            ),
            (
                r#"{"auths":{"r.example":{},"r.example/team":{"auth":"dTpw"}}}"#,
                "r.example",
                basic("u", "p"),
            ),
            (
                r#"{"auths":{"r.example/tea":{"auth":"dTpw"}}}"#,
                "r.example",
                Found::Nothing,
            ),
            (
                r#"{"credHelpers":{"r.example":"ecr"},"auths":{"r.example":{"auth":"dTpw"}}}"#,
                "r.example",
                Found::Helper("ecr".into()),
            ),
            (
                r#"{"credsStore":"pass","auths":{"r.example":{}}}"#,
                "r.example",
                Found::Helper("pass".into()),
            ),
            (
                r#"{"credsStore":"pass","auths":{"r.example":{"auth":"dTpw"}}}"#,
                "r.example",
                basic("u", "p"),
            ),
            ("{}", "r.example", Found::Nothing),
        ];
        for (text, host, expected) in table {
            let config = DockerConfig::parse(text.as_bytes()).expect(text);
            let found = config.find(host, "team/app");
            assert!(found == expected, "{text} for {host}");
        }
    }

    #[test]
    fn a_broken_file_is_an_error_that_quotes_nothing() {
        let error = DockerConfig::parse(br#"{"auths":{"r":{"auth":"c2VjcmV0"#)
            .err()
            .expect("broken");
        assert!(
            !error.contains("c2VjcmV0") && error.contains("line 1"),
            "{error}"
        );
        let error = DockerConfig::parse(br#"{"auths":"c2VjcmV0"}"#)
            .err()
            .expect("wrong type");
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}
