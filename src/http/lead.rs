//! Where a request leads in an image that is a site. Files as [`locate`] finds them, and around them what
//! the configuration and the image's own rules say, in this order:
//!
//! 1. The files `_redirects` and `_headers` are not there, where they are honoured.
//! 2. Rules with `!`.
//! 3. What is there: file, index file, redirect to the slash, listing.
//! 4. The other rules.
//! 5. The SPA fallback, for navigations.
//! 6. The page for 404s.
//!
//! Pure but for the look-ups in a [`Tree`].

use super::content_type;
use super::locate::{Entry, Located, Tree, Wanted, locate};
use super::path;
use crate::config::SiteConfig;
use crate::rules::{Action, Destination, Rules};
use http::header::{self, HeaderMap};

/// Whose rules, beside the request's own path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) config: &'a SiteConfig,
    pub(super) rules: &'a Rules,
}

/// What is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lead<F, D> {
    /// The file, its path in the image, and how it came to be the answer.
    File(F, Vec<u8>, How),
    /// The directory's listing.
    Listing(D),
    /// To this relative reference, with this status. By a rule: what the image says today.
    Redirect {
        status: u16,
        location: String,
        by_rule: bool,
    },
    Nothing,
}

/// How a file came to be the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It was asked for.
    Asked,
    /// By a rule, under the URL of another.
    Rewritten,
    /// For a navigation that leads to nothing: the same URL is 404 for others.
    Fallback,
    /// With status 404.
    NotFound,
}

/// Looks up. See the module for the order.
pub(super) fn lead<T: Tree>(
    tree: &T,
    wanted: Wanted<'_>,
    site: Site<'_>,
    headers: &HeaderMap,
) -> Lead<T::File, T::Directory> {
    let redirects = site.rules.redirects.as_ref();
    let hidden = wanted.path.is_some_and(|path| site.rules.hide(&path.bytes));
    let asked = wanted
        .path
        .map(|path| (path.bytes.as_slice(), path.directory));
    if let (Some(redirects), Some((path, directory))) = (redirects, asked)
        && let Some(to) = redirects.forced(path, directory, wanted.query)
    {
        return follow(tree, wanted, site, to);
    }
    let located = match hidden {
        true => Located::Nothing,
        false => locate(tree, wanted),
    };
    match located {
        Located::File(file, path) => return Lead::File(file, path, How::Asked),
        Located::Listing(directory) => return Lead::Listing(directory),
        Located::Redirect(location) => {
            return Lead::Redirect {
                status: 301,
                location,
                by_rule: false,
            };
        }
        Located::Nothing => {}
    }
    if let (Some(redirects), Some((path, directory))) = (redirects, asked)
        && let Some(to) = redirects.without_file(path, directory, wanted.query)
    {
        return follow(tree, wanted, site, to);
    }
    let fallback = site.config.spa_fallback.as_deref().filter(|_| {
        asked.is_some_and(|(path, _)| content_type::by_extension(path).is_none())
            && accepts_html(headers)
    });
    if let Some(fallback) = fallback
        && let Some((file, path)) = find(tree, wanted, site, fallback.as_bytes())
    {
        return Lead::File(file, path, How::Fallback);
    }
    not_found(tree, wanted, site)
}

/// What a rule says.
fn follow<T: Tree>(
    tree: &T,
    wanted: Wanted<'_>,
    site: Site<'_>,
    to: Destination,
) -> Lead<T::File, T::Directory> {
    let how = match to.action {
        Action::Redirect(status) => {
            let mut location = path::relative(wanted.raw, wanted.bare, &to.path, to.directory);
            for (mark, part) in [('?', to.query), ('#', to.fragment)] {
                if let Some(part) = part {
                    location.push(mark);
                    location += &part;
                }
            }
            return Lead::Redirect {
                status,
                location,
                by_rule: true,
            };
        }
        Action::Rewrite => How::Rewritten,
        Action::NotFound => How::NotFound,
    };
    match find(tree, wanted, site, &to.path) {
        Some((file, path)) => Lead::File(file, path, how),
        None => not_found(tree, wanted, site),
    }
}

