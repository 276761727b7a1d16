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

#[test]
fn files_that_are_replaced_are_read_anew_however_that_is_done() {
    let (first, second, third) = (pair("a"), pair("b"), pair("c"));
    let files = Files::new(&first);
    let certificates = Certificates::load(&files.config()).unwrap();
    certificates.acceptor().unwrap();
    assert_eq!(served(&certificates), der(&first));
    certificates.look(false);
    assert_eq!(served(&certificates), der(&first));
    // In place.
    files.write("cert.pem", &second.0);
    files.write("key.pem", &second.1);
    certificates.look(false);
    assert_eq!(served(&certificates), der(&second));
    // By renaming.
    files.write("new", &third.0);
    std::fs::rename(files.path("new"), files.path("cert.pem")).unwrap();
    files.write("new", &third.1);
    std::fs::rename(files.path("new"), files.path("key.pem")).unwrap();
    certificates.look(false);
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
    certificates.look(false);
    assert_eq!(served(&certificates), der(&second));
}

/// Whether a fault that was found is the one with these words.
#[track_caller]
fn is_fault(found: &Found, words: &str) {
    assert!(
        matches!(found, Found::Fault(text) if text.contains(words)),
        "{found:?}, not {words:?}"
    );
}

#[test]
fn a_broken_pair_leaves_the_old_one_and_each_fault_is_said_once() {
    let (first, second) = (pair("a"), pair("b"));
    let files = Files::new(&first);
    let certificates = Certificates::load(&files.config()).unwrap();
    // Half of a change: a certificate whose key is still the old one.
    files.write("cert.pem", &second.0);
    assert_eq!(certificates.found(false), Found::Nothing);
    assert_eq!(served(&certificates), der(&first));
    // The other half in time: nothing to say but that.
    files.write("key.pem", &second.1);
    assert_eq!(certificates.found(false), Found::Anew);
    assert_eq!(served(&certificates), der(&second));
    // Broken, and still so at the next look: said then, and not again.
    files.write("cert.pem", "no certificate");
    assert_eq!(certificates.found(false), Found::Nothing);
    is_fault(&certificates.found(false), "holds no certificate");
    assert_eq!(certificates.found(false), Found::Nothing);
    // Another fault is another line; so is the first one when it comes back.
    files.write("cert.pem", &first.0);
    for words in ["does not belong to", "holds no certificate"] {
        assert_eq!(certificates.found(false), Found::Nothing, "{words}");
        is_fault(&certificates.found(false), words);
        assert_eq!(certificates.found(false), Found::Nothing, "{words}");
        files.write("cert.pem", "no certificate");
    }
    assert_eq!(served(&certificates), der(&second));
    // Files that are gone are no reason to stop, either.
    std::fs::remove_file(files.path("key.pem")).unwrap();
    assert_eq!(certificates.found(false), Found::Nothing);
    assert_eq!(served(&certificates), der(&second));
    files.write("cert.pem", &first.0);
    files.write("key.pem", &first.1);
    assert_eq!(certificates.found(false), Found::Anew);
    assert_eq!(served(&certificates), der(&first));
}

#[test]
fn who_asks_is_told_each_time() {
    let (first, second) = (pair("a"), pair("b"));
    let files = Files::new(&first);
    let certificates = Certificates::load(&files.config()).unwrap();
    assert_eq!(certificates.found(true), Found::Same);
    files.write("cert.pem", &second.0);
    for _ in 0..3 {
        is_fault(&certificates.found(true), "does not belong to");
        // Said already.
        assert_eq!(certificates.found(false), Found::Nothing);
    }
    files.write("key.pem", "");
    is_fault(&certificates.found(true), "holds no private key");
    files.write("key.pem", &second.1);
    assert_eq!(certificates.found(true), Found::Anew);
    assert_eq!(certificates.found(true), Found::Same);
    assert_eq!(served(&certificates), der(&second));
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
