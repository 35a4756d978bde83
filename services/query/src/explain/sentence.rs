//! The answer in words. Not here: which answer it is. Invariant: a sentence says only what a fact holds.

use std::time::Duration;

use orloj_domain::fire::NO_CALENDAR;
use orloj_domain::id::CalendarName;
use orloj_domain::job::{JobDefinition, MissedKind, ScheduleRule};
use orloj_domain::manifest::duration_text;
use orloj_domain::schedule;
use orloj_domain::time::Timestamp;

use super::{Decided, Facts, Paused, Verdict, Version};
use crate::preview;
use crate::views::setting_position;

/// The answer in one sentence.
pub(super) fn of(facts: &Facts, version: Option<&Version>, verdict: Verdict) -> String {
    let definition = version.and_then(|version| version.definition.as_ref()).map(|kept| &kept.definition);
    match (verdict, &facts.decided) {
        (Verdict::Requested, Some(decided)) => {
            let late = decided.decided_at.since(facts.instant);
            let late =
                if late.is_zero() { "at once".to_owned() } else { format!("{} after the fire time", shown(late)) };
            format!("It fired: a run was asked for {late}.")
        }
        (Verdict::RequestedLate, Some(decided)) => format!(
            "It fired late, by {}: it was missed, and {} asks for such a fire time when it is noticed.",
            lateness(decided, facts.instant),
            definition.map_or("the misfire policy".to_owned(), policy)
        ),
        (Verdict::Coalesced, Some(decided)) => format!(
            "It was missed and taken together with the fire time {}.",
            decided.coalesced_into.map_or("after it".to_owned(), |into| into.to_string())
        ),
        (Verdict::Skipped, Some(decided)) => skipped(facts, decided, version),
        (Verdict::WillFire, _) => {
            let jitter = definition.map_or(0, |definition| definition.jitter_ms);
            let jitter = if jitter > 0 { format!(", plus up to {} of jitter", millis(jitter)) } else { String::new() };
            format!("It will fire in {}{jitter}.", shown(facts.instant.since(facts.now)))
        }
        (Verdict::LeftOut, _) => match version.and_then(|version| facts.exclusion(version)) {
            Some(exclusion) => format!("It will not fire, as the calendars are now: {exclusion}."),
            None => "It will not fire, as the calendars are now.".to_owned(),
        },
        (Verdict::Paused, _) => match &facts.paused {
            Some(paused) => format!("Nothing fires: the job is paused{}.", pause(paused)),
            None => "Nothing fires: the definition says `suspend: true`.".to_owned(),
        },
        (Verdict::NotAFireTime, _) => not_a_fire_time(facts, version, definition),
        (Verdict::NotYetDefined, _) => {
            let first = facts.versions.first().map(|first| first.effective_from.to_string()).unwrap_or_default();
            format!("The job did not exist yet: its first definition took effect at {first}.")
        }
        (Verdict::Deleted, _) => {
            let since = version.map(|version| version.effective_from.to_string()).unwrap_or_default();
            format!("The job had been deleted at {since}.")
        }
        (Verdict::UsedUp, _) => {
            let max = definition.and_then(|definition| definition.max_fires).unwrap_or_default();
            format!("It does not fire: the job has fired {} times and `maxFires` is {max}.", facts.fires)
        }
        (Verdict::NotYetDecided, _) => format!(
            "It is due and not decided yet, {} late: look at `orloj get shards` and the trigger's log.",
            shown(facts.now.since(facts.instant))
        ),
        (
            Verdict::Forgotten | Verdict::Requested | Verdict::RequestedLate | Verdict::Coalesced | Verdict::Skipped,
            _,
        ) => {
            format!("Not known: decisions from before {} are no longer kept here.", facts.kept_since)
        }
    }
}

