//! How a command ends: the exit codes, and failures that carry one. Not here: words for
//! the person (each command). Invariant: a script can tell these ends apart without reading the words.

use std::fmt;

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Done.
    Ok = 0,
    /// It did not work, or a job or run ended badly.
    Error = 1,
    /// The command line or a file is wrong; nothing was sent.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// It contradicts what is there.
    Conflict = 4,
    /// No answer in time.
    TimedOut = 5,
    /// Not allowed.
    Refused = 6,
    /// A comparison found a difference.
    Difference = 8,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A command that could not go on.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How it ends.
    pub(crate) code: Code,
    /// For the person; may have several lines.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Code::Error, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a command returns.
pub(crate) type Outcome = Result<Code, Failure>;
