//! What an HTTP target must obey. Not here: where it may go, which each runner's settings say. Invariant: a target without
//! complaints can be sent as it is, up to what templates and secrets put into it.

use super::check_spec::check_placeholders;
use crate::http_status;
use crate::job::HttpTarget;
use crate::job_event::FieldError;

/// Headers that the runner or the connection sets.
const RESERVED: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "idempotency-key"];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

pub(super) fn check(http: &HttpTarget, errors: &mut Vec<FieldError>) {
    if !METHODS.contains(&http.method.as_str()) {
        let message = format!("is no method; use one of {}", METHODS.join(", "));
        errors.push(FieldError::new("spec.run.http.method", &http.method, message));
    }
    check_url(&http.url, errors);
    for (name, value) in &http.headers {
        check_header(name, value.value.as_deref(), value.secret_ref.as_deref(), errors);
    }
    check_placeholders("spec.run.http.body", &http.body, errors);
    for (index, text) in http.success.iter().enumerate() {
        if let Err(message) = http_status::parse(text) {
            errors.push(FieldError::new(format!("spec.run.http.success[{index}]"), text, message));
        }
    }
}

fn check_url(url: &str, errors: &mut Vec<FieldError>) {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let message = match host {
        None => "must begin with http:// or https://",
        Some("") => "names no host",
        Some(host) if host.contains('@') => {
            "carries a user and maybe a password; put them into a header with `secretRef`"
        }
        Some(_) if url.contains(|character: char| character.is_whitespace() || character.is_control()) => {
            "holds a blank or a control character; write %20 for a blank"
        }
        Some(_) => return,
    };
    errors.push(FieldError::new("spec.run.http.url", url, message));
}

fn check_header(name: &str, value: Option<&str>, secret: Option<&str>, errors: &mut Vec<FieldError>) {
    let field = format!("spec.run.http.headers.{name}");
    // RFC 9110, section 5.6.2.
    let is_token = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || !name.chars().all(is_token) {
        errors.push(FieldError::new(field.clone(), name.escape_debug(), "is no name of a header"));
    } else if RESERVED.contains(&lower.as_str()) || lower.starts_with("orloj-") {
        errors.push(FieldError::new(field.clone(), name, "is set by the runner; remove it"));
    }
    match (value, secret) {
        (Some(value), None) => {
            if value.contains(|character: char| character.is_control() && character != '\t') {
                errors.push(FieldError::new(
                    field.clone(),
                    value.escape_debug(),
                    "holds a control character; remove it",
                ));
            }
            check_placeholders(&field, value, errors);
        }
        (None, Some(secret)) => {
            let is_allowed =
                |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
            if secret.is_empty() || secret.starts_with('.') || !secret.chars().all(is_allowed) {
                let message = "is no name of a secret; use letters, digits, `-`, `_` and `.`";
                errors.push(FieldError::new(format!("{field}.secretRef"), secret.escape_debug(), message));
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            errors.push(FieldError::new(field, "", "is either a text or a `secretRef`"));
        }
    }
}
