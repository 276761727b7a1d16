//! The schema: which keys there are, what they may hold, and what holds where they are absent.

use super::answers::{CACHE, cache};
use super::connections::{ACCESS_LOG, TLS, access_log, tls};
use super::decode::{Field, Reader, Section};
use super::hosts::{HOST, ORIGINS, OfRepository, hosts, origins};
use super::named::{INLINE_STATIC, REGISTRY, REPLACEMENT, REPO, registries, repos};
use super::site::CORS;
use super::tree::Node;
use super::{
    BlobSpaceConfig, CacheConfig, Config, Encodings, Limits, Mode, Readiness, SiteConfig, units,
};
use crate::oci::Platform;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The keys of existing installations that stand beside `blobserve`; inside it they are
/// accepted as well.
const BESIDE: &[&str] = &[
    "dockerAuth",
    "prometheusAddr",
    "readinessProbeAddr",
    "pprofAddr",
];
const TOP: &[&str] = &[
    "blobserve",
    "dockerAuth",
    "prometheusAddr",
    "readinessProbeAddr",
    "pprofAddr",
];
const BLOBSERVE: &[&str] = &[
    "address",
    "port",
    "timeout",
    "repos",
    "allowAnyRepo",
    "blobSpace",
    "workers",
    "workersPerRegistry",
    "platform",
    "tagTtl",
    "staleIfError",
    "drainDelay",
    "readiness",
    "memoryLimit",
    "limits",
    "registries",
    "allowPrivate",
    "anyRepoCredentials",
    "headAnyPath",
    "listing",
    "cache",
    "hosts",
    "origins",
    "encodings",
    "tls",
    "accessLog",
    "reprDigest",
    "dockerAuth",
    "prometheusAddr",
    "readinessProbeAddr",
    "pprofAddr",
];
const BLOB_SPACE: &[&str] = &["location", "maxSizeBytes", "keepCompressedBytes"];
const LIMITS: &[&str] = &[
    "layerBytes",
    "ratio",
    "entries",
    "pathBytes",
    "headerBytes",
    "manifestBytes",
];

