//! What goes wrong between us and a source, before and after it is given a name.

use super::{RegistryError, RegistryErrorKind};

/// One attempt's failure: knows neither registry nor repository, and never repeats an
/// address, a credential or a text that the far side chose.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: RegistryErrorKind,
    pub(super) text: String,
    /// Asking again may help.
    pub(super) transient: bool,
}

impl Failure {
    /// A failure that asking again does not cure.
    pub(super) fn last(kind: RegistryErrorKind, text: impl Into<String>) -> Failure {
        Failure {
            kind,
            text: text.into(),
            transient: false,
        }
    }

    pub(super) fn wrong(text: impl Into<String>) -> Failure {
        Failure::last(RegistryErrorKind::Wrong, text)
    }

    pub(super) fn denied(text: impl Into<String>) -> Failure {
        Failure::last(RegistryErrorKind::Denied, text)
    }

    pub(super) fn silent(text: impl Into<String>) -> Failure {
        Failure::last(RegistryErrorKind::Silent, text)
    }

    /// A failure that can pass.
    pub(super) fn passing(text: impl Into<String>) -> Failure {
        let kind = RegistryErrorKind::Failing { retry_after: None };
        Failure {
            kind,
            text: text.into(),
            transient: true,
        }
    }

    /// Names the host, what was asked of it, and how often.
    pub(super) fn name(self, host: &str, what: &str, attempts: u32) -> RegistryError {
        let after = match attempts {
            0 | 1 => String::new(),
            n => format!(" after {n} attempts"),
        };
        RegistryError {
            kind: self.kind,
            message: format!("{host}: {what}: {}{after}", self.text).into(),
        }
    }
}
