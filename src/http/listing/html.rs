//! A listing as a page. One style sheet, no script, nothing loaded.

use super::super::path::encode;
use super::{Directory, Line, Options, Sort, time};
use crate::digest::Digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use std::fmt::Write;
use std::sync::LazyLock;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--link:#0550ae;--line:#8884}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#161616;--link:#79b8ff}}\
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;\
color:var(--ink);background:var(--paper)}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}\
td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid var(--line)}\
td:first-child{overflow-wrap:anywhere}\
td:nth-child(2),th:nth-child(2),td:nth-child(3),th:nth-child(3)\
{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
code{font-size:.75rem;overflow-wrap:anywhere}\
a{color:var(--link);text-decoration:none;unicode-bidi:isolate}a:hover,a:focus{text-decoration:underline}";

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Digest::sha256(STYLE.as_bytes()).bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// A sandbox without scripts, which the pages have none of, but with the downloads that they link to.
static SANDBOXED: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut policy = POLICY.as_bytes().to_vec();
    policy.extend_from_slice(b"; sandbox allow-downloads");
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("sandbox"))
});

pub(super) fn policy() -> HeaderValue {
    POLICY.clone()
}

/// See [`super::sandboxed`].
pub(super) fn sandboxed(policy: &HeaderValue) -> Option<HeaderValue> {
    (*policy == *POLICY).then(|| SANDBOXED.clone())
}

pub(super) fn page(directory: Directory<'_>, options: Options, lines: &[Line]) -> String {
    let title = escaped(directory.path);
    let mut page = String::with_capacity(2048 + lines.len() * 160);
    // A String takes whatever is written to it, here and below.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>/{title}</title>\n<style>{STYLE}</style>\n"
    );
    push_crumbs(&mut page, directory);
    let integrity = if options.integrity {
        "&amp;integrity=1"
    } else {
        ""
    };
    let _ = writeln!(
        page,
        "<nav><a href=\"?download=tgz\">.tar.gz</a> · <a href=\"?download=zip\">.zip</a> · \
         <a href=\"?format=json{integrity}\">JSON</a></nav>\n<table>\n<tr>"
    );
    for (sort, key, name) in [
        (Sort::Name, "name", "Name"),
        (Sort::Size, "size", "Size"),
        (Sort::Modified, "modified", "Modified (UTC)"),
    ] {
        let (said, next) = match (options.sort == sort, options.descending) {
            (false, _) => ("", "asc"),
            (true, false) => (" aria-sort=\"ascending\"", "desc"),
            (true, true) => (" aria-sort=\"descending\"", "asc"),
        };
        let arrow = match (options.sort == sort, options.descending) {
            (false, _) => "",
            (true, false) => " ↑",
            (true, true) => " ↓",
        };
        let _ = writeln!(
            page,
            "<th{said}><a href=\"?format=html&amp;sort={key}&amp;order={next}{integrity}\">{name}</a>{arrow}"
        );
    }
    if options.integrity {
        page.push_str("<th>Integrity\n");
    }
    if !directory.path.is_empty() {
        page.push_str("<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for line in lines {
        push_row(&mut page, options, line);
    }
    page.push_str("</table>\n");
    page
}

/// The directories above, as links; the page's own as text.
fn push_crumbs(page: &mut String, directory: Directory<'_>) {
    let components: Vec<&[u8]> = match directory.path {
        b"" => Vec::new(),
        path => path.split(|byte| *byte == b'/').collect(),
    };
    page.push_str("<h1>");
    let Some((own, above)) = components.split_last() else {
        page.push_str("/</h1>\n");
        return;
    };
    // From the reference's own root on: however many slashes the URL has, these are as many steps up.
    let mut href = "../".repeat(directory.depth);
    let _ = write!(page, "<a href=\"{href}\">/</a>");
    for component in above {
        href += &encode(component);
        href.push('/');
        let _ = write!(page, " <a href=\"{href}\">{}</a> /", escaped(component));
    }
    let _ = writeln!(page, " {} /</h1>", escaped(own));
}

fn push_row(page: &mut String, options: Options, line: &Line) {
    let slash = if line.directory { "/" } else { "" };
    let (href, name) = (encode(&line.name), escaped(&line.name));
    let _ = write!(
        page,
        "<tr><td><a href=\"./{href}{slash}\">{name}{slash}</a><td>"
    );
    if !line.directory {
        push_size(page, line.length);
    }
    page.push_str("<td>");
    if let Some(mtime) = line.mtime {
        time::push_minutes(page, mtime);
    }
    if options.integrity {
        let integrity = line.integrity.as_deref().unwrap_or_default();
        let _ = write!(page, "<td><code>{integrity}</code>");
    }
    page.push('\n');
}

