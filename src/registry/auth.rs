//! From a challenge to an `Authorization`: basic, or a token of the registry's token service,
//! kept until it runs out.

use super::challenge::Challenge;
use super::credentials::{Credential, secret_header};
use super::error::Failure;
use super::realm::{Realm, RealmRules, judge_realm};
use super::retry::refusal;
use super::site::Site;
use super::transport::Transport;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lifetime of a token that does not tell (distribution specification, token authentication).
const LIFETIME: u64 = 60;
/// Before its end by this much, or a quarter of its life, a token is not used any more.
const MARGIN: Duration = Duration::from_secs(10);
/// Repositories that are remembered.
const ENTRIES: usize = 4_096;
/// Bytes of a token service's answer.
const MAX_BYTES: u64 = 256 << 10;

/// An authorization and what it was given for.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) header: HeaderValue,
    credential: Option<Credential>,
    until: Option<Instant>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Grant>>>;

/// Authorizations by (host, repository).
#[derive(Default)]
pub(super) struct Tokens {
    /// Held for the look-up only; a slot's own lock is held while its token is fetched, so that
    /// many requests for one repository fetch one token.
    slots: Mutex<HashMap<(Arc<str>, String), Slot>>,
}

/// Whose authorization is wanted.
pub(super) struct Subject<'a> {
    pub(super) site: &'a Site,
    /// The repository's path on its host.
    pub(super) path: &'a str,
    pub(super) credential: Option<Credential>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    /// The authorization that still holds, if any.
    pub(super) async fn cached(&self, subject: &Subject<'_>) -> Option<HeaderValue> {
        let slot = self.slot(subject);
        let slot = slot.lock().await;
        slot.as_ref()
            .filter(|grant| grant.holds(subject))
            .map(|grant| grant.header.clone())
    }

    /// A new authorization in answer to `challenges`; the registry just refused `refused`.
    pub(super) async fn renew(
        &self,
        transport: &Transport,
        subject: &Subject<'_>,
        refused: Option<&HeaderValue>,
        challenges: &[Challenge],
    ) -> Result<HeaderValue, Failure> {
        let slot = self.slot(subject);
        let mut slot = slot.lock().await;
        if let Some(grant) = slot.as_ref().filter(|grant| grant.holds(subject))
            && Some(&grant.header) != refused
        {
            // Somebody else was quicker.
            return Ok(grant.header.clone());
        }
        *slot = None;
        let grant = grant(transport, subject, challenges).await?;
        let header = grant.header.clone();
        *slot = Some(grant);
        Ok(header)
    }

    fn slot(&self, subject: &Subject<'_>) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= ENTRIES {
            slots.clear();
        }
        slots
            .entry((subject.site.host.clone(), subject.path.to_owned()))
            .or_default()
            .clone()
    }
}

impl Grant {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        self.credential == subject.credential
            && self.until.is_none_or(|until| Instant::now() < until)
    }
}

async fn grant(
    transport: &Transport,
    subject: &Subject<'_>,
    challenges: &[Challenge],
) -> Result<Grant, Failure> {
    let find = |scheme: &str| {
        challenges
            .iter()
            .find(|challenge| challenge.scheme == scheme)
    };
    let credential = subject.credential.clone();
    if let Some(header) = credential.as_ref().and_then(Credential::bearer) {
        return Ok(Grant {
            header,
            credential,
            until: None,
        });
    }
    if let Some(challenge) = find("bearer") {
        return token(transport, subject, challenge).await;
    }
    if find("basic").is_none() {
        return Err(Failure::denied(
            "401 Unauthorized, with no challenge that we know (Basic, Bearer)",
        ));
    }
    match credential.as_ref().and_then(Credential::basic) {
        Some(header) => Ok(Grant {
            header,
            credential,
            until: None,
        }),
        None => Err(Failure::denied(
            "401 Unauthorized: it wants user name and password, and `dockerAuth` has none for this repository",
        )),
    }
}

/// Distribution specification, token authentication; with a refresh token, OAuth 2 (RFC 6749 §6).
async fn token(
    transport: &Transport,
    subject: &Subject<'_>,
    challenge: &Challenge,
) -> Result<Grant, Failure> {
    let site = subject.site;
    let rules = RealmRules {
        registry: site.base.authority(),
        plain: site.plain,
        token_hosts: &site.token_hosts,
        plain_hosts: transport.sites.plain_hosts(),
    };
    let realm = challenge.params.get("realm").map_or("", String::as_str);
    let realm = judge_realm(realm, &rules).map_err(Failure::denied)?;
    let credential = subject.credential.as_ref().filter(|_| realm.trusted);
    let withheld = subject.credential.is_some() && !realm.trusted;

    let request = token_request(&realm, subject.path, challenge, credential);
    let mut response = transport
        .send(site.ca.as_deref(), !realm.trusted, request)
        .await
        .map_err(at_service)?;
    let status = response.status();
    if status != StatusCode::OK {
        let mut failure = at_service(refusal(status, response.headers()));
        if withheld {
            let host = realm.url.host_str().unwrap_or_default();
            failure.text += &format!(
                " to an anonymous request; list {host:?} in `tokenHosts` if the credential may go there"
            );
        }
        return Err(match status.as_u16() {
            // A service that is not there says nothing about the image.
            404 | 410 => Failure::wrong(failure.text),
            400 => Failure::denied(failure.text),
            _ => failure,
        });
    }
    let bytes = transport
        .whole(&mut response, MAX_BYTES, "answer")
        .await
        .map_err(at_service)?;
    let wrong = |what: &str| Failure::wrong(format!("token service {what}"));
    let answer: TokenAnswer =
        serde_json::from_slice(&bytes).map_err(|_| wrong("gives an answer that is not one"))?;
    let text = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token);
    let text = text
        .filter(|token| !token.is_empty())
        .ok_or_else(|| wrong("gives no token"))?;
    let header = secret_header(&format!("Bearer {text}"))
        .ok_or_else(|| wrong("gives a token that cannot be sent"))?;
    let life = Duration::from_secs(
        answer
            .expires_in
            .filter(|s| *s > 0)
            .unwrap_or(LIFETIME)
            .min(86_400),
    );
    let until = Instant::now() + life - MARGIN.min(life / 4);
    Ok(Grant {
        header,
        credential: subject.credential.clone(),
        until: Some(until),
    })
}

fn token_request(
    realm: &Realm,
    path: &str,
    challenge: &Challenge,
    credential: Option<&Credential>,
) -> reqwest::Request {
    // What we need, not what the challenge says: no hostile registry gets a wider token.
    let scope = format!("repository:{path}:pull");
    let service = challenge.params.get("service").map(String::as_str);
    let mut url = realm.url.clone();
    if let Some(Credential::Identity(refresh)) = credential {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh);
        form.append_pair("client_id", "blobserve")
            .append_pair("scope", &scope);
        form.append_pair("service", service.unwrap_or_default());
        let mut request = reqwest::Request::new(Method::POST, url);
        *request.body_mut() = Some(form.finish().into());
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        return request;
    }
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut().append_pair("scope", &scope);
    if let Some(Credential::Basic { username, .. }) = credential {
        url.query_pairs_mut().append_pair("account", username);
    }
    let mut request = reqwest::Request::new(Method::GET, url);
    if let Some(basic) = credential.and_then(Credential::basic) {
        request.headers_mut().insert(header::AUTHORIZATION, basic);
    }
    request
}

fn at_service(mut failure: Failure) -> Failure {
    failure.text.insert_str(0, "token service: ");
    failure
}
