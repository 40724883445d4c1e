//! Why a record could not be worked on, and what happens to it then.

use std::borrow::Cow;
use std::time::Duration;

/// The outcome of work that did not succeed. The crate that owns a client classifies its errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may well succeed later: tried again in place with growing pauses, then given up.
    #[error("{message}")]
    Transient {
        /// Stable code, e.g. `gateway_unavailable`; ends up in the header `dlq-error-code`.
        code: Cow<'static, str>,
        /// A sentence for the person who reads the dead letter.
        message: String,
        /// What the other side asked for, as in the HTTP header `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Nobody is there to do the work, whatever the record: a declared wait. The attempt counts for
    /// nothing, and the next one comes as soon as the handler is ready (concurrent handlers and sinks;
    /// elsewhere it ends the record as a transient failure does).
    #[error("{message}")]
    Away {
        /// Stable code, e.g. `gateway_away`; a label of the retries that are counted.
        code: Cow<'static, str>,
        /// A sentence that says who is away.
        message: String,
    },
    /// This record will never succeed: it becomes a dead letter at once.
    #[error("{message}")]
    Poison {
        /// Stable code, e.g. `amount_not_positive`.
        code: Cow<'static, str>,
        /// A sentence that names field and value.
        message: String,
    },
    /// Nothing can go on: the pump halts, commits nothing more, and the process ends.
    #[error("{message}")]
    Fatal {
        /// What the operator has to look at.
        message: String,
    },
}

impl Failure {
    /// A failure that may pass.
    pub fn transient(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Transient {
            code: code.into(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// Nobody is there to do the work.
    pub fn away(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Away {
            code: code.into(),
            message: message.into(),
        }
    }

    /// A failure that is the record's own fault.
    pub fn poison(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Poison {
            code: code.into(),
            message: message.into(),
        }
    }

    /// A failure that must stop the pump.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::Fatal {
            message: message.into(),
        }
    }
}
