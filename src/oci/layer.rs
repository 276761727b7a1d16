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

#[cfg(test)]
mod tests {
    use super::*;

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
