use super::*;

const DIGEST: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

#[test]
fn spellings_of_one_image_make_one_canonical_key() {
    let d = DIGEST;
    let table: &[(&str, String)] = &[
        ("example.com/a/b:1", "example.com/a/b:1".into()),
        ("EXAMPLE.com/a/b:1", "example.com/a/b:1".into()),
        ("Localhost:5000/a:1", "localhost:5000/a:1".into()),
        ("docker.io/nginx:1", "docker.io/library/nginx:1".into()),
        (
            "docker.io/library/nginx:1",
            "docker.io/library/nginx:1".into(),
        ),
        (
            "index.docker.io/nginx:1",
            "docker.io/library/nginx:1".into(),
        ),
        ("Index.Docker.io/a/b:1", "docker.io/a/b:1".into()),
        (
            "registry-1.docker.io/nginx:1",
            "registry-1.docker.io/nginx:1".into(),
        ),
        ("example.com:443/a:1", "example.com:443/a:1".into()),
        ("[2001:DB8::1]:5000/a:1", "[2001:db8::1]:5000/a:1".into()),
        ("[::1]/a:1", "[::1]/a:1".into()),
        ("LocalDomain/a:1", "LOCALDOMAIN/a:1".into()),
        ("a.b/c:Tag.x-1_2", "a.b/c:Tag.x-1_2".into()),
        (&format!("a.b/c@{d}"), format!("a.b/c@{d}")),
        (&format!("a.b/c:tag@{d}"), format!("a.b/c@{d}")),
    ];
    for (text, canonical) in table {
        let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(reference.to_string(), *canonical, "{text}");
        assert_eq!(
            Reference::parse(canonical).unwrap(),
            reference,
            "{text}: its key is its own key"
        );
        let name = reference.repository.as_str();
        assert_eq!(
            name,
            format!(
                "{}/{}",
                reference.repository.host(),
                reference.repository.path()
            )
        );
        assert_eq!(Repository::parse(name).unwrap(), reference.repository);
    }
}

#[test]
fn a_text_that_is_no_reference_says_why() {
    let long_path = format!("a.b/{}:1", "a/".repeat(127) + "ab");
    let long_tag = format!("a.b/c:{}", "t".repeat(129));
    let long_host = format!("{}a/b:1", "a.".repeat(130));
    let table = [
        ("", "cannot parse image \"\""),
        ("nginx:1", "cannot parse image \"nginx:1\""),
        ("library/nginx:1", "cannot parse image \"library/nginx:1\""),
        ("a.b/c", "\"a.b/c\": tag or digest is missing"),
        ("a.b/C:1", "cannot parse image \"a.b/C:1\""),
        ("a.b/c:", "cannot parse image \"a.b/c:\""),
        ("a.b/c:-x", "cannot parse image \"a.b/c:-x\""),
        ("a.b/c:1:2", "cannot parse image \"a.b/c:1:2\""),
        ("a.b//c:1", "cannot parse image \"a.b//c:1\""),
        ("a.b/../c:1", "cannot parse image \"a.b/../c:1\""),
        ("a.b:x/c:1", "cannot parse image \"a.b:x/c:1\""),
        ("a.b/c:1\n", "cannot parse image \"a.b/c:1\\n\""),
        ("[::1/c:1", "cannot parse image \"[::1/c:1\""),
        (
            "a.b/c@sha256:00",
            "cannot parse image: \"sha256:00\" is not a digest",
        ),
        (
            "a.b/c@md5:00",
            "cannot parse image: digest \"md5:00\" is of an algorithm that is not supported (sha256, sha512)",
        ),
        (&long_path, "cannot parse image \"a.b/a/a"),
        (&long_tag, "cannot parse image \"a.b/c:ttt"),
        (&long_host, "cannot parse image \"a.a.a"),
    ];
    for (text, message) in table {
        let error = Reference::parse(text).expect_err(text).to_string();
        assert!(error.starts_with(message), "{text:?}: {error}");
    }
    assert!(
        Repository::parse("a.b/c:1").is_err(),
        "a repository has no tag"
    );
    assert!(
        Repository::parse(&format!("a.b/c@{DIGEST}")).is_err(),
        "a repository has no digest"
    );
    let message = Reference::parse(&"\u{1b}".repeat(9000))
        .unwrap_err()
        .to_string();
    assert!(
        message.len() < 2500 && !message.contains('\u{1b}'),
        "bounded and escaped"
    );
}

