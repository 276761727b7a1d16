//! Content digests: OCI image specification, descriptor.md, "Digests".

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// A registered digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// Its name in a digest's text.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
    /// Length of its digests in bytes.
    pub fn length(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// A digest of a registered algorithm, in its one canonical spelling (lower-case hex).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// The first 32 (SHA-256) or all 64 bytes; the rest is zero.
    bytes: [u8; 64],
}

/// Why a text is not a digest that we can verify. The text is quoted, escaped and bounded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `algorithm:hex` by the grammar.
    #[error("{0:?} is not a digest")]
    Grammar(String),
    /// Well formed, but of an algorithm that is not registered.
    #[error("digest {0:?} is of an algorithm that is not supported (sha256, sha512)")]
    Algorithm(String),
}

/// Computes a digest of bytes that arrive piece by piece.
pub struct Hasher(State);

enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Digest {
    /// A digest from its bytes; None if they are not as many as the algorithm makes.
    pub fn from_bytes(algorithm: Algorithm, digest: &[u8]) -> Option<Digest> {
        let mut bytes = [0; 64];
        if digest.len() != algorithm.length() {
            return None;
        }
        bytes[..digest.len()].copy_from_slice(digest);
        Some(Digest { algorithm, bytes })
    }
    /// Returns the digest's bytes, as many as the algorithm makes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.length()]
    }
    /// Returns the SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::new(Algorithm::Sha256, &sha2::Sha256::digest(bytes))
    }
    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    /// Returns the lower-case hex digits.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(128);
        // A String takes whatever is written to it.
        let _ = self.write_hex(&mut text);
        text
    }
    /// Starts a computation that can be compared to this digest (same algorithm).
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm)
    }

    fn new(algorithm: Algorithm, value: &[u8]) -> Digest {
        let mut bytes = [0; 64];
        bytes[..value.len()].copy_from_slice(value);
        Digest { algorithm, bytes }
    }

    fn write_hex(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = &self.bytes[..self.algorithm.length()];
        bytes.iter().try_for_each(|byte| {
            out.write_char(DIGITS[usize::from(byte >> 4)].into())?;
            out.write_char(DIGITS[usize::from(byte & 15)].into())
        })
    }
}

impl Hasher {
    /// Starts a computation.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }
    /// Ends the computation.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::new(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::new(Algorithm::Sha512, &state.finalize()),
        }
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let grammar = || DigestError::Grammar(clipped(text));
        let (name, hex) = text.split_once(':').ok_or_else(grammar)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ if is_algorithm_name(name) && is_encoded(hex) => {
                return Err(DigestError::Algorithm(clipped(text)));
            }
            _ => return Err(grammar()),
        };
        if hex.len() != 2 * algorithm.length() {
            return Err(grammar());
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (high, low) = (nibble(pair[0]), nibble(pair[1]));
            *byte = high.ok_or_else(grammar)? << 4 | low.ok_or_else(grammar)?;
        }
        Ok(Digest { algorithm, bytes })
    }
}

/// `component *([+._-] component)`, components lower-case letters and digits.
fn is_algorithm_name(name: &str) -> bool {
    let component = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.split(['+', '.', '_', '-']).all(component)
}

fn is_encoded(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(known)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The text as far as an error message quotes it: at most 300 characters.
pub(crate) fn clipped(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        f.write_str(":")?;
        self.write_hex(f)
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_256: &str =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// FIPS 180-4 example: SHA-512 of "abc".
    const ABC_512: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                           2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn digests_are_those_of_the_standard_whole_or_in_pieces() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY_256);
        let wanted: Digest = ABC_512.parse().unwrap();
        let mut hasher = wanted.hasher();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), wanted);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"x");
        assert_eq!(hasher.finish(), Digest::sha256(b"x"));
        assert_ne!(Digest::sha256(b"x"), Digest::sha256(b"y"));
    }

    #[test]
    fn text_and_json_go_there_and_back() {
        for text in [EMPTY_256, ABC_512] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!(digest.to_string(), text);
            assert_eq!(
                format!("{}:{}", digest.algorithm().name(), digest.hex()),
                text
            );
            let json = serde_json::to_string(&digest).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }
        assert!(serde_json::from_str::<Digest>("\"sha256:0\"").is_err());
    }

    #[test]
    fn only_the_canonical_spelling_of_a_registered_algorithm_is_taken() {
        let f = |count| "f".repeat(count);
        let malformed = [
            String::new(),
            "sha256".into(),
            "sha256:".into(),
            format!("sha256:{}", f(63)),
            format!("sha256:{}", f(65)),
            format!("sha256:{}F", f(63)),
            format!("sha256:{}g", f(63)),
            format!("sha256:{}é", f(62)),
            format!("sha512:{}", f(64)),
            format!("SHA256:{}", f(64)),
            format!(" sha256:{}", f(64)),
            format!("sha256:{} ", f(64)),
            format!("a++b:{}", f(64)),
            "md5:a/b".into(),
        ];
        for text in malformed {
            let error = text.parse::<Digest>().expect_err(&text);
            assert!(
                matches!(error, DigestError::Grammar(_)),
                "{text:?}: {error}"
            );
        }
        for text in [
            format!("md5:{}", f(32)),
            format!("sha256+b64u:{}", f(43)),
            "blake3:00".into(),
        ] {
            let error = text.parse::<Digest>().expect_err(&text);
            assert!(
                matches!(error, DigestError::Algorithm(_)),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn a_message_escapes_and_bounds_what_it_quotes() {
        let error = format!("x\n{}", "é".repeat(9000))
            .parse::<Digest>()
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("\"x\\né") && error.chars().count() < 330,
            "{error}"
        );
    }
}
