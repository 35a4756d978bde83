//! What `orloj dev` shows as it happens: one line per decision, answer to a definition, and end of a run. Not
//! here: log lines of the services. Invariant: it reads committed records only, and nobody waits for it.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::tz::TimeZone;
use orloj_domain::attempt::Outcome;
use orloj_domain::fire::{Decision, FireDecision};
use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Isolation, LogError, Reader, Record, TopicPartition};

use crate::output;
use crate::services::Parts;

/// Records shown in one go.
const RECORDS_MAX: usize = 1000;
/// Longest wait for the next record; a shutdown ends it earlier.
const WAIT: Duration = Duration::from_secs(10);

/// Watches from now on, on a thread of its own, until a shutdown is asked.
pub(crate) fn start(parts: &Parts) -> io::Result<JoinHandle<()>> {
    let parts = parts.clone();
    let from = open(&parts).map_err(|error| io::Error::other(error.to_string()))?;
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch(&parts, from))
}

/// A reader at the present end of what is shown.
fn open(parts: &Parts) -> Result<Box<dyn Reader>, LogError> {
    let mut positions = Vec::new();
    for name in [topic::JOB_EVENTS, topic::FIRES, topic::RUN_EVENTS] {
        for shard in parts.config.shards.all() {
            let at = TopicPartition::new(name, shard.0);
            let end = parts.log.end(&at, Isolation::Committed)?;
            positions.push((at, end));
        }
    }
    let mut reader = parts.log.reader(Isolation::Committed)?;
    reader.read_from(&positions)?;
    Ok(reader)
}

fn watch(parts: &Parts, mut reader: Box<dyn Reader>) {
    parts.shutdown.on_request(reader.waker());
    let is_coloured = output::is_coloured();
    loop {
        // Asked before the poll, so that the ends of a drain are shown too.
        let is_last = parts.shutdown.is_requested();
        let wait = if is_last { Duration::ZERO } else { WAIT };
        match reader.poll(RECORDS_MAX, wait) {
            Ok(records) if records.is_empty() && is_last => return,
            Ok(records) => {
                for line in records.iter().filter_map(line) {
                    if output::print(&line.shown(is_coloured)).is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "what happens is no longer shown");
                return;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Plain,
    Good,
    Odd,
    Bad,
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    at: Timestamp,
    what: &'static str,
    job: String,
    word: &'static str,
    detail: String,
    mood: Mood,
}

impl Line {
    fn shown(&self, is_coloured: bool) -> String {
        let at = self.at.to_jiff().to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
        let colour = match self.mood {
            Mood::Plain => "",
            Mood::Good => "\x1b[32m",
            Mood::Odd => "\x1b[33m",
            Mood::Bad => "\x1b[31m",
        };
        let (on, off) = if is_coloured && !colour.is_empty() { (colour, "\x1b[0m") } else { ("", "") };
        let Self { what, job, word, detail, .. } = self;
        format!("{at}  {what:<4}  {job:<28}  {on}{word:<10}{off}  {detail}").trim_end().to_owned()
    }
}

fn line(record: &Record) -> Option<Line> {
    let value = record.value.as_deref()?;
    match record.topic.as_str() {
        topic::JOB_EVENTS => codec::decode(value).ok().map(|event| of_job(&event)),
        topic::FIRES => codec::decode(value).ok().map(|decision| of_decision(&decision)),
        topic::RUN_EVENTS => {
            codec::decode(value).ok().filter(|event: &RunEvent| is_shown(event.state)).map(|event| of_run(&event))
        }
        _ => None,
    }
}

fn of_job(event: &JobEvent) -> Line {
    let (mood, detail) = match event.kind {
        JobEventType::Rejected | JobEventType::CommandRejected => {
            (Mood::Bad, event.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
        JobEventType::Paused
        | JobEventType::Resumed
        | JobEventType::Deleted
        | JobEventType::BackfillStarted
        | JobEventType::BackfillFinished
        | JobEventType::BackfillCancelled => (Mood::Odd, event.reason.clone().unwrap_or_default()),
        JobEventType::Accepted | JobEventType::Unchanged | JobEventType::Unknown => {
            (Mood::Plain, format!("version {}", event.version))
        }
    };
    Line { at: event.at, what: "job", job: event.job.to_string(), word: event.kind.as_str(), detail, mood }
}

fn of_decision(decision: &FireDecision) -> Line {
    let reason = decision.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let due = decision.fire_time.to_jiff().to_zoned(TimeZone::system()).strftime("%H:%M:%S");
    let (mood, detail) = match decision.decision {
        Decision::Requested => (Mood::Plain, format!("due {due}, {}{reason}", decision.trigger)),
        Decision::Skipped | Decision::Coalesced | Decision::Unknown => (Mood::Odd, format!("due {due}{reason}")),
    };
    Line {
        at: decision.decided_at,
        what: "fire",
        job: decision.job.to_string(),
        word: decision.decision.as_str(),
        detail,
        mood,
    }
}

/// Ends, and what a person would wonder about.
fn is_shown(state: RunState) -> bool {
    match state {
        RunState::Succeeded
        | RunState::Failed
        | RunState::Dead
        | RunState::Cancelled
        | RunState::Expired
        | RunState::Retrying
        | RunState::Delayed => true,
        RunState::Waiting | RunState::Ready | RunState::Running | RunState::Unknown => false,
    }
}

fn of_run(event: &RunEvent) -> Line {
    let mood = match event.state {
        RunState::Succeeded => Mood::Good,
        RunState::Failed | RunState::Dead | RunState::Expired => Mood::Bad,
        RunState::Cancelled | RunState::Retrying => Mood::Odd,
        RunState::Delayed | RunState::Waiting | RunState::Ready | RunState::Running | RunState::Unknown => Mood::Plain,
    };
    let mut detail = event.run_id.to_string();
    if event.attempt > 0 {
        detail.push_str(&format!(", attempt {}", event.attempt));
    }
    if let Some(outcome) = &event.outcome
        && event.state != RunState::Succeeded
    {
        detail.push_str(&format!(", {}", of_outcome(outcome)));
    }
    if let Some(due_at) = event.due_at {
        detail.push_str(&format!(", due in {:.1}s", due_at.since(event.at).as_secs_f64()));
    }
    Line { at: event.at, what: "run", job: event.job.to_string(), word: event.state.as_str(), detail, mood }
}

fn of_outcome(outcome: &Outcome) -> String {
    match (outcome.exit_code, outcome.signal, &outcome.message) {
        (Some(code), _, _) => format!("exit code {code}"),
        (None, Some(signal), _) => format!("signal {signal}"),
        (None, None, Some(message)) => message.clone(),
        (None, None, None) => outcome.kind.to_string(),
    }
}
