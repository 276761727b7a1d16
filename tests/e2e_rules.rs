//! Where the rules of an image come from, how long they hold, and what is said when they are wrong.
mod support;
use std::time::{Duration, Instant};
use support::*;

fn image(redirects: &str) -> Image {
    Image::of(
        Layer::new()
            .file("srv/index.html", "home")
            .file("srv/_redirects", redirects),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_those_of_the_image_that_the_tag_means_now() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &image("/go /one 302\n"));
    let repos = json!({registry.name("team/app"): {"workdir": "srv", "redirectsFile": true}});
    let settings = json!({"repos": repos, "tagTtl": "50ms"});
    let site = Site::start(&[&registry], settings).await;
    let path = registry.path("team/app:v1", "/go");
    let location = async || {
        let answer = site.get(&path).await.expect(302);
        answer.header("location").map(str::to_owned)
    };
    assert_eq!(location().await.as_deref(), Some("./one"));
    registry.push("team/app", "v1", &image("/go /two 302\n"));
    let started = Instant::now();
    while location().await.as_deref() != Some("./two") {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_read_as_they_would_be_served() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("srv/index.html", "home")
        .file("etc/rules", "/go /one 302\n")
        .symlink("srv/_redirects", "../etc/rules");
    registry.push("team/linked", "v1", &Image::of(layer.clone()));
    registry.push("team/replaced", "v1", &Image::of(layer));
    let repos = json!({
        registry.name("team/linked"): {"workdir": "srv", "redirectsFile": true},
        registry.name("team/replaced"): {
            "workdir": "srv",
            "redirectsFile": true,
            "replacements": [{"path": "etc/rules", "search": "one", "replacement": "changed"}],
        },
    });
    let site = Site::start(&[&registry], json!({ "repos": repos })).await;
    for (image, location) in [("team/linked", "./one"), ("team/replaced", "./changed")] {
        let path = registry.path(&format!("{image}:v1"), "/go");
        let answer = site.get(&path).await.expect(302);
        assert_eq!(answer.header("location"), Some(location), "{image}");
        let hidden = registry.path(&format!("{image}:v1"), "/%5Fredirects");
        site.get(&hidden).await.expect_error(404);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_is_200_whatever_rules_say_of_the_root() {
    let registry = Registry::start().await;
    registry.push("team/app", "v1", &image("/ /welcome 302!\n"));
    let repos = json!({registry.name("team/app"): {"workdir": "srv", "redirectsFile": true}});
    let site = Site::start(&[&registry], json!({ "repos": repos })).await;
    for (path, location) in [("", "./app:v1/welcome"), ("/", "./welcome")] {
        let path = registry.path("team/app:v1", path);
        let head = site.head(&path).await.expect(200);
        assert_eq!(head.header("cache-control"), Some("no-store"));
        let answer = site.get(&path).await.expect(302);
        assert_eq!(answer.header("location"), Some(location));
    }
    let file = registry.path("team/app:v1", "/index.html");
    assert_eq!(site.get(&file).await.expect(200).text(), "home");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_rules_is_logged_with_file_and_line_once() {
    let registry = Registry::start().await;
    let long = format!("/go /one 302\n#{}", "x".repeat(300 << 10));
    registry.push("team/long", "v1", &image(&long));
    let layer = Layer::new()
        .file("_redirects", "/go /one 302\n/out https://evil.example/\n")
        .file(
            "_headers",
            "/*\n  X-Fine: 1\n  X-Odd: \x1b[31m\n  Set-Cookie: a=b\n",
        );
    registry.push("team/app", "v1", &Image::of(layer));
    let directory = tempfile::tempdir().expect("a directory");
    let both = json!({"redirectsFile": true, "headersFile": true, "spaFallback": "app.html"});
    let repos = json!({
        registry.name("team/app"): both,
        registry.name("team/long"): {"workdir": "srv", "redirectsFile": true},
    });
    let settings = json!({"repos": repos, "tagTtl": "1ms"});
    let config = service::configuration(directory.path(), &[&registry], &settings);
    let file = directory.path().join("config.json");
    std::fs::write(&file, config.to_string()).expect("written");
    let mut process = Process::serve(&file);
    for path in ["/go", "/out", "/go"] {
        let url = registry.path("team/app:v1", path);
        let answer = process.client.request("GET", &url, &[]).await;
        assert_eq!(
            answer.status,
            if path == "/go" { 302 } else { 404 },
            "{path}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let url = registry.path("team/long:v1", "/go");
    process
        .client
        .request("GET", &url, &[])
        .await
        .expect_error(404);
    process.terminate();
    process.wait();
    let lines: Vec<String> = process.lines.iter().collect();
    let text = lines.join("\n");
    for part in [
        "_redirects:2: \"https://evil.example/\" leads to another host",
        "_headers:3: `x-odd`: its value holds a control character",
        "_headers:4: `set-cookie` cannot be set here: it would be sent",
        "_redirects has 307214 bytes, 262144 at most",
        "the image has no such file in its workdir",
    ] {
        let count = lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count, 1, "{part}:\n{text}");
    }
    assert!(!text.contains("31m"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_an_upper_layer_hold_on_every_host_of_the_image() {
    let registry = Registry::start().await;
    let image = image("/go /lower 302\n").layer(
        Layer::new()
            .file(
                "srv/_redirects",
                "/go/* /upper/:splat 302\n/api/* /index.html 200\n",
            )
            .file("srv/_headers", "/api/*\n  X-Api: 1\n"),
    );
    registry.push("team/app", "v1", &image);
    let name = registry.name("team/app");
    let settings = json!({
        "repos": {&name: {
            "workdir": "srv",
            "layers": "all",
            "redirectsFile": true,
            "headersFile": true,
            "cors": {"origins": ["https://app.example"]},
        }},
        "hosts": {"docs.example.com": {"reference": format!("{name}:v1")}},
    });
    let site = Site::start(&[&registry], settings).await;
    let below = registry.path("team/app:v1", "");
    for (host, root) in [("docs.example.com", ""), ("localhost", below.as_str())] {
        let fields = [("Host", host), ("Origin", "https://app.example")];
        for (path, location) in [("/go", "./upper/"), ("/go/a/b", "../../upper/a/b")] {
            let answer = site.request("GET", &format!("{root}{path}"), &fields).await;
            let answer = answer.expect(302);
            assert_eq!(answer.header("location"), Some(location), "{host}{path}");
        }
        let answer = site.request("GET", &format!("{root}/api/x"), &fields).await;
        let answer = answer.expect(200);
        assert_eq!(
            (answer.text().as_str(), answer.header("x-api")),
            ("home", Some("1"))
        );
        let origin = answer.header("access-control-allow-origin");
        assert_eq!(origin, Some("https://app.example"), "{host}");
        let hidden = site
            .request("GET", &format!("{root}/_redirects"), &fields)
            .await;
        hidden.expect_error(404);
        let asked = [
            fields[0],
            fields[1],
            ("Access-Control-Request-Method", "HEAD"),
        ];
        let answer = site.request("OPTIONS", &format!("{root}/go"), &asked).await;
        let answer = answer.expect(204);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            origin,
            "{host}"
        );
    }
    site.stop().await;
}
