//! What is due: one decision for each fire time that has come, or one for a range of missed ones. The verdict
//! is `domain::misfire`'s. Invariant: decisions of a job are in order of fire time and leave none out.

use std::borrow::Cow;

use orloj_domain::fire::{Decision, FireDecision, Reason, TriggerKind};
use orloj_domain::id::RunId;
use orloj_domain::job::{MissedKind, MissedPolicy};
use orloj_domain::misfire::{Verdict, judge};
use orloj_domain::time::Timestamp;

use super::entry::Entry;
use super::shared::Terms;
use super::{DECISIONS_PER_TICK_MAX, TriggerEvent, TriggerMachine, decision_of};

/// Fire times of one job that are judged one by one, whatever its policy; older ones were missed, and become one range.
const MISSED_MAX: usize = 1000;
/// So many fire times one after another of which the same is said share one decision; fewer have one each.
const RANGE_MIN: usize = 100;

/// Whether the version in force ends with this settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Yes,
}

impl TriggerMachine {
    pub(super) fn decide_due(&self, now: Timestamp) -> Vec<TriggerEvent> {
        let mut events = Vec::new();
        for (_, job) in self.wheel.due(now.millis()) {
            if events.len() >= DECISIONS_PER_TICK_MAX {
                break;
            }
            let entry = self.jobs.get(job);
            let decided = self.settle_due(entry, now, now, Closing::No);
            // A backfill yields to fire times that are due: it has its turn once they are settled.
            events.extend(if decided.is_empty() { self.step_backfill(entry, now) } else { decided });
        }
        events
    }

    /// Decides every fire time of a job up to `until`, inclusive, that is due at `now`; if the version ends
    /// here, also those whose jitter has not passed yet: they are skipped.
    fn settle_due(&self, entry: &Entry, until: Timestamp, now: Timestamp, closing: Closing) -> Vec<TriggerEvent> {
        let Some(terms) = entry.terms().filter(|_| entry.is_active()) else {
            return Vec::new();
        };
        let missed = &terms.definition().missed;
        let not_yet_due = first_not_due(entry, terms.definition().jitter_ms, until, now);
        let due_until = not_yet_due.map_or(until, |first| Timestamp::from_millis(first.millis() - 1));
        let (times, is_complete) = entry.newest_between(entry.cursor, due_until, judged_max(missed));
        let mut events = Vec::new();
        let let_through = self.let_through(entry, terms, &times, is_complete, now);
        let oldest = let_through.first().into_iter().chain(times.first()).min();
        let older = match oldest {
            Some(oldest) if !is_complete => self.skipped_between(entry, entry.cursor, *oldest, Reason::Misfire, now),
            Some(_) | None => None,
        };
        // Thousands of runs are asked for a part at a time, the oldest first, and the next tick judges the rest anew.
        // Not under `latest`: what is coalesced names the run that it became part of, which must be decided with it.
        let is_in_parts = closing == Closing::No && missed.policy == MissedKind::All;
        let decisions_max = if is_in_parts { DECISIONS_PER_TICK_MAX } else { usize::MAX };
        let mut fires = entry.fires;
        let max_fires = terms.definition().max_fires.unwrap_or(i64::MAX);
        let mut decisions = self.decisions_on(entry, terms, &times, &let_through, now);
        if let Some(last) = last_requested(&decisions, max_fires.saturating_sub(fires)) {
            // Those after it are none any more, and nothing becomes part of them.
            let up_to_last = |times: &[Timestamp]| -> Vec<Timestamp> {
                times.iter().copied().filter(|time| *time <= last).collect()
            };
            decisions = self.decisions_on(entry, terms, &up_to_last(&times), &up_to_last(&let_through), now);
        }
        for mut decision in gathered(older, &decisions).into_iter().take(decisions_max) {
            if fires >= max_fires {
                break;
            }
            if decision.decision == Decision::Requested {
                fires += 1;
            }
            decision.fires = fires;
            events.push(TriggerEvent::Decided(Box::new(decision)));
        }
        if closing == Closing::Yes && not_yet_due.is_some() {
            let superseded = self.superseded(entry, due_until, until, now);
            events.extend(
                superseded
                    .into_iter()
                    .map(|decision| TriggerEvent::Decided(Box::new(FireDecision { fires, ..decision }))),
            );
        }
        events
    }

    /// Decisions on the fire times in (`after`, `until`], whose jitter has not passed when their version ends.
    fn superseded(&self, entry: &Entry, after: Timestamp, until: Timestamp, now: Timestamp) -> Vec<FireDecision> {
        let (times, is_complete) = entry.newest_between(after, until, MISSED_MAX);
        if !is_complete {
            let end = Timestamp::from_millis(until.millis() + 1);
            return self.skipped_between(entry, after, end, Reason::Superseded, now).into_iter().collect();
        }
        times.into_iter().map(|time| self.skipped_on(entry, time, Reason::Superseded, now)).collect()
    }

