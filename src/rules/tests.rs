//! Tables of redirects, and random files.

use super::*;

/// `status path?query#fragment`, forced rules first.
fn leads(redirects: &Redirects, target: &str) -> Option<String> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let directory = path.ends_with('/');
    let path = path.trim_matches('/').as_bytes();
    let found = redirects
        .forced(path, directory, query)
        .map(|to| ("!", to))
        .or_else(|| Some(("", redirects.without_file(path, directory, query)?)));
    found.map(|(forced, to)| {
        let status = match to.action {
            Action::Redirect(status) => status,
            Action::Rewrite => 200,
            Action::NotFound => 404,
        };
        let mut text = format!("{status}{forced} /{}", String::from_utf8_lossy(&to.path));
        if to.directory && !to.path.is_empty() {
            text.push('/');
        }
        text += &to
            .query
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        text + &to
            .fragment
            .map(|text| format!("#{text}"))
            .unwrap_or_default()
    })
}

fn parsed(text: &str) -> (Redirects, Vec<usize>) {
    let (redirects, faults) = Redirects::parse(text.as_bytes());
    (redirects, faults.iter().map(|fault| fault.line).collect())
}

#[test]
fn each_rule_leads_where_its_line_says() {
    // A file of rules, then targets and where they lead.
    type Case<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);
    let table: &[Case<'_>] = &[
        (
            "/home /",
            &[
                ("/home", Some("301 /")),
                ("/home/", Some("301 /")),
                ("/home/x", None),
                ("/homes", None),
                ("/home?a=1&b", Some("301 /?a=1&b")),
            ],
        ),
        (
            "# top\r\n\r\n/news\t/blog  302 # why not\r\n/docs/ /guide/ 308!\r\n",
            &[
                ("/news", Some("302 /blog")),
                ("/docs", Some("308! /guide/")),
                ("/docs/", Some("308! /guide/")),
            ],
        ),
        (
            "/news/* /blog/:splat 303",
            &[
                ("/news", Some("303 /blog/")),
                ("/news/", Some("303 /blog/")),
                ("/news/a/b", Some("303 /blog/a/b")),
                ("/news/a/b/", Some("303 /blog/a/b/")),
                ("/newspaper", None),
            ],
        ),
        (
            "/news/:month/:date/:slug /blog/:date/:month/:slug.html 307",
            &[
                ("/news/feb/12/x", Some("307 /blog/12/feb/x.html")),
                ("/news/feb/12", None),
                ("/news/feb/12/x/y", None),
            ],
        ),
        (
            "/app/* /app/index.html 200\n/* /404.html 404",
            &[
                ("/app/settings", Some("200 /app/index.html")),
                ("/else", Some("404 /404.html")),
                ("/", Some("404 /404.html")),
            ],
        ),
        (
            "/store id=:id /blog/:id 301\n/a p=1 q=:q /b?x=:q&y=1#part-:q\n/a p=2 /c",
            &[
                ("/store?id=7", Some("301 /blog/7")),
                ("/store?id=7&more=x", Some("301 /blog/7?more=x")),
                ("/store?more=x&id=a%20b", Some("301 /blog/a b?more=x")),
                ("/store", None),
                ("/store?id=..", None),
                ("/store?id=a%2Fb", None),
                ("/store?id=%00", None),
                (
                    "/a?q=a%26b+c&p=1",
                    Some("301 /b?x=a%26b%20c&y=1#part-a%26b%20c"),
                ),
                ("/a?p=1", None),
                ("/a?p=2", Some("301 /c")),
                ("/a?p=3", None),
            ],
        ),
        (
            // Loops are no rules; the next one holds.
            "/a /a/ 301\n/x/* /x/:splat\n/* /a 302",
            &[
                ("/a", None),
                ("/b", Some("302 /a")),
                ("/x/y", Some("302 /a")),
            ],
        ),
        (
            "/a%20b/\u{fc} /c%20d?e=\u{fc}%20f",
            &[("/a b/\u{fc}", Some("301 /c d?e=%C3%BC%20f"))],
        ),
        (
            "/first /one\n/first /two\n/* /three 302",
            &[("/first", Some("301 /one")), ("/other", Some("302 /three"))],
        ),
        (
            // What is captured makes no dot segment with the text beside it.
            "/d/:a /x/.:a\n/e/:a /x/:a:a",
            &[
                ("/d/b", Some("301 /x/.b")),
                ("/d/.", None),
                ("/e/.", None),
                ("/e/b", Some("301 /x/bb")),
            ],
        ),
    ];
    for (text, cases) in table {
        let (redirects, faults) = parsed(text);
        assert_eq!(faults, [] as [usize; 0], "{text}");
        for (target, wanted) in *cases {
            let found = leads(&redirects, target);
            assert_eq!(found.as_deref(), *wanted, "{target} in {text}");
        }
    }
}

