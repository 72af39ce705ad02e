//! The keys in a text, a chunk at a time: one a line, or a column of a CSV file.
//!
//! An empty key is no access, and is only counted. A key is bytes and nothing else, so two spellings are two keys.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher;

use csv_core::{ReadFieldResult, Reader};

use super::Trace;

/// A longer key is a mistake: this is not a text of keys.
const LONGEST_KEY: usize = 1 << 20;
/// So many columns of a header are told in an error.
const SHOWN: usize = 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a text was not understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A line or a field is longer than a key can be.
    TooLong,
    /// The header has no such column, but others.
    NoColumn { name: String, header: Vec<String> },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::TooLong => write!(out, "has a line or a field longer than {LONGEST_KEY} bytes"),
            Unreadable::NoColumn { name, header } => {
                let more = if header.len() > SHOWN { ", ..." } else { "" };
                let columns = header.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
                write!(out, "has no column {name:?}; its header is {columns}{more}")
            }
        }
    }
}

/// Hashes a key, in each process alike.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

fn access(key: &[u8], trace: &mut Trace, empty: &mut u64) {
    if key.is_empty() {
        *empty += 1;
    } else {
        trace.access(hash(key));
    }
}

/// A key a line.
#[derive(Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    is_under_way: bool,
    /// Empty lines.
    pub empty: u64,
}

impl Lines {
    pub fn feed(&mut self, mut chunk: &[u8], trace: &mut Trace) -> Result<(), Unreadable> {
        if !std::mem::replace(&mut self.is_under_way, true) {
            chunk = chunk.strip_prefix(BYTE_ORDER_MARK).unwrap_or(chunk);
        }
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            if self.begun.is_empty() {
                self.line(&chunk[..end], trace);
            } else {
                self.begun.extend_from_slice(&chunk[..end]);
                self.end(trace);
            }
            chunk = &chunk[end + 1..];
        }
        self.begun.extend_from_slice(chunk);
        if self.begun.len() > LONGEST_KEY { Err(Unreadable::TooLong) } else { Ok(()) }
    }

    /// Takes in the last line, if no line end follows it.
    pub fn end(&mut self, trace: &mut Trace) {
        if !self.begun.is_empty() {
            let mut line = std::mem::take(&mut self.begun);
            self.line(&line, trace);
            line.clear();
            self.begun = line;
        }
    }

    #[inline]
    fn line(&mut self, line: &[u8], trace: &mut Trace) {
        access(line.strip_suffix(b"\r").unwrap_or(line), trace, &mut self.empty);
    }
}

/// A column of a CSV file, by the name that the first line gives it.
pub struct Column {
    name: Vec<u8>,
    reader: Reader,
    /// What is known of the field under way.
    field: Vec<u8>,
    filled: usize,
    /// Which field of its row the next one is.
    index: usize,
    place: Place,
    /// Rows without a key.
    pub empty: u64,
}

enum Place {
    /// The names of the columns so far.
    Header(Vec<Vec<u8>>),
    Known(usize),
}

impl Column {
    pub fn new(name: Vec<u8>) -> Self {
        Column {
            name,
            reader: Reader::new(),
            field: vec![0; 4096],
            filled: 0,
            index: 0,
            place: Place::Header(Vec::new()),
            empty: 0,
        }
    }

    pub fn feed(&mut self, mut chunk: &[u8], trace: &mut Trace) -> Result<(), Unreadable> {
        while !chunk.is_empty() {
            let used = self.step(chunk, trace)?.0;
            chunk = &chunk[used..];
        }
        Ok(())
    }

    /// Takes in the last row, if no line end follows it.
    pub fn end(&mut self, trace: &mut Trace) -> Result<(), Unreadable> {
        // An empty input is the end; each call ends a field at most.
        while !self.step(&[], trace)?.1 {}
        match &self.place {
            Place::Header(names) => Err(no_column(&self.name, names)),
            Place::Known(_) => Ok(()),
        }
    }

    /// Reads to the end of a field or of the chunk. Returns how much of it was read, and whether all is.
    fn step(&mut self, chunk: &[u8], trace: &mut Trace) -> Result<(usize, bool), Unreadable> {
        let (result, used, written) = self.reader.read_field(chunk, &mut self.field[self.filled..]);
        self.filled += written;
        match result {
            ReadFieldResult::InputEmpty => {}
            ReadFieldResult::OutputFull if self.field.len() > LONGEST_KEY => return Err(Unreadable::TooLong),
            ReadFieldResult::OutputFull => self.field.resize(2 * self.field.len(), 0),
            ReadFieldResult::Field { record_end } => {
                self.take_field(record_end, trace)?;
                self.filled = 0;
            }
            ReadFieldResult::End => return Ok((used, true)),
        }
        Ok((used, false))
    }

    fn take_field(&mut self, is_last: bool, trace: &mut Trace) -> Result<(), Unreadable> {
        let field = &self.field[..self.filled];
        match &mut self.place {
            Place::Known(place) if self.index == *place => access(field, trace, &mut self.empty),
            Place::Known(place) => self.empty += u64::from(is_last && self.index < *place),
            Place::Header(names) => {
                names.push(field.to_vec());
                if is_last {
                    let place = names.iter().position(|name| *name == self.name);
                    self.place = Place::Known(place.ok_or_else(|| no_column(&self.name, names))?);
                }
            }
        }
        self.index = if is_last { 0 } else { self.index + 1 };
        Ok(())
    }
}

fn no_column(name: &[u8], header: &[Vec<u8>]) -> Unreadable {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Unreadable::NoColumn { name: text(name), header: header.iter().map(|name| text(name)).collect() }
}
