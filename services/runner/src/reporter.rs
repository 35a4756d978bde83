//! One thread that appends what attempts report: whatever waits goes into one append, and the start of an attempt
//! waits a moment for the end of a short one, which says it too and takes its place. Not here: what is reported. Invariant: reports of one attempt keep their
//! order, and none is given up while its lease is live.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use orloj_domain::id::RunId;
use orloj_runtime::clock::Clock;
use orloj_runtime::log::{AppendError, Appender, Log, NewRecord};

use crate::board::{Board, Phase, Session, Slot};

/// Most records and bytes in one append.
const RECORDS_MAX: usize = 2000;
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long reports that nobody decides on wait for others: an append costs the log as much for one as for many.
const COMPANY_WAIT: Duration = Duration::from_millis(20);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// What a report is about, and so whether it may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The attempt of this run and token has started: nobody decides on it, and its end says so too.
    Start(RunId, i64),
    /// Output or progress: nobody decides on it.
    Middle,
    /// Somebody waits for it.
    Awaited,
    /// The end of the attempt of this run and token, which the dispatcher waits for.
    End(RunId, i64),
}

impl Stage {
    fn is_patient(self) -> bool {
        match self {
            Self::Start(..) | Self::Middle => true,
            Self::Awaited | Self::End(..) => false,
        }
    }
}

/// Something to append about one attempt.
pub(crate) struct Report {
    /// In order.
    pub(crate) records: Vec<NewRecord>,
    /// Whose lease it stands under.
    pub(crate) session: Arc<Session>,
    /// What it is about.
    pub(crate) stage: Stage,
    /// Of the last report: held until it is in the log, so that no more attempts are taken than can be told of.
    pub(crate) _slot: Option<Slot>,
}

/// Where reports go; the thread ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Reporter(mpsc::Sender<Report>);

impl Reporter {
    /// Starts the thread.
    pub(crate) fn start(board: &Arc<Board>, log: &Arc<dyn Log>) -> std::io::Result<Self> {
        let (sender, reports) = mpsc::channel();
        let (board, log, counted) = (Arc::clone(board), Arc::clone(log), board.thread());
        std::thread::Builder::new().name("runner-report".into()).spawn(move || {
            let _counted = counted;
            // Opened before it is needed: the first append of a new one waits for its connection.
            let mut writer = Writer { board: &board, log: &*log, appender: log.appender().ok() };
            while let Ok(first) = reports.recv() {
                writer.write(waiting(first, &reports, &*board.clock));
            }
        })?;
        Ok(Self(sender))
    }

    /// Hands a report over; never waits.
    pub(crate) fn send(&self, report: Report) {
        // The thread outlives every sender.
        let _ = self.0.send(report);
    }
}

/// The first report and all that wait behind it, within bounds; while all of them are patient, those too that come
/// soon.
fn waiting(first: Report, reports: &mpsc::Receiver<Report>, clock: &dyn Clock) -> Vec<Report> {
    let size = |report: &Report| report.records.iter().map(NewRecord::size_bytes).sum::<usize>();
    let (mut count, mut bytes) = (first.records.len(), size(&first));
    let mut is_patient = first.stage.is_patient();
    let mut batch = vec![first];
    let deadline = clock.monotonic() + COMPANY_WAIT;
    while count < RECORDS_MAX && bytes < BYTES_MAX {
        let patience = if is_patient { deadline.saturating_sub(clock.monotonic()) } else { Duration::ZERO };
        let Ok(next) = reports.recv_timeout(patience) else { break };
        is_patient &= next.stage.is_patient();
        count += next.records.len();
        bytes += size(&next);
        batch.push(next);
    }
    leave_out_starts(&mut batch);
    batch
}

/// The start of an attempt whose end is in the same append is one record too many.
fn leave_out_starts(batch: &mut Vec<Report>) {
    let ended: BTreeSet<(RunId, i64)> = batch
        .iter()
        .filter_map(|report| match report.stage {
            Stage::End(run, token) => Some((run, token)),
            Stage::Start(..) | Stage::Middle | Stage::Awaited => None,
        })
        .collect();
    batch.retain(|report| !matches!(report.stage, Stage::Start(run, token) if ended.contains(&(run, token))));
}

struct Writer<'a> {
    board: &'a Board,
    log: &'a dyn Log,
    appender: Option<Box<dyn Appender>>,
}

impl Writer<'_> {
    /// Appends until it is done or nobody may be told any more. Slots are free afterwards.
    fn write(&mut self, mut batch: Vec<Report>) {
        let mut pause = PAUSE_FIRST;
        while !batch.is_empty() {
            let records = batch.iter().flat_map(|report| report.records.iter().cloned()).collect();
            let Err(error) = self.append(records) else { return };
            let now = self.board.clock.monotonic();
            let is_ending = self.board.phase() == Phase::Ending;
            let before = batch.len();
            if let AppendError::TooLarge { topic, size_bytes } = &error {
                tracing::error!(topic, size_bytes, "a report is larger than the log takes and was left out");
                drop_largest(&mut batch);
                continue;
            }
            tracing::warn!(%error, reports = before, "reports were not taken");
            batch.retain(|report| report.session.is_live(now) && !is_ending);
            let dropped = before - batch.len();
            if dropped > 0 {
                self.board.metrics.reports_dropped.inc_by(u64::try_from(dropped).unwrap_or(u64::MAX));
                tracing::warn!(dropped, "reports were given up with their lease");
            }
            if batch.is_empty() {
                return;
            }
            self.appender = None;
            self.board.pause(pause, Phase::Ending);
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<(), AppendError> {
        let appender = match &mut self.appender {
            Some(appender) => appender,
            None => {
                let opened = self.log.appender().map_err(|error| AppendError::Retriable(error.to_string()))?;
                self.appender.insert(opened)
            }
        };
        appender.append(records).map(|_| ())
    }
}

/// Takes the largest record out, so that one that can't be written does not hold up the others.
fn drop_largest(batch: &mut [Report]) {
    let records = batch.iter_mut().flat_map(|report| {
        let Report { records, .. } = report;
        let largest = records.iter().map(NewRecord::size_bytes).enumerate().max_by_key(|(_, size)| *size);
        largest.map(|(index, size)| (size, index, records))
    });
    if let Some((_, index, records)) = records.max_by_key(|(size, ..)| *size) {
        records.remove(index);
    }
}

#[cfg(test)]
mod tests {
    use orloj_domain::id::JobId;
    use orloj_domain::time::Timestamp;
    use orloj_runtime::clock::SystemClock;

    use super::*;

    #[test]
    fn the_start_of_an_attempt_is_left_out_beside_its_end_and_nothing_else_is() {
        let job: JobId = "a/b".parse().expect("job");
        let run = |number| RunId::of_fire_time(&job, number, Timestamp::MIN);
        let stages = [
            Stage::Start(run(1), 1),
            Stage::Start(run(2), 1),
            Stage::Start(run(3), 7),
            Stage::Middle,
            Stage::Awaited,
            Stage::End(run(1), 1),
            // An older attempt of a run whose newer one has started.
            Stage::End(run(3), 6),
        ];
        let (sender, reports) = mpsc::channel();
        let session = Arc::new(Session::new(Timestamp::MIN));
        for stage in stages {
            let report = Report { records: Vec::new(), session: Arc::clone(&session), stage, _slot: None };
            sender.send(report).expect("the other end is here");
        }
        let first = reports.recv().expect("the first of them");
        let batch = waiting(first, &reports, &SystemClock::new());
        assert_eq!(batch.iter().map(|report| report.stage).collect::<Vec<_>>(), stages[1..]);
    }
}
