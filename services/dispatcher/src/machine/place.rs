//! Runs that ask for a runner with labels: whom each is offered to, and what becomes of offers that nobody takes. Not here: which
//! runners there are (`orloj_domain::fleet`), the steps themselves (`offer`). Invariant: a run is offered only to an open session that
//! serves its queue and has its labels, to one at a time; it waits only while each of those has as many runs of this shard as slots.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::fleet::{Fleet, Member};
use orloj_domain::id::SessionId;
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::Event;
use crate::run::Run;

/// How long a run that holds limits stays with a runner that does not take it, while another has room.
const HELD_WAIT: Duration = Duration::from_secs(300);
/// Most runs placed by one tick; if more can be, the next one is at once.
const PLACED_MAX: usize = 1000;

/// An open session, and how many runs of this shard it holds or is offered.
pub(super) struct Room<'a> {
    session: &'a SessionId,
    member: &'a Member,
    load: usize,
}

/// The open sessions, in order.
pub(super) type Rooms<'a> = Vec<Room<'a>>;

impl Room<'_> {
    fn is_free(&self) -> bool {
        self.load < self.member.slots
    }

    fn serves(&self, run: &Run) -> bool {
        self.member.serves(&run.request.queue, &run.request.runner_labels)
    }

    /// By how full it is.
    fn cmp_load(&self, other: &Self) -> Ordering {
        (self.load * other.member.slots).cmp(&(other.load * self.member.slots))
    }
}

