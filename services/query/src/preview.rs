//! Coming fire times as a document. Not here: which they are (`orloj_domain::schedule`).
//! Invariant: `at` is the instant in UTC, soonest first; a change of the clocks between two of them is noted.

use jiff::tz::TimeZone;
use orloj_domain::job::ScheduleRule;
use orloj_domain::manifest::duration_text;
use orloj_domain::schedule::Dialect;
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

/// The first `count` fire times after `from`.
pub fn items(
    zone: &str,
    from: Timestamp,
    count: usize,
    next: impl Fn(Timestamp) -> Option<Timestamp>,
) -> Vec<PreviewItem> {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let (mut after, mut offset) = (from, zone.to_offset(from.to_jiff()));
    let mut items = Vec::new();
    while items.len() < count {
        let Some(at) = next(after) else { break };
        let instant = at.to_jiff();
        let new_offset = zone.to_offset(instant);
        let note = (new_offset != offset).then(|| format!("clocks have changed to UTC{new_offset}"));
        let local = instant.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        items.push(PreviewItem { at: instant.to_string(), local, note });
        (after, offset) = (at, new_offset);
    }
    items
}

/// Expression, zone and description of a job's rules.
#[must_use]
pub fn of_rules(rules: &[ScheduleRule]) -> (String, String, String) {
    let mut zone = "UTC".to_owned();
    let (mut expressions, mut descriptions) = (Vec::new(), Vec::new());
    for rule in rules.iter().rev() {
        let millis = |millis: i64| duration_text(std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0)));
        let (expression, description) = match rule {
            ScheduleRule::CronRule(cron) => {
                zone.clone_from(&cron.time_zone);
                let dialect = match cron.dialect {
                    orloj_domain::job::Dialect::Unix => Dialect::Unix,
                    orloj_domain::job::Dialect::Quartz => Dialect::Quartz,
                };
                (cron.expression.clone(), describe(&cron.expression, dialect))
            }
            ScheduleRule::EveryRule(every) => {
                let period = millis(every.period_ms);
                (format!("every {period}"), format!("every {period}, counted from {}", every.anchor))
            }
            ScheduleRule::AtRule(at) => (format!("at {}", at.at), format!("once, at {}", at.at)),
            ScheduleRule::AfterFinishRule(rule) => {
                let delay = millis(rule.delay_ms);
                (format!("afterFinish {delay}"), format!("{delay} after the end of the last run"))
            }
        };
        expressions.insert(0, expression);
        descriptions.insert(0, description);
    }
    if rules.is_empty() {
        return (String::new(), zone, "only by hand".to_owned());
    }
    (expressions.join("; "), zone, descriptions.join("; "))
}

/// A cron expression in words, field by field: long rather than wrong.
#[must_use]
pub fn describe(expression: &str, dialect: Dialect) -> String {
    if let Some(word) = expression.strip_prefix('@') {
        return match word.split_once(' ') {
            Some((_, period)) => format!("every {}, counted from 1970-01-01T00:00:00Z", period.trim()),
            None => word.to_ascii_lowercase(),
        };
    }
    let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
    let has_seconds = fields.len() > 5 || dialect == Dialect::Quartz;
    let names = ["second", "minute", "hour", "day of month", "month", "weekday", "year"];
    let parts: Vec<String> = names
        .iter()
        .skip(usize::from(!has_seconds))
        .zip(&fields)
        .filter(|(_, field)| !matches!(**field, "*" | "?"))
        .map(|(name, field)| format!("{name} {field}"))
        .collect();
    match (parts.is_empty(), has_seconds) {
        (true, true) => "every second".to_owned(),
        (true, false) => "every minute".to_owned(),
        (false, _) => parts.join(", "),
    }
}
