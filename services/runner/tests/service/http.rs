//! HTTP targets against servers that answer well, badly or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind, ReadyAttempt};
use orloj_domain::fire::FireDecision;
use orloj_domain::job::{HeaderValue, HttpCompletion, HttpTarget, Target};
use orloj_domain::runner::OutputStream;
use orloj_runtime::codec;

use crate::support::{Bed, ready, record, text_of};

/// A server that handles one connection after the other as a script says; requests come back by a channel.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) requests: Receiver<String>,
}

impl Server {
    pub(crate) fn new(script: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/run", listener.local_addr().expect("an address"));
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                if hear(&stream, &sender) {
                    script(&mut stream);
                }
            }
        });
        Self { url, requests }
    }

    /// One that always answers the same.
    pub(crate) fn answering(answer: &'static str) -> Self {
        Self::new(move |stream| drop(stream.write_all(answer.as_bytes())))
    }
}

/// Reads a request with its body; false if nobody listens to what it was.
fn hear(stream: &TcpStream, requests: &Sender<String>) -> bool {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        request.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    request.push_str(&String::from_utf8_lossy(&body));
    requests.send(request).is_ok()
}

pub(crate) fn target(url: &str) -> HttpTarget {
    HttpTarget {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: BTreeMap::new(),
        body: String::new(),
        success: vec!["200-299".to_owned()],
        completion: HttpCompletion::Response,
    }
}

fn attempt(name: &str, target: HttpTarget) -> ReadyAttempt {
    ready(name, Target::HttpTarget(target))
}

pub(crate) fn bed() -> Bed {
    Bed::start(|config| config.http_allow = vec!["127.0.0.0/8".to_owned()])
}

/// Runs an attempt against a server to its end.
fn outcome(bed: &Bed, name: &str, server: &Server) -> Outcome {
    let attempt = attempt(name, target(&server.url));
    bed.append(record(&attempt));
    bed.outcome(attempt.run_id)
}

#[test]
fn a_request_says_what_it_is_about_and_its_answer_is_kept() {
    let server = Server::answering("HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\nhello\n");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "hush-hush\n").expect("a file");
    let bed = Bed::start(|config| {
        config.http_allow = vec!["127.0.0.0/8".to_owned()];
        config.secrets_dir = Some(folder.path().to_path_buf());
    });
    let header = |value: Option<&str>, secret: Option<&str>| HeaderValue {
        value: value.map(str::to_owned),
        secret_ref: secret.map(str::to_owned),
    };
    let target = HttpTarget {
        method: "PUT".to_owned(),
        headers: [
            ("Authorization".to_owned(), header(None, Some("token"))),
            ("X-Run".to_owned(), header(Some("{{run.id}}#{{run.attempt}}"), None)),
        ]
        .into(),
        body: r#"{"job":"{{job}}"}"#.to_owned(),
        ..target(&server.url)
    };
    let attempt = attempt("polite", target);
    bed.append(record(&attempt));
    let outcome = bed.outcome(attempt.run_id);
    assert_eq!((outcome.kind, outcome.http_status), (OutcomeKind::Succeeded, Some(201)), "{outcome:?}");
    let request = server.requests.recv().expect("a request");
    let lower = request.to_ascii_lowercase();
    let run = attempt.run_id;
    for part in [
        "put /run http/1.1".to_owned(),
        "authorization: hush-hush".to_owned(),
        format!("x-run: {run}#1"),
        format!("orloj-run-id: {run}"),
        "orloj-attempt: 1".to_owned(),
        "orloj-fencing-token: 5".to_owned(),
        "orloj-job: test/polite".to_owned(),
        format!("idempotency-key: {run}/1"),
        r#"{"job":"test/polite"}"#.to_owned(),
    ] {
        assert!(lower.contains(&part), "{part} is not in {request}");
    }
    let outputs = bed.outputs(attempt.run_id);
    assert_eq!(text_of(&outputs, OutputStream::Stdout), "hello\n");
    assert!(text_of(&outputs, OutputStream::Runner).contains("201 Created"));
    let everything = format!("{outputs:?}{:?}", bed.events(run));
    assert!(!everything.contains("hush"), "a secret is on the log");
}

