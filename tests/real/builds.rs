//! Images that buildah builds, without a daemon.

use crate::binary::text;
use crate::parts::installed;
use std::path::Path;
use std::process::Command;

/// A built image, in storage of its own.
pub struct Build {
    storage: tempfile::TempDir,
    /// Overlays cost what changes, and directories that are replaced become opaque ones; where the
    /// kernel has none for us, every layer is a copy of all.
    driver: &'static str,
}

impl Build {
    /// Builds it: a layer of each line that makes one.
    pub fn of(containerfile: &str, context: &Path) -> Build {
        installed();
        let mut build = Build {
            storage: tempfile::tempdir().expect("a temporary directory"),
            driver: "overlay",
        };
        if build.try_run(&["info"]).is_err() {
            build.driver = "vfs";
        }
        let file = build.storage.path().join("Containerfile");
        std::fs::write(&file, containerfile).expect("written");
        build.run(&[
            "build-using-dockerfile",
            "--quiet",
            "--layers",
            "--isolation=chroot",
            "--format=oci",
            "--tag=built",
            "--file",
            text(&file),
            text(context),
        ]);
        build
    }

    /// Pushes it, as skopeo names a place.
    pub fn push(&self, options: &[&str], target: &str) {
        let command = ["push", "--quiet", "--tls-verify=false"];
        self.run(&[&command, options, &["built", target]].concat());
    }

    fn run(&self, arguments: &[&str]) {
        if let Err(message) = self.try_run(arguments) {
            panic!("buildah {arguments:?} ({}): {message}", self.driver);
        }
    }

    fn try_run(&self, arguments: &[&str]) -> Result<(), String> {
        let path = |name: &str| self.storage.path().join(name);
        let output = Command::new("buildah")
            .args(["--storage-driver", self.driver])
            .args(["--root", text(&path("root"))])
            .args(["--runroot", text(&path("run"))])
            .args(arguments)
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}
