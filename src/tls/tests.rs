use super::*;
use std::os::unix::fs::symlink;

/// A certificate for `name` and its key, as PEM.
fn pair(name: &str) -> (String, String) {
    let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (own.cert.pem(), own.signing_key.serialize_pem())
}

struct Files(tempfile::TempDir);

impl Files {
    fn new((cert, key): &(String, String)) -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        files.write("cert.pem", cert);
        files.write("key.pem", key);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn config(&self) -> TlsConfig {
        TlsConfig {
            cert: self.path("cert.pem"),
            key: self.path("key.pem"),
            listen: Vec::new(),
            only: false,
        }
    }
}

/// The certificate that a client would get, as PEM would have it.
fn served(certificates: &Certificates) -> CertificateDer<'static> {
    let current = certificates.0.current.read().unwrap();
    current.cert[0].clone()
}

fn der((cert, _): &(String, String)) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()
}

fn unsaid(certificates: &Certificates) -> Option<String> {
    certificates.0.seen.lock().unwrap().unsaid.clone()
}

#[test]
fn files_that_are_replaced_are_read_anew_however_that_is_done() {
    let (first, second, third) = (pair("a"), pair("b"), pair("c"));
    let files = Files::new(&first);
    let certificates = Certificates::load(&files.config()).unwrap();
    certificates.acceptor().unwrap();
    assert_eq!(served(&certificates), der(&first));
    certificates.look();
    assert_eq!(served(&certificates), der(&first));
    // In place.
    files.write("cert.pem", &second.0);
    files.write("key.pem", &second.1);
    certificates.look();
    assert_eq!(served(&certificates), der(&second));
    // By renaming.
    files.write("new", &third.0);
    std::fs::rename(files.path("new"), files.path("cert.pem")).unwrap();
    files.write("new", &third.1);
    std::fs::rename(files.path("new"), files.path("key.pem")).unwrap();
    certificates.look();
    assert_eq!(served(&certificates), der(&third));
}

#[test]
fn a_swapped_symlink_of_a_directory_is_noticed() {
    let (first, second) = (pair("a"), pair("b"));
    let files = Files(tempfile::tempdir().unwrap());
    // As the kubelet lays out a secret: name → ..data/name, ..data → a directory with a date.
    for (directory, (cert, key)) in [("..1", &first), ("..2", &second)] {
        std::fs::create_dir(files.path(directory)).unwrap();
        files.write(&format!("{directory}/cert.pem"), cert);
        files.write(&format!("{directory}/key.pem"), key);
    }
    symlink("..1", files.path("..data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{name}"), files.path(name)).unwrap();
    }
    let certificates = Certificates::load(&files.config()).unwrap();
    assert_eq!(served(&certificates), der(&first));
    symlink("..2", files.path("..data_tmp")).unwrap();
    std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    std::fs::remove_dir_all(files.path("..1")).unwrap();
    certificates.look();
    assert_eq!(served(&certificates), der(&second));
}

#[test]
fn a_broken_pair_leaves_the_old_one_and_is_said_once() {
    let (first, second) = (pair("a"), pair("b"));
    let files = Files::new(&first);
    let certificates = Certificates::load(&files.config()).unwrap();
    // Half of a change: a certificate whose key is still the old one.
    files.write("cert.pem", &second.0);
    certificates.look();
    assert_eq!(served(&certificates), der(&first));
    let said = unsaid(&certificates).unwrap();
    assert!(
        said.contains("does not belong to the first certificate"),
        "{said}"
    );
    // The other half in time: nothing to say.
    files.write("key.pem", &second.1);
    certificates.look();
    assert_eq!(served(&certificates), der(&second));
    assert_eq!(unsaid(&certificates), None);
    // Broken, and still so at the next look: said then, and not again.
    files.write("cert.pem", "no certificate");
    certificates.look();
    assert!(unsaid(&certificates).is_some());
    for _ in 0..2 {
        certificates.look();
        assert_eq!(unsaid(&certificates), None);
        assert_eq!(served(&certificates), der(&second));
    }
    // Files that are gone are no reason to stop, either.
    std::fs::remove_file(files.path("key.pem")).unwrap();
    certificates.look();
    assert_eq!(served(&certificates), der(&second));
    files.write("cert.pem", &first.0);
    files.write("key.pem", &first.1);
    certificates.look();
    assert_eq!(served(&certificates), der(&first));
}

#[test]
fn what_cannot_be_used_is_named() {
    let (first, second) = (pair("a"), pair("b"));
    let table = [
        (
            first.0.as_str(),
            second.1.as_str(),
            "tls.key: ",
            "does not belong to the first certificate in ",
        ),
        ("", &first.1, "tls.cert: ", "holds no certificate"),
        (&first.1, &first.1, "tls.cert: ", "holds no certificate"),
        (&first.0, "", "tls.key: ", "holds no private key"),
        (&first.0, &first.0, "tls.key: ", "holds no private key"),
        (
            "-----BEGIN CERTIFICATE-----\n!\n",
            &first.1,
            "tls.cert: ",
            "is no PEM file",
        ),
    ];
    for (cert, key, start, why) in table {
        let files = Files::new(&(cert.to_owned(), key.to_owned()));
        let error = Certificates::load(&files.config()).unwrap_err();
        assert!(error.starts_with(start) && error.contains(why), "{error}");
    }
    let files = Files::new(&first);
    std::fs::remove_file(files.path("key.pem")).unwrap();
    let error = Certificates::load(&files.config()).unwrap_err();
    assert!(error.contains("key.pem cannot be read: "), "{error}");
}
