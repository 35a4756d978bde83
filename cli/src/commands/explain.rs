//! `orloj explain`: why a job fired at an instant, did not, or will. Not here: the answer, which the server makes
//! of the log. Invariant: every sentence shown is the server's.

use clap::Args;
use serde_json::Value;

use super::{Context, job_id, job_path};
use crate::args::Namespace;
use crate::exit::{Code, Outcome};
use crate::output::{self, text};

/// Say why a job fired at an instant, did not, or will
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj explain billing/nightly-invoice 2026-11-20T02:30:00+01:00
  orloj explain billing/nightly-invoice 2026-03-29T02:30     on the clocks of the job's time zone
  orloj explain billing/nightly-invoice 2026-11-20T01:30:00Z -o json")]
pub(crate) struct ExplainArguments {
    /// The job
    #[arg(value_name = "NS/NAME")]
    job: String,
    /// RFC 3339, or a date and time without an offset for what the clocks of the job's time zone show
    #[arg(value_name = "INSTANT")]
    instant: String,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: &ExplainArguments) -> Outcome {
    let job = job_id(&arguments.job, &arguments.namespace)?;
    let path = format!("{}/explain", job_path(&job));
    let answer = context.client()?.get(&path, &[("at", &arguments.instant)])?;
    if output::document(context.global.output, &answer, &format!("job/{job}"))? {
        return Ok(Code::Ok);
    }
    let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut shown = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            shown.push('\n');
        }
        shown.push_str(&paragraph(item));
    }
    output::print(&shown)?;
    Ok(Code::Ok)
}

/// One instant: when, the answer, and below it what that rests on.
fn paragraph(item: &Value) -> String {
    let mut lines = vec![format!("{} ({})", text(item, "instant"), text(item, "local"))];
    if let Some(note) = item.get("note").and_then(Value::as_str) {
        lines.push(format!("  {note}"));
    }
    lines.push(format!("  {}", text(item, "sentence")));
    let because = item.get("because").and_then(Value::as_array).into_iter().flatten();
    lines.extend(because.filter_map(Value::as_str).map(|fact| format!("    {fact}")));
    for (label, field) in [("previous fire time", "previousFireTime"), ("next fire time", "nextFireTime")] {
        if let Some(at) = item.get(field).and_then(Value::as_str) {
            lines.push(format!("    {label}: {at}"));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_paragraph() {
        let item = json!({
            "instant": "2026-03-29T01:00:00Z", "local": "2026-03-29T03:00:00+02:00", "verdict": "requested",
            "note": "2026-03-29T02:30:00 never came", "sentence": "It fired.", "because": ["version 1", "run x"],
            "previousFireTime": null, "nextFireTime": "2026-03-30T00:30:00Z",
        });
        let wanted = "2026-03-29T01:00:00Z (2026-03-29T03:00:00+02:00)\n  2026-03-29T02:30:00 never came\n  It fired.\n    \
                      version 1\n    run x\n    next fire time: 2026-03-30T00:30:00Z\n";
        assert_eq!(paragraph(&item), wanted);
    }
}
