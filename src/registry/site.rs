//! Hosts: how each is spoken to, and which of them the operator named.

use super::store::{ArchiveFile, Directory, Store};
use crate::config::{Config, ConfigError, RegistryConfig};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::{Host, Url};

/// A host name and the port that it is contacted at.
pub(super) type Authority = (String, u16);

/// One registry as it is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// `host[:port]` as in references and in the configuration; what errors name.
    pub(super) host: Arc<str>,
    /// `https://host/`, where its API is.
    pub(super) base: Url,
    /// HTTP without TLS.
    pub(super) plain: bool,
    /// Which further trust roots apply: a key of [`Sites::roots`].
    pub(super) ca: Option<PathBuf>,
    /// For a mirror: the registry that it stands in for (`?ns=`).
    pub(super) mirrors: Option<Arc<str>>,
    /// Token services besides the registry itself.
    pub(super) token_hosts: Arc<[String]>,
}

/// All hosts that the configuration speaks of.
pub(super) struct Sites {
    registries: BTreeMap<String, RegistryConfig>,
    /// What stands in for a host.
    stores: BTreeMap<String, Arc<dyn Store>>,
    named: HashSet<Authority>,
    /// `registries.<host>.plainHttp`.
    plain_hosts: Vec<String>,
    /// PEM bundles of the configuration, read once at start.
    pub(super) roots: BTreeMap<PathBuf, Vec<reqwest::Certificate>>,
}

impl Sites {
    pub(super) fn new(config: &Config) -> Result<Sites, ConfigError> {
        let mut sites = Sites {
            registries: config.registries.clone(),
            stores: (config.registries.iter())
                .filter_map(|(host, registry)| {
                    let most = config.limits.manifest_bytes;
                    Some((host.clone(), store(registry, most)?))
                })
                .collect(),
            named: HashSet::new(),
            plain_hosts: (config.registries.iter())
                .filter(|(_, registry)| registry.plain_http)
                .map(|(host, _)| host.clone())
                .collect(),
            roots: BTreeMap::new(),
        };
        let mut errors = Vec::new();
        for (host, registry) in &config.registries {
            if let Some(path) = &registry.ca {
                match read_roots(path) {
                    Ok(roots) => drop(sites.roots.insert(path.clone(), roots)),
                    Err(error) => errors.push(format!("registries.{host:?}.ca: {error}")),
                }
            }
            for (key, hosts) in [
                ("mirrors", &registry.mirrors),
                ("tokenHosts", &registry.token_hosts),
            ] {
                for other in hosts {
                    if authority(bare(other), false).is_none() {
                        errors.push(format!(
                            "registries.{host:?}.{key}: {other:?} is not a host; write `host` or `host:port`"
                        ));
                    }
                }
            }
        }
        if !errors.is_empty() {
            return Err(ConfigError(errors));
        }
        let repos = config.repos.keys().map(|repository| repository.host());
        for host in repos.chain(config.registries.keys().map(String::as_str)) {
            let site = sites.site(host).map_err(|error| ConfigError(vec![error]))?;
            sites.named.extend(authority(host, site.plain));
            sites.named.extend(origin(&site.base));
        }
        for registry in config.registries.values() {
            for other in registry.mirrors.iter().chain(&registry.token_hosts) {
                let plain = sites.plain(bare(other));
                sites.named.extend(authority(bare(other), plain));
            }
        }
        Ok(sites)
    }