fn skipped(facts: &Facts, decided: &Decided, version: Option<&Version>) -> String {
    let definition = version.and_then(|version| version.definition.as_ref()).map(|kept| &kept.definition);
    match decided.reason.as_deref() {
        Some("misfire") => {
            let late = lateness(decided, facts.instant);
            let Some(definition) = definition else { return format!("It was skipped: noticed {late} late.") };
            let window = Duration::from_millis(u64::try_from(definition.missed.window_ms).unwrap_or(0));
            let why = if definition.missed.policy == MissedKind::Skip {
                "`missed.policy` is `skip`".to_owned()
            } else if decided.decided_at.since(facts.instant) > window {
                format!("`missed.window` is {}", shown(window))
            } else {
                format!("{} asks only for newer ones", policy(definition))
            };
            format!("It was skipped: noticed {late} late, and {why}.")
        }
        Some("paused") => match &facts.paused {
            Some(paused) => format!("It was skipped: the job was paused{}.", pause(paused)),
            None => "It was skipped: the job was paused or suspended.".to_owned(),
        },
        Some("superseded") => {
            "It was skipped: an edit, a pause or a delete took effect before its jitter had passed.".to_owned()
        }
        Some("maxFires") => "It was skipped: `maxFires` was used up.".to_owned(),
        Some("calendar") => left_out(facts, decided, version),
        Some(other) => format!("It was skipped: {other}."),
        None => "It was skipped.".to_owned(),
    }
}

/// Which calendar it was is in the calendars: if they are as they were, they are asked again.
fn left_out(facts: &Facts, decided: &Decided, version: Option<&Version>) -> String {
    let missing: Vec<&str> =
        decided.calendars.iter().filter(|(_, offset)| **offset == NO_CALENDAR).map(|(name, _)| name.as_str()).collect();
    if !missing.is_empty() {
        return format!("It was skipped: calendar {} did not exist.", missing.join(", "));
    }
    let as_then = version.filter(|version| facts.positions(version) == decided.calendars);
    match as_then.and_then(|version| facts.exclusion(version)) {
        Some(exclusion) => format!("It was skipped: {exclusion}."),
        None => "It was skipped: a calendar left its day out.".to_owned(),
    }
}

fn not_a_fire_time(facts: &Facts, version: Option<&Version>, definition: Option<&JobDefinition>) -> String {
    let is_manual = definition.is_some_and(|definition| definition.schedule.is_empty());
    if is_manual {
        return "It is not a fire time: the job has no schedule and runs only by hand.".to_owned();
    }
    if let Some(zone) = definition.and_then(lost_zone) {
        return format!(
            "It can't be told: nobody here knows the time zone {zone} any more. The job does not fire until the time zone \
             data has it again; what it misses is judged by its misfire policy then."
        );
    }
    let early = definition.and_then(|definition| definition.not_before).filter(|bound| facts.instant < *bound);
    if let Some(bound) = early {
        return format!("It is not a fire time: `notBefore` is {bound}.");
    }
    let late = definition.and_then(|definition| definition.not_after).filter(|bound| facts.instant >= *bound);
    if let Some(bound) = late {
        return format!("It is not a fire time: `notAfter` is {bound}.");
    }
    if let Some(delay) = definition.and_then(orloj_domain::manifest::after_finish_of) {
        return format!(
            "It is not known as a fire time: the job fires {} after its last run ended, whenever that is.",
            shown(delay)
        );
    }
    let next = version.and_then(|version| version.next_after(facts.instant));
    match (version.and_then(|version| version.absence(facts.instant)), next) {
        (Some(why), Some(next)) => format!("It is not a fire time: {why}. The next one after it is {next}."),
        (Some(why), None) => format!("It is not a fire time: {why}. There is none after it."),
        (None, Some(next)) => format!("It is not a fire time of the schedule; the next one after it is {next}."),
        (None, None) => "It is not a fire time of the schedule, and there is none after it.".to_owned(),
    }
}

/// A time zone of the definition that neither the system nor the copy that comes along has.
fn lost_zone(definition: &JobDefinition) -> Option<&str> {
    definition.schedule.iter().find_map(|rule| match rule {
        ScheduleRule::CronRule(rule) if schedule::zone(&rule.time_zone).is_none() => Some(rule.time_zone.as_str()),
        ScheduleRule::CronRule(_)
        | ScheduleRule::EveryRule(_)
        | ScheduleRule::AtRule(_)
        | ScheduleRule::AfterFinishRule(_) => None,
    })
}