#[test]
fn the_longest_reference_at_the_head_of_a_path_wins() {
    let by_digest = format!("/a.b/c@{DIGEST}/x");
    let both_escaped = format!("/a.b/c%3A1%40{}/x", DIGEST.replace(':', "%3a"));
    let table = [
        (
            "/localhost:5000/a/b:1/x/y",
            "localhost:5000/a/b:1",
            "localhost:5000/a/b:1",
            "/x/y",
        ),
        (
            "/localhost:5000/a:1",
            "localhost:5000/a:1",
            "localhost:5000/a:1",
            "",
        ),
        (
            "/localhost:5000/a:1/",
            "localhost:5000/a:1",
            "localhost:5000/a:1",
            "/",
        ),
        (
            "/localhost:5000/a:1//x//y",
            "localhost:5000/a:1",
            "localhost:5000/a:1",
            "//x//y",
        ),
        (
            "/localhost:5000/a:1/b:2",
            "localhost:5000/a:1",
            "localhost:5000/a:1",
            "/b:2",
        ),
        (
            "/localhost:5000/a:1/b%3A1/x",
            "localhost:5000/a:1",
            "localhost:5000/a:1",
            "/b%3A1/x",
        ),
        (
            "/localhost:5000/a:1/%2e%2e/x@2.png",
            "localhost:5000/a:1",
            "localhost:5000/a:1",
            "/%2e%2e/x@2.png",
        ),
        (
            "/localhost%3a5000/a%3A1/x",
            "localhost:5000/a:1",
            "localhost%3a5000/a%3A1",
            "/x",
        ),
        (
            "/%5B::1%5d:5000/a:1/x",
            "[::1]:5000/a:1",
            "%5B::1%5d:5000/a:1",
            "/x",
        ),
        (
            "/[::1]:5000/a:1/x",
            "[::1]:5000/a:1",
            "[::1]:5000/a:1",
            "/x",
        ),
        (
            "/docker.io/nginx:1/x",
            "docker.io/library/nginx:1",
            "docker.io/nginx:1",
            "/x",
        ),
        ("a.b/c:1/x", "a.b/c:1", "a.b/c:1", "/x"),
        (
            &by_digest,
            &by_digest[1..by_digest.len() - 2],
            &by_digest[1..by_digest.len() - 2],
            "/x",
        ),
        (
            &both_escaped,
            &by_digest[1..by_digest.len() - 2],
            &both_escaped[1..both_escaped.len() - 2],
            "/x",
        ),
    ];
    for (raw, reference, text, path) in table {
        let target = split_target(raw).unwrap_or_else(|error| panic!("{raw}: {error}"));
        assert_eq!(target.reference.to_string(), reference, "{raw}");
        assert_eq!((target.reference_text, target.path), (text, path), "{raw}");
    }
}

#[test]
fn a_path_without_an_image_says_what_is_missing() {
    let table = [
        ("/", "cannot parse image \"\""),
        ("/favicon.ico", "cannot parse image \"favicon.ico\""),
        ("/localhost:5000", "cannot parse image \"localhost:5000\""),
        ("/localhost:5000/", "cannot parse image \"localhost:5000/\""),
        ("/nginx:1/X", "cannot parse image \"nginx:1/X\""),
        ("/nginx:1/x", "\"nginx:1/x\": tag or digest is missing"),
        (
            "/library/nginx:1/x",
            "cannot parse image \"library/nginx:1\"",
        ),
        (
            "//localhost:5000/a:1/x",
            "cannot parse image \"/localhost:5000\"",
        ),
        (
            "/localhost:5000/a",
            "\"localhost:5000/a\": tag or digest is missing",
        ),
        (
            "/localhost%3A5000/a/b/index.HTML",
            "\"localhost:5000/a/b\": tag or digest is missing",
        ),
        (
            "/localhost:5000%2Fa:1/x",
            "cannot parse image \"localhost:5000%2Fa:1/x\"",
        ),
        (
            "/localhost:5000/a%2Fb:1/x",
            "cannot parse image \"localhost:5000/a%2Fb:1\"",
        ),
        (
            "/localhost:5000/%61:1/x",
            "cannot parse image \"localhost:5000/%61:1\"",
        ),
        (
            "/localhost:5000/../a:1/x",
            "cannot parse image \"localhost:5000/../a:1\"",
        ),
        (
            "/a.b/c@2x.png",
            "cannot parse image: \"2x.png\" is not a digest",
        ),
        ("/a.b/c:%", "cannot parse image \"a.b/c:%\""),
        ("/a.b/é:1", "cannot parse image \"a.b/é:1\""),
    ];
    for (raw, message) in table {
        let error = split_target(raw).expect_err(raw).to_string();
        assert_eq!(error, message, "{raw}");
    }
}

#[test]
fn cutting_never_panics_and_the_parts_make_the_path_again() {
    let seed = match std::env::var("BLOBSERVE_SEED") {
        Ok(seed) => seed.parse().expect("BLOBSERVE_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("BLOBSERVE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let pieces = [
        "/",
        "a",
        "a.b",
        "localhost",
        ":",
        ":5000",
        "%3A",
        "%40",
        "%",
        "%2F",
        "@",
        DIGEST,
        "..",
        "é",
        "_",
        "[::1]",
    ];
    let mut cut = 0;
    for _ in 0..20_000 {
        let count = random.usize(1..9);
        let head = ["", "/a.b/c"][random.usize(..2)].to_owned();
        let raw: String = head
            + &(0..count)
                .map(|_| pieces[random.usize(..pieces.len())])
                .collect::<String>();
        if let Ok(target) = split_target(&raw) {
            assert_eq!(
                format!("{}{}", target.reference_text, target.path),
                raw.strip_prefix('/').unwrap_or(&raw)
            );
            assert!(
                target.path.is_empty() || target.path.starts_with('/'),
                "{raw}"
            );
            assert_eq!(
                Reference::parse(&target.reference.to_string()).unwrap(),
                target.reference,
                "{raw}"
            );
            cut += 1;
        }
    }
    assert!(cut > 200, "{cut} of the paths held a reference");
}
