//! Tar framing, fed piece by piece: v7, ustar, GNU, PAX, star. Agrees with Go's
//! `archive/tar` (so with containerd) on what it accepts, and refuses what readers disagree
//! on: sparse files, vendor types, fields that are no numbers, extension headers that
//! belong to nothing or contradict each other. Knows nothing of paths' meaning.

mod header;
mod pax;

use crate::pack::shown;
use header::{BLOCK, Block};
use pax::Pax;

/// What follows a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// Device or fifo.
    Special,
}

/// A member of the archive.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    /// As the archive has it, not cleaned.
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) kind: MemberKind,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
}

/// Why parsing stopped.
#[derive(Debug)]
pub(crate) enum TarError<E> {
    /// The archive is refused.
    Refused(String),
    /// A cap was passed.
    Cap(String),
    /// The receiver failed.
    Receiver(E),
}

/// Where members go.
pub(crate) trait Receiver {
    type Error;
    /// A member; its content follows in pieces.
    fn member(&mut self, member: &Member<'_>) -> Result<(), Self::Error>;
    /// A piece of the last member's content.
    fn content(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// A number that a header field holds, or the reason for a refusal.
type Checked<T> = Result<T, String>;

enum State {
    /// At a header; the block may be here in part.
    Header,
    /// Inside a member's content, then its padding.
    Content { left: u64, padding: u64 },
    /// Inside an extension header's records.
    Extension { kind: u8, left: usize, padding: u64 },
    /// After the end-of-archive marker: whatever follows is not looked at.
    End,
}

/// The parser's state.
pub(crate) struct Parser {
    state: State,
    block: [u8; BLOCK],
    filled: usize,
    zero_blocks: u32,
    header_cap: usize,
    /// Bytes of extension headers for the member to come.
    header_bytes: usize,
    extension: Vec<u8>,
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

impl Parser {
    /// `header_cap`: bytes of extension headers that one member may have.
    pub(crate) fn new(header_cap: usize) -> Parser {
        Parser {
            state: State::Header,
            block: [0; BLOCK],
            filled: 0,
            zero_blocks: 0,
            header_cap,
            header_bytes: 0,
            extension: Vec::new(),
            pax: None,
            long_name: None,
            long_link: None,
        }
    }

    /// Parses the next bytes of the archive.
    pub(crate) fn feed<R: Receiver>(
        &mut self,
        mut bytes: &[u8],
        to: &mut R,
    ) -> Result<(), TarError<R::Error>> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::End => return Ok(()),
                State::Content { left, padding } => {
                    let n = (*left).min(bytes.len() as u64) as usize;
                    if n > 0 {
                        to.content(&bytes[..n]).map_err(TarError::Receiver)?;
                        *left -= n as u64;
                    }
                    let skip = if *left == 0 {
                        (*padding).min((bytes.len() - n) as u64)
                    } else {
                        0
                    };
                    *padding -= skip;
                    bytes = &bytes[n + skip as usize..];
                    if *left == 0 && *padding == 0 {
                        self.state = State::Header;
                    }
                }
                State::Extension {
                    kind,
                    left,
                    padding,
                } => {
                    let n = (*left).min(bytes.len());
                    self.extension.extend_from_slice(&bytes[..n]);
                    *left -= n;
                    let skip = if *left == 0 {
                        (*padding).min((bytes.len() - n) as u64)
                    } else {
                        0
                    };
                    *padding -= skip;
                    bytes = &bytes[n + skip as usize..];
                    if *left == 0 && *padding == 0 {
                        let kind = *kind;
                        self.state = State::Header;
                        self.extended(kind).map_err(TarError::Refused)?;
                    }
                }
                State::Header if self.filled == 0 && bytes.len() >= BLOCK => {
                    let (block, rest) = bytes.split_at(BLOCK);
                    self.block.copy_from_slice(block);
                    bytes = rest;
                    self.header(to)?;
                }
                State::Header => {
                    let n = (BLOCK - self.filled).min(bytes.len());
                    self.block[self.filled..self.filled + n].copy_from_slice(&bytes[..n]);
                    self.filled += n;
                    bytes = &bytes[n..];
                    if self.filled == BLOCK {
                        self.filled = 0;
                        self.header(to)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes over what is left of a member's content and its padding: the caller does not feed those bytes,
    /// as many as this returns.
    pub(crate) fn skip_content(&mut self) -> u64 {
        match self.state {
            State::Content { left, padding } => {
                self.state = State::Header;
                left.saturating_add(padding)
            }
            _ => 0,
        }
    }

    /// Whether the end-of-archive marker was read: what follows means nothing.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// To be called after the last byte. A missing end-of-archive marker is accepted at a
    /// block boundary, as Go and GNU tar do.
    pub(crate) fn finish(&self) -> Checked<()> {
        match &self.state {
            State::End => {}
            State::Header if self.filled == 0 => {}
            State::Header => return Err("the archive ends within a header".to_owned()),
            State::Content { left: 0, .. } => {
                return Err("the archive ends within a member's padding".to_owned());
            }
            State::Content { left, .. } => {
                return Err(format!(
                    "the archive ends {left} bytes before its last member does"
                ));
            }
            State::Extension { .. } => {
                return Err("the archive ends within an extension header".to_owned());
            }
        }
        self.nothing_pending()
    }

    fn nothing_pending(&self) -> Checked<()> {
        if self.pax.is_some() || self.long_name.is_some() || self.long_link.is_some() {
            return Err("an extension header is not followed by a member".to_owned());
        }
        Ok(())
    }

    fn header<R: Receiver>(&mut self, to: &mut R) -> Result<(), TarError<R::Error>> {
        if self.block.iter().all(|b| *b == 0) {
            self.zero_blocks += 1;
            if self.zero_blocks == 2 {
                self.nothing_pending().map_err(TarError::Refused)?;
                self.state = State::End;
            }
            return Ok(());
        }
        if self.zero_blocks != 0 {
            return Err(TarError::Refused(
                "a header follows a block of zeros".to_owned(),
            ));
        }
        let block = self.block;
        let block = Block::parse(&block).map_err(TarError::Refused)?;
        match block.typeflag {
            b'x' | b'g' | b'L' | b'K' => {
                let cap = self.header_cap;
                self.header_bytes = self
                    .header_bytes
                    .saturating_add(usize::try_from(block.size).unwrap_or(usize::MAX));
                if self.header_bytes > cap {
                    return Err(TarError::Cap(format!(
                        "extension headers of `{}` are longer than {cap} bytes (limits.headerBytes)",
                        shown(block.name.full().as_ref()),
                    )));
                }
                self.extension.clear();
                let padding = padding(block.size);
                self.state = State::Extension {
                    kind: block.typeflag,
                    left: block.size as usize,
                    padding,
                };
                if block.size == 0 {
                    self.state = State::Header;
                    self.extended(block.typeflag).map_err(TarError::Refused)?;
                }
                Ok(())
            }
            _ => self.member(&block, to),
        }
    }

    /// An extension header is complete in `self.extension`.
    fn extended(&mut self, kind: u8) -> Checked<()> {
        let twice = |what: &str| Err(format!("two {what} headers in a row for one member"));
        match kind {
            b'x' if self.pax.is_some() => return twice("PAX"),
            b'L' if self.long_name.is_some() => return twice("GNU long name"),
            b'K' if self.long_link.is_some() => return twice("GNU long link"),
            b'x' => self.pax = Some(Pax::parse(&self.extension)?),
            b'L' => self.long_name = Some(text(&self.extension).to_vec()),
            b'K' => self.long_link = Some(text(&self.extension).to_vec()),
            _ => {
                self.nothing_pending()?;
                self.header_bytes = 0;
                Pax::parse(&self.extension)?.check_global()?;
            }
        }
        Ok(())
    }

    fn member<R: Receiver>(
        &mut self,
        block: &Block<'_>,
        to: &mut R,
    ) -> Result<(), TarError<R::Error>> {
        self.header_bytes = 0;
        let pax = self.pax.take().unwrap_or_default();
        let long_name = self.long_name.take();
        let long_link = self.long_link.take();
        let own = block.name.full();
        let name = choose(&own, long_name.as_deref(), pax.path.as_deref(), "name")
            .map_err(TarError::Refused)?;
        let link = choose(
            block.link,
            long_link.as_deref(),
            pax.link_path.as_deref(),
            "link",
        )
        .map_err(TarError::Refused)?;
        let refuse = |why: String| TarError::Refused(format!("entry `{}`: {why}", shown(name)));
        let size = pax.size.unwrap_or(block.size);
        let slash = name.ends_with(b"/");
        let kind = match block.typeflag {
            b'\0' if slash => MemberKind::Directory,
            b'0' | b'\0' | b'7' if slash => {
                return Err(refuse("a regular file whose name ends in a slash".into()));
            }
            b'0' | b'\0' | b'7' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' | b'4' | b'6' => MemberKind::Special,
            b'5' => MemberKind::Directory,
            b'S' => return Err(refuse("sparse files are not supported".into())),
            other => {
                let flag = (other as char).escape_default();
                return Err(refuse(format!("type `{flag}` is not supported")));
            }
        };
        if pax.sparse {
            return Err(refuse("sparse files are not supported".into()));
        }
        // Only files have content, whatever size the header of another kind gives (Go, Python
        // and libarchive agree).
        let size = if kind == MemberKind::File { size } else { 0 };
        let member = Member {
            name,
            link,
            kind,
            size,
            mode: block.mode,
            mtime: pax.mtime.unwrap_or(block.mtime),
        };
        to.member(&member).map_err(TarError::Receiver)?;
        if size > 0 {
            self.state = State::Content {
                left: size,
                padding: padding(size),
            };
        }
        Ok(())
    }
}

/// GNU and PAX long names that contradict each other are refused, since readers differ.
fn choose<'a>(
    own: &'a [u8],
    gnu: Option<&'a [u8]>,
    pax: Option<&'a [u8]>,
    what: &str,
) -> Checked<&'a [u8]> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(format!(
            "entry `{}`: GNU and PAX headers give different {what}s",
            shown(pax)
        )),
        (gnu, pax) => Ok(gnu.or(pax).unwrap_or(own)),
    }
}
