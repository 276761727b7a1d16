//! Which layers can be served: a tar, compressed or not, that is there for everyone.

use super::{Descriptor, essence};

/// Endings of the media types of tars. What is before them differs by origin (OCI, Docker,
/// Helm...), and decides nothing.
const TARS: [&str; 5] = [".tar", ".tar+gzip", ".tar.gzip", ".tar+zstd", ".tar.zstd"];

/// Err says why layers of this media type cannot be served.
fn check_type(media_type: &str) -> Result<(), String> {
    let essence = essence(media_type);
    if essence.ends_with("+encrypted") || essence.contains("+encrypted+") {
        return Err("it is encrypted, which is not supported".into());
    }
    if TARS.iter().any(|tar| essence.ends_with(tar)) {
        return Ok(());
    }
    Err("this media type is not supported".into())
}

/// Err says why the layer cannot be served: its media type, or that it is only to be had from `urls`,
/// which are never fetched (OCI image specification, layer.md, "Non-Distributable Layers"; a
/// registry that holds such a layer itself says no `urls`). How it is compressed is for the bytes
/// to say: media types lie.
pub fn check_layer(layer: &Descriptor) -> Result<(), String> {
    check_type(&layer.media_type)?;
    check_place(layer)
}

/// Err says why the bytes are not to be had from the registry.
fn check_place(layer: &Descriptor) -> Result<(), String> {
    let essence = essence(&layer.media_type);
    let foreign = essence.contains(".nondistributable.") || essence.contains(".foreign.");
    if foreign && !layer.urls.is_empty() {
        return Err(
            "it is not distributable, and the `urls` that it is to be had from are not fetched"
                .into(),
        );
    }
    Ok(())
}

/// What a layer of an artifact is. Paths are clean: relative, no `..`, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A tar of the tree.
    Tar,
    /// A tar of what lies below this directory.
    TarBelow(String),
    /// The bytes of this file.
    File(String),
    /// The empty descriptor: there has to be a layer, and there is nothing to say.
    Nothing,
}

/// Bytes of a title.
const TITLE_BYTES: usize = 4096;

/// Tars of whole trees, as Helm pushes them and pushed them once. What a title says is the archive's name.
const CHARTS: [&str; 2] = [
    "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    "application/tar+gzip",
];

/// What a layer of an artifact is, by its annotations and its media type: ORAS's titles, the paths of the
/// model specification, Helm charts, Wasm modules. A file that nobody named has its digest's name.
///
/// ORAS packs a directory into a tar with gzip and says so by an annotation, whatever media type its user
/// gave it. Its client for Python says it by the media type alone.
pub fn artifact_content(layer: &Descriptor) -> Result<Content, String> {
    check_place(layer)?;
    let essence = essence(&layer.media_type);
    if essence.ends_with("+encrypted") || essence.contains("+encrypted+") {
        return Err("it is encrypted, which is not supported".into());
    }
    let annotation = |name: &str| layer.annotations.get(name);
    let is_tar = TARS.iter().any(|tar| essence.ends_with(tar));
    // The files of a model that lie in a tar have their paths there.
    let model = annotation("org.cncf.model.filepath");
    if CHARTS.contains(&&*essence) || (is_tar && model.is_some()) {
        return Ok(Content::Tar);
    }
    if let Some(title) = annotation("org.opencontainers.image.title") {
        let unpacked = match annotation("io.deis.oras.content.unpack") {
            Some(unpacked) => unpacked == "true",
            None => essence == PYTHONS_DIRECTORY && !is_archive(title),
        };
        let path = clean(title)?;
        return match (unpacked, path.is_empty()) {
            // `oras push … .`
            (true, true) => Ok(Content::Tar),
            (true, false) => Ok(Content::TarBelow(path)),
            (false, _) => named(title, path),
        };
    }
    if is_tar {
        return Ok(Content::Tar);
    }
    if let Some(path) = model {
        return named(path, clean(path)?);
    }
    match &*essence {
        super::EMPTY => Ok(Content::Nothing),
        wasm if wasm == "application/wasm" || wasm.ends_with("+wasm") => {
            Ok(Content::File("module.wasm".into()))
        }
        _ => Ok(Content::File(
            layer.digest.to_string().replacen(':', "-", 1),
        )),
    }
}

/// The media type that ORAS's client for Python gives to directories, and to nothing else by itself.
const PYTHONS_DIRECTORY: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Whether a file of that name is an archive by its name, to be served as it is.
fn is_archive(title: &str) -> bool {
    let name = title.to_ascii_lowercase();
    [".gz", ".tgz", ".tar"]
        .iter()
        .any(|end| name.ends_with(end))
}

fn named(said: &str, path: String) -> Result<Content, String> {
    match path.is_empty() {
        true => {
            let shown: String = said.chars().take(160).collect();
            Err(format!("its name {shown:?} names no file"))
        }
        false => Ok(Content::File(path)),
    }
}

