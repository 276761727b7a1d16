//! Random layers against a naive model of the same file system.

use super::*;

/// A file system as a plain map from path to node, slow and obvious.
#[derive(Default)]
struct Model(BTreeMap<String, (Kind, String)>);

impl Model {
    fn kind(&self, path: &str) -> Option<Kind> {
        if path.is_empty() {
            Some(D)
        } else {
            self.0.get(path).map(|n| n.0)
        }
    }

    fn join(base: &str, more: &str) -> String {
        let mut parts: Vec<&str> = Vec::new();
        let base = if more.starts_with('/') { "" } else { base };
        for part in base.split('/').chain(more.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }

    /// Real path of a directory, links followed, as `fs.RootPath`: again until nothing changes.
    fn real(&self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        'again: for _ in 0..=40 {
            let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
            for end in 1..=parts.len() {
                let prefix = parts[..end].join("/");
                match self.kind(&prefix) {
                    Some(S) => {
                        let parent = parts[..end - 1].join("/");
                        let target = Model::join(&parent, &self.0[&prefix].1);
                        path = Model::join(&target, &parts[end..].join("/"));
                        continue 'again;
                    }
                    Some(D) => {}
                    Some(_) => return None,
                    None => break,
                }
            }
            return Some(path);
        }
        None
    }

    /// None: refused.
    fn apply(&mut self, kind: Kind, path: &str, rest: &str) -> Option<()> {
        let place = |model: &Model, path: &str| -> Option<(String, String)> {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = model.real(parent)?;
            let full = if parent.is_empty() {
                name.to_owned()
            } else {
                format!("{parent}/{name}")
            };
            Some((parent, full))
        };
        let (parent, full) = place(self, path)?;
        if !(kind == D && self.kind(&full) == Some(D)) {
            let below = format!("{full}/");
            self.0.retain(|p, _| *p != full && !p.starts_with(&below));
        }
        let mut made = String::new();
        for part in parent.split('/').filter(|p| !p.is_empty()) {
            made = Model::join(&made, part);
            self.0.entry(made.clone()).or_insert((D, String::new()));
        }
        let node = if kind == H {
            let (_, target) = place(self, &Model::join("", rest))?;
            self.0.get(&target).filter(|n| n.0 != D)?.clone()
        } else {
            (kind, rest.to_owned())
        };
        self.0.insert(full, node);
        Some(())
    }
}

#[test]
fn random_layers_make_the_tree_of_a_plain_model() {
    let mut random = random();
    let names = ["a", "b", "c", "ab"];
    let mut refused = 0;
    for _ in 0..3_000 {
        let path = |random: &mut fastrand::Rng| {
            let parts: Vec<&str> = (0..random.usize(1..5))
                .map(|_| names[random.usize(..names.len())])
                .collect();
            parts.join("/")
        };
        let mut entries: Vec<(Kind, String, String)> = Vec::new();
        let mut model = Model::default();
        for i in 0..random.usize(1..14) {
            let mut at = path(&mut random);
            let rest = match random.u8(..4) {
                0 => path(&mut random),
                1 => format!("/{}", path(&mut random)),
                2 => format!("../{}", path(&mut random)),
                _ => format!("../../{}/../{}", path(&mut random), path(&mut random)),
            };
            let entry = match random.u8(..8) {
                0..3 => (F, at, i.to_string()),
                3..5 => (D, at, String::new()),
                5..7 => (S, at, rest),
                _ => {
                    if let Some((known, _)) = model.0.iter().next_back() {
                        at = if random.bool() { format!("{at}-h") } else { at };
                        (H, at, known.clone())
                    } else {
                        (H, at, rest)
                    }
                }
            };
            let before = model.0.clone();
            if model.apply(entry.0, &entry.1, &entry.2).is_none() {
                let mut with = entries.clone();
                with.push(entry);
                let specs: Vec<Spec<'_>> = with
                    .iter()
                    .map(|(k, p, r)| (*k, p.as_str(), r.as_str()))
                    .collect();
                let found = write(&specs).map(|bytes| open(&bytes).unwrap());
                let whole = found.is_ok_and(|pack| pack.incomplete().is_none());
                assert!(!whole, "not refused: {specs:?}");
                refused += 1;
                model.0 = before;
                break;
            }
            entries.push(entry);
        }
        let specs: Vec<Spec<'_>> = entries
            .iter()
            .map(|(k, p, r)| (*k, p.as_str(), r.as_str()))
            .collect();
        let bytes = write(&specs).unwrap_or_else(|e| panic!("{e}: {specs:?}"));
        let pack = open(&bytes).unwrap();
        let mut expected: BTreeMap<String, String> = model
            .0
            .iter()
            .map(|(p, (k, r))| (p.clone(), format!("{k:?} {r}")))
            .collect();
        expected.insert(String::new(), "Directory ".into());
        assert_eq!(tree(&pack), expected, "{specs:?}");
        check_index(&pack, &expected);
    }
    assert!(refused > 50, "only {refused} were refused");
}

/// Lookup finds every node, and every node but the root is listed by its parent, in order.
fn check_index(pack: &Pack, expected: &BTreeMap<String, String>) {
    let mut listed = 1;
    for path in expected.keys() {
        let node = pack.lookup(path.as_bytes()).unwrap();
        let children: Vec<&[u8]> = pack.children(node.id).map(|c| c.path).collect();
        assert!(children.is_sorted());
        listed += children.len();
        for child in children {
            let parent = memchr::memrchr(b'/', child).map_or(&b""[..], |i| &child[..i]);
            assert_eq!(parent, path.as_bytes());
        }
    }
    assert_eq!(listed, expected.len());
    assert!(pack.lookup(b"a/no/such").is_none());
}
