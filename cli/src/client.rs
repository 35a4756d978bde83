//! The HTTP API as the commands use it: one call, one answer, or a failure with its exit code. Not here: what
//! the answers mean. Invariant: whatever goes wrong is said in words that name the next step.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::exit::{Code, Failure};

/// How often a server that is not ready yet is asked again, and how long after.
const NOT_READY_TRIES_MAX: u32 = 100;
const NOT_READY_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for an answer; long polls ask for less.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest body that is read, in bytes.
const BODY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Items asked for at a time.
const PAGE: usize = 500;

/// A server and how to talk to it.
pub(crate) struct Client {
    agent: Agent,
    server: String,
    token: Option<String>,
}

/// What a write was answered with.
#[derive(Debug)]
pub(crate) struct Written {
    /// The answer's document; null if it has none.
    pub(crate) body: Value,
    /// `Log-Position`: where the log took it.
    pub(crate) position: Option<String>,
}

impl Client {
    /// A client of `server`; nothing is sent yet.
    pub(crate) fn new(server: &str, token: Option<String>) -> Result<Self, Failure> {
        let server = server.trim_end_matches('/').to_owned();
        if !server.starts_with("http://") {
            return Err(Failure::usage(format!("--server is `{server}`; write an address that starts with http://")));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .user_agent(concat!("orloj/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), server, token })
    }

    /// Reads one document.
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut response = self.get_response(path, query, "application/json")?;
        let text = text_of(&mut response)?;
        serde_json::from_str(&text).map_err(|error| self.no_api(&format!("GET {path} answered no JSON: {error}")))
    }

    /// Reads whatever is there as the media type asked for; a failure if the server refuses.
    pub(crate) fn get_response(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &str,
    ) -> Result<Response<Body>, Failure> {
        self.answer(|| {
            let mut request = self.agent.get(self.url(path, query)).header("Accept", accept);
            if let Some(token) = &self.token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if accept == "text/event-stream" {
                // A stream has no end of its own; it lasts as long as the person watches.
                request = request.config().timeout_global(None).build();
            }
            request.call()
        })
    }

    /// Reads all items of a list, page by page, `max` at most.
    pub(crate) fn items(&self, path: &str, query: &[(&str, &str)], max: usize) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        while items.len() < max {
            let limit = PAGE.min(max - items.len()).to_string();
            let mut page_query = query.to_vec();
            page_query.push(("limit", &limit));
            if let Some(cursor) = &cursor {
                page_query.push(("cursor", cursor));
            }
            let mut page = self.get(path, &page_query)?;
            let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) else {
                return Err(self.no_api(&format!("GET {path} answered no list")));
            };
            items.extend(found);
            cursor = page.get("nextCursor").and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        items.truncate(max);
        Ok(items)
    }

    /// Replaces a document.
    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Written, Failure> {
        self.written(|| {
            let request = self.agent.put(self.url(path, &[])).header("Accept", "application/json");
            self.authorized(request).send_json(body)
        })
    }

    /// Asks for something; the same key twice asks once.
    pub(crate) fn post(&self, path: &str, key: &str, body: &Value) -> Result<Written, Failure> {
        self.written(|| {
            let request = self.agent.post(self.url(path, &[])).header("Accept", "application/json");
            self.authorized(request.header("Idempotency-Key", key)).send_json(body)
        })
    }

    /// Removes a document.
    pub(crate) fn delete(&self, path: &str) -> Result<Written, Failure> {
        self.written(|| {
            let mut request = self.agent.delete(self.url(path, &[])).header("Accept", "application/json");
            if let Some(token) = &self.token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            request.call()
        })
    }

    fn authorized(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    ) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        let pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
        let separator = if pairs.is_empty() { "" } else { "?" };
        format!("{}{path}{separator}{}", self.server, pairs.join("&"))
    }

