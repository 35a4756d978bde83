//! The one error of this module: which field of a schedule is wrong, which characters, and how to fix them.
//!
//! Invariant: the text never needs the source beside it; field, token and column are all in it.

/// Why a schedule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScheduleError {
    /// The part that is wrong: `second`, `minute`, `hour`, `dayOfMonth`, `month`, `weekday`, `year`, or `cron`
    /// (the expression as a whole), `timeZone`, `every`, `at`, `anchor`.
    pub field: String,
    /// The characters that are wrong, as they were written.
    pub value: String,
    /// Where `value` starts in the expression, counted in characters from 1; none if it is not part of one.
    pub column: Option<usize>,
    /// What is wrong and what to write instead; continues the sentence that `value` starts.
    pub message: String,
}

impl ScheduleError {
    pub(super) fn new(field: &str, value: &str, column: Option<usize>, message: impl Into<String>) -> ScheduleError {
        ScheduleError { field: field.to_owned(), value: value.to_owned(), column, message: message.into() }
    }
}

impl std::fmt::Display for ScheduleError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: `{}` ", self.field, self.value)?;
        if let Some(column) = self.column {
            write!(formatter, "at column {column} ")?;
        }
        formatter.write_str(&self.message)
    }
}
