//! Shared limits and bounds of queues, of `apply`, `get`, `describe` and `delete`. Not here: reading files
//! (`manifest_file`). Invariant: `-o yaml` is what `apply` takes back.

use std::time::Duration;

use orloj_domain::id::{LimitId, LimitName, QueueName};
use orloj_domain::limit::LimitManifest;
use serde_json::{Value, json};

use super::{Context, settings};
use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::manifest_file::LoadedLimit;
use crate::output::{self, Column, Format, column, text, wide};

/// Columns of `get limits`.
const LIMIT_COLUMNS: &[Column] = &[
    column("LIMIT", |item| text(item, "limit")),
    column("MAX", |item| text(item, "spec.maxConcurrent")),
    column("RATE", |item| rate(item, "spec.ratePerSecond")),
    wide("BURST", |item| text(item, "spec.burst")),
    column("HELD", |item| text(item, "held")),
    column("WAITING", |item| text(item, "waiting")),
    column("PAUSED", |item| paused(item, "spec.paused")),
    column("BREAKER", breaker),
    wide("HOST", |item| text(item, "spec.host")),
    wide("POSITION", |item| text(item, "status.position")),
    column("UPDATED", |item| output::age(item, "status.updatedAt", super::now())),
];

/// Columns of `get queues`.
const QUEUE_COLUMNS: &[Column] = &[
    column("QUEUE", |queue| text(queue, "queue")),
    column("JOBS", |queue| text(queue, "jobs")),
    column("RUNNERS", |queue| text(queue, "runners")),
    column("LIMIT", bounds),
    column("HELD", |queue| text(queue, "held")),
    wide("WAIT FOR LIMIT", |queue| text(queue, "waitingForLimit")),
    column("PAUSED", |queue| if queue["manifest"].is_null() { "-".to_owned() } else { paused(queue, "paused") }),
    column("BREAKER", breaker),
    wide("DELAYED", |queue| text(queue, "delayed")),
    wide("WAITING", |queue| text(queue, "waiting")),
    column("READY", |queue| text(queue, "ready")),
    column("RUNNING", |queue| text(queue, "running")),
    column("RETRYING", |queue| text(queue, "retrying")),
    column("DEAD", |queue| text(queue, "dead")),
    column("MISSING HANDLERS", missing_handlers),
    column("MISSING RUNNERS", missing_runners),
];

/// Handlers that runs wait for, and no runner that took one has.
pub(super) fn missing_handlers(queue: &Value) -> String {
    listed(queue, "missingHandlers", ",")
}

/// Labels that runs ask for, and no runner of the queue that is online has.
pub(super) fn missing_runners(queue: &Value) -> String {
    listed(queue, "missingRunners", " ")
}

fn listed(queue: &Value, field: &str, between: &str) -> String {
    let names = queue[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "-".to_owned() } else { names.join(between) }
}

/// What a queue lets through: how many at once, how many per second, or both.
fn bounds(queue: &Value) -> String {
    match (text(queue, "maxConcurrent").as_str(), rate(queue, "ratePerSecond").as_str()) {
        (most, "-") => most.to_owned(),
        ("-", rate) => rate.to_owned(),
        (most, rate) => format!("{most}, {rate}"),
    }
}

fn rate(item: &Value, path: &str) -> String {
    let rate = text(item, path);
    if rate == "-" { rate } else { format!("{}/s", rate.trim_end_matches(".0")) }
}

fn paused(item: &Value, path: &str) -> String {
    if text(item, path) == "true" { "yes" } else { "no" }.to_owned()
}

/// How a breaker stands, and until when it lets nobody through.
pub(super) fn breaker(item: &Value) -> String {
    match text(item, "breaker.state").as_str() {
        "open" => format!("open until {}", output::instant(item, "breaker.until")),
        "halfOpen" => "half-open".to_owned(),
        state => state.to_owned(),
    }
}

/// What a kind of limits is called on the command line.
fn kind_of(limit: &LimitId) -> &'static str {
    if limit.is_of_queue() { "queue" } else { "limit" }
}

/// Path of a limit or a queue in the API.
pub(super) fn path(limit: &LimitId) -> String {
    format!("/api/v1/{}s/{}", kind_of(limit), limit.name())
}

/// Reads a limit's name.
pub(super) fn limit(text: &str) -> Result<LimitId, Failure> {
    let name = LimitName::new(text).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(LimitId::of_limit(&name))
}

/// Reads a queue's name.
pub(super) fn queue(text: &str) -> Result<LimitId, Failure> {
    let name = QueueName::new(text).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(LimitId::of_queue(&name))
}

