//! docker-registry on loopback, open or behind one of its ways to authenticate, and skopeo to push
//! to it.

use crate::binary::text;
use crate::layouts::Layout;
use crate::parts::{Server, free_address, installed, run};
use crate::tokens::{ISSUER, SERVICE, Tokens};
use serde_json::json;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How a registry is spoken to.
pub enum Access<'a> {
    /// By anyone, over plain HTTP.
    Open,
    /// With a name and a password, over plain HTTP.
    Password(&'a str, &'a str),
    /// With tokens of this service, over plain HTTP.
    Tokens(&'a Tokens),
    /// By anyone, over TLS with a private CA.
    Tls,
}

/// A running registry.
pub struct Registry {
    server: Option<Server>,
    address: SocketAddr,
    directory: tempfile::TempDir,
    /// Arguments that let skopeo push.
    push: Vec<String>,
}

impl Registry {
    /// Starts one, empty.
    pub fn start(access: &Access<'_>) -> Registry {
        installed();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let address = free_address();
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": path("storage")}, "delete": {"enabled": true}},
            "http": {"addr": address.to_string()},
        });
        let mut push = vec!["--dest-tls-verify=false".to_owned()];
        match access {
            Access::Open => {}
            Access::Password(user, password) => {
                let file = run("htpasswd", &["-B", "-b", "-n", user, password], b"");
                std::fs::write(path("htpasswd"), file).expect("written");
                config["auth"] = json!({"htpasswd": {"realm": "tests", "path": path("htpasswd")}});
                push.push(format!("--dest-creds={user}:{password}"));
            }
            Access::Tokens(tokens) => {
                config["auth"] = json!({"token": {
                    "realm": tokens.realm(), "service": SERVICE, "issuer": ISSUER,
                    "rootcertbundle": tokens.certificate,
                }});
                let (user, password) = crate::tokens::USER;
                push.push(format!("--dest-creds={user}:{password}"));
            }
            Access::Tls => {
                certificates(directory.path());
                config["http"]["tls"] =
                    json!({"certificate": path("leaf.pem"), "key": path("leaf.key")});
                push = vec![format!("--dest-cert-dir={}", path("trusted").display())];
            }
        }
        let file = path("config.yml");
        std::fs::write(&file, config.to_string()).expect("written");
        let arguments: [&OsStr; 2] = [OsStr::new("serve"), file.as_os_str()];
        let server = Server::start("docker-registry", &arguments, address, &path("log"));
        Registry {
            server: Some(server),
            address,
            directory,
            push,
        }
    }

    /// `host:port`, as in references.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The private CA's certificate, when it speaks TLS.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Pushes the layout's image as `name` (`team/app:v1`), converted to `format` (`oci`, `v2s2`).
    pub fn push(&self, layout: &Layout, name: &str, format: &str) {
        let (source, target) = (
            format!("oci:{}", layout.image()),
            format!("docker://{}/{name}", self.address),
        );
        let mut arguments = vec!["--insecure-policy", "copy", "--quiet", "--format", format];
        arguments.extend(self.push.iter().map(String::as_str));
        arguments.extend([source.as_str(), target.as_str()]);
        run("skopeo", &arguments, b"");
    }

    /// Ends the server; its address answers no more.
    pub fn stop(&mut self) {
        self.server = None;
    }
}

/// `ca.pem`, `leaf.pem` and `leaf.key` for loopback, and `trusted/ca.crt` for skopeo.
fn certificates(directory: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::<String>::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "CA of the tests");
    let root = ca.self_signed(&ca_key).expect("self-signed").pem();
    let leaf_key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf = CertificateParams::new(names).expect("names");
    let leaf = leaf
        .signed_by(&leaf_key, &Issuer::new(ca, ca_key))
        .expect("signed");
    let trusted = directory.join("trusted");
    std::fs::create_dir(&trusted).expect("a directory");
    for (path, content) in [
        (directory.join("ca.pem"), root.clone()),
        (trusted.join("ca.crt"), root),
        (directory.join("leaf.pem"), leaf.pem()),
        (directory.join("leaf.key"), leaf_key.serialize_pem()),
    ] {
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", text(&path)));
    }
}
