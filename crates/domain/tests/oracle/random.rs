//! Random cron expressions for comparisons. Not here: what they mean.

use proptest::prelude::*;

/// Expressions of five or six fields; with names and `?` only if `is_rich`.
pub(crate) fn expression(is_rich: bool) -> impl Strategy<Value = String> {
    let rich = u32::from(is_rich);
    let day = prop_oneof![
        4 => field(1, 31),
        2 => Just("*".to_owned()),
        1 => Just("L".to_owned()),
        1 => Just("LW".to_owned()),
        1 => (1..=31).prop_map(|day| format!("{day}W")),
        rich => Just("?".to_owned()),
    ];
    let weekday = prop_oneof![
        4 => field(0, 6),
        2 => Just("*".to_owned()),
        1 => Just("7".to_owned()),
        rich => Just("MON-FRI".to_owned()),
        1 => (0..=6).prop_map(|weekday| format!("{weekday}L")),
        1 => ((0..=6), (1..=5)).prop_map(|(weekday, nth)| format!("{weekday}#{nth}")),
    ];
    let month = prop_oneof![
        3 => field(1, 12),
        3 => Just("*".to_owned()),
        rich => Just("JAN,jun-Aug".to_owned()),
    ];
    let second = prop_oneof![
        2 => Just(String::new()),
        rich => field(0, 59).prop_map(|second| format!("{second} ")),
    ];
    (second, field(0, 59), field(0, 23), day, month, weekday).prop_map(|(second, minute, hour, day, month, weekday)| {
        format!("{second}{minute} {hour} {day} {month} {weekday}")
    })
}

/// One field: `*`, a step, or a list of values and ranges.
pub(crate) fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    let range = move || (low..=high, low..=high).prop_map(|(one, other)| (one.min(other), one.max(other)));
    let item = prop_oneof![
        3 => (low..=high).prop_map(|value| value.to_string()),
        1 => range().prop_map(|(first, last)| format!("{first}-{last}")),
        1 => (range(), 1..=(high - low)).prop_map(|((first, last), step)| {
            format!("{first}-{last}/{}", step.min((last - first).max(1)))
        }),
    ];
    prop_oneof![
        2 => Just("*".to_owned()),
        1 => (1..=(high - low)).prop_map(|step| format!("*/{step}")),
        4 => prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")),
    ]
}
