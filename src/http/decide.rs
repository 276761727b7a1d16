//! Whole, part, or nothing: what the conditions and the range of a request come to. Pure: request facts
//! and facts of one representation in, a decision out.

use super::conditional::{self, Precondition, Validators, only};
use super::range::{self, Selection};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use std::ops::Range;

/// What a representation is compared and cut by.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Strong, with its quotes.
    pub etag: &'a HeaderValue,
    /// Seconds since 1970, not later than now.
    pub last_modified: Option<u64>,
    /// Bytes.
    pub length: u64,
    /// `last_modified` is this representation's alone: not the one of an encoded form too that the
    /// request would get (RFC 9110 §8.8.2.2). Else no If-Range names this one by a date.
    pub date_is_strong: bool,
}

/// What of a representation is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// 200.
    Whole,
    /// 206 with Content-Range.
    Part(Range<u64>),
    /// 206 with multipart/byteranges, in the order asked for.
    Parts(Vec<Range<u64>>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416 with the length.
    Unsatisfiable,
}

impl Decision {
    /// The status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Decision::Whole => StatusCode::OK,
            Decision::Part(_) | Decision::Parts(_) => StatusCode::PARTIAL_CONTENT,
            Decision::NotModified => StatusCode::NOT_MODIFIED,
            Decision::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Decision::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }
}

/// Decides in the order of RFC 9110 §13.2.2: conditions, If-Range, Range. A range is defined for GET
/// only (§14.2).
pub fn decide(method: &Method, headers: &HeaderMap, facts: &Facts<'_>) -> Decision {
    let validators = Validators {
        etag: facts.etag,
        last_modified: facts.last_modified,
    };
    match conditional::evaluate(headers, validators) {
        Precondition::Proceed => {}
        Precondition::NotModified => return Decision::NotModified,
        Precondition::Failed => return Decision::PreconditionFailed,
    }
    let wanted = match only(headers, &header::RANGE) {
        Some(range) if method == Method::GET => range.to_str().ok(),
        _ => None,
    };
    let validators = Validators {
        last_modified: facts.last_modified.filter(|_| facts.date_is_strong),
        ..validators
    };
    let Some(wanted) = wanted.filter(|_| conditional::range_allowed(headers, validators)) else {
        return Decision::Whole;
    };
    match range::select(wanted, facts.length) {
        Selection::Whole => Decision::Whole,
        Selection::One(range) => Decision::Part(range),
        Selection::Many(ranges) => Decision::Parts(ranges),
        Selection::Unsatisfiable => Decision::Unsatisfiable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderName;

    /// Method, request fields, what they come to.
    type Case<'a> = (Method, &'a [(&'static str, &'static str)], Decision);

    #[test]
    fn conditions_come_before_ranges_and_only_get_has_ranges() {
        let table: [Case<'_>; 11] = [
            (Method::GET, &[], Decision::Whole),
            (Method::GET, &[("range", "bytes=0-4")], Decision::Part(0..5)),
            (Method::HEAD, &[("range", "bytes=0-4")], Decision::Whole),
            (
                Method::HEAD,
                &[("if-none-match", "\"a\"")],
                Decision::NotModified,
            ),
            (
                Method::GET,
                &[("range", "bytes=0-4"), ("if-none-match", "\"a\"")],
                Decision::NotModified,
            ),
            (
                Method::GET,
                &[("range", "bytes=90-"), ("if-match", "\"b\"")],
                Decision::PreconditionFailed,
            ),
            (
                Method::GET,
                &[("range", "bytes=90-"), ("if-range", "\"b\"")],
                Decision::Whole,
            ),
            (
                Method::GET,
                &[("range", "bytes=90-"), ("if-range", "\"a\"")],
                Decision::Unsatisfiable,
            ),
            (
                Method::GET,
                &[("range", "bytes=0-0,-1")],
                Decision::Parts(vec![0..1, 9..10]),
            ),
            (
                Method::GET,
                &[("range", "bytes=0-0"), ("range", "bytes=1-1")],
                Decision::Whole,
            ),
            (Method::GET, &[("if-range", "\"b\"")], Decision::Whole),
        ];
        let etag = HeaderValue::from_static("\"a\"");
        let facts = Facts {
            etag: &etag,
            last_modified: None,
            length: 10,
            date_is_strong: true,
        };
        for (method, fields, decision) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                );
            }
            assert_eq!(
                decide(&method, &headers, &facts),
                decision,
                "{method} {fields:?}"
            );
        }
    }
}
