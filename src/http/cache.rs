//! One cache policy an answer, as a value; rendered in one place.

use http::HeaderValue;

/// How long, and by whom, an answer may be reused (RFC 9111 §5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CachePolicy {
    /// Nothing but a digest (or a tag declared so) decides the bytes: a year.
    Immutable,
    /// May be stored; is validated at each use.
    Revalidate,
    /// Errors: never stored.
    Never,
}

impl CachePolicy {
    /// Of what is in an image; `immutable`: nothing but a digest decides it.
    pub(super) fn of(immutable: bool) -> CachePolicy {
        if immutable {
            CachePolicy::Immutable
        } else {
            CachePolicy::Revalidate
        }
    }

    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            CachePolicy::Immutable => "public, max-age=31536000, immutable",
            CachePolicy::Revalidate => "no-cache",
            CachePolicy::Never => "no-store",
        })
    }
}