impl DispatcherMachine {
    /// None where nobody asks for one.
    pub(super) fn rooms_if_asked(&self) -> Rooms<'_> {
        let is_asked = self.index.addressees().next().is_some() || self.index.unplaced().next().is_some();
        if is_asked { self.rooms() } else { Rooms::new() }
    }

    fn rooms(&self) -> Rooms<'_> {
        let room = |(session, member)| Room { session, member, load: self.index.load(session) };
        self.fleet.open().map(room).collect()
    }

    /// True if a run waits for a runner although one has room for it.
    pub(super) fn can_place(&self) -> bool {
        if self.index.unplaced().next().is_none() {
            return false;
        }
        let mut rooms = self.rooms();
        rooms.retain(Room::is_free);
        let has_room = |(queue, labels, _)| rooms.iter().any(|room| room.member.serves(queue, labels));
        self.index.unplaced().any(has_room)
    }

    /// Other runners, or other than they were. What was offered to a session that takes no more is taken back.
    pub(super) fn decide_fleet(&self, fleet: &Arc<Fleet>, now: Timestamp) -> Vec<Event> {
        let closed = self.index.addressees().filter(|session| fleet.is_closed(session));
        let mut events: Vec<Event> = closed.flat_map(|session| self.take_back(session, now)).collect();
        events.push(Event::FleetTaken(Arc::clone(fleet)));
        events
    }

    /// All that a session was offered and has not claimed waits for another.
    pub(super) fn take_back(&self, session: &SessionId, now: Timestamp) -> impl Iterator<Item = Event> {
        let offered = self.index.offered_to(session).filter_map(|id| self.runs.get(id));
        offered.map(move |run| self.step(&run, run.unplaced(now)))
    }

    /// Places runs while there is room for them, the first in line first, whatever labels it asks for.
    pub(super) fn decide_places(&self, mut rooms: Rooms<'_>, now: Timestamp) -> Vec<Event> {
        let groups = self.index.unplaced();
        let mut lines: Vec<_> = groups.map(|(queue, labels, runs)| (queue, labels, runs.iter().peekable())).collect();
        let mut events = Vec::new();
        while events.len() < PLACED_MAX {
            lines.retain(|(queue, labels, _)| {
                rooms.iter().any(|room| room.is_free() && room.member.serves(queue, labels))
            });
            // Lines that are at their end are left out first.
            lines.retain_mut(|(_, _, line)| line.peek().is_some());
            let heads = lines.iter_mut().map(|(_, _, line)| line.peek().copied());
            let Some((_, first)) = heads.enumerate().map(|(index, head)| (head, index)).min() else { break };
            let Some((_, _, id)) = lines[first].2.next() else { break };
            let Some(run) = self.runs.get(*id) else { continue };
            // The end of what is too late is decided by this same tick.
            if run.deadline().is_some_and(|deadline| deadline <= now) {
                continue;
            }
            let limits = self.limits_of(&run);
            let next = if limits.is_empty() { offer(&run, &mut rooms, now, |_| true) } else { None };
            events.push(self.step(&run, next.unwrap_or_else(|| run.asking(limits, now))));
        }
        events
    }

    /// A run has got all of its limits: it is ready, or offered to whom it asks for, even if they are busy: the limits bound how
    /// many these are. If nobody is left it waits for one, without its limits.
    pub(super) fn let_go(&self, run: &Run, now: Timestamp) -> Run {
        if run.request.runner_labels.is_empty() {
            return run.made_ready(now);
        }
        offer(run, &mut self.rooms(), now, |_| true).unwrap_or_else(|| run.unplaced(now))
    }

    /// Nobody has taken an offer for a while: another runner with room is told, or the same once more, as what was said may have
    /// been lost. Limits are held for this token: who holds some moves later, as it has to ask for them again.
    pub(super) fn offer_again(&self, run: &Run, rooms: &mut Rooms<'_>, now: Timestamp) -> Run {
        let is_other = |room: &Room<'_>| room.is_free() && Some(room.session) != run.addressee();
        if run.limits.is_empty() {
            return offer(run, rooms, now, is_other).unwrap_or_else(|| run.told_again(now));
        }
        let is_patient = now < run.since.plus(HELD_WAIT);
        let is_another = |room: &Room<'_>| is_other(room) && room.serves(run);
        if is_patient || !rooms.iter().any(is_another) { run.told_again(now) } else { run.unplaced(now) }
    }

    /// Adds what is said to runners whose offers come to nothing by `events`.
    pub(super) fn withdraw(&self, events: &mut Vec<Event>) {
        if self.index.addressees().next().is_none() {
            return;
        }
        let withdrawn = |event: &Event| {
            let before = match event {
                Event::Stepped { run, .. } => self.runs.get(run.request.run_id).filter(|from| !from.is_same_offer(run)),
                Event::Ended(ended) => self.runs.get(ended.request.run_id),
                Event::Disowned(..)
                | Event::NotRedriven { .. }
                | Event::CancelKept(..)
                | Event::CancelDropped(_)
                | Event::Parked { .. }
                | Event::Forgotten(..)
                | Event::LimitJoined(..)
                | Event::LimitHeld { .. }
                | Event::LimitFree(..)
                | Event::LimitDeclined(..)
                | Event::LimitTurned { .. }
                | Event::LimitRulesTaken(_)
                | Event::FleetTaken(_)
                | Event::Withdrawn(_)
                | Event::Ignored(_) => None,
            };
            before?.offer().map(Event::Withdrawn)
        };
        let withdrawn: Vec<Event> = events.iter().filter_map(withdrawn).collect();
        events.extend(withdrawn);
    }
}

/// The run, offered to the session with the most room of those that serve it; `None` if there is none.
fn offer(run: &Run, rooms: &mut Rooms<'_>, now: Timestamp, is_wanted: impl Fn(&Room<'_>) -> bool) -> Option<Run> {
    let serving: Vec<usize> =
        (0..rooms.len()).filter(|index| rooms[*index].serves(run) && is_wanted(&rooms[*index])).collect();
    let least = serving.iter().copied().min_by(|one, other| rooms[*one].cmp_load(&rooms[*other]))?;
    let equal: Vec<usize> =
        serving.into_iter().filter(|index| rooms[*index].cmp_load(&rooms[least]) == Ordering::Equal).collect();
    // Shards know nothing of each other: without chance, all of them would begin with the same one.
    let place = run.request.run_id.hash64() % u64::try_from(equal.len()).unwrap_or(1).max(1);
    let room = &mut rooms[equal[usize::try_from(place).unwrap_or(0)]];
    room.load += 1;
    Some(run.offered(room.member.runner.clone(), room.session.clone(), now))
}
