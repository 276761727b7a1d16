//! The configuration file: one schema, YAML or JSON, checked once at start.

mod answers;
mod connections;
mod decode;
mod hosts;
mod layers;
mod named;
mod schema;
mod site;
mod tree;
mod units;

pub use layers::LayerSelection;

use crate::oci::Platform;
use crate::reference::{Reference, Repository};
use http::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who starts us: the two modes differ only in defaults and strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `blobserve serve`: strict, loopback, closed.
    Serve,
    /// `blobserve run`: the drop-in for existing installations.
    Run,
}

/// A checked configuration. Every field has its default filled in for the mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The mode it was read for.
    pub mode: Mode,
    /// Addresses to listen on (the first that binds, of `[::]` and `0.0.0.0`, under `run`).
    pub listen: Vec<SocketAddr>,
    /// Deadline for the first byte of an answer; None: no deadline.
    pub timeout: Option<Duration>,
    /// Repositories configured by name.
    pub repos: BTreeMap<Repository, RepoConfig>,
    /// Serve repositories that are not in `repos`.
    pub allow_any_repo: bool,
    /// Where packs live and how large they may grow.
    pub blob_space: BlobSpaceConfig,
    /// Path of a docker `config.json`.
    pub docker_auth: Option<PathBuf>,
    /// Address of `/metrics`.
    pub prometheus_addr: Option<SocketAddr>,
    /// Address of `/live` and `/ready`.
    pub readiness_probe_addr: Option<SocketAddr>,
    /// Downloads at once.
    pub workers: usize,
    /// Downloads at once from one registry.
    pub workers_per_registry: usize,
    /// Entry of an index to serve.
    pub platform: Platform,
    /// How long a resolved tag is used without asking the registry.
    pub tag_ttl: Duration,
    /// How long past `tag_ttl` a tag may be served while its registry fails.
    pub stale_if_error: Duration,
    /// Between SIGTERM and the end of accepting.
    pub drain_delay: Duration,
    /// What `/ready` depends on.
    pub readiness: Readiness,
    /// Bytes that unpacking may hold in memory.
    pub memory_limit: u64,
    /// Caps on one layer.
    pub limits: Limits,
    /// Settings per registry host (`host[:port]`).
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Contact loopback and private addresses of hosts that are not named in `repos` or `registries`.
    pub allow_private: bool,
    /// Use credentials for repositories that are not in `repos`.
    pub any_repo_credentials: bool,
    /// HEAD of a path that GET would answer with 404 says 200.
    pub head_any_path: bool,
    /// Directory listings, where the repository does not say otherwise.
    pub listing: bool,
    /// Of answers that may change, where the repository does not say otherwise.
    pub cache: CacheConfig,
    /// Encoded forms of files, where the repository does not say otherwise.
    pub encodings: Encodings,
    /// Virtual hosts, by their lower-case names.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Origins of single images; None: there are none.
    pub origins: Option<OriginsConfig>,
    /// Listen with TLS; None: in cleartext only.
    pub tls: Option<TlsConfig>,
    /// Write down what was answered; None: nothing.
    pub access_log: Option<AccessLogConfig>,
    /// Answers have a `Repr-Digest`, where the repository does not say otherwise.
    pub repr_digest: bool,
}

/// `hosts.<name>`: a host that serves one reference, all of its paths being paths of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// What it serves.
    pub reference: Reference,
    /// Overrides that of the repository.
    pub workdir: Option<String>,
    /// Overrides that of the repository.
    pub listing: Option<bool>,
    /// Overrides that of the repository.
    pub cache: Option<CacheConfig>,
    /// Overrides that of the repository: what is not set here is as there. None: nothing differs.
    pub site: Option<SiteConfig>,
    /// Overrides that of the repository.
    pub encodings: Option<Encodings>,
    /// Overrides that of the repository.
    pub repr_digest: Option<bool>,
}

/// `origins`: `<label>.<domain>` serves one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginsConfig {
    /// Lower-case, without a dot at its end.
    pub domain: String,
    /// Where clients reach it; None: at the port by which they reached the path URL.
    pub port: Option<u16>,
    /// Images that are not configured by name have origins, too.
    pub unconfigured: bool,
}

/// `cache`: of answers that may change (tags). What only a digest decides is cached for a year whatever
/// stands here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheConfig {
    /// `Cache-Control`. All zero: validated at each use.
    pub browser: Lifetime,
    /// `CDN-Cache-Control` (RFC 9213); None: the CDN does what the browser does.
    pub cdn: Option<Lifetime>,
    /// Name repository, reference and digest in `Surrogate-Key`.
    pub surrogate_key: bool,
    /// The same in `Cache-Tag`.
    pub cache_tag: bool,
}

