//! HTTP targets that say later how their attempt ended: what they are told, what ends the wait, and what never shows.

use orloj_domain::attempt::{AttemptEventType, Outcome, OutcomeKind, ReadyAttempt};
use orloj_domain::callback::{AttemptId, CallbackDigest, CallbackToken};
use orloj_domain::fire::FireDecision;
use orloj_domain::job::{HttpCompletion, HttpTarget, Target};
use orloj_domain::runner::{OutputStream, RunnerMessage, RunnerMessageType};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::NewRecord;

use crate::http::{Server, bed, target};
use crate::support::{Bed, ready, record, text_of};
use crate::words::word;

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 6\r\n\r\nqueued";

fn attempt(name: &str, server: &Server) -> ReadyAttempt {
    let target = HttpTarget { completion: HttpCompletion::Callback, ..target(&server.url) };
    ready(name, Target::HttpTarget(target))
}

/// What the dispatcher passes on of a callback.
fn completion(bed: &Bed, attempt: &ReadyAttempt, outcome: &Outcome) -> NewRecord {
    let record = word(bed, attempt, RunnerMessageType::Complete, attempt.token, "r1");
    let message: RunnerMessage = codec::decode(record.value.as_deref().expect("a value")).expect("a message");
    let message = RunnerMessage { outcome: Some(outcome.clone()), reason: None, ..message };
    NewRecord { value: Some(codec::encode(&message)), ..record }
}

/// Waits until the answer 202 was taken.
fn wait_accepted(bed: &Bed, attempt: &ReadyAttempt) {
    bed.wait_for("an answer", || {
        text_of(&bed.outputs(attempt.run_id), OutputStream::Runner).contains("has accepted the work").then_some(())
    });
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn with_timeout(mut attempt: ReadyAttempt, timeout_ms: i64) -> ReadyAttempt {
    let mut decision: FireDecision = codec::decode(&attempt.request).expect("a request");
    std::sync::Arc::make_mut(decision.spec.as_mut().expect("a spec")).timeout_ms = timeout_ms;
    attempt.request = codec::encode(&decision);
    attempt
}

#[test]
fn an_accepted_attempt_ends_as_its_callback_says() {
    let server = Server::answering(ACCEPTED);
    let bed = Bed::start(|config| {
        config.http_allow = vec!["127.0.0.0/8".to_owned()];
        config.callback_url = Some("https://orloj.example.com/".to_owned());
    });
    let attempt = attempt("later", &server);
    bed.append(record(&attempt));
    let request = server.requests.recv().expect("a request");
    let id = AttemptId { run_id: attempt.run_id, attempt: 1 };
    let path = id.callback_path();
    assert_eq!(header(&request, "Orloj-Attempt-Id"), Some(id.to_string().as_str()));
    assert_eq!(header(&request, "Orloj-Callback-Path"), Some(path.as_str()));
    assert_eq!(header(&request, "Orloj-Callback-Url"), Some(format!("https://orloj.example.com{path}").as_str()));
    let token = header(&request, "Orloj-Callback-Token").expect("a token").to_owned();
    let started = bed.report(attempt.run_id, AttemptEventType::Started);
    let digest: CallbackDigest = started.callback_digest.expect("a digest").parse().expect("readable");
    assert!(CallbackToken::new(&token).expect("a token").digest().is_same(&digest));

    wait_accepted(&bed, &attempt);
    assert!(bed.events(attempt.run_id).iter().all(|event| event.kind != AttemptEventType::Finished));
    let said = Outcome { is_final: true, ..Outcome::new(OutcomeKind::Failed, "no such tenant") };
    bed.append(completion(&bed, &attempt, &said));
    // Said twice, and otherwise: the first counts.
    bed.append(completion(&bed, &attempt, &Outcome::new(OutcomeKind::Succeeded, "")));
    assert_eq!(bed.outcome(attempt.run_id), said);
    let finished = bed.events(attempt.run_id).into_iter().filter(|event| event.kind == AttemptEventType::Finished);
    assert_eq!(finished.count(), 1);
    assert_eq!(text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout), "queued");
    for name in [topic::ATTEMPT_EVENTS, topic::ATTEMPT_OUTPUT, topic::RUNNER_HEARTBEATS, "run.ready.default"] {
        for found in bed.records(name) {
            let value = found.value.unwrap_or_default();
            assert!(!String::from_utf8_lossy(&value).contains(&token), "a token is in {name}");
        }
    }
}

