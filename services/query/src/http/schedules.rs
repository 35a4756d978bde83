//! `GET /schedules/next` and `GET /jobs/{ns}/{name}/next`: coming fire times. Not here: the rules
//! (`orloj_domain::schedule`), the document (`preview`). Invariant: nothing is remembered.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orloj_domain::job_event::FieldError;
use orloj_domain::manifest::parse_instant;
use orloj_domain::schedule::{Dialect, Fold, Gap, parse_rule};
use orloj_domain::time::Timestamp;

use super::params::Params;
use super::wait::Wait;
use super::{Api, JobPath, Problem, document, jobs};
use crate::preview::{self, Preview};

/// Fire times if nothing is said.
const COUNT_DEFAULT: usize = 5;
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
    let rule = parse_rule(&expression, dialect, &zone, Gap::Shift, Fold::First, &expression).map_err(|error| {
        let parameter = if error.field == "timeZone" { "zone" } else { "cron" };
        let complaint = FieldError::new(parameter, &error.value, error.to_string());
        Problem::new(StatusCode::BAD_REQUEST, "badParameter", complaint.message.clone()).with(vec![complaint])
    })?;
    let next = |after: Timestamp| rule.next_after(after.to_jiff()).map(Timestamp::from);
    let items = preview::items(&zone, from, count, next);
    let description = preview::describe(expression.trim(), dialect);
    Ok(document(&Preview { expression: expression.trim().to_owned(), zone, description, items }))
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
    let (expression, zone, description) =
        view.definition.as_ref().map(|kept| preview::of_rules(&kept.definition.schedule)).unwrap_or_default();
    let items = preview::items(&zone, from, count.min(view.fires_left()), |after| view.next_after(after));
    Ok(wait.mark(&api, document(&Preview { expression, zone, description, items })))
}