fn not_found<T: Tree>(tree: &T, wanted: Wanted<'_>, site: Site<'_>) -> Lead<T::File, T::Directory> {
    let page = site.config.not_found_page.as_deref();
    match page.and_then(|page| find(tree, wanted, site, page.as_bytes())) {
        Some((file, path)) => Lead::File(file, path, How::NotFound),
        None => Lead::Nothing,
    }
}

/// The file at a path below the workdir, or the index file of the directory there.
fn find<T: Tree>(
    tree: &T,
    wanted: Wanted<'_>,
    site: Site<'_>,
    below: &[u8],
) -> Option<(T::File, Vec<u8>)> {
    if site.rules.hide(below) {
        return None;
    }
    let path = path::join(wanted.workdir, below);
    match tree.find(&path)? {
        Entry::File(file) => Some((file, path)),
        Entry::Directory(_) => {
            let index = path::join(&path, b"index.html");
            match tree.find(&index)? {
                Entry::File(file) => Some((file, index)),
                Entry::Directory(_) => None,
            }
        }
    }
}

/// The request says that it wants a page, as browsers do when they navigate: HTML by name, not by `*/*`,
/// which scripts and `fetch` send too.
fn accepts_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let mut ranges = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    ranges.any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let html = [&b"text/html"[..], b"application/xhtml+xml"];
        html.iter().any(|html| name.eq_ignore_ascii_case(html)) && !parts.any(is_zero)
    })
}

