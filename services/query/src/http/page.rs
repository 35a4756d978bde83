//! Pages of lists: limit, cursor, and the envelope. Not here: order (`views`). Invariant: a cursor names the last
//! item that was given, so items that come or go meanwhile neither repeat nor hide others.

use axum::response::Response;
use serde_json::{Value, json};

use super::Problem;
use super::params::Params;
use crate::views::Items;

/// Items on a page if nothing is said.
const LIMIT_DEFAULT: usize = 50;
/// Most items on a page.
const LIMIT_MAX: usize = 500;

/// Which page is asked for.
pub(super) struct Page {
    pub(super) limit: usize,
    /// Key of the last item of the page before, as its list writes it.
    pub(super) after: Option<String>,
    filter: u64,
}

impl Page {
    /// Takes `limit` and `cursor`.
    pub(super) fn of(params: &mut Params) -> Result<Self, Problem> {
        let expected = "a whole number from 1 to 500";
        let limit = params.parsed::<usize>("limit", expected)?.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::bad_parameter("limit", &limit.to_string(), format!("must be {expected}")));
        }
        let filter = params.filter;
        let after = match params.text("cursor")? {
            None => None,
            Some(cursor) => Some(decoded(&cursor, filter).ok_or_else(|| {
                Problem::bad_parameter("cursor", &cursor, "is no cursor of this list; start again without one")
            })?),
        };
        Ok(Self { limit, after, filter })
    }

    /// The key to go on after, read as its list writes it.
    pub(super) fn after_as<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(key) = &self.after else { return Ok(None) };
        let complaint = || Problem::bad_parameter("cursor", key, "is no cursor of this list; start again without one");
        read(key).map(Some).ok_or_else(complaint)
    }

    /// The envelope of items, of which one more than the limit was asked for.
    pub(super) fn envelope(&self, items: Items) -> Value {
        self.envelope_until(items, None)
    }

    /// The same where the search may have been cut short at a key, with fewer items than asked for.
    pub(super) fn envelope_until(&self, mut items: Items, cut_at: Option<String>) -> Value {
        let is_more = items.len() > self.limit;
        items.truncate(self.limit);
        let last = items.last().filter(|_| is_more).map(|(key, _)| key.clone());
        let next = last.or(cut_at).map(|key| encoded(&key, self.filter));
        let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
        json!({"items": items, "nextCursor": next})
    }

    /// A page of a list that is here as a whole, in order of its keys.
    pub(super) fn of_whole(&self, items: Items) -> Response {
        let rest = items.into_iter().filter(|(key, _)| self.after.as_ref().is_none_or(|after| key > after));
        super::document(&self.envelope(rest.take(self.limit + 1).collect()))
    }
}

fn encoded(key: &str, filter: u64) -> String {
    format!("{filter:016x}{key}").bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decoded(cursor: &str, filter: u64) -> Option<String> {
    let bytes: Option<Vec<u8>> =
        (0..cursor.len()).step_by(2).map(|at| u8::from_str_radix(cursor.get(at..at + 2)?, 16).ok()).collect();
    let text = String::from_utf8(bytes?).ok()?;
    text.strip_prefix(&format!("{filter:016x}")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_of_one_list() {
        let cursor = encoded("1700~ab", 7);
        assert_eq!(decoded(&cursor, 7).as_deref(), Some("1700~ab"));
        for (cursor, filter) in [(cursor.as_str(), 8), ("", 7), ("zz", 7), ("0", 7), ("é", 7)] {
            assert_eq!(decoded(cursor, filter), None, "{cursor}");
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = Page { limit: 2, after: None, filter: 1 };
        let items = |count: usize| (0..count).map(|number| (number.to_string(), json!(number))).collect::<Items>();
        assert_eq!(page.envelope(items(2)), json!({"items": [0, 1], "nextCursor": null}));
        assert_eq!(page.envelope(items(3)), json!({"items": [0, 1], "nextCursor": encoded("1", 1)}));
    }
}