#[test]
fn a_callback_that_comes_before_the_answer_counts() {
    let (answer, may_answer) = std::sync::mpsc::channel::<()>();
    let server = Server::new(move |_| {
        let _ = may_answer.recv();
    });
    let bed = bed();
    let attempt = attempt("early", &server);
    bed.append(record(&attempt));
    server.requests.recv().expect("a request");
    let said = Outcome::new(OutcomeKind::Succeeded, "done already");
    bed.append(completion(&bed, &attempt, &said));
    assert_eq!(bed.outcome(attempt.run_id), said);
    drop(answer);
}

#[test]
fn the_timeout_and_a_cancel_end_the_wait() {
    let server = Server::answering(ACCEPTED);
    let bed = bed();
    let slow = with_timeout(attempt("slow", &server), 300);
    bed.append(record(&slow));
    let outcome = bed.outcome(slow.run_id);
    assert_eq!(outcome.kind, OutcomeKind::TimedOut);
    assert!(outcome.message.expect("a message").contains("no callback came"));

    let cancelled = attempt("cancelled", &server);
    bed.append(record(&cancelled));
    wait_accepted(&bed, &cancelled);
    bed.append(word(&bed, &cancelled, RunnerMessageType::Cancel, cancelled.token, "r1"));
    assert_eq!(bed.outcome(cancelled.run_id).kind, OutcomeKind::Cancelled);
}

#[test]
fn a_target_that_repeats_what_it_was_sent_tells_nobody_the_token() {
    let (sender, heard) = std::sync::mpsc::channel::<String>();
    let server = Server::new(move |stream| {
        let request = heard.recv().expect("the request");
        let length = request.len();
        let answer = format!("HTTP/1.1 500 Oh\r\nContent-Length: {length}\r\n\r\n{request}");
        // In two pieces, cut within the token.
        let cut = answer.to_ascii_lowercase().find("orloj-callback-token").expect("repeated") + 40;
        for piece in [&answer[..cut], &answer[cut..]] {
            drop(std::io::Write::write_all(stream, piece.as_bytes()));
        }
    });
    let bed = bed();
    let attempt = attempt("echo", &server);
    bed.append(record(&attempt));
    let request = server.requests.recv().expect("a request");
    let token = header(&request, "Orloj-Callback-Token").expect("a token").to_owned();
    sender.send(request).expect("it listens");
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Failed);
    let said = text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout);
    assert!(said.contains("(hidden)") && !said.contains(&token), "{said}");
}

#[test]
fn other_answers_and_other_targets_are_judged_as_ever() {
    let bed = bed();
    for (name, answer, kind) in [
        ("done", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", OutcomeKind::Succeeded),
        ("busy", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", OutcomeKind::Failed),
    ] {
        let server = Server::answering(answer);
        let attempt = attempt(name, &server);
        bed.append(record(&attempt));
        assert_eq!(bed.outcome(attempt.run_id).kind, kind, "{name}");
    }
    let server = Server::answering(ACCEPTED);
    let plain = ready("plain", Target::HttpTarget(target(&server.url)));
    bed.append(record(&plain));
    let outcome = bed.outcome(plain.run_id);
    assert_eq!((outcome.kind, outcome.http_status), (OutcomeKind::Succeeded, Some(202)));
    let request = server.requests.recv().expect("a request");
    assert!(!request.to_ascii_lowercase().contains("orloj-callback"), "{request}");
    assert!(bed.has_started(plain.run_id));
    assert!(bed.events(plain.run_id).iter().all(|event| event.callback_digest.is_none()));
}
