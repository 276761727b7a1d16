//! What Chromium makes of our answers. `browser.mjs` drives it and has the checks; the images that it
//! asks for are made here.

use crate::binary::{Home, text};
use crate::parts::{installed, run};
use crate::support::{Image, Layer, Registry};
use crate::webm::film;
use serde_json::json;
use std::path::Path;

/// A module that exports nothing: WebAssembly's magic number and version.
const WASM: &[u8] = b"\0asm\x01\0\0\0";
/// Of the Debian package fonts-dejavu-core.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf";

/// A service worker that answers for what no image has.
const WORKER: &str = "addEventListener('install', () => skipWaiting());\n\
    addEventListener('activate', event => event.waitUntil(clients.claim()));\n\
    addEventListener('fetch', event => {\n\
    if (new URL(event.request.url).pathname.endsWith('/made'))\n\
    event.respondWith(new Response('made by the worker'));\n\
    });\n";

/// What a page is made of, each of a type of its own.
fn site() -> Image {
    let words = format!("export const words = {:?};\n", "words ".repeat(4000));
    let layer = Layer::new()
        .file(
            "index.html",
            r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>page</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="style.css">
<script type="module" src="main.mjs"></script>
<p id="text">text</p><img id="image" src="image.svg" alt="">"#,
        )
        .file(
            "style.css",
            "@font-face { font-family: Own; src: url(fonts/own.ttf) }\n\
             #text { font-family: Own; color: rgb(1, 2, 3) }\n",
        )
        .file("fonts/own.ttf", std::fs::read(FONT).expect("a font"))
        .file(
            "image.svg",
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="7" height="5"></svg>"#,
        )
        .file(
            "main.mjs",
            "import { words } from './lib/words.js';\n\
             const { later } = await import('./lib/later.js');\n\
             const data = await (await fetch('data.json')).json();\n\
             await WebAssembly.instantiateStreaming(fetch('empty.wasm'));\n\
             await document.fonts.load('16px Own');\n\
             document.title = `${words.length} ${later} ${data.said}`;\n",
        )
        .file("lib/words.js", words)
        .file("lib/later.js", "export const later = 'later';\n")
        .file("data.json", r#"{"said": "ä"}"#)
        .file("empty.wasm", WASM)
        .file(
            "video.html",
            r#"<!doctype html><title>video</title><link rel="icon" href="data:,">
<video preload="metadata" muted src="film.webm"></video>"#,
        )
        // 13 MB: more than Chromium reads ahead.
        .file("film.webm", film(200, 64 << 10))
        .file("list/b.txt", "b")
        .file("list/a.txt", "aaa")
        .file("list/<i>&c.txt", "cc")
        .file("_headers", "/*\n  Service-Worker-Allowed: /\n")
        .file(
            "plain.html",
            "<!doctype html><title>plain</title><link rel=icon href=data:,>",
        )
        .file("workers/worker.js", WORKER)
        .file(
            "workers/index.html",
            "<!doctype html><title>workers</title><link rel=icon href=data:,>",
        );
    Image::of(layer)
}

/// An image that shares its site with others: its page and its worker are at the root.
fn user(name: &str) -> Image {
    let layer = Layer::new()
        .file(
            "index.html",
            format!("<!doctype html><title>{name}</title><link rel=icon href=data:,><p>{name}"),
        )
        .file("secret.txt", format!("secret of {name}"))
        .file("worker.js", WORKER);
    Image::of(layer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_loads_plays_isolates_and_lists() {
    installed();
    let registry = Registry::start().await;
    registry.push("team/site", "v1", &site());
    registry.push("team/unknown", "v1", &site());
    registry.push("user/one", "v1", &user("one"));
    registry.push("user/two", "v1", &user("two"));
    let home = Home::new();
    let blobserve = home.serve(&json!({
        "allowAnyRepo": true,
        "listing": true,
        "registries": {registry.host(): registry.settings()},
        // Chromium resolves every name below localhost to loopback.
        "origins": {"domain": "u.localhost"},
        "repos": {
            registry.name("team/site"): {"headersFile": true},
            registry.name("user/one"): {"origin": true},
            registry.name("user/two"): {"origin": true},
        },
    }));
    let url = |image: &str| {
        let path = registry.path(image, "/");
        format!("http://{}{path}", blobserve.client.0)
    };
    let urls = json!({
        "site": url("team/site:v1"),
        "unknown": url("team/unknown:v1"),
        "one": url("user/one:v1"),
        "two": url("user/two:v1"),
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/real/browser.mjs");
    let library = root.join("target/node/node_modules/playwright-core/index.mjs");
    let arguments = [text(&script), text(&library), &urls.to_string()];
    // Away from the reactor, whose registry is asked meanwhile. It fails, naming them, if checks do.
    let said = tokio::task::block_in_place(|| run("node", &arguments, b""));
    let said = String::from_utf8(said).expect("text");
    assert!(said.lines().count() > 0, "no check was made");
    assert!(said.lines().all(|line| line.starts_with("ok: ")), "{said}");
    println!("{said}");
}
