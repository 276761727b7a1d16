//! Images of our own making, by umoci: OCI layouts of one layer, and more.

use crate::binary::text;
use crate::builds::Build;
use crate::parts::{installed, run};
use crate::support::noise;
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The directory in the image that is served.
pub const WORKDIR: &str = "/srv/site";

/// Where the image's files are on this machine, and the layout with them.
pub struct Layout {
    directory: tempfile::TempDir,
}

impl Layout {
    /// One image `v1` whose `index.html` says `words`, with files of every kind beside it.
    pub fn of_a_site(words: &str) -> Layout {
        installed();
        let layout = Layout {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        let site = layout.path("root").join(WORKDIR.trim_start_matches('/'));
        site_in(&site, words);
        layout.insert();
        layout
    }

    /// One image `v1`, as buildah builds it: a layer of each line that makes one.
    pub fn of_a_build(containerfile: &str, context: &Path) -> Layout {
        installed();
        let layout = Layout {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        let target = format!("oci:{}", layout.image());
        Build::of(containerfile, context).push(&[], &target);
        layout
    }

    /// Adds a layer: this tar.
    pub fn add_tar(&self, tar: &[u8]) {
        let (file, image) = (self.path("layer.tar"), self.image());
        std::fs::write(&file, tar).expect("written");
        run(
            "umoci",
            &["raw", "add-layer", "--image", &image, text(&file)],
            b"",
        );
    }

    /// How many layers the image has.
    pub fn layers(&self) -> usize {
        let said = run("umoci", &["stat", "--json", "--image", &self.image()], b"");
        let stat: Value = serde_json::from_slice(&said).expect("JSON");
        let history = stat["history"].as_array().expect("an array");
        let of_a_layer = |entry: &&Value| entry["layer"].is_object();
        history.iter().filter(of_a_layer).count()
    }

    /// The image `v1` of the files in `root`.
    fn insert(&self) {
        let (image, root) = (self.image(), self.path("root"));
        let oci = self.oci();
        run("umoci", &["init", "--layout", text(&oci)], b"");
        run("umoci", &["new", "--image", &image], b"");
        let mut insert = vec!["insert", "--image", &image];
        if !rustix::process::geteuid().is_root() {
            insert.push("--rootless");
        }
        insert.extend([text(&root), "/"]);
        run("umoci", &insert, b"");
    }

    /// Adds so many layers: each is what `change` does to the unpacked root.
    pub fn add_layers(&self, count: usize, mut change: impl FnMut(&Path)) {
        let bundle = self.path("changing");
        let image = self.image();
        let mut unpack = vec!["unpack", "--image", &image];
        if !rustix::process::geteuid().is_root() {
            unpack.push("--rootless");
        }
        unpack.push(text(&bundle));
        run("umoci", &unpack, b"");
        for _ in 0..count {
            change(&bundle.join("rootfs"));
            let repack = [
                "repack",
                "--refresh-bundle",
                "--image",
                &image,
                text(&bundle),
            ];
            run("umoci", &repack, b"");
        }
    }

    /// The OCI layout's directory.
    pub fn oci(&self) -> PathBuf {
        self.path("oci")
    }

    /// `layout:tag`, as umoci and skopeo name an image.
    pub fn image(&self) -> String {
        format!("{}:v1", self.oci().display())
    }

    /// Unpacks it with umoci; where the image's root is then.
    pub fn unpacked(&self) -> PathBuf {
        let (image, bundle) = (self.image(), self.path("bundle"));
        let mut arguments = vec!["unpack", "--image", &image];
        if !rustix::process::geteuid().is_root() {
            arguments.push("--rootless");
        }
        arguments.push(text(&bundle));
        run("umoci", &arguments, b"");
        bundle.join("rootfs")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// What `index.html` is when the site was made with `words`.
pub fn page(words: &str) -> String {
    format!("<!doctype html><title>{words}</title><p>{words}</p>\n")
}

/// Files, directories, links and names of the kinds that sites have.
pub fn site_in(site: &Path, words: &str) {
    let file = |name: &str, content: &[u8]| {
        let path = site.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("written");
    };
    file("index.html", page(words).as_bytes());
    file("style.css", b"body { margin: 2em }\n");
    file("docs/index.html", page("docs").as_bytes());
    file("docs/a/b/c/d/e/f/deep.txt", b"deep\n");
    file("empty", b"");
    file(
        "assets/app.js",
        "console.log(1);\n".repeat(10_000).as_bytes(),
    );
    file("assets/large.bin", &noise(7, 5 << 20));
    file("names/with space & ? # %41 +.txt", b"odd\n");
    file("names/größe-日本.txt", "日本\n".as_bytes());
    file(&format!("names/{}.txt", "n".repeat(200)), b"long\n");
    for number in 0..500 {
        file(
            &format!("many/{number}.txt"),
            &noise(number, 100 + number as usize),
        );
    }
    let link = |target: &str, name: &str| symlink(target, site.join(name)).expect("a link");
    link("style.css", "relative.css");
    link("../docs/index.html", "docs/up.html");
    link(&format!("{WORKDIR}/assets/app.js"), "absolute.js");
    link("assets", "directory-link");
    link("nowhere", "dangling");
    link("/etc/hostname", "outside");
    link("loop-b", "loop-a");
    link("loop-a", "loop-b");
    std::fs::hard_link(site.join("style.css"), site.join("hard.css")).expect("a hard link");
}
