//! Which runner sessions are alive, by one dispatcher's monotonic clock: a fold of signs of life with their
//! time of arrival. Not here: what a lost session means for its attempts (dispatcher), how a runner ends itself
//! (runner). Invariant: a session expires here later than its runner has ended its attempts, never earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::SessionId;

/// Lease of a runner that says nothing else.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(15);
/// Shortest lease, inclusive: below this, ordinary pauses of a log look like death.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// Longest lease, inclusive. A runner must refuse to start with a longer one, because the dispatcher would
/// judge it by this one.
pub const LEASE_MAX: Duration = Duration::from_secs(600);
/// How long an expired session is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// Most expired sessions remembered, inclusive; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 10_000;

/// The lease that a record claims, brought into [`LEASE_MIN`]..=[`LEASE_MAX`].
#[must_use]
pub fn lease_of(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0)).clamp(LEASE_MIN, LEASE_MAX)
}

/// What a sign of life did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The session was not known.
    Began,
    /// The session was alive.
    Extended,
    /// The session had expired, and is alive again.
    CameBack,
}

/// The sessions of all runners. Instants are readings of one monotonic clock, so a wall clock that jumps ends
/// no lease.
///
/// **Why a session may always come back.** Expiry takes *attempts* away, not the session: each attempt the
/// session held then got an outcome and with it a newer token, and nothing the session says later about the
/// old token counts. So a session that comes back (a runner that was frozen and thawed) holds no lease but of
/// what it claims from then on, and of claims it made before that were not yet read. Its further signs of life
/// must count: it confirms them and so keeps executing what it claimed; leaving them out would hand that to a
/// second runner beside it. For the same reason a claim by an expired session is no proof of death: the
/// session gets a whole lease from there, and if it is silent that long the attempt is lost then.
///
/// **Why the dispatcher is the later one to judge.** A runner counts from when it *sent* the last sign of life
/// that was confirmed, and keeps a margin; the dispatcher counts from when that sign *arrived*, and judges
/// only after it has read all that was in the log. It takes a session that it knows only from a restored
/// attempt as having given one sign just then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    live: BTreeMap<SessionId, Duration>,
    by_expiry: BTreeSet<(Duration, SessionId)>,
    expired: BTreeMap<SessionId, Duration>,
    by_forgetting: BTreeSet<(Duration, SessionId)>,
}

impl Sessions {
    /// Takes a sign of life that arrived at `now`: the session lives at least until `now` + `lease`. Never
    /// shortens a lease.
    pub fn touch(&mut self, session: &SessionId, lease: Duration, now: Duration) -> Touch {
        let expiry = now.saturating_add(lease);
        if let Some(known) = self.live.get_mut(session) {
            if *known < expiry {
                self.by_expiry.remove(&(*known, session.clone()));
                *known = expiry;
                self.by_expiry.insert((expiry, session.clone()));
            }
            return Touch::Extended;
        }
        self.live.insert(session.clone(), expiry);
        self.by_expiry.insert((expiry, session.clone()));
        match self.expired.remove(session) {
            Some(forgotten_at) => {
                self.by_forgetting.remove(&(forgotten_at, session.clone()));
                Touch::CameBack
            }
            None => Touch::Began,
        }
    }

