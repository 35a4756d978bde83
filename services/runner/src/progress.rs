//! How often an attempt's progress is reported. Not here: where it is said (`executor::progress`). Invariant: at
//! most one report in each interval, and the last word is never lost.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two reports of one attempt.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What was reported, and what waits.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    reported: Option<(i32, Instant)>,
    waiting: Option<i32>,
}

impl Throttle {
    /// Takes news; answers what is to be reported at once.
    pub(crate) fn take(&mut self, percent: i32, now: Instant) -> Option<i32> {
        let is_known = self.reported.is_some_and(|(reported, _)| reported == percent);
        self.waiting = (!is_known).then_some(percent);
        self.take_due(now)
    }

    /// When what waits is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.and(self.reported).map(|(_, at)| at + REPORT_INTERVAL)
    }

    /// What waits, if it is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<i32> {
        let is_early = self.reported.is_some_and(|(_, at)| now < at + REPORT_INTERVAL);
        let percent = self.waiting.take_if(|_| !is_early)?;
        self.reported = Some((percent, now));
        Some(percent)
    }

    /// What waits at the end, due or not.
    pub(crate) fn take_last(&mut self) -> Option<i32> {
        self.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_in_a_second_and_the_last_word() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut throttle = Throttle::default();
        assert_eq!((throttle.due(), throttle.take_last()), (None, None));
        assert_eq!(throttle.take(1, at(0)), Some(1), "the first at once");
        assert_eq!(throttle.take(2, at(10)), None);
        assert_eq!(throttle.take(3, at(20)), None);
        assert_eq!((throttle.due(), throttle.take_due(at(999))), (Some(at(1000)), None));
        assert_eq!(throttle.take_due(at(1000)), Some(3));
        assert_eq!(throttle.take(3, at(5000)), None, "nothing new");
        assert_eq!(throttle.take(4, at(5000)), Some(4));
        assert_eq!(throttle.take(5, at(5001)), None);
        assert_eq!(throttle.take(4, at(5002)), None, "back at what was reported");
        assert_eq!((throttle.due(), throttle.take_last()), (None, None));
        assert_eq!(throttle.take(100, at(5003)), None);
        assert_eq!(throttle.take_last(), Some(100));
    }
}
