//! A disk that is smaller than `maxSizeBytes` promises: a tmpfs of a few MiB. Needs root, as CI has it.

use crate::binary::{Home, text};
use crate::parts::run;
use crate::support::{Image, Layer, Registry, json, noise};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of the disk.
const DISK: usize = 8 << 20;

/// A mounted tmpfs. Unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Disk {
        assert!(
            rustix::process::geteuid().is_root(),
            "mounting a disk needs root: sudo -E make real"
        );
        std::fs::create_dir(&path).expect("a directory");
        let size = format!("size={DISK}");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", text(&path)],
            b"",
        );
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still uses it keeps it; its name goes with the test's directory.
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status();
    }
}

fn image(seed: u64, bytes: usize) -> Image {
    Image::of(
        Layer::new()
            .file("index.html", format!("image {seed}"))
            .file("large.bin", noise(seed, bytes)),
    )
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Waits until nothing is being written: a tag may be, behind the answer.
async fn is_empty(tmp: &Path) {
    let began = Instant::now();
    while !files(tmp).is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "left behind: {:?}",
            files(tmp)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_507_and_leaves_room_for_what_fits() {
    let registry = Registry::start().await;
    let (third, too_large) = (DISK / 3, DISK + (4 << 20));
    for (seed, bytes) in [(1, third), (2, third), (3, too_large), (4, third)] {
        registry.push("team/app", &format!("v{seed}"), &image(seed, bytes));
    }
    let home = Home::new();
    let disk = Disk::mount(home.path("cache"));
    let blobserve = home.serve(&json!({
        "allowAnyRepo": true,
        "blobSpace": {"location": disk.0, "maxSizeBytes": 1 << 30},
        "registries": {registry.host(): registry.settings()},
    }));
    let ours = disk.0.join("blobserve-v1");
    let path = |seed: u64, file: &str| registry.path(&format!("team/app:v{seed}"), file);

    for seed in [1, 2] {
        let index = blobserve.get_expecting(200, &path(seed, "/")).await;
        assert_eq!(index.text(), format!("image {seed}"));
    }
    for _ in 0..2 {
        let refused = blobserve
            .get(&path(3, "/large.bin"))
            .await
            .expect_error(507);
        let words = refused.text();
        assert!(words.contains("full"), "it says what is wrong: {words}");
        assert!(
            !words.contains(text(&disk.0)),
            "and not where its disk is: {words}"
        );
        is_empty(&ours.join("tmp")).await;
    }
    // More than fits at once: the disk's end evicts, since the bound does not.
    for seed in [4, 1, 2, 4, 1, 2] {
        let body = blobserve
            .get_expecting(200, &path(seed, "/large.bin"))
            .await
            .body;
        assert!(body == noise(seed, third), "image {seed}");
        is_empty(&ours.join("tmp")).await;
    }
    assert!(
        files(&ours.join("packs")).len() <= 2,
        "three do not fit on the disk"
    );

    // And a start on a disk that is as full as it gets.
    drop(blobserve);
    let filler = disk.0.join("somebody-elses");
    let free = rustix::fs::statvfs(&disk.0).expect("a file system");
    let bytes = (free.f_bavail * free.f_bsize) as usize;
    std::fs::write(&filler, vec![0; bytes]).expect("written");
    let blobserve = home.start(&["serve", "--config", text(&home.path("blobserve.json"))]);
    for seed in [4, 1] {
        let index = blobserve.get_expecting(200, &path(seed, "/")).await;
        assert_eq!(index.text(), format!("image {seed}"));
    }
    assert!(filler.exists(), "what is not ours stays");
}
