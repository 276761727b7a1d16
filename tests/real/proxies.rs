//! nginx in front: it strips a prefix, keeps what it may keep, and forgets what is purged.

use crate::binary::{Blobserve, Home, text};
use crate::clients::{Served, curl};
use crate::parts::{Server, free_address, run};
use crate::support::{Client, Image, Layer, Response};
use serde_json::json;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Prefix that nginx strips.
const PREFIX: &str = "/static";

/// nginx with a cache. Killed when dropped.
struct Nginx {
    _server: Server,
    address: SocketAddr,
    cache: PathBuf,
}

impl Nginx {
    /// Starts it, with the servers `inside`; its cache is the zone `z`, in [`cache`].
    fn start(home: &Home, address: SocketAddr, inside: &str) -> Nginx {
        let cache = cache(home);
        let configuration = format!(
            "daemon off; pid {pid}; error_log {log};\n\
             events {{}}\n\
             http {{\n\
             access_log off; client_body_temp_path {cache}.b; proxy_temp_path {cache}.t;\n\
             fastcgi_temp_path {cache}.f; uwsgi_temp_path {cache}.u; scgi_temp_path {cache}.s;\n\
             proxy_cache_path {cache} levels=1:2 keys_zone=z:1m;\n\
             {inside} }}\n",
            pid = home.path("nginx.pid").display(),
            log = home.path("nginx.log").display(),
            cache = cache.display(),
        );
        let file = home.write("nginx.conf", &configuration);
        // Not on everyone's PATH.
        let program = match Path::new("/usr/sbin/nginx").exists() {
            true => "/usr/sbin/nginx",
            false => "nginx",
        };
        let arguments = [OsStr::new("-c"), file.as_os_str()];
        let server = Server::start(program, &arguments, address, &home.path("nginx.err"));
        Nginx {
            _server: server,
            address,
            cache,
        }
    }

    /// GET of a path of ours, below the prefix.
    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        Client(self.address)
            .request("GET", &format!("{PREFIX}{path}"), fields)
            .await
    }

    /// GET; where the answer came from, and its text.
    async fn answer(&self, path: &str) -> (String, String) {
        let answer = self.get(path, &[]).await.expect(200);
        let from = answer.header("x-cache").unwrap_or_default().to_owned();
        (from, answer.text())
    }

    /// The file of the cache that has what was stored by `key` (levels=1:2), below [`Nginx::cache`].
    fn file_of(key: &str) -> PathBuf {
        let sum = run("md5sum", &[] as &[&str], key.as_bytes());
        let name = std::str::from_utf8(&sum[..32]).expect("hexadecimal");
        Path::new(&name[31..]).join(&name[29..31]).join(name)
    }

    /// The files of the cache whose answer has `key` among its surrogate keys.
    fn files_named(&self, key: &str) -> Vec<PathBuf> {
        let line = format!("^Surrogate-Key:.* {key}[ \r]");
        let arguments = ["-r", "-l", "-a", "-i", "-e", &line, text(&self.cache)];
        let files = String::from_utf8(run("grep", &arguments, b"")).expect("text");
        let below = |file| Path::new(file).strip_prefix(&self.cache).expect("below");
        files.lines().map(|file| below(file).to_owned()).collect()
    }

    /// Purges what a file of the cache has; the status.
    async fn purge(&self, file: &Path) -> u16 {
        let path = format!("/purge/{}", file.display());
        let answer = Client(self.address).request("DELETE", &path, &[]).await;
        answer.status
    }
}

/// Where nginx keeps what it has.
fn cache(home: &Home) -> PathBuf {
    home.path("proxy")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_in_front_strips_a_prefix_and_caches() {
    let site = Served::new().await;
    let blobserve = site.start(&json!({}));
    let front = free_address();
    let inside = format!(
        "server {{ listen {front}; location {PREFIX}/ {{\n\
         proxy_pass http://{back}/; proxy_cache z; proxy_cache_revalidate on;\n\
         proxy_cache_bypass $http_x_purge;\n\
         add_header X-Cache $upstream_cache_status always; }} }}",
        back = blobserve.client.0,
    );
    let nginx = Nginx::start(&site.home, front, &inside);
    // What only a digest decides is kept, until it is asked for past the cache.
    let by_digest = site.path_by_digest("/text.txt");
    let mut states = Vec::new();
    for fields in [&[][..], &[], &[("X-Purge", "1")], &[]] {
        let answer = nginx.get(&by_digest, fields).await.expect(200);
        assert_eq!(answer.text(), "words ".repeat(2000));
        states.push(answer.header("x-cache").unwrap_or_default().to_owned());
    }
    assert_eq!(states, ["MISS", "HIT", "BYPASS", "HIT"]);
    // What a tag means is asked for each time.
    for _ in 0..2 {
        let (from, _) = nginx.answer(&site.path("/text.txt")).await;
        assert_ne!(from, "HIT");
    }
    // A redirect leads to the same place behind the prefix, by being relative.
    let answer = nginx.get(&site.path("/docs?a=b"), &[]).await.expect(301);
    let location = answer.header("location").expect("a Location").to_owned();
    assert!(
        !location.starts_with('/') && !location.contains("://"),
        "{location}"
    );
    let url = format!("http://{front}{PREFIX}{}", site.path("/docs?a=b"));
    let page = curl(&["--location", &url]);
    assert!(String::from_utf8_lossy(&page).contains("<p>docs</p>"));
}

/// A cache looks at none of our fields: what only those get who send them, it would give to browsers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_in_front_has_no_page_on_the_shared_origin() {
    let site = Served::new().await;
    let origins = json!({"domain": "user.example", "unconfigured": true});
    let blobserve = site.start(&json!({ "origins": origins }));
    let front = free_address();
    let inside = format!(
        "server {{ listen {front}; location {PREFIX}/ {{\n\
         proxy_pass http://{back}/; proxy_cache z;\n\
         add_header X-Cache $upstream_cache_status always; }} }}",
        back = blobserve.client.0,
    );
    let nginx = Nginx::start(&site.home, front, &inside);
    for (path, name) in [
        (site.path("/"), "X-BlobServe-ReadOnly"),
        (site.path_by_digest("/index.html"), "X-BlobServe-ReadOnly"),
        (site.path_by_digest("/docs/"), "X-BlobServe-Unheard-Of"),
    ] {
        // The image is known from here on, which a read-only request asks for.
        blobserve
            .client
            .request("HEAD", &path, &[])
            .await
            .expect(200);
        let answer = nginx.get(&path, &[(name, "true")]).await.expect(200);
        assert_eq!(answer.header("x-cache"), Some("MISS"), "{path}");
        let plain = nginx.get(&path, &[]).await.expect(307);
        assert_eq!(plain.header("x-cache"), Some("MISS"), "{path}");
    }
}

