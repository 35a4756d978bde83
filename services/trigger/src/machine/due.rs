//! What is due: one decision for each fire time that has come, or one for a range of missed ones. The verdict
//! is `domain::misfire`'s. Invariant: decisions of a job are in order of fire time and leave none out.

use orloj_domain::fire::{Decision, FireDecision, Reason, TriggerKind};
use orloj_domain::id::RunId;
use orloj_domain::misfire::{Verdict, judge};
use orloj_domain::time::Timestamp;

use super::entry::Entry;
use super::{DECISIONS_PER_TICK_MAX, TriggerEvent, TriggerMachine, decision_of};

/// Fire times of one job that are judged one by one; more than that were missed, and become one range.
const MISSED_MAX: usize = 1000;

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
            let entry = &self.jobs[job as usize];
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
        if !is_complete && !times.is_empty() {
            events.extend(self.skipped_range(entry, entry.cursor, times[0], Reason::Misfire, now));
        }
        let due: Vec<Timestamp> = times.iter().map(|time| entry.due_of(*time)).collect();
        let verdicts = judge(&due, &terms.missed, now);
        let mut fires = entry.fires;
        let max_fires = terms.max_fires.unwrap_or(i64::MAX);
        let newest = times.last().copied();
        for (time, verdict) in times.iter().zip(verdicts) {
            if fires >= max_fires {
                break;
            }
            let mut decision = self.decision_on(entry, *time, verdict, newest, now);
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
        let run_of = |time| Some(RunId::of_fire_time(&entry.job, entry.version, time));
        match verdict {
            Verdict::OnTime | Verdict::Late => {
                decision.decision = Decision::Requested;
                decision.reason = (verdict == Verdict::Late).then_some(Reason::Misfire);
                decision.run_id = run_of(time);
                decision.reports_end = entry.after_finish().is_some();
                decision.spec = entry.terms().map(|terms| terms.spec.clone());
            }
            Verdict::Skipped => decision.reason = Some(Reason::Misfire),
            Verdict::Coalesced => {
                decision.decision = Decision::Coalesced;
                decision.reason = Some(Reason::Misfire);
                decision.coalesced_into = newest;
                decision.run_id = newest.and_then(run_of);
            }
        }
        decision
    }

    /// One record for all fire times in (`after`, `end`), or for the only one; nothing if there is none.
    pub(super) fn skipped_range(
        &self,
        entry: &Entry,
        after: Timestamp,
        end: Timestamp,
        reason: Reason,
        now: Timestamp,
    ) -> Option<TriggerEvent> {
        let first = entry.next_after(after).filter(|first| *first < end)?;
        let is_only = entry.next_after(first).is_none_or(|second| second >= end);
        let mut decision = decision_of(entry, TriggerKind::Schedule, self.tzdb.as_ref(), now);
        decision.fire_time = first;
        decision.range_end = (!is_only).then_some(end);
        decision.reason = Some(reason);
        Some(TriggerEvent::Decided(Box::new(decision)))
    }

    /// Settles what the version in force still owes up to `until`, inclusive, before it is replaced, paused or
    /// deleted: due fire times by the misfire policy, or one skipped range if it was paused.
    pub(super) fn close_interval(&self, entry: &Entry, until: Timestamp, now: Timestamp) -> Vec<TriggerEvent> {
        if entry.is_active() {
            return self.settle_due(entry, until, now, Closing::Yes);
        }
        let end = Timestamp::from_millis(until.millis() + 1);
        self.skipped_range(entry, entry.cursor, end, Reason::Paused, now).into_iter().collect()
    }
}
