//! The runners that have labels, as one dispatcher knows them from their signs of life: whom a run that asks for labels may be
//! offered to. Not here: how long they live (`lease`), what is offered to whom (dispatcher). Invariant: of two sessions of one
//! runner only the younger is open, and a session that is not known here is not therefore gone.

use std::collections::BTreeMap;

use crate::id::{QueueName, RunnerId, SessionId};
use crate::runner::RunnerHeartbeat;
use crate::time::Timestamp;

/// A session of a runner that has labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The runner.
    pub runner: RunnerId,
    /// What it subscribes to.
    pub queues: Vec<QueueName>,
    /// What it says about itself; one or more.
    pub labels: BTreeMap<String, String>,
    /// Attempts it can hold; 1 or more.
    pub slots: usize,
    /// When it began, by the runner's clock.
    pub since: Timestamp,
    /// It drains: it takes no more.
    pub is_draining: bool,
    /// Its runner has begun another session.
    pub is_succeeded: bool,
}

impl Member {
    /// None for a runner without labels or slots: nothing is ever offered to it.
    fn of(heartbeat: &RunnerHeartbeat) -> Option<Self> {
        let slots = usize::try_from(heartbeat.slots).ok().filter(|slots| *slots > 0)?;
        (!heartbeat.labels.is_empty()).then(|| Self {
            runner: heartbeat.runner.clone(),
            queues: heartbeat.queues.clone(),
            labels: heartbeat.labels.clone(),
            slots,
            since: heartbeat.since,
            is_draining: heartbeat.is_draining,
            is_succeeded: false,
        })
    }