/// A path as an annotation has it, relative; empty: the artifact's root. An absolute one is relative to that.
fn clean(path: &str) -> Result<String, String> {
    let shown: String = path.chars().take(160).collect();
    if path.len() > TITLE_BYTES {
        return Err(format!(
            "its name {shown:?}… is longer than {TITLE_BYTES} bytes"
        ));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(format!("its name {shown:?} climbs with `..`")),
            part if part.contains('\0') => return Err(format!("its name {shown:?} holds a NUL")),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_artifacts_are_files_or_trees_by_what_is_said_of_them() {
        let (tar, title) = ("application/x.tar+gzip", "org.opencontainers.image.title");
        let python = "application/vnd.oci.image.layer.v1.tar+gzip";
        let (unpack, model) = ("io.deis.oras.content.unpack", "org.cncf.model.filepath");
        let file = |path: &str| Ok(Content::File(path.into()));
        let wasm = "application/vnd.wasm.content.layer.v1+wasm";
        let helm = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
        let digest = crate::digest::Digest::sha256(b"");
        let unnamed = format!("sha256-{}", digest.hex());
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<Content, &'a str>);
        let table: &[Row<'_>] = &[
            ("text/plain", &[(title, "a/b.txt")], file("a/b.txt")),
            (
                "text/plain",
                &[(title, "/etc//./passwd")],
                file("etc/passwd"),
            ),
            ("text/plain", &[(title, "a/../b")], Err("climbs")),
            ("text/plain", &[(title, "..")], Err("climbs")),
            ("text/plain", &[(title, "./")], Err("names no file")),
            ("text/plain", &[(title, "a\0b")], Err("NUL")),
            (tar, &[(title, "a.tgz")], file("a.tgz")),
            (
                tar,
                &[(title, "docs"), (unpack, "true")],
                Ok(Content::TarBelow("docs".into())),
            ),
            (tar, &[(title, "docs"), (unpack, "false")], file("docs")),
            // `oras push … docs/:application/vnd.acme.docs.layer.v1+tar`
            (
                "application/vnd.acme.docs.layer.v1+tar",
                &[(title, "docs"), (unpack, "true")],
                Ok(Content::TarBelow("docs".into())),
            ),
            (tar, &[(title, "."), (unpack, "true")], Ok(Content::Tar)),
            (tar, &[(title, "/"), (unpack, "true")], Ok(Content::Tar)),
            (tar, &[(title, ".."), (unpack, "true")], Err("climbs")),
            (tar, &[(title, "docs")], file("docs")),
            (
                python,
                &[(title, "docs")],
                Ok(Content::TarBelow("docs".into())),
            ),
            (python, &[(title, "docs"), (unpack, "false")], file("docs")),
            (python, &[(title, "a.tar.GZ")], file("a.tar.GZ")),
            (python, &[(title, "a.tgz")], file("a.tgz")),
            (
                "application/vnd.oci.image.layer.v1.tar",
                &[(title, "a")],
                file("a"),
            ),
            ("application/tar+gzip", &[], Ok(Content::Tar)),
            (tar, &[(model, "w"), (title, "w")], Ok(Content::Tar)),
            ("x/y", &[(model, "w"), (title, "t")], file("t")),
            ("x/y", &[(model, "../w")], Err("climbs")),
            ("x/y", &[(model, "/")], Err("names no file")),
            (
                "application/vnd.module.wasm.content.layer.v1+wasm",
                &[],
                file("module.wasm"),
            ),
            (tar, &[], Ok(Content::Tar)),
            (tar, &[(model, "weights")], Ok(Content::Tar)),
            ("x/model.v1.raw", &[(model, "w/a.bin")], file("w/a.bin")),
            (helm, &[], Ok(Content::Tar)),
            (helm, &[(title, "chart.tgz")], Ok(Content::Tar)),
            (wasm, &[], file("module.wasm")),
            ("application/wasm", &[(title, "x.wasm")], file("x.wasm")),
            ("application/json", &[], file(&unnamed)),
            (
                "application/vnd.oci.empty.v1+json",
                &[],
                Ok(Content::Nothing),
            ),
            ("a/b.tar+gzip+encrypted", &[], Err("encrypted")),
        ];
        for (media_type, annotations, expected) in table {
            let annotations = annotations.iter();
            let layer = Descriptor {
                media_type: (*media_type).to_owned(),
                digest,
                size: 0,
                urls: Vec::new(),
                annotations: annotations
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            };
            match (artifact_content(&layer), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(&found, expected, "{media_type}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{media_type}: {why}"),
                (found, expected) => panic!("{media_type}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn layers_that_cannot_be_served_are_refused_by_name() {
        let table: &[(&str, &[&str], &str)] = &[
            ("application/vnd.oci.image.layer.v1.tar", &[], ""),
            ("application/vnd.oci.image.layer.v1.tar+gzip", &[], ""),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd; charset=x",
                &[],
                "",
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                &["http://a/"],
                "",
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                &[],
                "encrypted",
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+encrypted",
                &[],
                "encrypted",
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                &["https://mcr.example/x"],
                "not distributable",
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                &["https://mcr.example/x"],
                "not distributable",
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                &[],
                "",
            ),
            ("application/json", &[], "not supported"),
            ("", &[], "not supported"),
        ];
        for (media_type, urls, expected) in table {
            let layer = Descriptor {
                media_type: (*media_type).to_owned(),
                digest: crate::digest::Digest::sha256(b""),
                size: 0,
                urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                annotations: std::collections::BTreeMap::new(),
            };
            match check_layer(&layer) {
                Ok(()) => assert_eq!(*expected, "", "{media_type}"),
                Err(why) => assert!(
                    !expected.is_empty() && why.contains(expected),
                    "{media_type}: {why}"
                ),
            }
        }
    }
}
