//! `GET /schedules/next` and `GET /jobs/{ns}/{name}/next`: coming fire times. Not here: the rules
//! (`orloj_domain::schedule`), the document (`preview`). Invariant: nothing is remembered.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orloj_domain::job_event::FieldError;
use orloj_domain::manifest::parse_instant;
use orloj_domain::schedule::{Dialect, Lint};
use orloj_domain::time::Timestamp;

use super::params::Params;
use super::wait::Wait;
use super::{Api, JobPath, Problem, document, jobs};
use crate::preview::{self, Preview};
use crate::views::JobView;

/// Fire times if nothing is said.
const COUNT_DEFAULT: usize = 5;
/// Fire times looked at for what calendars leave out before the next one; what they say is told of two days at most.
const LEFT_OUT_MAX: usize = 100;
/// Most fire times in one answer.
const COUNT_MAX: usize = 1000;

fn count(params: &mut Params) -> Result<usize, Problem> {
    let expected = "a whole number from 1 to 1000";
    let count = params.parsed("n", expected)?.unwrap_or(COUNT_DEFAULT);
    if (1..=COUNT_MAX).contains(&count) {
        return Ok(count);
    }
    Err(Problem::bad_parameter("n", &count.to_string(), format!("must be {expected}")))
}

fn from(params: &mut Params, now: Timestamp) -> Result<Timestamp, Problem> {
    let Some(text) = params.text("from")? else { return Ok(now) };
    parse_instant(&text).map_err(|message| Problem::bad_parameter("from", &text, message))
}

pub(super) async fn of_expression(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let expression = params.text("cron")?.ok_or_else(|| Problem::bad_parameter("cron", "", "is missing"))?;
    let zone = params.text("zone")?.unwrap_or_else(|| "UTC".to_owned());
    let name = |dialect| match dialect {
        Dialect::Unix => "unix",
        Dialect::Quartz => "quartz",
    };
    let dialect = params.word("dialect", &[Dialect::Unix, Dialect::Quartz], name)?.unwrap_or_default();
    let (count, from) = (count(&mut params)?, from(&mut params, api.clock.now())?);
    params.finish()?;
    let preview = preview::of_expression(&expression, dialect, &zone, from, count).map_err(|error| {
        let parameter = if error.field == "timeZone" { "zone" } else { "cron" };
        let complaint = FieldError::new(parameter, &error.value, error.to_string());
        Problem::new(StatusCode::BAD_REQUEST, "badParameter", complaint.message.clone()).with(vec![complaint])
    })?;
    Ok(document(&preview))
}

pub(super) async fn of_job(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    let (count, from) = (count(&mut params)?, from(&mut params, api.clock.now())?);
    params.finish()?;
    wait.done(&api).await?;
    let view = jobs::found(&api, &job).await?;
    let Some(kept) = view.definition.as_ref() else {
        return Ok(wait.mark(&api, document(&Preview::default())));
    };
    // What a clock change left out before the job began is no news.
    let from = kept.definition.not_before.map_or(from, |bound| from.max(Timestamp::from_millis(bound.millis() - 1)));
    let mut preview = preview::of_rules(&kept.definition.schedule, job.as_str(), from);
    let count = count.min(view.fires_left());
    let next = |after| Some((view.next_let_through(after)?, left_out(&view, after)));
    preview.items = preview::items(&preview.zone, &kept.rules, from, count, next);
    // A list that is empty for the sake of a calendar needs a word.
    if let Some(message) = left_out(&view, from).filter(|_| preview.items.is_empty()) {
        preview.lints.push(Lint { code: "leftOut", message: format!("never fires as its calendars are: {message}") });
    }
    Ok(wait.mark(&api, document(&preview)))
}

/// What calendars leave out between an instant and the next fire time that they let through.
fn left_out(view: &JobView, after: Timestamp) -> Option<String> {
    let mut after = after;
    let mut said: Vec<String> = Vec::new();
    for _ in 0..LEFT_OUT_MAX {
        let Some(at) = view.next_after(after) else { break };
        let Some(exclusion) = view.exclusion(at) else { break };
        let text = exclusion.to_string();
        if !said.contains(&text) {
            if said.len() == 2 {
                said.push("and more".to_owned());
                break;
            }
            said.push(text);
        }
        after = at;
    }
    (!said.is_empty()).then(|| said.join(", "))
}
