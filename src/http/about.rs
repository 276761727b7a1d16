//! What is answered about an image instead of its files: `<reference>/?manifest=1` and
//! `<reference>/?referrers=1`, as JSON, where the configuration lets them be. Queries act on the reference
//! itself only; anywhere else, and where they are not let, they say nothing, as any query of a file.
//!
//! Never immutable, not even of a digest: which manifest an index leads to is for the configuration to say
//! (`platform`), and how it is written for this program. A strong ETag makes asking again cheap.

use super::access::Visit;
use super::body::Body;
use super::error;
use super::fields;
use super::hosts::Serves;
use super::listing::Rendered;
use super::repr_digest;
use super::represent::{JSON, Representation};
use super::serve::{self, Serve};
use crate::images::{About, Ask, ImageError, ViewInfo};
use crate::reference::Reference;
use http::Response;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What is asked about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What does its manifest say?
    Manifest,
    /// What refers to it? Of this type only, if there is one.
    Referrers(Option<String>),
}

/// The question in a URL: `path` as it stands behind the reference. None: a file is asked for.
pub(super) fn question(path: &str, query: Option<&str>) -> Option<Question> {
    let query = query?;
    if !matches!(path, "" | "/") {
        return None;
    }
    let (mut manifest, mut referrers, mut artifact_type) = (false, false, None);
    for part in query.split('&') {
        match part.split_once('=').unwrap_or((part, "")) {
            ("manifest", "1") => manifest = true,
            ("referrers", "1") => referrers = true,
            // A plus is a plus: media types have many, and no space.
            ("artifactType", value) => {
                let value = percent_decode_str(value).decode_utf8_lossy();
                artifact_type = Some(value.into_owned()).filter(|value| !value.is_empty());
            }
            _ => {}
        }
    }
    match (manifest, referrers) {
        (true, _) => Some(Question::Manifest),
        (_, true) => Some(Question::Referrers(artifact_type)),
        _ => None,
    }
}

impl Serve {
    /// The answer to a question about an image; waits until the deadline. It is given where it is asked,
    /// also where images have origins of their own: nothing in JSON is run, and an origin's label would be
    /// kept for a digest that nobody has shown to be there.
    ///
    /// # Errors
    /// The answer that says why not.
    pub(super) async fn tell(
        &self,
        question: Question,
        reference: &Reference,
        ask: Ask,
        serves: &Serves<'_>,
        request: &Parts,
    ) -> Result<Response<Body>, Response<Body>> {
        if let Some(visit) = Visit::of(&request.extensions) {
            visit.waits();
        }
        let telling = self.told(question, reference, ask);
        let outcome = match self.timeout {
            None => telling.await.map_err(|failed| error::image(&failed)),
            // What was asked of a registry goes on.
            Some(deadline) => match tokio::time::timeout(deadline, telling).await {
                Ok(outcome) => outcome.map_err(|failed| error::image(&failed)),
                Err(_) => Err(error::timeout()),
            },
        };
        let answer = match outcome {
            Ok((mut info, rendered)) => {
                match serves {
                    Serves::Image(host) => info = host.shown.info(&info),
                    Serves::Origin(label) if !info.origin => return Err(serve::no_origin(label)),
                    Serves::Origin(_) | Serves::Paths => {}
                }
                self.sent(&info, rendered, request).await
            }
            Err(response) => Err(response),
        };
        let (Ok(mut response) | Err(mut response)) = answer;
        if let Some(site) = self.site(serves, reference) {
            fields::of_configuration(&mut response, site, &request.headers, false);
        }
        Ok(response)
    }

    /// What is told, and what decides how that is sent.
    async fn told(
        &self,
        question: Question,
        reference: &Reference,
        ask: Ask,
    ) -> Result<(Arc<ViewInfo>, Rendered), ImageError> {
        match question {
            Question::Manifest => {
                let (info, about) = self.images.about(reference, ask).await?;
                let reference = reference.to_string();
                let rendered = rendered(move || {
                    json(&Manifest {
                        reference: &reference,
                        about: &about,
                    })
                });
                Ok((info, rendered.await?))
            }
            Question::Referrers(artifact_type) => {
                let asking = self.images.referrers(reference, ask, artifact_type);
                let (info, referrers) = asking.await?;
                Ok((info, rendered(move || json(&referrers)).await?))
            }
        }
    }

    async fn sent(
        &self,
        info: &Arc<ViewInfo>,
        rendered: Rendered,
        request: &Parts,
    ) -> Result<Response<Body>, Response<Body>> {
        let (method, headers) = (&request.method, &request.headers);
        let answer = Representation::of_listing(info, rendered, JSON);
        let hashed = repr_digest::wanted(headers, info).then(|| answer.content());
        let mut response = answer.answer(method, headers).await?;
        if let Some(content) = hashed {
            repr_digest::put(&mut response, content, self.images.integrity()).await;
        }
        Ok(response)
    }
}

/// What is told of a manifest.
#[derive(Serialize)]
struct Manifest<'a> {
    /// As asked for, canonical.
    reference: &'a str,
    #[serde(flatten)]
    about: &'a About,
}

/// Laid out, for people too.
fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// Off the reactor, and a few at once: a manifest may have some megabytes.
async fn rendered(
    write: impl FnOnce() -> serde_json::Result<String> + Send + 'static,
) -> Result<Rendered, ImageError> {
    static TURNS: Semaphore = Semaphore::const_new(4);
    // It is never closed.
    let _turn = TURNS.acquire().await.ok();
    let text = tokio::task::spawn_blocking(move || write().map(Rendered::from)).await;
    match text {
        Ok(Ok(rendered)) => Ok(rendered),
        _ => Err(ImageError::Internal("writing JSON ended abnormally".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_of_the_reference_itself_and_by_its_exact_words() {
        let all = Some(Question::Referrers(None));
        let of = |artifact_type: &str| Some(Question::Referrers(Some(artifact_type.into())));
        for (path, query, expected) in [
            ("/", Some("manifest=1"), Some(Question::Manifest)),
            ("", Some("manifest=1"), Some(Question::Manifest)),
            ("/", Some("v=3&manifest=1&x"), Some(Question::Manifest)),
            (
                "/",
                Some("referrers=1&manifest=1"),
                Some(Question::Manifest),
            ),
            ("/", Some("manifest=1&manifest=0"), Some(Question::Manifest)),
            ("/", Some("referrers=1"), all.clone()),
            ("/", Some("referrers=1&artifactType="), all.clone()),
            ("/", Some("artifactType=a/b%2Bc&referrers=1"), of("a/b+c")),
            (
                "/",
                Some("artifactType=a&referrers=1&artifactType=a/b+c"),
                of("a/b+c"),
            ),
            ("/", Some("artifactType=%ff&referrers=1"), of("\u{fffd}")),
            ("/", Some("artifactType=a/b"), None),
            ("/", None, None),
            ("/", Some(""), None),
            ("/", Some("manifest"), None),
            ("/", Some("manifest=true"), None),
            ("/", Some("Manifest=1"), None),
            ("/", Some("manifest%3D1"), None),
            ("/index.html", Some("manifest=1"), None),
            ("/docs/", Some("referrers=1"), None),
            ("//", Some("manifest=1"), None),
        ] {
            assert_eq!(question(path, query), expected, "{path} {query:?}");
        }
    }
}
