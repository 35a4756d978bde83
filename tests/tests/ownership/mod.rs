//! What the ownership tests share: topics of their own for each case, processes that own shards, and the check of
//! what they have written. Invariant: the check reads what was committed, and nothing a process says counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orloj_domain::id::Incarnation;
use orloj_domain::owner::OwnerRecord;
use orloj_domain::time::Timestamp;
use orloj_runtime::codec;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::{BatchWriter, Isolation, Log, NewRecord, Record, TopicPartition, TopicSpec};
use orloj_tests::broker::Broker;
use orloj_tests::wait::{until, within};

/// Longest wait for anything; several brokers start and stop beside each other on two cores.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);
/// Session of the members: how long a dead one keeps its share.
pub(super) const SESSION: Duration = Duration::from_secs(3);
pub(super) const SHARDS: i32 = 4;
const SLOTS: &str = "slots";
/// What owners write and no restore reads.
pub(super) const ECHOES: &str = "echoes";
/// What claimers write for owners.
pub(super) const CLAIMS: &str = "claims";
/// The first id of a claimer that is gone, as owner processes look for it.
pub(super) const CLAIM_ID: &str = "claimers.gone.0";
/// Key of the records up to which everything is read back.
const END_KEY: &str = "__end";
/// What slots hold that no owner has written.
const GHOSTS_VALUE: &[u8] = b"ghost";

/// One case: its topics on a broker.
pub(super) struct Arena {
    pub(super) name: String,
    bootstrap: String,
    prefix: String,
    log: KafkaLog,
    /// Session of the processes started from now on.
    pub(super) session: Duration,
}

impl Arena {
    pub(super) fn new(broker: &Broker, name: &str) -> Self {
        Self::on(broker.bootstrap(), name)
    }

    /// As [`Arena::new`], on whatever is at this address; one copy of each partition.
    pub(super) fn on(bootstrap: &str, name: &str) -> Self {
        static CASES: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("case{}.", CASES.fetch_add(1, Ordering::SeqCst));
        let bootstrap = bootstrap.to_owned();
        // What is left open here is to be ended by owners, not by its time-out.
        let timeout = ("transaction.timeout.ms".to_owned(), PATIENCE.as_millis().to_string());
        let properties = BTreeMap::from([("bootstrap.servers".to_owned(), bootstrap.clone()), timeout]);
        let log = KafkaLog::connect(KafkaConfig { properties, prefix: prefix.clone() }).expect("a log");
        for topic in [SLOTS, "input", "owners", ECHOES, CLAIMS] {
            let settings = BTreeMap::new();
            let spec = TopicSpec { name: topic.to_owned(), partitions: SHARDS, replication: 1, settings };
            log.create_topic(&spec).expect("a topic");
        }
        let inputs = (0..SHARDS * 3).map(|index| NewRecord::new("input", index % SHARDS, "key", Some(vec![1])));
        log.appender().map(|mut appender| appender.append(inputs.collect())).expect("appender").expect("inputs");
        Self { name: name.to_owned(), bootstrap, prefix, log, session: SESSION }
    }

