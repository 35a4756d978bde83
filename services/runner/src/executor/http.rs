//! One HTTP request as an attempt. Not here: where it may go (`egress`), how its target calls back (`callback`), what a failure
//! leads to (dispatcher). Invariant: one request is sent, to one place, and no redirect is followed; how it ended is data, and
//! no secret is part of it.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::callback::CallbackDigest;
use orloj_domain::http_status;
use orloj_domain::job::{HeaderValue as Text, HttpCompletion, HttpTarget};
use orloj_domain::runner::OutputStream;
use orloj_domain::time::Timestamp;
use orloj_runtime::clock::{Clock as _, SystemClock};
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Request, Response, StatusCode, Url};
use tokio::time::Instant;

use super::callback::{Callback, Ends, Veil, completion};
use super::egress::{CheckedResolver, Egress};
use super::process::{Abort, Sink};
use super::template::{AttemptFacts, fill, told};
use crate::secrets::Secrets;

/// Longest wait for a connection, and for the next byte of an answer that has begun. Until it begins, the attempt's timeout
/// is the only limit: a target may work for long before it answers.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How much of an answer is kept.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What all requests of a runner share.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
    egress: Arc<Egress>,
    secrets: Secrets,
    /// Where targets reach the API.
    callback_url: Option<String>,
    /// For what an answer means by a date, if it does not say what its server's clock shows.
    clock: SystemClock,
}

