//! `tls` and `accessLog`: how clients reach us, and what is written down of it.

use super::decode::Reader;
use super::schema::path;
use super::tree::Node;
use super::{AccessFormat, AccessLogConfig, TlsConfig, units};
use std::path::Path;

pub(super) const TLS: &[&str] = &["cert", "key", "address", "only"];
pub(super) const ACCESS_LOG: &[&str] = &["format", "file"];
/// Beside the 8080 of cleartext.
const TLS_ADDRESS: &str = ":8443";

pub(super) fn tls(reader: &mut Reader<'_>, node: &Node, base: &Path) -> Option<TlsConfig> {
    let section = reader.section(node, "tls", TLS, |_| None);
    let mode = reader.mode;
    let cert = path(reader, section.get("cert"), base);
    let key = path(reader, section.get("key"), base);
    let given = reader.word(section.get("address"), |text| units::address(text, mode));
    let only = reader.flag(section.get("only")).unwrap_or(false);
    match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsConfig {
            cert,
            key,
            listen: given.unwrap_or_else(|| units::address(TLS_ADDRESS, mode).unwrap_or_default()),
            only,
        }),
        (None, None) if !only => None,
        (cert, _) => {
            let missing = if cert.is_some() { "key" } else { "cert" };
            let message = "is missing: TLS takes a certificate (`cert`) and its private key (`key`), both PEM files";
            reader.error(section.line, &section.path_of(missing), message);
            None
        }
    }
}

pub(super) fn access_log(
    reader: &mut Reader<'_>,
    node: &Node,
    base: &Path,
) -> Option<AccessLogConfig> {
    let section = reader.section(node, "accessLog", ACCESS_LOG, |_| None);
    let format = reader.text(section.get("format"), format);
    let file = path(reader, section.get("file"), base);
    if format.is_none() && file.is_some() && section.get("format").is_none() {
        let message = "without `format` nothing is logged: set `format` to `combined` or `json`, or remove this";
        reader.warn(section.line, &section.path_of("file"), message);
    }
    Some(AccessLogConfig {
        format: format?,
        file,
    })
}

fn format(text: &str) -> Result<AccessFormat, String> {
    match text {
        "combined" => Ok(AccessFormat::Combined),
        "json" => Ok(AccessFormat::Json),
        _ => Err(format!("{text:?} is not known, write `combined` or `json`")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccessFormat, AccessLogConfig, Loaded, Mode, TlsConfig, parse};

    fn read(text: &str) -> Result<Loaded, String> {
        let text = format!("blobserve:\n  allowAnyRepo: true\n{text}");
        parse(&text, "/etc/b/config.yaml", Mode::Serve).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_reach_their_fields_and_absence_means_off() {
        let config = read("").unwrap().config;
        assert_eq!((config.tls, config.access_log), (None, None));
        let text = "  tls: {cert: a.pem, key: /k.pem}\n  accessLog: {format: json, file: log}\n";
        let config = read(text).unwrap().config;
        let tls = TlsConfig {
            cert: "/etc/b/a.pem".into(),
            key: "/k.pem".into(),
            listen: vec!["127.0.0.1:8443".parse().unwrap()],
            only: false,
        };
        let access_log = AccessLogConfig {
            format: AccessFormat::Json,
            file: Some("/etc/b/log".into()),
        };
        assert_eq!(
            (config.tls, config.access_log),
            (Some(tls), Some(access_log))
        );
        let text = "  tls: {cert: c, key: k, address: '[::1]:1', only: true}\n  accessLog: {format: combined}\n";
        let config = read(text).unwrap().config;
        let tls = config.tls.unwrap();
        assert_eq!(
            (tls.listen, tls.only),
            (vec!["[::1]:1".parse().unwrap()], true)
        );
        let access_log = config.access_log.unwrap();
        assert_eq!(access_log.format, AccessFormat::Combined);
        assert_eq!(access_log.file, None);
    }

    #[test]
    fn halves_are_refused_and_what_does_nothing_is_told() {
        for (text, expected) in [
            ("  tls: {cert: c}\n", "tls.key: is missing: TLS takes"),
            ("  tls: {key: k}\n", "tls.cert: is missing: TLS takes"),
            ("  tls: {only: true}\n", "tls.cert: is missing: TLS takes"),
            (
                "  tls: {cert: c, key: k, address: host:1}\n",
                "tls.address: ",
            ),
            (
                "  accessLog: {format: common}\n",
                "accessLog.format: \"common\" is not known, write `combined` or `json`",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let warnings = read("  accessLog: {file: log}\n").unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("accessLog.file: without `format` nothing is logged"),
            "{warnings:?}"
        );
    }
}
