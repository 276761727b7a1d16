//! From a path to what is there: a file, an index file, a redirect to the slash, a listing, nothing.
//! Pure but for the look-ups in a [`Tree`].

use super::path::{self, FilePath};
use crate::images::{DirectoryNode, FileNode, Node, View};

/// Where paths lead.
pub(super) trait Tree {
    /// A regular file.
    type File;
    /// A directory.
    type Directory;
    /// Follows a cleaned path from the root. None: there is nothing that is served.
    fn find(&self, path: &[u8]) -> Option<Entry<Self::File, Self::Directory>>;
}

/// What a path leads to.
pub(super) enum Entry<F, D> {
    File(F),
    Directory(D),
}

impl Tree for View {
    type File = FileNode;
    type Directory = DirectoryNode;
    fn find(&self, path: &[u8]) -> Option<Entry<FileNode, DirectoryNode>> {
        match View::find(self, path).ok()? {
            Node::File(file) => Some(Entry::File(file)),
            Node::Directory(directory) => Some(Entry::Directory(directory)),
        }
    }
}

/// What of a request decides where it leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Where URL paths start in the image.
    pub(super) workdir: &'a [u8],
    /// The file path, cleaned. None: one that no file can have.
    pub(super) path: Option<&'a FilePath>,
    /// The path as it stood in the URL, behind the reference.
    pub(super) raw: &'a str,
    /// The reference as it stood in the URL; Some when nothing followed it, not even a slash.
    pub(super) bare: Option<&'a str>,
    pub(super) query: Option<&'a str>,
    /// Directories without an index file are listed.
    pub(super) listing: bool,
    /// The query asks for something of the directory itself, in place of its index file. Only where
    /// directories are listed.
    pub(super) of_directory: bool,
}

/// What is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Located<F, D> {
    /// The file, and its path in the image.
    File(F, Vec<u8>),
    /// The directory's listing.
    Listing(D),
    /// 301 to this relative reference.
    Redirect(String),
    Nothing,
}

/// Looks up. A redirect is relative to the URL asked for, so it holds behind any proxy, and is encoded
/// so that no name in an image can make it lead elsewhere; it keeps the query.
pub(super) fn locate<T: Tree>(tree: &T, wanted: Wanted<'_>) -> Located<T::File, T::Directory> {
    let Some(file_path) = wanted.path else {
        return Located::Nothing;
    };
    let path = path::join(wanted.workdir, &file_path.bytes);
    let directory = match tree.find(&path) {
        Some(Entry::File(file)) if !file_path.directory => return Located::File(file, path),
        Some(Entry::Directory(directory)) => directory,
        // A file is no directory: with a slash behind it, it is not there.
        Some(Entry::File(_)) | None => return Located::Nothing,
    };
    if !file_path.directory {
        return redirect(file_path.as_directory(), wanted.query);
    }
    let index = path::join(&path, b"index.html");
    let of_directory = wanted.listing && wanted.of_directory;
    match tree.find(&index) {
        Some(Entry::File(file)) if !of_directory => Located::File(file, index),
        _ if !wanted.listing => Located::Nothing,
        // The index file of a bare reference is served as it is; the links of a listing need the slash.
        _ => match wanted.bare {
            Some(reference) => {
                let name = reference.rsplit('/').next().unwrap_or_default();
                redirect(format!("./{name}/"), wanted.query)
            }
            None => Located::Listing(directory),
        },
    }
}

