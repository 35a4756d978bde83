//! What is kept of an attempt's output: the first half of the cap as it comes, then the last half in a ring
//! that is handed out at the end, with a note between them that counts what was left out. Not here: reading
//! pipes, writing the log. Invariant: memory is bounded whatever comes, bytes pass through unchanged, and a piece ends within a
//! character of UTF-8 only where the cap cuts it.

use std::collections::VecDeque;
use std::time::Duration;

use orloj_domain::attempt::ReadyAttempt;
use orloj_domain::runner::{AttemptOutput, OutputChunk, OutputStream};
use orloj_domain::time::Timestamp;

/// Bytes streamed from the beginning.
pub(crate) const HEAD_BYTES: usize = 512 * 1024;
/// Bytes kept from the end.
pub(crate) const TAIL_BYTES: usize = 512 * 1024;
/// A batch of this size is due at once.
pub(crate) const BATCH_BYTES: usize = 32 * 1024;
/// Any batch is due after this.
pub(crate) const BATCH_DELAY: Duration = Duration::from_millis(100);
/// Most pieces in one record, and most bytes of the tail in one record.
const RECORD_CHUNKS_MAX: usize = 1024;
const RECORD_BYTES_MAX: usize = 128 * 1024;
/// Most pieces kept in the ring, so that a stream of single bytes costs no more than one of lines.
const RING_CHUNKS_MAX: usize = 8192;
/// What came within this after the beginning of a piece in the ring may be added to it, and is shown with its time.
const RING_SPAN: Duration = Duration::from_secs(1);

/// Output of one attempt on its way to the log.
#[derive(Debug)]
pub(crate) struct OutputBuffer {
    template: AttemptOutput,
    batch: Vec<OutputChunk>,
    batch_bytes: usize,
    head_left: usize,
    ring: VecDeque<OutputChunk>,
    ring_bytes: usize,
    dropped: u64,
    /// Of each stream that ended so: the beginning of a character whose rest has not come yet.
    unfinished: Vec<(OutputStream, Vec<u8>)>,
}

impl OutputBuffer {
    /// Nothing yet.
    pub(crate) fn new(ready: &ReadyAttempt) -> Self {
        let template = AttemptOutput {
            run_id: ready.run_id,
            attempt: ready.attempt,
            token: ready.token,
            sequence: 0,
            chunks: Vec::new(),
            dropped_bytes: 0,
            is_last: false,
        };
        Self {
            template,
            batch: Vec::new(),
            batch_bytes: 0,
            head_left: HEAD_BYTES,
            ring: VecDeque::new(),
            ring_bytes: 0,
            dropped: 0,
            unfinished: Vec::new(),
        }
    }

    /// Takes what was read. True if a batch is due at once.
    pub(crate) fn push(&mut self, stream: OutputStream, at: Timestamp, bytes: &[u8]) -> bool {
        let begun = self.unfinished.iter().position(|(of, _)| *of == stream);
        let begun = begun.map(|index| self.unfinished.swap_remove(index).1).unwrap_or_default();
        let joined;
        let bytes = if begun.is_empty() {
            bytes
        } else {
            joined = [&begun, bytes].concat();
            joined.as_slice()
        };
        let (whole, rest) = bytes.split_at(bytes.len() - unfinished(bytes));
        if !rest.is_empty() {
            self.unfinished.push((stream, rest.to_vec()));
        }
        self.keep(stream, at, whole);
        self.is_batch_full()
    }

    fn keep(&mut self, stream: OutputStream, at: Timestamp, bytes: &[u8]) {
        let (head, tail) = bytes.split_at(bytes.len().min(self.head_left));
        self.head_left -= head.len();
        if !head.is_empty() {
            self.batch_bytes += head.len();
            append(&mut self.batch, stream, at, head);
        }
        if !tail.is_empty() {
            self.push_ring(stream, at, tail);
        }
    }

