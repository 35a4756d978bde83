//! The lines of an iCalendar file, put together where they were folded, and where each property of each event stands:
//! the parser does not say. Not here: what they mean. Invariant: events and properties are in the parser's order.

use super::Refused;

/// An event's place.
#[derive(Debug, Default)]
pub(super) struct Event {
    /// Of its `BEGIN`.
    pub(super) line: usize,
    /// Of each property of its own.
    pub(super) lines: Vec<usize>,
}

/// The lines of a file.
pub(super) struct Lines {
    unfolded: Vec<String>,
    /// Events that are no part of something else.
    pub(super) events: Vec<Event>,
}

impl Lines {
    /// Takes a file apart.
    ///
    /// # Errors
    /// The first line that is no line of such a file.
    pub(super) fn of(text: &str) -> Result<Self, Refused> {
        let mut numbered: Vec<(usize, String)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            match (line.strip_prefix([' ', '\t']), numbered.last_mut()) {
                (Some(rest), Some((_, unfolded))) => unfolded.push_str(rest),
                _ if line.trim().is_empty() => {}
                _ => numbered.push((index + 1, line.to_owned())),
            }
        }
        let mut events = Vec::new();
        let mut open: Vec<(String, usize)> = Vec::new();
        for (line, text) in &numbered {
            let Some((name, value)) = text.split_once([':', ';']) else {
                let reason = format!("`{}` is no line of an iCalendar file: it has no `:`", short(text));
                return Err(Refused { line: *line, reason });
            };
            let inside = |depth: usize| open.len() == depth && open.last().is_some_and(|(name, _)| name == "VEVENT");
            if name.eq_ignore_ascii_case("BEGIN") {
                open.push((value.trim().to_ascii_uppercase(), *line));
                if open.len() == 2 && value.trim().eq_ignore_ascii_case("VEVENT") {
                    events.push(Event { line: *line, lines: Vec::new() });
                }
            } else if name.eq_ignore_ascii_case("END") {
                let is_closed = open.pop().is_some_and(|(name, _)| name.eq_ignore_ascii_case(value.trim()));
                if !is_closed {
                    return Err(Refused { line: *line, reason: format!("`{}` ends what was not begun", short(text)) });
                }
            } else if inside(2)
                && let Some(event) = events.last_mut()
            {
                event.lines.push(*line);
            }
        }
        if let Some((name, line)) = open.last() {
            return Err(Refused { line: *line, reason: format!("BEGIN:{name} has no END") });
        }
        Ok(Self { unfolded: numbered.into_iter().map(|(_, text)| text).collect(), events })
    }

    /// The file with each line whole.
    pub(super) fn unfolded(&self) -> String {
        self.unfolded.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect()
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
