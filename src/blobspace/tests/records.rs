//! Records.

use super::*;

#[test]
fn a_record_is_read_back_and_a_torn_or_rotten_one_is_absent_and_removed() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    let path = own(&location).join("records/documents/sha256-ab");
    for damage in [
        (|_| Vec::new()) as fn(Vec<u8>) -> Vec<u8>,
        |bytes| bytes[..bytes.len() - 1].to_vec(),
        |mut bytes| {
            bytes[20] ^= 1;
            bytes
        },
    ] {
        store
            .put_record(RecordKind::Document, "sha256-ab", b"old")
            .unwrap();
        store
            .put_record(RecordKind::Document, "sha256-ab", b"value")
            .unwrap();
        assert_eq!(store.usage().record_bytes, 4096);
        let read = store.record(RecordKind::Document, "sha256-ab");
        assert_eq!(read.as_deref(), Some(&b"value"[..]));
        assert_eq!(store.record(RecordKind::Tag, "sha256-ab"), None);
        fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();
        assert_eq!(store.record(RecordKind::Document, "sha256-ab"), None);
        assert!(!path.exists());
        assert_eq!(store.usage().record_bytes, 0);
    }
    store.put_record(RecordKind::Tag, "t", b"1").unwrap();
    drop(store);
    let store = open(&location, MIB);
    assert_eq!(
        store.record(RecordKind::Tag, "t").as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(store.usage().record_bytes, 4096);
    store.remove_record(RecordKind::Tag, "t");
    assert_eq!(store.record(RecordKind::Tag, "t"), None);
    for wrong in ["", ".", "..", "a/b", "a b", &"x".repeat(129)] {
        assert!(
            store.put_record(RecordKind::Tag, wrong, b"").is_err(),
            "{wrong:?}"
        );
        assert_eq!(store.record(RecordKind::Tag, wrong), None);
    }
    assert_eq!(settled(&store), Usage::default());
}

#[test]
fn the_oldest_records_go_by_count_and_by_bytes_but_not_while_they_are_protected() {
    let unprotected = Tuning {
        records: 4,
        record_protection: Duration::ZERO,
        ..quick()
    };
    // A bound of 1 MiB leaves 128 KiB for records.
    for (tuning, value, kept) in [
        (unprotected.clone(), 10, 4),
        (
            Tuning {
                records: 100,
                ..unprotected.clone()
            },
            32 * KIB - 16,
            4,
        ),
    ] {
        let location = TempDir::new().unwrap();
        let store = open_with(&location, MIB, tuning);
        for number in 0..10 {
            let name = number.to_string();
            store
                .put_record(RecordKind::Document, &name, &vec![1; value])
                .unwrap();
            assert!(store.record(RecordKind::Document, "0").is_some());
        }
        let left = names(own(&location).join("records/documents"));
        assert_eq!(left.len(), kept, "{left:?}");
        assert_eq!((left[0].as_str(), left[kept - 1].as_str()), ("0", "9"));
    }
    let location = TempDir::new().unwrap();
    let protected = Tuning {
        record_protection: Duration::from_secs(120),
        ..unprotected
    };
    let store = open_with(&location, MIB, protected);
    let results: Vec<bool> = (0..6)
        .map(|n| {
            store
                .put_record(RecordKind::Tag, &n.to_string(), b"")
                .is_ok()
        })
        .collect();
    assert_eq!(results, [true, true, true, true, false, false]);
}

#[test]
fn records_and_packs_share_the_bound_and_idle_records_make_room() {
    let location = TempDir::new().unwrap();
    let tuning = Tuning {
        record_protection: Duration::ZERO,
        ..quick()
    };
    let store = open_with(&location, MIB, tuning);
    put(&store, &base("a"), MIB);
    store.put_record(RecordKind::Tag, "t", b"1").unwrap();
    assert!(
        store.get(&base("a")).is_none(),
        "a pack made room for a record"
    );
    put(&store, &base("a"), MIB);
    assert_eq!(
        store.usage().record_bytes,
        0,
        "a record made room for a pack"
    );
    let _lease = store.get(&base("a")).unwrap();
    let error = store.put_record(RecordKind::Tag, "t", b"1").err();
    assert!(matches!(error, Some(BlobspaceError::Full(_))), "{error:?}");
}
