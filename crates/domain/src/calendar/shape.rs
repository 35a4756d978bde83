//! A calendar as it is written, field by field: texts, not yet checked. Not here: what they mean (`read`).
//! Invariant: an unknown field is refused, never ignored; an absent field stays absent when it is written again.

use serde::{Deserialize, Serialize};

use crate::manifest::Metadata;

/// One calendar as people write it, and as it is kept in `settings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalendarManifest {
    /// `orloj/v1`.
    pub api_version: String,
    /// `Calendar`.
    pub kind: String,
    /// Its name; calendars have no namespace.
    pub metadata: Metadata,
    /// Its days.
    pub spec: CalendarSpec,
}

/// The days of a calendar: all that any of the fields names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalendarSpec {
    /// IANA name of the zone whose dates count; default: that of the rule that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Single days, `2026-12-25`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dates: Vec<String>,
    /// Days in a row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<DateRange>,
    /// Days of every week: `SAT`, `saturday`, or `MON-FRI`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weekdays: Vec<String>,
    /// Days of every year, `12-25`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yearly: Vec<String>,
    /// Other calendars, whose days are this one's too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
}

/// Days in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DateRange {
    /// The first day.
    pub from: String,
    /// The last day, inclusive.
    pub to: String,
}