#[test]
fn a_line_that_is_no_rule_is_a_fault_and_the_others_hold() {
    for line in [
        "/a",
        "/a 301",
        "a /b",
        "/a b",
        "/a https://evil.example/",
        "/a http://evil.example/ 200",
        "/a //evil.example",
        "/a /\\evil.example",
        "/a javascript://x",
        "https://example.com/a /b",
        "/a /../b",
        "/a /b/..",
        "/a /%2e%2e/b",
        "/a /b/%2E",
        "/a /b%2fc",
        "/a /b%00",
        "/a /b%zz",
        "/a/../b /c",
        "/a//b /c",
        "/a?x=1 /b",
        "/*/a /b",
        "/a* /b",
        "/a /b 600",
        "/a /b 301!!",
        "/a /b 301 Country=de",
        "/a /:b",
        "/a /b/:splat",
        "/a /b:1",
        "/:a/:a /b",
        "/:a a=:a /b",
        "/a =b /c",
        "/a b=:1 /c",
        "\u{a0}/a /b",
    ] {
        let (redirects, faults) = parsed(&format!("{line}\n/ok /fine\n"));
        assert_eq!(faults, [1], "{line}");
        assert_eq!(leads(&redirects, "/ok").unwrap(), "301 /fine", "{line}");
        assert_eq!(leads(&redirects, "/a"), None, "{line}");
    }
    let (redirects, faults) = Redirects::parse(b"/a /b\n/\xff /c\n/d /e\n");
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].line, 2);
    assert!(leads(&redirects, "/a").is_some() && leads(&redirects, "/d").is_some());
}

#[test]
fn rules_and_faults_are_bounded() {
    let many: String = (0..5_000).map(|at| format!("/{at} /x\n")).collect();
    let (redirects, faults) = parsed(&many);
    assert_eq!(faults, [2_001]);
    assert!(leads(&redirects, "/1999").is_some() && leads(&redirects, "/2000").is_none());
    let (_, faults) = Redirects::parse("/a\n".repeat(5_000).as_bytes());
    assert_eq!(faults.len(), MOST_FAULTS + 1);
    let last = &faults[MOST_FAULTS].message;
    assert_eq!(last, "and 4980 more faults in the lines below");
    let (_, faults) = Redirects::parse(format!("/{} x", "a".repeat(100_000)).as_bytes());
    assert!(faults[0].message.len() < 1_000);
}

#[test]
fn the_files_hide_themselves_where_they_are_honoured() {
    let mut rules = Rules::default();
    assert!(!rules.hide(b"_redirects") && !rules.hide(b"_headers"));
    rules.redirects = Some(Redirects::default());
    assert!(rules.hide(b"_redirects") && !rules.hide(b"_headers"));
    rules.headers = Some(Headers::default());
    assert!(rules.hide(b"_headers") && !rules.hide(b"a/_headers"));
}

/// No file of rules and no request make a destination that leaves the image, or a text that is not fit
/// for a header.
#[test]
fn random_rules_and_requests_stay_inside() {
    let seed = match std::env::var("BLOBSERVE_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    };
    println!("BLOBSERVE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    const WORDS: &[&str] = &[
        "/",
        "/",
        "/",
        "a",
        "b",
        ":x",
        ":y",
        ":splat",
        "*",
        "/*",
        " ",
        " ",
        "\t",
        "..",
        ".",
        "%2e",
        "%2F",
        "%00",
        "%0d%0a",
        "\r",
        "\n",
        "\n",
        "?",
        "=",
        "&",
        "#",
        "!",
        "200",
        "301",
        "301!",
        "404",
        "x=:x",
        "y=1",
        "//evil",
        "\\",
        "https://evil/",
        "\u{fc}",
        "\u{2028}",
        ":",
        "%",
        "X-A: 1",
        "Set-Cookie: a",
        "  X-B: :x",
    ];
    let mut text = |most: usize| -> String {
        let count = random.usize(..most);
        (0..count)
            .map(|_| WORDS[random.usize(..WORDS.len())])
            .collect()
    };
    let (mut led, mut named) = (0, 0);
    for round in 0..20_000 {
        let (from, to) = (text(4), text(4));
        let file = format!(
            "/a/:x{from} x=:y /b/:y/:x{to}?q=:y{to}#:x\n/c{from}/* /d/:splat{to}\n{}",
            text(40)
        );
        let (redirects, faults) = Redirects::parse(file.as_bytes());
        assert!(faults.len() <= MOST_FAULTS + 1);
        // As http cleans them: any bytes, no dot segments, no empty components.
        let path: String = text(6).replace(['?', '#'], "");
        let path: Vec<&str> = path
            .split('/')
            .filter(|component| !matches!(*component, "" | "." | ".."))
            .collect();
        let path = ["a/", "c/", ""][round % 3].to_owned() + &path.join("/");
        let path = path.trim_matches('/');
        let query = format!("x={}", text(6)).replace(['#', '\r', '\n', ' ', '\t'], "");
        for found in [
            redirects.forced(path.as_bytes(), false, Some(&query)),
            redirects.without_file(path.as_bytes(), true, Some(&query)),
        ] {
            let Some(to) = found else { continue };
            led += 1;
            let mut components = to.path.split(|byte| *byte == b'/');
            let outside = |component: &[u8]| {
                matches!(component, b"." | b"..")
                    || (component.is_empty() && !to.path.is_empty())
                    || component.contains(&0)
            };
            assert!(!components.any(outside), "{file:?} {path} {to:?}");
            for text in [&to.query, &to.fragment].into_iter().flatten() {
                let fit = |byte: u8| byte.is_ascii_graphic();
                assert!(text.bytes().all(fit), "{file:?} {path}?{query} {to:?}");
            }
        }
        let (headers, _) = Headers::parse(file.replace("\n/", "\n/*\n").as_bytes(), |_| None);
        for (name, value) in headers.of(format!("/{path}").as_bytes()) {
            named += 1;
            assert!(
                fields::refused_to_images(name).is_none(),
                "{name}: {file:?}"
            );
            assert!(!value.as_bytes().contains(&b'\n') && !value.as_bytes().contains(&b'\r'));
        }
    }
    assert!(led > 500 && named > 50, "{led} rules led, {named} fields");
}
