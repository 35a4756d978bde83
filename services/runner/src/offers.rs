//! Attempts that the dispatcher has offered to this runner and that wait for a slot, queue by queue. Not here: reading them
//! (`inbox`), claiming them (`claim`). Invariant: of one run only the newest offer is kept, and none is handed out twice under one token.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orloj_domain::attempt::ReadyAttempt;
use orloj_domain::id::{RunId, SessionId};
use orloj_domain::job::RunSpec;
use orloj_runtime::log::Waker;

use crate::attempt::Work;
use crate::flight::AttemptKey;

/// Most offers kept; the dispatcher offers a shard's runs up to the slots of this runner, and says again what was dropped.
const OFFERS_MAX: usize = 4096;
/// Runs of which it is remembered that they were handed out: an offer may be repeated just before its claim is seen.
const TAKEN_MAX: usize = 4096;

/// An attempt for this runner alone.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) session: SessionId,
    pub(crate) ready: ReadyAttempt,
    /// What to run, or why that is not known.
    pub(crate) work: Result<Box<Work>, String>,
    /// Its claim may be in the log already: it must not be dropped.
    pub(crate) is_doubtful: bool,
}

impl Offer {
    fn key(&self) -> AttemptKey {
        (self.ready.run_id, self.ready.token)
    }

    /// What it runs.
    pub(crate) fn spec(&self) -> Option<&RunSpec> {
        self.work.as_deref().ok().map(|work| &*work.spec)
    }
}

#[derive(Default)]
struct State {
    /// By the places of the queues in the configuration.
    lanes: BTreeMap<usize, VecDeque<Offer>>,
    /// The newest token of a run that was handed out.
    taken: BTreeMap<RunId, i64>,
    taken_order: VecDeque<AttemptKey>,
    wakers: BTreeMap<usize, Waker>,
}

/// Offers that wait for a slot.
#[derive(Default)]
pub(crate) struct Offers(Mutex<State>);

