//! Events as short texts, so that tables of decisions can be read. Invariant: what differs for a reader of the log differs here.

use orloj_domain::run::EndedAttempt;
use orloj_domain::runner::labels_text;

use super::START;
use crate::End;
use crate::event::{About, Event, GivenBack};
use crate::run::{Run, Step};

/// An event in a few words, for tables.
pub(crate) fn words(event: &Event) -> String {
    match event {
        Event::Stepped { run, leaves, gives_back, about, ended } => {
            let of_step = match &run.step {
                Step::Delayed { due_at } | Step::Retrying { due_at } | Step::Unserved { due_at } => {
                    format!(" due {}", due_at.since(START).as_secs())
                }
                Step::Ready | Step::Waiting => String::new(),
                Step::Unplaced { .. } => format!(" for {}", labels_text(&run.request.runner_labels)),
                Step::Offered { session, said_at, .. } if *said_at != run.since => format!(" for {session} again"),
                Step::Offered { session, .. } => format!(" for {session}"),
                Step::Asking { held, .. } => format!(" for {} with {held}", run.asks_for().expect("a limit")),
                Step::Running { session, .. } if run.cancel_reason.is_some() => format!(" by {session} until it ends"),
                Step::Running { session, .. } if run.completion.is_some() => format!(" by {session}, called back"),
                Step::Running { session, .. } => format!(" by {session}"),
            };
            let from = leaves.iter().map(|topic| format!(" -{topic}")).collect::<String>();
            let back = back_words(gives_back);
            let hedge = hedge_words(run);
            let put_off = if *about == About::HedgePutOff { ", put off" } else { "" };
            let ended = ended_words(ended);
            let state = run.step.state();
            format!("{state} a{} t{}{of_step}{hedge}{put_off}{from}{back}{ended}", run.attempt, run.token)
        }
        Event::Ended(ended) => {
            let why = match &ended.end {
                End::Succeeded(_) => String::new(),
                End::Cancelled(outcome) | End::Expired(outcome) => format!(" {}", outcome.kind),
                End::Dead(outcome, disposition) => format!(" {} {disposition}", outcome.kind),
            };
            let from = ended.leaves.iter().map(|topic| format!(" -{topic}")).collect::<String>();
            let back = back_words(&ended.gives_back);
            let attempts = ended_words(&ended.ended_attempts);
            let stops = ended.stops.iter().map(|(report, _)| format!(", stop t{}", report.token)).collect::<String>();
            let state = ended.end.state();
            format!("{state} a{} t{}{why}{from}{back}{attempts}{stops}", ended.attempt, ended.token)
        }
        Event::Ignored(reason) => reason.as_str().to_owned(),
        Event::Disowned(report, reason) => format!("stop {}: {}", report.session, reason.as_str()),
        Event::NotRedriven { why, .. } => format!("not sent back: {why}"),
        Event::Parked { why, .. } => format!("parked: {why}"),
        Event::Forgotten(..) => "forgotten".to_owned(),
        Event::CancelKept(..) => "cancel kept".to_owned(),
        Event::CancelDropped(_) => "cancel dropped".to_owned(),
        Event::LimitJoined(limit, _) => format!("in line for {limit}"),
        Event::LimitHeld { limit, .. } => format!("{limit} is had"),
        Event::LimitFree(limit, _) => format!("{limit} is free"),
        Event::LimitTurned { limit, turn, .. } => {
            let why = turn.why.map_or_else(String::new, |why| format!(": {}", why.words(limit.is_of_queue())));
            format!("{limit} is {}{why}", turn.breaker.state())
        }
        Event::LimitDeclined(limit, _) => format!("{limit} is declined"),
        Event::LimitRulesTaken(_) => "rules".to_owned(),
        Event::FleetTaken(_) => "fleet".to_owned(),
        Event::Withdrawn(offer) => format!("no longer for {}", offer.session),
    }
}

fn hedge_words(run: &Run) -> String {
    let Some(hedge) = run.live_hedge() else { return String::new() };
    let by = hedge.holder().map_or_else(String::new, |(_, session)| format!(" by {session}"));
    format!(" & a{} t{}{by}", hedge.attempt, hedge.token)
}

fn ended_words(ended: &[EndedAttempt]) -> String {
    ended.iter().map(|attempt| format!(", t{} {}", attempt.token, attempt.outcome.kind)).collect()
}

fn back_words(gives_back: &GivenBack) -> String {
    let limits = gives_back.iter().flat_map(|(limits, _)| limits);
    limits.map(|(limit, _)| format!(" +{limit}")).collect()
}
