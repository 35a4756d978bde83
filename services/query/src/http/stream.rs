//! Output as server-sent events, until the run has ended. Not here: pages (`output`). Invariant: the id of an
//! event says how far the reader is in each attempt, so a client that comes back with `Last-Event-ID` misses and repeats
//! nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{Api, wait};
use crate::views::{self, OutputItem, OutputSeen};

/// Pieces read at a time.
const PIECES: usize = 500;
/// Something is sent at least this often, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the last piece of output may come after the end of the run.
const LAST_PIECE: Duration = Duration::from_secs(2);
/// Messages that may wait for a slow reader.
const WAITING_MAX: usize = 8;

/// The body: what a task sends.
struct Messages(mpsc::Receiver<Bytes>);

impl futures_core::Stream for Messages {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|message| message.map(Ok))
    }
}

/// Starts a stream.
pub(super) fn follow(api: &Arc<Api>, run: String, attempt: Option<i32>, seen: OutputSeen) -> Response {
    let (sender, messages) = mpsc::channel(WAITING_MAX);
    let follower = Follower { api: Arc::clone(api), run, attempt, seen, sender };
    tokio::spawn(follower.run());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Body::from_stream(Messages(messages))).into_response()
}

struct Follower {
    api: Arc<Api>,
    run: String,
    attempt: Option<i32>,
    seen: OutputSeen,
    sender: mpsc::Sender<Bytes>,
}

impl Follower {
    /// Sends until the run has ended, the client is gone or the service ends.
    async fn run(mut self) {
        let mut commits = self.api.progress.commits();
        let mut ended_at: Option<Duration> = None;
        loop {
            commits.mark_unchanged();
            let Some((pieces, state, is_ended, is_complete)) = self.look().await else { return };
            let is_full = pieces.len() == PIECES;
            let text = self.text_of(&pieces);
            if !text.is_empty() && !self.send(text).await {
                return;
            }
            if is_full {
                continue;
            }
            let now = self.api.clock.monotonic();
            if is_ended {
                let since = now.saturating_sub(*ended_at.get_or_insert(now));
                if is_complete || since >= LAST_PIECE {
                    let end = json!({"id": self.run, "state": state});
                    self.send(format!("event: end\ndata: {end}\n\n")).await;
                    return;
                }
            }
            if !self.wait(&mut commits, is_ended).await {
                return;
            }
        }
    }

    /// New pieces, the state of the run, whether it has ended, and whether all of its output is there.
    async fn look(&self) -> Option<(Vec<OutputItem>, String, bool, bool)> {
        let (run, attempt, seen) = (self.run.clone(), self.attempt, self.seen.clone());
        let read = self.api.read(move |connection| {
            let Some((state, is_ended)) = views::run_state(connection, &run)? else { return Ok(None) };
            let pieces = views::unseen(connection, &run, attempt, &seen, PIECES)?;
            let is_complete = is_ended && views::is_complete(connection, &run)?;
            Ok(Some((pieces, state, is_ended, is_complete)))
        });
        read.await.ok().flatten()
    }

    /// Waits until there may be something new; false if nobody listens any more.
    async fn wait(&self, commits: &mut watch::Receiver<u64>, is_ended: bool) -> bool {
        let time = if is_ended { LAST_PIECE } else { KEEP_ALIVE };
        let is_going_on = tokio::select! {
            is_going_on = wait::next_commit(&self.api, commits, time) => is_going_on,
            () = self.sender.closed() => false,
        };
        // A comment, if it was the time that ran out; it also finds out whether the client is still there.
        let is_quiet = commits.has_changed().is_ok_and(|has| !has) && !is_ended;
        is_going_on
            && (!is_quiet || self.sender.try_send(Bytes::from_static(b":\n\n")).is_ok() || !self.sender.is_closed())
    }

    async fn send(&self, text: String) -> bool {
        self.sender.send(Bytes::from(text)).await.is_ok()
    }

    /// Pieces as events, each with how far the reader is by it.
    fn text_of(&mut self, pieces: &[OutputItem]) -> String {
        let events = pieces.iter().map(|piece| {
            self.seen.see(piece.at);
            format!("id: {}\nevent: output\ndata: {}\n\n", self.seen, piece.document())
        });
        events.collect()
    }
}
