//! One limit: who waits for it, who holds it, and when the next one gets it. Not here: the order of those who wait (`line`),
//! and telling them (dispatcher). Invariant: a claim waits or holds, never both; who holds counts until it gives back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::breaker::Change;
use super::{Breaker, Claim, LimitRule, Line, Waiter, Why};
use crate::id::{JobId, LimitId, RunId};
use crate::setting::Verdict;
use crate::time::Timestamp;

/// After how long a holder is asked whether it still holds: what it said may have been lost.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// Nanoseconds of a millisecond.
const NANOS: i64 = 1_000_000;
/// Longest burst, in time: a year; the clock in nanoseconds has room for it until the year 2261.
const BURST_NANOS_MAX: i64 = 366 * 86_400 * 1_000_000_000;

/// One that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    waiter: Waiter,
    /// When it was last told so.
    told_at: Timestamp,
}

/// What a limit does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Its breaker stands otherwise from now on.
    Turn(Turn),
    /// This one gets it.
    Grant(Waiter, Grant),
    /// This one holds it for long and is told so again.
    TellAgain(Waiter),
}

/// What becomes of a limit when one gets it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grant {
    /// Up to when the rate is used up, in nanoseconds since the Unix epoch; 0 without a rate.
    pub used_until_nanos: i64,
    /// How its breaker stands if that one is let through to try.
    pub breaker: Option<Breaker>,
}

/// What becomes of a limit's breaker.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// How it stands from now on.
    pub breaker: Breaker,
    /// Why it turned; `None` if it only counts.
    pub why: Option<Why>,
    /// The run whose end turned it, and its job.
    pub run: Option<(RunId, JobId)>,
}

impl Turn {
    fn of((breaker, why): Change) -> Self {
        Self { breaker, why, run: None }
    }
}

/// One limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gate {
    line: Line,
    holders: BTreeMap<Claim, Holder>,
    told: BTreeSet<(Timestamp, Claim)>,
    rate: Used,
    breaker: Breaker,
}

/// How far a rate is used up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Used {
    /// Up to then, in nanoseconds since the Unix epoch; 0 if it never was.
    until_nanos: i64,
    /// When it was used last. Under any rule it is used up no further from there than one may use it at once.
    at: Timestamp,
}