impl Http {
    /// # Errors
    /// When the system's certificates can't be used.
    pub(crate) fn new(allowed: &[String], secrets: Secrets, callback_url: Option<String>) -> Result<Self, String> {
        let egress = Arc::new(Egress::new(allowed));
        let client = Client::builder()
            .user_agent(concat!("orloj/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would look names up where nobody checks them.
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .dns_resolver(Arc::new(CheckedResolver::new(Arc::clone(&egress))))
            .build()
            .map_err(|error| reason(&error))?;
        Ok(Self { client, egress, secrets, callback_url, clock: SystemClock::new() })
    }

    /// # Errors
    /// Why it can't be sent, as a sentence that names field and fix.
    fn request(
        &self,
        target: &HttpTarget,
        facts: &AttemptFacts,
        callback: Option<&Callback>,
    ) -> Result<Request, String> {
        let complaint = |field: &str, message: &str| format!("spec.run.http.{field}: {message}");
        let method = Method::from_bytes(target.method.as_bytes())
            .map_err(|_| complaint("method", &format!("`{}` is no method", target.method.escape_debug())))?;
        let url: Url = target.url.parse().map_err(|error| complaint("url", &format!("`{}`: {error}", target.url)))?;
        self.egress.check_host(url.host_str().unwrap_or_default()).map_err(|message| complaint("url", &message))?;
        let mut headers = HeaderMap::new();
        for (name, text) in &target.headers {
            let field = format!("headers.{name}");
            let value = self.header(text, facts).map_err(|message| complaint(&field, &message))?;
            put(&mut headers, name, &value, text.secret_ref.is_some())
                .map_err(|message| complaint(&field, &message))?;
        }
        for (name, value) in told(facts) {
            put(&mut headers, &name, &value, false).map_err(|message| complaint("headers", &message))?;
        }
        let base = self.callback_url.as_deref();
        for (name, value, is_secret) in callback.iter().flat_map(|callback| callback.headers(base)) {
            put(&mut headers, name, &value, is_secret).map_err(|message| complaint("completion", &message))?;
        }
        let body = fill(&target.body, facts).map_err(|message| complaint("body", &message))?;
        let mut request = Request::new(method, url);
        *request.headers_mut() = headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        Ok(request)
    }

    fn header(&self, text: &Text, facts: &AttemptFacts) -> Result<String, String> {
        match (&text.secret_ref, &text.value) {
            (Some(secret), _) => self.secrets.get(secret),
            (None, Some(value)) => fill(value, facts),
            (None, None) => Err("has neither a text nor a `secretRef`".to_owned()),
        }
    }
}

fn put(headers: &mut HeaderMap, name: &str, value: &str, is_secret: bool) -> Result<(), String> {
    let no_name = |_| format!("`{}` is no name of a header", name.escape_debug());
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(no_name)?;
    let mut value = HeaderValue::from_str(value)
        .or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
        .map_err(|_| format!("the value of `{name}` holds a control character"))?;
    value.set_sensitive(is_secret);
    headers.insert(name, value);
    Ok(())
}

/// Sends the request, reads its answer and, if that leaves the end to a callback, waits for it. `on_started` is called before
/// the first byte is sent, with what may be seen of the callback's token; `ends` gives it up or ends it.
pub(crate) async fn execute(
    http: &Http,
    (target, facts): (&HttpTarget, &AttemptFacts),
    timeout: Duration,
    ends: Ends<impl Future<Output = Abort>>,
    on_started: impl FnOnce(Option<CallbackDigest>),
    sink: &mut impl Sink,
) -> Outcome {
    let callback = (target.completion == HttpCompletion::Callback).then(|| Callback::new(facts));
    let request = match http.request(target, facts, callback.as_ref()) {
        Ok(request) => request,
        Err(problem) => return Outcome { is_final: true, ..Outcome::new(OutcomeKind::NotStarted, problem) },
    };
    on_started(callback.as_ref().map(Callback::digest));
    let mut veil = Veil::over(callback.as_ref());
    let mut is_accepted = false;
    let outcome = tokio::select! {
        biased;
        outcome = completion(ends.completed) => outcome,
        abort = ends.abort => Outcome::new(abort.kind, abort.reason),
        () = tokio::time::sleep(timeout) => {
            let what = if is_accepted { "no callback came within" } else { "it took longer than" };
            Outcome::new(OutcomeKind::TimedOut, format!("given up: {what} its timeout of {timeout:?}"))
        }
        outcome = exchange(http, target, request, (&mut is_accepted, &mut veil), sink) => outcome,
    };
    show_rest(&mut veil, sink);
    outcome
}

/// Hands on what was held back of the answer because the token might have begun there.
fn show_rest(veil: &mut Veil, sink: &mut impl Sink) {
    let rest = veil.rest();
    if !rest.is_empty() {
        sink.push(OutputStream::Stdout, &rest);
    }
}

/// `is_accepted` is set once the answer has left the end to a callback; there is no outcome then.
async fn exchange(
    http: &Http,
    target: &HttpTarget,
    request: Request,
    (is_accepted, veil): (&mut bool, &mut Veil),
    sink: &mut impl Sink,
) -> Outcome {
    let answer = match http.client.execute(request).await {
        Ok(answer) => answer,
        Err(error) => return not_answered(&error),
    };
    let outcome = judged(target, &answer, veil, http.clock.now());
    sink.note(&format!("[orloj] {:?} {}", answer.version(), answer.status()));
    *is_accepted = target.completion == HttpCompletion::Callback && answer.status() == StatusCode::ACCEPTED;
    let kept = keep(answer, veil, sink).await;
    show_rest(veil, sink);
    if *is_accepted {
        // The status has said it; what is lost of the answer changes nothing.
        if let Err(error) = kept {
            sink.note(&format!("[orloj] the answer broke off: {error}"));
        }
        sink.note("[orloj] the target has accepted the work: its callback says how it ends");
        match waited(sink).await {}
    }
    match kept {
        Ok(()) => outcome,
        Err(error) => Outcome {
            http_status: outcome.http_status,
            ..Outcome::new(OutcomeKind::Failed, format!("the answer broke off: {error}"))
        },
    }
}

/// Hands on what was noted, for as long as the callback is waited for.
async fn waited(sink: &mut impl Sink) -> Infallible {
    loop {
        sleep_until(sink.flush_at()).await;
        sink.flush();
    }
}

/// What an answer means, by its status and headers.
fn judged(target: &HttpTarget, answer: &Response, veil: &Veil, now: Timestamp) -> Outcome {
    let status = answer.status();
    let code = Some(i32::from(status.as_u16()));
    if http_status::is_success(&target.success, status.as_u16()) {
        return Outcome { http_status: code, ..Outcome::new(OutcomeKind::Succeeded, "") };
    }
    let place =
        answer.headers().get(LOCATION).and_then(|place| place.to_str().ok()).filter(|_| status.is_redirection());
    let message = match place {
        Some(place) => {
            format!("HTTP {status}: it sends on to {place}, and redirects are not followed; name that as the `url`")
        }
        None => format!("HTTP {status}"),
    };
    Outcome {
        http_status: code,
        retry_after_ms: retry_after(answer.headers(), status, now),
        is_final: !http_status::is_retryable(status.as_u16()),
        ..Outcome::new(OutcomeKind::Failed, veil.text(message))
    }
}

/// When the target asks for the next attempt, as RFC 9110, section 10.2.3, has it: seconds or a date.
fn retry_after(headers: &HeaderMap, status: StatusCode, now: Timestamp) -> Option<i64> {
    let text = headers.get(RETRY_AFTER).filter(|_| !status.is_success())?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1000).filter(|millis| *millis >= 0);
    }
    let date = http_date(text)?;
    // By the target's own clock, if it says what that shows; RFC 9110, section 6.6.1, lets a server that has none leave it out.
    let shown = headers.get(DATE).and_then(|shown| http_date(shown.to_str().ok()?));
    i64::try_from(date.since(shown.unwrap_or(now)).as_millis()).ok()
}