    /// How `host` is spoken to; an error if no URL can name it.
    pub(super) fn site(&self, host: &str) -> Result<Site, String> {
        let plain = self.plain(host);
        let settings = self.registries.get(host);
        // Docker Hub's API is not where its name is, nor is its token service.
        let (api, built_in) = match host {
            "docker.io" => ("registry-1.docker.io", Some("auth.docker.io".to_owned())),
            other => (other, None),
        };
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{api}/"))
            .ok()
            .filter(|base| {
                base.host().is_some() && base.path() == "/" && base.username().is_empty()
            })
            .ok_or_else(|| format!("{host:?} cannot be contacted: not a host name"))?;
        let token_hosts = settings
            .map(|settings| settings.token_hosts.clone())
            .unwrap_or_default();
        Ok(Site {
            host: host.into(),
            base,
            plain,
            ca: settings.and_then(|settings| settings.ca.clone()),
            mirrors: None,
            token_hosts: token_hosts.into_iter().chain(built_in).collect(),
        })
    }

    /// The mirrors of `host`, in order.
    pub(super) fn mirrors(&self, host: &str) -> Vec<Site> {
        let mirrors = self
            .registries
            .get(host)
            .map(|settings| settings.mirrors.as_slice());
        (mirrors.unwrap_or_default().iter())
            .filter_map(|mirror| self.site(bare(mirror)).ok())
            .map(|site| Site {
                mirrors: Some(host.into()),
                ..site
            })
            .collect()
    }

    /// Whether the mirrors of `host` are asked for tags too.
    pub(super) fn mirrors_tags(&self, host: &str) -> bool {
        (self.registries.get(host)).is_some_and(|settings| settings.mirror_tags)
    }

    /// What stands in for `host` without a network.
    pub(super) fn store(&self, host: &str) -> Option<Arc<dyn Store>> {
        self.stores.get(host).cloned()
    }

    /// Whether the operator named this host and port.
    pub(super) fn named(&self, url: &Url) -> bool {
        origin(url).is_some_and(|origin| self.named.contains(&origin))
    }

    /// Whether `host` is spoken to without TLS: where configured, and on loopback unless a `ca`
    /// says that there is TLS.
    pub(super) fn plain(&self, host: &str) -> bool {
        match self.registries.get(host) {
            Some(settings) if settings.plain_http => true,
            Some(settings) if settings.ca.is_some() => false,
            _ => is_loopback(host),
        }
    }

    /// Whether `url` may be asked without TLS.
    pub(super) fn plain_url(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else {
            return false;
        };
        let with_port = url.port().map(|port| format!("{host}:{port}"));
        self.plain(with_port.as_deref().unwrap_or(host))
    }

    /// `registries.<host>.plainHttp`.
    pub(super) fn plain_hosts(&self) -> &[String] {
        &self.plain_hosts
    }
}

fn store(registry: &RegistryConfig, most_document: u64) -> Option<Arc<dyn Store>> {
    if let Some(directory) = &registry.layout {
        return Some(Arc::new(Directory(directory.clone())));
    }
    let archive = registry.archive.clone()?;
    Some(Arc::new(ArchiveFile::new(archive, most_document)))
}

/// A mirror may be written as a URL.
fn bare(host: &str) -> &str {
    let host = host
        .strip_prefix("https://")
        .or_else(|| host.strip_prefix("http://"))
        .unwrap_or(host);
    host.trim_end_matches('/')
}

fn read_roots(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(roots) if !roots.is_empty() => Ok(roots),
        _ => Err(format!("{shown}: holds no PEM certificate")),
    }
}

/// Host and port of `host[:port]`, spelled as URLs spell them (`127.1` is `127.0.0.1`).
pub(super) fn authority(host: &str, plain: bool) -> Option<Authority> {
    if host.is_empty() || host.contains(['/', '@', '?', '#', '\\']) {
        return None;
    }
    let scheme = if plain { "http" } else { "https" };
    origin(&Url::parse(&format!("{scheme}://{host}/")).ok()?)
}

/// Host and port of a URL.
pub(super) fn origin(url: &Url) -> Option<Authority> {
    Some((
        url.host_str()?.trim_end_matches('.').to_owned(),
        url.port_or_known_default()?,
    ))
}

/// Whether `host[:port]` is this machine by its name or literal address.
pub(super) fn is_loopback(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else {
        return false;
    };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The literal address in a URL.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}
