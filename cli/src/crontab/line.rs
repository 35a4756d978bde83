//! One line of a crontab: nothing, an assignment, or an entry, as cron tells them apart. Not here: what the
//! fields mean. Invariant: a line that starts like an assignment is one, exactly as cron's `load_env` has it.

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Blank, or a comment.
    Nothing,
    /// `NAME = value`.
    Variable {
        /// Its name, without quotes.
        name: String,
        /// Its value, without quotes.
        value: String,
    },
    /// A time and a command.
    Entry(Entry),
}

/// A time and a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Five fields with single spaces between them, or a word such as `@daily`.
    pub(super) schedule: String,
    /// The user column.
    pub(super) user: Option<String>,
    /// All that follows, `%` and all.
    pub(super) command: String,
    /// Marked with `-`: not to be logged.
    pub(super) is_quiet: bool,
}

pub(super) fn read(text: &str, has_user_column: bool) -> Result<Line, String> {
    let text = text.trim_start();
    if text.trim_end().is_empty() || text.starts_with('#') {
        return Ok(Line::Nothing);
    }
    if let Some((name, value)) = assignment(text) {
        return Ok(Line::Variable { name, value });
    }
    entry(text, has_user_column).map(Line::Entry)
}

/// `NAME=value` with blanks around `=` and quotes around either, or nothing.
fn assignment(text: &str) -> Option<(String, String)> {
    let (name, rest) = match quoted(text) {
        Some(found) => found,
        None => text.split_at(text.find(|character: char| character == '=' || character.is_whitespace())?),
    };
    let value = rest.trim_start().strip_prefix('=')?.trim();
    if name.is_empty() {
        return None;
    }
    let value = match quoted(value) {
        Some((inner, "")) => inner,
        Some(_) | None => value,
    };
    Some((name.to_owned(), value.to_owned()))
}

/// The text within the quotes at the start, and what follows them.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|character| matches!(character, '"' | '\''))?;
    text[1..].split_once(quote)
}

fn entry(text: &str, has_user_column: bool) -> Result<Entry, String> {
    let is_quiet = text.starts_with('-');
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let schedule = if rest.starts_with('@') {
        known_word(take_word(&mut rest))?.to_owned()
    } else {
        let fields: Vec<&str> = (0..5).map(|_| take_word(&mut rest)).filter(|field| !field.is_empty()).collect();
        if fields.len() < 5 {
            return Err(format!("has {} of the five time fields and no command", fields.len()));
        }
        if let Some(field) = fields.iter().find(|field| field.contains('~')) {
            return Err(format!(
                "`{field}` asks for a random time; write `H` in its place, which is spread but stable"
            ));
        }
        fields.join(" ")
    };
    let user = if has_user_column { Some(user_of(take_word(&mut rest))?) } else { None };
    let command = rest.trim();
    if command.is_empty() {
        return Err("has no command".to_owned());
    }
    Ok(Entry { schedule, user, command: command.to_owned(), is_quiet })
}

fn take_word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    word
}

fn known_word(word: &str) -> Result<&str, String> {
    match word {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => Ok(word),
        "@reboot" => Err("@reboot means the start of one machine, and there is none here; \
            use a unit of the machine's init system, or give it a time"
            .to_owned()),
        "@every_minute" => Err("@every_minute is known to BSD only; write `* * * * *`".to_owned()),
        other => Err(format!(
            "`{other}` is no time that cron knows; write five fields, or @hourly, @daily, @weekly, @monthly, @yearly"
        )),
    }
}

fn user_of(word: &str) -> Result<String, String> {
    let is_allowed = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '$' | ':');
    let is_start = |character: char| character.is_alphabetic() || character == '_';
    if word.starts_with(is_start) && word.chars().all(is_allowed) {
        Ok(word.to_owned())
    } else if word.is_empty() {
        Err("has neither user nor command".to_owned())
    } else {
        Err(format!("`{word}` is no user; the sixth field of a system crontab names one"))
    }
}
