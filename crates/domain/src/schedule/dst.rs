//! From civil time to real instants: gaps, folds, and clocks that only sometimes move by an hour.
//!
//! A zone is a chain of segments with a constant offset. Within one, civil and real time run alike; every rule about
//! clock changes is applied where two segments meet. Not here: fields and dates (`civil.rs`).
//! Invariant: answers are strictly after the question and strictly increasing, in every zone.

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::civil::{CivilMatcher, CivilSeconds};
use super::{Fold, Gap};

/// No zone is farther from UTC, and no clock change is larger, than this. Three days leave room for both.
const JUMP_MARGIN_SECONDS: i64 = 3 * 86_400;
/// Far more segments than any zone has until 2100; a bound on the walk, never met.
const SEGMENTS_MAX: usize = 4096;

/// How an expression treats clock changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ClockChange {
    /// Fires at every real instant whose wall-clock time matches.
    Follow,
    /// Names fixed wall-clock times, which a gap swallows and a fold repeats.
    Fixed { gap: Gap, fold: Fold },
}

/// What a clock change has to do with a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClockEffect {
    /// Nothing: the wall-clock time is one that the rule names, and it comes once.
    None,
    /// The time that the rule names was left out; this is the instant at which the gap ended.
    ShiftedFromGap,
    /// The wall-clock time comes twice; this is the first.
    FirstPass,
    /// The wall-clock time comes twice; this is the second.
    SecondPass,
}

/// A question: the first fire of `matcher` in `zone`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) matcher: &'a CivilMatcher,
    pub(super) zone: &'a TimeZone,
    pub(super) clock_change: ClockChange,
}

/// The part of a segment still to be searched: instants after `lower`, before `end`.
#[derive(Debug, Clone, Copy)]
struct Segment {
    lower: i64,
    offset: i64,
    end: Option<Meeting>,
}

/// Where a segment ends and the next one begins.
#[derive(Debug, Clone, Copy)]
struct Meeting {
    at: i64,
    next_offset: i64,
}

/// What a search of one segment found.
enum Found {
    /// The instant.
    Fire(i64),
    /// Nothing in this segment; the first match after it on its own wall clock, if any.
    Beyond(Option<CivilSeconds>),
    /// A match that counts in the next segment, where the same wall-clock times come again.
    SecondPass,
}

