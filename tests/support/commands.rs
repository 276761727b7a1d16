//! `blobserve images` and `blobserve image …`, run as commands.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A configuration file that names the site's blobspace, and a directory to keep it in.
pub struct Commands {
    _directory: tempfile::TempDir,
    config: PathBuf,
}

impl Commands {
    /// The commands on the blobspace of a site: its [`super::Site::blobspace`].
    pub fn on(own: &Path) -> Commands {
        let directory = tempfile::tempdir().expect("it works");
        let config = directory.path().join("config.json");
        let location = own.parent().expect("it works");
        let text =
            json!({"blobserve": {"allowAnyRepo": true, "blobSpace": {"location": location}}});
        std::fs::write(&config, text.to_string()).expect("it works");
        Commands {
            _directory: directory,
            config,
        }
    }
    /// Exit code and output.
    pub fn text(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let config = self.config.to_string_lossy();
        let all = [arguments, &["--config", &config]].concat();
        super::process::Process::run(&all)
    }
    /// Output of a command that succeeds.
    pub fn done(&self, arguments: &[&str]) -> String {
        let (code, text) = self.text(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        text
    }
    /// Output of a command that fails.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let (code, text) = self.text(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {text}");
        text
    }
    /// Output of a command with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// The ID of an image, as the catalogue has it.
pub fn id_of(built: &super::image::Built) -> String {
    let manifest: Value = serde_json::from_slice(&built.manifest).expect("it works");
    manifest["config"]["digest"]
        .as_str()
        .expect("it works")
        .to_owned()
}