fn http_date(text: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from(date))
}

/// Keeps the beginning of the answer as output, as it comes.
async fn keep(mut answer: Response, veil: &mut Veil, sink: &mut impl Sink) -> Result<(), String> {
    let mut left = ANSWER_BYTES_MAX;
    let mut heard_at = Instant::now();
    loop {
        let due = sink.flush_at();
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk.map_err(|error| reason(&error))?,
            () = tokio::time::sleep_until(heard_at + SILENCE_MAX) => {
                return Err(format!("nothing came for {SILENCE_MAX:?}"));
            }
            () = sleep_until(due) => {
                sink.flush();
                continue;
            }
        };
        let Some(chunk) = chunk else { return Ok(()) };
        heard_at = Instant::now();
        let kept = chunk.len().min(left);
        sink.push(OutputStream::Stdout, &veil.pass(&chunk[..kept]));
        left -= kept;
        if kept < chunk.len() {
            sink.note(&format!("[orloj] the answer is kept up to {ANSWER_BYTES_MAX} bytes"));
            return Ok(());
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn not_answered(error: &reqwest::Error) -> Outcome {
    let reason = reason(error);
    if reason.contains(super::egress::REFUSED) {
        let problem = format!("spec.run.http.url: {reason}");
        return Outcome { is_final: true, ..Outcome::new(OutcomeKind::NotStarted, problem) };
    }
    Outcome::new(OutcomeKind::Failed, format!("no answer: {reason}"))
}

/// The innermost cause, which says most; the URL is left out, since it may hold what is not for everybody.
fn reason(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = None;
    while let Some(inner) = cause {
        text = Some(inner.to_string());
        cause = inner.source();
    }
    let what = if error.is_timeout() { "timed out: " } else { "" };
    match text {
        Some(text) => format!("{what}{text}"),
        None => format!("{what}{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_meant_by_the_targets_clock_and_else_by_ours() {
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().expect("an instant");
        let later = "Sun, 06 Nov 1994 08:50:07 GMT";
        for (asked, shown, expected) in [
            ("7", None, Some(7000)),
            ("-7", None, None),
            ("soon", None, None),
            (later, Some("Sun, 06 Nov 1994 08:50:06 GMT"), Some(1000)),
            (later, None, Some(30_000)),
            (later, Some("no date"), Some(30_000)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None, Some(0)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
            if let Some(shown) = shown {
                headers.insert(DATE, HeaderValue::from_static(shown));
            }
            let found = retry_after(&headers, StatusCode::SERVICE_UNAVAILABLE, now);
            assert_eq!(found, expected, "{asked} {shown:?}");
            assert_eq!(retry_after(&headers, StatusCode::ACCEPTED, now), None);
        }
    }
}
