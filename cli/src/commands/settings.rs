//! What calendars, queues and limits have in common in `apply`, `get`, `describe` and `delete`. Not here: what each
//! shows (`calendars`, `limits`). Invariant: whatever is sent next finds those before it in force.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Format};

/// Longest time that one read waits for a position.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A setting to be written.
pub(super) struct Setting<'a> {
    /// `calendar`, `queue` or `limit`.
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    /// Its path in the API.
    pub(super) path: String,
    /// `FILE:LINE`.
    pub(super) origin: &'a str,
    pub(super) manifest: Value,
}

/// Sends a setting and waits until it is in force for readers. What was done is said at once, or is in the answer for a
/// document.
pub(super) fn send(
    client: &Client,
    setting: &Setting<'_>,
    timeout: Duration,
    format: Format,
) -> Result<Value, Failure> {
    let Setting { kind, name, path, origin, manifest } = setting;
    let written = client
        .put(path, manifest)
        .map_err(|failure| Failure::new(failure.code, format!("{origin}: {kind} {name}: {failure}")))?;
    let position =
        written.position.ok_or_else(|| Failure::error(format!("{kind} {name}: the server named no log position")))?;
    let timeout = format!("{}ms", timeout.min(WAIT_MAX).as_millis());
    client.get(path, &[("wait", &position), ("timeout", &timeout)])?;
    let item = json!({*kind: name, "type": "written", "position": position});
    match format {
        Format::Table | Format::Wide => output::print(&format!("{kind} {name} written at {position}"))?,
        Format::Name => output::print(&format!("{kind}/{name}"))?,
        Format::Jsonl => output::print(&item.to_string())?,
        Format::Yaml => output::print(&format!("---\n{}", output::yaml(&[&item])?))?,
        Format::Json => {}
    }
    Ok(item)
}

/// Removes a setting and says what came of it.
pub(super) fn remove(client: &Client, kind: &str, name: &str, path: &str) -> Outcome {
    match client.delete(path) {
        Ok(written) => {
            let position = written.position.unwrap_or_default();
            output::print(&format!("{kind} {name} deleted at {position}"))?;
            Ok(Code::Ok)
        }
        Err(failure) if matches!(failure.code, Code::NotFound | Code::Conflict) => {
            output::note(&format!("error: {}", failure.message));
            Ok(failure.code)
        }
        Err(failure) => Err(failure),
    }
}
