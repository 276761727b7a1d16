//! Builds images, honest and hostile. Equal calls give equal bytes: times, owners and
//! compression are fixed.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// Modification time of every entry, in seconds since 1970, unless [`Layer::mtime`] says otherwise.
pub const MTIME: u64 = 1_700_000_000;

/// The SHA-256 digest of `bytes`, as `sha256:…`.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// How the tar of a layer becomes the bytes that the registry holds.
#[derive(Clone, Debug)]
pub enum Encoding {
    /// One gzip member.
    Gzip,
    /// This many gzip members, one after another.
    Members(usize),
    /// One gzip member without its last bytes.
    Truncated(usize),
    /// One gzip member whose CRC is wrong.
    BadCrc,
    /// A gzip member and then bytes that are none.
    TrailingGarbage(Vec<u8>),
    /// The tar as it is.
    Plain,
    /// This many zstd frames with skippable frames between and behind them.
    Zstd(usize),
    /// These bytes, whatever the tar is.
    Raw(Vec<u8>),
}

/// A layer: tar entries in order, and how they are compressed.
#[derive(Clone, Debug)]
pub struct Layer {
    tar: Vec<u8>,
    end: bool,
    mtime: u64,
    encoding: Encoding,
    media_type: Option<String>,
    annotations: Vec<(String, String)>,
}