    /// A remark of the runner's own; does not count towards the cap and is never left out.
    pub(crate) fn note(&mut self, at: Timestamp, text: &str) {
        let bytes = format!("{text}\n").into_bytes();
        if self.ring.is_empty() {
            self.batch_bytes += bytes.len();
            self.batch.push(OutputChunk { stream: OutputStream::Runner, at, bytes });
        } else {
            self.ring_bytes += bytes.len();
            self.ring.push_back(OutputChunk { stream: OutputStream::Runner, at, bytes });
        }
    }

    /// True if something waits to be handed out.
    pub(crate) fn has_batch(&self) -> bool {
        !self.batch.is_empty()
    }

    fn is_batch_full(&self) -> bool {
        self.batch_bytes >= BATCH_BYTES || self.batch.len() >= RECORD_CHUNKS_MAX
    }

    fn push_ring(&mut self, stream: OutputStream, at: Timestamp, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        self.count_dropped(bytes.len() - kept.len());
        self.ring_bytes += kept.len();
        match self.ring.back_mut() {
            Some(last)
                if last.stream == stream
                    && last.bytes.len() + kept.len() <= BATCH_BYTES
                    && at.since(last.at) < RING_SPAN =>
            {
                last.bytes.extend_from_slice(kept);
            }
            Some(_) | None => self.ring.push_back(OutputChunk { stream, at, bytes: kept.to_vec() }),
        }
        while self.ring_bytes > TAIL_BYTES || self.ring.len() > RING_CHUNKS_MAX {
            let excess = self.ring_bytes.saturating_sub(TAIL_BYTES);
            let Some(first) = self.ring.front_mut() else { break };
            let cut = if excess == 0 { first.bytes.len() } else { excess.min(first.bytes.len()) };
            if cut == first.bytes.len() {
                self.ring.pop_front();
            } else {
                first.bytes.drain(..cut);
            }
            self.ring_bytes -= cut;
            self.count_dropped(cut);
        }
    }

    fn count_dropped(&mut self, bytes: usize) {
        self.dropped += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// The batch that waits, as a record.
    pub(crate) fn take_batch(&mut self) -> Option<AttemptOutput> {
        if self.batch.is_empty() {
            return None;
        }
        self.batch_bytes = 0;
        let chunks = std::mem::take(&mut self.batch);
        Some(self.record(chunks))
    }

    fn record(&mut self, chunks: Vec<OutputChunk>) -> AttemptOutput {
        let record = AttemptOutput { chunks, ..self.template.clone() };
        self.template.sequence += 1;
        record
    }

    /// All that is left, in order: what waits, the note, the tail. The last record says that it is the last; of an attempt
    /// that wrote nothing there is none.
    pub(crate) fn finish(mut self, at: Timestamp) -> Vec<AttemptOutput> {
        for (stream, bytes) in std::mem::take(&mut self.unfinished) {
            self.keep(stream, at, &bytes);
        }
        if self.template.sequence == 0 && self.batch.is_empty() && self.ring.is_empty() && self.dropped == 0 {
            return Vec::new();
        }
        if self.dropped > 0 {
            let text = format!(
                "[orloj] {} bytes of output were left out here; the first {HEAD_BYTES} and the last {TAIL_BYTES} are kept\n",
                self.dropped
            );
            self.batch.push(OutputChunk { stream: OutputStream::Runner, at, bytes: text.into_bytes() });
        }
        let mut records = Vec::new();
        let mut chunks = std::mem::take(&mut self.batch);
        let mut bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        for chunk in std::mem::take(&mut self.ring) {
            if bytes + chunk.bytes.len() > RECORD_BYTES_MAX || chunks.len() >= RECORD_CHUNKS_MAX {
                let full = std::mem::take(&mut chunks);
                records.push(self.record(full));
                bytes = 0;
            }
            bytes += chunk.bytes.len();
            chunks.push(chunk);
        }
        let mut last = self.record(chunks);
        last.is_last = true;
        last.dropped_bytes = i64::try_from(self.dropped).unwrap_or(i64::MAX);
        records.push(last);
        records
    }
}

/// How many bytes at the end begin a character of UTF-8 without ending it (RFC 3629, section 4).
fn unfinished(bytes: &[u8]) -> usize {
    let is_continuation = |byte: &u8| *byte & 0b1100_0000 == 0b1000_0000;
    let Some(back) = bytes.iter().rev().take(4).position(|byte| !is_continuation(byte)) else { return 0 };
    let begun = back + 1;
    let length = match bytes[bytes.len() - begun] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0,
    };
    if begun < length { begun } else { 0 }
}

