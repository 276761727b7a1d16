//! Which layers of a manifest make the tree that is served. Pure.

use crate::config::LayerSelection;
use crate::oci::Descriptor;

/// The numbers of the layers, ascending. Empty: none is selected.
pub(super) fn select(selection: &LayerSelection, layers: &[Descriptor]) -> Vec<usize> {
    let count = layers.len();
    let is_selected = |number: usize, layer: &Descriptor| match selection {
        LayerSelection::First => number == 0,
        LayerSelection::All => true,
        LayerSelection::Index(wanted) => wanted.iter().any(|wanted| {
            let from_start = usize::try_from(*wanted).ok();
            let from_end = usize::try_from(wanted.unsigned_abs()).ok();
            let wanted = match wanted {
                0.. => from_start,
                _ => from_end.and_then(|back| count.checked_sub(back)),
            };
            wanted == Some(number)
        }),
        LayerSelection::MediaType(glob) => glob.is_match(&layer.media_type),
        LayerSelection::Annotation(name, value) => match (layer.annotations.get(name), value) {
            (Some(has), Some(value)) => has == value,
            (has, _) => has.is_some(),
        },
    };
    let numbered = layers.iter().enumerate();
    numbered
        .filter(|(number, layer)| is_selected(*number, layer))
        .map(|(number, _)| number)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use globset::Glob;

    fn layer(media_type: &str, kind: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(kind.as_bytes()),
            size: 1,
            urls: Vec::new(),
            annotations: [("kind".to_owned(), kind.to_owned())].into(),
        }
    }

    #[test]
    fn layers_are_selected_by_number_media_type_and_annotation() {
        let layers = [
            layer("a/x.tar", "base"),
            layer("a/x.tar+gzip", "site"),
            layer("b/y.tar", "site"),
        ];
        let glob = |text: &str| Glob::new(text).unwrap().compile_matcher();
        let annotation = |name: &str, value: Option<&str>| {
            LayerSelection::Annotation(name.into(), value.map(str::to_owned))
        };
        let table: Vec<(LayerSelection, &[usize])> = vec![
            (LayerSelection::First, &[0]),
            (LayerSelection::All, &[0, 1, 2]),
            (LayerSelection::Index(vec![2, 0]), &[0, 2]),
            (LayerSelection::Index(vec![-1]), &[2]),
            (LayerSelection::Index(vec![-3, -4, 3, i64::MIN]), &[0]),
            (LayerSelection::MediaType(glob("a/*")), &[0, 1]),
            (LayerSelection::MediaType(glob("*.tar")), &[0, 2]),
            (annotation("kind", None), &[0, 1, 2]),
            (annotation("kind", Some("site")), &[1, 2]),
            (annotation("none", None), &[]),
        ];
        for (selection, expected) in table {
            assert_eq!(select(&selection, &layers), expected, "{selection}");
        }
        assert_eq!(select(&LayerSelection::First, &[]), [0; 0]);
    }
}
