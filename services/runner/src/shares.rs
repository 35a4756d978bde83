//! Who gets the slots that are free, where a runner has several queues: smooth weighted round robin among those that have
//! attempts at hand. Not here: slots and leases (`board`), taking attempts (`claim`). Invariant: no slot waits for a
//! queue with nothing at hand, and while several have some, each gets slots as its weight is to that of all of them; a slot
//! that came to nothing was never given.

/// The shares of all queues of a runner; queues are named by their place in the configuration.
#[derive(Debug)]
pub(crate) struct Shares {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    weight: i64,
    /// What it has not had of its part yet; below zero: what it has had before the others.
    credit: i64,
    /// Attempts at hand.
    wanted: usize,
    /// Slots that are kept for them; at most as many.
    grants: Vec<Grant>,
    /// Slots that it has taken for a claim of which the outcome is not known yet.
    claiming: Vec<Grant>,
    /// It can't use slots just now, and none are kept for it. It gains as if it could.
    is_away: bool,
}

/// One slot for a queue: which queues gained their weight by it. It paid for all of them, and they give it back if the slot
/// comes to nothing.
type Grant = Box<[usize]>;

impl Lane {
    fn wants_more(&self) -> bool {
        self.grants.len() < self.wanted
    }
}

impl Shares {
    /// Of as many queues as there are `weights`, which are 1 or more.
    pub(crate) fn new(weights: &[u16]) -> Self {
        let lane = |weight: &u16| Lane {
            weight: i64::from(*weight).max(1),
            credit: 0,
            wanted: 0,
            grants: Vec::new(),
            claiming: Vec::new(),
            is_away: false,
        };
        Self { lanes: weights.iter().map(lane).collect() }
    }

    /// True if there is anybody to share with.
    pub(crate) fn has_rivals(&self) -> bool {
        self.lanes.len() > 1
    }

    /// Slots kept for anybody.
    pub(crate) fn granted(&self) -> usize {
        self.lanes.iter().map(|lane| lane.grants.len()).sum()
    }

    /// A queue that can use slots has so many attempts at hand; slots that it keeps for more than those are free again.
    pub(crate) fn want(&mut self, lane: usize, wanted: usize) {
        self.lanes[lane].wanted = wanted;
        self.lanes[lane].is_away = false;
        self.take_back(lane, wanted);
    }

    /// A queue can't use slots until it wants some again: those kept for it are free. What it misses meanwhile it gets
    /// afterwards, but not for more attempts than it has at hand now.
    pub(crate) fn send_away(&mut self, lane: usize) {
        self.lanes[lane].is_away = true;
        self.take_back(lane, 0);
    }

    /// Keeps free slots for those whose turn it is; answers how many were kept.
    pub(crate) fn share(&mut self, free: usize) -> usize {
        (0..free).take_while(|_| self.grant()).count()
    }

    /// Slots that are kept for a queue.
    pub(crate) fn granted_to(&self, lane: usize) -> usize {
        self.lanes[lane].grants.len()
    }

    /// Hands out at most `wanted` slots of those kept for a queue, for one claim; how many. `settle` says what came of it.
    pub(crate) fn take(&mut self, lane: usize, wanted: usize) -> usize {
        let lane = &mut self.lanes[lane];
        let taken = wanted.min(lane.grants.len());
        lane.claiming.extend(lane.grants.drain(..taken));
        lane.wanted -= taken;
        taken
    }

    /// The claim of a queue has ended: was it made? If not, its slots are as if they had never been given.
    pub(crate) fn settle(&mut self, lane: usize, is_claimed: bool) {
        let grants = std::mem::take(&mut self.lanes[lane].claiming);
        if !is_claimed {
            grants.iter().for_each(|grant| self.undo(lane, grant));
        }
    }

    /// Leaves a queue no more than `rest` of the slots kept for it.
    fn take_back(&mut self, lane: usize, rest: usize) {
        while self.lanes[lane].grants.len() > rest {
            if let Some(grant) = self.lanes[lane].grants.pop() {
                self.undo(lane, &grant);
            }
        }
    }

    fn undo(&mut self, lane: usize, grant: &Grant) {
        for gained in grant {
            let weight = self.lanes[*gained].weight;
            self.lanes[*gained].credit -= weight;
            self.lanes[lane].credit += weight;
        }
    }