    /// True if it takes what it is offered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_draining && !self.is_succeeded
    }

    /// True if it subscribes to a queue and has all of these labels with these values.
    #[must_use]
    pub fn serves(&self, queue: &QueueName, labels: &BTreeMap<String, String>) -> bool {
        self.queues.contains(queue) && labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// The sessions with labels of which a sign of life was heard and whose lease is not over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet(BTreeMap<SessionId, Member>);

impl Fleet {
    /// The fleet after a sign of life; `None` if that says nothing new.
    #[must_use]
    pub fn after(&self, heartbeat: &RunnerHeartbeat) -> Option<Self> {
        let mut member = Member::of(heartbeat)?;
        let known = self.0.get(&heartbeat.session);
        member.is_succeeded = known.is_some_and(|known| known.is_succeeded);
        if known == Some(&member) {
            return None;
        }
        let mut members = self.0.clone();
        members.insert(heartbeat.session.clone(), member);
        Some(Self::of(members))
    }

    /// The fleet without sessions whose lease is over; `None` if it has none of them.
    #[must_use]
    pub fn without(&self, expired: &[SessionId]) -> Option<Self> {
        if !expired.iter().any(|session| self.0.contains_key(session)) {
            return None;
        }
        let mut members = self.0.clone();
        members.retain(|session, _| !expired.contains(session));
        Some(Self::of(members))
    }

    /// Of the sessions of one runner all but the youngest are succeeded.
    fn of(mut members: BTreeMap<SessionId, Member>) -> Self {
        let mut youngest: BTreeMap<RunnerId, (Timestamp, SessionId)> = BTreeMap::new();
        for (session, member) in &members {
            let age = (member.since, session.clone());
            let known = youngest.entry(member.runner.clone()).or_insert_with(|| age.clone());
            *known = age.max(known.clone());
        }
        for (session, member) in &mut members {
            member.is_succeeded = youngest.get(&member.runner).is_some_and(|(_, last)| last != session);
        }
        Self(members)
    }

    /// A session; `None` if nothing was heard of it, or if it has no labels.
    #[must_use]
    pub fn get(&self, session: &SessionId) -> Option<&Member> {
        self.0.get(session)
    }

    /// True if a session is known to take nothing more: it drains, or its runner has begun another one.
    #[must_use]
    pub fn is_closed(&self, session: &SessionId) -> bool {
        self.get(session).is_some_and(|member| !member.is_open())
    }

    /// Sessions that take what they are offered, in order.
    pub fn open(&self) -> impl Iterator<Item = (&SessionId, &Member)> {
        self.0.iter().filter(|(_, member)| member.is_open())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(
        runner: &str,
        session: &str,
        since: i64,
        labels: &[(&str, &str)],
        is_draining: bool,
    ) -> RunnerHeartbeat {
        RunnerHeartbeat {
            runner: runner.parse().expect("runner"),
            session: session.parse().expect("session"),
            sequence: 1,
            at: Timestamp::from_millis(since),
            since: Timestamp::from_millis(since),
            lease_ms: 15_000,
            queues: vec![QueueName::default()],
            slots: 2,
            busy: 0,
            is_draining,
            host: String::new(),
            queue_weights: BTreeMap::new(),
            labels: map(labels),
        }
    }

    fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn open(fleet: &Fleet) -> Vec<&str> {
        fleet.open().map(|(session, _)| session.as_str()).collect()
    }

    #[test]
    fn all_labels_must_be_equal_and_the_queue_served() {
        let fleet = Fleet::default().after(&heartbeat("a", "a1", 0, &[("zone", "eu"), ("gpu", "")], false));
        let fleet = fleet.expect("it is new");
        let member = fleet.get(&"a1".parse().expect("session")).expect("known");
        for (labels, serves) in [
            (&[("zone", "eu")][..], true),
            (&[("zone", "eu"), ("gpu", "")], true),
            (&[("zone", "us")], false),
            (&[("zone", "eu"), ("disk", "ssd")], false),
            (&[("zone", "eu"), ("gpu", "true")], false),
        ] {
            assert_eq!(member.serves(&QueueName::default(), &map(labels)), serves, "{labels:?}");
        }
        assert!(!member.serves(&"other".parse().expect("queue"), &map(&[("zone", "eu")])));
    }

    #[test]
    fn only_what_is_new_makes_another_fleet() {
        let labels = &[("zone", "eu")][..];
        let none = Fleet::default();
        assert_eq!(none.after(&heartbeat("a", "a1", 0, &[], false)), None, "nothing is offered to it");
        assert_eq!(none.after(&RunnerHeartbeat { slots: 0, ..heartbeat("a", "a1", 0, labels, false) }), None);
        let one = none.after(&heartbeat("a", "a1", 0, labels, false)).expect("new");
        let busier = RunnerHeartbeat { busy: 1, sequence: 2, ..heartbeat("a", "a1", 0, labels, false) };
        assert_eq!(one.after(&busier), None);
        assert_eq!(one.without(&["b1".parse().expect("session")]), None);
        assert_eq!(one.without(&["a1".parse().expect("session")]), Some(none));
    }

    #[test]
    fn draining_and_older_sessions_take_nothing() {
        let labels = &[("zone", "eu")][..];
        let mut fleet = Fleet::default();
        for (beat, wanted) in [
            (heartbeat("a", "a1", 0, labels, false), &["a1"][..]),
            (heartbeat("b", "b1", 5, labels, false), &["a1", "b1"]),
            (heartbeat("a", "a0", 9, labels, false), &["a0", "b1"]),
            (heartbeat("b", "b1", 5, labels, true), &["a0"]),
        ] {
            fleet = fleet.after(&beat).expect("new");
            assert_eq!(open(&fleet), wanted);
        }
        // It comes back to life, but its runner has gone on as another.
        assert_eq!(fleet.after(&heartbeat("a", "a1", 0, labels, false)), None);
        let fleet = fleet.without(&["a0".parse().expect("session")]).expect("it was there");
        assert_eq!(open(&fleet), ["a1"]);
        assert!(fleet.is_closed(&"b1".parse().expect("session")));
        assert!(!fleet.is_closed(&"unknown".parse().expect("session")));
    }
}