/// `queue NAME` or `limit NAME`.
pub(super) fn words(limit: &LimitId) -> String {
    format!("{} {}", kind_of(limit), limit.name())
}

/// A limit as items of answers name it.
pub(super) fn named(limit: &LimitId, kind: &str, origin: &str) -> Value {
    json!({kind_of(limit): limit.name(), "type": kind, "origin": origin})
}

/// Sends limits, and waits until each is in force for readers.
pub(super) fn send(
    client: &Client,
    limits: &[LoadedLimit],
    timeout: Duration,
    format: Format,
) -> Result<Vec<Value>, Failure> {
    let each = limits.iter().map(|one| {
        let manifest = serde_json::to_value(&one.manifest).map_err(|error| Failure::error(error.to_string()))?;
        let (kind, name) = (kind_of(&one.limit), one.limit.name());
        let setting = settings::Setting { kind, name, path: path(&one.limit), origin: &one.origin, manifest };
        settings::send(client, &setting, timeout, format)
    });
    each.collect()
}

/// Lists shared limits, or queues, with what bounds them.
pub(super) fn list(context: &Context, path: &str, items_max: usize) -> Outcome {
    let items = context.client()?.items(path, &[], items_max)?;
    if context.global.output == Format::Yaml {
        // A queue that nothing bounds has no manifest.
        let items: Vec<Value> = items.into_iter().filter(|item| !item["manifest"].is_null()).collect();
        return show(context, &items);
    }
    show(context, &items)
}

/// Shows one.
pub(super) fn one(context: &Context, limit: &LimitId) -> Outcome {
    let item = context.client()?.get(&path(limit), &[])?;
    if context.global.output == Format::Json {
        output::print(&output::pretty(&item))?;
        return Ok(Code::Ok);
    }
    show(context, &[item])
}

fn show(context: &Context, items: &[Value]) -> Outcome {
    if context.global.output == Format::Yaml {
        let manifests: Result<Vec<LimitManifest>, Failure> = items.iter().map(manifest).collect();
        output::print(&output::yaml(&manifests?)?)?;
    } else {
        let is_queue = items.first().is_some_and(|item| item.get("queue").is_some());
        let columns = if is_queue { QUEUE_COLUMNS } else { LIMIT_COLUMNS };
        output::list(context.global.output, items, columns, name)?;
    }
    Ok(Code::Ok)
}

fn name(item: &Value) -> String {
    match item.get("queue") {
        Some(_) => format!("queue/{}", text(item, "queue")),
        None => format!("limit/{}", text(item, "limit")),
    }
}

/// The manifest of a document, its fields in the usual order.
pub(super) fn manifest(item: &Value) -> Result<LimitManifest, Failure> {
    let found = item.get("manifest").cloned().unwrap_or(Value::Null);
    if found.is_null() {
        return Err(Failure::new(
            Code::NotFound,
            format!("queue {} has no manifest: nothing bounds it", text(item, "queue")),
        ));
    }
    serde_json::from_value(found)
        .map_err(|error| Failure::error(format!("{} has no readable manifest: {error}", name(item))))
}

/// Removes one, and says what came of it.
pub(super) fn remove(client: &Client, limit: &LimitId) -> Outcome {
    settings::remove(client, kind_of(limit), limit.name(), &path(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_shown_in_short() {
        for (queue, shown) in [
            (json!({"maxConcurrent": 5, "ratePerSecond": null}), "5"),
            (json!({"maxConcurrent": null, "ratePerSecond": 10.0}), "10/s"),
            (json!({"maxConcurrent": 5, "ratePerSecond": 0.5}), "5, 0.5/s"),
            (json!({"maxConcurrent": null}), "-"),
        ] {
            assert_eq!(bounds(&queue), shown, "{queue}");
        }
        let paused_of = |queue: Value| (QUEUE_COLUMNS[6].cell)(&queue);
        assert_eq!(paused_of(json!({"manifest": null, "paused": null})), "-");
        assert_eq!(paused_of(json!({"manifest": {}, "paused": false})), "no");
        assert_eq!(paused_of(json!({"manifest": {}, "paused": true})), "yes");
        let breaker_of = |stands: Value| breaker(&json!({"breaker": stands}));
        assert_eq!(breaker_of(Value::Null), "-");
        assert_eq!(breaker_of(json!({"state": "closed"})), "closed");
        assert_eq!(breaker_of(json!({"state": "halfOpen"})), "half-open");
        assert!(breaker_of(json!({"state": "open", "until": "2026-12-01T08:00:00Z"})).starts_with("open until 2026-"));
    }
}