impl Default for Layer {
    fn default() -> Layer {
        Layer::new()
    }
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Layer {
        Layer {
            tar: Vec::new(),
            end: true,
            mtime: MTIME,
            encoding: Encoding::Gzip,
            media_type: None,
            annotations: Vec::new(),
        }
    }
    /// Modification time of the entries that follow.
    pub fn mtime(mut self, seconds: u64) -> Layer {
        self.mtime = seconds;
        self
    }
    /// A regular file.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Layer {
        self.entry(b'0', path.as_bytes(), b"", content.as_ref())
    }
    /// A regular file whose name is not UTF-8, or odd otherwise.
    pub fn file_bytes(self, path: &[u8], content: impl AsRef<[u8]>) -> Layer {
        self.entry(b'0', path, b"", content.as_ref())
    }
    /// A directory.
    pub fn dir(self, path: &str) -> Layer {
        self.entry(b'5', path.as_bytes(), b"", b"")
    }
    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(b'2', path.as_bytes(), target.as_bytes(), b"")
    }
    /// A hard link.
    pub fn hardlink(self, path: &str, target: &str) -> Layer {
        self.entry(b'1', path.as_bytes(), target.as_bytes(), b"")
    }
    /// A character device.
    pub fn device(self, path: &str) -> Layer {
        self.entry(b'3', path.as_bytes(), b"", b"")
    }
    /// A named pipe.
    pub fn fifo(self, path: &str) -> Layer {
        self.entry(b'6', path.as_bytes(), b"", b"")
    }
    /// A whiteout: an upper layer says that `path` is gone.
    pub fn whiteout(self, path: &str) -> Layer {
        let (directory, name) = path.rsplit_once('/').map_or(("", path), |(d, n)| (d, n));
        let slash = if directory.is_empty() { "" } else { "/" };
        self.file(&format!("{directory}{slash}.wh.{name}"), "")
    }
    /// An opaque directory: an upper layer says that what lies below it is gone.
    pub fn opaque(self, directory: &str) -> Layer {
        self.file(
            &format!("{}/.wh..wh..opq", directory.trim_end_matches('/')),
            "",
        )
    }
    /// PAX records for the next entry.
    pub fn pax(mut self, records: &[(&str, &str)]) -> Layer {
        let mut content = Vec::new();
        for (key, value) in records {
            content.extend(pax_record(key, value.as_bytes()));
        }
        self.push_entry(b'x', b"PaxHeaders/next", b"", &content);
        self
    }
    /// An entry of any type; names over 100 bytes get a PAX header.
    pub fn entry(mut self, kind: u8, path: &[u8], link: &[u8], content: &[u8]) -> Layer {
        let mut records = Vec::new();
        if path.len() > 100 {
            records.extend(pax_record("path", path));
        }
        if link.len() > 100 {
            records.extend(pax_record("linkpath", link));
        }
        if !records.is_empty() {
            self.push_entry(b'x', b"PaxHeaders/next", b"", &records);
        }
        self.push_entry(kind, path, link, content);
        self
    }
    /// Bytes in the tar as they are: headers of one's own.
    pub fn raw(mut self, bytes: &[u8]) -> Layer {
        self.tar.extend_from_slice(bytes);
        self
    }
    /// Leaves out the two zero blocks at the end.
    pub fn without_end(mut self) -> Layer {
        self.end = false;
        self
    }
    /// `count` files of `size` bytes of noise each, under `directory`.
    pub fn many(mut self, directory: &str, count: usize, size: usize) -> Layer {
        for number in 0..count {
            let content = super::noise(number as u64, size);
            self = self.file(&format!("{directory}/{number}.bin"), content);
        }
        self
    }
    /// How it is compressed; one gzip member unless set.
    pub fn encoding(mut self, encoding: Encoding) -> Layer {
        self.encoding = encoding;
        self
    }
    /// The media type that the manifest states.
    pub fn media_type(mut self, media_type: &str) -> Layer {
        self.media_type = Some(media_type.to_owned());
        self
    }

    /// An annotation of its descriptor.
    pub fn annotation(mut self, name: &str, value: &str) -> Layer {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The uncompressed tar.
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = self.tar.clone();
        if self.end {
            tar.extend_from_slice(&[0; 1024]);
        }
        tar
    }
    /// The bytes that a registry holds.
    pub fn compressed(&self) -> Vec<u8> {
        let tar = self.tar();
        match &self.encoding {
            Encoding::Gzip => gzip(&tar),
            Encoding::Members(count) => tar
                .chunks(tar.len().div_ceil(*count).max(1))
                .flat_map(gzip)
                .collect(),
            Encoding::Truncated(missing) => {
                let mut bytes = gzip(&tar);
                bytes.truncate(bytes.len().saturating_sub(*missing));
                bytes
            }
            Encoding::BadCrc => {
                let mut bytes = gzip(&tar);
                let crc = bytes.len() - 8;
                bytes[crc] ^= 0xff;
                bytes
            }
            Encoding::TrailingGarbage(garbage) => {
                let mut bytes = gzip(&tar);
                bytes.extend_from_slice(garbage);
                bytes
            }
            Encoding::Plain => tar,
            Encoding::Zstd(count) => tar
                .chunks(tar.len().div_ceil(*count).max(1))
                .flat_map(|piece| [zstd(piece), b"\x5a\x2a\x4d\x18\x03\0\0\0toc".to_vec()])
                .flatten()
                .collect(),
            Encoding::Raw(bytes) => bytes.clone(),
        }
    }
    /// The digest of the uncompressed tar.
    pub fn diff_id(&self) -> String {
        sha256(&self.tar())
    }

    fn push_entry(&mut self, kind: u8, path: &[u8], link: &[u8], content: &[u8]) {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8], room: usize| {
            let length = bytes.len().min(room);
            header[at..at + length].copy_from_slice(&bytes[..length]);
        };
        put(0, path, 100);
        put(
            100,
            if kind == b'5' {
                b"0000755\0"
            } else {
                b"0000644\0"
            },
            8,
        );
        put(108, b"0000000\0", 8);
        put(116, b"0000000\0", 8);
        put(124, format!("{:011o}\0", content.len()).as_bytes(), 12);
        put(136, format!("{:011o}\0", self.mtime).as_bytes(), 12);
        put(148, b"        ", 8);
        put(156, &[kind], 1);
        put(157, link, 100);
        put(257, b"ustar\x0000", 8);
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.tar.extend_from_slice(&header);
        self.tar.extend_from_slice(content);
        let padding = content.len().next_multiple_of(512) - content.len();
        self.tar.resize(self.tar.len() + padding, 0);
    }
}

