//! The keys of a text, one a line, which comes in chunks.

use std::fmt;

use super::Trace;

/// A longer key is a mistake: the file is not a text of keys.
const MAX_KEY_BYTES: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line is longer than a key can be.
#[derive(Debug, PartialEq, Eq)]
pub struct LineTooLong;

impl fmt::Display for LineTooLong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "has a line longer than {MAX_KEY_BYTES} bytes")
    }
}

/// Splits a text into lines and records each as a key. A line may begin in one chunk and end in another.
#[derive(Default)]
pub struct KeyLines {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    has_begun: bool,
}

impl KeyLines {
    /// Records the lines that end in this chunk.
    pub fn feed(&mut self, mut chunk: &[u8], trace: &mut Trace) -> Result<(), LineTooLong> {
        if !std::mem::replace(&mut self.has_begun, true) {
            chunk = chunk.strip_prefix(BYTE_ORDER_MARK).unwrap_or(chunk);
        }
        while let Some(end) = chunk.iter().position(|&byte| byte == b'\n') {
            if self.partial.is_empty() {
                record_line(&chunk[..end], trace);
            } else {
                self.partial.extend_from_slice(&chunk[..end]);
                self.finish(trace);
            }
            chunk = &chunk[end + 1..];
        }
        self.partial.extend_from_slice(chunk);
        if self.partial.len() > MAX_KEY_BYTES { Err(LineTooLong) } else { Ok(()) }
    }

    /// Records the last line, if the text does not end with a line end.
    pub fn finish(&mut self, trace: &mut Trace) {
        if !self.partial.is_empty() {
            record_line(&self.partial, trace);
            self.partial.clear();
        }
    }
}

#[inline]
fn record_line(line: &[u8], trace: &mut Trace) {
    trace.record_key(line.strip_suffix(b"\r").unwrap_or(line));
}