    /// When the first lease ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        self.by_expiry.first().map(|(expiry, _)| *expiry)
    }

    /// Ends the leases that are over at `now`, and names their sessions, the longest silent first.
    pub fn expired(&mut self, now: Duration) -> Vec<SessionId> {
        self.forget(now);
        let mut ended = Vec::new();
        while let Some((expiry, session)) = self.by_expiry.first().cloned() {
            if expiry > now {
                break;
            }
            self.by_expiry.pop_first();
            self.live.remove(&session);
            let forgotten_at = now.saturating_add(REMEMBERED_FOR);
            self.expired.insert(session.clone(), forgotten_at);
            self.by_forgetting.insert((forgotten_at, session.clone()));
            ended.push(session);
        }
        ended
    }

    /// How many sessions are alive.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    fn forget(&mut self, now: Duration) {
        while let Some((at, session)) = self.by_forgetting.first().cloned() {
            if at > now && self.expired.len() <= REMEMBERED_MAX {
                break;
            }
            self.by_forgetting.pop_first();
            self.expired.remove(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Step {
        /// (session, lease in s) → what it did
        Touched(&'static str, u64, Touch),
        /// sessions that expire
        Expired(&'static [&'static str]),
    }
    use Step::{Expired, Touched};
    use Touch::{Began, CameBack, Extended};

    /// Takes each step at its second, then expects the next expiry.
    fn check(steps: &[(u64, Step)], next_expiry: Option<u64>) {
        let mut sessions = Sessions::default();
        for (second, step) in steps {
            let now = Duration::from_secs(*second);
            match step {
                Touched(session, lease, wanted) => {
                    let session: SessionId = session.parse().expect("session");
                    let touch = sessions.touch(&session, Duration::from_secs(*lease), now);
                    assert_eq!(touch, *wanted, "{session} at {second}");
                }
                Expired(wanted) => {
                    let ended: Vec<_> = sessions.expired(now).iter().map(ToString::to_string).collect();
                    assert_eq!(ended, *wanted, "at {second}");
                }
            }
        }
        assert_eq!(sessions.next_expiry(), next_expiry.map(Duration::from_secs));
        assert_eq!(sessions.live.len(), sessions.by_expiry.len());
        assert_eq!(sessions.expired.len(), sessions.by_forgetting.len());
    }

    #[test]
    fn silence_ends_a_lease_and_signs_extend_it() {
        check(&[], None);
        check(&[(0, Touched("a", 15, Began)), (14, Expired(&[])), (15, Expired(&["a"]))], None);
        check(&[(0, Touched("a", 15, Began)), (10, Touched("a", 15, Extended)), (15, Expired(&[]))], Some(25));
        check(&[(0, Touched("a", 5, Began)), (1, Touched("b", 2, Began)), (9, Expired(&["b", "a"]))], None);
    }

    #[test]
    fn a_lease_is_never_shortened() {
        check(&[(0, Touched("a", 60, Began)), (1, Touched("a", 15, Extended)), (59, Expired(&[]))], Some(60));
    }

    #[test]
    fn a_session_comes_back_with_a_whole_lease() {
        check(
            &[
                (0, Touched("a", 15, Began)),
                (20, Expired(&["a"])),
                (20, Expired(&[])),
                (21, Touched("a", 15, CameBack)),
                (22, Touched("a", 15, Extended)),
                (36, Expired(&[])),
            ],
            Some(37),
        );
    }

    #[test]
    fn expired_sessions_are_forgotten_in_time() {
        check(
            &[
                (0, Touched("a", 15, Began)),
                (20, Expired(&["a"])),
                (3621, Expired(&[])),
                (3622, Touched("a", 1, Began)),
            ],
            Some(3623),
        );
        let mut sessions = Sessions::default();
        for number in 0..=REMEMBERED_MAX + 5 {
            let session = SessionId::new(&format!("s{number}")).expect("session");
            sessions.touch(&session, LEASE_MIN, Duration::ZERO);
        }
        assert_eq!(sessions.expired(LEASE_MIN).len(), REMEMBERED_MAX + 6);
        assert!(sessions.expired(LEASE_MIN).is_empty());
        assert_eq!(sessions.expired.len(), REMEMBERED_MAX);
    }

    #[test]
    fn leases_have_bounds() {
        for (millis, wanted) in [(i64::MIN, LEASE_MIN), (0, LEASE_MIN), (15_000, LEASE_DEFAULT), (i64::MAX, LEASE_MAX)]
        {
            assert_eq!(lease_of(millis), wanted, "{millis}");
        }
    }
}
