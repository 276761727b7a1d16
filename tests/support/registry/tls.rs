//! A private CA and a certificate for loopback.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::Write;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Returns what answers TLS connections to 127.0.0.1 and localhost, and the CA's PEM file.
pub fn identity() -> (TlsAcceptor, tempfile::NamedTempFile) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::<String>::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "blobserve test CA");
    let ca_certificate = ca.self_signed(&ca_key).expect("self-signed");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(names)
        .expect("names")
        .signed_by(&leaf_key, &Issuer::new(ca, ca_key))
        .expect("signed");

    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(ca_certificate.pem().as_bytes())
        .expect("written");
    file.flush().expect("written");

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("the key fits the certificate");
    (TlsAcceptor::from(Arc::new(config)), file)
}
