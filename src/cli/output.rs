//! Writing to stdout and stderr without ever panicking: the reader may have left.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use super::failure::Failure;

/// A result on stdout. A reader that has left (`| head`) is no failure.
pub(crate) fn result(text: impl Display) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes()).map(|_| ())
}

/// Whether stdout still has a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// Raw bytes on stdout, at once. A reader that has left is no failure.
pub(crate) fn bytes(bytes: &[u8]) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::failed(format!("can't write to stdout: {error}; check where it goes"))),
    }
}

/// A result on stdout, as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value)
        .map_err(|error| Failure::failed(format!("can't show the answer as JSON: {error}; report this")))?;
    result(line)
}

/// A message on stderr, in one line whatever is in it.
pub(crate) fn message(text: impl Display) {
    let line: String = text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _nobody_is_left_to_tell = writeln!(io::stderr().lock(), "godwit: {line}");
}

/// Text from elsewhere on its way to a terminal: without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
