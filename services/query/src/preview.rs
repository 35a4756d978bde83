//! Coming fire times as a document. Not here: which they are and what is said of them (`orloj_domain::schedule`).
//! Invariant: `at` is the instant in UTC, soonest first; a change of the clocks between two of them is noted.

use jiff::tz::TimeZone;
use orloj_domain::calendar::RuleCalendars;
use orloj_domain::job::{self, ScheduleRule};
use orloj_domain::manifest::duration_text;
use orloj_domain::schedule::{self, Dialect, Fold, Gap, Lint, Rule, ScheduleError, SpreadBy, Written};
use orloj_domain::time::Timestamp;
use serde::Serialize;

/// Coming fire times of an expression or a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// As it was written; of several rules, all of them.
    pub expression: String,
    /// Whose local time is shown.
    pub zone: String,
    /// In words.
    pub description: String,
    /// What its writer may not have meant.
    pub lints: Vec<Lint>,
    /// The fire times.
    pub items: Vec<PreviewItem>,
}

/// One fire time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PreviewItem {
    /// The instant, RFC 3339 in UTC.
    pub at: String,
    /// The same on the clocks of the zone.
    pub local: String,
    /// What is unusual about it.
    pub note: Option<String>,
}

/// The preview of an expression alone.
///
/// # Errors
/// Those of [`schedule::parse_rule`].
pub fn of_expression(
    expression: &str,
    dialect: Dialect,
    zone: &str,
    from: Timestamp,
    count: usize,
) -> Result<Preview, ScheduleError> {
    let written = Written {
        expression,
        dialect,
        zone,
        gap: Gap::Shift,
        fold: Fold::First,
        spread_seed: expression,
        spread_by: SpreadBy::Expression,
    };
    let described = schedule::describe(&written, from.to_jiff())?;
    let rule = described.rule;
    let next = |after: Timestamp| rule.next_after(after.to_jiff()).map(|at| (Timestamp::from(at), None));
    Ok(Preview {
        expression: expression.trim().to_owned(),
        zone: zone.to_owned(),
        description: described.sentence,
        lints: described.lints,
        items: items(zone, std::slice::from_ref(&rule), from, count, next),
    })
}

/// The first `count` fire times after `from` that `next` gives, each with what is to be said of those that it passed
/// over; `rules` are asked what is unusual about them.
pub fn items(
    zone_name: &str,
    rules: &[Rule],
    from: Timestamp,
    count: usize,
    next: impl Fn(Timestamp) -> Option<(Timestamp, Option<String>)>,
) -> Vec<PreviewItem> {
    let zone = schedule::zone(zone_name).unwrap_or(TimeZone::UTC);
    let (mut after, mut offset) = (from, zone.to_offset(from.to_jiff()));
    let mut items = Vec::new();
    while items.len() < count {
        let Some((at, passed_over)) = next(after) else { break };
        let instant = at.to_jiff();
        let new_offset = zone.to_offset(instant);
        let note = schedule::note(rules, zone_name, after.to_jiff(), instant)
            .or_else(|| (new_offset != offset).then(|| format!("clocks have changed to UTC{new_offset}")));
        let notes: Vec<String> = passed_over.into_iter().chain(note).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        let local = instant.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        items.push(PreviewItem { at: instant.to_string(), local, note });
        (after, offset) = (at, new_offset);
    }
    items
}

/// A job's rules, all but their fire times. `seed` is the job's id; clock changes after `from` are looked at.
#[must_use]
pub fn of_rules(rules: &[ScheduleRule], seed: &str, from: Timestamp) -> Preview {
    let mut preview = Preview { zone: "UTC".to_owned(), ..Preview::default() };
    let (mut expressions, mut descriptions) = (Vec::new(), Vec::new());
    // The first cron expression decides whose local time is shown.
    let first = rules.iter().find_map(|rule| if let ScheduleRule::CronRule(cron) = rule { Some(cron) } else { None });
    if let Some(cron) = first {
        preview.zone.clone_from(&cron.time_zone);
    }
    for rule in rules {
        let (expression, mut description, lints) = of_rule(rule, seed, from);
        description.push_str(&RuleCalendars::sentence(rule));
        let is_only = rules.len() == 1;
        preview.lints.extend(lints.into_iter().map(|lint| {
            let message = if is_only { lint.message } else { format!("`{expression}` {}", lint.message) };
            Lint { message, ..lint }
        }));
        expressions.push(expression);
        descriptions.push(description);
    }
    preview.expression = expressions.join("; ");
    preview.description = if rules.is_empty() { "only by hand".to_owned() } else { descriptions.join("; ") };
    preview
}

/// Expression, sentence and hints.
fn of_rule(rule: &ScheduleRule, seed: &str, from: Timestamp) -> (String, String, Vec<Lint>) {
    let period = |millis: i64| std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    match rule {
        ScheduleRule::CronRule(cron) => {
            let written = written(cron, seed);
            // A zone that was taken out of the database since: there are no fires to tell of.
            let (sentence, lints) = match schedule::describe(&written, from.to_jiff()) {
                Ok(described) => (described.sentence, described.lints),
                Err(error) => (format!("never: {error}"), Vec::new()),
            };
            (cron.expression.clone(), sentence, lints)
        }
        ScheduleRule::EveryRule(every) => {
            let sentence = schedule::EveryRule::new(period(every.period_ms), every.anchor.to_jiff())
                .map_or_else(|error| format!("never: {error}"), |rule| schedule::describe_every(&rule));
            (format!("every {}", duration_text(period(every.period_ms))), sentence, Vec::new())
        }
        ScheduleRule::AtRule(at) => (format!("at {}", at.at), format!("once, at {}", at.at), Vec::new()),
        ScheduleRule::AfterFinishRule(rule) => {
            let delay = period(rule.delay_ms);
            let sentence = format!("{} after the end of the last run", schedule::period_text(delay));
            (format!("afterFinish {}", duration_text(delay)), sentence, Vec::new())
        }
    }
}

fn written<'a>(cron: &'a job::CronRule, seed: &'a str) -> Written<'a> {
    Written {
        expression: &cron.expression,
        dialect: match cron.dialect {
            job::Dialect::Unix => Dialect::Unix,
            job::Dialect::Quartz => Dialect::Quartz,
        },
        zone: &cron.time_zone,
        gap: match cron.gap {
            job::DstGap::Shift => Gap::Shift,
            job::DstGap::Skip => Gap::Skip,
        },
        fold: match cron.fold {
            job::DstFold::First => Fold::First,
            job::DstFold::Last => Fold::Last,
            job::DstFold::Both => Fold::Both,
        },
        spread_seed: seed,
        spread_by: SpreadBy::Job,
    }
}