impl Walk<'_> {
    /// The first fire strictly after the second `after`, in seconds since the epoch.
    pub(super) fn next_after(&self, after: i64) -> Option<i64> {
        let mut segment = self.segment_at(after)?;
        for _ in 0..SEGMENTS_MAX {
            let beyond = match self.search(&segment) {
                Found::Fire(at) => return Some(at),
                Found::Beyond(beyond) => beyond,
                Found::SecondPass => {
                    segment = self.segment_from(segment.end?)?;
                    continue;
                }
            };
            let meeting = segment.end?;
            if self.shifts_into(beyond, meeting) {
                return Some(meeting.at);
            }
            // Unless the clock goes back over what has been searched, `beyond` is also the next match in real time,
            // however many segments away.
            let is_repeated = segment.lower + segment.offset >= meeting.at + meeting.next_offset;
            segment = match beyond {
                None if !is_repeated => return None,
                Some(match_at) if !is_repeated && match_at - JUMP_MARGIN_SECONDS > meeting.at => {
                    self.segment_at(match_at - JUMP_MARGIN_SECONDS)?
                }
                None | Some(_) => self.segment_from(meeting)?,
            };
        }
        None
    }

    /// What a clock change has to do with the fire at `at`.
    pub(super) fn effect_at(&self, at: Timestamp) -> ClockEffect {
        let offset = self.zone.to_offset(at);
        let civil = at.as_second() + seconds(offset);
        if self.matcher.next(civil - 1) != Some(civil) {
            return ClockEffect::ShiftedFromGap;
        }
        match self.zone.to_ambiguous_timestamp(offset.to_datetime(at)).offset() {
            AmbiguousOffset::Fold { before, .. } if before == offset => ClockEffect::FirstPass,
            AmbiguousOffset::Fold { .. } => ClockEffect::SecondPass,
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => ClockEffect::None,
        }
    }

    fn search(&self, segment: &Segment) -> Found {
        let mut lower = segment.lower + segment.offset;
        loop {
            let Some(civil) = self.matcher.next(lower) else {
                return Found::Beyond(None);
            };
            if segment.end.is_some_and(|end| civil >= end.at + segment.offset) {
                return Found::Beyond(Some(civil));
            }
            let at = civil - segment.offset;
            let ClockChange::Fixed { fold, .. } = self.clock_change else {
                return Found::Fire(at);
            };
            let Some((before, after)) = self.fold_around(fold, civil) else {
                return Found::Fire(at);
            };
            match fold {
                Fold::First if segment.offset == after => lower = self.fold_end(at, before, civil) - 1,
                Fold::Last if segment.offset == before => return Found::SecondPass,
                Fold::First | Fold::Last | Fold::Both => return Found::Fire(at),
            }
        }
    }

    /// The offsets before and after the fold that `civil` lies in, if it lies in one and it matters.
    fn fold_around(&self, fold: Fold, civil: CivilSeconds) -> Option<(i64, i64)> {
        if fold == Fold::Both {
            return None;
        }
        let civil = Offset::UTC.to_datetime(Timestamp::from_second(civil).ok()?);
        match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Fold { before, after } => Some((seconds(before), seconds(after))),
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => None,
        }
    }

    /// The wall-clock time at which the fold ends that `at` is in the second pass of, so that a fold full of matches
    /// is left in one step.
    fn fold_end(&self, at: i64, before: i64, civil: CivilSeconds) -> CivilSeconds {
        let Ok(from) = Timestamp::from_second(at + 1) else {
            return civil + 1;
        };
        let change = self.zone.preceding(from).map(|change| change.timestamp().as_second());
        // A change of name alone, with the offset as it was, is no fold.
        let starts = change.take_while(|start| *start > at - JUMP_MARGIN_SECONDS);
        let start = starts.into_iter().find(|start| self.offset_at(*start - 1) == Some(before));
        start.map_or(civil + 1, |start| (start + before).max(civil + 1))
    }

    /// True if the gap at `meeting` swallowed a match that is to run when the gap ends.
    fn shifts_into(&self, beyond: Option<CivilSeconds>, meeting: Meeting) -> bool {
        match self.clock_change {
            ClockChange::Fixed { gap: Gap::Shift, .. } => {
                beyond.is_some_and(|civil| civil < meeting.at + meeting.next_offset)
            }
            ClockChange::Fixed { gap: Gap::Skip, .. } | ClockChange::Follow => false,
        }
    }

    fn segment_at(&self, lower: i64) -> Option<Segment> {
        let from = Timestamp::from_second(lower).ok()?;
        Some(Segment { lower, offset: seconds(self.zone.to_offset(from)), end: self.meeting_after(from) })
    }

    fn segment_from(&self, meeting: Meeting) -> Option<Segment> {
        let start = Timestamp::from_second(meeting.at).ok()?;
        Some(Segment { lower: meeting.at - 1, offset: meeting.next_offset, end: self.meeting_after(start) })
    }

    fn meeting_after(&self, from: Timestamp) -> Option<Meeting> {
        let change = self.zone.following(from).next()?;
        Some(Meeting { at: change.timestamp().as_second(), next_offset: seconds(change.offset()) })
    }

    fn offset_at(&self, at: i64) -> Option<i64> {
        Some(seconds(self.zone.to_offset(Timestamp::from_second(at).ok()?)))
    }
}

fn seconds(offset: Offset) -> i64 {
    i64::from(offset.seconds())
}