    /// One slot for whoever is next: all who want one gain their weight, and who has most of those that can use it pays for
    /// all.
    fn grant(&mut self) -> bool {
        let total: i64 = self.lanes.iter().filter(|lane| lane.wants_more()).map(|lane| lane.weight).sum();
        let gains = |lane: &Lane| {
            // A slot that it missed is worth `total`.
            let missed_max = total.saturating_mul(i64::try_from(lane.wanted).unwrap_or(i64::MAX));
            lane.wants_more() && (!lane.is_away || lane.credit < missed_max)
        };
        let gained: Grant = (0..self.lanes.len()).filter(|lane| gains(&self.lanes[*lane])).collect();
        let able = gained.iter().copied().filter(|lane| !self.lanes[*lane].is_away);
        // The last of equals: which one is of no matter, as long as it is always the same.
        let credit_then = |lane: &usize| self.lanes[*lane].credit + self.lanes[*lane].weight;
        let Some(next) = able.max_by_key(credit_then) else { return false };
        for lane in &gained {
            let weight = self.lanes[*lane].weight;
            self.lanes[*lane].credit += weight;
            self.lanes[next].credit -= weight;
        }
        self.lanes[next].grants.push(gained);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues that have attempts ready, and attempts that run: as the runner's threads would, one slot after the other.
    struct Model {
        shares: Shares,
        ready: Vec<usize>,
        served: Vec<usize>,
    }

    impl Model {
        fn new(weights: &[u16], ready: &[usize]) -> Self {
            Self { shares: Shares::new(weights), ready: ready.to_vec(), served: vec![0; weights.len()] }
        }

        /// So many slots become free, `at_once` each time, and are taken; in which order.
        fn serve(&mut self, slots: usize, at_once: usize) -> Vec<usize> {
            let mut order = Vec::new();
            while order.len() < slots {
                for (lane, ready) in self.ready.iter().enumerate() {
                    self.shares.want(lane, *ready);
                }
                let kept = self.shares.share(at_once.min(slots - order.len()));
                assert_eq!(
                    kept,
                    at_once.min(slots - order.len()).min(self.ready.iter().sum()),
                    "a slot waits for nobody"
                );
                assert_eq!(self.shares.granted(), kept);
                for lane in 0..self.ready.len() {
                    let taken = self.shares.take(lane, usize::MAX);
                    self.shares.settle(lane, true);
                    self.ready[lane] -= taken;
                    self.served[lane] += taken;
                    order.extend(std::iter::repeat_n(lane, taken));
                }
                if kept == 0 {
                    break;
                }
            }
            assert_eq!(self.shares.granted(), 0);
            order
        }
    }

    #[test]
    fn slots_are_shared_by_weight_whatever_comes_at_once() {
        for at_once in [1, 3, 7, 40] {
            for weights in [&[1, 1][..], &[3, 1], &[1, 3], &[5, 2, 1], &[1000, 1], &[10, 10, 1, 1]] {
                let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
                let mut model = Model::new(weights, &vec![100_000; weights.len()]);
                model.serve(total * 20, at_once);
                let expected: Vec<usize> = weights.iter().map(|weight| usize::from(*weight) * 20).collect();
                assert_eq!(model.served, expected, "{weights:?}, {at_once} at once");
            }
        }
    }

    #[test]
    fn a_light_queue_comes_between_and_is_never_left_out() {
        let order = Model::new(&[3, 1], &[100, 100]).serve(16, 1);
        for window in order.windows(4) {
            assert_eq!(window.iter().filter(|lane| **lane == 1).count(), 1, "{order:?}");
        }
    }

    #[test]
    fn what_one_does_not_use_the_others_get() {
        let mut model = Model::new(&[3, 1, 1], &[0, 50, 50]);
        model.serve(40, 4);
        assert_eq!(model.served, [0, 20, 20]);
        model.ready = vec![2, 0, 100];
        model.serve(10, 1);
        assert_eq!(model.served, [2, 20, 28], "the first has no more than two");
        assert_eq!(Model::new(&[3, 1], &[0, 0]).serve(5, 5), Vec::<usize>::new());
    }

    /// Who has been away for long has saved nothing up, and owes nothing.
    #[test]
    fn who_comes_back_gets_its_part_and_no_more() {
        let mut model = Model::new(&[1, 1], &[10_000, 0]);
        model.serve(1000, 3);
        model.ready[1] = 10_000;
        let order = model.serve(20, 1);
        assert_eq!(order.iter().filter(|lane| **lane == 1).count(), 10, "{order:?}");
    }

    #[test]
    fn slots_that_are_not_used_are_given_back() {
        let mut shares = Shares::new(&[1, 1]);
        shares.want(0, 5);
        assert_eq!(shares.share(4), 4);
        shares.want(1, 2);
        assert_eq!(shares.share(0), 0);
        shares.want(0, 1);
        assert_eq!((shares.granted_to(0), shares.granted()), (1, 1), "its records went to another member");
        assert_eq!(shares.share(3), 2);
        assert_eq!((shares.take(1, 1), shares.granted_to(1)), (1, 1));
        assert_eq!(shares.take(0, 9), 1);
    }

    /// What is kept or taken for a claim and comes to nothing costs nothing: the next slots make up for it.
    #[test]
    fn slots_that_came_to_nothing_are_not_charged() {
        for is_refused in [true, false] {
            let mut shares = Shares::new(&[3, 1]);
            shares.want(0, 100);
            shares.want(1, 100);
            assert_eq!(shares.share(40), 40);
            assert_eq!((shares.take(0, 100), shares.granted_to(1)), (30, 10));
            shares.settle(0, true);
            if is_refused {
                assert_eq!(shares.take(1, 100), 10);
                shares.settle(1, false);
            }
            // What it had at hand went to another member; then it has some again.
            shares.want(1, 0);
            assert_eq!(shares.granted(), 0);
            shares.want(1, 100);
            assert_eq!(shares.share(10), 10);
            assert_eq!((shares.granted_to(0), shares.granted_to(1)), (0, 10), "refused: {is_refused}");
            assert_eq!(shares.share(40), 40);
            assert_eq!((shares.granted_to(0), shares.granted_to(1)), (30, 20), "then as ever");
        }
    }

    /// While a queue is away the others get all slots; afterwards it gets what it missed, for what it had at hand.
    #[test]
    fn nothing_is_kept_for_who_is_away() {
        let mut shares = Shares::new(&[1, 1]);
        shares.want(0, 4);
        shares.want(1, 1000);
        assert_eq!((shares.share(2), shares.granted_to(0)), (2, 1));
        shares.send_away(0);
        assert_eq!((shares.granted_to(0), shares.share(7)), (0, 7));
        assert_eq!(shares.granted_to(1), 8, "all of them");
        shares.want(0, 4);
        assert_eq!((shares.share(4), shares.granted_to(0)), (4, 4), "it missed four");
        shares.take(0, 4);
        shares.settle(0, true);

        shares.want(0, 4);
        shares.send_away(0);
        assert_eq!(shares.share(900), 900);
        shares.want(0, 1000);
        assert_eq!(shares.share(20), 20);
        assert_eq!(shares.granted_to(0), 14, "half, and the four it could have had");
    }
}
