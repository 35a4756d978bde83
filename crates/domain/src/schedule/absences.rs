//! Why an instant is no fire although one might look for it there: a clock change took it.
//!
//! Not here: what clock changes did to the fires that there are (`notes.rs`). Invariant: nothing is said of an instant
//! at which the rules fire, nor of one that no rule would name if the clocks had not changed.

use jiff::tz::AmbiguousOffset;
use jiff::{SignedDuration, Timestamp};

use super::dst::ClockChange;
use super::notes::end_text;
use super::shifts::{Times, date_text, shifts, time_text};
use super::{CronRule, Fold, Gap, Rule, next_of};

/// No gap is longer: the longest on record left out one day, in Apia in 2011.
const GAP_MAX: SignedDuration = SignedDuration::from_hours(48);

/// Takes the rules of a schedule and an instant, and returns why a clock change keeps the schedule from firing there:
/// the clocks show a time of a rule twice and the rule's `fold` takes the other one, or they leave it out. The text
/// continues a sentence and says what to write instead. None if the schedule fires at the instant, or if no clock
/// change has to do with it.
pub fn absence(rules: &[Rule], at: Timestamp) -> Option<String> {
    let before = at.checked_sub(SignedDuration::from_nanos(1)).ok()?;
    if at.subsec_nanosecond() != 0 || next_of(rules, before) == Some(at) {
        return None;
    }
    let mut reasons = Vec::new();
    for rule in rules {
        let Rule::Cron(rule) = rule else { continue };
        if let Some(reason) = rule.in_fold(at).or_else(|| rule.in_gap(at))
            && !reasons.contains(&reason)
        {
            reasons.push(reason);
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

impl CronRule {
    /// For an instant whose wall-clock time comes twice: this one is passed over, the other one fires.
    fn in_fold(&self, at: Timestamp) -> Option<String> {
        let walk = self.walk();
        let ClockChange::Fixed { fold, .. } = walk.clock_change else { return None };
        let offset = walk.zone.to_offset(at);
        let shown = offset.to_datetime(at);
        let AmbiguousOffset::Fold { before, after } = walk.zone.to_ambiguous_timestamp(shown).offset() else {
            return None;
        };
        let (taken, policy, pass, other) = match fold {
            Fold::First if offset == after => (before, "first", "second", "last"),
            Fold::Last if offset == before => (after, "last", "first", "first"),
            Fold::First | Fold::Last | Fold::Both => return None,
        };
        let taken = taken.to_timestamp(shown).ok().filter(|taken| self.fires_at(*taken))?;
        let civil = at.as_second() + i64::from(offset.seconds());
        let (zone, time, date) = (self.zone_name(), time_text(civil), date_text(civil));
        Some(format!(
            "the clocks of {zone} show {time} twice on {date}, and `fold: {policy}` takes the {policy} time, {taken}, not \
             this {pass} one; write `fold: {other}` for this one or `fold: both` for both"
        ))
    }

    /// For the instant at which a gap ends, and those up to its length later, where the clocks would have shown a time
    /// of the gap: a time of this rule was left out.
    fn in_gap(&self, at: Timestamp) -> Option<String> {
        let walk = self.walk();
        let at_second = at.as_second();
        let near = shifts(walk.zone, at.checked_sub(GAP_MAX).unwrap_or(Timestamp::MIN), at);
        let gap = near.into_iter().rev().find(|shift| shift.is_gap() && at_second - shift.at < shift.length())?;
        let (times, when, place) = if at_second == gap.at {
            (gap.times(walk.matcher)?, "this instant".to_owned(), "here")
        } else {
            let civil = gap.from() + (at_second - gap.at);
            let is_named = walk.matcher.next(civil - 1) == Some(civil);
            let end = Timestamp::from_second(gap.at).ok()?;
            let time = is_named.then(|| Times { text: time_text(civil), first: civil, is_one: true })?;
            (time, end.to_string(), "there")
        };
        let (verb, them) = if times.is_one { ("does", "it") } else { ("do", "them") };
        let what = match walk.clock_change {
            ClockChange::Fixed { gap: Gap::Shift, .. } => format!("`gap: shift` moves {them} {place}"),
            ClockChange::Fixed { gap: Gap::Skip, .. } => {
                format!("`gap: skip` leaves {them} out; write `gap: shift` to move {them} {place}")
            }
            ClockChange::Follow if self.misses(&gap) => {
                format!("a `*` in minute or hour follows the clock, which leaves {them} out")
            }
            ClockChange::Follow => return None,
        };
        let (from, to) = (end_text(gap.from(), &gap), end_text(gap.to(), &gap));
        Some(format!(
            "the clocks of {} go forward from {from} to {to} at {when}: {} {verb} not exist on {}, and {what}",
            self.zone_name(),
            times.text,
            date_text(times.first)
        ))
    }
}