/// What the answer rests on.
pub(super) fn because(facts: &Facts, version: Option<&Version>, verdict: Verdict) -> Vec<String> {
    let mut because = Vec::new();
    if let Some(version) = version {
        because.push(format!(
            "version {} was in force since {} ({})",
            version.version, version.effective_from, version.position
        ));
        if let Some(kept) = &version.definition {
            let seed = kept.definition.job.as_str();
            let preview = preview::of_rules(&kept.definition.schedule, seed, facts.instant);
            if !preview.expression.is_empty() {
                because.push(format!("its schedule: `{}`, {}", preview.expression, preview.description));
            }
        }
    }
    if let Some(decided) = facts.decided.as_ref().filter(|_| verdict != Verdict::NotAFireTime) {
        let position = decided.document.get("position").and_then(|it| it.as_str()).unwrap_or_default();
        because.push(match decided.range_end {
            Some(end) => format!(
                "one decision at {} covers all fire times from {} to before {end} ({position})",
                decided.decided_at, decided.fire_time
            ),
            None => format!("decided at {} ({position})", decided.decided_at),
        });
        because.extend(decided.calendars.iter().map(|(name, offset)| calendar_then(facts, name, *offset)));
        if let Some((id, state)) = &decided.run {
            because.push(format!("run {id}: {}", state.as_deref().unwrap_or("no longer kept")));
        }
    }
    because.extend(facts.backfilled.iter().map(|(id, state)| format!("a backfill asked for run {id}: {state}")));
    if let Some(version) = version.filter(|_| matches!(verdict, Verdict::LeftOut | Verdict::WillFire)) {
        let stands = |(name, offset): (CalendarName, i64)| match offset {
            NO_CALENDAR => format!("calendar {name} does not exist"),
            offset => format!("calendar {name} is that of {}; an edit until then counts", setting_position(offset)),
        };
        because.extend(facts.positions(version).into_iter().map(stands));
    }
    if verdict == Verdict::NotYetDecided {
        because.push(format!("everything up to {} is decided", facts.cursor));
    }
    because
}

/// The calendar as it was asked, and whether it is another one now.
fn calendar_then(facts: &Facts, name: &CalendarName, offset: i64) -> String {
    let now = facts.calendars.get(name).map(|(_, offset)| offset);
    let then = match offset {
        NO_CALENDAR => format!("calendar {name} did not exist"),
        offset => format!("calendar {name} was that of {}", setting_position(offset)),
    };
    match now {
        Some(now) if now == offset => then,
        Some(now) => format!("{then}; it is that of {} now", setting_position(now)),
        None if offset == NO_CALENDAR => then,
        None => format!("{then}; it was removed since"),
    }
}

fn policy(definition: &JobDefinition) -> String {
    format!("`missed: {}`", definition.missed.policy)
}

fn pause(paused: &Paused) -> String {
    let by = paused.actor.as_ref().map(|actor| format!(" by {actor}")).unwrap_or_default();
    let why = paused.reason.as_ref().filter(|reason| !reason.is_empty());
    let why = why.map(|reason| format!(": \"{reason}\"")).unwrap_or_default();
    format!(" since {}{by}{why}", paused.at)
}

fn lateness(decided: &Decided, instant: Timestamp) -> String {
    shown(decided.decided_at.since(instant))
}

fn millis(millis: i64) -> String {
    shown(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// As exact as a person wants it: milliseconds up to a minute, seconds up to two days, then days.
fn shown(duration: Duration) -> String {
    const DAY_SECONDS: u64 = 24 * 3600;
    match duration.as_secs() {
        0..60 => duration_text(duration),
        seconds @ 60..172_800 => duration_text(Duration::from_secs(seconds)),
        seconds => format!("{} days", seconds / DAY_SECONDS),
    }
}
