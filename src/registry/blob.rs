//! A download as it runs: pieces, stalls, and torn connections resumed by Range.

use super::client::{Call, Client};
use super::error::Failure;
use super::layout::FileBlob;
use super::retry::refusal;
use super::site::Site;
use super::{RegistryError, RegistryErrorKind};
use crate::oci::Descriptor;
use crate::reference::Repository;
use bytes::Bytes;
use http::{Method, StatusCode, header};
use reqwest::Response;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// How often one download is resumed.
const RESUMES: u32 = 5;

/// What is downloaded, and from where.
#[derive(Clone)]
struct Download {
    client: Arc<Client>,
    repository: Repository,
    descriptor: Descriptor,
    /// Mirrors that are not asked.
    avoided: Vec<Arc<str>>,
}

/// The answer that bytes come from.
struct Opened {
    response: Response,
    /// Bytes to drop first: the source does not do ranges.
    skip: u64,
    site: Box<Site>,
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, RegistryError>> + Send>>;

enum State {
    Reading(Opened),
    /// Kept here, not in `next`, so that a `next` that is dropped loses nothing.
    Opening(Opening),
    File(FileBlob),
    Done,
}

/// See [`super::Blob`].
pub(super) struct Stream {
    download: Option<Download>,
    state: State,
    /// Bytes still to return: one more than the size, so that a blob that is longer shows.
    left: u64,
    returned: u64,
    resumes: u32,
    /// When waiting for the next byte ends; set at the first wait for it, so that the time
    /// in which nobody asked does not count.
    deadline: Option<Instant>,
    /// Mirrors that gave bytes.
    mirrors: Vec<Arc<str>>,
}

impl Stream {
    /// Starts a download; returns when the headers are there.
    pub(super) async fn start(
        client: Arc<Client>,
        repository: Repository,
        descriptor: Descriptor,
        avoided: Vec<Arc<str>>,
    ) -> Result<Stream, RegistryError> {
        let left = descriptor.size.saturating_add(1);
        let download = Download {
            client,
            repository,
            descriptor,
            avoided,
        };
        let opened = open(download.clone(), 0).await?;
        let mirrors = opened.mirror().into_iter().collect();
        let (state, download) = (State::Reading(opened), Some(download));
        Ok(Stream {
            mirrors,
            download,
            state,
            left,
            returned: 0,
            resumes: 0,
            deadline: None,
        })
    }

    /// Streams a file of a layout.
    pub(super) fn file(file: FileBlob, size: u64) -> Stream {
        let (state, left) = (State::File(file), size.saturating_add(1));
        Stream {
            mirrors: Vec::new(),
            download: None,
            state,
            left,
            returned: 0,
            resumes: 0,
            deadline: None,
        }
    }

    /// See [`super::Blob::next`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.left == 0 {
                self.state = State::Done;
            }
            let piece = match &mut self.state {
                State::Done => return Ok(None),
                State::File(file) => file.next().await?,
                State::Opening(opening) => {
                    let opened = opening.await;
                    self.state = State::Done;
                    let opened = opened?;
                    self.mirrors.extend(opened.mirror());
                    self.state = State::Reading(opened);
                    self.deadline = None;
                    continue;
                }
                State::Reading(_) => match self.read().await? {
                    Step::Piece(piece) => piece,
                    Step::Again => continue,
                },
            };
            let Some(mut piece) = piece else {
                self.state = State::Done;
                return Ok(None);
            };
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if piece.is_empty() {
                continue;
            }
            self.left -= piece.len() as u64;
            self.returned += piece.len() as u64;
            return Ok(Some(piece));
        }
    }

    async fn read(&mut self) -> Result<Step, RegistryError> {
        let (State::Reading(opened), Some(download)) = (&mut self.state, &self.download) else {
            return Ok(Step::Piece(None));
        };
        let stall = download.client.transport.timeouts.stall;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + stall);
        let piece = match timeout_at(deadline, opened.response.chunk()).await {
            Ok(piece) => piece,
            Err(_) => {
                let failure = Failure::silent(download.client.transport.stalled());
                if opened.site.mirrors.is_some() {
                    download.client.mirror_failed(&opened.site, &failure);
                    self.deadline = None;
                    return self.resume();
                }
                let error = failure.name(&opened.site.host, &download.what(), 1);
                self.state = State::Done;
                return Err(error);
            }
        };
        self.deadline = None;
        match piece {
            Ok(Some(mut piece)) => {
                let dropped = opened.skip.min(piece.len() as u64);
                opened.skip -= dropped;
                let _ = piece.split_to(usize::try_from(dropped).unwrap_or(piece.len()));
                Ok(Step::Piece(Some(piece)))
            }
            // All that was promised is here; how the connection ended does not matter.
            _ if self.returned >= download.descriptor.size => Ok(Step::Piece(None)),
            // A proper end, if too early: `unpack` tells that the blob is short.
            Ok(None) if framed(&opened.response) => Ok(Step::Piece(None)),
            _ => {
                if opened.site.mirrors.is_some() {
                    let failure = Failure::passing("the connection broke");
                    download.client.mirror_failed(&opened.site, &failure);
                }
                self.resume()
            }
        }
    }

    /// See [`super::BlobSource`].
    pub(super) fn source(self) -> super::BlobSource {
        super::BlobSource {
            client: self.download.map(|download| download.client),
            mirrors: self.mirrors,
        }
    }

    /// The connection broke: opens another for the rest.
    fn resume(&mut self) -> Result<Step, RegistryError> {
        let Some(download) = self.download.clone() else {
            return Ok(Step::Piece(None));
        };
        self.resumes += 1;
        if self.resumes > RESUMES {
            self.state = State::Done;
            let text = format!(
                "connection broke at byte {} of {}",
                self.returned, download.descriptor.size
            );
            let host = download.repository.host().to_owned();
            return Err(Failure::passing(text).name(&host, &download.what(), RESUMES + 1));
        }
        let (from, wait) = (self.returned, download.client.retries().wait(self.resumes));
        tracing::debug!("{}: torn at byte {from}, resuming", download.what());
        self.state = State::Opening(Box::pin(async move {
            tokio::time::sleep(wait).await;
            open(download, from).await
        }));
        Ok(Step::Again)
    }
}

