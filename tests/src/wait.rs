//! Waiting for a condition: the only place of the tests where a thread sleeps.
//! A test never sleeps in place of a condition; it names what it waits for and how long at most.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Asks `condition` until it gives a value, and returns that value. Panics with `what` when `deadline` passes first.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match within(deadline, condition) {
        Some(value) => value,
        None => panic!("waited {deadline:?} in vain: {what}"),
    }
}

/// Asks `condition` until it gives a value or `deadline` passes. It is asked at least once, and once more at the end,
/// so that a machine that stood still for the whole time does not look like a condition that failed.
#[allow(clippy::disallowed_methods, reason = "a test waits in real time")]
pub fn within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let is_last = start.elapsed() >= deadline;
        let answer = condition();
        if answer.is_some() || is_last {
            return answer;
        }
        thread::sleep(pause.min(deadline.saturating_sub(start.elapsed())));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Lets a fault last: nothing is waited for, the length of the fault is what the test is about.
pub fn while_it_lasts(length: Duration) {
    within(length, || None::<()>);
}

/// Drives a future that another thread completes (an admin request of a Kafka client, say) and returns its output.
/// Panics with `what` when `deadline` passes first.
#[track_caller]
pub fn future<F: Future>(what: &str, deadline: Duration, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    until(what, deadline, || match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{future, until, within};
    use std::time::Duration;

    #[test]
    fn gives_the_first_value() {
        let mut asked = 0;
        let value = until("a third question", Duration::from_secs(10), || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(value, 3);
    }

    #[test]
    fn asks_once_even_without_time() {
        assert_eq!(within(Duration::ZERO, || Some(1)), Some(1));
        assert_eq!(within::<()>(Duration::ZERO, || None), None);
    }

    #[test]
    fn drives_a_future() {
        assert_eq!(future("a value", Duration::from_secs(10), async { 4 }), 4);
    }

    #[test]
    #[should_panic(expected = "in vain: the moon")]
    fn names_what_did_not_come() {
        until::<()>("the moon", Duration::from_millis(5), || None);
    }
}
