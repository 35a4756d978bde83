//! Lists, ordinals and runs of values in English.
//!
//! Not here: what the values stand for. Invariant: the words of a set name every value of it and no other, so that
//! two sets never share their words.

/// "a, b and c".
pub(in super::super) fn join(items: &[String], word: &str) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

/// "1st", "22nd", "13th".
pub(super) fn ordinal(value: u32) -> String {
    let suffix = match (value % 10, value % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{value}{suffix}")
}

/// "1 minute", "15 minutes".
pub(super) fn counted(count: u64, unit: &str) -> String {
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// "every minute", "every 15 minutes".
pub(super) fn every(step: u16, unit: &str) -> String {
    if step == 1 { format!("every {unit}") } else { format!("every {step} {unit}s") }
}

/// Values at one distance from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progression {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) step: u16,
}

/// The values as a progression, if there are at least `count_min` (two or more) of them and they are one.
pub(super) fn progression(values: &[u16], count_min: usize) -> Option<Progression> {
    let (&[first, second, ..], &last) = (values, values.last()?) else { return None };
    let step = second - first;
    let is_even = values.windows(2).all(|pair| pair[1] - pair[0] == step);
    (is_even && values.len() >= count_min).then_some(Progression { first, last, step })
}

/// Runs of values without a hole, in ascending order.
pub(super) fn runs(values: &[u16]) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &value in values {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == value => *last = value,
            Some(_) | None => runs.push((value, value)),
        }
    }
    runs
}

/// Runs on a cycle from `min` to `max`: one that goes on over the end is a single run, told last.
pub(super) fn cyclic_runs(values: &[u16], min: u16, max: u16) -> Vec<(u16, u16)> {
    let mut runs = runs(values);
    if let [(first, head), .., (tail, last)] = runs[..]
        && (first, last) == (min, max)
    {
        runs.remove(0);
        runs.pop();
        runs.push((tail, head));
    }
    runs
}

/// "0, 5 through 9 and 30": short runs are spelled out. `after` is the value that follows one on its cycle.
pub(super) fn list(
    runs: &[(u16, u16)],
    word: &str,
    after: impl Fn(u16) -> u16,
    show: impl Fn(u16) -> String,
) -> String {
    join(&items(runs, after, show), word)
}

/// The items of [`list`].
pub(super) fn items(runs: &[(u16, u16)], after: impl Fn(u16) -> u16, show: impl Fn(u16) -> String) -> Vec<String> {
    let mut items = Vec::new();
    for &(first, last) in runs {
        if first == last {
            items.push(show(first));
        } else if after(first) == last {
            items.extend([show(first), show(last)]);
        } else {
            items.push(format!("{} through {}", show(first), show(last)));
        }
    }
    items
}

/// Numbers: a list, or "every 2nd hour from 0 to 22" where a list would be long. `unit` is put before a list, in the
/// plural if there are several.
pub(super) fn numbers(unit: &str, values: &[u16]) -> String {
    const LISTED_MAX: usize = 4;
    if let Some(even) = progression(values, LISTED_MAX + 1).filter(|even| even.step > 1) {
        return format!("every {} {unit} from {} to {}", ordinal(even.step.into()), even.first, even.last);
    }
    let plural = if values.len() == 1 { "" } else { "s" };
    format!("{unit}{plural} {}", plain_list(values))
}

/// "0, 5 through 9 and 30".
pub(super) fn plain_list(values: &[u16]) -> String {
    list(&runs(values), "and", |value| value + 1, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_words() {
        assert_eq!(plain_list(&[0, 1, 2, 5, 6, 9]), "0 through 2, 5, 6 and 9");
        assert_eq!(numbers("hour", &[0, 6, 12, 18, 24]), "every 6th hour from 0 to 24");
        assert_eq!(numbers("hour", &[7]), "hour 7");
        assert_eq!(cyclic_runs(&[0, 1, 5, 22, 23], 0, 23), [(5, 5), (22, 1)]);
        assert_eq!(cyclic_runs(&[0, 1, 23], 0, 23), [(23, 1)]);
        assert_eq!(cyclic_runs(&[0, 1, 2], 0, 23), [(0, 2)]);
        let ordinals: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31].map(ordinal).into();
        assert_eq!(ordinals.join(" "), "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 31st");
    }
}
