//! An OCI registry on loopback that does as it is told: it can lie, stall, tear, throttle,
//! refuse, redirect, and ask for credentials. It keeps a log of all it was asked.

mod answer;
mod lists;
mod tls;

use super::image::{Built, Image, Index, sha256};
pub use lists::Lists;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Other bytes than those asked for (`Docker-Content-Digest` stays as it was).
    Bytes(Vec<u8>),
    /// Silence before the headers; None: for ever.
    StallBeforeHeaders(Option<Duration>),
    /// Silence before the headers until the test says true.
    Gate(tokio::sync::watch::Receiver<bool>),
    /// Silence after so many bytes of a body; None: for ever.
    StallAfter {
        /// Bytes sent before.
        bytes: usize,
        /// How long.
        hold: Option<Duration>,
    },
    /// The connection ends after so many bytes of a body.
    TearAfter {
        /// Bytes sent before.
        bytes: usize,
    },
    /// A slow body.
    Throttle {
        /// Speed.
        bytes_per_second: usize,
    },
    /// A status instead of an answer.
    Status {
        /// The status.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// 307 to the same path at another base (`http://host:port`).
    RedirectTo(String),
    /// A Range header is not honoured: 200 and everything.
    IgnoreRange,
}

/// Who may read.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Everyone.
    #[default]
    None,
    /// User and password, each time.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// A token from `/token`: of this server, or of another one if `realm` says so.
    Bearer {
        /// Base of the token service (`http://host:port`); None: this server.
        realm: Option<String>,
        /// How long a token is valid.
        lifetime: Duration,
        /// Who may have a token; None: everyone.
        login: Option<(String, String)>,
    },
}

/// Tokens that were given out, and until when they are valid. Share it between a
/// registry and a token service that are two servers.
pub type Tokens = Arc<Mutex<HashMap<String, Instant>>>;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Status of the answer; 0 while there is none.
    pub status: u16,
}