    fn written(&self, send: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<Written, Failure> {
        let mut response = self.answer(send)?;
        let position = response.headers().get("Log-Position").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let text = text_of(&mut response)?;
        Ok(Written { body: serde_json::from_str(&text).unwrap_or(Value::Null), position })
    }

    /// Sends, and sends again while the server says that it is not ready yet: right after its start it still
    /// reads what is in the log. Nothing was done by a request that was answered so.
    fn answer(&self, send: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
        let mut tries = 0;
        loop {
            let mut response = send().map_err(|error| self.no_answer(&error))?;
            let status = response.status().as_u16();
            if status < 300 {
                return Ok(response);
            }
            if status == 503 && tries < NOT_READY_TRIES_MAX {
                tries += 1;
                std::thread::park_timeout(NOT_READY_PAUSE);
                continue;
            }
            let text = text_of(&mut response).unwrap_or_default();
            return Err(refused(status, &text));
        }
    }

    fn no_answer(&self, error: &ureq::Error) -> Failure {
        let server = &self.server;
        if matches!(error, ureq::Error::Timeout(_)) {
            return Failure::new(Code::TimedOut, format!("{server} did not answer in time: {error}"));
        }
        if matches!(error, ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return Failure::error(format!(
                "nothing listens at {server}; start Orloj with `orloj dev`, or name another server with --server or \
                 ORLOJ_SERVER"
            ));
        }
        Failure::error(format!("{server} can't be reached: {error}; name another server with --server or ORLOJ_SERVER"))
    }

    fn no_api(&self, problem: &str) -> Failure {
        Failure::error(format!("{}: {problem}; is it an Orloj server of this version?", self.server))
    }
}

fn text_of(response: &mut Response<Body>) -> Result<String, Failure> {
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).lossy_utf8(true);
    body.read_to_string().map_err(|error| Failure::error(format!("the answer broke off: {error}")))
}

/// A problem document (RFC 9457) as a failure.
fn refused(status: u16, text: &str) -> Failure {
    let problem: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let word = |name: &str| problem.get(name).and_then(Value::as_str);
    let mut message =
        word("detail").or(word("title")).map_or_else(|| format!("the server answered {status}"), str::to_owned);
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        message.push_str("\n  ");
        message.push_str(&field_error(error));
    }
    let code = match status {
        400 | 413 | 415 | 422 => Code::Usage,
        401 | 403 => Code::Refused,
        404 | 410 => Code::NotFound,
        409 | 412 | 428 => Code::Conflict,
        408 | 504 => Code::TimedOut,
        _ => Code::Error,
    };
    Failure::new(code, message)
}

/// One complaint as a line: `field: message (found `value`)`.
pub(crate) fn field_error(error: &Value) -> String {
    let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("");
    let found = if word("value").is_empty() { String::new() } else { format!(" (found `{}`)", word("value")) };
    format!("{}: {}{found}", word("field"), word("message"))
}

/// Encodes all but what RFC 3986 calls unreserved.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_become_failures_with_their_code() {
        for (status, text, code, said) in [
            (404, r#"{"title": "Not Found", "detail": "there is no job a/b"}"#, Code::NotFound, "there is no job a/b"),
            (412, "{}", Code::Conflict, "the server answered 412"),
            (403, "not json", Code::Refused, "the server answered 403"),
            (
                422,
                r#"{"detail": "bad", "errors": [{"field": "spec.x", "value": "1", "message": "no"}]}"#,
                Code::Usage,
                "bad\n  spec.x: no (found `1`)",
            ),
            (500, r#"{"title": "Oops"}"#, Code::Error, "Oops"),
        ] {
            let failure = refused(status, text);
            assert_eq!((failure.code, failure.message.as_str()), (code, said));
        }
    }

    #[test]
    fn nothing_listening_says_how_to_start() {
        let client = Client::new("http://127.0.0.1:9", None).expect("a client");
        let failure = client.get("/api/v1/jobs", &[]).expect_err("refused");
        assert_eq!(failure.code, Code::Error);
        assert!(failure.message.contains("orloj dev") && failure.message.contains("--server"), "{failure}");
        assert!(Client::new("ftp://x", None).is_err());
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(percent_encoded("a b/ü+1"), "a%20b%2F%C3%BC%2B1");
    }
}
