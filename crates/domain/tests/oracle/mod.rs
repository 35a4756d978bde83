//! The oracle of `schedule_oracle.rs`: what cron expressions mean, said as plainly as possible and without a thought
//! for speed. It knows numbers, `*`, ranges, steps, lists, and the special days; no names, no `H`, no aliases.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Which of several occurrences of one wall-clock time count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occurrence {
    First,
    Last,
    Every,
}

/// An expression as its words, and the sets of numbers for the fields that have no special words.
pub(crate) struct Expression {
    second: Vec<bool>,
    minute: Vec<bool>,
    hour: Vec<bool>,
    day: Vec<String>,
    month: Vec<bool>,
    weekday: Vec<String>,
    year: Vec<bool>,
    day_has_star: bool,
    weekday_has_star: bool,
    pub(crate) is_wildcard: bool,
}

impl Expression {
    pub(crate) fn parse(text: &str) -> Expression {
        let mut words: Vec<&str> = text.split(' ').collect();
        if words.len() == 5 {
            words.insert(0, "0");
        }
        if words.len() == 6 {
            words.push("*");
        }
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let set = |text: &str, low: i64, high: i64| {
            (0..=high).map(|n| list(text).iter().any(|word| holds(word, n, low, high))).collect()
        };
        Expression {
            second: set(words[0], 0, 59),
            minute: set(words[1], 0, 59),
            hour: set(words[2], 0, 23),
            day: list(words[3]),
            month: set(words[4], 1, 12),
            weekday: list(words[5]),
            year: set(words[6], 1970, 2100),
            day_has_star: words[3].starts_with('*'),
            weekday_has_star: words[5].starts_with('*'),
            is_wildcard: words[1].starts_with('*') || words[2].starts_with('*'),
        }
    }

    fn matches(&self, at: DateTime) -> bool {
        self.minute[at.minute() as usize]
            && self.hour[at.hour() as usize]
            && self.second[at.second() as usize]
            && self.month[at.month() as usize]
            && self.year[at.year() as usize]
            && self.matches_date(at)
    }

    fn matches_date(&self, at: DateTime) -> bool {
        let day = self.day.iter().any(|word| is_day(word, at));
        let weekday = self.weekday.iter().any(|word| is_weekday(word, at));
        if self.day_has_star || self.weekday_has_star { day && weekday } else { day || weekday }
    }
}

/// Whether one word of a list names `n`, in a cycle from `low` to `high`.
fn holds(word: &str, n: i64, low: i64, high: i64) -> bool {
    if n < low {
        return false;
    }
    let (body, step) = word.split_once('/').map_or((word, 1), |(body, step)| (body, number(step)));
    let (first, last) = match body.split_once('-') {
        _ if body == "*" => (low, high),
        Some((first, last)) => (number(first), number(last)),
        None if word.contains('/') => (number(body), high),
        None => (number(body), number(body)),
    };
    // Walk the cycle step by step, as one would with a finger on a dial.
    let mut at = first;
    let mut walked = 0;
    let length = if last >= first { last - first } else { last - first + (high - low + 1) };
    while walked <= length {
        if at == n {
            return true;
        }
        for _ in 0..step {
            at = if at == high { low } else { at + 1 };
            walked += 1;
        }
    }
    false
}

fn is_day(word: &str, at: DateTime) -> bool {
    let month_length = i64::from(at.date().days_in_month());
    let today = i64::from(at.day());
    if word == "LW" {
        return nearest_weekday(at, month_length) == Some(today);
    }
    if let Some(day) = word.strip_suffix('W') {
        return nearest_weekday(at, number(day)) == Some(today);
    }
    if word == "L" {
        return today == month_length;
    }
    if let Some(back) = word.strip_prefix("L-") {
        return today == month_length - number(back);
    }
    holds(word, today, 1, 31)
}

