//! The attempts in flight and the words that reach them: stop, start, ended elsewhere. Not here: where words come from (`inbox`, `board`).
//! Invariant: a word that comes before its attempt is entered is not lost, and each attempt is told each word at most once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use orloj_domain::attempt::Outcome;
use orloj_domain::id::{RunId, SessionId};
use tokio::sync::oneshot;

use crate::board::Session;
use crate::executor::process::Abort;

/// Words kept for attempts that are not entered: the claim of one is in the log a moment before it is, and words about
/// attempts that have ended are kept in vain until others take their place.
const EARLY_WORDS_MAX: usize = 1024;

/// An attempt as the dispatcher names it to its runner: the run and the fencing token.
pub(crate) type AttemptKey = (RunId, i64);

/// What an attempt is told.
#[derive(Debug, Clone)]
pub(crate) enum Word {
    /// It may start.
    Start,
    /// It must stop, or not start.
    Stop(Abort),
    /// Its callback has said how it ended.
    Complete(Outcome),
}

/// An attempt that was entered: what tells it to stop and to start.
#[derive(Debug)]
pub(crate) struct Entered {
    /// Names it for [`Flights::leave`].
    pub(crate) number: u64,
    /// Why it is to stop.
    pub(crate) stop: oneshot::Receiver<Abort>,
    /// It may start.
    pub(crate) start: oneshot::Receiver<()>,
    /// How it ended, as its callback says.
    pub(crate) completed: oneshot::Receiver<Outcome>,
}

struct Flight {
    key: AttemptKey,
    session: Arc<Session>,
    stop: oneshot::Sender<Abort>,
    start: Option<oneshot::Sender<()>>,
    complete: Option<oneshot::Sender<Outcome>>,
}

/// The attempts in flight.
#[derive(Default)]
pub(crate) struct Flights {
    flights: BTreeMap<u64, Flight>,
    next: u64,
    early: VecDeque<(AttemptKey, Word)>,
    /// Set once every attempt is to stop; for those that are entered later.
    stop: Option<Abort>,
}

impl Flights {
    /// Enters an attempt; words that came before reach it at once.
    pub(crate) fn enter(&mut self, session: &Arc<Session>, key: AttemptKey) -> Entered {
        let ((stop, is_stopped), (start, is_started)) = (oneshot::channel(), oneshot::channel());
        let (complete, completed) = oneshot::channel();
        self.next += 1;
        let number = self.next;
        let session = Arc::clone(session);
        let flight = Flight { key, session, stop, start: Some(start), complete: Some(complete) };
        self.flights.insert(number, flight);
        if let Some(abort) = self.stop.clone() {
            self.tell(number, Word::Stop(abort));
        }
        let (mine, others) = std::mem::take(&mut self.early).into_iter().partition(|(of, _)| *of == key);
        self.early = others;
        let mine: VecDeque<(AttemptKey, Word)> = mine;
        for (_, word) in mine {
            self.tell(number, word);
        }
        Entered { number, stop: is_stopped, start: is_started, completed }
    }

    /// Takes an attempt off the list.
    pub(crate) fn leave(&mut self, number: u64) {
        self.flights.remove(&number);
    }

    /// Hands a word to its attempt, now or when it is entered.
    pub(crate) fn hear(&mut self, key: AttemptKey, word: Word) {
        let number = self.flights.iter().find(|(_, flight)| flight.key == key).map(|(number, _)| *number);
        match number {
            Some(number) => self.tell(number, word),
            None => {
                if self.early.len() >= EARLY_WORDS_MAX {
                    self.early.pop_front();
                }
                self.early.push_back((key, word));
            }
        }
    }

    /// Stops the attempts of a session; how many.
    pub(crate) fn stop_session(&mut self, session: &SessionId, abort: &Abort) -> usize {
        let of_session = self.flights.iter().filter(|(_, flight)| flight.session.id == *session);
        let numbers: Vec<u64> = of_session.map(|(number, _)| *number).collect();
        for number in &numbers {
            self.tell(*number, Word::Stop(abort.clone()));
        }
        numbers.len()
    }

    /// Stops all attempts, those entered from now on too.
    pub(crate) fn stop_all(&mut self, abort: &Abort) {
        self.stop = Some(abort.clone());
        let all: Vec<u64> = self.flights.keys().copied().collect();
        for number in all {
            self.tell(number, Word::Stop(abort.clone()));
        }
    }

    /// An attempt that just ended does not listen any more.
    fn tell(&mut self, number: u64, word: Word) {
        match word {
            Word::Start => {
                if let Some(start) = self.flights.get_mut(&number).and_then(|flight| flight.start.take()) {
                    let _ = start.send(());
                }
            }
            Word::Complete(outcome) => {
                if let Some(complete) = self.flights.get_mut(&number).and_then(|flight| flight.complete.take()) {
                    let _ = complete.send(outcome);
                }
            }
            Word::Stop(abort) => {
                if let Some(flight) = self.flights.remove(&number) {
                    let _ = flight.stop.send(abort);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orloj_domain::attempt::OutcomeKind;
    use orloj_domain::id::JobId;
    use orloj_domain::time::Timestamp;

    use super::*;

    fn key(token: i64) -> AttemptKey {
        let job: JobId = "a/b".parse().expect("job");
        (RunId::of_fire_time(&job, 1, Timestamp::MIN), token)
    }

    fn abort(reason: &str) -> Abort {
        Abort { kind: OutcomeKind::Cancelled, reason: reason.to_owned(), grace: Duration::ZERO }
    }

    #[test]
    fn words_reach_attempts_whenever_they_come() {
        let session = Arc::new(Session::new(Timestamp::MIN));
        let mut flights = Flights::default();
        flights.hear(key(1), Word::Start);
        flights.hear(key(2), Word::Stop(abort("early")));
        let mut first = flights.enter(&session, key(1));
        assert!(first.start.try_recv().is_ok() && first.stop.try_recv().is_err());
        let mut second = flights.enter(&session, key(2));
        assert_eq!(second.stop.try_recv().expect("told").reason, "early");
        let mut third = flights.enter(&session, key(3));
        assert!(third.start.try_recv().is_err() && third.stop.try_recv().is_err());
        flights.hear(key(3), Word::Start);
        assert!(third.start.try_recv().is_ok());
        flights.hear(key(3), Word::Stop(abort("now")));
        assert_eq!(third.stop.try_recv().expect("told").reason, "now");
        for message in ["once", "twice"] {
            flights.hear(key(1), Word::Complete(Outcome::new(OutcomeKind::Succeeded, message)));
        }
        assert_eq!(first.completed.try_recv().expect("told").message.as_deref(), Some("once"));
        assert_eq!(flights.stop_session(&session.id, &abort("lost")), 1, "the first is left");
        assert_eq!(first.stop.try_recv().expect("told").reason, "lost");
        flights.leave(first.number);
        flights.stop_all(&abort("all"));
        assert_eq!(flights.enter(&session, key(4)).stop.try_recv().expect("told").reason, "all");
    }

    #[test]
    fn words_to_nobody_do_not_pile_up() {
        let mut flights = Flights::default();
        for token in 0..5000 {
            flights.hear(key(token), Word::Start);
        }
        assert_eq!(flights.early.len(), EARLY_WORDS_MAX);
        let session = Arc::new(Session::new(Timestamp::MIN));
        assert!(flights.enter(&session, key(4999)).start.try_recv().is_ok());
        assert_eq!(flights.early.len(), EARLY_WORDS_MAX - 1);
    }
}