/// A weight of nothing (RFC 9110 §12.4.2).
fn is_zero(parameter: &[u8]) -> bool {
    let weight = match parameter.split_first_chunk::<2>() {
        Some((b"q=" | b"Q=", weight)) => weight,
        _ => return false,
    };
    !weight.is_empty() && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::super::locate::tests::Files;
    use super::*;
    use crate::rules::{Headers, Redirects};
    use std::collections::BTreeSet;

    const FILES: &[&str] = &[
        "srv/index.html",
        "srv/app/main.js",
        "srv/docs/index.html",
        "srv/errors/404.html",
        "srv/sorry.html",
        "srv/_redirects",
        "srv/_headers",
        "secret.html",
    ];
    const RULES: &str = "/old /docs/ 302\n/gone/* /sorry.html 404\n/app/main.js /never 301\n\
        /hide/* /sorry.html 404!\n/docs/forced /docs 200!\n/virtual/* /docs/:splat 200\n\
        /nowhere /not-there 200\n/self /_redirects 200\n/x/:y/z /a%3Ab/:y?k=1#f 308\n";

    fn ask(raw: &str, accept: &str, config: &SiteConfig, rules: &Rules) -> String {
        let files = Files(BTreeSet::from_iter(FILES.iter().copied()));
        let (before, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        let path = path::file_path(before).ok();
        let wanted = Wanted {
            workdir: b"srv",
            path: path.as_ref(),
            raw: before,
            bare: before.is_empty().then_some("host/app:v1"),
            query,
            listing: false,
            of_directory: false,
        };
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        match lead(&files, wanted, Site { config, rules }, &headers) {
            Lead::File(file, path, how) => {
                assert_eq!(file.as_bytes(), path);
                format!("{how:?} {file}")
            }
            Lead::Redirect {
                status,
                location,
                by_rule,
            } => format!("{status}{} {location}", if by_rule { "!" } else { "" }),
            Lead::Listing(_) => "listing".into(),
            Lead::Nothing => "nothing".into(),
        }
    }

    #[test]
    fn each_request_leads_where_files_rules_and_fallbacks_say() {
        let plain = SiteConfig::default();
        let site = SiteConfig {
            spa_fallback: Some("index.html".into()),
            not_found_page: Some("errors/404.html".into()),
            ..SiteConfig::default()
        };
        let rules = Rules {
            redirects: Some(Redirects::parse(RULES.as_bytes()).0),
            headers: Some(Headers::default()),
        };
        let html = "text/html,application/xhtml+xml,*/*;q=0.8";
        // Path, Accept; without anything, with fallback and 404 page, with rules too ("": as before).
        let table = [
            ("/", html, "Asked srv/index.html", "", ""),
            ("", html, "Asked srv/index.html", "", ""),
            ("/docs", html, "301 ./docs/", "", ""),
            ("/route", html, "nothing", "Fallback srv/index.html", ""),
            (
                "/route/v1.2",
                html,
                "nothing",
                "Fallback srv/index.html",
                "",
            ),
            ("/route/", html, "nothing", "Fallback srv/index.html", ""),
            (
                "/route",
                "*/*",
                "nothing",
                "NotFound srv/errors/404.html",
                "",
            ),
            (
                "/route",
                "text/html;q=0",
                "nothing",
                "NotFound srv/errors/404.html",
                "",
            ),
            (
                "/main.js",
                html,
                "nothing",
                "NotFound srv/errors/404.html",
                "",
            ),
            (
                "/a%2fb",
                html,
                "nothing",
                "NotFound srv/errors/404.html",
                "",
            ),
            (
                "/_redirects",
                html,
                "Asked srv/_redirects",
                "",
                "Fallback srv/index.html",
            ),
            (
                "/_headers",
                "*/*",
                "Asked srv/_headers",
                "",
                "NotFound srv/errors/404.html",
            ),
            (
                "/old",
                "*/*",
                "nothing",
                "NotFound srv/errors/404.html",
                "302! ./docs/",
            ),
            (
                "/old?q=1",
                "*/*",
                "nothing",
                "NotFound srv/errors/404.html",
                "302! ./docs/?q=1",
            ),
            (
                "/gone/a/b",
                html,
                "nothing",
                "Fallback srv/index.html",
                "NotFound srv/sorry.html",
            ),
            ("/app/main.js", html, "Asked srv/app/main.js", "", ""),
            (
                "/hide/a.js",
                "*/*",
                "nothing",
                "NotFound srv/errors/404.html",
                "NotFound srv/sorry.html",
            ),
            (
                "/docs/forced",
                "*/*",
                "nothing",
                "NotFound srv/errors/404.html",
                "Rewritten srv/docs/index.html",
            ),
            (
                "/virtual/index.html",
                "*/*",
                "nothing",
                "NotFound srv/errors/404.html",
                "Rewritten srv/docs/index.html",
            ),
            (
                "/virtual/none",
                html,
                "nothing",
                "Fallback srv/index.html",
                "NotFound srv/errors/404.html",
            ),
            (
                "/nowhere",
                html,
                "nothing",
                "Fallback srv/index.html",
                "NotFound srv/errors/404.html",
            ),
            (
                "/self",
                html,
                "nothing",
                "Fallback srv/index.html",
                "NotFound srv/errors/404.html",
            ),
            (
                "/x//%3F%0d%0a/z",
                "*/*",
                "nothing",
                "NotFound srv/errors/404.html",
                "308! ../../../a%3Ab/%3F%0D%0A?k=1#f",
            ),
        ];
        let none = Rules::default();
        for (raw, accept, bare, with_pages, with_rules) in table {
            let or = |text: &str, before: &str| match text {
                "" => before.to_owned(),
                text => text.to_owned(),
            };
            assert_eq!(ask(raw, accept, &plain, &none), bare, "{raw} {accept}");
            let with_pages = or(with_pages, bare);
            assert_eq!(ask(raw, accept, &site, &none), with_pages, "{raw} {accept}");
            let with_rules = or(with_rules, &with_pages);
            assert_eq!(
                ask(raw, accept, &site, &rules),
                with_rules,
                "{raw} {accept}"
            );
        }
    }

    #[test]
    fn a_page_is_asked_for_by_name() {
        for (accept, html) in [
            ("text/html", true),
            ("TEXT/HTML; level=1;q=0.5", true),
            ("application/json, application/xhtml+xml", true),
            ("text/html;q=0", false),
            ("text/html; q=0.000", false),
            ("*/*", false),
            ("text/*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(accepts_html(&headers), html, "{accept}");
        }
        assert!(!accepts_html(&HeaderMap::new()));
    }
}
