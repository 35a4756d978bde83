//! Offers definitions to the API and waits for what the trigger makes of each. Used by `apply` and `import`.
//! Invariant: every job that was sent gets a line: accepted, unchanged, rejected, or not answered in time.

use std::time::Duration;

use orloj_domain::id::JobId;
use orloj_domain::manifest::Manifest;
use serde_json::{Value, json};

use super::job_path;
use crate::client::{Client, field_error};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Format};

/// Jobs sent before the first answer is waited for; answers of a batch come together.
const BATCH: usize = 200;
/// Longest single wait; a longer one is several.
const POLL: Duration = Duration::from_secs(10);

/// What became of one job.
struct Answer {
    job: JobId,
    /// The event; `None`: no answer in time.
    event: Option<Value>,
    position: String,
}

/// Sends all and shows what became of each; in a document, after what was done `before`.
pub(crate) fn offer(
    client: &Client,
    jobs: &[(JobId, Manifest)],
    before: Vec<Value>,
    timeout: Duration,
    format: Format,
) -> Outcome {
    let mut answers = Vec::with_capacity(jobs.len());
    for batch in jobs.chunks(BATCH) {
        let mut sent = Vec::with_capacity(batch.len());
        for (job, manifest) in batch {
            let body = serde_json::to_value(manifest).map_err(|error| Failure::error(error.to_string()))?;
            let written = client
                .put(&job_path(job), &body)
                .map_err(|failure| Failure::new(failure.code, format!("job {job}: {failure}")))?;
            let position = written
                .position
                .ok_or_else(|| Failure::error(format!("job {job}: the server named no log position")))?;
            sent.push((job, position));
        }
        for (job, position) in sent {
            let event = answer(client, job, &position, timeout)?;
            let answer = Answer { job: job.clone(), event, position };
            show(format, &answer)?;
            answers.push(answer);
        }
    }
    if format == Format::Json {
        let items: Vec<Value> = before.into_iter().chain(answers.iter().map(document)).collect();
        output::print(&output::pretty(&json!({ "items": items })))?;
    }
    Ok(code_of(&answers))
}

fn code_of(answers: &[Answer]) -> Code {
    let is_rejected = |answer: &Answer| answer.event.as_ref().is_some_and(|event| kind(event) == "rejected");
    if answers.iter().any(is_rejected) {
        Code::Error
    } else if answers.iter().any(|answer| answer.event.is_none()) {
        Code::TimedOut
    } else {
        Code::Ok
    }
}

/// The event that answers the record at `position`, waiting for it.
pub(crate) fn answer(
    client: &Client,
    job: &JobId,
    position: &str,
    timeout: Duration,
) -> Result<Option<Value>, Failure> {
    let mut left = timeout;
    loop {
        let wait = left.min(POLL);
        let seconds = format!("{}ms", wait.as_millis());
        let query = [("position", position), ("timeout", seconds.as_str())];
        let mut found = client.get(&format!("{}/history", job_path(job)), &query)?;
        let Some(Value::Array(items)) = found.get_mut("items").map(Value::take) else {
            return Err(Failure::error("the server answered no list of events; is it of this version?"));
        };
        let is_answer =
            |event: &Value| event.get("definitionPosition").and_then(Value::as_str).is_none_or(|at| at == position);
        if let Some(event) = items.into_iter().find(is_answer) {
            return Ok(Some(event));
        }
        left = left.saturating_sub(wait);
        if left.is_zero() {
            return Ok(None);
        }
    }
}

fn kind(event: &Value) -> &str {
    event.get("type").and_then(Value::as_str).unwrap_or("unknown")
}

fn document(answer: &Answer) -> Value {
    let mut event =
        answer.event.clone().unwrap_or_else(|| json!({"type": "unanswered", "definitionPosition": answer.position}));
    if let Some(fields) = event.as_object_mut() {
        fields.insert("job".to_owned(), json!(answer.job));
    }
    event
}

fn show(format: Format, answer: &Answer) -> Result<(), Failure> {
    let job = &answer.job;
    match format {
        Format::Json => return Ok(()),
        Format::Jsonl => return output::print(&document(answer).to_string()),
        Format::Yaml => return output::print(&format!("---\n{}", output::yaml(&[document(answer)])?)),
        Format::Name => return output::print(&format!("job/{job}")),
        Format::Table | Format::Wide => {}
    }
    let Some(event) = &answer.event else {
        let position = &answer.position;
        output::note(&format!(
            "job {job} was sent as {position}, and no trigger has answered in time; is one running?"
        ));
        return Ok(());
    };
    let position = output::text(event, "position");
    match kind(event) {
        "rejected" => output::print(&format!("job {job} rejected at {position}"))?,
        "deleted" => output::print(&format!("job {job} deleted at {position}"))?,
        other => {
            output::print(&format!("job {job} {other} (version {}) at {position}", output::text(event, "version")))?
        }
    }
    note_errors(event);
    Ok(())
}

/// Says every complaint of an event.
pub(crate) fn note_errors(event: &Value) {
    for error in event.get("errors").and_then(Value::as_array).into_iter().flatten() {
        output::note(&format!("  {}", field_error(error)));
    }
}