/// `length key=value\n`, where length counts its own digits.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length += 1;
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// One gzip member without name or time.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// One zstd frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("writing to memory")
}

/// A gzip of `length` zero bytes in one tar entry's place: a bomb. Made in pieces, so that the
/// test itself does not hold `length` bytes. Returns the compressed bytes and the diff ID.
pub fn bomb(length: u64) -> (Vec<u8>, String) {
    let mut hasher = Sha256::new();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(9));
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        encoder.write_all(bytes).expect("writing to memory");
    };
    let mut header = Layer::new().file("zeros", "").tar;
    header[124..136].copy_from_slice(format!("{length:011o}\0").as_bytes());
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    put(&header);
    let zeros = vec![0u8; 1 << 20];
    let mut left = length.next_multiple_of(512) + 1024;
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        put(&zeros[..now as usize]);
        left -= now;
    }
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let bytes = encoder.finish().expect("writing to memory");
    (bytes, format!("sha256:{hex}"))
}

/// An image: layers and a configuration. Each promise of its manifest can be made a lie.
#[derive(Clone, Debug, Default)]
pub struct Image {
    layers: Vec<Layer>,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    members: Vec<(String, Value)>,
    docker: bool,
    diff_ids: Option<Vec<String>>,
    layer_sizes: Vec<(usize, u64)>,
    config: Option<(String, Vec<u8>)>,
}

/// An image as bytes: what a registry needs to hold it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Digest of the configuration.
    pub config: String,
    /// Digests of the layers as the manifest states them, base first.
    pub layers: Vec<String>,
    /// Configuration and layers by digest.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// An image of one layer.
    pub fn of(layer: Layer) -> Image {
        Image::default().layer(layer)
    }
    /// An image of one layer with an `index.html`.
    pub fn page(html: &str) -> Image {
        Image::of(Layer::new().file("index.html", html))
    }
    /// One more layer.
    pub fn layer(mut self, layer: Layer) -> Image {
        self.layers.push(layer);
        self
    }
    /// A label in its configuration.
    pub fn label(mut self, name: &str, value: &str) -> Image {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }
    /// An annotation of its manifest.
    pub fn annotation(mut self, name: &str, value: &str) -> Image {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }
    /// Docker schema 2 media types instead of OCI's.
    pub fn docker(mut self) -> Image {
        self.docker = true;
        self
    }
    /// States these diff IDs instead of the true ones.
    pub fn diff_ids(mut self, diff_ids: &[&str]) -> Image {
        self.diff_ids = Some(diff_ids.iter().map(|id| (*id).to_owned()).collect());
        self
    }
    /// States this size for a layer instead of the true one.
    pub fn claim_layer_size(mut self, layer: usize, size: u64) -> Image {
        self.layer_sizes.push((layer, size));
        self
    }
    /// A member of its manifest: `artifactType`, `subject`...
    pub fn member(mut self, name: &str, value: Value) -> Image {
        self.members.push((name.to_owned(), value));
        self
    }
    /// Another configuration: an artifact's, or none that can be read.
    pub fn config(mut self, media_type: &str, bytes: &[u8]) -> Image {
        self.config = Some((media_type.to_owned(), bytes.to_owned()));
        self
    }

    /// The image as bytes.
    pub fn build(&self) -> Built {
        let (manifest_type, config_type, layer_type) = if self.docker {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
        } else {
            (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            )
        };
        let diff_ids = self
            .diff_ids
            .clone()
            .unwrap_or_else(|| self.layers.iter().map(Layer::diff_id).collect());
        let labels: Value = pairs(&self.labels);
        let (config_type, config) = self.config.clone().unwrap_or_else(|| {
            let config = json!({
                "architecture": "amd64",
                "os": "linux",
                "config": {"Labels": labels},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            });
            (config_type.to_owned(), config.to_string().into_bytes())
        });
        let mut blobs = vec![(sha256(&config), config.clone())];
        let mut descriptors = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let bytes = layer.compressed();
            let claimed = self.layer_sizes.iter().find(|(at, _)| *at == number);
            let size = claimed.map_or(bytes.len() as u64, |(_, size)| *size);
            let mut descriptor = json!({
                "mediaType": layer.media_type.as_deref().unwrap_or(layer_type),
                "digest": sha256(&bytes),
                "size": size,
            });
            if !layer.annotations.is_empty() {
                descriptor["annotations"] = pairs(&layer.annotations);
            }
            descriptors.push(descriptor);
            blobs.push((sha256(&bytes), bytes));
        }
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": blobs[0].0, "size": config.len()},
            "layers": descriptors,
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = pairs(&self.annotations);
        }
        for (name, value) in &self.members {
            manifest[name] = value.clone();
        }
        let manifest = manifest.to_string().into_bytes();
        Built {
            digest: sha256(&manifest),
            media_type: manifest_type.to_owned(),
            config: blobs[0].0.clone(),
            layers: blobs[1..]
                .iter()
                .map(|(digest, _)| digest.clone())
                .collect(),
            manifest,
            blobs,
        }
    }
}

