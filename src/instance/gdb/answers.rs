//! What is said to gdb.

use std::io::{self, Write};

use gdbstub::conn::Connection;

use super::port::Stream;

/// More of an answer is not held back.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The sending half, which gathers what `gdbstub` says byte by byte.
#[derive(Debug)]
pub(super) struct Answers {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Answers {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Says something to the person at gdb, which is possible while gdb believes that the guest runs.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        let body: String = text.bytes().fold("O".to_owned(), |body, byte| body + &format!("{byte:02x}"));
        let sum = body.bytes().fold(0_u8, u8::wrapping_add);
        self.buffer.extend(format!("${body}#{sum:02x}").as_bytes());
        self.flush()
    }
}

impl Connection for Answers {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.buffer.push(byte);
        if self.buffer.len() >= BUFFER_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.buffer);
        self.buffer.clear();
        sent
    }
}
