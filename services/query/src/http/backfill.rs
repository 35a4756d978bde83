//! `POST /jobs/{ns}/{name}/backfill`: a preview, or a record for `commands`. Not here: what is requested of it, and
//! when, which the trigger decides. Invariant: what is refused here, the trigger would refuse too, or could not know:
//! which fire times were missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use orloj_domain::backfill::{self, Ask, FIRE_TIMES_MAX, LOOKED_AT_MAX};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{CommandId, JobId};
use orloj_domain::job_event::FieldError;
use orloj_domain::manifest::parse_instant;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::commands::{actor, asked, command_id};
use super::job_writes::{accepted, append, invalid, must_exist};
use super::params::Params;
use super::{Api, JobPath, Problem, document, jobs};
use crate::backfill::{Slot, Was, slots};
use crate::store::RUNS_KEPT;
use crate::views::{self, Definition};

/// What the body says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Request {
    from: Option<String>,
    until: Option<String>,
    fire_times: Vec<String>,
    only_missed: bool,
    max: Option<i32>,
    concurrency: Option<i32>,
    dry_run: bool,
    params: BTreeMap<String, String>,
    reason: Option<String>,
    actor: Option<String>,
    /// Id of a backfill to be ended.
    cancel: Option<CommandId>,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let request: Request = asked(&headers, params, body).await?;
    if let Some(backfill) = request.cancel {
        let actor = actor(request.actor)?;
        return cancel(&api, &job, &headers, backfill, (actor, request.reason)).await;
    }
    let now = api.clock.now();
    let (from, until, fire_times) = instants(&request).map_err(invalid)?;
    let mut command = Command {
        at: Some(now),
        actor: actor(request.actor)?,
        reason: request.reason,
        params: request.params,
        from,
        until,
        fire_times,
        max: request.max,
        concurrency: request.concurrency,
        ..Command::new(CommandType::Backfill, command_id(&headers)?)
    };
    let ask = Ask::of(&command).map_err(invalid)?;
    let view = jobs::found(&api, &job).await?;
    let Some(kept) = view.definition.clone() else { return Err(Problem::not_found(&format!("job {job}"))) };
    let mut slots = meant(&api, &job, &kept, &ask, now).await?;
    if request.only_missed {
        slots = missed(slots).map_err(|error| invalid(vec![error]))?;
    }
    if slots.len() > ask.max {
        let message = "more fire times than that are meant: narrow the range or raise it";
        return Err(invalid(vec![FieldError::new("max", ask.max, message)]));
    }
    let count = slots.len();
    if request.dry_run {
        let items: Vec<Value> = slots.iter().map(Slot::document).collect();
        return Ok(document(&json!({"job": job, "count": count, "items": items})));
    }
    if count == 0 {
        let message = "no fire time of the range is meant; nothing was sent";
        return Err(invalid(vec![FieldError::new("from", ask.from, message)]));
    }
    if request.only_missed {
        command.fire_times = slots.iter().map(|slot| slot.fire_time).collect();
        (command.from, command.until) = (None, None);
    }
    let position = append(&api, topic::COMMANDS, &job, Some(codec::encode(&command))).await?;
    Ok(accepted(&position, json!({"job": job, "commandId": command.command_id, "count": count})))
}

type Instants = (Option<Timestamp>, Option<Timestamp>, Vec<Timestamp>);

fn instants(request: &Request) -> Result<Instants, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut read = |field: &str, text: &String| {
        let instant = parse_instant(text);
        instant.map_err(|message| errors.push(FieldError::new(field, text, message))).ok()
    };
    let (from, until) = (
        request.from.as_ref().and_then(|text| read("from", text)),
        request.until.as_ref().and_then(|text| read("until", text)),
    );
    let fire_times = request.fire_times.iter().filter_map(|text| read("fireTimes", text)).collect();
    if errors.is_empty() { Ok((from, until, fire_times)) } else { Err(errors) }
}

async fn cancel(
    api: &Arc<Api>,
    job: &JobId,
    headers: &HeaderMap,
    backfill: CommandId,
    (actor, reason): (Option<String>, Option<String>),
) -> Result<Response, Problem> {
    must_exist(api, job).await?;
    let id = command_id(headers)?;
    let (at, backfill_id) = (Some(api.clock.now()), Some(backfill));
    let command = Command { at, actor, reason, backfill_id, ..Command::new(CommandType::Cancel, id) };
    let position = append(api, topic::COMMANDS, job, Some(codec::encode(&command))).await?;
    Ok(accepted(&position, json!({"job": job, "commandId": command.command_id})))
}

/// The fire times that are meant, and what became of each.
async fn meant(
    api: &Arc<Api>,
    job: &JobId,
    kept: &Arc<Definition>,
    ask: &Ask,
    now: Timestamp,
) -> Result<Vec<Slot>, Problem> {
    let (rules, bounds) = (&kept.rules, kept.definition.bounds());
    let until = ask.until.min(now);
    let times: Vec<Timestamp> = if ask.fire_times.is_empty() {
        backfill::fire_times(rules, bounds, ask.from, until, LOOKED_AT_MAX + 1).collect()
    } else {
        backfill::check_fire_times(rules, bounds, &ask.fire_times).map_err(|error| invalid(vec![error]))?;
        ask.fire_times.iter().copied().filter(|time| *time < until).collect()
    };
    if times.len() > LOOKED_AT_MAX {
        let message = format!("more than {LOOKED_AT_MAX} fire times lie between here and {until}: narrow the range");
        return Err(invalid(vec![FieldError::new("from", ask.from, message)]));
    }
    let (reading, asked, from) = (Arc::clone(api), job.clone(), ask.from);
    // A range means what the calendars let through; a list is what somebody wants, whatever they say.
    let judging = Arc::clone(kept);
    let is_range = ask.fire_times.is_empty();
    api.read(move |connection| {
        let mut times = times;
        if let Some(calendars) = judging.calendars.as_ref().filter(|_| is_range) {
            let set = reading.definitions.calendars(connection)?;
            times.retain(|time| calendars.exclusion(&set, &judging.rules, None, *time).is_none());
        }
        let settled = views::settled_between(connection, &asked, from, until)?;
        let versions = views::versions(connection, &reading.definitions, &asked)?;
        Ok(slots(times.into_iter(), &settled, &versions, now.minus(RUNS_KEPT)))
    })
    .await
}

/// Those that were never requested.
fn missed(slots: Vec<Slot>) -> Result<Vec<Slot>, FieldError> {
    if let Some(slot) = slots.iter().find(|slot| slot.was == Was::Unknown) {
        let message = "what was decided about this fire time is no longer kept, or not yet known, so it can't be told \
                       whether it was missed; begin later, or list `fireTimes`";
        return Err(FieldError::new("from", slot.fire_time, message));
    }
    let missed: Vec<Slot> = slots.into_iter().filter(Slot::is_missed).collect();
    if missed.len() > FIRE_TIMES_MAX {
        let message =
            format!("{} fire times were missed, at most {FIRE_TIMES_MAX} go at once: narrow the range", missed.len());
        return Err(FieldError::new("onlyMissed", true, message));
    }
    Ok(missed)
}
