//! `check`: says all that is wrong with a configuration file, without starting.

use crate::config::{self, Config, Loaded, Mode};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

/// Reads the file at `path` as the command of `mode` would. Problems go to standard error, one
/// a line, with exit status 1; otherwise what was odd goes there and a summary to standard
/// output, with exit status 0.
pub fn check(path: &Path, mode: Mode) -> ExitCode {
    let ok = match config::load(path, mode) {
        Ok(loaded) => report(
            path,
            &loaded,
            &mut io::stdout().lock(),
            &mut io::stderr().lock(),
        )
        .is_ok(),
        Err(error) => {
            // Where standard error is closed, the exit status still says it.
            let _ = writeln!(io::stderr().lock(), "{error}");
            false
        }
    };
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn report(
    path: &Path,
    loaded: &Loaded,
    out: &mut dyn Write,
    odd: &mut dyn Write,
) -> io::Result<()> {
    let Loaded { config, warnings } = loaded;
    for warning in warnings {
        writeln!(odd, "warning: {warning}")?;
    }
    for note in absent(config) {
        writeln!(odd, "note: {note}")?;
    }
    writeln!(out, "{}: ok", path.display())?;
    let any_of = |addresses: &[SocketAddr]| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        addresses.join(", else ")
    };
    if !config.tls.as_ref().is_some_and(|tls| tls.only) {
        writeln!(out, "  listens on {}", any_of(&config.listen))?;
    }
    if let Some(tls) = &config.tls {
        writeln!(out, "  listens on {} with TLS", any_of(&tls.listen))?;
    }
    let others = if config.allow_any_repo {
        ", and any other"
    } else {
        ""
    };
    writeln!(
        out,
        "  repositories: {} configured{others}",
        config.repos.len()
    )?;
    let bound = match config.blob_space.max_size_bytes {
        0 => "without a bound".to_owned(),
        bytes => format!("at most {bytes} bytes"),
    };
    let kept = match config.blob_space.keep_compressed_bytes {
        0 => String::new(),
        bytes => format!("\n  compressed layers are kept, at most {bytes} bytes of that"),
    };
    writeln!(
        out,
        "  packs in {}, {bound}{kept}",
        config.blob_space.location.display()
    )
}

/// Files that the configuration names and that are not there: wrong when it starts here, and
/// right when it is checked on another machine.
fn absent(config: &Config) -> Vec<String> {
    let mut named = vec![("dockerAuth".to_owned(), config.docker_auth.as_ref())];
    if let Some(tls) = &config.tls {
        named.push(("tls.cert".to_owned(), Some(&tls.cert)));
        named.push(("tls.key".to_owned(), Some(&tls.key)));
    }
    for (host, registry) in &config.registries {
        named.push((format!("registries.{host:?}.ca"), registry.ca.as_ref()));
        named.push((
            format!("registries.{host:?}.layout"),
            registry.layout.as_ref(),
        ));
        named.push((
            format!("registries.{host:?}.archive"),
            registry.archive.as_ref(),
        ));
    }
    let note = |(key, path): (String, Option<&std::path::PathBuf>)| {
        let path = path.filter(|path| !path.exists())?;
        Some(format!(
            "{key}: {} is not there on this machine",
            path.display()
        ))
    };
    named.into_iter().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> (String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        let loaded = config::load(&path, Mode::Serve).unwrap_or_else(|error| panic!("{error}"));
        let (mut out, mut odd) = (Vec::new(), Vec::new());
        report(Path::new("config.yaml"), &loaded, &mut out, &mut odd).unwrap();
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(odd).unwrap(),
        )
    }

    #[test]
    fn a_sound_file_is_summed_up() {
        let (out, odd) = texts(
            "blobserve:\n  port: 81\n  allowAnyRepo: true\n  blobSpace: {location: /x, maxSizeBytes: 7, keepCompressedBytes: 3}\n",
        );
        let summary = "config.yaml: ok\n  listens on 127.0.0.1:81\n  repositories: 0 configured, and any other\n  packs in /x, at most 7 bytes\n  compressed layers are kept, at most 3 bytes of that\n";
        assert_eq!((out.as_str(), odd.as_str()), (summary, ""));
    }

    #[test]
    fn a_named_file_that_is_absent_is_a_note() {
        let (out, odd) = texts("blobserve:\n  registries:\n    a.b:\n      layout: gone\n");
        assert!(out.contains("ok"), "{out}");
        assert!(
            odd.contains("warning: ")
                && odd.contains("note: registries.\"a.b\".layout: /")
                && odd.contains("/gone is not there"),
            "{odd}"
        );
    }

    #[test]
    fn the_exit_status_says_whether_it_is_sound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        let status = |text: &str| {
            std::fs::write(&path, text).unwrap();
            format!("{:?}", check(&path, Mode::Serve))
        };
        assert_eq!(
            status("blobserve: {}\n"),
            format!("{:?}", ExitCode::SUCCESS)
        );
        assert_eq!(
            status("blobserve: {prot: 1}\n"),
            format!("{:?}", ExitCode::FAILURE)
        );
        assert_eq!(
            format!("{:?}", check(Path::new("/nowhere"), Mode::Serve)),
            format!("{:?}", ExitCode::FAILURE)
        );
    }
}
