//! Whether the wall clock can be believed: it is held against the monotonic clock. Not here: reading them, and
//! what is stopped. Invariant: a wall clock that runs ahead of all that was believed before by more than the
//! limit is believed again only when it has come back, or by a process that has seen no other.

use std::time::Duration;

use orloj_domain::time::Timestamp;

/// How far the wall clock may jump forward and still be believed, if nothing is configured.
pub const CLOCK_JUMP_MAX: Duration = Duration::from_secs(60);

/// What a look at the clocks has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockSight {
    /// Both run alike, or the wall clock was late all along.
    Sound,
    /// The wall clock has just jumped forward by this much.
    JumpedForward(Duration),
    /// It still runs ahead by this much.
    StillAhead(Duration),
    /// It ran ahead, and has come back.
    Recovered,
    /// It has just gone back by this much. What is decided stays decided: fire times wait until it has caught up.
    WentBack(Duration),
}

/// The clocks as they were believed so far.
#[derive(Debug)]
pub(super) struct ClockGuard {
    /// Wall clock minus monotonic clock, in milliseconds: the most that was believed. It does not go down with a
    /// wall clock that goes back, so that one that is put right again afterwards is no jump.
    offset_ms: i64,
    is_ahead: bool,
    is_behind: bool,
    jump_max: Duration,
}

impl ClockGuard {
    /// Believes the wall clock as it is, and jumps of at most `jump_max`.
    pub(super) fn new(wall: Timestamp, monotonic: Duration, jump_max: Duration) -> Self {
        Self { offset_ms: offset(wall, monotonic), is_ahead: false, is_behind: false, jump_max }
    }

    /// True from a jump forward until the wall clock has come back.
    pub(super) fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    /// True while the wall clock is far behind what was believed.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Looks at both clocks, read together. Jumps are what happens between two looks.
    pub(super) fn look(&mut self, wall: Timestamp, monotonic: Duration) -> ClockSight {
        let offset_ms = offset(wall, monotonic);
        let ahead = millis(offset_ms.saturating_sub(self.offset_ms));
        let behind = millis(self.offset_ms.saturating_sub(offset_ms));
        if ahead > self.jump_max {
            let was_ahead = std::mem::replace(&mut self.is_ahead, true);
            return if was_ahead { ClockSight::StillAhead(ahead) } else { ClockSight::JumpedForward(ahead) };
        }
        self.offset_ms = self.offset_ms.max(offset_ms);
        if std::mem::take(&mut self.is_ahead) {
            return ClockSight::Recovered;
        }
        let was_behind = std::mem::replace(&mut self.is_behind, behind > self.jump_max);
        if self.is_behind && !was_behind { ClockSight::WentBack(behind) } else { ClockSight::Sound }
    }
}

fn offset(wall: Timestamp, monotonic: Duration) -> i64 {
    wall.millis().saturating_sub(i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX))
}

/// Nothing if negative.
fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::ClockSight::{JumpedForward, Recovered, Sound, StillAhead, WentBack};
    use super::*;

    /// Each step: seconds on the wall clock and on the monotonic one, and what is to be seen.
    fn check(steps: &[(i64, u64, ClockSight)]) {
        let wall = |seconds: i64| Timestamp::from_millis(1_800_000_000_000 + seconds * 1000);
        let mut guard = ClockGuard::new(wall(0), Duration::from_secs(5), CLOCK_JUMP_MAX);
        for (at, (seconds, monotonic, wanted)) in steps.iter().enumerate() {
            assert_eq!(guard.look(wall(*seconds), Duration::from_secs(5 + monotonic)), *wanted, "step {at}");
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn time_that_passes_on_both_clocks_is_no_jump() {
        check(&[(1, 1, Sound), (90_000, 90_000, Sound), (90_000, 90_000, Sound)]);
    }

    #[test]
    fn a_jump_forward_is_told_once_and_ends_when_the_clock_comes_back() {
        check(&[(60, 0, Sound), (120, 0, Sound)]);
        check(&[(61, 0, JumpedForward(seconds(61))), (71, 10, StillAhead(seconds(61))), (11, 11, Recovered)]);
        check(&[(3600, 0, JumpedForward(seconds(3600))), (70, 10, Recovered), (72, 12, Sound)]);
    }

    #[test]
    fn a_clock_that_is_slewed_is_followed() {
        let steps: Vec<_> = (0..100).map(|step: u64| (step.cast_signed() * 40, step * 10, Sound)).collect();
        check(&steps);
    }

    #[test]
    fn a_jump_back_is_told_once_and_putting_it_right_is_no_jump() {
        check(&[
            (100, 100, Sound),
            (-3500, 101, WentBack(seconds(3601))),
            (-3490, 111, Sound),
            (120, 120, Sound),
            (130, 130, Sound),
            (-1000, 131, WentBack(seconds(1131))),
            (4000, 140, JumpedForward(seconds(3860))),
            (150, 150, Recovered),
        ]);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let mut guard = ClockGuard::new(Timestamp::MIN, Duration::MAX, CLOCK_JUMP_MAX);
        assert!(matches!(guard.look(Timestamp::MAX, Duration::ZERO), JumpedForward(_)));
        assert_eq!(guard.look(Timestamp::MIN, Duration::MAX), Recovered);
    }
}