/// Seconds that an answer may be reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Without asking.
    pub max_age: u64,
    /// After that, while it is being asked for again (RFC 5861 §3).
    pub stale_while_revalidate: u64,
    /// After that, while asking fails (RFC 5861 §4).
    pub stale_if_error: u64,
}

/// `encodings`: which encoded forms (RFC 9110 §8.4.1) of files are sent to those who accept them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encodings {
    /// None; Accept-Encoding is not looked at.
    Off,
    /// Those that the image has beside its files: `x.js.br`, `x.js.zst`, `x.js.gz`.
    Sidecars,
    /// Those, and our own.
    All,
}

/// `tls`: a listener with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file: the certificate, then those that lead to its root. Read again when it changes.
    pub cert: PathBuf,
    /// PEM file: the certificate's private key. Read again when it changes.
    pub key: PathBuf,
    /// Addresses to listen on, as [`Config::listen`].
    pub listen: Vec<SocketAddr>,
    /// Do not listen in cleartext.
    pub only: bool,
}

/// `accessLog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// How a line looks.
    pub format: AccessFormat,
    /// Where lines are appended; None: standard output.
    pub file: Option<PathBuf>,
}

/// `accessLog.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// The Combined Log Format of Apache and nginx.
    Combined,
    /// An object of JSON a line.
    Json,
}

/// `readiness`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Ready when this process is.
    SelfOnly,
    /// Ready when the registries of `repos` answer, too.
    Registry,
}

/// `blobSpace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobSpaceConfig {
    /// Directory; we own `<location>/blobserve-v1/` only.
    pub location: PathBuf,
    /// Bound in bytes; 0: unbounded.
    pub max_size_bytes: u64,
    /// Bytes within the bound that layers may take as they came, compressed; 0: they are not kept.
    pub keep_compressed_bytes: u64,
}

/// `limits`: caps on one layer, against bombs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Uncompressed bytes of a layer.
    pub layer_bytes: u64,
    /// Uncompressed : compressed, enforced above 64 MiB uncompressed.
    pub ratio: u64,
    /// Tar entries.
    pub entries: u64,
    /// Bytes of one path.
    pub path_bytes: usize,
    /// Bytes of one entry's extension headers (PAX, GNU long names).
    pub header_bytes: usize,
    /// Bytes of a manifest, index or configuration.
    pub manifest_bytes: u64,
}

/// `registries.<host>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Speak HTTP without TLS.
    pub plain_http: bool,
    /// PEM file of further trust roots.
    pub ca: Option<PathBuf>,
    /// Serve this host from an OCI image layout directory, without a network.
    pub layout: Option<PathBuf>,
    /// Serve this host from an image archive (oci-archive or docker-archive), without a network.
    pub archive: Option<PathBuf>,
    /// Hosts (`host[:port]`) other than the registry's that its token realm may name.
    pub token_hosts: Vec<String>,
    /// Tried in order before the registry itself.
    pub mirrors: Vec<String>,
    /// Mirrors say what tags mean, too.
    pub mirror_tags: bool,
}

/// `repos.<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoConfig {
    /// Tags fetched before we are ready.
    pub pre_pull: Vec<String>,
    /// Directory that URL paths are relative to, within the image.
    pub workdir: Option<String>,
    /// Applied once per layer.
    pub replacements: Vec<Replacement>,
    /// Applied per request, see `X-BlobServe-InlineVars`.
    pub inline_static: Vec<InlineStatic>,
    /// Globs of tags that never move.
    pub immutable_tags: Vec<String>,
    /// Globs of tags whose images are never evicted.
    pub retain: Vec<String>,
    /// Overrides `listing`.
    pub listing: Option<bool>,
    /// Overrides `cache`: what is not set here is as there.
    pub cache: Option<CacheConfig>,
    /// Its images have origins of their own, which their path URLs redirect to.
    pub origin: bool,
    /// Documents of tags redirect to the digest that the tag means.
    pub redirect_to_digest: bool,
    /// Overrides `reprDigest`.
    pub repr_digest: Option<bool>,
    /// What its manifests say, and what refers to them, is shown.
    pub about: bool,
    /// How its files make a site.
    pub site: SiteConfig,
    /// Overrides `encodings`.
    pub encodings: Option<Encodings>,
    /// Which layers make the tree that is served.
    pub layers: LayerSelection,
}