/// See [`super::known_keys`].
pub(super) fn known_keys() -> Vec<String> {
    let own: Vec<&'static str> = BLOBSERVE
        .iter()
        .filter(|key| !BESIDE.contains(key))
        .copied()
        .collect();
    let sections: &[(&str, &[&'static str])] = &[
        ("", TOP),
        ("blobserve.", &own),
        ("blobserve.blobSpace.", BLOB_SPACE),
        ("blobserve.limits.", LIMITS),
        ("blobserve.cache.", CACHE),
        ("blobserve.repos.*.cache.", CACHE),
        ("blobserve.hosts.*.", HOST),
        ("blobserve.hosts.*.cache.", CACHE),
        ("blobserve.hosts.*.cors.", CORS),
        ("blobserve.origins.", ORIGINS),
        ("blobserve.tls.", TLS),
        ("blobserve.accessLog.", ACCESS_LOG),
        ("blobserve.registries.*.", REGISTRY),
        ("blobserve.repos.*.", REPO),
        ("blobserve.repos.*.cors.", CORS),
        ("blobserve.repos.*.replacements[].", REPLACEMENT),
        ("blobserve.repos.*.inlineStatic[].", INLINE_STATIC),
    ];
    let names = |(section, keys): &(&str, &[&'static str])| {
        keys.iter()
            .map(|key| format!("{section}{key}"))
            .collect::<Vec<_>>()
    };
    sections.iter().flat_map(names).collect()
}

/// Decodes a whole file. `base`: what relative paths are relative to. The result means
/// something only if the reader holds no error.
pub(super) fn decode(reader: &mut Reader<'_>, root: &Node, base: &Path) -> Config {
    let top = reader.section(root, "", TOP, |key| {
        BLOBSERVE.contains(&key).then_some("under `blobserve`")
    });
    let absent = Node {
        line: root.line,
        value: super::tree::Value::Null,
    };
    // Messages leave out `blobserve`, which all paths would begin with.
    let section = reader.section(
        top.node("blobserve").unwrap_or(&absent),
        "",
        BLOBSERVE,
        |_| None,
    );
    let run = reader.mode == Mode::Run;

    let workers = reader
        .number(section.get("workers"), 1..=1024)
        .unwrap_or(10);
    let at = section
        .get("workersPerRegistry")
        .map(|field| (field.line, field.path));
    let per_registry = reader.number(section.get("workersPerRegistry"), 1..=1024);
    if let (Some(number), Some((line, path))) = (per_registry, at)
        && number > workers
    {
        let message = format!(
            "{number} is more than `workers` ({workers}), so it bounds nothing: lower it or raise `workers`"
        );
        reader.error(line, &path, &message);
    }
    if let Some(field) = either(reader, &top, &section, "pprofAddr") {
        let (line, at) = (field.line, field.path.clone());
        if reader.text(Some(field), |_| Ok(())).is_some() {
            reader.warn(
                line,
                &at,
                "accepted, and opens nothing: there is no pprof here",
            );
        }
    }
    let docker_auth = either(reader, &top, &section, "dockerAuth");
    let prometheus = either(reader, &top, &section, "prometheusAddr");
    let probes = either(reader, &top, &section, "readinessProbeAddr");
    let listen = listen(reader, &section);
    let timeout = reader
        .duration(section.get("timeout"))
        .filter(|timeout| !timeout.is_zero());
    let default = CacheConfig::default();
    let cache = cache(
        reader,
        section.node("cache").unwrap_or(&absent),
        "cache",
        &default,
    );
    let repos = repos(reader, section.get("repos"), &cache);
    let allow_any_repo = reader.flag(section.get("allowAnyRepo")).unwrap_or(false);
    let hosts = hosts(reader, section.get("hosts"), |reference| {
        let none = OfRepository {
            cache,
            site: SiteConfig::default(),
        };
        match repos.get(&reference.repository) {
            Some(repo) => Some(OfRepository {
                cache: repo.cache.unwrap_or(cache),
                site: repo.site.clone(),
            }),
            None => allow_any_repo.then_some(none),
        }
    });
    let origins = origins(reader, section.node("origins").unwrap_or(&absent));
    if let Some((name, _)) = repos.iter().find(|(_, repo)| repo.origin)
        && origins.is_none()
    {
        let message = format!(
            "is missing, and `{name}` has `origin: true`: say below which domain origins are, for example \"usercontent.example\""
        );
        reader.error(section.line, "origins.domain", &message);
    }
    let config = Config {
        mode: reader.mode,
        listen,
        timeout,
        repos,
        allow_any_repo,
        blob_space: blob_space(reader, section.node("blobSpace").unwrap_or(&absent), base),
        docker_auth: path(reader, docker_auth, base),
        prometheus_addr: address(reader, prometheus),
        readiness_probe_addr: address(reader, probes),
        workers: workers as usize,
        workers_per_registry: per_registry.unwrap_or(workers.min(4)) as usize,
        platform: reader
            .text(section.get("platform"), units::platform)
            .unwrap_or_else(default_platform),
        tag_ttl: reader
            .duration(section.get("tagTtl"))
            .unwrap_or(Duration::from_secs(60)),
        stale_if_error: reader
            .duration(section.get("staleIfError"))
            .unwrap_or(Duration::from_secs(24 * 3600)),
        drain_delay: reader
            .duration(section.get("drainDelay"))
            .unwrap_or(Duration::from_secs(5)),
        readiness: reader
            .text(section.get("readiness"), readiness)
            .unwrap_or(Readiness::SelfOnly),
        memory_limit: reader
            .size(section.get("memoryLimit"), 1 << 20)
            .unwrap_or_else(|| units::memory_limit(Path::new("/"))),
        limits: limits(reader, section.node("limits").unwrap_or(&absent)),
        registries: registries(reader, section.get("registries"), base),
        allow_private: reader.flag(section.get("allowPrivate")).unwrap_or(run),
        any_repo_credentials: reader
            .flag(section.get("anyRepoCredentials"))
            .unwrap_or(run),
        head_any_path: reader.flag(section.get("headAnyPath")).unwrap_or(run),
        listing: reader.flag(section.get("listing")).unwrap_or(run),
        cache,
        hosts,
        origins,
        // What existing installations send does not change by itself.
        encodings: reader
            .text(section.get("encodings"), units::encodings)
            .unwrap_or(if run { Encodings::Off } else { Encodings::All }),
        tls: tls(reader, section.node("tls").unwrap_or(&absent), base),
        access_log: access_log(reader, section.node("accessLog").unwrap_or(&absent), base),
        repr_digest: reader.flag(section.get("reprDigest")).unwrap_or(false),
    };
    if run && config.docker_auth.is_some() && section.get("anyRepoCredentials").is_none() {
        let message = "true by default under `run`: credentials are used for repositories outside of `repos` too; set it to say which you mean";
        reader.warn(
            section.line,
            &section.path_of("anyRepoCredentials"),
            message,
        );
    }
    if config.memory_limit < units::LITTLE_MEMORY {
        let message = "less than 96MiB: layers are unpacked one after another, and one may hold some 40MiB whatever this says";
        reader.warn(section.line, &section.path_of("memoryLimit"), message);
    }
    if config.repos.is_empty() && !config.allow_any_repo {
        let message =
            "no repository is configured and `allowAnyRepo` is false: every image will be refused";
        reader.warn(section.line, &section.path_of("repos"), message);
    }
    config
}

/// A key that may stand beside `blobserve` or in it.
fn either<'a>(
    reader: &mut Reader<'_>,
    top: &Section<'a>,
    section: &Section<'a>,
    key: &'static str,
) -> Option<Field<'a>> {
    let (beside, within) = (top.get(key), section.get(key));
    if let (Some(beside), Some(within)) = (&beside, &within) {
        let (first, last) = (beside.line.min(within.line), beside.line.max(within.line));
        reader.repeated(last, &within.path, first);
        return if beside.line > within.line {
            top.get(key)
        } else {
            section.get(key)
        };
    }
    beside.or(within)
}

fn default_platform() -> Platform {
    Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: None,
        os_version: None,
    }
}

