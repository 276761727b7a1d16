//! Encoded forms of files: sidecars of the image, and variants of our own in side packs.
mod support;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};
use support::*;

/// Text that compresses, different for each seed.
fn script(seed: u64, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 100);
    while text.len() < length {
        let line = text.len() as u64 + seed;
        text.extend(format!("export function f{line}() {{ return g({seed}, {line}); }}\n").bytes());
    }
    text.truncate(length);
    text
}

fn decode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
        "zstd" => zstd::Decoder::new(bytes)
            .expect("a decoder")
            .read_to_end(&mut out),
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
        other => panic!("coding {other}"),
    }
    .unwrap_or_else(|error| panic!("{coding}: {error}"));
    out
}

fn accepting(coding: &str) -> [(&str, &str); 1] {
    [("Accept-Encoding", coding)]
}

/// Asks until the answer has that Content-Encoding.
async fn encoded(site: &Site, path: &str, coding: &str) -> Response {
    // The thread that encodes is nice to whatever else this machine does.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(60) {
        let answer = site.request("GET", path, &accepting(coding)).await;
        let answer = answer.expect(200);
        if answer.header("content-encoding") == Some(coding) {
            return answer;
        }
        assert_eq!(answer.header("content-encoding"), None);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{path} never comes as {coding}");
}

/// Names of the packs in `blobserve-v1`: bases, side packs.
fn packs_in(ours: &Path) -> (Vec<String>, Vec<String>) {
    let names = std::fs::read_dir(ours.join("packs")).expect("packs");
    let names = names.map(|it| {
        it.expect("a file")
            .file_name()
            .into_string()
            .expect("UTF-8")
    });
    names.partition(|name| !name.contains('+'))
}

fn packs(site: &Site) -> (Vec<String>, Vec<String>) {
    packs_in(&site.blobspace())
}

async fn made(site: &Site, coding: &str) -> u64 {
    let text = site.metrics().request("GET", "/metrics", &[]).await.text();
    let line = format!("blobserve_variants_made_total{{coding=\"{coding}\"}} ");
    let value = text.lines().find_map(|it| it.strip_prefix(&line));
    value.map_or(0, |value| value.parse().expect("a number"))
}