/// Keys of `repos.<name>` and `hosts.<name>`: how files make a site, and what answers carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteConfig {
    /// `spaFallback`: the file (cleaned, below the workdir) for navigations that lead to nothing.
    pub spa_fallback: Option<String>,
    /// `notFoundPage`: the file (cleaned, below the workdir) that a 404 shows.
    pub not_found_page: Option<String>,
    /// `redirectsFile`: `_redirects` in the workdir is honoured.
    pub redirects_file: bool,
    /// `headersFile`: `_headers` in the workdir is honoured.
    pub headers_file: bool,
    /// `responseHeaders`: each name once; none that [`fields::refused`](crate::rules::fields::refused) refuses.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `sandbox`: what `Content-Security-Policy: sandbox` allows. None: no sandbox.
    pub sandbox: Option<Vec<String>>,
    /// `crossOriginResourcePolicy`.
    pub resource_policy: Option<ResourcePolicy>,
    /// `cors`.
    pub cors: CorsConfig,
}

/// `crossOriginResourcePolicy`: who may embed the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourcePolicy {
    /// Pages of the same origin.
    SameOrigin,
    /// Pages of the same registrable domain.
    SameSite,
    /// All pages.
    CrossOrigin,
}

/// `cors`: which origins' scripts may read the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsConfig {
    /// As browsers write them, `*`, or `https://*.example.com`. Empty: none, and no preflight is answered.
    pub origins: Vec<String>,
    /// Requests may carry credentials.
    pub credentials: bool,
    /// Request headers that are allowed besides those that serving files needs.
    pub request_headers: Vec<String>,
    /// Response headers that scripts may read besides those that serving files needs.
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer holds.
    pub max_age: Duration,
}

impl Default for CorsConfig {
    fn default() -> CorsConfig {
        CorsConfig {
            origins: Vec::new(),
            credentials: false,
            request_headers: Vec::new(),
            expose_headers: Vec::new(),
            max_age: Duration::from_secs(600),
        }
    }
}

/// `repos.<name>.replacements[]`: literal search and replace in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Relative to the layer's root.
    pub path: String,
    /// Never empty.
    pub search: String,
    /// What to put instead.
    pub replacement: String,
}

/// `repos.<name>.inlineStatic[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineStatic {
    /// Never empty.
    pub search: String,
    /// May hold `${ide}` and `${supervisor}`.
    pub replacement: String,
}

/// A configuration and what was odd about it.
#[derive(Debug)]
pub struct Loaded {
    /// Checked.
    pub config: Config,
    /// One line each, for the log (`run` only warns where `serve` refuses).
    pub warnings: Vec<String>,
}

/// All that is wrong with a configuration: one line each, `file:line: path: what, value, next step`.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// Reads and checks the file at `path`. Relative paths in it are relative to its directory.
///
/// # Errors
/// All that is wrong with it, or that it cannot be read.
pub fn load(path: &Path, mode: Mode) -> Result<Loaded, ConfigError> {
    let name = path.display().to_string();
    let text = read(path).map_err(|why| ConfigError(vec![format!("{name}: {why}")]))?;
    parse(&text, &name, mode)
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!(
            "is larger than {FILE_MAX} bytes, is it the configuration?"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        format!("is not UTF-8 in line {line}, save it as UTF-8")
    })
}

/// Checks a configuration text; `name` stands for the file in messages, and relative paths
/// are relative to its directory. Opens no file and no socket, except for the cgroup's limit.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(text: &str, name: &str, mode: Mode) -> Result<Loaded, ConfigError> {
    let json = name.to_ascii_lowercase().ends_with(".json");
    let root = tree::read(text, json)
        .map_err(|(line, message)| ConfigError(vec![format!("{name}:{line}: {message}")]))?;
    let base = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut reader = decode::Reader::new(name, mode);
    let config = schema::decode(&mut reader, &root, base);
    match reader.finish() {
        (errors, warnings) if errors.is_empty() => Ok(Loaded { config, warnings }),
        (errors, _) => Err(ConfigError(errors)),
    }
}

impl Config {
    /// Listens on `address` (`host:port`, or `:port` for the addresses of the mode) instead.
    ///
    /// # Errors
    /// One line: what is wrong with it, and how to write it.
    pub fn set_address(&mut self, address: &str) -> Result<(), String> {
        self.listen = units::address(address, self.mode).map_err(|why| format!("address {why}"))?;
        Ok(())
    }
}

/// The addresses to try for `address`, in order; the first that binds is the one. All
/// addresses are `[::]`, and `0.0.0.0` on a machine without IPv6.
pub fn binding_order(address: SocketAddr) -> Vec<SocketAddr> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            vec![address, (std::net::Ipv4Addr::UNSPECIFIED, v6.port()).into()]
        }
        _ => vec![address],
    }
}

/// Every key of the schema by its path, `*` for a name of the user's choice and `[]` for the
/// elements of a list: `blobserve.repos.*.replacements[].search`.
pub fn known_keys() -> Vec<String> {
    schema::known_keys()
}

#[cfg(test)]
mod tests;