/// The Monday to Friday of the month of `at` with the smallest distance to `day`; the months are so short that
/// trying them all is the definition.
fn nearest_weekday(at: DateTime, day: i64) -> Option<i64> {
    let month_length = i64::from(at.date().days_in_month());
    if day > month_length {
        return None;
    }
    (1..=month_length)
        .filter(|other| {
            let date = at.date().first_of_month().saturating_add(jiff::Span::new().days(other - 1));
            date.weekday().to_monday_zero_offset() < 5
        })
        .min_by_key(|other| (other - day).abs())
}

fn is_weekday(word: &str, at: DateTime) -> bool {
    let today = i64::from(at.date().weekday().to_sunday_zero_offset());
    let day = i64::from(at.day());
    if let Some(weekday) = word.strip_suffix('L') {
        return today == number(weekday) % 7 && day + 7 > i64::from(at.date().days_in_month());
    }
    if let Some((weekday, nth)) = word.split_once('#') {
        return today == number(weekday) % 7 && (number(nth) - 1) * 7 < day && day <= number(nth) * 7;
    }
    holds(word, today, 0, 6) || (today == 0 && word.contains('7') && holds(word, 7, 0, 7))
}

fn number(text: &str) -> i64 {
    text.parse().expect("a number")
}

/// What the wall clocks of a zone show, instant by instant, around some moment.
pub(crate) struct Shown {
    /// Every instant in order with what the clocks show; it reaches a day farther on both sides than is judged.
    clocks: Vec<(i64, DateTime)>,
    /// All the instants at which a wall-clock time is shown.
    instants: HashMap<DateTime, Vec<i64>>,
    first: i64,
    last: i64,
    step: i64,
}

impl Shown {
    pub(crate) fn around(zone: &TimeZone, centre: i64, reach: i64, step: i64) -> Shown {
        let margin = if step == 1 { 2 * 3600 } else { 26 * 3600 / step * step + step };
        let centre = centre - centre.rem_euclid(step);
        let mut clocks = Vec::new();
        let mut instants: HashMap<DateTime, Vec<i64>> = HashMap::new();
        let mut at = centre - reach - margin;
        while at <= centre + reach + margin {
            let shown = zone.to_datetime(Timestamp::from_second(at).expect("in range"));
            clocks.push((at, shown));
            instants.entry(shown).or_default().push(at);
            at += step;
        }
        Shown { clocks, instants, first: centre - reach, last: centre + reach, step }
    }

    pub(crate) fn first(&self) -> i64 {
        self.first
    }

    pub(crate) fn last(&self) -> i64 {
        self.last
    }

    pub(crate) fn step(&self) -> i64 {
        self.step
    }

    /// All fires from `first` to `last`, both inclusive, in order.
    pub(crate) fn fires(&self, expression: &Expression, shifts: bool, occurrence: Occurrence) -> Vec<i64> {
        let mut fires = BTreeSet::new();
        for (at, shown) in &self.clocks {
            if !expression.matches(*shown) {
                continue;
            }
            let all = &self.instants[shown];
            let counts = match occurrence {
                _ if expression.is_wildcard => true,
                Occurrence::Every => true,
                Occurrence::First => all.first() == Some(at),
                Occurrence::Last => all.last() == Some(at),
            };
            if counts {
                fires.insert(*at);
            }
        }
        if shifts && !expression.is_wildcard {
            self.shift_from_gaps(expression, &mut fires);
        }
        fires.into_iter().filter(|at| (self.first..=self.last).contains(at)).collect()
    }

    /// Adds the end of each gap in which a time is named that no clock shows.
    fn shift_from_gaps(&self, expression: &Expression, fires: &mut BTreeSet<i64>) {
        let step = jiff::Span::new().seconds(self.step);
        for pair in self.clocks.windows(2) {
            let [(_, before), (after_at, after)] = pair else {
                continue;
            };
            let mut missing = *before + step;
            while missing < *after {
                if expression.matches(missing) {
                    fires.insert(*after_at);
                }
                missing += step;
            }
        }
    }
}