/// `999 B`, `1.5 KiB`, `20 MiB`: three digits at most before the unit, but for whole bytes and halves.
fn push_size(page: &mut String, bytes: u64) {
    let mut tenths = u128::from(bytes) * 10;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next();
    while tenths >= 10_240
        && let Some(next) = units.next()
    {
        tenths = (tenths + 512) / 1024;
        unit = Some(next);
    }
    let unit = unit.unwrap_or_default();
    let _ = match (tenths / 10, tenths % 10) {
        (whole, tenth) if whole < 10 && unit != "B" => write!(page, "{whole}.{tenth} {unit}"),
        (whole, _) => write!(page, "{whole} {unit}"),
    };
}

fn escaped(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::line;
    use super::*;

    const PLAIN: Options = Options {
        format: Format::Html,
        sort: Sort::Name,
        descending: false,
        integrity: false,
    };

    #[test]
    fn names_of_any_bytes_are_links_and_never_markup() {
        let directory = Directory {
            path: b"x:y/a<b",
            depth: 2,
        };
        let page = page(
            directory,
            PLAIN,
            &[
                line(b"javascript:x\"><script>", false, 5, Some(1_700_000_000)),
                line(b"d\xff", true, 0, None),
                line(b"two\nlines?#%", false, 2048, Some(0)),
            ],
        );
        assert!(page.contains("<a href=\"./javascript%3Ax%22%3E%3Cscript%3E\">javascript:x&quot;&gt;&lt;script&gt;</a><td>5 B<td>2023-11-14 22:13\n"));
        assert!(page.contains("<a href=\"./d%FF/\">d\u{fffd}/</a><td><td>\n"));
        assert!(page.contains(
            "href=\"./two%0Alines%3F%23%25\">two\u{fffd}lines?#%</a><td>2.0 KiB<td>1970"
        ));
        assert!(page.contains("<title>/x:y/a&lt;b</title>"));
        assert!(page.contains(
            "<h1><a href=\"../../\">/</a> <a href=\"../../x%3Ay/\">x:y</a> / a&lt;b /</h1>"
        ));
        assert!(page.contains("<a href=\"../\">../</a>"));
        assert!(!page.contains("<script"));
    }

    #[test]
    fn columns_say_how_they_are_sorted_and_turn_when_asked_again() {
        let root = Directory {
            path: b"",
            depth: 0,
        };
        for (sort, descending, said, link) in [
            (
                Sort::Name,
                false,
                "<th aria-sort=\"ascending\"><a href=\"?format=html&amp;sort=name&amp;order=desc&amp;integrity=1\">Name</a> ↑",
                "sort=size&amp;order=asc",
            ),
            (
                Sort::Size,
                true,
                "<th aria-sort=\"descending\"><a href=\"?format=html&amp;sort=size&amp;order=asc&amp;integrity=1\">Size</a> ↓",
                "sort=name&amp;order=asc",
            ),
        ] {
            let options = Options {
                sort,
                descending,
                integrity: true,
                ..PLAIN
            };
            let mut file = line(b"f", false, 1, None);
            file.integrity = Some("sha256-x".into());
            let page = page(root, options, &[file]);
            assert!(page.contains(said), "{page}");
            assert!(page.contains(link), "{page}");
            assert_eq!(page.matches("aria-sort").count(), 1);
            assert!(
                page.contains("<h1>/</h1>") && !page.contains("../"),
                "{page}"
            );
            assert!(page.contains("<td><code>sha256-x</code>"));
        }
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 10, "10 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            let mut out = String::new();
            push_size(&mut out, bytes);
            assert_eq!(out, text, "{bytes}");
        }
    }

    #[test]
    fn the_policy_lets_in_the_style_sheet_of_the_page() {
        let root = Directory {
            path: b"",
            depth: 0,
        };
        let page = page(root, PLAIN, &[]);
        let style = page.split("<style>").nth(1).unwrap();
        let style = style.split("</style>").next().unwrap();
        let hash = BASE64_STANDARD.encode(Digest::sha256(style.as_bytes()).bytes());
        let policy = policy();
        let policy = policy.to_str().unwrap();
        assert!(
            policy.contains(&format!("style-src 'sha256-{hash}'")),
            "{policy}"
        );
        assert!(policy.starts_with("default-src 'none'"));
    }
}
