//! The file: what is forgotten, and what a failed commit leaves. Not here: rebuilds (`tests/rebuild.rs`).
//! Invariant: rows and positions come and go together.

use std::collections::BTreeMap;

use orloj_domain::time::Timestamp;
use orloj_runtime::log::TopicPartition;

use super::Store;
use crate::projections::{Change, DecisionRow, OutputRow, RunRequest, RunStep};

const DAY_MS: i64 = 24 * 3600 * 1000;

fn request(run_id: &str, at: i64) -> Change {
    Change::Requested(Box::new(RunRequest {
        run_id: run_id.to_owned(),
        job: "a/b".to_owned(),
        version: 1,
        trigger: "schedule",
        fire_time: at,
        requested_at: at,
        queue: "default".to_owned(),
        command_id: None,
        actor: None,
        params: "{}".to_owned(),
    }))
}

fn end(run_id: &str, at: i64) -> Change {
    Change::Stepped(Box::new(RunStep {
        run_id: run_id.to_owned(),
        job: "a/b".to_owned(),
        version: 1,
        trigger: "schedule",
        fire_time: at,
        requested_at: at,
        queue: "default".to_owned(),
        state: "succeeded",
        attempt: 1,
        token: 1,
        at,
        due_at: None,
        runner: None,
        outcome: None,
        disposition: None,
        finished_at: Some(at),
        note: None,
        redrives: 0,
        limits: None,
        missing_handler: None,
        missing_runner: None,
    }))
}

fn decision(offset: i64, at: i64) -> Change {
    Change::Decided(Box::new(DecisionRow {
        shard: 0,
        offset,
        job: "a/b".to_owned(),
        version: 1,
        trigger: "schedule",
        fire_time: at,
        range_end: None,
        decision: "requested",
        reason: None,
        run_id: None,
        coalesced_into: None,
        decided_at: at,
        calendars: None,
    }))
}

fn output(run_id: &str) -> Change {
    let (run_id, value) = (run_id.to_owned(), vec![1]);
    Change::Wrote(OutputRow { run_id, token: 1, sequence: 0, attempt: 1, is_last: true, value })
}

fn count(store: &Store, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.connection.query_row(&sql, [], |row| row.get(0)).expect("a count")
}

#[test]
fn old_runs_go_with_all_that_is_theirs_unless_they_live() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(directory.path()).expect("a file").finish().expect("named");
    let changes = [
        request("old", 0),
        end("old", 0),
        output("old"),
        request("live", 0),
        output("live"),
        request("new", 31 * DAY_MS),
        end("new", 31 * DAY_MS),
        decision(0, 0),
        decision(1, 31 * DAY_MS),
    ];
    store.commit(&changes, &BTreeMap::new()).expect("written");
    assert!(!store.forget(Timestamp::from_millis(32 * DAY_MS)).expect("forgotten"));
    assert_eq!((count(&store, "runs"), count(&store, "output"), count(&store, "decisions")), (2, 1, 1));
}

#[test]
fn forgetting_goes_in_slices() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(directory.path()).expect("a file").finish().expect("named");
    let changes: Vec<Change> = (0..700).map(|offset| decision(offset, offset)).collect();
    store.commit(&changes, &BTreeMap::new()).expect("written");
    let now = Timestamp::from_millis(31 * DAY_MS);
    assert!(store.forget(now).expect("a slice"));
    assert_eq!(count(&store, "decisions"), 200);
    assert!(!store.forget(now).expect("the rest"));
    assert_eq!(count(&store, "decisions"), 0);
}

#[test]
fn an_unfinished_build_is_taken_up_where_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let positions = BTreeMap::from([(TopicPartition::new("fires", 0), 9)]);
    let mut store = Store::open(directory.path()).expect("a file");
    assert!(store.is_building() && !store.file().exists());
    store.commit(&[decision(8, 0)], &positions).expect("written");
    drop(store);
    let store = Store::open(directory.path()).expect("the same file");
    assert!(store.is_building());
    assert_eq!(store.positions().expect("readable"), positions);
    let store = store.finish().expect("named");
    assert!(!store.is_building() && store.file().exists());
    drop(store);
    let store = Store::open(directory.path()).expect("the named file");
    assert!(!store.is_building());
    assert_eq!(count(&store, "decisions"), 1);
}
