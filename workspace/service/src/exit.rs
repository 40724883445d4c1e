//! Why a process ends, as an exit code that an orchestrator and a person can act on.

use std::fmt;

use crate::config::ConfigError;

/// The end of a process that did not simply finish (code 0).
#[derive(Debug)]
pub struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Code 1: a verdict or a check failed; the program itself did its work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// Code 64: the configuration or the command line can not be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(64, message)
    }

    /// Code 69: a dependency can not be reached or refuses the credentials.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(69, message)
    }

    /// Code 70: the watchdog, or a defect of the program.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(70, message)
    }

    /// Code 75: fenced by another instance, or a range of records is lost: look before a restart.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(75, message)
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Exit {
    /// An error that nobody classified is a defect. The message holds the whole chain of causes.
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<ConfigError>() {
            Ok(error) => error.into(),
            Err(error) => Self::bug(format!("{error:#}")),
        }
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::config(error.to_string())
    }
}