impl Gate {
    /// True if nobody waits, nobody holds, and neither a rate nor a breaker has to be remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_idle = self.line.is_empty() && self.holders.is_empty();
        is_idle && self.rate.until_nanos == 0 && self.breaker.is_at_rest()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.holders.len()
    }

    /// Its breaker.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// True if this one waits or holds.
    #[must_use]
    pub fn knows(&self, claim: Claim) -> bool {
        self.line.contains(claim) || self.holders.contains_key(&claim)
    }

    /// One more waits; who is known already stays where it is.
    pub fn join(&mut self, waiter: &Waiter) {
        if !self.knows(waiter.claim) {
            self.line.join(waiter);
        }
    }

    /// This one holds from `at` on, whether it waited or not, or was told so again.
    pub fn grant(&mut self, waiter: &Waiter, at: Timestamp, used_until_nanos: i64) {
        self.line.serve(waiter.claim);
        self.use_until(used_until_nanos, at);
        let holder = Holder { waiter: waiter.clone(), told_at: at };
        if let Some(before) = self.holders.insert(waiter.claim, holder) {
            self.told.remove(&(before.told_at, waiter.claim));
        }
        self.told.insert((at, waiter.claim));
    }

    /// Its rate was used at an instant, up to then, in nanoseconds since the Unix epoch; 0 if it was not.
    pub fn use_until(&mut self, nanos: i64, at: Timestamp) {
        if nanos != 0 {
            self.rate = Used { until_nanos: nanos, at };
        }
    }

    /// Its breaker stands so from now on.
    pub fn turn(&mut self, breaker: Breaker) {
        self.breaker = breaker;
    }

    /// What becomes of its breaker when a claim comes back at `now`; `None` if nothing does. Who did not hold it says nothing.
    #[must_use]
    pub fn turned_by(&self, rule: Option<&LimitRule>, claim: Claim, verdict: Verdict, now: Timestamp) -> Option<Turn> {
        let (holder, rule) = (self.holders.get(&claim)?, rule?.breaker.as_ref()?);
        let change = self.breaker.after_end(rule, claim, verdict, now)?;
        let run = change.1.map(|_| (claim.0, holder.waiter.job.clone()));
        Some(Turn { run, ..Turn::of(change) })
    }

    /// This one neither waits nor holds any more. True if it did.
    pub fn give_back(&mut self, claim: Claim) -> bool {
        let has_waited = self.line.leave(claim);
        let Some(holder) = self.holders.remove(&claim) else { return has_waited };
        self.told.remove(&(holder.told_at, claim));
        true
    }

    /// When there is something to do under a rule, if nobody asks, gives back or changes the rule before. Without a rule, a
    /// queue bounds nobody; a limit, which somebody relies on and nobody has described, lets nobody through.
    #[must_use]
    pub fn due(&self, limit: &LimitId, rule: Option<&LimitRule>) -> Option<Timestamp> {
        let again = self.told.first().map(|(told_at, _)| told_at.plus(ASK_AGAIN));
        let turn = self.breaker.due(rule.and_then(|rule| rule.breaker.as_ref()));
        [self.grant_due(limit, rule), again, turn].into_iter().flatten().min()
    }

    /// What there is to do at `now` under a rule.
    #[must_use]
    pub fn next(&self, limit: &LimitId, rule: Option<&LimitRule>, now: Timestamp) -> Option<Next> {
        if let Some(change) = self.breaker.after_wait(rule.and_then(|rule| rule.breaker.as_ref()), now) {
            return Some(Next::Turn(Turn::of(change)));
        }
        if self.grant_due(limit, rule).is_some_and(|due| due <= now) {
            let waiter = self.line.first(now)?;
            return Some(Next::Grant(waiter.clone(), self.grant_of(rule, waiter.claim, now)));
        }
        let (told_at, claim) = self.told.first()?;
        let holder = self.holders.get(claim).filter(|_| told_at.plus(ASK_AGAIN) <= now)?;
        Some(Next::TellAgain(holder.waiter.clone()))
    }

    /// What becomes of it if a claim that comes at `now` need not wait; else `None`.
    #[must_use]
    pub fn admits(&self, limit: &LimitId, rule: Option<&LimitRule>, claim: Claim, now: Timestamp) -> Option<Grant> {
        let is_free = self.line.is_empty() && self.opens(limit, rule).is_some_and(|at| at <= now);
        is_free.then(|| self.grant_of(rule, claim, now))
    }

    fn grant_of(&self, rule: Option<&LimitRule>, claim: Claim, now: Timestamp) -> Grant {
        Grant { used_until_nanos: self.used_with_one_more(rule, now), breaker: self.breaker.after_grant(claim) }
    }

    fn used_with_one_more(&self, rule: Option<&LimitRule>, now: Timestamp) -> i64 {
        rule.and_then(Rate::of).map_or(0, |rate| rate.used_with_one_more(self.rate, now))
    }

    fn grant_due(&self, limit: &LimitId, rule: Option<&LimitRule>) -> Option<Timestamp> {
        if self.line.is_empty() { None } else { self.opens(limit, rule) }
    }

    /// True if its breaker lets nobody through now.
    fn is_shut(&self, rule: Option<&LimitRule>) -> bool {
        match &self.breaker {
            Breaker::Closed(_) => false,
            Breaker::Open { .. } => true,
            // It closes at once, and lets all through after that.
            Breaker::HalfOpen { .. } if rule.is_none_or(|rule| rule.breaker.is_none()) => true,
            // Whatever became of the one that tries: as long as it holds, its end is waited for, and no longer.
            Breaker::HalfOpen { probe, .. } => probe.is_some_and(|claim| self.holders.contains_key(&claim)),
        }
    }

    /// When somebody may get it; `None` if not before something changes.
    fn opens(&self, limit: &LimitId, rule: Option<&LimitRule>) -> Option<Timestamp> {
        if self.is_shut(rule) {
            return None;
        }
        let Some(rule) = rule else { return limit.is_of_queue().then_some(Timestamp::MIN) };
        let room = rule.max_concurrent.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(0));
        if rule.is_paused || self.holders.len() >= room {
            return None;
        }
        Some(Rate::of(rule).map_or(Timestamp::MIN, |rate| rate.due(self.rate)))
    }
}

/// A token bucket, kept as one instant: up to when it is used up (the generic cell rate algorithm of ITU-T I.371).
struct Rate {
    step_nanos: i64,
    /// How far ahead of now it may be used up.
    ahead_nanos: i64,
}

impl Rate {
    /// The rate of a rule, if it has one.
    fn of(rule: &LimitRule) -> Option<Self> {
        rule.rate_per_second.map(|per_second| Self::new(per_second, rule.burst))
    }

    fn new(per_second: f64, burst: i32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the rule: at most 10^14")]
        let step_nanos = ((1_000_000_000.0 / per_second).ceil() as i64).max(1);
        let burst_nanos = step_nanos.saturating_mul(i64::from(burst.max(1) - 1)).min(BURST_NANOS_MAX);
        // What falls into the same millisecond goes together: clocks show no finer time.
        Self { step_nanos, ahead_nanos: burst_nanos + 999_999 }
    }