fn redirect<F, D>(location: String, query: Option<&str>) -> Located<F, D> {
    Located::Redirect(match query {
        Some(query) => format!("{location}?{query}"),
        None => location,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Files by their paths; directories are what lies above them.
    pub(in super::super) struct Files(pub(in super::super) BTreeSet<&'static str>);

    impl Tree for Files {
        type File = String;
        type Directory = String;
        fn find(&self, path: &[u8]) -> Option<Entry<String, String>> {
            let path = String::from_utf8(path.to_vec()).unwrap();
            if self.0.contains(path.as_str()) {
                return Some(Entry::File(path));
            }
            let below = match path.as_str() {
                "" => String::new(),
                path => format!("{path}/"),
            };
            let directory = self.0.iter().any(|file| file.starts_with(&below));
            directory.then_some(Entry::Directory(path))
        }
    }

    #[test]
    fn each_path_leads_where_browsers_and_proxies_expect() {
        let files = Files(BTreeSet::from([
            "srv/index.html",
            "srv/docs/index.html",
            "srv/bare/file",
            "srv/a:b/file",
            "srv/evil.example/index.html",
            "srv/odd ?#%/file",
            "srv/tree/index.html/file",
        ]));
        let file = |path: &str| Located::File(path.to_owned(), path.as_bytes().to_vec());
        let to = |location: &str| Located::Redirect(location.to_owned());
        let listing = |path: &str| Located::Listing(path.to_owned());
        let nothing = || Located::Nothing;
        // Workdir, raw path, query; with listing off and on.
        let table = [
            ("srv", "", None, file("srv/index.html"), None),
            ("srv", "/", None, file("srv/index.html"), None),
            ("srv", "/index.html", None, file("srv/index.html"), None),
            ("srv", "/docs/", None, file("srv/docs/index.html"), None),
            ("srv", "/docs/.", None, file("srv/docs/index.html"), None),
            ("srv", "/docs", None, to("./docs/"), None),
            ("srv", "/docs", Some("a=1&b"), to("./docs/?a=1&b"), None),
            ("srv", "/docs/../docs", None, to("./docs/"), None),
            ("srv", "//evil.example", None, to("../evil.example/"), None),
            ("srv", "/a:b", None, to("./a%3Ab/"), None),
            (
                "srv",
                "/odd%20%3F%23%25",
                None,
                to("./odd%20%3F%23%25/"),
                None,
            ),
            ("srv", "/docs/index.html/", None, nothing(), None),
            ("srv", "/none", None, nothing(), None),
            ("srv", "/none/", None, nothing(), None),
            ("srv", "/bare/", None, nothing(), Some(listing("srv/bare"))),
            ("srv", "/tree/", None, nothing(), Some(listing("srv/tree"))),
            ("", "/", None, nothing(), Some(listing(""))),
            ("", "", None, nothing(), Some(to("./app:v1/"))),
            ("", "", Some("x"), nothing(), Some(to("./app:v1/?x"))),
            ("gone", "/", None, nothing(), None),
        ];
        for (workdir, raw, query, quiet, listed) in table {
            let path = path::file_path(raw).unwrap();
            let mut wanted = Wanted {
                workdir: workdir.as_bytes(),
                path: Some(&path),
                raw,
                bare: raw.is_empty().then_some("host:5000/team/app:v1"),
                query,
                listing: false,
                of_directory: true,
            };
            assert_eq!(locate(&files, wanted), quiet, "{workdir} {raw}");
            wanted.listing = true;
            wanted.of_directory = false;
            let listed = listed.unwrap_or(quiet);
            assert_eq!(locate(&files, wanted), listed, "{workdir} {raw}, listed");
        }
    }

    #[test]
    fn a_query_of_the_directory_goes_before_its_index_file_and_never_before_a_file() {
        let files = Files(BTreeSet::from(["index.html", "docs/index.html", "a.js"]));
        for (raw, expected) in [
            ("/", Located::Listing(String::new())),
            ("/docs/", Located::Listing("docs".into())),
            ("/docs", Located::Redirect("./docs/?format=json".into())),
            ("", Located::Redirect("./app:v1/?format=json".into())),
            ("/a.js", Located::File("a.js".into(), b"a.js".to_vec())),
            (
                "/index.html",
                Located::File("index.html".into(), b"index.html".to_vec()),
            ),
            ("/none/", Located::Nothing),
        ] {
            let path = path::file_path(raw).unwrap();
            let wanted = Wanted {
                workdir: b"",
                path: Some(&path),
                raw,
                bare: raw.is_empty().then_some("host:5000/team/app:v1"),
                query: Some("format=json"),
                listing: true,
                of_directory: true,
            };
            assert_eq!(locate(&files, wanted), expected, "{raw}");
        }
    }
}
