//! Names with any bytes: as files, as directories, in redirects, behind a proxy that strips a prefix.
mod support;
use support::*;
use url::Url;

/// Every byte that can stand in a name.
fn bytes() -> impl Iterator<Item = u8> {
    (1..=255).filter(|byte| *byte != b'/')
}

fn percent(name: &[u8], lower: bool) -> String {
    let one = |byte: &u8| match lower {
        true => format!("%{byte:02x}"),
        false => format!("%{byte:02X}"),
    };
    name.iter().map(one).collect()
}

/// Names that are a byte with letters around it, and some that mean something elsewhere.
fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = bytes().map(|byte| vec![b'n', byte, b'm']).collect();
    let odd: [&[u8]; 12] = [
        b"...",
        b"%2e%2e",
        b"%2F",
        b"http:",
        b"evil.example",
        b"\\\\evil.example",
        b"a\r\nX-Injected: 1",
        b" ",
        b"?q=1#f",
        b"C:",
        b".wh",
        "\u{65e5}\u{672c}".as_bytes(),
    ];
    names.extend(odd.iter().map(|name| name.to_vec()));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_any_bytes_is_one_file_and_one_directory() {
    let registry = Registry::start().await;
    let mut layer = Layer::new().file("index.html", "home");
    for name in names() {
        layer = layer.file_bytes(&[b"file/", name.as_slice()].concat(), &name);
        let index = [b"dir/", name.as_slice(), b"/index.html"].concat();
        layer = layer.file_bytes(&index, &name);
    }
    registry.push("team/odd", "v1", &Image::of(layer));
    let repos = json!({registry.name("team/odd"): {"redirectsFile": true, "headersFile": true}});
    let site = Site::start(&[&registry], json!({ "repos": repos })).await;
    for name in names() {
        let shown = String::from_utf8_lossy(&name).into_owned();
        for lower in [false, true] {
            let path = format!("/file/{}", percent(&name, lower));
            let answer = site.get(&registry.path("team/odd:v1", &path)).await;
            assert_eq!(answer.expect(200).body, name, "{shown:?}");
        }
        let twice = percent(percent(&name, false).as_bytes(), false);
        let path = registry.path("team/odd:v1", &format!("/file/{twice}"));
        site.get(&path).await.expect_error(404);
        let path = registry.path("team/odd:v1", &format!("/dir/{}", percent(&name, true)));
        let answer = site.get(&format!("{path}?a=1&b=%2F")).await.expect(301);
        assert_eq!(answer.header("x-injected"), None);
        let location = answer.header("location").unwrap();
        assert!(
            location.bytes().all(|byte| byte.is_ascii_graphic()),
            "{location}"
        );
        // As clients see it, and those whose proxy has taken a prefix off.
        for base in ["http://host", "http://host/some/prefix"] {
            let asked = Url::parse(&format!("{base}{path}")).unwrap();
            let to = asked.join(location).unwrap();
            let prefix = base.strip_prefix("http://host").unwrap();
            assert_eq!(to.host_str(), Some("host"), "{shown:?}");
            assert_eq!(to.query(), Some("a=1&b=%2F"), "{shown:?}");
            let below = to.path().strip_prefix(prefix).unwrap();
            let answer = site.get(below).await.expect(200);
            assert_eq!(answer.body, name, "{shown:?}");
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_ask_for_a_directory_leads_to_its_one_url() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("index.html", "home")
        .file("docs/index.html", "docs")
        .file("_redirects", "/moved/* /docs/:splat 302\n/up /\n");
    registry.push("team/app", "v1", &Image::of(layer));
    let repos = json!({registry.name("team/app"): {"redirectsFile": true}});
    let site = Site::start(&[&registry], json!({ "repos": repos })).await;
    for (path, target) in [
        ("/docs", "/docs/"),
        ("//docs", "/docs/"),
        ("///docs", "/docs/"),
        ("/./docs", "/docs/"),
        ("/x/../docs", "/docs/"),
        ("/x//../docs", "/docs/"),
        ("/%64ocs", "/docs/"),
        ("/docs/index.html/../../docs", "/docs/"),
        ("/moved", "/docs/"),
        ("/moved/", "/docs/"),
        ("//moved", "/docs/"),
        ("/x/../moved/", "/docs/"),
        ("/moved/index.html", "/docs/index.html"),
        ("//moved//index.html", "/docs/index.html"),
        ("/up", "/"),
        ("//up", "/"),
        ("/up/", "/"),
        ("/x/%2e%2e/up//", "/"),
    ] {
        for prefix in ["", "/some/prefix"] {
            let url = registry.path("team/app:v1", path);
            let answer = site.request("GET", &url, &[]).await;
            assert!(matches!(answer.status, 301 | 302), "{path}: {answer:?}");
            let location = answer.header("location").unwrap();
            let asked = Url::parse(&format!("http://host{prefix}{url}")).unwrap();
            let to = asked.join(location).unwrap();
            let wanted = registry.path("team/app:v1", target);
            assert_eq!(to.path(), format!("{prefix}{wanted}"), "{path}: {location}");
        }
    }
    site.stop().await;
}
