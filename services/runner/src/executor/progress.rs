//! What an attempt says about how far it is: lines `orloj:progress 42 some text` in its output, or `42 some text` on
//! descriptor 3. Not here: how often that is reported. Invariant: memory is bounded whatever comes, and a line that
//! says nothing about progress is left alone.

/// Where an attempt may write how far it is; it is told as `ORLOJ_PROGRESS_FD`.
pub(crate) const PROGRESS_FD: i32 = 3;
/// What such a line in the output begins with.
const PREFIX: &[u8] = b"orloj:progress ";
/// A longer line says nothing about progress.
const LINE_BYTES_MAX: usize = 1024;
/// How much of a line that is not understood is shown.
const SHOWN_BYTES_MAX: usize = 80;

/// Looks for progress in a stream of bytes.
#[derive(Debug)]
pub(crate) struct Scanner {
    prefix: &'static [u8],
    /// What has come of the line so far, while it may still be one of ours.
    line: Vec<u8>,
    is_other: bool,
    /// The first line that was not understood.
    strange: Option<String>,
}

impl Scanner {
    /// For standard output, where a prefix marks the lines.
    pub(crate) fn of_output() -> Self {
        Self { prefix: PREFIX, line: Vec::new(), is_other: false, strange: None }
    }

    /// For the descriptor that nothing else is written to.
    pub(crate) fn of_descriptor() -> Self {
        Self { prefix: b"", ..Self::of_output() }
    }

    /// Takes what was read; answers the last percentage that it completes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<i32> {
        let mut last = None;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.take(piece);
            if piece.ends_with(b"\n") {
                last = self.finish().or(last);
            }
        }
        last
    }

    /// Ends a line, which the end of the stream does too.
    pub(crate) fn finish(&mut self) -> Option<i32> {
        let line = std::mem::take(&mut self.line);
        let is_other = std::mem::take(&mut self.is_other);
        let percent = line.strip_prefix(self.prefix).filter(|_| !is_other).and_then(percent_of);
        if percent.is_none() && self.strange.is_none() && !line.trim_ascii().is_empty() {
            let shown = &line[..line.len().min(SHOWN_BYTES_MAX)];
            self.strange = Some(String::from_utf8_lossy(shown).trim().to_owned());
        }
        percent
    }

    /// The first line that was not understood.
    pub(crate) fn strange(&self) -> Option<&str> {
        self.strange.as_deref()
    }

    fn take(&mut self, piece: &[u8]) {
        if self.is_other {
            return;
        }
        let expected = self.prefix.get(self.line.len()..).unwrap_or_default();
        let is_alike = expected.iter().zip(piece).all(|(wanted, found)| wanted == found);
        self.is_other = !is_alike || self.line.len() + piece.len() > LINE_BYTES_MAX;
        if !self.is_other {
            self.line.extend_from_slice(piece);
        }
    }
}

/// A whole number from 0 to 100, alone or before a text.
fn percent_of(rest: &[u8]) -> Option<i32> {
    let word = rest.trim_ascii_start().split(u8::is_ascii_whitespace).next()?;
    let is_number = (1..=3).contains(&word.len()) && word.iter().all(u8::is_ascii_digit);
    let number: i32 = std::str::from_utf8(word).ok().filter(|_| is_number)?.parse().ok()?;
    (number <= 100).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_say_it_are_progress() {
        for (line, percent) in [
            ("orloj:progress 42 some text\n", Some(42)),
            ("orloj:progress 0\n", Some(0)),
            ("orloj:progress 100\r\n", Some(100)),
            ("orloj:progress   7\tx\n", Some(7)),
            ("orloj:progress 101\n", None),
            ("orloj:progress -1\n", None),
            ("orloj:progress +5\n", None),
            ("orloj:progress 5%\n", None),
            ("orloj:progress 1.5\n", None),
            ("orloj:progress\n", None),
            ("orloj:progress \n", None),
            ("orloj:progressive 5\n", None),
            (" orloj:progress 5\n", None),
            ("42 some text\n", None),
            ("\n", None),
        ] {
            assert_eq!(Scanner::of_output().push(line.as_bytes()), percent, "{line:?}");
        }
        for (line, percent) in
            [("42 some text\n", Some(42)), ("7\n", Some(7)), ("x\n", None), ("orloj:progress 5\n", None)]
        {
            let mut scanner = Scanner::of_descriptor();
            assert_eq!(scanner.push(line.as_bytes()), percent, "{line:?}");
            assert_eq!(scanner.strange().is_some(), percent.is_none(), "{line:?}");
        }
    }

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let text = b"a\norloj:progress 1 x\nb orloj:progress 2\norloj:progress 3\nc\norloj:progress 4";
        for size in 1..text.len() {
            let mut scanner = Scanner::of_output();
            let found: Vec<i32> = text.chunks(size).filter_map(|piece| scanner.push(piece)).collect();
            assert_eq!(found.last(), Some(&3), "in pieces of {size}");
            assert!(found.iter().all(|percent| [1, 3].contains(percent)));
            assert_eq!(scanner.finish(), Some(4), "the last line may have no end");
        }
    }

    #[test]
    fn a_line_without_end_stays_bounded() {
        let mut scanner = Scanner::of_descriptor();
        for _ in 0..10_000 {
            assert_eq!(scanner.push(b"42 and so on "), None);
        }
        assert!(scanner.line.capacity() <= 2 * LINE_BYTES_MAX);
        assert_eq!(scanner.push(b"\n"), None);
        assert_eq!(scanner.push(b"43\n"), Some(43));
    }
}
