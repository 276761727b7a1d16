//! A directory as a page: readable, without script, in light and dark.

use super::path::encode;
use crate::images::Child;
use std::fmt::Write;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
<meta name=\"color-scheme\" content=\"light dark\">\n<style>\n\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\n\
table{border-collapse:collapse;width:100%}\ntd,th{padding:.2rem .8rem .2rem 0;text-align:left}\n\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\n\
tr:hover td{background:color-mix(in srgb,currentColor 7%,transparent)}\n\
a{text-decoration:none}a:hover{text-decoration:underline}\n</style>\n";

/// The page. `path` is the directory's, as shown in the title; `parent`: it has one to link to.
pub(super) fn page(path: &[u8], parent: bool, children: &[Child]) -> String {
    let title = escaped(&String::from_utf8_lossy(path));
    let mut page = String::with_capacity(1024 + children.len() * 160);
    let _ = write!(
        page,
        "{HEAD}<title>/{title}</title>\n</head>\n<body>\n<h1>/{title}</h1>\n<table>\n"
    );
    page.push_str(
        "<tr><th>Name</th><th class=\"n\">Bytes</th><th class=\"n\">Modified (UTC)</th></tr>\n",
    );
    if parent {
        page.push_str(
            "<tr><td><a href=\"../\">../</a></td><td class=\"n\"></td><td class=\"n\"></td></tr>\n",
        );
    }
    for child in children {
        let slash = if child.directory { "/" } else { "" };
        let name = escaped(&String::from_utf8_lossy(&child.name));
        let _ = write!(
            page,
            "<tr><td><a href=\"./{}{slash}\">{name}{slash}</a></td><td class=\"n\">",
            encode(&child.name)
        );
        if !child.directory {
            let _ = write!(page, "{}", child.length);
        }
        let _ = writeln!(
            page,
            "</td><td class=\"n\">{}</td></tr>",
            day_and_time(child.mtime)
        );
    }
    page.push_str("</table>\n</body>\n</html>\n");
    page
}

fn escaped(text: &str) -> String {
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

/// `2023-11-14 22:13`, by the civil calendar; nothing for a date before 1970.
fn day_and_time(mtime: i64) -> String {
    let Ok(seconds) = u64::try_from(mtime) else {
        return String::new();
    };
    let (mut days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while year < 10_000 && days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while month < 11 && days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!(
        "{year}-{:02}-{:02} {:02}:{:02}",
        month + 1,
        days + 1,
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_are_links_and_never_markup() {
        let child = |name: &[u8], directory| Child {
            name: name.to_vec(),
            directory,
            length: 5,
            mtime: 1_700_000_000,
        };
        let page = page(
            b"a<b",
            true,
            &[
                child(b"javascript:x\"><script>", false),
                child(b"d\xff", true),
            ],
        );
        assert!(page.contains("href=\"./javascript%3Ax%22%3E%3Cscript%3E\""));
        assert!(page.contains("href=\"./d%FF/\""));
        assert!(page.contains("<title>/a&lt;b</title>"));
        assert!(!page.contains("<script"));
        assert!(page.contains("2023-11-14 22:13"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (mtime, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_251_199, "2024-02-29 23:59"),
            (-1, ""),
        ] {
            assert_eq!(day_and_time(mtime), text);
        }
        assert!(day_and_time(i64::MAX).starts_with("10000-"));
    }
}