/// Adds bytes, to the last piece if it is of the same stream and instant.
fn append(chunks: &mut Vec<OutputChunk>, stream: OutputStream, at: Timestamp, bytes: &[u8]) {
    match chunks.last_mut() {
        Some(last) if last.stream == stream && last.at == at => last.bytes.extend_from_slice(bytes),
        Some(_) | None => chunks.push(OutputChunk { stream, at, bytes: bytes.to_vec() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer() -> OutputBuffer {
        let ready = ReadyAttempt {
            run_id: "ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09".parse().expect("run"),
            job: "a/b".parse().expect("job"),
            attempt: 1,
            token: 3,
            ready_at: at(0),
            request: Vec::new(),
            deadline: None,
            awaits_start: false,
        };
        OutputBuffer::new(&ready)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn bytes_of(records: &[AttemptOutput], stream: OutputStream) -> Vec<u8> {
        let chunks = records.iter().flat_map(|record| &record.chunks);
        chunks.filter(|chunk| chunk.stream == stream).flat_map(|chunk| chunk.bytes.clone()).collect()
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| u8::try_from((index / 7 + index) % 256).unwrap_or(0)).collect()
    }

    /// Pushes `input` in pieces and hands everything out, as the pump does.
    fn through(input: &[u8], piece: usize) -> Vec<AttemptOutput> {
        let mut buffer = buffer();
        let mut records = Vec::new();
        for (index, bytes) in input.chunks(piece).enumerate() {
            if buffer.push(OutputStream::Stdout, at(i64::try_from(index).unwrap_or(0)), bytes) {
                records.extend(buffer.take_batch());
            }
        }
        records.extend(buffer.finish(at(9)));
        records
    }

    #[test]
    fn everything_up_to_the_cap_is_kept_byte_for_byte() {
        assert_eq!(through(&[], 1), [], "nobody needs to hear of what was not written");
        for (length, piece) in [(1, 1), (5000, 3), (HEAD_BYTES, 4096), (HEAD_BYTES + TAIL_BYTES, 8191)] {
            let input = pattern(length);
            let records = through(&input, piece);
            assert_eq!(bytes_of(&records, OutputStream::Stdout), input, "{length} in pieces of {piece}");
            let sequences: Vec<_> = records.iter().map(|record| record.sequence).collect();
            assert_eq!(sequences, (0..i64::try_from(records.len()).unwrap_or(0)).collect::<Vec<_>>());
            assert_eq!(records.iter().filter(|record| record.is_last).count(), 1);
            assert!(records.last().is_some_and(|record| record.is_last && record.dropped_bytes == 0));
        }
    }

    #[test]
    fn no_piece_ends_within_a_character() {
        let text = "x\u{17e}\u{20ac}\u{1f980}y".repeat(300);
        for piece in 1..9 {
            let records = through(text.as_bytes(), piece);
            let chunks = records.iter().flat_map(|record| &record.chunks);
            let texts: Vec<&str> =
                chunks.map(|chunk| std::str::from_utf8(&chunk.bytes).expect("whole characters")).collect();
            assert_eq!(texts.concat(), text, "in pieces of {piece}");
        }
        for (bytes, count) in [
            (&b""[..], 0),
            (b"a", 0),
            (b"a\xc5", 1),
            (b"\xe2\x82", 2),
            (b"\xe2\x82\xac", 0),
            (b"\xf0\x9f\xa6", 3),
            (b"\x80\x80\x80\x80", 0),
            (b"\xff", 0),
        ] {
            assert_eq!(unfinished(bytes), count, "{bytes:?}");
        }
    }

    /// Of two streams, the rest of a character comes with that of its own.
    #[test]
    fn a_character_waits_for_its_rest_and_comes_without_it_in_the_end() {
        let mut buffer = buffer();
        buffer.push(OutputStream::Stdout, at(1), b"a\xe2\x82");
        buffer.push(OutputStream::Stderr, at(2), b"b\xc5");
        buffer.push(OutputStream::Stdout, at(3), b"\xac");
        let records = buffer.finish(at(4));
        assert_eq!(bytes_of(&records, OutputStream::Stdout), "a\u{20ac}".as_bytes());
        assert_eq!(bytes_of(&records, OutputStream::Stderr), b"b\xc5");
    }

    #[test]
    fn lines_of_the_tail_keep_their_time_within_a_second() {
        let mut buffer = buffer();
        buffer.push(OutputStream::Stdout, at(0), &[b'x'; HEAD_BYTES]);
        for second in 1..=5 {
            buffer.push(OutputStream::Stdout, at(second * 60_000), b"line\n");
            buffer.push(OutputStream::Stdout, at(second * 60_000 + 999), b"and another\n");
        }
        let records = buffer.finish(at(400_000));
        let times: Vec<i64> = records.iter().flat_map(|record| &record.chunks).map(|chunk| chunk.at.millis()).collect();
        assert_eq!(times, [0, 60_000, 120_000, 180_000, 240_000, 300_000]);
    }

    #[test]
    fn beyond_the_cap_head_and_tail_are_kept_and_the_rest_is_counted() {
        for (extra, piece) in [(1, 4096), (100_000, 1000), (5_000_000, 32_768), (2_000_000, 2_000_000)] {
            let input = pattern(HEAD_BYTES + TAIL_BYTES + extra);
            let records = through(&input, piece);
            let mut expected = input[..HEAD_BYTES].to_vec();
            expected.extend_from_slice(&input[input.len() - TAIL_BYTES..]);
            assert_eq!(bytes_of(&records, OutputStream::Stdout), expected, "{extra} in pieces of {piece}");
            assert_eq!(records.last().map(|record| record.dropped_bytes), i64::try_from(extra).ok());
            let note = String::from_utf8(bytes_of(&records, OutputStream::Runner)).expect("text");
            assert!(note.contains(&format!("{extra} bytes")), "{note}");
            assert!(
                records.iter().all(|record| {
                    record.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() <= 2 * RECORD_BYTES_MAX
                }) || piece > RECORD_BYTES_MAX
            );
        }
    }

    #[test]
    fn single_bytes_of_alternating_streams_stay_bounded() {
        let mut buffer = buffer();
        for index in 0..HEAD_BYTES + 100_000 {
            let stream = if index % 2 == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
            if buffer.push(stream, at(1), b"x") {
                buffer.take_batch();
            }
        }
        assert!(buffer.ring.len() <= RING_CHUNKS_MAX);
        let records = buffer.finish(at(2));
        assert_eq!(records.last().map(|record| record.dropped_bytes), Some(100_000 - 8192));
    }

    #[test]
    fn order_of_arrival_is_kept_and_a_full_batch_is_due() {
        let mut buffer = buffer();
        assert!(!buffer.push(OutputStream::Stdout, at(1), b"a"));
        assert!(!buffer.push(OutputStream::Stderr, at(1), b"b"));
        assert!(!buffer.push(OutputStream::Stdout, at(1), b"c"));
        assert!(buffer.push(OutputStream::Stdout, at(2), &[0; BATCH_BYTES]));
        buffer.note(at(3), "note");
        let streams: Vec<_> = buffer.finish(at(4))[0].chunks.iter().map(|chunk| chunk.stream).collect();
        use OutputStream::{Runner, Stderr, Stdout};
        assert_eq!(streams, [Stdout, Stderr, Stdout, Stdout, Runner]);
    }
}
