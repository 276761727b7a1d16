//! What a start takes, refuses, removes and keeps.

use super::*;

#[test]
fn a_committed_pack_is_read_back_exactly_also_after_a_restart() {
    let location = TempDir::new().unwrap();
    let bytes = pack(100_001, 3);
    let store = open(&location, MIB);
    assert!(store.get(&base("a")).is_none());
    assert_eq!(write(&store, &base("a"), &bytes).unwrap().bytes, bytes);
    assert_eq!(store.get(&base("a")).unwrap().bytes, bytes);
    let usage = store.usage();
    assert_eq!((usage.packs, usage.sealed_bytes), (1, 102_400));
    assert_eq!((usage.reserved_bytes, usage.leased_bytes), (0, 0));
    drop(store);
    let store = open(&location, MIB);
    assert_eq!(store.get(&base("a")).unwrap().bytes, bytes);
    assert_eq!(store.usage().sealed_bytes, 102_400);
    assert_eq!(names(own(&location).join("tmp")), [""; 0]);
    assert_eq!(fs::metadata(own(&location)).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_second_store_on_the_same_location_says_who_holds_the_lock() {
    let location = TempDir::new().unwrap();
    let _first = open(&location, MIB);
    let error = Blobspace::<Marked>::open_tuned(location.path(), 0, quick())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("blobserve-v1/lock"), "{error}");
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
}

#[test]
fn a_link_or_a_file_in_place_of_the_directory_is_refused() {
    for make in [
        (|path| std::os::unix::fs::symlink("/tmp", path)) as fn(&Path) -> io::Result<()>,
        |path| fs::write(path, b""),
    ] {
        let location = TempDir::new().unwrap();
        make(&own(&location)).unwrap();
        let error = Blobspace::<Marked>::open_tuned(location.path(), 0, quick());
        let error = error.err().unwrap().to_string();
        assert!(error.contains("is not a directory"), "{error}");
    }
}

#[test]
fn what_lies_beside_our_directory_stays_and_what_strayed_into_it_goes() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    put(&store, &base("a"), 10);
    put(&store, &Key::side(&base("a"), "br"), 10);
    drop(store);
    let root = own(&location);
    fs::write(location.path().join("theirs"), b"x").unwrap();
    fs::write(root.join("tmp/5"), b"x").unwrap();
    fs::create_dir_all(root.join("tmp/d/e")).unwrap();
    fs::write(root.join("odd"), b"x").unwrap();
    fs::write(root.join("packs/UPPER.pack"), b"x").unwrap();
    fs::create_dir(root.join("packs/b.pack")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("packs/c.pack")).unwrap();
    fs::write(root.join("packs/gone+br.pack"), b"PACK").unwrap();
    fs::write(root.join("records/tags/a b"), b"x").unwrap();
    let store = open(&location, MIB);
    assert_eq!(store.usage().packs, 2);
    assert_eq!(names(root.join("packs")), ["a+br.pack", "a.pack"]);
    assert_eq!(names(root.join("tmp")), [""; 0]);
    assert_eq!(names(root.join("records/tags")), [""; 0]);
    assert_eq!(names(root), ["boot-id", "lock", "packs", "records", "tmp"]);
    assert!(location.path().join("theirs").exists());
}

#[test]
fn another_boot_drops_what_was_not_durable_and_keeps_the_rest() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    put(&store, &base("a"), 100);
    put(&store, &base("b"), 100);
    put(&store, &Key::side(&base("a"), "x"), 100);
    store.close();
    drop(store);
    let packs = own(&location).join("packs");
    for name in names(packs.clone()) {
        assert!(sync::is_durable(&packs.join(name)));
    }
    fs::set_permissions(packs.join("a.pack"), fs::Permissions::from_mode(0o600)).unwrap();
    // The same boot keeps it, and makes it durable.
    let store = open(&location, MIB);
    assert_eq!(store.usage().packs, 3);
    store.close();
    drop(store);
    assert!(sync::is_durable(&packs.join("a.pack")));
    fs::set_permissions(packs.join("a.pack"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(own(&location).join("boot-id"), b"another\n").unwrap();
    let store = open(&location, MIB);
    assert_eq!(names(packs), ["b.pack"]);
    assert_eq!(store.usage().packs, 1);
    assert_eq!(
        fs::read(own(&location).join("boot-id")).unwrap(),
        fs::read("/proc/sys/kernel/random/boot_id").unwrap()
    );
}

#[test]
fn the_order_of_use_outlives_a_restart_and_a_lower_bound_evicts_by_it() {
    let location = TempDir::new().unwrap();
    let store = open(&location, MIB);
    for name in ["a", "b", "c"] {
        put(&store, &base(name), 256 * KIB);
    }
    drop(store.get(&base("a")).unwrap());
    store.close();
    drop(store);
    let store = open(&location, 600 * KIB);
    assert_eq!(store.usage().sealed_bytes, 512 * KIB as u64);
    assert_eq!(names(own(&location).join("packs")), ["a.pack", "c.pack"]);
}

#[test]
fn a_start_opens_no_pack_however_many_there_are() {
    let location = TempDir::new().unwrap();
    let mut took = Vec::new();
    for count in [1, 1000] {
        drop(open(&location, 0));
        for number in 0..count {
            let path = own(&location).join(format!("packs/p{number}.pack"));
            fs::write(path, b"PACK").unwrap();
        }
        let mut times: Vec<Duration> = (0..5)
            .map(|_| {
                let since = Instant::now();
                let store = open(&location, 0);
                let took = since.elapsed();
                assert_eq!(store.usage().packs, count);
                took
            })
            .collect();
        times.sort();
        took.push(times[2]);
    }
    println!("open: {:?} with 1 pack, {:?} with 1,000", took[0], took[1]);
    let store = open(&location, 0);
    assert!(store.get(&base("p999")).is_some());
    assert_eq!(store.space.lock().mappings, 1);
}
