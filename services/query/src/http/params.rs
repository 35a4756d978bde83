//! Query parameters, taken out one by one. Not here: what they mean. Invariant: a parameter that nobody took is
//! refused by name, so that a misspelled filter never lists everything.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use orloj_domain::manifest::{parse_duration, parse_instant};
use orloj_domain::time::Timestamp;

use super::Problem;

/// The parameters that are left.
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    /// Hash of path and filters, which a cursor carries.
    pub(super) filter: u64,
}

/// What does not change which items a list has.
const NOT_FILTERS: [&str; 4] = ["cursor", "limit", "wait", "timeout"];

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = query.map_err(|error| Problem::bad_parameter("", "", error.to_string()))?;
        let filters = pairs.iter().filter(|(name, _)| !NOT_FILTERS.contains(&name.as_str()));
        let mut filter = fnv(0xcbf2_9ce4_8422_2325, parts.uri.path());
        for (name, value) in filters {
            filter = fnv(fnv(filter, name), value);
        }
        Ok(Self { pairs, known: Vec::new(), filter })
    }
}

/// FNV-1a, with an end mark after each text.
fn fnv(hash: u64, text: &str) -> u64 {
    let bytes = text.bytes().chain([0xff]);
    bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Params {
    /// All values of a parameter.
    pub(super) fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (found, left) = std::mem::take(&mut self.pairs).into_iter().partition(|(given, _)| given == name);
        self.pairs = left;
        let found: Vec<(String, String)> = found;
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a parameter that may be given once.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.texts(name);
        if values.len() > 1 {
            return Err(Problem::bad_parameter(name, &values.join(", "), "may be given only once"));
        }
        Ok(values.pop())
    }

    /// The same, read as something; `expected` continues "must be".
    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Problem::bad_parameter(name, &text, format!("must be {expected}")))
    }

    /// One of a closed set of words.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &'static str,
        all: &[T],
        as_str: fn(T) -> &'static str,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = all.iter().copied().find(|word| as_str(*word) == text);
        let words: Vec<&str> = all.iter().map(|word| as_str(*word)).filter(|word| *word != "unknown").collect();
        let complaint = || Problem::bad_parameter(name, &text, format!("must be one of {}", words.join(", ")));
        found.filter(|word| as_str(*word) != "unknown").map(Some).ok_or_else(complaint)
    }

    /// An instant, or how long ago.
    pub(super) fn instant(&mut self, name: &'static str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if let Ok(ago) = parse_duration(&text) {
            return Ok(Some(now.minus(ago)));
        }
        parse_instant(&text).map(Some).map_err(|message| {
            Problem::bad_parameter(name, &text, format!("{message}; or how long ago, for example `24h`"))
        })
    }

    /// A length of time up to `max`.
    pub(super) fn duration(&mut self, name: &'static str, max: Duration) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let duration = parse_duration(&text).map_err(|message| Problem::bad_parameter(name, &text, message))?;
        if duration > max {
            return Err(Problem::bad_parameter(name, &text, format!("must be at most {}s", max.as_secs())));
        }
        Ok(Some(duration))
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some((name, value)) = self.pairs.first() else { return Ok(()) };
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        Err(Problem::bad_parameter(name, value, format!("is not known here; known are: {known}")))
    }
}
