//! The one appender of this process: requests hand records over and get positions back. Not here: what is
//! written (`http`). Invariant: what waits together is appended together, and each record gets its own answer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use orloj_runtime::log::{AppendError, Appender, Log, NewRecord, Position};
use tokio::sync::oneshot;

/// Most requests that wait; more are refused.
const WAITING_MAX: usize = 1024;
/// Most records in one append.
const BATCH: usize = 200;

/// Why a record has no position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendFailure {
    /// Nothing was appended; it may be tried again.
    Unavailable(String),
    /// Nobody knows; repeating it must be harmless.
    Unknown(String),
    /// It never will be: the record is too large.
    TooLarge(String),
    /// The disk of the log is full.
    Full(String),
}

struct Request {
    record: NewRecord,
    reply: oneshot::Sender<Result<Position, AppendFailure>>,
}

/// Hands records to the appender's thread. Clones share it; the thread ends with the last of them.
#[derive(Clone)]
pub(crate) struct Appends(SyncSender<Request>);

impl Appends {
    /// Starts the thread.
    pub(crate) fn start(log: Arc<dyn Log>) -> std::io::Result<Self> {
        let (sender, requests) = sync_channel(WAITING_MAX);
        std::thread::Builder::new().name("query-append".to_owned()).spawn(move || serve(&*log, &requests))?;
        Ok(Self(sender))
    }

    /// Appends records, together where they can be. Where some are on the log and others are not, nobody is told that nothing
    /// was appended: it is [`AppendFailure::Unknown`].
    pub(crate) async fn append_all(
        &self,
        records: impl ExactSizeIterator<Item = NewRecord>,
    ) -> Result<Vec<Position>, AppendFailure> {
        let count = records.len();
        let mut outcomes = Vec::with_capacity(count);
        let mut answers = Vec::with_capacity(count);
        for record in records {
            match self.hand_over(record) {
                Ok(answer) => answers.push(answer),
                Err(failure) => {
                    outcomes.push(Err(failure));
                    break;
                }
            }
        }
        for answer in answers {
            outcomes.push(answered(answer).await);
        }
        all_or_none(outcomes, count)
    }

    /// Appends a record.
    pub(crate) async fn append(&self, record: NewRecord) -> Result<Position, AppendFailure> {
        answered(self.hand_over(record)?).await
    }

    fn hand_over(&self, record: NewRecord) -> Result<Answer, AppendFailure> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Request { record, reply }).map_err(|error| {
            AppendFailure::Unavailable(match error {
                TrySendError::Full(_) => "too many writes wait for the log".to_owned(),
                TrySendError::Disconnected(_) => "the service is shutting down".to_owned(),
            })
        })?;
        Ok(answer)
    }
}

/// The positions of all of `count` records, or what became of them.
fn all_or_none(outcomes: Vec<Result<Position, AppendFailure>>, count: usize) -> Result<Vec<Position>, AppendFailure> {
    let (mut positions, mut failures) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(position) => positions.push(position),
            Err(failure) => failures.push(failure),
        }
    }
    match failures.into_iter().next() {
        None => Ok(positions),
        Some(failure) if positions.is_empty() => Err(failure),
        Some(failure) => {
            let done = positions.len();
            Err(AppendFailure::Unknown(format!("{done} of {count} are on the log, and then: {failure:?}")))
        }
    }
}

type Answer = oneshot::Receiver<Result<Position, AppendFailure>>;

async fn answered(answer: Answer) -> Result<Position, AppendFailure> {
    answer.await.unwrap_or_else(|_| Err(AppendFailure::Unknown("the appender ended".to_owned())))
}

fn serve(log: &dyn Log, requests: &Receiver<Request>) {
    // Opened before it is needed: the first append of a new one waits for its connection.
    let mut appender: Option<Box<dyn Appender>> = log.appender().ok();
    while let Ok(first) = requests.recv() {
        let mut batch = vec![first];
        batch.extend(requests.try_iter().take(BATCH - 1));
        let (records, replies): (Vec<NewRecord>, Vec<_>) = batch.into_iter().map(|it| (it.record, it.reply)).unzip();
        let outcomes = append(log, &mut appender, records);
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A request that was dropped meanwhile waits for no answer.
            let _ = reply.send(outcome);
        }
    }
}

fn append(
    log: &dyn Log,
    kept: &mut Option<Box<dyn Appender>>,
    records: Vec<NewRecord>,
) -> Vec<Result<Position, AppendFailure>> {
    let count = records.len();
    let appender = match kept.take().map_or_else(|| log.appender(), Ok) {
        Ok(appender) => kept.insert(appender),
        Err(error) => return vec![Err(AppendFailure::Unavailable(error.to_string())); count],
    };
    let single = (count > 1).then(|| records.clone());
    match (appender.append(records), single) {
        (Ok(positions), _) if positions.len() == count => positions.into_iter().map(Ok).collect(),
        (Ok(_), _) => vec![Err(AppendFailure::Unknown("the log named too few positions".to_owned())); count],
        // One record that is too large must not take its neighbours down.
        (Err(AppendError::TooLarge { .. }), Some(records)) => {
            records.into_iter().flat_map(|record| append(log, kept, vec![record])).collect()
        }
        (Err(error), _) => {
            tracing::warn!(%error, records = count, "records could not be appended");
            *kept = None;
            vec![Err(failure(&error)); count]
        }
    }
}

fn failure(error: &AppendError) -> AppendFailure {
    let text = error.to_string();
    match error {
        AppendError::TooLarge { .. } => AppendFailure::TooLarge(text),
        AppendError::Full(_) => AppendFailure::Full(text),
        AppendError::Unknown(_) => AppendFailure::Unknown(text),
        AppendError::Refused(_) | AppendError::Retriable(_) | AppendError::Stalled(_) | AppendError::NoSuchTopic(_) => {
            AppendFailure::Unavailable(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_in_part_is_not_said_to_be_undone() {
        let done = || Ok(Position { topic: "commands".into(), partition: 0, offset: 7 });
        let failed = || Err(AppendFailure::Unavailable("no broker".to_owned()));
        assert_eq!(all_or_none(vec![done(), done()], 2).map(|positions| positions.len()), Ok(2));
        assert_eq!(all_or_none(vec![failed()], 3), Err(AppendFailure::Unavailable("no broker".to_owned())));
        let partly = all_or_none(vec![failed(), done()], 3);
        assert!(matches!(&partly, Err(AppendFailure::Unknown(text)) if text.starts_with("1 of 3 ")), "{partly:?}");
    }
}
