//! Notes on single fires: what a clock change did to this one, or to one that should have come before it.
//!
//! Not here: fires themselves (`dst.rs`), instants that are none (`absences.rs`), hints (`describe/lints.rs`).
//! Invariant: every fire that a clock change moved, chose or left out has its note, and no other has one.

use jiff::{SignedDuration, Timestamp};

use super::dst::{ClockChange, ClockEffect};
use super::shifts::{Shift, date_text, shifts, time_text};
use super::{CronRule, Fold, Gap, Rule};

/// What clock changes have to do with the fire at `fire`, whose predecessor in the list was at `after`. `zone` is
/// the one the reader sees local times of; a note about another zone says so.
pub fn note(rules: &[Rule], zone: &str, after: Timestamp, fire: Timestamp) -> Option<String> {
    let mut notes = Vec::new();
    for rule in rules {
        let Rule::Cron(rule) = rule else { continue };
        for note in rule.skipped(after, fire).into_iter().chain(rule.effect_note(fire)) {
            let is_elsewhere = !rule.zone_name().eq_ignore_ascii_case(zone);
            let note = if is_elsewhere { format!("{note} ({})", rule.zone_name()) } else { note };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

impl CronRule {
    /// Times of this rule that clock changes left out after `after`, up to `fire`, and that nothing stands for.
    fn skipped(&self, after: Timestamp, fire: Timestamp) -> Vec<String> {
        let walk = self.walk();
        let mut notes = Vec::new();
        for shift in shifts(walk.zone, after, fire).iter().filter(|shift| shift.is_gap() && self.misses(shift)) {
            let Some(times) = shift.times(walk.matcher) else { continue };
            let verb = if times.is_one { "was" } else { "were" };
            let (from, to) = (end_text(shift.from(), shift), end_text(shift.to(), shift));
            notes.push(format!(
                "{} on {} {verb} skipped: clocks went forward from {from} to {to}",
                times.text,
                date_text(times.first)
            ));
        }
        notes
    }

    /// True if nothing stands for times of this rule that the gap leaves out, should there be any.
    pub(super) fn misses(&self, gap: &Shift) -> bool {
        match self.walk().clock_change {
            ClockChange::Fixed { gap: Gap::Shift, .. } => false,
            ClockChange::Fixed { gap: Gap::Skip, .. } => true,
            // "Every 15 minutes" goes on through a gap as if nothing were missing; "every 15 minutes from 02:00 to
            // 02:45" does not.
            ClockChange::Follow => {
                self.next_after(second_before(gap.at)).is_none_or(|next| next.as_second() - gap.at > gap.length())
            }
        }
    }

    /// True if the rule fires at exactly this instant.
    pub(super) fn fires_at(&self, instant: Timestamp) -> bool {
        self.next_after(second_before(instant.as_second())) == Some(instant)
    }

    /// What a clock change did to the fire at `fire`, if it is one of this rule's.
    fn effect_note(&self, fire: Timestamp) -> Option<String> {
        if !self.fires_at(fire) {
            return None;
        }
        let walk = self.walk();
        let civil = fire.as_second() + i64::from(walk.zone.to_offset(fire).seconds());
        if let ClockChange::Fixed { gap: Gap::Shift, .. } = walk.clock_change
            && let Some(note) = self.shifted_note(fire)
        {
            return Some(note);
        }
        let pass = match self.effect_at(fire) {
            ClockEffect::FirstPass => "first",
            ClockEffect::SecondPass => "second",
            ClockEffect::None | ClockEffect::ShiftedFromGap => return None,
        };
        let only = match walk.clock_change {
            ClockChange::Fixed { fold: Fold::First | Fold::Last, .. } => ", the only one that fires",
            ClockChange::Fixed { fold: Fold::Both, .. } | ClockChange::Follow => "",
        };
        Some(format!("{} happens twice: this is the {pass}{only}", time_text(civil)))
    }

    /// The fire at the end of a gap, if it stands for times within.
    fn shifted_note(&self, fire: Timestamp) -> Option<String> {
        let walk = self.walk();
        let shift =
            shifts(walk.zone, second_before(fire.as_second()), fire).into_iter().find(|shift| shift.is_gap())?;
        let times = shift.times(walk.matcher)?;
        let verb = if times.is_one { "does" } else { "do" };
        let is_named = walk.matcher.next(shift.to() - 1) == Some(shift.to());
        let moved = if is_named { "this fire stands for it too" } else { "moved to" };
        let to = if is_named { String::new() } else { format!(" {}", end_text(shift.to(), &shift)) };
        let at = end_text(shift.from(), &shift);
        Some(format!("clocks went forward at {at}: {} {verb} not exist here, {moved}{to}", times.text))
    }
}

/// An end of a gap; with its date if the gap is a whole day, as at the date line.
pub(super) fn end_text(civil: i64, shift: &Shift) -> String {
    let time = time_text(civil);
    if date_text(shift.from()) == date_text(shift.to()) { time } else { format!("{time} on {}", date_text(civil)) }
}

fn second_before(at: i64) -> Timestamp {
    let before = Timestamp::from_second(at).unwrap_or(Timestamp::MIN).checked_sub(SignedDuration::from_secs(1));
    before.unwrap_or(Timestamp::MIN)
}
