//! Random layers, merged, against a naive file system that applies their archives one after another.

use super::{Put, file, listing, merged, pack};
use std::collections::BTreeMap;

/// A file system of the plainest kind.
#[derive(Clone, Default)]
struct Model {
    /// By path; the root is not in it.
    nodes: BTreeMap<String, (Node, usize)>,
}

#[derive(Clone, PartialEq)]
enum Node {
    File(String),
    Dir,
    Link(String),
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Model {
    fn is_dir(&self, path: &str) -> bool {
        path.is_empty() || matches!(self.nodes.get(path), Some((Node::Dir, _)))
    }

    /// The path with its parents' links followed, component by component. Err: through a file, or
    /// more than 40 links. Links are joined and cleaned, as containerd does.
    fn real(&self, path: &str) -> Result<String, ()> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let (mut done, mut links) = (Vec::<String>::new(), 0);
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            if rest.is_empty() {
                break;
            }
            match self.nodes.get(&done.join("/")) {
                None | Some((Node::Dir, _)) => {}
                Some((Node::File(_), _)) => return Err(()),
                Some((Node::Link(to), _)) => {
                    links += 1;
                    if links > 40 {
                        return Err(());
                    }
                    done.pop();
                    if to.starts_with('/') {
                        done.clear();
                    }
                    // A link's own dots are taken before what is there.
                    let mut joined = done.clone();
                    for part in to.split('/') {
                        match part {
                            "" | "." => {}
                            ".." => drop(joined.pop()),
                            name => joined.push(name.to_owned()),
                        }
                    }
                    done.clear();
                    rest.extend(joined.into_iter().rev());
                }
            }
        }
        Ok(done.join("/"))
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes
            .retain(|name, _| name != path && !name.starts_with(&below));
    }

    /// Makes the node and its missing parents, in that layer.
    fn make(&mut self, path: &str, node: Node, layer: usize) {
        let mut up = parent(path);
        while !up.is_empty() {
            self.nodes
                .entry(up.to_owned())
                .or_insert((Node::Dir, layer))
                .1 = layer;
            up = parent(up);
        }
        self.nodes.insert(path.to_owned(), (node, layer));
    }

    /// What lower layers have below the directory goes.
    fn clear(&mut self, directory: &str, layer: usize) {
        let below = match directory {
            "" => String::new(),
            name => format!("{name}/"),
        };
        self.nodes
            .retain(|name, (_, of)| !name.starts_with(&below) || *of == layer);
    }

    fn apply(&mut self, put: &Put, layer: usize) -> Result<(), ()> {
        let (path, node) = match put {
            Put::File(path, content) => (path, Node::File(content.clone())),
            Put::Dir(path) => (path, Node::Dir),
            Put::Link(path, to) => (path, Node::Link((*to).to_owned())),
            Put::Hard(path, to) => {
                let place = self.real(path)?;
                // What it replaces is gone before its target is looked for.
                let mut left = self.clone();
                left.remove(&place);
                let target = left.nodes.get(&left.real(to)?).cloned();
                match target {
                    Some((node, _)) if node != Node::Dir => (path, node),
                    _ => return Err(()),
                }
            }
            Put::Hide(path) => {
                let Ok(place) = self.real(path) else {
                    return Ok(());
                };
                match self.nodes.get(&place) {
                    Some((_, of)) if *of != layer => self.remove(&place),
                    Some((Node::Dir, _)) => self.clear(&place, layer),
                    _ => {}
                }
                return Ok(());
            }
            Put::Clear(path) => {
                if let Ok(place) = self.real(&format!("{path}/marker")) {
                    let directory = parent(&place);
                    if self.is_dir(directory) {
                        self.clear(directory, layer);
                    }
                }
                return Ok(());
            }
        };
        let place = self.real(path)?;
        if !(node == Node::Dir && self.is_dir(&place)) {
            self.remove(&place);
        }
        self.make(&place, node, layer);
        Ok(())
    }

    fn listing(&self) -> Vec<String> {
        let line = |(path, (node, _)): (&String, &(Node, usize))| match node {
            Node::File(content) => format!("{path}={content}"),
            Node::Dir => format!("{path}/"),
            Node::Link(to) => format!("{path} -> {to}"),
        };
        let mut lines: Vec<String> = self.nodes.iter().map(line).collect();
        lines.sort();
        lines
    }
}

const PATHS: [&str; 14] = [
    "a", "b", "c", "a/a", "a/b", "a/c", "b/a", "b/b", "c/c", "a/a/a", "a/a/b", "a/b/c", "b/b/b",
    "c/a/b/c",
];
const TARGETS: [&str; 9] = ["a", "b", "/a/b", "../c", "a/a", "./b", "..", "/", "c/none"];

pub(super) fn random_put(random: &mut fastrand::Rng, number: usize) -> Put {
    let path = PATHS[random.usize(..PATHS.len())];
    match random.u8(..16) {
        0..=5 => file(path, &number.to_string()),
        6..=8 => Put::Dir(path),
        9 | 10 => Put::Link(path, TARGETS[random.usize(..TARGETS.len())]),
        11 | 12 => Put::Hard(path, PATHS[random.usize(..PATHS.len())]),
        13 | 14 => Put::Hide(path),
        _ => Put::Clear(["", path][random.usize(..2)]),
    }
}

#[test]
fn random_layers_make_the_tree_of_a_naive_file_system() {
    let seed = std::env::var("BLOBSERVE_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BLOBSERVE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut number, mut merges, mut refusals) = (0, 0, 0);
    for _ in 0..3000 {
        let (mut layers, mut model, mut puts) = (Vec::new(), Model::default(), Vec::new());
        let mut refused = false;
        for layer in 1..=random.usize(2..6) {
            let entries: Vec<Put> = (0..random.usize(..7))
                .map(|_| {
                    number += 1;
                    random_put(&mut random, number)
                })
                .collect();
            // What makes no tree alone is refused before it is merged.
            let Ok(pack) = pack(&entries) else { continue };
            layers.push(pack);
            refused = refused || entries.iter().any(|put| model.apply(put, layer).is_err());
            puts.push(entries);
        }
        if layers.is_empty() {
            continue;
        }
        match merged(layers) {
            Ok(tree) => {
                assert!(!refused, "{puts:?} must be refused");
                assert_eq!(listing(&tree), model.listing(), "{puts:?}");
                merges += 1;
            }
            Err(error) => {
                assert!(refused, "{puts:?}: {error}");
                refusals += 1;
            }
        }
    }
    assert!(merges > 500 && refusals > 100, "{merges}, {refusals}");
}
