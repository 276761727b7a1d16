//! Names of packs, and the file names made of them.

use std::sync::Arc;

/// What every pack's file name ends with.
const SUFFIX: &str = ".pack";
/// What the names of sources begin with.
const SOURCE: &str = "source-";
/// Longest key: with the suffix, a file name of at most 255 bytes.
const LONGEST: usize = 250;

/// Names a pack: `[a-z0-9.-]+`, and for a side pack `<base>+[a-z0-9.-]+`; at most 250 bytes.
/// A side pack is evicted before its base and never outlives it. `source-<base>` names a source: what that base
/// pack is made of, kept so that it can be made again. It has no side packs.
// The order of keys puts the side packs of a base directly behind it: `+` is the smallest
// byte of the grammar.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(Arc<str>);

impl Key {
    /// A base pack's key. Panics on a name outside the grammar: keys are made by code, not by users.
    pub fn base(name: &str) -> Key {
        assert!(is_base_name(name), "{name:?} cannot name a pack");
        Key::checked(name)
    }
    /// A side pack's key. Panics on a name outside the grammar, or if `base` is itself a side pack's.
    pub fn side(base: &Key, name: &str) -> Key {
        assert!(
            is_part(name) && base.is_base(),
            "{name:?} cannot name a side pack of {base:?}"
        );
        Key::checked(&format!("{}+{name}", base.0))
    }
    /// The key of a base pack's source. Panics if `base` is the key of something else.
    pub fn source(base: &Key) -> Key {
        assert!(base.is_base(), "{base:?} has no source");
        Key::checked(&format!("{SOURCE}{}", base.0))
    }
    /// Whether it names a source.
    pub fn is_source(&self) -> bool {
        self.0.starts_with(SOURCE)
    }
    /// The key of the base pack that is made of this source.
    pub fn made_of_it(&self) -> Option<Key> {
        self.0.strip_prefix(SOURCE).map(|base| Key(base.into()))
    }
    /// The key of the base pack, for a side pack.
    pub fn base_key(&self) -> Option<Key> {
        self.0.split_once('+').map(|(base, _)| Key(base.into()))
    }
    /// The name within its base, for a side pack.
    pub fn side_name(&self) -> Option<&str> {
        self.0.split_once('+').map(|(_, name)| name)
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names a base pack: no side pack, no source.
    pub(super) fn is_base(&self) -> bool {
        !self.is_source() && !self.0.contains('+')
    }
    fn checked(name: &str) -> Key {
        assert!(
            name.len() <= LONGEST,
            "{name:?} is too long for a file name"
        );
        Key(name.into())
    }
    pub(super) fn is_side_of(&self, base: &Key) -> bool {
        self.0
            .strip_prefix(base.as_str())
            .is_some_and(|rest| rest.starts_with('+'))
    }
    pub(super) fn file_name(&self) -> String {
        format!("{}{SUFFIX}", self.0)
    }
    /// The key of a file found on disk; None for a name that no key makes.
    pub(super) fn of_file_name(name: &str) -> Option<Key> {
        Key::of_name(name.strip_suffix(SUFFIX)?)
    }
    /// The key that [`Key::as_str`] gave; None for a name that no key makes.
    pub(super) fn of_name(name: &str) -> Option<Key> {
        let (base, side) = match name.split_once('+') {
            Some((base, side)) => (base, Some(side)),
            None => (name, None),
        };
        let good = name.len() <= LONGEST && is_part(base) && side.is_none_or(is_part);
        let source_of = name.strip_prefix(SOURCE);
        let is_lone = source_of.is_none_or(|of| side.is_none() && is_base_name(of));
        (good && is_lone).then(|| Key(name.into()))
    }
}

fn is_base_name(name: &str) -> bool {
    is_part(name) && !name.starts_with(SOURCE)
}

fn is_part(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_leads_back_to_its_key_and_no_other_name_does() {
        let base = Key::base("sha256-ab.v1");
        let side = Key::side(&base, "br");
        let source = Key::source(&base);
        for key in [&base, &side, &source] {
            assert_eq!(Key::of_file_name(&key.file_name()).as_ref(), Some(key));
        }
        assert_eq!(source.made_of_it(), Some(base.clone()));
        assert_eq!(source.base_key(), None);
        assert!(source.is_source() && !base.is_source() && base.made_of_it().is_none());
        assert_eq!(side.base_key(), Some(base.clone()));
        assert!(side.is_side_of(&base) && !base.is_side_of(&base));
        assert!(!Key::base("sha256-ab.v10").is_side_of(&base));
        for wrong in [
            "x",
            ".pack",
            "A.pack",
            "a+.pack",
            "+a.pack",
            "a+b+c.pack",
            "source-.pack",
            "source-a+b.pack",
            "source-source-a.pack",
            "a/b.pack",
        ] {
            assert_eq!(Key::of_file_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    #[should_panic(expected = "cannot name a pack")]
    fn a_key_outside_the_grammar_panics() {
        let _ = Key::base("../etc");
    }
}
