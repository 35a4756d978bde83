//! `orloj next`: the coming fire times of an expression, computed here, or of a job, by the server. Not here: the
//! rules themselves (`orloj_domain::schedule`). Invariant: both give the same document.

use clap::{Args, ValueEnum};
use orloj_domain::schedule::Dialect;
use orloj_query::preview;
use serde_json::{Value, json};

use super::{Context, job_id, job_path};
use crate::args::Namespace;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, column, text};

/// How the fields of an expression are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum DialectArgument {
    /// crontab's
    #[default]
    Unix,
    /// Quartz's
    Quartz,
}

/// Show coming fire times of a cron expression or of a job
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj next \"30 2 * * MON-FRI\" --zone Europe/Berlin -n 3
  orloj next @daily --from 2026-12-31T00:00:00Z -o json
  orloj next billing/nightly-invoice

A sentence says what the expression means (\"at 02:30 on Monday through Friday, Berlin time\"),
hints say what may not be meant: both on stderr, in JSON as `description` and `lints`.
A note beside a fire time says what a clock change did to it.")]
pub(crate) struct NextArguments {
    /// A cron expression, or a job
    #[arg(value_name = "EXPR|NS/NAME")]
    what: String,
    /// Time zone of the expression
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    zone: String,
    /// How many
    #[arg(short = 'n', long = "count", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    count: u16,
    /// Fire times after this instant [default: now]
    #[arg(long, value_parser = from, value_name = "INSTANT")]
    from: Option<jiff::Timestamp>,
    /// How the fields of the expression are read
    #[arg(long, value_enum, default_value_t)]
    dialect: DialectArgument,
}

fn from(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| "write RFC 3339 with an offset, for example `2026-12-01T09:00:00+01:00`".to_owned())
}

pub(crate) fn run(context: &Context, arguments: &NextArguments) -> Outcome {
    let preview = if is_expression(&arguments.what) { computed(arguments)? } else { of_job(context, arguments)? };
    if output::document(context.global.output, &preview, &arguments.what)? {
        return Ok(Code::Ok);
    }
    let items = preview.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    output::note(&format!(
        "{} ({}): {}",
        text(&preview, "expression"),
        text(&preview, "zone"),
        text(&preview, "description")
    ));
    for lint in preview.get("lints").and_then(Value::as_array).into_iter().flatten() {
        output::note(&format!("hint: {}", text(lint, "message")));
    }
    if items.is_empty() {
        let is_waiting = text(&preview, "expression").contains("afterFinish");
        output::note(if is_waiting { "the next fire time is set by the end of a run" } else { "no more fire times" });
        return Ok(Code::Ok);
    }
    let columns = [
        column("AT", |item| text(item, "at")),
        column("LOCAL", |item| text(item, "local")),
        column("NOTE", |item| text(item, "note")),
    ];
    output::list(context.global.output, &items, &columns, |item| text(item, "at"))?;
    Ok(Code::Ok)
}

/// Jobs have neither blanks nor `@`; expressions have one or the other.
fn is_expression(text: &str) -> bool {
    text.trim().contains(char::is_whitespace) || text.trim().starts_with('@') || text.contains('*')
}

fn of_job(context: &Context, arguments: &NextArguments) -> Result<Value, Failure> {
    if arguments.zone != "UTC" || arguments.dialect != DialectArgument::Unix {
        return Err(Failure::usage("--zone and --dialect are for expressions; a job has its own"));
    }
    let job = job_id(&arguments.what, &Namespace::default())?;
    let count = arguments.count.to_string();
    let from = arguments.from.map(|from| from.to_string());
    let mut query = vec![("n", count.as_str())];
    if let Some(from) = &from {
        query.push(("from", from));
    }
    context.client()?.get(&format!("{}/next", job_path(&job)), &query)
}

fn computed(arguments: &NextArguments) -> Result<Value, Failure> {
    let dialect = match arguments.dialect {
        DialectArgument::Unix => Dialect::Unix,
        DialectArgument::Quartz => Dialect::Quartz,
    };
    let from = arguments.from.unwrap_or_else(super::now);
    let count = usize::from(arguments.count);
    let preview = preview::of_expression(&arguments.what, dialect, &arguments.zone, from.into(), count)
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(json!(preview))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(what: &str, zone: &str, from: &str, count: u16) -> NextArguments {
        let from = Some(from.parse().expect("an instant"));
        NextArguments { what: what.to_owned(), zone: zone.to_owned(), count, from, dialect: DialectArgument::Unix }
    }

    #[test]
    fn previews_have_the_documented_shape() {
        let preview =
            computed(&arguments("30 2 * * MON-FRI", "Europe/Berlin", "2026-03-26T12:00:00Z", 2)).expect("a preview");
        assert_eq!(
            preview,
            json!({
                "expression": "30 2 * * MON-FRI",
                "zone": "Europe/Berlin",
                "description": "at 02:30 on Monday through Friday, Berlin time",
                "lints": [],
                "items": [
                    {"at": "2026-03-27T01:30:00Z", "local": "2026-03-27T02:30:00+01:00", "note": null},
                    {"at": "2026-03-30T00:30:00Z", "local": "2026-03-30T02:30:00+02:00", "note": "clocks have changed to UTC+02"},
                ],
            })
        );
    }

    #[test]
    fn clock_changes_and_hints_are_told() {
        let preview =
            computed(&arguments("30 2 13 * FRI", "Europe/Berlin", "2026-10-01T00:00:00Z", 1)).expect("a preview");
        assert_eq!(preview["lints"][0]["code"], "eitherDay");
        let preview =
            computed(&arguments("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2)).expect("a preview");
        assert_eq!(
            preview["items"][0]["note"],
            "clocks went forward at 02:00: 02:30 does not exist here, moved to 03:00"
        );
        assert_eq!(preview["items"][1]["note"], Value::Null);
    }

    #[test]
    fn expressions_are_told_from_jobs() {
        for (text, is) in
            [("* * * * *", true), ("@daily", true), ("a/b", false), ("hello", false), ("*/5 * * * *", true)]
        {
            assert_eq!(is_expression(text), is, "{text}");
        }
        let failure = computed(&arguments("61 * * * *", "UTC", "2026-01-01T00:00:00Z", 1)).expect_err("refused");
        assert_eq!(failure.code, Code::Usage);
    }
}