impl Opened {
    fn mirror(&self) -> Option<Arc<str>> {
        self.site.mirrors.as_ref().map(|_| self.site.host.clone())
    }
}

enum Step {
    Piece(Option<Bytes>),
    Again,
}

impl Download {
    fn what(&self) -> String {
        format!("blob {} of `{}`", self.descriptor.digest, self.repository)
    }
}

/// Whether the body's end is marked, so that a torn connection shows as an error (RFC 9112 §8).
fn framed(response: &Response) -> bool {
    let headers = response.headers();
    headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Asks for the blob from byte `from` on, of each source in turn.
async fn open(download: Download, from: u64) -> Result<Opened, RegistryError> {
    let Download {
        client,
        repository,
        descriptor,
        avoided,
    } = &download;
    let mut call = Call::new(Method::GET, format!("blobs/{}", descriptor.digest));
    call.from = from;
    let mut sources = client.sources(repository)?;
    sources.retain(|site| site.mirrors.is_none() || !avoided.contains(&site.host));
    for (i, site) in sources.iter().enumerate() {
        let once = || open_once(client, site, repository, &call);
        match client.patience(site).run(once).await {
            Ok(opened) => return Ok(opened),
            Err((failure, _)) if i + 1 < sources.len() => client.mirror_failed(site, &failure),
            Err((failure, attempts)) => {
                return Err(failure.name(&site.host, &download.what(), attempts));
            }
        }
    }
    Err(Failure::wrong("no source").name(repository.host(), &download.what(), 1))
}

async fn open_once(
    client: &Client,
    site: &Site,
    repository: &Repository,
    call: &Call,
) -> Result<Opened, Failure> {
    let response = client.authorized(site, repository, call).await?;
    let skip = match (response.status(), call.from) {
        (StatusCode::OK, from) => from,
        (StatusCode::PARTIAL_CONTENT, 1..) if range_start(&response) == Some(call.from) => 0,
        (StatusCode::PARTIAL_CONTENT, _) => {
            return Err(Failure::wrong(
                "206 Partial Content of another range than was asked for",
            ));
        }
        (status, _) => return Err(refusal(status, response.headers())),
    };
    Ok(Opened {
        response,
        skip,
        site: Box::new(site.clone()),
    })
}

/// First byte of `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let text = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    text.strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

/// HEAD: whether the repository has the blob, which 200 alone says. Redirects are followed (to a storage; a page
/// that asks for a login is no 200 either where it counts: it has no credentials of ours).
pub(super) async fn probe(
    client: &Client,
    repository: &Repository,
    digest: &crate::digest::Digest,
) -> Result<(), RegistryError> {
    let site = client.site(repository)?;
    let call = Call::new(Method::HEAD, format!("blobs/{digest}"));
    let (client, site, call) = (client, &site, &call);
    let once = || async move {
        let response = client.authorized(site, repository, call).await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status => Err(refusal(status, response.headers())),
        }
    };
    let result = client.retries().run(once).await;
    result.map_err(|(failure, attempts)| {
        debug_assert!(failure.kind != RegistryErrorKind::NotFound || !failure.transient);
        failure.name(
            &site.host,
            &format!("blob {digest} of `{repository}`"),
            attempts,
        )
    })
}