fn settings() -> serde_json::Value {
    json!({"prometheusAddr": "127.0.0.1:0"})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_is_the_file_and_later_ones_are_variants_of_their_own() {
    let registry = Registry::start().await;
    let source = script(1, 60_000);
    let layer = Layer::new().file("app.js", &source);
    registry.push("team/app", "v1", &Image::of(layer));
    let site = Site::start(&[&registry], settings()).await;
    let path = registry.path("team/app:v1", "/app.js");
    let all = "gzip, deflate, br, zstd";

    let first = site.request("GET", &path, &accepting(all)).await;
    let first = first.expect(200);
    assert_eq!(first.header("content-encoding"), None);
    assert_eq!(first.header("vary"), Some("accept-encoding"));
    assert!(first.body == source);

    let mut etags = vec![first.header("etag").unwrap().to_owned()];
    for coding in ["br", "zstd", "gzip"] {
        let variant = encoded(&site, &path, coding).await;
        assert!(decode(coding, &variant.body) == source, "{coding}");
        assert!(variant.body.len() < source.len() / 2, "{coding}");
        assert_eq!(variant.header("vary"), Some("accept-encoding"));
        for same in ["content-type", "last-modified", "cache-control"] {
            assert_eq!(variant.header(same), first.header(same), "{coding}: {same}");
        }
        let etag = variant.header("etag").unwrap();
        assert!(!etags.iter().any(|other| other == etag), "{coding}");
        etags.push(etag.to_owned());

        // HEAD, and the 304 of just this variant.
        let head = site.request("HEAD", &path, &accepting(coding)).await;
        let head = head.expect(200);
        let length = variant.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        assert_eq!(head.header("content-encoding"), Some(coding));
        assert_eq!(head.header("etag"), Some(etag));
        for (tag, status) in [(etag, 304), (etags[0].as_str(), 200)] {
            let fields = [("Accept-Encoding", coding), ("If-None-Match", tag)];
            let again = site.request("GET", &path, &fields).await.expect(status);
            assert_eq!(again.header("vary"), Some("accept-encoding"));
            assert_eq!(again.header("etag"), Some(etag));
            let said = again.header("content-encoding").is_some();
            assert_eq!(said, status == 200, "a 304 describes no content");
        }

        // Ranges: of the file; of the variant that If-Range names; the whole where it names neither.
        let ranged = |if_range: Option<&str>| {
            let mut fields = vec![("Accept-Encoding", coding), ("Range", "bytes=10-19")];
            fields.extend(if_range.map(|tag| ("If-Range", tag)));
            let fields: Vec<(String, String)> = fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let (client, path) = (site.client, path.clone());
            async move {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_str()))
                    .collect();
                client.request("GET", &path, &fields).await
            }
        };
        for tag in [None, Some(etags[0].as_str())] {
            let part = ranged(tag).await.expect(206);
            assert_eq!(part.header("content-encoding"), None);
            assert!(part.body == source[10..20]);
        }
        let part = ranged(Some(etag)).await.expect(206);
        assert_eq!(part.header("content-encoding"), Some(coding));
        assert!(part.body == variant.body[10..20]);
        let total = format!("bytes 10-19/{}", variant.body.len());
        assert_eq!(part.header("content-range"), Some(total.as_str()));
        for other in ["\"other\"", first.header("last-modified").unwrap()] {
            let whole = ranged(Some(other)).await.expect(200);
            assert!(whole.body == variant.body, "{other}");
        }
    }
    // Who says nothing gets the file, and a date names it.
    let plain = site.get(&path).await.expect(200);
    assert_eq!(plain.header("etag"), Some(etags[0].as_str()));
    let date = first.header("last-modified").unwrap();
    let fields = [("Range", "bytes=0-3"), ("If-Range", date)];
    site.request("GET", &path, &fields).await.expect(206);
    // Ours is preferred among equals; each was made once.
    let best = site.get_with(&path, &accepting(all)).await;
    assert_eq!(best.header("content-encoding"), Some("br"));
    let weighed = site.get_with(&path, &accepting("br;q=0.5, gzip")).await;
    assert_eq!(weighed.header("content-encoding"), Some("gzip"));
    for coding in ["br", "zstd", "gzip"] {
        assert_eq!(made(&site, coding).await, 1, "{coding}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_worth_it_is_left_alone() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("noise.txt", noise(9, 40_000))
        .file("small.js", script(2, 300))
        .file("picture.png", script(3, 40_000))
        .file("font.woff2", script(4, 40_000))
        .file("archive.zip", script(5, 40_000))
        .file("data.bin", script(6, 40_000))
        .file("last.js", script(7, 40_000));
    registry.push("team/app", "v1", &Image::of(layer));
    let site = Site::start(&[&registry], settings()).await;
    let path = |file: &str| registry.path("team/app:v1", file);
    let mut identity = [
        "small.js",
        "picture.png",
        "font.woff2",
        "archive.zip",
        "data.bin",
    ]
    .map(|file| (path(&format!("/{file}")), None))
    .to_vec();
    identity.push((path("/noise.txt"), Some("accept-encoding")));
    for round in 0..2 {
        for (path, vary) in &identity {
            let answer = site.get_with(path, &accepting("br")).await.expect(200);
            assert_eq!(answer.header("content-encoding"), None, "{path} {round}");
            assert_eq!(answer.header("vary"), *vary, "{path} {round}");
        }
        // Jobs are done in turn: when this one is there, so would the others be.
        encoded(&site, &path("/last.js"), "br").await;
    }
    assert_eq!(made(&site, "br").await, 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_are_sent_and_hostile_ones_are_not() {
    let registry = Registry::start().await;
    let source = script(1, 20_000);
    let gzip = |bytes: &[u8]| {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&source[..], 1).unwrap();
    let layer = Layer::new()
        .file("good.js", &source)
        .file("good.js.gz", gzip(&source))
        .file("good.js.zst", &zstd)
        .dir("links")
        .symlink("links/good.js", "../good.js")
        .file("outside.js", &source)
        .symlink("outside.js.br", "../../../../etc/passwd")
        .symlink("outside.js.gz", "nowhere")
        .file("directory.js", &source)
        .dir("directory.js.gz")
        .file("empty.js", &source)
        .file("empty.js.gz", "")
        .file("wrong.js", &source)
        .file("wrong.js.gz", "this is not gzip")
        .file("wrong.js.zst", &zstd)
        .file("longer.js", &source[..100])
        .file("longer.js.gz", gzip(&noise(1, 200)))
        .fifo("fifo.js.gz")
        .file("fifo.js", &source)
        .file("photo.png", &source)
        .file("photo.png.gz", gzip(&source));
    registry.push("team/app", "v1", &Image::of(layer));
    let mut only = settings();
    only["encodings"] = json!("sidecars");
    let site = Site::start(&[&registry], only).await;
    let path = |file: &str| registry.path("team/app:v1", file);
    let all = "gzip, br, zstd";
    for (file, accept, coding) in [
        ("/good.js", all, Some("zstd")),
        ("/good.js", "gzip", Some("gzip")),
        ("/good.js", "gzip, zstd;q=0.5", Some("gzip")),
        ("/good.js", "br", None),
        ("/links/good.js", all, Some("zstd")),
        ("/outside.js", all, None),
        ("/directory.js", all, None),
        ("/empty.js", all, None),
        ("/wrong.js", all, Some("zstd")),
        ("/wrong.js", "gzip", None),
        ("/longer.js", all, None),
        ("/fifo.js", all, None),
        ("/photo.png", all, None),
    ] {
        let answer = site.get_with(&path(file), &accepting(accept)).await;
        let answer = answer.expect(200);
        assert_eq!(answer.header("content-encoding"), coding, "{file} {accept}");
        let expected = if file == "/longer.js" {
            &source[..100]
        } else {
            &source
        };
        let body = coding.map_or_else(|| answer.body.clone(), |it| decode(it, &answer.body));
        assert!(body == expected, "{file} {accept}");
        let varies = ["/good.js", "/links/good.js", "/wrong.js"].contains(&file);
        let vary = varies.then_some("accept-encoding");
        assert_eq!(answer.header("vary"), vary, "{file} {accept}");
    }
    // By its own name a sidecar is a file.
    let plain = site.get_with(&path("/good.js.gz"), &accepting(all)).await;
    assert_eq!(plain.header("content-encoding"), None);
    assert!(decode("gzip", &plain.body) == source);
    let variant = site.get_with(&path("/good.js"), &accepting("gzip")).await;
    assert!(variant.body == plain.body);
    assert_ne!(variant.header("content-type"), plain.header("content-type"));
    // Several ranges of encoded bytes cannot be put into one body that says so.
    let etag = variant.header("etag").unwrap();
    let fields = [
        ("Accept-Encoding", "gzip"),
        ("Range", "bytes=0-1,5-6"),
        ("If-Range", etag),
    ];
    let whole = site.request("GET", &path("/good.js"), &fields).await;
    assert!(whole.expect(200).body == variant.body);
    for coding in ["br", "zstd", "gzip"] {
        assert_eq!(made(&site, coding).await, 0, "{coding}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_refuses_the_file_as_it_is_gets_a_variant_or_406() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("app.js", script(1, 9_000))
        .file("tiny.js", "let a = 1;")
        .file("noise.txt", noise(2, 9_000))
        .file("photo.png", noise(1, 9_000));
    for repository in ["team/app", "team/off", "team/page"] {
        registry.push(repository, "v1", &Image::of(layer.clone()));
    }
    let mut settings = settings();
    settings["repos"] = json!({
        registry.name("team/off"): {"encodings": "off"},
        registry.name("team/page"): {"encodings": "sidecars", "notFoundPage": "app.js"},
    });
    let site = Site::start(&[&registry], settings).await;
    let path = registry.path("team/app:v1", "/app.js");
    for refusal in ["identity;q=0", "*;q=0", "deflate, *;q=0"] {
        let answer = site.request("GET", &path, &accepting(refusal)).await;
        let answer = answer.expect_error(406);
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let range = [("Accept-Encoding", "*;q=0"), ("Range", "bytes=0-1")];
    site.request("GET", &path, &range).await.expect_error(406);
    // Who accepts gzip alone waits for it, however many they are; it is made once.
    let strict = ["gzip, *;q=0", "gzip, identity;q=0", "*;q=0, gzip;q=0.1"].repeat(5);
    let answers = strict.into_iter().enumerate().map(|(at, accept)| {
        let (client, path) = (site.client, path.clone());
        tokio::spawn(async move {
            let method = if at % 2 == 0 { "GET" } else { "HEAD" };
            client.request(method, &path, &accepting(accept)).await
        })
    });
    for answer in answers.collect::<Vec<_>>() {
        let answer = answer.await.unwrap().expect(200);
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
    }
    assert_eq!(made(&site, "gzip").await, 1);
    let strict = [("Accept-Encoding", "zstd, *;q=0"), ("Range", "bytes=0-3")];
    let part = site.request("GET", &path, &strict).await.expect(206);
    assert_eq!(part.header("content-encoding"), Some("zstd"));
    assert_eq!(part.body, [0x28, 0xb5, 0x2f, 0xfd]);
    for never in ["/photo.png", "/tiny.js", "/noise.txt"] {
        let path = registry.path("team/app:v1", never);
        let refusal = accepting("gzip, identity;q=0");
        let answer = site.request("HEAD", &path, &refusal).await;
        assert_eq!(answer.status, 406, "{never}");
    }
    // A page for what is not there is sent as it is, whatever is accepted.
    let missing = registry.path("team/page:v1", "/missing");
    for accept in ["gzip", "gzip, identity;q=0"] {
        let answer = site.request("GET", &missing, &accepting(accept)).await;
        assert!(answer.expect(404).body.starts_with(b"export"), "{accept}");
    }
    // Where encodings are off, nothing of the field counts.
    let off = registry.path("team/off:v1", "/app.js");
    for _ in 0..3 {
        let accept = accepting("gzip, identity;q=0");
        let answer = site.get_with(&off, &accept).await.expect(200);
        assert_eq!(answer.header("vary"), None);
        assert_eq!(answer.header("content-encoding"), None);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_variant_waits_until_the_deadline() {
    let registry = Registry::start().await;
    let source = script(1, 24 << 20);
    registry.push(
        "team/app",
        "v1",
        &Image::of(Layer::new().file("app.js", &source)),
    );
    let mut settings = settings();
    settings["timeout"] = json!("60ms");
    let site = Site::start(&[&registry], settings).await;
    let path = registry.path("team/app:v1", "/app.js");
    let patiently = |accept: &'static str| {
        let (client, path) = (site.client, path.clone());
        async move {
            let mut late = 0;
            loop {
                let answer = client.request("HEAD", &path, &accepting(accept)).await;
                if answer.status == 200 {
                    return (late, answer);
                }
                let answer = client.request("GET", &path, &accepting(accept)).await;
                if answer.status == 503 {
                    assert_eq!(answer.text(), "timeout");
                    assert_eq!(answer.header("retry-after"), Some("1"));
                    late += 1;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let (_, plain) = patiently("identity").await;
    assert_eq!(plain.header("content-encoding"), None);
    let (late, strict) = patiently("br, identity;q=0").await;
    assert_eq!(strict.header("content-encoding"), Some("br"));
    assert!(late > 0, "24 MiB are not encoded in 60 ms");
    assert_eq!(made(&site, "br").await, 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modified_files_are_encoded_as_they_are_served() {
    let registry = Registry::start().await;
    let source = [b"const here = '__HERE__';\n".to_vec(), script(1, 9_000)].concat();
    let layer = Layer::new()
        .file("app.js", &source)
        .hardlink("same.js", "app.js")
        // Made of other bytes than those that are served.
        .file("app.js.zst", zstd::encode_all(&source[..], 1).unwrap());
    let mut repos = json!({});
    for (name, text) in [("team/a", "one"), ("team/b", "two"), ("team/c", "")] {
        registry.push(name, "v1", &Image::of(layer.clone()));
        let rule = json!({"path": "app.js", "search": "__HERE__", "replacement": text});
        let rules = if text.is_empty() {
            json!([])
        } else {
            json!([rule])
        };
        repos[registry.name(name)] = json!({ "replacements": rules });
    }
    let mut settings = settings();
    settings["repos"] = repos;
    let site = Site::start(&[&registry], settings).await;
    for (name, text) in [("team/a", "one"), ("team/b", "two"), ("team/c", "__HERE__")] {
        let expected = String::from_utf8(source.clone()).unwrap();
        let expected = expected.replace("__HERE__", text).into_bytes();
        for file in ["/app.js", "/same.js"] {
            let path = registry.path(&format!("{name}:v1"), file);
            for coding in ["br", "zstd"] {
                let answer = encoded(&site, &path, coding).await;
                assert!(decode(coding, &answer.body) == expected, "{path} {coding}");
            }
        }
    }
    // Hard links share a variant; the sidecar of the unmodified file is good for that one name.
    assert_eq!(made(&site, "br").await, 3);
    assert_eq!(made(&site, "zstd").await, 3);
    let (bases, sides) = packs(&site);
    assert_eq!(bases.len(), 1, "{bases:?}");
    let encoded = sides.iter().filter(|name| name.contains("+encoded-"));
    assert!(encoded.count() <= 3, "{sides:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_used_again_after_a_restart_and_never_outlive_their_base() {
    let registry = Registry::start().await;
    let files = 40;
    let mut layer = Layer::new();
    for number in 0..files {
        layer = layer.file(&format!("{number}.js"), script(number, 5_000));
    }
    registry.push("team/app", "v1", &Image::of(layer));
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings["blobSpace"] = json!({"location": directory.path()});
    let ours = directory.path().join("blobserve-v1");

    let site = Site::start(&[&registry], settings.clone()).await;
    let path = |number: u64| registry.path("team/app:v1", &format!("/{number}.js"));
    let mut first = Vec::new();
    for number in 0..files {
        first.push(encoded(&site, &path(number), "br").await.body);
    }
    assert_eq!(made(&site, "br").await, files);
    let (_, sides) = packs_in(&ours);
    assert!(sides.len() <= 6, "merged as they come: {sides:?}");
    site.stop().await;

    let site = Site::start(&[&registry], settings.clone()).await;
    for number in 0..files {
        let again = encoded(&site, &path(number), "br").await.body;
        assert!(again == first[number as usize], "{number}");
    }
    assert_eq!(made(&site, "br").await, 0, "all of them were there");
    site.stop().await;

    // A base that is gone takes its variants with it.
    let (bases, sides) = packs_in(&ours);
    assert_eq!((bases.len(), sides.is_empty()), (1, false));
    std::fs::remove_file(ours.join("packs").join(&bases[0])).unwrap();
    let site = Site::start(&[&registry], settings).await;
    let answer = site.request("GET", &path(0), &accepting("br")).await;
    assert_eq!(answer.expect(200).header("content-encoding"), None);
    encoded(&site, &path(0), "br").await;
    assert_eq!(made(&site, "br").await, 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_count_in_the_bound_and_are_evicted_before_their_base() {
    const MIB: usize = 1 << 20;
    let registry = Registry::start().await;
    // Digits of noise: half of their bytes can be saved.
    let digits: String = noise(1, 4 * MIB)
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect();
    let layer = Layer::new().file("app.js", digits);
    let first = Image::of(layer.file("big.bin", ballast(0, 14 * MIB)));
    let second = Image::of(Layer::new().file("app.js", ballast(1, 14 * MIB + MIB / 2)));
    let pushed = registry.push("team/app", "v0", &first);
    registry.push("team/app", "v1", &second);
    let bound = 40 * MIB as u64;
    let mut settings = settings();
    settings["blobSpace"] = json!({"maxSizeBytes": bound});
    let site = Site::start(&[&registry], settings).await;
    let path = |tag: &str| registry.path(&format!("team/app:{tag}"), "/app.js");
    encoded(&site, &path("v0"), "zstd").await;
    let (bases, sides) = packs(&site);
    assert_eq!((bases.len(), sides.len()), (1, 1));
    // The other image fits beside the base, and not beside base and variants.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    site.get(&path("v0")).await.expect(200);
    site.get(&path("v1")).await.expect(200);
    let mut sides = Vec::new();
    for _ in 0..200 {
        assert!(site.disk().0 <= bound, "{} bytes on disk", site.disk().0);
        sides = packs(&site).1;
        if sides.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(sides.is_empty(), "{sides:?}");
    assert_eq!(packs(&site).0.len(), 2, "both bases are here");
    let answer = site.request("GET", &path("v0"), &accepting("zstd")).await;
    assert_eq!(answer.expect(200).header("content-encoding"), None);
    assert_eq!(registry.count_blob_gets(&pushed.layers[0]), 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encoding_happens_on_a_thread_of_low_priority_that_does_not_serve() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("a.js", script(1, 12 << 20))
        .file("small.js", script(2, 2_000));
    registry.push("team/app", "v1", &Image::of(layer));
    let site = Site::start(&[&registry], settings()).await;
    let path = registry.path("team/app:v1", "/a.js");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, path) = (site.client, path.clone());
        requests.spawn(async move { client.request("GET", &path, &accepting("br")).await });
    }
    while let Some(answer) = requests.join_next().await {
        assert_eq!(answer.unwrap().expect(200).header("content-encoding"), None);
    }
    // It takes long enough that requests are answered meanwhile.
    let small = registry.path("team/app:v1", "/small.js");
    site.get(&small).await.expect(200);
    encoded(&site, &path, "br").await;
    assert_eq!(made(&site, "br").await, 1, "once for all who asked");
    // Other tests of this process have theirs, and may just be starting them.
    let (encoding, others): (Vec<_>, Vec<_>) =
        threads().into_iter().partition(|it| it.name == "encode");
    let own = others.iter().map(|it| it.nice).min().unwrap();
    let worked: Vec<_> = encoding.iter().filter(|it| it.ticks > 0).collect();
    assert!(!worked.is_empty(), "{encoding:?}");
    assert!(worked.iter().all(|it| it.nice == own.max(10)), "{worked:?}");
    site.stop().await;
}

#[derive(Debug)]
struct Thread {
    name: String,
    nice: i64,
    /// Time in user mode.
    ticks: u64,
}

/// The threads of this process, as proc(5) describes them.
fn threads() -> Vec<Thread> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
    let read = |task: std::io::Result<std::fs::DirEntry>| {
        let task = task.ok()?;
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (start, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Thread {
            name: start.split_once('(')?.1.to_owned(),
            ticks: fields[11].parse().ok()?,
            nice: fields[16].parse().ok()?,
        })
    };
    tasks.filter_map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_layers_are_encoded_and_a_lower_sidecar_is_not_of_an_upper_file() {
    let registry = Registry::start().await;
    let (lower, upper, same) = (script(1, 9_000), script(2, 9_000), script(3, 9_000));
    let sidecar = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let base = Layer::new()
        .file("app.js", &lower)
        .file("app.js.zst", sidecar(&lower))
        .file("same.js", &same)
        .file("same.js.zst", sidecar(&same));
    let image = Image::of(base).layer(Layer::new().file("app.js", &upper));
    registry.push("team/app", "v1", &image);
    let mut settings = settings();
    settings["repos"] = json!({registry.name("team/app"): {"layers": "all"}});
    let site = Site::start(&[&registry], settings).await;
    for (file, expected) in [("/app.js", &upper), ("/same.js", &same)] {
        let path = registry.path("team/app:v1", file);
        for coding in ["zstd", "br"] {
            let answer = encoded(&site, &path, coding).await;
            assert!(decode(coding, &answer.body) == *expected, "{file} {coding}");
        }
    }
    assert_eq!(made(&site, "zstd").await, 1, "the other has its sidecar");
    assert_eq!(made(&site, "br").await, 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svgz_is_svg_in_gzip_to_everybody() {
    let registry = Registry::start().await;
    let plain = "<svg xmlns='http://www.w3.org/2000/svg'/>".repeat(100);
    let stored = image::gzip(plain.as_bytes());
    let layer = Layer::new()
        .file("x.svgz", &stored)
        .file("plain.svgz", &plain);
    for name in ["team/app", "team/off"] {
        registry.push(name, "v1", &Image::of(layer.clone()));
    }
    let mut settings = settings();
    settings["repos"] = json!({ registry.name("team/off"): {"encodings": "off"} });
    let site = Site::start(&[&registry], settings).await;
    for image in ["team/app:v1", "team/off:v1"] {
        let path = registry.path(image, "/x.svgz");
        for accept in ["gzip", "br", "identity", ""] {
            let answer = site.get_with(&path, &accepting(accept)).await.expect(200);
            assert_eq!(answer.header("content-type"), Some("image/svg+xml"));
            assert_eq!(answer.header("content-encoding"), Some("gzip"), "{accept}");
            assert_eq!(answer.header("vary"), None);
            assert!(decode("gzip", &answer.body) == plain.as_bytes());
        }
        let range = [("Range", "bytes=0-1")];
        let part = site.request("GET", &path, &range).await.expect(206);
        assert_eq!(part.header("content-encoding"), Some("gzip"));
        assert_eq!(part.body, [0x1f, 0x8b]);
        let path = registry.path(image, "/plain.svgz");
        let answer = site.request("GET", &path, &[]).await.expect(200);
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.text(), plain);
    }
    site.stop().await;
}
