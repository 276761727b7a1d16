//! Our side of TLS: a certificate and its key out of files, read again when the files change.
//!
//! What a caller may rely on: a connection gets the pair that was the last usable one when it came;
//! certificate and key change together or not at all. Files may be replaced in any way (renamed over,
//! written in place, swapped behind a symlink as Kubernetes does): every few seconds a look at what the
//! paths lead to says so. A pair that cannot be used is logged, once for each way in which it cannot, and
//! the one before stays in use; whoever asks for a look (SIGHUP) is told what came of it each time.

use crate::config::TlsConfig;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// What we speak, in the order that we prefer (RFC 7301, RFC 9113 §3.2).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes of a PEM file at most.
const MOST_PEM: u64 = 1 << 20;

/// The pair in use, and where it came from. Clones share.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    /// Locked to copy or replace one pointer.
    current: RwLock<Arc<CertifiedKey>>,
    /// Locked during a look at the files.
    seen: Mutex<Seen>,
}

/// What the last look found.
#[derive(Debug)]
struct Seen {
    stamps: Stamps,
    /// The files cannot be used: why, and whether that was logged. Not at once, for they may be in the
    /// middle of a change.
    fault: Option<(String, bool)>,
}

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing that is to be logged.
    Nothing,
    /// The files hold the pair that is in use.
    Same,
    /// Another pair is in use now.
    Anew,
    /// They cannot be used.
    Fault(String),
}

/// What tells a file from its successor: device, inode, size, and the times of its change in nanoseconds.
type Stamp = (u64, u64, u64, i128, i128);
type Stamps = [Option<Stamp>; 2];

impl Certificates {
    /// Reads the pair.
    ///
    /// # Errors
    /// One line for the operator: which file is wrong, and how.
    pub fn load(config: &TlsConfig) -> Result<Certificates, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let stamps = [stamp(&config.cert), stamp(&config.key)];
        let pair = read(&config.cert, &config.key, &provider)?;
        Ok(Certificates(Arc::new(Inner {
            cert: config.cert.clone(),
            key: config.key.clone(),
            provider,
            current: RwLock::new(Arc::new(pair)),
            seen: Mutex::new(Seen {
                stamps,
                fault: None,
            }),
        })))
    }

    /// Shakes hands with the pair that is current then. TLS 1.2 and 1.3, as rustls has them; tickets are
    /// our own to read, so that a client that comes back costs no memory meanwhile.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let fault = |error: rustls::Error| format!("tls: {error}");
        let mut config = ServerConfig::builder_with_provider(self.0.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(fault)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(fault)?;
        Ok(Arc::new(config).into())
    }

    /// Looks at the files now and then, until the future is dropped.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let certificates = self.clone();
            // A file may lie on a network.
            let looked = tokio::task::spawn_blocking(move || certificates.look(false)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at the certificate's files failed");
            }
        }
    }

    /// Looks at the files; takes the pair if it is a new one that can be used. `asked`: by somebody who
    /// wants to know what came of it.
    pub fn look(&self, asked: bool) {
        let cert = self.0.cert.display();
        match self.found(asked) {
            Found::Nothing => {}
            Found::Same => tracing::info!("tls.cert: {cert}: read, it is the one in use"),
            Found::Anew => tracing::info!("tls.cert: {cert}: read anew"),
            Found::Fault(error) => {
                tracing::error!("{error}; the certificate that was read before stays in use");
            }
        }
    }

    fn found(&self, asked: bool) -> Found {
        let inner = &*self.0;
        let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Before reading: what changes meanwhile is seen by the next look.
        let stamps = [stamp(&inner.cert), stamp(&inner.key)];
        // What is at fault may change where no file does: a directory's permissions, a disk.
        if stamps == seen.stamps && seen.fault.is_none() && !asked {
            return Found::Nothing;
        }
        seen.stamps = stamps;
        match read(&inner.cert, &inner.key, &inner.provider) {
            Ok(pair) => {
                seen.fault = None;
                let mut current = inner
                    .current
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let same = current.cert == pair.cert;
                *current = Arc::new(pair);
                match same {
                    false => Found::Anew,
                    true if asked => Found::Same,
                    true => Found::Nothing,
                }
            }
            Err(error) => {
                let (known, said) = match seen.fault.take() {
                    Some((before, said)) if before == error => (true, said),
                    _ => (false, false),
                };
                let says = asked || (known && !said);
                seen.fault = Some((error.clone(), said || says));
                match says {
                    true => Found::Fault(error),
                    false => Found::Nothing,
                }
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self
            .0
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

fn read(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let at = |key: &str, path: &Path, why: &str| format!("tls.{key}: {} {why}", path.display());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes("cert", cert)?)
        .collect::<Result<_, _>>()
        .map_err(|error| at("cert", cert, &format!("is no PEM file: {error}")))?;
    if chain.is_empty() {
        let why = "holds no certificate, `-----BEGIN CERTIFICATE-----` is expected";
        return Err(at("cert", cert, why));
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes("key", key)?).map_err(|error| {
        let why =
            "holds no private key, `-----BEGIN PRIVATE KEY-----` without a password is expected";
        at("key", key, &format!("{why} ({error})"))
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let why = format!(
                "does not belong to the first certificate in {}",
                cert.display()
            );
            at("key", key, &why)
        }
        error => at(
            "key",
            key,
            &format!("cannot be used with {}: {error}", cert.display()),
        ),
    })
}

fn bytes(name: &str, path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_PEM + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("tls.{name}: {} cannot be read: {error}", path.display()))?;
    match bytes.len() as u64 > MOST_PEM {
        true => Err(format!(
            "tls.{name}: {} is larger than {MOST_PEM} bytes, is it a PEM file?",
            path.display()
        )),
        false => Ok(bytes),
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    let nanoseconds = |seconds, rest| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Some((
        data.dev(),
        data.ino(),
        data.size(),
        nanoseconds(data.mtime(), data.mtime_nsec()),
        nanoseconds(data.ctime(), data.ctime_nsec()),
    ))
}

#[cfg(test)]
mod tests;
