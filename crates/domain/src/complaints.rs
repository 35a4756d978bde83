//! Complaints as they are gathered while a manifest is read. Not here: what is wrong with what (`manifest`,
//! `calendar`). Invariant: reading goes on after a complaint, so that all of them come at once.

use std::fmt::Display;

use crate::job_event::FieldError;

/// Complaints so far.
#[derive(Debug, Default)]
pub(crate) struct Complaints(pub(crate) Vec<FieldError>);

impl Complaints {
    pub(crate) fn add(&mut self, field: impl Into<String>, value: impl Display, message: impl Into<String>) {
        self.0.push(FieldError::new(field, value, message));
    }

    /// Complains unless the field has the one value that it may have.
    pub(crate) fn constant(&mut self, field: &str, value: &str, expected: &str) {
        if value != expected {
            self.add(field, value, format!("must be `{expected}`"));
        }
    }
}
