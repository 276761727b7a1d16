//! What a file is sent as: its own bytes, a sidecar of the image, or a variant of ours. RFC 9110 §12.
//!
//! 1. What there is: the sidecars beside the file, our variants that are ready, those that can be made.
//! 2. What the request accepts ([`encoding`]); a range without If-Range is of the file's own bytes, one
//!    with it is of what its ETag names.
//! 3. If a better one could be there, it is asked for, and the answer is not settled. Only who accepts
//!    nothing of what is there waits for it, until the deadline.

use super::body::Body;
use super::conditional::only;
use super::deadline::Deadline;
use super::encoding::{self, Accepted, Worth};
use super::represent::{etag, read};
use crate::config::Encodings;
use crate::images::{Coding, FileNode, Found, Images, View};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response};
use std::sync::Arc;

/// Of sidecars.
pub(super) const SUFFIXES: [&str; 3] = [
    Coding::ALL[0].suffix(),
    Coding::ALL[1].suffix(),
    Coding::ALL[2].suffix(),
];
const TOKENS: [&str; 3] = [
    Coding::ALL[0].token(),
    Coding::ALL[1].token(),
    Coding::ALL[2].token(),
];

/// What is sent of a file.
pub(super) struct Offer {
    /// Whose bytes, of which hash; none: none that the request accepts (406).
    pub(super) file: Option<Arc<FileNode>>,
    pub(super) coding: Option<Coding>,
    /// Another Accept-Encoding could have got other bytes.
    pub(super) varies: bool,
    /// The same request gets the same again, as long as the view is current.
    pub(super) settled: bool,
    /// The request accepts nothing else of this file, so that a date names what is sent.
    pub(super) alone: bool,
}

impl Offer {
    /// A file whose own bytes are in this coding, whatever is accepted.
    pub(super) fn stored(file: Arc<FileNode>, coding: Coding) -> Offer {
        Offer {
            coding: Some(coding),
            ..Offer::plain(file)
        }
    }

    /// The file's own bytes, whatever is accepted.
    fn plain(file: Arc<FileNode>) -> Offer {
        Offer {
            file: Some(file),
            coding: None,
            varies: false,
            settled: true,
            alone: true,
        }
    }
}

/// Chooses. `path` is the file's in the image.
///
/// # Errors
/// The answer that says that the disk does not give the file.
pub(super) async fn choose(
    (images, view): (&Images, &View),
    (file, path): (Arc<FileNode>, &[u8]),
    content_type: &HeaderValue,
    (method, headers): (&Method, &HeaderMap),
    deadline: Deadline,
) -> Result<Offer, Response<Body>> {
    if view.info.encodings == Encodings::Off {
        return Ok(Offer::plain(file));
    }
    let accepted = Accepted::of(headers);
    let worth = encoding::worth(content_type.as_bytes());
    let mut sidecars = match worth {
        Worth::Compressed => [None, None, None],
        _ => view.beside(path, SUFFIXES),
    };
    for sidecar in &mut sidecars {
        // An empty one is no stream of any coding; a longer one saves nothing.
        sidecar.take_if(|it| it.length == 0 || it.length >= file.length);
    }
    let own = view.info.encodings == Encodings::All
        && worth == Worth::Compressible
        && images.encodable(file.length);
    let found = match own {
        true => images.variants(&file),
        false => Found::default(),
    };
    let varies = own || sidecars.iter().any(Option::is_some);
    let mut makeable = own && !found.worthless;
    let mut variants = found.ready;
    let mut ready = sidecars;
    for (ready, variant) in ready.iter_mut().zip(&mut variants) {
        *ready = ready.take().or_else(|| variant.take());
    }
    let request = Request {
        accepted,
        method,
        headers,
    };
    let (chosen, sent) = loop {
        let chosen = choice(&request, makeable, &ready, &file);
        if let (None, Some(wanted)) = (chosen.sent, chosen.better) {
            let coding = Coding::ALL[wanted];
            let made = Box::pin(deadline.wait(images.encoded(&file, coding)));
            match made.await? {
                Some(variant) => ready[wanted] = Some(variant),
                None => makeable = false,
            }
            continue;
        }
        let Some(Choice::Coded(index)) = chosen.sent else {
            break (chosen, None);
        };
        let Some(node) = ready[index].take().map(Arc::new) else {
            break (chosen, None);
        };
        let coding = Coding::ALL[index];
        let start = 0..node.length.min(coding.magic().len() as u64);
        if *read(&node, start).await? == *coding.magic() {
            break (chosen, Some((node, coding)));
        }
        // A sidecar that is not what its name says: as if it were not there.
        ready[index] = variants[index].take();
    };
    if let Some(better) = chosen.better {
        images.encode(&file, Coding::ALL[better]);
    }
    let coding = sent.as_ref().map(|(_, coding)| *coding);
    let identity = chosen.sent.map(|_| file);
    Ok(Offer {
        file: sent.map(|(node, _)| node).or(identity),
        coding,
        varies,
        settled: chosen.better.is_none(),
        alone: !varies || chosen.alone,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Identity,
    /// By [`Coding::ALL`].
    Coded(usize),
}

/// What is sent (none: 406), and what would be, were it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen {
    sent: Option<Choice>,
    better: Option<usize>,
    /// No coding of it is acceptable.
    alone: bool,
}

/// What of a request decides.
struct Request<'a> {
    accepted: Accepted,
    method: &'a Method,
    headers: &'a HeaderMap,
}

/// A content that can be sent, as far as the choice needs it.
trait Tagged {
    fn hash(&self) -> u128;
}

