//! The error type and its three classes.

use std::fmt;

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreErrorKind {
    /// Nothing was written; the same call may succeed later.
    Transient,
    /// This document can never be stored; the others can.
    Poison,
    /// No call will succeed until someone acts.
    Fatal,
}

impl StoreErrorKind {
    /// The class in lower case, as it stands in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            StoreErrorKind::Transient => "transient",
            StoreErrorKind::Poison => "poison",
            StoreErrorKind::Fatal => "fatal",
        }
    }
}

/// Why a call failed: the class, a stable code, and a sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    kind: StoreErrorKind,
    code: &'static str,
    message: String,
}

impl StoreError {
    /// A failure that may pass by itself.
    pub fn transient(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: StoreErrorKind::Transient,
            code,
            message: message.into(),
        }
    }

    /// A document that can never be stored.
    pub fn poison(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: StoreErrorKind::Poison,
            code,
            message: message.into(),
        }
    }

    /// A failure that needs someone to act.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: StoreErrorKind::Fatal,
            code,
            message: message.into(),
        }
    }

    /// What the caller does next.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// A stable snake_case word for this failure: `locked`, `disk_full`, `not_an_object`...
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence, with the remedy.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}
