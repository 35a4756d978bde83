//! What every request passes: a bound on how many there are, who may ask from a browser, and the finish of every
//! answer. Not here: authentication. Invariant: on loopback only names of loopback are answered, so that a page
//! of another site that resolves its name to 127.0.0.1 learns and does nothing; such pages can't write anywhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{Api, Problem};

/// Most requests under way; waits and streams count too.
const UNDER_WAY_MAX: usize = 1024;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Counts a request for as long as it is under way.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let place = Self;
        // Counted before it is compared; what is dropped counts down again.
        (UNDER_WAY.fetch_add(1, Ordering::Relaxed) < UNDER_WAY_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The outermost layer of the API.
pub(super) async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let started_at = api.clock.monotonic();
    let method = request.method().clone();
    let response = guarded(api.listen, request, next).await;
    let elapsed = api.clock.monotonic().saturating_sub(started_at);
    api.counted.answered(method.as_str(), response.status().as_u16(), elapsed);
    response
}

/// The checks, and the finish of the answer.
pub(super) async fn guarded(listen: SocketAddr, request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let mut response = match (Place::take(), check(listen, request.method(), request.headers())) {
        (_, Err(problem)) => problem.response(&instance),
        (None, Ok(())) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests are under way").response(&instance)
        }
        (Some(_place), Ok(())) => next.run(request).await,
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allowed = response.headers().get(header::ALLOW).cloned();
        response = problem.response(&instance);
        if let Some(allowed) = allowed {
            response.headers_mut().insert(header::ALLOW, allowed);
        }
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn check(listen: SocketAddr, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST);
    if listen.ip().is_loopback() && !host.is_some_and(|host| is_loopback_name(host, listen)) {
        let detail = "this server is for this machine only: ask for it as localhost, 127.0.0.1 or [::1]";
        return Err(Problem::new(StatusCode::FORBIDDEN, "hostNotAllowed", detail));
    }
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let Some(origin) = text(header::ORIGIN).filter(|_| !is_read) else { return Ok(()) };
    let is_same =
        origin.split_once("://").is_some_and(|(_, of)| host.is_some_and(|host| of.eq_ignore_ascii_case(host)));
    if is_same {
        return Ok(());
    }
    let detail = "a page of another site may not write here";
    Err(Problem::new(StatusCode::FORBIDDEN, "originNotAllowed", detail))
}

fn is_loopback_name(host: &str, listen: SocketAddr) -> bool {
    let name = match host.rsplit_once(':') {
        // `[::1]` has colons of its own; a port has only digits.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => name,
        Some(_) | None => host,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]" || name == listen.ip().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(listen: &str, method: Method, headers: &[(header::HeaderName, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name.clone(), value.parse().expect("a header"));
        }
        check(listen.parse().expect("an address"), &method, &map).is_ok()
    }

    #[test]
    fn on_loopback_only_its_names_are_answered() {
        for (host, is_good) in [
            ("localhost:1410", true),
            ("LOCALHOST", true),
            ("127.0.0.1:80", true),
            ("[::1]:1410", true),
            ("[::1]", true),
            ("evil.example:1410", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(verdict("127.0.0.1:1410", Method::GET, &[(header::HOST, host)]), is_good, "{host}");
        }
        assert!(!verdict("127.0.0.1:1410", Method::GET, &[]));
        assert!(verdict("0.0.0.0:1410", Method::GET, &[(header::HOST, "orloj.example")]));
    }

    #[test]
    fn pages_of_other_sites_may_not_write() {
        for (method, origin, is_good) in [
            (Method::PUT, "http://localhost:1410", true),
            (Method::PUT, "http://localhost:8080", false),
            (Method::POST, "https://evil.example", false),
            (Method::DELETE, "null", false),
            (Method::GET, "https://evil.example", true),
        ] {
            let headers = [(header::HOST, "localhost:1410"), (header::ORIGIN, origin)];
            assert_eq!(verdict("127.0.0.1:1410", method.clone(), &headers), is_good, "{method} {origin}");
        }
    }
}