    /// Starts a process; `pause` arms one of its points.
    pub(super) fn start(&self, pause: Option<&str>) -> Process {
        let session = self.session.as_millis().to_string();
        let shards = SHARDS.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_owner_process"));
        command.args([&self.bootstrap, &self.prefix, &shards, &session]);
        command.env_remove("ORLOJ_PAUSE").envs(pause.map(|pause| ("ORLOJ_PAUSE", pause)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the process starts");
        let said = Lines::default();
        said.follow(child.stdout.take().expect("piped"));
        said.follow(child.stderr.take().expect("piped"));
        let stdin = child.stdin.take();
        Process { child, stdin, said }
    }

    /// Leaves a transaction open on every shard's slots, under an id that a claim in the owners topic names, and says
    /// there whether that owner has released its shards. Answers the writer, which is not one of a service.
    pub(super) fn leave_open(&self, incarnation: &str, slot: &str, is_released: bool) -> Box<dyn BatchWriter> {
        let id = format!("{incarnation}.0");
        let writer = self.stage(&id, slot);
        let claim = codec::encode(&OwnerRecord {
            incarnation: Incarnation::new(incarnation).expect("an incarnation"),
            producer_ids: vec![format!("{}{id}", self.prefix)],
            generation: 1,
            member: "gone".to_owned(),
            host: "nowhere".to_owned(),
            since: Timestamp::from_millis(0),
        });
        let record = |shard, value| NewRecord::new("owners", shard, incarnation, value);
        let mut records: Vec<NewRecord> = (0..SHARDS).map(|shard| record(shard, Some(claim.clone()))).collect();
        if is_released {
            records.extend((0..SHARDS).map(|shard| record(shard, None)));
        }
        self.log.appender().expect("an appender").append(records).expect("owner records");
        writer
    }

    /// Writes a slot of every shard under an id of its own, and does not say whether that counts.
    pub(super) fn stage(&self, id: &str, slot: &str) -> Box<dyn BatchWriter> {
        let mut writer = self.log.batch_writer(id).expect("a writer");
        let record = |shard| NewRecord::new(SLOTS, shard, slot, Some(GHOSTS_VALUE.to_vec()));
        writer.stage((0..SHARDS).map(record).collect()).expect("staged");
        writer
    }

    /// As [`Arena::stage`], a record of every shard in one of the other topics.
    pub(super) fn stage_in(&self, topic: &str, id: &str) -> Box<dyn BatchWriter> {
        let mut writer = self.log.batch_writer(id).expect("a writer");
        let record = |shard| NewRecord::new(topic, shard, "key", Some(GHOSTS_VALUE.to_vec()));
        writer.stage((0..SHARDS).map(record).collect()).expect("staged");
        writer
    }

    /// A topic by its full name.
    pub(super) fn full_name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The topic of slots by its full name.
    pub(super) fn slots(&self) -> String {
        self.full_name(SLOTS)
    }

    /// Whether everything that was written of a shard's slots can be read.
    pub(super) fn is_readable(&self, shard: i32) -> bool {
        self.is_readable_in(SLOTS, shard)
    }

    /// Whether everything that was written of a shard can be read.
    pub(super) fn is_readable_in(&self, topic: &str, shard: i32) -> bool {
        let at = TopicPartition::new(topic, shard);
        let end = |isolation| until("an end", PATIENCE, || self.log.end(&at, isolation).ok());
        end(Isolation::Uncommitted) == end(Isolation::Committed)
    }

    /// How often a slot of a shard that was written by [`Arena::stage`] can be read.
    pub(super) fn count_staged(&self, shard: i32, slot: &str) -> usize {
        let records = self.read(SLOTS, shard, Isolation::Committed);
        let is_it = |record: &&Record| record.key_text() == Some(slot) && record.value.as_deref() == Some(GHOSTS_VALUE);
        records.iter().filter(is_it).count()
    }

    /// How many records that [`Arena::stage_in`] wrote can be read of a shard.
    pub(super) fn count_in(&self, topic: &str, shard: i32) -> usize {
        let records = self.read(topic, shard, Isolation::Committed);
        records.iter().filter(|record| record.value.as_deref() == Some(GHOSTS_VALUE)).count()
    }

    /// Waits until every shard has some more slots.
    pub(super) fn progress(&self, why: &str) {
        const OFFSETS: i64 = 12;
        let start = self.ends();
        let what = format!("{}: progress of every shard {why}", self.name);
        let is_on = within(PATIENCE, || {
            let is_on = self.ends().iter().zip(&start).all(|(now, start)| *now >= start + OFFSETS);
            is_on.then_some(())
        });
        assert!(is_on.is_some(), "waited in vain: {what}; from {start:?} to {:?}", self.ends());
    }

    fn ends(&self) -> Vec<i64> {
        let end = |shard| self.log.end(&TopicPartition::new(SLOTS, shard), Isolation::Committed);
        (0..SHARDS).map(|shard| end(shard).unwrap_or(0)).collect()
    }

    /// Reads everything back: each slot of each shard exactly once, in order and without a gap; no id under two
    /// incarnations; nobody left who has not released. Everyone must have left.
    pub(super) fn check(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for shard in 0..SHARDS {
            let records = self.read(SLOTS, shard, Isolation::Committed);
            let decided: Vec<&Record> =
                records.iter().filter(|record| record.key_text() != Some("__barrier")).collect();
            for (expected, record) in decided.iter().enumerate() {
                let found = record.key_text().expect("a slot");
                assert_eq!(found, expected.to_string(), "{}: shard {shard}: slot at {}", self.name, record.offset);
            }
            assert!(!decided.is_empty(), "{}: shard {shard}: nothing was decided", self.name);
            verdict.decisions += decided.len();
            let gaps = decided.windows(2).map(|pair| pair[1].timestamp.since(pair[0].timestamp));
            verdict.longest_gap = gaps.max().unwrap_or_default().max(verdict.longest_gap);
        }
        self.check_owners();
        verdict
    }

    fn check_owners(&self) {
        let mut owner_of_id: BTreeMap<String, String> = BTreeMap::new();
        for shard in 0..SHARDS {
            let mut unreleased = BTreeSet::new();
            // As a successor reads them: what was refused or never decided counts too.
            for record in self.read("owners", shard, Isolation::Uncommitted) {
                let incarnation = record.key_text().expect("an incarnation").to_owned();
                let Some(value) = &record.value else {
                    unreleased.remove(&incarnation);
                    continue;
                };
                unreleased.insert(incarnation.clone());
                let claim: OwnerRecord = codec::decode(value).expect("an owner record");
                assert!(claim.generation >= 0 && !claim.member.is_empty(), "{}: void membership: {claim:?}", self.name);
                for id in claim.producer_ids {
                    let owner = owner_of_id.entry(id).or_insert_with(|| incarnation.clone());
                    assert_eq!(*owner, incarnation, "{}: an id came back", self.name);
                }
            }
            assert!(unreleased.is_empty(), "{}: shard {shard}: never released: {unreleased:?}", self.name);
        }
    }

    /// Everything up to a record written for that: what stands at the end may be marks of transactions and what they
    /// aborted, which no reader is shown.
    fn read(&self, topic: &str, shard: i32, isolation: Isolation) -> Vec<Record> {
        let at = TopicPartition::new(topic, shard);
        let mut appender = self.log.appender().expect("an appender");
        let written = appender.append(vec![NewRecord::new(topic, shard, END_KEY, Some(Vec::new()))]);
        let end = written.expect("all brokers are there")[0].offset;
        let mut reader = self.log.reader(isolation).expect("a reader");
        reader.read_from(&[(at.clone(), 0)]).expect("reading");
        let mut records: Vec<Record> = Vec::new();
        let is_read = within(PATIENCE, || {
            records.extend(reader.poll(10_000, Duration::from_secs(1)).expect("records"));
            records.last().is_some_and(|last| last.offset >= end).then_some(())
        });
        assert!(is_read.is_some(), "{}: {at}: can't be read up to {end}", self.name);
        records.retain(|record| record.key_text() != Some(END_KEY));
        records
    }
}

/// What a case has shown.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) decisions: usize,
    pub(super) longest_gap: Duration,
}

/// Lines that a process has written, of both kinds.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn follow(&self, stream: impl Read + Send + 'static) {
        let lines = self.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                note_phase(&line);
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A process that owns shards; killed when dropped.
pub(super) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Lines,
}

