//! How answers are shown: `-o table|wide|json|jsonl|yaml|name`. Not here: which columns a list has. Invariant:
//! standard output carries the answer alone; notes and progress go to standard error.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::exit::Failure;

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// The API's own document.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// The API's own document as YAML; jobs as manifests.
    Yaml,
    /// Names only, one per line.
    Name,
}

/// A column: its heading, where its cell comes from, and whether only `wide` shows it.
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) cell: fn(&Value) -> String,
    pub(crate) is_wide: bool,
}

/// A column that is always shown.
pub(crate) const fn column(heading: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { heading, cell, is_wide: false }
}

/// A column that only `-o wide` shows.
pub(crate) const fn wide(heading: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { heading, cell, is_wide: true }
}

/// Shows a list.
pub(crate) fn list(
    format: Format,
    items: &[Value],
    columns: &[Column],
    name: fn(&Value) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Wide => {
            if items.is_empty() {
                note("nothing found");
                return Ok(());
            }
            let shown: Vec<&Column> =
                columns.iter().filter(|column| format == Format::Wide || !column.is_wide).collect();
            let rows = items.iter().map(|item| shown.iter().map(|column| (column.cell)(item)).collect());
            print(&table(shown.iter().map(|column| column.heading), rows))
        }
        Format::Json => print(&pretty(&json!({ "items": items }))),
        Format::Jsonl => print(&items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        Format::Yaml => print(&yaml(items)?),
        Format::Name => print(&items.iter().map(name).collect::<Vec<_>>().join("\n")),
    }
}

/// Shows one document in a machine's format, or nothing if it is one for people.
pub(crate) fn document(format: Format, item: &Value, name: &str) -> Result<bool, Failure> {
    match format {
        Format::Table | Format::Wide => return Ok(false),
        Format::Json => print(&pretty(item))?,
        Format::Jsonl => print(&item.to_string())?,
        Format::Yaml => print(&yaml(std::slice::from_ref(item))?)?,
        Format::Name => print(name)?,
    }
    Ok(true)
}

/// Lines of columns without borders; two blanks between columns, none at the ends of lines.
pub(crate) fn table<'a>(headings: impl Iterator<Item = &'a str>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.collect::<Vec<_>>());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Prints to standard output; a reader that went away (as `head` does) ends the program quietly.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::error(format!("standard output can't be written: {error}"))),
    }
}

/// Says something that is no answer.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

pub(crate) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// Documents of YAML.
pub(crate) fn yaml<T: serde::Serialize>(items: &[T]) -> Result<String, Failure> {
    let texts: Result<Vec<String>, _> = items.iter().map(|item| serde_saphyr::to_string(item)).collect();
    texts.map(|texts| texts.join("---\n")).map_err(|error| Failure::error(format!("can't be written as YAML: {error}")))
}

/// The text at a path such as `outcome.kind`; a dash if it is absent.
pub(crate) fn text(item: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(item, |value, name| value.get(name));
    match found {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The instant at a path: local on a terminal, as it came (RFC 3339, UTC) otherwise.
pub(crate) fn instant(item: &Value, path: &str) -> String {
    shown_instant(&text(item, path), std::io::stdout().is_terminal())
}

/// An instant as a person sees it.
pub(crate) fn shown_instant(text: &str, is_local: bool) -> String {
    match text.parse::<Timestamp>() {
        Ok(instant) if is_local => instant.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

/// How long ago an instant was, in one unit: `12s`, `5m`, `3h`, `2d`.
pub(crate) fn age(item: &Value, path: &str, now: Timestamp) -> String {
    let Ok(instant) = text(item, path).parse::<Timestamp>() else { return "-".to_owned() };
    let seconds = now.as_second() - instant.as_second();
    let size = seconds.unsigned_abs();
    let shown = match size {
        0..120 => format!("{size}s"),
        120..7_200 => format!("{}m", size / 60),
        7_200..172_800 => format!("{}h", size / 3_600),
        _ => format!("{}d", size / 86_400),
    };
    if seconds < 0 { format!("in {shown}") } else { shown }
}

/// True if standard output is a terminal that takes colours.
pub(crate) fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_neither_borders_nor_trailing_blanks() {
        let rows = [vec!["a/b".to_owned(), "ready".to_owned()], vec!["billing/nightly".to_owned(), "-".to_owned()]];
        let shown = table(["JOB", "STATE"].into_iter(), rows.into_iter());
        assert_eq!(shown, "JOB              STATE\na/b              ready\nbilling/nightly  -");
    }

    #[test]
    fn cells_come_from_paths() {
        let item = json!({"a": {"b": 5}, "c": "", "d": null, "at": "2026-01-01T00:00:00Z"});
        for (path, shown) in [("a.b", "5"), ("c", "-"), ("d", "-"), ("x.y", "-"), ("at", "2026-01-01T00:00:00Z")] {
            assert_eq!(text(&item, path), shown);
        }
        let now: Timestamp = "2026-01-01T00:03:10Z".parse().expect("an instant");
        assert_eq!(age(&item, "at", now), "3m");
        assert_eq!(shown_instant("-", true), "-");
    }
}