impl Offers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes `waker` when something is offered for a queue; replaces the one before.
    pub(crate) fn on_offer(&self, lane: usize, waker: Waker) {
        self.lock().wakers.insert(lane, waker);
    }

    /// Keeps an offer, in the place of an older one of its run; one that was handed out before is left out.
    pub(crate) fn put(&self, lane: usize, offer: Offer) {
        let mut state = self.lock();
        let (run, token) = offer.key();
        if state.taken.get(&run).is_some_and(|taken| *taken >= token) {
            return;
        }
        let count: usize = state.lanes.values().map(VecDeque::len).sum();
        let waiting = state.lanes.entry(lane).or_default();
        match waiting.iter_mut().find(|kept| kept.ready.run_id == run) {
            Some(kept) if kept.ready.token >= token => {}
            Some(kept) => *kept = offer,
            None if count >= OFFERS_MAX => {
                tracing::warn!(%run, "more is offered to this runner than it keeps; the dispatcher will say so again");
            }
            None => waiting.push_back(offer),
        }
        let waker = state.wakers.get(&lane).cloned();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops an offer; false if there is none, or if it is claimed perhaps.
    pub(crate) fn withdraw(&self, (run, token): AttemptKey) -> bool {
        let mut state = self.lock();
        let mut is_dropped = false;
        for waiting in state.lanes.values_mut() {
            waiting.retain(|offer| {
                let is_it = offer.key() == (run, token) && !offer.is_doubtful;
                is_dropped |= is_it;
                !is_it
            });
        }
        is_dropped
    }

    /// How many of a queue wait.
    pub(crate) fn at_hand(&self, lane: usize) -> usize {
        self.lock().lanes.get(&lane).map_or(0, VecDeque::len)
    }

    /// At most `count` of a queue, the oldest first; those to another session than `session` are dropped.
    pub(crate) fn take(&self, lane: usize, session: &SessionId, count: usize) -> Vec<Offer> {
        let mut state = self.lock();
        let Some(waiting) = state.lanes.get_mut(&lane) else { return Vec::new() };
        waiting.retain(|offer| offer.session == *session);
        let offers: Vec<Offer> = waiting.drain(..count.min(waiting.len())).collect();
        for (run, token) in offers.iter().map(Offer::key) {
            state.taken.insert(run, token);
            state.taken_order.push_back((run, token));
        }
        while state.taken_order.len() > TAKEN_MAX {
            let Some((run, token)) = state.taken_order.pop_front() else { break };
            if state.taken.get(&run) == Some(&token) {
                state.taken.remove(&run);
            }
        }
        offers
    }

    /// Puts offers back that could not be claimed, before the others.
    pub(crate) fn put_back(&self, lane: usize, offers: Vec<Offer>) {
        let mut state = self.lock();
        for offer in offers.into_iter().rev() {
            let (run, token) = offer.key();
            let waiting = state.lanes.entry(lane).or_default();
            // A newer one has come meanwhile.
            if waiting.iter().any(|kept| kept.ready.run_id == run) && !offer.is_doubtful {
                continue;
            }
            waiting.push_front(offer);
            if state.taken.get(&run) == Some(&token) {
                state.taken.remove(&run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use orloj_domain::id::JobId;
    use orloj_domain::time::Timestamp;

    use super::*;

    fn offer(number: i64, token: i64, session: &str) -> Offer {
        let job: JobId = "a/b".parse().expect("job");
        let ready = ReadyAttempt {
            run_id: RunId::of_fire_time(&job, 1, Timestamp::from_millis(number)),
            job,
            attempt: 1,
            token,
            ready_at: Timestamp::MIN,
            request: Vec::new(),
            deadline: None,
            awaits_start: true,
        };
        let session = session.parse().expect("session");
        Offer { session, ready, work: Err("a test".to_owned()), is_doubtful: false }
    }

    fn tokens(offers: &[Offer]) -> Vec<i64> {
        offers.iter().map(|offer| offer.ready.token).collect()
    }

    fn take(offers: &Offers, count: usize) -> Vec<Offer> {
        offers.take(0, &"s".parse().expect("session"), count)
    }

    #[test]
    fn an_offer_is_handed_out_once_and_a_newer_one_takes_its_place() {
        let offers = Offers::default();
        for (number, token) in [(1, 1), (2, 1), (1, 1), (1, 3), (1, 2)] {
            offers.put(0, offer(number, token, "s"));
        }
        assert_eq!(offers.at_hand(0), 2);
        assert_eq!(tokens(&take(&offers, 1)), [3], "in the place of the older one");
        offers.put(0, offer(1, 3, "s"));
        offers.put(0, offer(1, 2, "s"));
        assert_eq!(tokens(&take(&offers, 9)), [1]);
        offers.put(0, offer(1, 4, "s"));
        assert_eq!(tokens(&take(&offers, 9)), [4]);
    }

    #[test]
    fn what_was_offered_to_another_session_is_dropped() {
        let offers = Offers::default();
        offers.put(0, offer(1, 1, "before"));
        offers.put(0, offer(2, 2, "s"));
        assert_eq!(tokens(&take(&offers, 9)), [2]);
        assert_eq!(offers.at_hand(0), 0);
    }

    #[test]
    fn what_is_withdrawn_is_dropped_unless_it_may_be_claimed() {
        let offers = Offers::default();
        offers.put(0, offer(1, 1, "s"));
        let key = offer(1, 1, "s").key();
        assert!(!offers.withdraw((key.0, 2)) && offers.withdraw(key) && !offers.withdraw(key));
        offers.put(0, offer(1, 2, "s"));
        let mut taken = take(&offers, 1);
        taken.iter_mut().for_each(|offer| offer.is_doubtful = true);
        offers.put_back(0, taken);
        assert!(!offers.withdraw((key.0, 2)));
        assert_eq!(tokens(&take(&offers, 1)), [2]);
    }

    #[test]
    fn what_could_not_be_claimed_comes_again_first() {
        let offers = Offers::default();
        (1..=3).for_each(|number| offers.put(0, offer(number, number, "s")));
        let taken = take(&offers, 2);
        offers.put_back(0, taken);
        assert_eq!(tokens(&take(&offers, 1)), [1]);
        assert_eq!(tokens(&take(&offers, 9)), [2, 3]);
    }

    #[test]
    fn neither_offers_nor_memories_pile_up_and_their_thread_is_woken() {
        let (offers, rings) = (Offers::default(), Arc::new(AtomicUsize::new(0)));
        let ring = Arc::clone(&rings);
        offers.on_offer(
            0,
            Waker::new(move || {
                ring.fetch_add(1, Ordering::SeqCst);
            }),
        );
        let max = i64::try_from(OFFERS_MAX).expect("small");
        (0..2 * max).for_each(|number| offers.put(0, offer(number, 1, "s")));
        assert_eq!((offers.at_hand(0), offers.at_hand(1)), (OFFERS_MAX, 0));
        assert!(rings.load(Ordering::SeqCst) >= OFFERS_MAX);
        take(&offers, OFFERS_MAX);
        (max..3 * max).for_each(|number| offers.put(0, offer(number, 1, "s")));
        take(&offers, OFFERS_MAX);
        let state = offers.lock();
        assert_eq!((state.taken.len(), state.taken_order.len()), (TAKEN_MAX, TAKEN_MAX));
    }
}