impl Logged {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// A manifest as stored: media type and bytes.
type Manifest = (String, Vec<u8>);

#[derive(Default)]
struct State {
    /// By (repository, tag or digest).
    manifests: HashMap<(String, String), Manifest>,
    /// By (repository, digest).
    blobs: HashMap<(String, String), Arc<Vec<u8>>>,
    lists: Lists,
    rules: Vec<Rule>,
    log: Vec<Logged>,
}

/// Where a fault strikes, and how often it still does.
struct Rule {
    target: Target,
    method: Option<String>,
    fault: Fault,
    left: Option<usize>,
}

enum Target {
    Anything,
    Repository(String),
    Blob(String),
    Manifest(String),
    Referrers,
    Token,
}

struct Inner {
    address: SocketAddr,
    scheme: &'static str,
    auth: Auth,
    tokens: Tokens,
    state: Mutex<State>,
}

impl Inner {
    /// Held for look-ups and pushes only, never across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// A running registry. Ends when dropped.
pub struct Registry {
    inner: Arc<Inner>,
    accept: JoinHandle<()>,
    ca: Option<tempfile::NamedTempFile>,
}

/// What a registry is to be; see [`Registry::builder`].
#[derive(Default)]
pub struct Builder {
    auth: Auth,
    tls: bool,
    tokens: Tokens,
    address: Option<SocketAddr>,
}

impl Builder {
    /// Who may read.
    pub fn auth(mut self, auth: Auth) -> Builder {
        self.auth = auth;
        self
    }
    /// TLS by a private CA, see [`Registry::ca`].
    pub fn tls(mut self) -> Builder {
        self.tls = true;
        self
    }
    /// Shares tokens with another server.
    pub fn tokens(mut self, tokens: &Tokens) -> Builder {
        self.tokens = tokens.clone();
        self
    }
    /// Listens on this address instead of one that the system chooses.
    pub fn address(mut self, address: SocketAddr) -> Builder {
        self.address = Some(address);
        self
    }
    /// Starts it.
    pub async fn start(self) -> Registry {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(self.address.unwrap_or(any))
            .await
            .expect("loopback can be bound");
        let inner = Arc::new(Inner {
            address: listener.local_addr().expect("it is bound"),
            scheme: if self.tls { "https" } else { "http" },
            auth: self.auth,
            tokens: self.tokens,
            state: Mutex::default(),
        });
        let (acceptor, ca) = match self.tls.then(tls::identity) {
            Some((acceptor, ca)) => (Some(acceptor), Some(ca)),
            None => (None, None),
        };
        let accept = tokio::spawn(answer::accept(listener, acceptor, inner.clone()));
        Registry { inner, accept, ca }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// An image as pushed.
pub type Pushed = Built;

/// Sets a fault; see [`Registry::fault`].
pub struct FaultSetter<'a> {
    registry: &'a Registry,
    fault: Fault,
    method: Option<String>,
    left: Option<usize>,
}

impl FaultSetter<'_> {
    /// Strikes the next request only.
    pub fn once(self) -> Self {
        self.times(1)
    }
    /// Strikes the next `count` requests.
    pub fn times(mut self, count: usize) -> Self {
        self.left = Some(count);
        self
    }
    /// Strikes requests of this method only.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }
    /// Strikes requests for a blob.
    pub fn on_blob(self, digest: &str) {
        self.on(Target::Blob(digest.to_owned()));
    }
    /// Strikes requests for a manifest by this tag or digest.
    pub fn on_manifest(self, version: &str) {
        self.on(Target::Manifest(version.to_owned()));
    }
    /// Strikes all requests about a repository.
    pub fn on_repository(self, repository: &str) {
        self.on(Target::Repository(repository.to_owned()));
    }
    /// Strikes requests for lists of referrers.
    pub fn on_referrers(self) {
        self.on(Target::Referrers);
    }
    /// Strikes requests for a token.
    pub fn on_token(self) {
        self.on(Target::Token);
    }
    /// Strikes everything.
    pub fn on_anything(self) {
        self.on(Target::Anything);
    }
    fn on(self, target: Target) {
        self.registry.inner.state().rules.push(Rule {
            target,
            method: self.method,
            fault: self.fault,
            left: self.left,
        });
    }
}

impl Registry {
    /// An open registry that speaks plain HTTP.
    pub async fn start() -> Registry {
        Registry::builder().start().await
    }
    /// A registry of one's own taste.
    pub fn builder() -> Builder {
        Builder::default()
    }
    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.inner.address.to_string()
    }
    /// `http://127.0.0.1:port`.
    pub fn base(&self) -> String {
        format!("{}://{}", self.inner.scheme, self.inner.address)
    }
    /// The path at the service: `/127.0.0.1:port/team/app:v1` and then `path`.
    pub fn path(&self, image: &str, path: &str) -> String {
        format!("/{}/{image}{path}", self.host())
    }
    /// The repository's canonical name.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.host())
    }
    /// PEM file of the CA, with TLS.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_ref().map(tempfile::NamedTempFile::path)
    }
    /// Its tokens, to share with another server.
    pub fn tokens(&self) -> Tokens {
        self.inner.tokens.clone()
    }
    /// This registry's entry in the configuration's `registries`.
    pub fn settings(&self) -> serde_json::Value {
        match self.ca() {
            Some(ca) => serde_json::json!({ "ca": ca }),
            None => serde_json::json!({ "plainHttp": true }),
        }
    }

    /// Stores an image under a tag (and its digest).
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Pushed {
        let built = image.build();
        self.push_built(repository, &built);
        self.tag(repository, tag, &built.media_type, &built.manifest);
        built
    }
    /// Stores an index and its images; returns the index's digest.
    pub fn push_index(&self, repository: &str, tag: &str, index: &Index) -> String {
        let (bytes, media_type, images) = index.build();
        for image in &images {
            self.push_built(repository, image);
        }
        self.tag(repository, tag, &media_type, &bytes)
    }
    /// Stores manifest bytes of any kind under a tag and their digest; returns the digest.
    pub fn tag(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let mut state = self.inner.state();
        for version in [tag, digest.as_str()] {
            let key = (repository.to_owned(), version.to_owned());
            let value = (media_type.to_owned(), bytes.to_vec());
            state.manifests.insert(key, value);
        }
        digest
    }
    /// How it lists referrers from now on.
    pub fn list(&self, lists: Lists) {
        self.inner.state().lists = lists;
    }
    /// Forgets a tag.
    pub fn untag(&self, repository: &str, tag: &str) {
        let key = (repository.to_owned(), tag.to_owned());
        self.inner.state().manifests.remove(&key);
    }
    /// Stores a blob under a digest, which may be a lie.
    pub fn put_blob(&self, repository: &str, digest: &str, bytes: Vec<u8>) {
        let key = (repository.to_owned(), digest.to_owned());
        self.inner.state().blobs.insert(key, Arc::new(bytes));
    }
    /// Stores all that an OCI layout directory has, as it is: its blobs, its documents, its
    /// tags. Nothing is checked, so that hostile ones can be held too.
    pub fn load_layout(&self, repository: &str, layout: &Path) {
        let index = read_json(&layout.join("index.json")).expect("index.json");
        let blobs = layout.join("blobs/sha256");
        for entry in std::fs::read_dir(&blobs).expect("blobs/sha256") {
            let path = entry.expect("readable").path();
            let hex = path.file_name().expect("a name").to_string_lossy();
            let (digest, bytes) = (
                format!("sha256:{hex}"),
                std::fs::read(&path).expect("a blob"),
            );
            if let Some(json) = read_json(&path).filter(|json| json["schemaVersion"] == 2) {
                let otherwise = match json["manifests"].is_array() {
                    true => "application/vnd.oci.image.index.v1+json",
                    false => "application/vnd.oci.image.manifest.v1+json",
                };
                let media_type = json["mediaType"].as_str().unwrap_or(otherwise).to_owned();
                let key = (repository.to_owned(), digest.clone());
                let value = (media_type, bytes.clone());
                self.inner.state().manifests.insert(key, value);
            }
            self.put_blob(repository, &digest, bytes);
        }
        let mut state = self.inner.state();
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let tag = &entry["annotations"]["org.opencontainers.image.ref.name"];
            let (Some(tag), Some(digest)) = (tag.as_str(), entry["digest"].as_str()) else {
                continue;
            };
            let of = |version: &str| (repository.to_owned(), version.to_owned());
            if let Some(manifest) = state.manifests.get(&of(digest)).cloned() {
                state.manifests.insert(of(tag), manifest);
            }
        }
    }
    /// Forgets a blob.
    pub fn remove_blob(&self, repository: &str, digest: &str) {
        let key = (repository.to_owned(), digest.to_owned());
        self.inner.state().blobs.remove(&key);
    }
    fn push_built(&self, repository: &str, built: &Built) {
        for (digest, bytes) in &built.blobs {
            self.put_blob(repository, digest, bytes.clone());
        }
        let key = (repository.to_owned(), built.digest.clone());
        let value = (built.media_type.clone(), built.manifest.clone());
        self.inner.state().manifests.insert(key, value);
    }

    /// Makes something go wrong from now on: `registry.fault(…).once().on_blob(digest)`.
    /// The oldest fault that fits a request strikes it.
    pub fn fault(&self, fault: Fault) -> FaultSetter<'_> {
        FaultSetter {
            registry: self,
            fault,
            method: None,
            left: None,
        }
    }
    /// Takes all faults back (a stall that holds a request already goes on).
    pub fn heal(&self) {
        self.inner.state().rules.clear();
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Logged> {
        self.inner.state().log.clone()
    }
    /// Requests of `method` whose path contains `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let log = self.log();
        let fits = |one: &&Logged| one.method == method && one.path.contains(part);
        log.iter().filter(fits).count()
    }
    /// GETs of a blob, resumed ones too.
    pub fn count_blob_gets(&self, digest: &str) -> usize {
        self.count("GET", &format!("/blobs/{digest}"))
    }
    /// GETs of a manifest by this tag or digest that were answered with 200.
    pub fn count_manifest_gets(&self, version: &str) -> usize {
        let ending = format!("/manifests/{version}");
        let log = self.log();
        let fits =
            |one: &&Logged| one.method == "GET" && one.status == 200 && one.path.ends_with(&ending);
        log.iter().filter(fits).count()
    }
    /// Requests so far, of any kind.
    pub fn requests(&self) -> usize {
        self.inner.state().log.len()
    }
    /// Waits until a request of `method` for a path that contains `part` has come.
    pub async fn asked(&self, method: &str, part: &str) {
        let start = Instant::now();
        while self.count(method, part) == 0 {
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(30), "no {method} of {part}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A small file's JSON, if that is what it holds.
fn read_json(path: &Path) -> Option<serde_json::Value> {
    let small = path.metadata().ok()?.len() < 4 << 20;
    let bytes = small.then(|| std::fs::read(path).ok())??;
    serde_json::from_slice(&bytes).ok()
}
