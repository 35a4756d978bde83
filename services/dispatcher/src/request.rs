//! What was asked for: the request of a run as far as the dispatcher looks at it, and its record byte for byte. Not here:
//! where the run is (`run`). Invariant: what is written of a request is what was read of it; that its runs share most of it
//! changes nothing.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::hedge;
use orloj_domain::id::{HttpHost, JobId, LimitName, QueueName, RunId};
use orloj_domain::job::{Delivery, HttpCompletion, OverlapPolicy, RetryPolicy, RunSpec, Target};
use orloj_domain::limit::host_of_url;
use orloj_domain::overlap;
use orloj_domain::run::RecordHeader;
use orloj_domain::time::Timestamp;

use crate::bytes::{Packer, Unpacker};
use crate::difference::{self, Known, Pattern};
use crate::shares::Shares;

/// What the requests of one job and version have in common, as far as the dispatcher looks at it. Shared by its runs.
#[derive(Debug)]
pub struct Terms {
    /// The job; also the key of the request's record.
    pub job: JobId,
    /// The definition version.
    pub version: i64,
    /// The queue.
    pub queue: QueueName,
    /// What a run does while other runs of the job are live.
    pub overlap: OverlapPolicy,
    /// 0 lowest ..= 9 highest.
    pub priority: i32,
    /// Limits that it shares with other jobs.
    pub limits: Vec<LimitName>,
    /// The host and port of its HTTP target.
    pub host: Option<HttpHost>,
    /// Labels that a runner must have; empty: any runner of the queue.
    pub runner_labels: BTreeMap<String, String>,
    /// Most live runs of the job, where the policy asks for that.
    pub concurrency: Option<i32>,
    /// How long after it was due a run must have ended.
    pub deadline: Option<Duration>,
    /// When a failed attempt is followed by another.
    pub retry: RetryPolicy,
    /// What a lost attempt means.
    pub delivery: Delivery,
    /// It sends a request or a message, which can't be taken back.
    pub is_request: bool,
    /// Its target may say later how an attempt ended.
    pub awaits_callback: bool,
    /// After how long a second attempt is put beside one that has not ended.
    pub hedge_after: Option<Duration>,
    /// The fire time of the request that these terms were taken from.
    pub(crate) base: Timestamp,
    /// Headers of that request.
    headers: Vec<u8>,
    /// Value of that request.
    value: Pattern,
}

impl Terms {
    fn of(decision: &FireDecision, spec: &RunSpec, headers: Vec<u8>, value: Pattern) -> Self {
        Self {
            job: decision.job.clone(),
            version: decision.version,
            queue: spec.queue.clone(),
            overlap: spec.overlap.clone(),
            priority: spec.priority,
            limits: spec.limits.clone(),
            host: host(&spec.target),
            runner_labels: spec.runner_labels.clone(),
            concurrency: spec.concurrency,
            deadline: spec.deadline_ms.map(millis),
            retry: spec.retry.clone(),
            delivery: spec.delivery,
            is_request: is_request(&spec.target),
            awaits_callback: awaits_callback(&spec.target),
            hedge_after: hedge::after(spec),
            base: decision.fire_time,
            headers,
            value,
        }
    }

    /// True if a decision asks under the same terms.
    pub(crate) fn are_of(&self, decision: &FireDecision, spec: &RunSpec) -> bool {
        (&self.job, self.version) == (&decision.job, decision.version)
            && (&self.queue, &self.overlap, self.concurrency) == (&spec.queue, &spec.overlap, spec.concurrency)
            && (self.deadline, self.delivery) == (spec.deadline_ms.map(millis), spec.delivery)
            && (&self.retry, self.is_request) == (&spec.retry, is_request(&spec.target))
            && (self.priority, &self.limits) == (spec.priority, &spec.limits)
            && (self.awaits_callback, &self.host) == (awaits_callback(&spec.target), &host(&spec.target))
            && (self.hedge_after, &self.runner_labels) == (hedge::after(spec), &spec.runner_labels)
    }

    /// True if they say the same, whichever request they were taken from.
    fn say_the_same(&self, other: &Self) -> bool {
        (&self.job, self.version) == (&other.job, other.version)
            && (&self.queue, &self.overlap, self.concurrency) == (&other.queue, &other.overlap, other.concurrency)
            && (self.deadline, self.delivery) == (other.deadline, other.delivery)
            && (&self.retry, self.is_request) == (&other.retry, other.is_request)
            && (self.priority, &self.limits, self.awaits_callback)
                == (other.priority, &other.limits, other.awaits_callback)
            && (&self.host, self.hedge_after) == (&other.host, other.hedge_after)
            && self.runner_labels == other.runner_labels
    }
}

