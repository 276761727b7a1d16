//! Lists of referrers: OCI distribution specification, "Listing Referrers".

use super::Inner;
use super::answer::{Body, full, plain};
use crate::support::image::sha256;
use http::{Response, header};
use serde_json::{Value, json};

/// Whether and how a registry lists referrers.
#[derive(Clone, Debug, Default)]
pub enum Lists {
    /// It has no such endpoint: 404.
    #[default]
    Never,
    /// All at once.
    Whole,
    /// So many a page, with `Link` to the next.
    Pages(usize),
    /// Each page links to itself, and holds nothing.
    Endless,
    /// The next page is at this URL.
    Elsewhere(String),
    /// A page for people, whatever the path.
    Html,
    /// Another status.
    Status(u16),
}

impl Inner {
    /// The answer; `bytes` instead of what is true.
    pub(super) fn referrers(
        &self,
        repository: &str,
        digest: &str,
        path: &str,
        bytes: Option<&[u8]>,
    ) -> Response<Body> {
        let state = self.state();
        let of_repository = state
            .manifests
            .iter()
            .filter(|((name, _), _)| name == repository);
        let mut found: Vec<Value> = of_repository
            .filter(|((_, version), _)| version.starts_with("sha256:"))
            .filter_map(|(_, (media_type, bytes))| referrer(media_type, bytes, digest))
            .collect();
        // Newest first, or whatever: clients may not rely on an order.
        found.sort_by_key(|entry| std::cmp::Reverse(entry["digest"].to_string()));
        let page = path.split_once("page=").map_or("0", |(_, page)| page);
        let page: usize = page.split('&').next().unwrap_or(page).parse().unwrap_or(0);
        let own = path.split('?').next().unwrap_or(path);
        let mut link = None;
        match &state.lists {
            Lists::Never => return plain(404, "404 page not found"),
            Lists::Status(code) => return plain(*code, "{}"),
            Lists::Whole => {}
            Lists::Pages(size) => {
                if (page + 1) * size < found.len() {
                    link = Some(format!("{own}?page={}&artifactType=", page + 1));
                }
                found = found.into_iter().skip(page * size).take(*size).collect();
            }
            Lists::Endless => {
                found.clear();
                link = Some(format!("{own}?page=7"));
            }
            Lists::Elsewhere(url) => link = Some(url.clone()),
            Lists::Html => {
                let page = Response::builder().header(header::CONTENT_TYPE, "text/html");
                return page.body(full("<html>")).expect("valid headers");
            }
        }
        let index = "application/vnd.oci.image.index.v1+json";
        let list = json!({"schemaVersion": 2, "mediaType": index, "manifests": found}).to_string();
        let mut answer = Response::builder().header(header::CONTENT_TYPE, index);
        if let Some(link) = link {
            answer = answer.header(header::LINK, format!("<{link}>; rel=\"next\""));
        }
        let body = bytes.map_or(list.into_bytes(), <[u8]>::to_vec);
        answer.body(full(body)).expect("valid headers")
    }
}

/// The descriptor of a manifest, if it refers to `digest`.
fn referrer(media_type: &str, bytes: &[u8], digest: &str) -> Option<Value> {
    let manifest: Value = serde_json::from_slice(bytes).ok()?;
    if manifest["subject"]["digest"] != digest {
        return None;
    }
    let mut entry = json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()});
    entry["artifactType"] = match &manifest["artifactType"] {
        Value::Null => manifest["config"]["mediaType"].clone(),
        said => said.clone(),
    };
    if manifest["annotations"].is_object() {
        entry["annotations"] = manifest["annotations"].clone();
    }
    Some(entry)
}