/// nginx that goes by `CDN-Cache-Control` (RFC 9213), which it does not know: an inner server puts
/// it in the place of `Cache-Control`, the outer one keeps the answer by it and gives clients the
/// original. It purges by deleting files of its cache: it stores anew what it does not find. (Debian
/// 12 has a module for that too, which ends the worker process at the first purge.)
fn as_a_cdn(home: &Home, back: SocketAddr) -> Nginx {
    let (front, middle) = (free_address(), free_address());
    let inside = format!(
        "map $upstream_http_cdn_cache_control $kept {{\n\
         '' $upstream_http_cache_control; default $upstream_http_cdn_cache_control; }}\n\
         server {{ listen {middle}; location / {{\n\
         proxy_pass http://{back}; proxy_hide_header Cache-Control;\n\
         add_header X-For-Browsers $upstream_http_cache_control always;\n\
         add_header Cache-Control $kept always; }} }}\n\
         server {{ listen {front}; location {PREFIX}/ {{\n\
         proxy_pass http://{middle}/; proxy_cache z; proxy_cache_key $uri;\n\
         proxy_hide_header Cache-Control; proxy_hide_header X-For-Browsers;\n\
         add_header Cache-Control $upstream_http_x_for_browsers always;\n\
         add_header X-Cache $upstream_cache_status always; }}\n\
         location /purge/ {{ alias {cache}/; dav_methods DELETE; allow 127.0.0.1; deny all; }} }}",
        cache = cache(home).display(),
    );
    Nginx::start(home, front, &inside)
}

/// Pushes `words` over `v1`, and waits until that is what is served.
async fn push_over(site: &Served, blobserve: &Blobserve, words: &str) {
    let layer = Layer::new().file("text.txt", words).file(
        "index.html",
        format!("<!doctype html><title>{words}</title>"),
    );
    site.registry.push("team/app", "v1", &Image::of(layer));
    let path = site.path("/text.txt");
    let moved = async || blobserve.get_expecting(200, &path).await.text() == words;
    blobserve.until("the tag's move is not seen", moved).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_keeps_a_tag_as_told_until_it_is_purged() {
    let site = Served::new().await;
    let blobserve = site.start(&json!({
        "tagTtl": "100ms",
        "cache": {"cdnMaxAge": "1h", "surrogateKey": true},
    }));
    let nginx = as_a_cdn(&site.home, blobserve.client.0);
    let (path, page) = (site.path("/text.txt"), site.path("/index.html"));
    let by_digest = site.path_by_digest("/text.txt");
    let repository = site.registry.name("team/app");
    let first = "words ".repeat(2000);

    // What we say reaches the cache, which goes by it, and is told apart from what browsers hear.
    for from in ["MISS", "HIT"] {
        let answer = nginx.get(&path, &[]).await.expect(200);
        assert_eq!(answer.text(), first);
        let keys = format!("{repository} {repository}:v1 {}", site.pushed.digest);
        for (name, wanted) in [
            ("x-cache", from),
            ("cache-control", "no-cache"),
            ("cdn-cache-control", "max-age=3600"),
            ("surrogate-key", &keys),
        ] {
            assert_eq!(answer.header(name), Some(wanted), "{name}");
        }
        assert_eq!(nginx.answer(&page).await.0, from);
        assert_eq!(nginx.answer(&by_digest).await.0, from);
    }

    // By URL: one answer, whose file is named after the MD5 of its key.
    push_over(&site, &blobserve, "second").await;
    assert_eq!(nginx.answer(&path).await, ("HIT".into(), first), "stale");
    let file = Nginx::file_of(&format!("{PREFIX}{path}"));
    assert_eq!(nginx.purge(&file).await, 204, "{}", file.display());
    assert_eq!(nginx.purge(&file).await, 404, "{}", file.display());
    for from in ["MISS", "HIT"] {
        assert_eq!(nginx.answer(&path).await, (from.into(), "second".into()));
    }

    // By surrogate key: all that the tag has answered, and no more.
    push_over(&site, &blobserve, "third").await;
    let (from, before) = nginx.answer(&page).await;
    assert_eq!(from, "HIT");
    assert!(before.contains("home"), "{before}");
    let files = nginx.files_named(&format!("{repository}:v1"));
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        assert_eq!(nginx.purge(&file).await, 204, "{}", file.display());
    }
    assert_eq!(nginx.answer(&path).await, ("MISS".into(), "third".into()));
    let (from, after) = nginx.answer(&page).await;
    assert_eq!(from, "MISS");
    assert!(after.contains("third"), "{after}");
    assert_eq!(nginx.answer(&by_digest).await.0, "HIT");
}