/// What was asked for: the terms, which read as its own, what is of this request alone, and its record byte for byte.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) terms: Arc<Terms>,
    /// The run.
    pub run_id: RunId,
    /// What caused it.
    pub trigger: TriggerKind,
    /// Its nominal instant.
    pub fire_time: Timestamp,
    /// When the trigger decided.
    pub requested_at: Timestamp,
    /// Wait between request and first attempt.
    pub start_delay: Duration,
    /// The trigger waits for the end.
    pub reports_end: bool,
    /// Offset in `fires`.
    pub offset: i64,
    /// What sets its headers and value apart from those of the terms.
    pub(crate) difference: Box<[u8]>,
}

impl Deref for Request {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// By what it says: requests whose bytes were taken apart differently are the same.
impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        let own = |request: &Self| {
            let instants = (request.fire_time, request.requested_at, request.start_delay);
            (request.run_id, request.trigger, instants, request.reports_end, request.offset)
        };
        let is_same_record = || {
            let is_same = Arc::ptr_eq(&self.terms, &other.terms) && self.difference == other.difference;
            is_same || self.record() == other.record()
        };
        own(self) == own(other) && self.terms.say_the_same(&other.terms) && is_same_record()
    }
}

impl Request {
    /// The request that a decision makes, with the headers and the value of its record; `None` if it lacks what a run needs.
    #[must_use]
    pub fn of(
        decision: &FireDecision,
        offset: i64,
        headers: &[RecordHeader],
        value: &[u8],
        shares: &Shares,
    ) -> Option<Self> {
        let (Decision::Requested, Some(run_id), Some(spec)) = (decision.decision, decision.run_id, &decision.spec)
        else {
            return None;
        };
        let known = Known::of(run_id, decision.fire_time, decision.decided_at);
        let headers = packed_headers(headers);
        let terms =
            shares.terms(decision, spec, || Terms::of(decision, spec, headers.clone(), Pattern::of(value, &known)));
        let mut difference = Packer::default();
        difference::pack(&mut difference, &headers, &terms.headers);
        difference::pack(&mut difference, value, &terms.value.expected(&known));
        Some(Self {
            terms,
            run_id,
            trigger: decision.trigger,
            fire_time: decision.fire_time,
            requested_at: decision.decided_at,
            start_delay: millis(spec.start_delay_ms),
            reports_end: decision.reports_end,
            offset,
            difference: difference.into_bytes().into(),
        })
    }

    /// Headers and value of its record, byte for byte.
    #[must_use]
    pub fn record(&self) -> (Vec<RecordHeader>, Vec<u8>) {
        let known = Known::of(self.run_id, self.fire_time, self.requested_at);
        let mut difference = Unpacker::new(&self.difference);
        let headers = difference::unpack(&mut difference, self.terms.headers.clone());
        let value = difference::unpack(&mut difference, self.terms.value.expected(&known));
        (unpacked_headers(&headers), value)
    }

    /// The value of its record, byte for byte.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        self.record().1
    }

    /// Most runs of the job that take up room beside and with this one.
    #[must_use]
    pub fn room(&self) -> usize {
        overlap::room(self.overlap.policy, self.concurrency)
    }
}

fn packed_headers(headers: &[RecordHeader]) -> Vec<u8> {
    let mut packer = Packer::default();
    for header in headers {
        packer.bytes(header.key.as_bytes());
        packer.bytes(&header.value);
    }
    packer.into_bytes()
}

fn unpacked_headers(packed: &[u8]) -> Vec<RecordHeader> {
    let mut unpacker = Unpacker::new(packed);
    let mut headers = Vec::new();
    while !unpacker.is_empty() {
        headers.push(RecordHeader { key: unpacker.text().to_owned(), value: unpacker.bytes().to_vec() });
    }
    headers
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn awaits_callback(target: &Target) -> bool {
    matches!(target, Target::HttpTarget(target) if target.completion == HttpCompletion::Callback)
}

fn host(target: &Target) -> Option<HttpHost> {
    match target {
        // Nothing is put into a URL: it is as it stands in the definition.
        Target::HttpTarget(target) => host_of_url(&target.url),
        Target::ExecTarget(_) | Target::ShellTarget(_) | Target::KafkaTarget(_) | Target::HandlerTarget(_) => None,
    }
}

fn is_request(target: &Target) -> bool {
    matches!(target, Target::HttpTarget(_) | Target::KafkaTarget(_))
}