    /// When it has room for one more.
    fn due(&self, used: Used) -> Timestamp {
        let at_nanos = self.used_until(used).saturating_sub(self.ahead_nanos);
        Timestamp::from_millis(at_nanos.div_euclid(NANOS) + i64::from(at_nanos.rem_euclid(NANOS) > 0))
    }

    /// Up to when it is used up with one more at `now`.
    fn used_with_one_more(&self, used: Used, now: Timestamp) -> i64 {
        self.used_until(used).max(nanos(now)).saturating_add(self.step_nanos)
    }

    /// A rule that was edited does not make anybody wait for what the one before it would have.
    fn used_until(&self, used: Used) -> i64 {
        used.until_nanos.min(nanos(used.at).saturating_add(self.ahead_nanos).saturating_add(self.step_nanos))
    }
}

fn nanos(at: Timestamp) -> i64 {
    at.millis().saturating_mul(NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;

    fn waiter(number: i64) -> Waiter {
        let job: crate::id::JobId = "a/b".parse().expect("job");
        let claim = (RunId::of_fire_time(&job, number, Timestamp::MIN), 1);
        Waiter { claim, job, priority: 5, since: at(0) }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    fn limit() -> LimitId {
        "limit/db".parse().expect("limit")
    }

    /// Grants all that may be granted at an instant.
    fn grant_all(gate: &mut Gate, rule: &LimitRule, now: Timestamp) -> usize {
        let mut granted = 0;
        while let Some(Next::Grant(waiter, grant)) = gate.next(&limit(), Some(rule), now) {
            gate.grant(&waiter, now, grant.used_until_nanos);
            granted += 1;
        }
        granted
    }

    #[test]
    fn no_more_hold_than_the_rule_allows() {
        let rule = LimitRule { max_concurrent: Some(2), ..LimitRule::default() };
        let mut gate = Gate::default();
        (0..5).for_each(|number| gate.join(&waiter(number)));
        assert_eq!(grant_all(&mut gate, &rule, at(0)), 2);
        assert_eq!((gate.held(), gate.waiting()), (2, 3));
        let holder = *gate.holders.keys().next().expect("one holds");
        assert!(gate.give_back(holder));
        assert!(!gate.give_back(holder));
        assert_eq!(grant_all(&mut gate, &rule, at(0)), 1);
        let paused = LimitRule { is_paused: true, ..LimitRule::default() };
        assert_eq!(grant_all(&mut gate, &paused, at(0)), 0);
        assert_eq!(grant_all(&mut gate, &LimitRule::default(), at(0)), 2);
    }

    #[test]
    fn what_has_no_rule_bounds_a_queue_not_at_all_and_a_limit_wholly() {
        let mut gate = Gate::default();
        gate.join(&waiter(0));
        let queue = "queue/q".parse().expect("limit");
        assert_eq!((gate.due(&limit(), None), gate.next(&limit(), None, at(0))), (None, None));
        assert_eq!(gate.due(&queue, None), Some(Timestamp::MIN));
        assert!(matches!(gate.next(&queue, None, at(0)), Some(Next::Grant(..))));
    }

    #[test]
    fn a_rate_is_kept_over_any_time_but_for_the_burst() {
        for (rate, burst) in [(10.0, 1), (10.0, 3), (1000.0, 1), (3000.0, 5), (0.5, 1)] {
            let rule = LimitRule { rate_per_second: Some(rate), burst, ..LimitRule::default() };
            let mut gate = Gate::default();
            (0..20_000).for_each(|number| gate.join(&waiter(number)));
            let mut granted = 0;
            for millis in 0..4000 {
                granted += grant_all(&mut gate, &rule, at(millis));
                let allowed = rate * (millis + 1) as f64 / 1000.0 + f64::from(burst);
                assert!(granted as f64 <= allowed + 1e-6, "{granted} after {millis} ms at {rate}/s");
            }
            assert!(granted as f64 >= rate * 4.0 * 0.999, "{granted} in four seconds at {rate}/s");
        }
    }

    #[test]
    fn a_rate_says_when_the_next_may_go_and_is_remembered_when_nobody_holds() {
        let rule = LimitRule { rate_per_second: Some(2.0), burst: 1, ..LimitRule::default() };
        let mut gate = Gate::default();
        (0..3).for_each(|number| gate.join(&waiter(number)));
        assert_eq!(grant_all(&mut gate, &rule, at(0)), 1);
        let holder = *gate.holders.keys().next().expect("one holds");
        gate.give_back(holder);
        assert_eq!(gate.due(&limit(), Some(&rule)), Some(at(500)));
        assert_eq!((gate.next(&limit(), Some(&rule), at(499)), gate.is_empty()), (None, false));
        assert_eq!(grant_all(&mut gate, &rule, at(500)), 1);
    }

    #[test]
    fn an_edited_rate_counts_from_now_on() {
        let rule = |rate, burst| LimitRule { rate_per_second: Some(rate), burst, ..LimitRule::default() };
        for (before, taken) in [(rule(0.000_01, 1), 1), (rule(0.001, 1000), 1000)] {
            let mut gate = Gate::default();
            (0..1010).for_each(|number| gate.join(&waiter(number)));
            assert_eq!(grant_all(&mut gate, &before, at(0)), taken);
            assert!(gate.due(&limit(), Some(&before)) > Some(at(100_000)), "nobody for long");
            let due = gate.due(&limit(), Some(&rule(10.0, 1)));
            assert!(due <= Some(at(101)), "{due:?}, {before:?}");
            assert_eq!(grant_all(&mut gate, &rule(10.0, 1), at(101)), 1);
            assert_eq!(gate.due(&limit(), Some(&rule(10.0, 1))), Some(at(201)));
        }
    }

    #[test]
    fn a_breaker_lets_nobody_through_then_one_at_a_time_and_closes_before_anybody_passes_without_its_rule() {
        let manifest = |spec| serde_json::json!({"apiVersion": "orloj/v1", "kind": "Limit", "metadata": {"name": "db"}, "spec": spec});
        let rule = |spec| super::super::parse_json(&manifest(spec).to_string()).expect("good").2;
        let rule_with = rule(serde_json::json!({"breaker": {"failures": 1, "openFor": "1s"}}));
        let without = rule(serde_json::json!({"maxConcurrent": 9}));
        let opened = || {
            let mut gate = Gate::default();
            gate.grant(&waiter(0), at(0), 0);
            let turn = gate.turned_by(Some(&rule_with), waiter(0).claim, Verdict::Failed, at(0)).expect("it opens");
            assert_eq!(turn.run, Some((waiter(0).claim.0, waiter(0).job)));
            gate.turn(turn.breaker);
            gate.give_back(waiter(0).claim);
            (1..4).for_each(|number| gate.join(&waiter(number)));
            gate
        };
        let mut gate = opened();
        assert_eq!(
            (gate.next(&limit(), Some(&rule_with), at(999)), gate.due(&limit(), Some(&rule_with))),
            (None, Some(at(1000)))
        );
        let Some(Next::Turn(turn)) = gate.next(&limit(), Some(&rule_with), at(1000)) else {
            panic!("it does not turn")
        };
        gate.turn(turn.breaker);
        for _ in 0..2 {
            let next = gate.next(&limit(), Some(&rule_with), at(1000));
            let Some(Next::Grant(probe, grant)) = next else { panic!("nobody tries: {next:?}") };
            gate.grant(&probe, at(1000), 0);
            gate.turn(grant.breaker.expect("it tries"));
            assert_eq!(gate.next(&limit(), Some(&rule_with), at(2000)), None, "one at a time");
            assert_eq!(gate.admits(&limit(), Some(&rule_with), waiter(9).claim, at(2000)), None);
            // It says nothing: another one may.
            assert_eq!(gate.turned_by(Some(&rule_with), probe.claim, Verdict::Nothing, at(2000)), None);
            gate.give_back(probe.claim);
        }
        for mut gate in [opened(), gate] {
            for rule in [None, Some(&without)] {
                assert!(matches!(gate.next(&limit(), rule, at(0)), Some(Next::Turn(_))), "first it closes");
                (1..4).for_each(|number| {
                    gate.give_back(waiter(number).claim);
                });
                assert_eq!(gate.admits(&"queue/q".parse().expect("limit"), rule, waiter(9).claim, at(0)), None);
            }
        }
    }

    #[test]
    fn whoever_holds_for_long_is_told_again() {
        let rule = LimitRule { max_concurrent: Some(1), ..LimitRule::default() };
        let mut gate = Gate::default();
        gate.join(&waiter(0));
        assert_eq!(grant_all(&mut gate, &rule, at(0)), 1);
        assert_eq!(gate.due(&limit(), Some(&rule)), Some(at(600_000)));
        assert_eq!(gate.next(&limit(), Some(&rule), at(599_999)), None);
        let Some(Next::TellAgain(told)) = gate.next(&limit(), Some(&rule), at(600_000)) else { panic!("not told") };
        gate.grant(&told, at(600_000), 0);
        assert_eq!(gate.due(&limit(), Some(&rule)), Some(at(1_200_000)));
        assert_eq!(gate.told.len(), 1);
    }
}
