//! A small service for the ownership tests: it writes the slots 0, 1, 2… of each shard that it owns, one decision
//! each, and knows nothing but what it restores. It says on stdout what happens to it, and leaves when its stdin
//! ends, so it never outlives the test. Invariant: memory advances only by what was acknowledged or restored.
//! Arguments: address, prefix, number of shards, session in milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orloj_domain::shard::Shard;
use orloj_runtime::config::LogFormat;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::{
    AppendError, ClaimedInputs, ClaimerName, Log, LogError, NewRecord, Owner, OwnerEvent, OwnerSpec, RestoreRange,
    TakenShard, TopicPartition,
};
use orloj_runtime::telemetry;

const SLOTS: &str = "slots";
const INPUT: &str = "input";
/// Written by owners, read by none.
const ECHOES: &str = "echoes";
/// Written by claimers.
const CLAIMS: &str = "claims";
/// Pause between rounds of decisions.
const ROUND: Duration = Duration::from_millis(15);

/// What is known of one shard.
struct Counter {
    next_slot: u64,
    is_live: bool,
}

fn main() -> ExitCode {
    telemetry::init(LogFormat::Text, "info");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, prefix, shards, session] = arguments.as_slice() else {
        eprintln!("arguments: address prefix shards session-ms");
        return ExitCode::from(2);
    };
    let properties = BTreeMap::from([
        ("bootstrap.servers".to_owned(), bootstrap.clone()),
        ("session.timeout.ms".to_owned(), session.clone()),
    ]);
    let config = KafkaConfig { properties, prefix: prefix.clone() };
    match KafkaLog::connect(config).and_then(|log| run(&log, shards.parse().unwrap_or(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("owner process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(log: &KafkaLog, shards: i32) -> Result<(), LogError> {
    let mut owner = log.own(OwnerSpec {
        service: "counter".to_owned(),
        membership_topic: INPUT.to_owned(),
        owners_topic: "owners".to_owned(),
        restore_topics: vec![SLOTS.to_owned()],
        input_topics: vec![INPUT.to_owned()],
        shared_topics: Vec::new(),
        outputs: vec![ECHOES.to_owned()],
        claimed: Some(ClaimedInputs {
            topics: vec![CLAIMS.to_owned()],
            claimers: |_| Ok(vec![ClaimerName { group: "claimers".to_owned(), member: "gone".to_owned() }]),
            claim_of: |record| record.value.clone(),
        }),
        shards,
    })?;
    let is_ending = watch_stdin(owner.as_ref());
    let mut counters = BTreeMap::new();
    while !is_ending.load(Ordering::SeqCst) {
        match owner.poll(1000, ROUND) {
            Ok(events) => {
                for event in events {
                    handle(owner.as_mut(), &mut counters, event);
                }
            }
            Err(error) => say("error", &error.to_string()),
        }
        decide(owner.as_mut(), &mut counters);
    }
    owner.leave();
    say("left", "");
    Ok(())
}

/// True once stdin has ended; the owner is woken then.
fn watch_stdin(owner: &dyn Owner) -> Arc<AtomicBool> {
    let is_ending = Arc::new(AtomicBool::new(false));
    let (flag, waker) = (is_ending.clone(), owner.waker());
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        flag.store(true, Ordering::SeqCst);
        waker.wake();
    });
    is_ending
}

fn handle(owner: &mut dyn Owner, counters: &mut BTreeMap<Shard, Counter>, event: OwnerEvent) {
    match event {
        OwnerEvent::Taken(taken) => match take_over(owner, &taken) {
            Ok(restored) => {
                say("taken", &format!("{} {}", owner.incarnation(), list(restored.keys().copied())));
                counters.extend(restored);
            }
            Err(error) => {
                say("restore-failed", &error.to_string());
                counters.clear();
                owner.abandon("restore failed");
            }
        },
        OwnerEvent::Revoking(shards) => {
            counters.retain(|shard, _| !shards.contains(shard));
            match owner.release(&shards) {
                Ok(()) => say("released", &list(shards)),
                Err(error) => say("release-failed", &error.to_string()),
            }
        }
        OwnerEvent::Lost { reason } => {
            counters.clear();
            say("lost", &reason);
        }
        OwnerEvent::Records(_) => {}
        OwnerEvent::CaughtUp(at) => {
            if let Some(counter) = counters.get_mut(&Shard(at.partition)) {
                counter.is_live = true;
            }
        }
    }
}

fn take_over(owner: &mut dyn Owner, taken: &[TakenShard]) -> Result<BTreeMap<Shard, Counter>, LogError> {
    let mut counters: BTreeMap<Shard, Counter> =
        taken.iter().map(|taken| (taken.shard, Counter { next_slot: 0, is_live: false })).collect();
    let mut ranges = Vec::new();
    for shard in taken {
        for (topic, until) in &shard.restore_until {
            ranges.push(RestoreRange { at: TopicPartition::new(topic, shard.shard.0), from: 0, until: *until });
        }
    }
    owner.restore(&ranges, &mut |record| {
        let slot = record.key_text().and_then(|key| key.parse::<u64>().ok());
        if let (Some(slot), Some(counter)) = (slot, counters.get_mut(&Shard(record.partition))) {
            counter.next_slot = slot + 1;
        }
    })?;
    let inputs: Vec<_> = taken.iter().map(|taken| (TopicPartition::new(INPUT, taken.shard.0), 0)).collect();
    owner.read_inputs(&inputs)?;
    Ok(counters)
}

/// One slot of each live shard, all in one batch.
fn decide(owner: &mut dyn Owner, counters: &mut BTreeMap<Shard, Counter>) {
    let live = counters.iter().filter(|(_, counter)| counter.is_live);
    let due: BTreeMap<Shard, u64> = live.map(|(shard, counter)| (*shard, counter.next_slot)).collect();
    if due.is_empty() {
        return;
    }
    let author = owner.incarnation();
    let records = due.iter().map(|(shard, slot)| {
        NewRecord::new(SLOTS, shard.0, slot.to_string(), Some(author.as_str().as_bytes().to_vec()))
    });
    let shards: Vec<Shard> = due.keys().copied().collect();
    let records: Vec<NewRecord> = records.collect();
    // In turn by this thread and by the writer's: both are stopped at the same points.
    let is_aside = due.values().sum::<u64>() % 2 == 1;
    let outcome = if is_aside {
        owner.start_append(&shards, records).unwrap_or_else(|| owner.finish_append()).outcome
    } else {
        owner.append(&shards, &records)
    };
    match outcome {
        Ok(_) => {
            for shard in &shards {
                if let Some(counter) = counters.get_mut(shard) {
                    counter.next_slot += 1;
                }
            }
        }
        Err(AppendError::Retriable(reason)) => say("retry", &reason),
        Err(AppendError::Stalled(at)) => say("stalled", &format!("{at:?}")),
        Err(error) => {
            say("refused", &error.to_string());
            counters.clear();
            owner.abandon(&error.to_string());
        }
    }
}

fn list(shards: impl IntoIterator<Item = Shard>) -> String {
    let shards: BTreeSet<Shard> = shards.into_iter().collect();
    shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The test reads these lines; when it is gone there is nobody to tell.
fn say(what: &str, detail: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{what} {detail}").and_then(|()| out.flush());
}
