//! `If-Match` and `If-None-Match` of writes. Not here: reads. Invariant: they are checked against the projection,
//! which may be a moment old; the order of the log decides between two writes that both passed.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::Problem;

/// Checks a write of a job or a setting, `what`, whose version in force is `version`, or which is not there.
pub(super) fn check(headers: &HeaderMap, what: &str, version: Option<i64>) -> Result<(), Problem> {
    if let Some(wanted) = text(headers, &header::IF_MATCH)? {
        let is_match = version.is_some_and(|version| names(wanted, version));
        if !is_match {
            let found = version.map_or_else(
                || format!("the {what} does not exist"),
                |version| format!("its version is \"{version}\""),
            );
            return Err(failed(format!("If-Match asks for {wanted}, and {found}")));
        }
    }
    if let Some(unwanted) = text(headers, &header::IF_NONE_MATCH)?
        && let Some(version) = version.filter(|version| names(unwanted, *version))
    {
        return Err(failed(format!("If-None-Match is {unwanted}, and the {what} exists with version \"{version}\"")));
    }
    Ok(())
}

/// True if a write asks for a version at all.
pub(super) fn are_there(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH)
}

/// The response with the version that writes may ask for.
pub(super) fn tagged(mut response: Response, version: i64) -> Response {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn failed(detail: String) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "preconditionFailed", detail)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value
        .to_str()
        .map(Some)
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "badHeader", format!("{name} is no text")))
}

/// True if a list of entity tags names a version; `*` names all.
fn names(tags: &str, version: i64) -> bool {
    let tag = format!("\"{version}\"");
    tags.trim() == "*" || tags.split(',').any(|given| given.trim() == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_with_the_version() {
        for (name, tags, version, is_good) in [
            (header::IF_MATCH, "\"3\"", Some(3), true),
            (header::IF_MATCH, "\"2\", \"3\"", Some(3), true),
            (header::IF_MATCH, "*", Some(3), true),
            (header::IF_MATCH, "*", None, false),
            (header::IF_MATCH, "\"2\"", Some(3), false),
            (header::IF_NONE_MATCH, "*", None, true),
            (header::IF_NONE_MATCH, "*", Some(1), false),
            (header::IF_NONE_MATCH, "\"2\"", Some(1), true),
        ] {
            let headers = HeaderMap::from_iter([(name.clone(), tags.parse().expect("a header"))]);
            assert_eq!(check(&headers, "job", version).is_ok(), is_good, "{name}: {tags} against {version:?}");
        }
    }
}
