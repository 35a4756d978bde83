//! The time of day in words: "at 02:30", "every 15 minutes from 09:00 to 17:45", "at 5 past every hour".
//!
//! Not here: dates (`dates.rs`) and clock changes (`mod.rs`). Invariant: read as they stand, the words name the times
//! of the fields and no others; where a short phrase can't, a longer one lists the values.

use super::super::cron::Fields;
use super::words::{self, Progression, every, numbers, plain_list, progression, runs};

/// More times than this are not listed one by one.
const TIMES_MAX: usize = 4;
/// More spans of hours than this are listed as hours.
const SPANS_MAX: usize = 3;
/// The shortest list that is told as a step, where a list would do as well.
const STEPS_MIN: usize = 5;

/// The words, and how they are heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TimeOfDay {
    pub(super) text: String,
    /// "every ..." is heard as real time that passes, "at ..." as a time that a clock shows.
    pub(super) is_recurring: bool,
    /// Says nothing about hours, so "every day" need not be said.
    pub(super) is_all_day: bool,
}

/// The sets of values, and what the words depend on besides.
struct Times<'a> {
    second: &'a [u16],
    minute: &'a [u16],
    hour: &'a [u16],
    /// Follows the clock as it runs: told as "every", where there is a choice.
    follows: bool,
    /// Every day fires, so hours may be told over midnight.
    is_daily: bool,
}

pub(super) fn time_of_day(fields: &Fields<'_>, is_daily: bool) -> TimeOfDay {
    let Fields { second, minute, hour, .. } = fields;
    let times = Times { second, minute, hour, follows: fields.is_wildcard(), is_daily };
    let is_all_day = times.has_all_hours();
    let text = times.text();
    let is_recurring = is_all_day || text.starts_with("every");
    TimeOfDay { text, is_recurring, is_all_day }
}

impl Times<'_> {
    fn has_all_hours(&self) -> bool {
        self.hour.len() == 24
    }

    fn has_all_minutes(&self) -> bool {
        self.minute.len() == 60
    }

    fn text(&self) -> String {
        if let &[second] = self.second
            && self.is_listed()
            && !(self.follows && self.minute.len() > 1)
        {
            return format!("at {}", words::join(&self.listed(second), "and"));
        }
        if self.second == [0] {
            return if self.has_all_hours() { self.in_every_hour() } else { self.in_some_hours() };
        }
        let seconds = self.seconds();
        let is_whole = self.second.len() == 60 || cycle(self.second).is_some_and(|cycle| cycle.first == 0);
        if is_whole && self.has_all_minutes() && self.has_all_hours() {
            return seconds;
        }
        format!("{seconds} of {}", self.minutes_with_seconds())
    }

    /// Few enough times to name each.
    fn is_listed(&self) -> bool {
        self.minute.len() * self.hour.len() <= TIMES_MAX
    }

    /// Each time by the clock, the seconds only if there are any.
    fn listed(&self, second: u16) -> Vec<String> {
        let mut listed = Vec::new();
        for &hour in self.hour {
            for &minute in self.minute {
                let seconds = if second == 0 { String::new() } else { format!(":{second:02}") };
                listed.push(clock(hour, minute) + &seconds);
            }
        }
        listed
    }

    fn in_every_hour(&self) -> String {
        if self.has_all_minutes() {
            return "every minute".to_owned();
        }
        match (self.minute, cycle(self.minute)) {
            (_, Some(Progression { first: 0, step, .. })) => every(step, "minute"),
            ([0], _) => "every hour on the hour".to_owned(),
            _ => format!("{} past every hour", self.minutes()),
        }
    }

    /// "at 5 and 40", "every 7 minutes from 0 to 56"; past some hour.
    fn minutes(&self) -> String {
        match progression(self.minute, STEPS_MIN) {
            Some(Progression { first, last, step }) => format!("{} from {first} to {last}", every(step, "minute")),
            None => format!("at {}", plain_list(self.minute)),
        }
    }

    fn in_some_hours(&self) -> String {
        let spans = self.spans();
        if spans.len() <= SPANS_MAX {
            if let &[minute] = self.minute {
                if spans.len() > 1 && spans.iter().any(|(first, last)| first == last) {
                    return self.by_hours(minute);
                }
                return format!("every hour {}", spans_text(&spans, minute, minute));
            }
            // Over several hours a step only runs evenly if it divides the hour.
            let is_short = spans.iter().all(|(first, last)| first == last);
            let even = cycle(self.minute).or_else(|| progression(self.minute, STEPS_MIN).filter(|_| is_short));
            if let Some(Progression { first, last, step }) = even {
                return format!("{} {}", every(step, "minute"), spans_text(&spans, first, last));
            }
        }
        match *self.minute {
            [minute] => self.by_hours(minute),
            _ => format!("{} past {}", self.minutes(), numbers("hour", self.hour)),
        }
    }

    /// One minute of hours that are no spans: "every 2 hours from 00:30 to 22:30", or a list.
    fn by_hours(&self, minute: u16) -> String {
        match progression(self.hour, STEPS_MIN) {
            Some(Progression { first, last, step }) => {
                format!("{} from {} to {}", every(step, "hour"), clock(first, minute), clock(last, minute))
            }
            None => format!("at {minute} past {}", numbers("hour", self.hour)),
        }
    }

    /// Hours that follow on each other. Over midnight only if the next day fires too: else 22-2 on a Friday is the
    /// small hours of that Friday, which "from 22:00 to 02:59" would deny.
    fn spans(&self) -> Vec<(u16, u16)> {
        if self.is_daily { words::cyclic_runs(self.hour, 0, 23) } else { runs(self.hour) }
    }

    fn seconds(&self) -> String {
        if self.second.len() == 60 {
            return "every second".to_owned();
        }
        if let Some(Progression { first: 0, step, .. }) = cycle(self.second) {
            return every(step, "second");
        }
        match progression(self.second, STEPS_MIN) {
            Some(Progression { first, last, step }) => {
                format!("{} from second {first} to {last}", every(step, "second"))
            }
            None => format!("at {}", numbers("second", self.second)),
        }
    }

    /// The minutes whose seconds were told before.
    fn minutes_with_seconds(&self) -> String {
        let spans = self.spans();
        let hours = if self.has_all_hours() { "every hour".to_owned() } else { numbers("hour", self.hour) };
        if self.has_all_minutes() {
            return match self.has_all_hours() {
                true => "every minute".to_owned(),
                false if spans.len() <= SPANS_MAX => format!("every minute {}", spans_text(&spans, 0, 59)),
                false => format!("every minute of {hours}"),
            };
        }
        if self.is_listed() {
            let plural = if self.minute.len() * self.hour.len() == 1 { "" } else { "s" };
            return format!("the minute{plural} {}", words::join(&self.listed(0), "and"));
        }
        format!("{} of {hours}", numbers("minute", self.minute))
    }
}

/// A step that goes on evenly from one hour or minute into the next; every value is one too.
fn cycle(values: &[u16]) -> Option<Progression> {
    progression(values, 2).filter(|even| even.last + even.step == even.first + 60)
}

/// "from 09:00 to 11:59 and from 14:00 to 17:59".
fn spans_text(spans: &[(u16, u16)], minute_first: u16, minute_last: u16) -> String {
    let spans: Vec<String> = spans
        .iter()
        .map(|&(first, last)| format!("from {} to {}", clock(first, minute_first), clock(last, minute_last)))
        .collect();
    words::join(&spans, "and")
}

fn clock(hour: u16, minute: u16) -> String {
    format!("{hour:02}:{minute:02}")
}