    /// The fire times that the calendars let through: of `times`, the newest that are due, and unless those are all, as
    /// many older ones as may still be judged: a weekend that is left out must not hide the Friday before it.
    fn let_through<'a>(
        &self,
        entry: &Entry,
        terms: &Terms,
        times: &'a [Timestamp],
        is_complete: bool,
        now: Timestamp,
    ) -> Cow<'a, [Timestamp]> {
        if terms.calendars.is_none() {
            return Cow::Borrowed(times);
        }
        let is_let_through = |time: &Timestamp| entry.exclusion(&self.calendars, *time).is_none();
        let newer: Vec<Timestamp> = times.iter().copied().filter(is_let_through).collect();
        let definition = terms.definition();
        let places = judged_max(&definition.missed).saturating_sub(newer.len());
        let has_use = !is_complete && places > 0 && definition.missed.policy != MissedKind::Skip;
        let Some(first) = times.first().filter(|_| has_use) else { return Cow::Owned(newer) };
        // What is older is skipped, whatever the calendars say; jitter makes it due that much later.
        let reach_ms = definition.missed.window_ms.saturating_add(definition.jitter_ms).saturating_add(1);
        let after = entry.cursor.max(Timestamp::from_millis(now.millis().saturating_sub(reach_ms)));
        let until = Timestamp::from_millis(first.millis() - 1);
        let mut let_through = entry.newest_through(&self.calendars, after, until, places);
        let_through.extend(newer);
        Cow::Owned(let_through)
    }

    /// Decisions on fire times that are due, in order: from the first of `times` on, or the first that is `let_through`
    /// where that is older. Calendars come first, so that none is taken together with one that they leave out; those
    /// that they leave out one after another share a decision.
    fn decisions_on(
        &self,
        entry: &Entry,
        terms: &Terms,
        times: &[Timestamp],
        let_through: &[Timestamp],
        now: Timestamp,
    ) -> Vec<FireDecision> {
        let mut judged = self.judged(entry, terms, let_through, now);
        let (Some(calendars), Some(first)) = (&terms.calendars, times.first()) else { return judged };
        let older_count = let_through.partition_point(|time| time < first);
        let mut newer = judged.split_off(older_count).into_iter().peekable();
        let mut decisions: Vec<FireDecision> = Vec::with_capacity(2 * older_count + times.len());
        for (index, decision) in judged.into_iter().enumerate() {
            decisions.push(decision);
            // All that lie between two of the older ones are left out.
            let end = let_through.get(index + 1).map_or(*first, |next| *first.min(next));
            decisions.extend(self.skipped_between(entry, let_through[index], end, Reason::Calendar, now));
        }
        for time in times {
            if let Some(decision) = newer.next_if(|decision| decision.fire_time == *time) {
                decisions.push(decision);
                continue;
            }
            match decisions.last_mut().filter(|last| last.reason == Some(Reason::Calendar)) {
                Some(earlier) => earlier.range_end = Some(Timestamp::from_millis(time.millis() + 1)),
                None => decisions.push(self.skipped_on(entry, *time, Reason::Calendar, now)),
            }
        }
        let asked = calendars.positions(&self.calendars);
        decisions.iter_mut().for_each(|decision| decision.calendars.clone_from(&asked));
        decisions
    }

    /// Decisions on fire times that no calendar leaves out.
    fn judged(&self, entry: &Entry, terms: &Terms, times: &[Timestamp], now: Timestamp) -> Vec<FireDecision> {
        let due: Vec<Timestamp> = times.iter().map(|time| entry.due_of(*time)).collect();
        let newest = times.last().copied();
        let verdicts = judge(&due, &terms.definition().missed, now);
        times.iter().zip(verdicts).map(|(time, verdict)| self.decision_on(entry, *time, verdict, newest, now)).collect()
    }

    fn skipped_on(&self, entry: &Entry, time: Timestamp, reason: Reason, now: Timestamp) -> FireDecision {
        let mut decision = decision_of(entry, TriggerKind::Schedule, self.tzdb.as_ref(), now);
        decision.fire_time = time;
        decision.reason = Some(reason);
        decision
    }

    fn decision_on(
        &self,
        entry: &Entry,
        time: Timestamp,
        verdict: Verdict,
        newest: Option<Timestamp>,
        now: Timestamp,
    ) -> FireDecision {
        let mut decision = decision_of(entry, TriggerKind::Schedule, self.tzdb.as_ref(), now);
        decision.fire_time = time;
        let asked = entry.terms().map(|terms| terms.definition().missed.clone());
        let run_of = |time| Some(RunId::of_fire_time(&entry.job, entry.version, time));
        match verdict {
            Verdict::OnTime | Verdict::Late => {
                decision.decision = Decision::Requested;
                decision.reason = (verdict == Verdict::Late).then_some(Reason::Misfire);
                decision.missed = asked.filter(|_| verdict == Verdict::Late);
                decision.run_id = run_of(time);
                decision.reports_end = entry.awaits_ends();
                decision.spec = entry.terms().map(|terms| terms.definition().spec.clone());
            }
            Verdict::Skipped => {
                decision.reason = Some(Reason::Misfire);
                decision.missed = asked;
            }
            Verdict::Coalesced => {
                decision.decision = Decision::Coalesced;
                decision.reason = Some(Reason::Misfire);
                decision.missed = asked;
                decision.coalesced_into = newest;
                decision.run_id = newest.and_then(run_of);
            }
        }
        decision
    }

    /// One decision for all fire times in (`after`, `end`), or for the only one; nothing if there is none.
    fn skipped_between(
        &self,
        entry: &Entry,
        after: Timestamp,
        end: Timestamp,
        reason: Reason,
        now: Timestamp,
    ) -> Option<FireDecision> {
        let first = entry.next_after(after).filter(|first| *first < end)?;
        let is_only = entry.next_after(first).is_none_or(|second| second >= end);
        let mut decision = decision_of(entry, TriggerKind::Schedule, self.tzdb.as_ref(), now);
        decision.fire_time = first;
        decision.range_end = (!is_only).then_some(end);
        decision.reason = Some(reason);
        let is_misfire = reason == Reason::Misfire;
        decision.missed = entry.terms().filter(|_| is_misfire).map(|terms| terms.definition().missed.clone());
        Some(decision)
    }

    /// Settles what the version in force still owes up to `until`, inclusive, before it is replaced, paused or
    /// deleted: due fire times by the misfire policy, or one skipped range if it was paused.
    pub(super) fn close_interval(&self, entry: &Entry, until: Timestamp, now: Timestamp) -> Vec<TriggerEvent> {
        if entry.is_active() {
            return self.settle_due(entry, until, now, Closing::Yes);
        }
        let end = Timestamp::from_millis(until.millis() + 1);
        let skipped = self.skipped_between(entry, entry.cursor, end, Reason::Paused, now);
        skipped.into_iter().map(|decision| TriggerEvent::Decided(Box::new(decision))).collect()
    }
}

