//! Names as records of a blobspace that keeps few of them.

use super::*;
use crate::blobspace::{RecordKind, Tuning};
use serde_json::json;
use std::time::Duration;
use tempfile::TempDir;

const RECORDS: usize = 64;

fn open(location: &TempDir) -> Arc<Blobspace<Pack>> {
    let tuning = Tuning {
        records: RECORDS,
        record_protection: Duration::ZERO,
        ..Tuning::default()
    };
    Blobspace::open_tuned(location.path(), 0, tuning).unwrap()
}

fn put(blobspace: &Blobspace<Pack>, document: &Value) -> Digest {
    let bytes = serde_json::to_vec(document).unwrap();
    let digest = Digest::sha256(&bytes);
    let name = ledger::name_of(&digest);
    blobspace
        .put_record(RecordKind::Document, &name, &bytes)
        .unwrap();
    digest
}

/// Stores manifest and configuration of an image of that many layers; returns the manifest's digest.
fn image(blobspace: &Blobspace<Pack>, text: &str, layers: usize) -> Digest {
    let digests: Vec<Digest> = (0..layers)
        .map(|number| Digest::sha256(format!("{text} {number}").as_bytes()))
        .collect();
    let diff_ids: Vec<String> = digests.iter().map(Digest::to_string).collect();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "text": text});
    let config = put(blobspace, &config).to_string();
    let layers: Vec<Value> = digests
        .iter()
        .map(|digest| {
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": 10})
        })
        .collect();
    let media_type = "application/vnd.oci.image.config.v1+json";
    put(
        blobspace,
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": media_type, "digest": config, "size": 10},
            "layers": layers,
        }),
    )
}

fn note(names: &Names, reference: &str, manifest: Digest, selected: &[usize]) {
    let meaning = Meaning {
        digest: manifest,
        manifest,
        indexes: Vec::new(),
        selected: selected.to_vec(),
        is_retained: false,
    };
    names.note(&Reference::parse(reference).unwrap(), &meaning);
}

fn references(catalogue: &Catalogue) -> Vec<Vec<String>> {
    let images = catalogue.execute(&Command::List).unwrap();
    images.into_iter().map(|image| image.references).collect()
}

#[test]
fn a_digest_goes_as_the_least_recently_used_and_its_image_with_the_last_reference() {
    let location = TempDir::new().unwrap();
    let blobspace = open(&location);
    let names = Names::new(blobspace.clone());
    let catalogue = Catalogue::new(blobspace.clone());
    let (one, two) = (image(&blobspace, "one", 1), image(&blobspace, "two", 1));
    let exact = |digest: Digest| format!("h.example/app@{digest}");
    note(&names, &exact(one), one, &[0]);
    note(&names, "h.example/app:v1", one, &[0]);
    // The tag moves.
    note(&names, &exact(two), two, &[0]);
    note(&names, "h.example/app:v1", two, &[0]);
    let both = [
        vec!["h.example/app:v1".into(), exact(two)],
        vec![exact(one)],
    ];
    assert_eq!(references(&catalogue), both);
    catalogue
        .execute(&Command::Pin("h.example/app:v1".into()))
        .unwrap();
    for number in 0..2 * RECORDS {
        // Looking is no use; being asked for is.
        references(&catalogue);
        note(&names, &exact(two), two, &[0]);
        let name = format!("filler-{number}");
        blobspace
            .put_record(RecordKind::Origin, &name, b"x")
            .unwrap();
    }
    assert_eq!(
        references(&catalogue),
        [vec!["h.example/app:v1".to_owned(), exact(two)]]
    );
    let found = catalogue.execute(&Command::Show(exact(one))).unwrap_err();
    assert!(found.contains("no image is known"), "{found}");
}

#[test]
fn a_pin_keeps_what_the_selection_of_layers_serves_and_follows_it() {
    let location = TempDir::new().unwrap();
    let blobspace = open(&location);
    let names = Names::new(blobspace.clone());
    let manifest = image(&blobspace, "three", 3);
    let pinned = |selected: &[usize]| {
        note(&names, "h.example/app:v1", manifest, selected);
        let pin = names.pin_of(&names.all()[0]);
        let is_chain = |key: &&crate::blobspace::Key| key.as_str().starts_with("chain-");
        let chains = pin.packs.iter().filter(is_chain).count();
        (pin.packs.len() - chains, chains)
    };
    assert_eq!(pinned(&[0]), (1, 0), "layers: first");
    assert_eq!(pinned(&[0, 2]), (2, 1), "their own merged index");
    assert_eq!(pinned(&[0, 1, 2]), (3, 1));
}