#[test]
fn answers_are_judged_by_status() {
    let bed = bed();
    for (name, answer, is_final, retry_after_ms) in [
        ("busy", "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", false, Some(7000)),
        (
            "dated",
            "HTTP/1.1 429 Too Many Requests\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\nContent-Length: 0\r\n\r\n",
            false,
            Some(30_000),
        ),
        (
            "undated",
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\nContent-Length: 0\r\n\r\n",
            false,
            // By our own clock that is past.
            Some(0),
        ),
        ("missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", true, None),
        ("moved", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", true, None),
    ] {
        let outcome = outcome(&bed, name, &Server::answering(answer));
        assert_eq!(outcome.kind, OutcomeKind::Failed, "{outcome:?}");
        assert_eq!((outcome.is_final, outcome.retry_after_ms), (is_final, retry_after_ms), "{name}: {outcome:?}");
        let status: i32 = answer[9..12].parse().expect("a status");
        assert_eq!(outcome.http_status, Some(status));
    }
}

#[test]
fn a_redirect_that_leads_back_is_not_followed() {
    let server = Server::answering("HTTP/1.1 302 Found\r\nLocation: /run\r\nContent-Length: 0\r\n\r\n");
    let bed = bed();
    let outcome = outcome(&bed, "circle", &server);
    assert_eq!((outcome.kind, outcome.http_status), (OutcomeKind::Failed, Some(302)), "{outcome:?}");
    let said = outcome.message.expect("a message");
    assert!(said.starts_with("HTTP 302 Found: it sends on to /run, and redirects are not followed"), "{said}");
    server.requests.recv().expect("a request");
    assert!(server.requests.try_recv().is_err(), "it was followed");
}

#[test]
fn servers_that_misbehave_are_failures_that_may_pass() {
    let bed = bed();
    let endless = |stream: &mut TcpStream| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
        while stream.write_all(b"1000\r\n").and_then(|()| stream.write_all(&[b'x'; 0x1000])).is_ok() {
            if stream.write_all(b"\r\n").is_err() {
                return;
            }
        }
    };
    let shouted = outcome(&bed, "endless", &Server::new(endless));
    assert_eq!(shouted.kind, OutcomeKind::Succeeded, "{shouted:?}");
    for (name, server) in [
        ("lies", Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")),
        ("no-http", Server::answering("SSH-2.0-OpenSSH_9.2\r\n")),
        ("hangs-up", Server::answering("")),
    ] {
        let outcome = outcome(&bed, name, &server);
        assert_eq!((outcome.kind, outcome.is_final), (OutcomeKind::Failed, false), "{name}: {outcome:?}");
        let said = outcome.message.expect("a message");
        assert!(said.starts_with("no answer: ") || said.starts_with("the answer broke off: "), "{said}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let attempt = attempt("nobody", target(&format!("http://{nobody}/")));
    bed.append(record(&attempt));
    let outcome = bed.outcome(attempt.run_id);
    assert!(outcome.message.expect("a message").contains("refused"));
}

/// Begins to answer, and resets the connection once nobody holds the other end of `held`; its URL.
fn resetting(held: Receiver<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/run", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        // A connection that is closed before all that came was read is reset, not ended.
        stream.read_exact(&mut [0_u8]).expect("a request");
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"));
        let _ = held.recv();
    });
    url
}

#[test]
fn a_connection_that_is_reset_within_an_answer_is_a_failure_that_may_pass() {
    let bed = bed();
    let (holder, held) = channel::<()>();
    let attempt = attempt("resets", target(&resetting(held)));
    bed.append(record(&attempt));
    bed.wait_for("what came of the answer", || {
        (text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout) == "half").then_some(())
    });
    drop(holder);
    let outcome = bed.outcome(attempt.run_id);
    let judged = (outcome.kind, outcome.is_final, outcome.http_status);
    assert_eq!(judged, (OutcomeKind::Failed, false, Some(200)), "{outcome:?}");
    let said = outcome.message.expect("a message");
    assert!(said.starts_with("the answer broke off: ") && said.contains("reset"), "{said}");
}

