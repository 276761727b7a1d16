//! What a directory answers where listings are on.

use super::archive::Archives;
use super::body::Body;
use super::conditional;
use super::error;
use super::fields;
use super::listing::{
    self, Directory, Format, Key, Line, Listings, Options, Query, Rendered, accept,
};
use super::path;
use super::repr_digest;
use super::represent::{HTML, JSON, Representation};
use super::serve::Serve;
use crate::digest::Digest;
use crate::images::{DirectoryNode, FileNode, ImageError, Node, View};
use crate::rules::Rules;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use std::sync::Arc;

/// What answers of directories share. One per listener.
pub(super) struct Directories {
    listings: Listings,
    archives: Archives,
}

/// Where a directory is, for the URL that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Above<'a> {
    /// Cleaned, below the reference.
    pub(super) path: &'a [u8],
    /// As it stood in the URL.
    pub(super) raw: &'a str,
}

impl Directories {
    pub(super) fn new() -> Directories {
        Directories {
            listings: Listings::new(),
            archives: Archives::new(),
        }
    }

    /// # Errors
    /// The answer that says why not.
    pub(super) async fn answer(
        &self,
        serve: &Serve,
        view: &View,
        directory: DirectoryNode,
        above: Above<'_>,
        query: Query,
        request: &Parts,
    ) -> Result<Response<Body>, Response<Body>> {
        let info = &view.info;
        if let Some(format) = query.download {
            let own = above.path.rsplit(|byte| *byte == b'/').next();
            let repository = info.reference.repository.path().rsplit('/').next();
            let name = match own {
                None | Some(b"") => repository.unwrap_or_default().as_bytes(),
                Some(name) => name,
            };
            let root = (directory, above.path.to_vec());
            let (rules, head) = (info.rules.clone(), request.method == Method::HEAD);
            let answer = self.archives.answer(root, rules, name, format, head);
            return answer.await;
        }
        let format = query
            .format
            .unwrap_or_else(|| match accept::prefers_json(&request.headers) {
                true => Format::Json,
                false => Format::Html,
            });
        let options = Options {
            format,
            sort: query.sort,
            descending: query.descending,
            integrity: query.integrity,
        };
        let key = Key {
            repository: info.reference.repository.clone(),
            digest: info.digest,
            workdir: info.workdir.clone(),
            path: above.path.to_vec(),
            depth: path::depth(above.raw),
            hidden: (info.rules.redirects.is_some(), info.rules.headers.is_some()),
            options,
        };
        let rendered = match self.listings.known(&key) {
            Some(rendered) => rendered,
            None => {
                let listing = self.listing(serve, view, directory, key);
                // What was hashed by the deadline is remembered.
                match serve.timeout {
                    None => listing.await?,
                    Some(deadline) => tokio::time::timeout(deadline, listing)
                        .await
                        .map_err(|_| error::timeout())??,
                }
            }
        };
        let content_type = match format {
            Format::Html => HTML,
            Format::Json => JSON,
        };
        let listing = Representation::of_listing(info, rendered, content_type);
        let hashed = repr_digest::wanted(&request.headers, info).then(|| listing.content());
        let mut response = listing.answer(&request.method, &request.headers).await?;
        if let Some(content) = hashed {
            repr_digest::put(&mut response, content, serve.images.integrity()).await;
        }
        let status = response.status();
        let headers = response.headers_mut();
        if query.format.is_none() {
            fields::vary(headers, "Accept");
        }
        if format == Format::Html && (status.is_success() || status == StatusCode::NOT_MODIFIED) {
            headers.insert(header::CONTENT_SECURITY_POLICY, listing::policy());
        }
        Ok(response)
    }

    async fn listing(
        &self,
        serve: &Serve,
        view: &View,
        directory: DirectoryNode,
        key: Key,
    ) -> Result<Rendered, Response<Body>> {
        let turn = self.listings.turn().await;
        // Others have asked for the same, perhaps.
        if let Some(rendered) = self.listings.known(&key) {
            return Ok(rendered);
        }
        let (path, rules) = (key.path.clone(), view.info.rules.clone());
        let lines = elsewhere(move || lines(&directory, &path, &rules)).await?;
        let lines = lines.ok_or_else(error::unreadable)?;
        let (mut lines, files): (Vec<Line>, Vec<_>) = lines.into_iter().unzip();
        if key.options.integrity {
            // Hashing is in turns of its own, and may take long.
            drop(turn);
            let wanted = files.iter().flatten().cloned().collect();
            let digests = serve.images.integrity().sha256_of_all(wanted).await;
            let digests = digests.map_err(|failed: ImageError| error::image(&failed))?;
            let of_files = lines.iter_mut().zip(&files);
            let of_files = of_files.filter(|(_, file)| file.is_some());
            for ((line, _), digest) in of_files.zip(digests) {
                line.integrity = Some(integrity(&digest));
            }
        }
        let (rendered, key) = elsewhere(move || {
            let directory = Directory {
                path: &key.path,
                depth: key.depth,
            };
            let text = listing::render(directory, key.options, &mut lines);
            (Rendered::from(text), key)
        })
        .await?;
        self.listings.remember(key, rendered.clone());
        Ok(rendered)
    }
}

/// W3C Subresource Integrity §3.1.
fn integrity(digest: &Digest) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(digest.bytes()))
}

/// A line, and the file that it is of.
type Listed = (Line, Option<Arc<FileNode>>);

/// What is listed: what would be served. None: the disk cannot read the index. Blocking.
fn lines(directory: &DirectoryNode, path: &[u8], rules: &Rules) -> Option<Vec<Listed>> {
    let children = directory.children();
    if directory.poisoned() {
        return None;
    }
    let served = children
        .into_iter()
        .filter(|child| !rules.hide(&path::join(path, &child.name)));
    let lines = served.map(|child| {
        let file = match child.node {
            Node::File(file) => Some(Arc::new(file)),
            Node::Directory(_) => None,
        };
        let line = Line {
            name: child.name,
            directory: file.is_none(),
            length: file.as_ref().map_or(0, |file| file.length),
            mtime: child.mtime.filter(|mtime| conditional::told(*mtime)),
            integrity: None,
        };
        (line, file)
    });
    Some(lines.collect())
}

/// Computes off the reactor.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response<Body>> {
    tokio::task::spawn_blocking(work).await.map_err(|failed| {
        tracing::error!(error = %failed, "listing a directory failed");
        error::unreadable()
    })
}