fn pairs(pairs: &[(String, String)]) -> Value {
    let map = pairs
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)));
    Value::Object(map.collect())
}

/// An index: images of several platforms, attestations among them.
#[derive(Clone, Debug, Default)]
pub struct Index {
    entries: Vec<(Value, Built)>,
    /// What indexes in the index lead to.
    nested: Vec<Built>,
    docker: bool,
}

impl Index {
    /// An index without entries.
    pub fn new() -> Index {
        Index::default()
    }
    /// A Docker manifest list instead of an OCI index.
    pub fn docker(mut self) -> Index {
        self.docker = true;
        self
    }
    /// An image for `os/architecture[/variant]`.
    pub fn image(mut self, platform: &str, image: &Image) -> Index {
        let mut parts = platform.split('/');
        let mut value = json!({"os": parts.next(), "architecture": parts.next()});
        if let Some(variant) = parts.next() {
            value["variant"] = json!(variant);
        }
        self.entries
            .push((json!({"platform": value}), image.build()));
        self
    }
    /// An index in the index, without a platform.
    pub fn index(mut self, index: &Index) -> Index {
        let (manifest, media_type, images) = index.build();
        let nested = Built {
            digest: sha256(&manifest),
            media_type,
            config: String::new(),
            layers: Vec::new(),
            manifest,
            blobs: Vec::new(),
        };
        self.entries.push((json!({}), nested));
        self.nested.extend(images);
        self
    }
    /// BuildKit's attestation for the last image.
    pub fn attestation(mut self) -> Index {
        let about = self.entries.last().map(|(_, built)| built.digest.clone());
        let extra = json!({
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": about,
            },
        });
        let image = Image::of(Layer::new().file("attestation.json", "{}"));
        self.entries.push((extra, image.build()));
        self
    }
    /// The index as bytes and the images in it.
    pub fn build(&self) -> (Vec<u8>, String, Vec<Built>) {
        let media_type = if self.docker {
            "application/vnd.docker.distribution.manifest.list.v2+json"
        } else {
            "application/vnd.oci.image.index.v1+json"
        };
        let manifests: Vec<Value> = self
            .entries
            .iter()
            .map(|(extra, built)| {
                let mut entry = extra.clone();
                entry["mediaType"] = json!(built.media_type);
                entry["digest"] = json!(built.digest);
                entry["size"] = json!(built.manifest.len());
                entry
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let images = self.entries.iter().map(|(_, built)| built.clone());
        let images = images.chain(self.nested.iter().cloned());
        (
            index.to_string().into_bytes(),
            media_type.to_owned(),
            images.collect(),
        )
    }
}