fn readiness(text: &str) -> Result<Readiness, String> {
    match text {
        "self" => Ok(Readiness::SelfOnly),
        "registry" => Ok(Readiness::Registry),
        _ => Err(format!("{text:?} is not known, write `self` or `registry`")),
    }
}

fn listen(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<SocketAddr> {
    let mode = reader.mode;
    let port = reader
        .number(section.get("port"), 0..=65535)
        .unwrap_or(8080);
    let given = reader.word(section.get("address"), |text| units::address(text, mode));
    // A port alone always is an address.
    given.unwrap_or_else(|| units::address(&format!(":{port}"), mode).unwrap_or_default())
}

fn address(reader: &mut Reader<'_>, field: Option<Field<'_>>) -> Option<SocketAddr> {
    let mode = reader.mode;
    reader
        .word(field, |text| units::address(text, mode))
        .and_then(|addresses| addresses.first().copied())
}

pub(super) fn path(
    reader: &mut Reader<'_>,
    field: Option<Field<'_>>,
    base: &Path,
) -> Option<PathBuf> {
    reader.word(field, |text| match text.contains('\0') {
        true => Err(format!("{text:?} is not a path: it holds a NUL")),
        false => Ok(base.join(text)),
    })
}

fn blob_space(reader: &mut Reader<'_>, node: &Node, base: &Path) -> BlobSpaceConfig {
    let section = reader.section(node, "blobSpace", BLOB_SPACE, |_| None);
    let location = path(reader, section.get("location"), base);
    let bound = reader.size(section.get("maxSizeBytes"), 0).unwrap_or(0);
    let keep = section.get("keepCompressedBytes");
    let at = keep.as_ref().map(|field| (field.line, field.path.clone()));
    let keep = reader.size(keep, 0).unwrap_or(0);
    if let Some((line, path)) = at
        && bound > 0
        && keep > bound
    {
        let message = format!(
            "{keep} is more than `maxSizeBytes` ({bound}), which it is a part of: lower it or raise `maxSizeBytes`"
        );
        reader.error(line, &path, &message);
    }
    BlobSpaceConfig {
        location: location.unwrap_or_else(|| PathBuf::from("/var/cache/blobserve")),
        max_size_bytes: bound,
        keep_compressed_bytes: keep,
    }
}

fn limits(reader: &mut Reader<'_>, node: &Node) -> Limits {
    let section = reader.section(node, "limits", LIMITS, |_| None);
    let mut size = |key, default| reader.size(section.get(key), 1).unwrap_or(default);
    let (layer_bytes, manifest_bytes) =
        (size("layerBytes", 16 << 30), size("manifestBytes", 4 << 20));
    // The pack's records hold lengths of paths in 32 bits.
    let (path_bytes, header_bytes) = (size("pathBytes", 4096), size("headerBytes", 1 << 20));
    Limits {
        layer_bytes,
        ratio: reader
            .number(section.get("ratio"), 1..=1_000_000_000)
            .unwrap_or(200),
        entries: reader
            .number(section.get("entries"), 1..=u64::from(u32::MAX))
            .unwrap_or(2_000_000),
        path_bytes: path_bytes.try_into().unwrap_or(usize::MAX),
        header_bytes: header_bytes.try_into().unwrap_or(usize::MAX),
        manifest_bytes,
    }
}