/// The fire time with which a job has used up what is `left` of its `maxFires`, if others come after it.
fn last_requested(decisions: &[FireDecision], left: i64) -> Option<Timestamp> {
    let left = usize::try_from(left).ok()?;
    let mut requested = decisions.iter().filter(|decision| decision.decision == Decision::Requested);
    let last = requested.nth(left.checked_sub(1)?)?.fire_time;
    decisions.last().is_some_and(|newest| newest.fire_time > last).then_some(last)
}

/// The first fire time up to `until` whose jitter has not passed: those after it wait for it, due or not.
fn first_not_due(entry: &Entry, jitter_ms: i64, until: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if jitter_ms == 0 && until <= now {
        return None;
    }
    // What came before has been delayed long enough, however far its own jitter went.
    let from = entry.cursor.max(Timestamp::from_millis(now.millis().saturating_sub(jitter_ms)));
    std::iter::successors(entry.next_after(from), |time| entry.next_after(*time))
        .take_while(|time| *time <= until)
        .find(|time| entry.due_of(*time) > now)
}

/// Most fire times of a job that are judged one by one. What `all` asks for comes on top of the others, as those that
/// are on time do not count against its `max`; `manifest::check` bounds that.
fn judged_max(missed: &MissedPolicy) -> usize {
    match missed.policy {
        MissedKind::Skip | MissedKind::Latest => MISSED_MAX,
        MissedKind::All => MISSED_MAX + usize::try_from(missed.max).unwrap_or(0),
    }
}

/// Makes one decision of many that say the same of fire times one after another: an outage of a night is a few records
/// for each job, however dense its schedule. `older` is a range that comes before them all.
fn gathered(older: Option<FireDecision>, decisions: &[FireDecision]) -> Vec<FireDecision> {
    let mut gathered: Vec<FireDecision> = older.into_iter().collect();
    for same in decisions.chunk_by(is_alike) {
        let end = same.last().map(|last| Timestamp::from_millis(last.settled_until().millis() + 1));
        match gathered.last_mut().filter(|before| is_alike(before, &same[0])) {
            Some(before) => before.range_end = end,
            None if same.len() >= RANGE_MIN => gathered.push(FireDecision { range_end: end, ..same[0].clone() }),
            None => gathered.extend_from_slice(same),
        }
    }
    gathered
}

/// True if two decisions say the same of their fire times, and neither asks for a run.
fn is_alike(one: &FireDecision, other: &FireDecision) -> bool {
    let verdict = |it: &FireDecision| (it.decision, it.reason, it.coalesced_into);
    one.decision != Decision::Requested && verdict(one) == verdict(other) && one.calendars == other.calendars
}