/// A port that accepts nobody, since what waits there has filled its queue; it stays so while this is held.
struct FullPort {
    url: String,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl FullPort {
    fn new() -> Self {
        // The standard library does not let one choose how long the queue is.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _entered = runtime.enter();
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(1).expect("a listener").into_std().expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut waiting = Vec::new();
        // A loopback makes a connection at once or, once the queue is full, not at all.
        let problem = loop {
            match TcpStream::connect_timeout(&address, Duration::from_millis(250)) {
                Ok(stream) => waiting.push(stream),
                Err(problem) => break problem,
            }
            assert!(waiting.len() < 100, "the queue has no end");
        };
        assert_eq!(problem.kind(), ErrorKind::TimedOut, "{problem}");
        Self { url: format!("http://{address}/run"), _listener: listener, _waiting: waiting }
    }
}

/// No job sets how long a connection is waited for, so that this takes the runner's own ten seconds.
#[test]
fn a_server_that_accepts_nobody_is_a_failure_that_may_pass() {
    let port = FullPort::new();
    let bed = bed();
    let attempt = attempt("full", target(&port.url));
    bed.append(record(&attempt));
    let outcome = bed.outcome(attempt.run_id);
    assert_eq!((outcome.kind, outcome.is_final), (OutcomeKind::Failed, false), "{outcome:?}");
    let said = outcome.message.expect("a message");
    assert!(said.starts_with("no answer: timed out: "), "{said}");
}

#[test]
fn a_request_is_given_up_at_its_timeout() {
    let bed = bed();
    for (name, beginning, drop_of_it) in [
        ("silent", "", ""),
        ("slow-headers", "HTTP/1.1 200 OK\r\nX-Slow: ", "x"),
        ("drips", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "x"),
    ] {
        let (done, is_done) = channel::<()>();
        let server = Server::new(move |stream| {
            drop(stream.write_all(beginning.as_bytes()));
            // A byte now and then keeps the connection from being silent, where there is one.
            while is_done.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout)
                && stream.write_all(drop_of_it.as_bytes()).is_ok()
            {}
        });
        let mut attempt = attempt(name, target(&server.url));
        let mut decision: FireDecision = codec::decode(&attempt.request).expect("a request");
        std::sync::Arc::make_mut(decision.spec.as_mut().expect("a spec")).timeout_ms = 300;
        attempt.request = codec::encode(&decision);
        bed.append(record(&attempt));
        let outcome = bed.outcome(attempt.run_id);
        assert_eq!((outcome.kind, outcome.is_final), (OutcomeKind::TimedOut, false), "{name}: {outcome:?}");
        let said = outcome.message.expect("a message");
        assert!(said.contains("it took longer than its timeout of 300ms"), "{name}: {said}");
        drop(done);
    }
}

#[test]
fn nothing_goes_where_jobs_may_not_go() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let bed = Bed::start(|_| {});
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    for (name, url) in [
        ("address", server.url.clone()),
        ("name", format!("http://localhost:{port}")),
        ("mapped", format!("http://[::ffff:127.0.0.1]:{port}")),
        ("short", format!("http://127.1:{port}")),
        ("number", format!("http://2130706433:{port}")),
        ("metadata", "http://169.254.169.254/latest/meta-data/".to_owned()),
    ] {
        let attempt = attempt(name, target(&url));
        bed.append(record(&attempt));
        let outcome = bed.outcome(attempt.run_id);
        let said = outcome.message.clone().unwrap_or_default();
        assert_eq!((outcome.kind, outcome.is_final), (OutcomeKind::NotStarted, true), "{url}: {said}");
        assert!(said.contains("spec.run.http.url") && said.contains("runner.http.allow"), "{said}");
    }
    assert!(server.requests.try_recv().is_err(), "something was sent");
}

#[test]
fn what_cannot_be_sent_names_its_field() {
    let bed = bed();
    let secret = HeaderValue { value: None, secret_ref: Some("nobody-knows".to_owned()) };
    let broken = HeaderValue { value: Some("{{params.missing}}".to_owned()), secret_ref: None };
    let with = |name: &str, value: &HeaderValue| HttpTarget {
        headers: [(name.to_owned(), value.clone())].into(),
        ..target("http://127.0.0.1:1/")
    };
    for (name, target, field) in [
        ("secret", with("Authorization", &secret), "spec.run.http.headers.Authorization"),
        ("param", with("X-Param", &broken), "spec.run.http.headers.X-Param"),
        ("header", with("no name", &broken), "spec.run.http.headers.no name"),
        ("url", target("http://[::1"), "spec.run.http.url"),
        ("body", HttpTarget { body: "{{what}}".to_owned(), ..target("http://127.0.0.1:1/") }, "spec.run.http.body"),
    ] {
        let attempt = attempt(name, target);
        bed.append(record(&attempt));
        let outcome = bed.outcome(attempt.run_id);
        let said = outcome.message.unwrap_or_default();
        assert_eq!(outcome.kind, OutcomeKind::NotStarted, "{said}");
        assert!(said.starts_with(field), "{said}");
    }
}
