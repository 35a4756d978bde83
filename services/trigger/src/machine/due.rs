//! What is due: one decision for each fire time that has come, or one for a range of missed ones. The verdict
//! is `domain::misfire`'s. Invariant: decisions of a job are in order of fire time and leave none out.

use orloj_domain::fire::{Decision, FireDecision, Reason, TriggerKind};
use orloj_domain::id::RunId;
use orloj_domain::misfire::{Verdict, judge};
use orloj_domain::time::Timestamp;

use super::entry::Entry;
use super::shared::Terms;
use super::{DECISIONS_PER_TICK_MAX, TriggerEvent, TriggerMachine, decision_of};

/// Fire times of one job that are judged one by one; more than that were missed, and become one range.
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
        let (mut times, is_complete) = entry.newest_between(entry.cursor, until, MISSED_MAX);
        let is_due = |time: &Timestamp| entry.due_of(*time) <= now;
        let due_count = times.iter().position(|time| !is_due(time)).unwrap_or(times.len());
        let not_yet_due = times.split_off(due_count);
        let mut events = Vec::new();
        let older = match times.first() {
            Some(first) if !is_complete => self.skipped_between(entry, entry.cursor, *first, Reason::Misfire, now),
            Some(_) | None => None,
        };
        let mut fires = entry.fires;
        let max_fires = terms.definition().max_fires.unwrap_or(i64::MAX);
        for mut decision in gathered(older, &self.decisions_on(entry, terms, &times, now)) {
            if fires >= max_fires {
                break;
            }
            if decision.decision == Decision::Requested {
                fires += 1;
            }
            decision.fires = fires;
            events.push(TriggerEvent::Decided(Box::new(decision)));
        }
        if closing == Closing::Yes {
            for time in not_yet_due {
                let mut decision = decision_of(entry, TriggerKind::Schedule, self.tzdb.as_ref(), now);
                decision.fire_time = time;
                decision.reason = Some(Reason::Superseded);
                decision.fires = fires;
                events.push(TriggerEvent::Decided(Box::new(decision)));
            }
        }
        events
    }

    /// Decisions on fire times that are due, in order. Calendars come first, so that none is taken together with one
    /// that they leave out; those that they leave out one after another share a decision.
    fn decisions_on(&self, entry: &Entry, terms: &Terms, times: &[Timestamp], now: Timestamp) -> Vec<FireDecision> {
        let Some(calendars) = &terms.calendars else { return self.judged(entry, terms, times, now) };
        let is_let_through = |time: &Timestamp| entry.exclusion(&self.calendars, *time).is_none();
        let let_through: Vec<Timestamp> = times.iter().copied().filter(is_let_through).collect();
        let mut judged = self.judged(entry, terms, &let_through, now).into_iter().peekable();
        let mut decisions: Vec<FireDecision> = Vec::with_capacity(times.len());
        for time in times {
            if let Some(decision) = judged.next_if(|decision| decision.fire_time == *time) {
                decisions.push(decision);
                continue;
            }
            match decisions.last_mut().filter(|last| last.reason == Some(Reason::Calendar)) {
                Some(earlier) => earlier.range_end = Some(Timestamp::from_millis(time.millis() + 1)),
                None => decisions.push(self.left_out_on(entry, *time, now)),
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

    fn left_out_on(&self, entry: &Entry, time: Timestamp, now: Timestamp) -> FireDecision {
        let mut decision = decision_of(entry, TriggerKind::Schedule, self.tzdb.as_ref(), now);
        decision.fire_time = time;
        decision.reason = Some(Reason::Calendar);
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
