//! The `%` of crontabs: the first one ends the command, the others are line ends of its standard input, and `\%`
//! is a percent sign. Not here: shells. Invariant: character by character what Debian's cron does.

/// The command for the shell, and what it reads on standard input.
pub(super) fn split_input(text: &str) -> (String, String) {
    let mut script = String::with_capacity(text.len());
    let mut rest = text.chars();
    let mut is_escaped = false;
    for character in rest.by_ref() {
        match character {
            '%' if is_escaped => {
                script.pop();
                script.push('%');
            }
            '%' => return (script, input(rest.as_str())),
            other => script.push(other),
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    (script, String::new())
}

/// Ends with a line end, as cron adds one.
fn input(text: &str) -> String {
    let mut input = String::with_capacity(text.len() + 1);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'%') => {
                characters.next();
                input.push('%');
            }
            '%' => input.push('\n'),
            other => input.push(other),
        }
    }
    if !input.is_empty() && !input.ends_with('\n') {
        input.push('\n');
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_mean_what_cron_makes_of_them() {
        for (text, script, stdin) in [
            ("date", "date", ""),
            (r"date +\%F", "date +%F", ""),
            ("mail -s hi joe%Dear Joe,%%Bye%", "mail -s hi joe", "Dear Joe,\n\nBye\n"),
            ("cat%one", "cat", "one\n"),
            (r"cat%100\% sure", "cat", "100% sure\n"),
            ("cat%", "cat", ""),
            (r"echo \\%in", r"echo \\", "in\n"),
            (r"echo \n \\ \", r"echo \n \\ \", ""),
            ("%only", "", "only\n"),
        ] {
            assert_eq!(split_input(text), (script.to_owned(), stdin.to_owned()), "{text}");
        }
    }
}