impl Process {
    /// How many lines hold `text`.
    pub(super) fn count(&self, text: &str) -> usize {
        self.said.get().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until more than `before` lines hold `text`.
    pub(super) fn wait_for(&self, text: &str, before: usize) {
        let found = within(PATIENCE, || (self.count(text) > before).then_some(()));
        assert!(found.is_some(), "waited in vain for `{text}`; the process said:\n{}", self.said.get().join("\n"));
    }

    /// Waits until it has ended by itself or by a signal.
    pub(super) fn wait_for_end(&mut self) -> ExitStatus {
        let said = self.said.clone();
        let status = within(PATIENCE, || self.child.try_wait().expect("our own child"));
        status.unwrap_or_else(|| panic!("it does not end; it said:\n{}", said.get().join("\n")))
    }

    /// Waits for its death at the armed point.
    pub(super) fn wait_for_death(&mut self, point: &str) {
        let status = self.wait_for_end();
        assert_eq!(status.signal(), Some(9), "not killed at {point}:\n{}", self.said.get().join("\n"));
        assert_eq!(self.count(&format!("pause point {point}")), 1);
    }

    /// Waits until it stands still at the armed point.
    pub(super) fn wait_for_stop(&self, point: &str) {
        self.wait_for(&format!("pause point {point}"), 0);
        let stat = format!("/proc/{}/stat", self.child.id());
        until("the process to stand still", PATIENCE, || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            (state == Some('T')).then_some(())
        });
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(super) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_for_end();
    }

    /// Asks it to leave and waits for the end; it must end well.
    pub(super) fn leave(mut self) -> Vec<String> {
        self.stdin = None;
        let status = self.wait_for_end();
        assert!(status.success(), "{status}; it said:\n{}", self.said.get().join("\n"));
        self.said.get()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"));
        kill(pid, signal).expect("our own child, not yet reaped");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said.get();
            println!("--- a process said last:\n{}", said[said.len().saturating_sub(80)..].join("\n"));
        }
        // Nothing is left to do about an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs every case, `width` at a time, and reports them all before the first failure ends the test.
pub(super) fn side_by_side<T: Sync>(width: usize, cases: &[T], run: impl Fn(&T) -> (String, Verdict) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (name, verdict) = run(case);
                    println!("{name}: {verdict:?}");
                }
            });
        }
    });
    print_phases();
}

static PHASES: Mutex<BTreeMap<String, Vec<u64>>> = Mutex::new(BTreeMap::new());

/// Keeps how long a phase of a takeover took, if the line says so.
fn note_phase(line: &str) {
    let field = |name: &str| line.split_once(name)?.1.split([' ', '"']).find(|text| !text.is_empty());
    if let (true, Some(phase), Some(duration)) =
        (line.contains("takeover phase done"), field("phase="), field("duration_ms="))
    {
        let mut phases = PHASES.lock().unwrap_or_else(PoisonError::into_inner);
        phases.entry(phase.to_owned()).or_default().extend(duration.parse::<u64>());
    }
}

/// Prints how long the phases of all takeovers of this process took so far.
pub(super) fn print_phases() {
    let phases = PHASES.lock().unwrap_or_else(PoisonError::into_inner);
    for (phase, durations) in phases.iter() {
        let mut sorted = durations.clone();
        sorted.sort_unstable();
        let at = |share: usize| sorted[(sorted.len() - 1) * share / 100];
        println!("{phase}: {} times, p50 {} ms, p99 {} ms", sorted.len(), at(50), at(99));
    }
}