impl Tagged for FileNode {
    fn hash(&self) -> u128 {
        self.hash
    }
}

/// Pure. `makeable`: a variant of ours could be made of each coding.
fn choice<T: Tagged>(
    request: &Request<'_>,
    makeable: bool,
    ready: &[Option<T>; 3],
    file: &T,
) -> Chosen {
    let accepted = &request.accepted;
    let there = [0, 1, 2].map(|index: usize| ready[index].is_some());
    let sent = best(accepted, there);
    let ideal = best(accepted, there.map(|there| there || makeable));
    let better = match ideal {
        Some(Choice::Coded(index)) if !there[index] => Some(index),
        _ => None,
    };
    let alone = !matches!(ideal, Some(Choice::Coded(_)));
    let chosen = Chosen {
        sent,
        better,
        alone,
    };
    // A range is defined for GET only, and one of several Range fields is none.
    if request.method != Method::GET || only(request.headers, &header::RANGE).is_none() {
        return chosen;
    }
    let acceptable = |choice: Choice| match choice {
        Choice::Identity => best(accepted, [false; 3]).is_some(),
        Choice::Coded(index) => accepted.best(&TOKENS[index..=index], &TOKENS).is_some(),
    };
    let named = match request.headers.get(header::IF_RANGE) {
        // Parts are put together by those who know nothing of codings; they get the bytes of the file.
        None => Some(Choice::Identity),
        Some(tag) => {
            let names = |it: &T| *tag == etag(it.hash());
            let coded = (0..3).find(|index| ready[*index].as_ref().is_some_and(names));
            coded
                .map(Choice::Coded)
                .or(names(file).then_some(Choice::Identity))
        }
    };
    match named.filter(|named| acceptable(*named)) {
        Some(named) => Chosen {
            sent: Some(named),
            better: None,
            alone,
        },
        None => chosen,
    }
}

fn best(accepted: &Accepted, there: [bool; 3]) -> Option<Choice> {
    let mut offered = ["identity"; 4];
    let mut choices = [Choice::Identity; 4];
    let mut count = 0;
    for (index, _) in there.iter().enumerate().filter(|(_, there)| **there) {
        (offered[count], choices[count]) = (TOKENS[index], Choice::Coded(index));
        count += 1;
    }
    let best = accepted.best(&offered[..=count], &TOKENS)?;
    Some(choices[best])
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Tagged for u128 {
        fn hash(&self) -> u128 {
            *self
        }
    }

    /// The file's own bytes have hash 9; variants have 0 (br), 1 (zstd), 2 (gzip).
    fn check(
        accept: Option<&str>,
        there: [bool; 3],
        makeable: bool,
        fields: &[(&'static str, String)],
    ) -> (Option<Choice>, Option<usize>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let ready = [0, 1, 2].map(|index| there[index as usize].then_some(index));
        let request = Request {
            accepted: Accepted::parse(accept),
            method: &Method::GET,
            headers: &headers,
        };
        let chosen = choice(&request, makeable, &ready, &9);
        (chosen.sent, chosen.better)
    }

    #[test]
    fn what_is_there_is_sent_and_what_is_better_is_asked_for() {
        use Choice::{Coded, Identity};
        const NONE: [bool; 3] = [false; 3];
        const GZIP: [bool; 3] = [false, false, true];
        let all = Some("gzip, deflate, br, zstd");
        for (accept, there, makeable, sent, better) in [
            (None, [true; 3], true, Some(Identity), None),
            (all, NONE, false, Some(Identity), None),
            (all, NONE, true, Some(Identity), Some(0)),
            (all, GZIP, true, Some(Coded(2)), Some(0)),
            (all, GZIP, false, Some(Coded(2)), None),
            (all, [true; 3], true, Some(Coded(0)), None),
            (Some("gzip"), [true; 3], true, Some(Coded(2)), None),
            (Some("gzip"), NONE, true, Some(Identity), Some(2)),
            (Some("gzip, identity;q=0"), NONE, true, None, Some(2)),
            (Some("gzip, identity;q=0"), NONE, false, None, None),
            (
                Some("identity, br;q=0.5"),
                [true; 3],
                true,
                Some(Identity),
                None,
            ),
            (Some("identity;q=0"), [true; 3], true, None, None),
        ] {
            let found = check(accept, there, makeable, &[]);
            assert_eq!(found, (sent, better), "{accept:?} of {there:?}");
        }
    }

    #[test]
    fn a_range_is_of_the_file_or_of_what_if_range_names() {
        use Choice::{Coded, Identity};
        let quoted = |hash: u128| etag(hash).to_str().unwrap().to_owned();
        let date = "Tue, 14 Nov 2023 22:13:20 GMT".to_owned();
        let range = || ("range", "bytes=0-1".to_owned());
        let if_range = |value: String| vec![range(), ("if-range", value)];
        let all = "gzip, br, zstd";
        for (accept, fields, sent) in [
            (all, vec![range()], Some(Identity)),
            (all, if_range(quoted(9)), Some(Identity)),
            (all, if_range(quoted(0)), Some(Coded(0))),
            (all, if_range(quoted(2)), Some(Coded(2))),
            (all, if_range(quoted(7)), Some(Coded(0))),
            (all, if_range(date), Some(Coded(0))),
            ("br", if_range(quoted(2)), Some(Coded(0))),
            ("gzip, identity;q=0", vec![range()], Some(Coded(2))),
            ("*;q=0", vec![range()], None),
        ] {
            let found = check(Some(accept), [true; 3], true, &fields);
            assert_eq!(found, (sent, None), "{accept} {fields:?}");
        }
    }
}
