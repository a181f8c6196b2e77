//! How soon a guest speaks, and what its VMM needs.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::{Host, Usage};

/// One start of the test kernel, with one vCPU and 16 MiB.
#[derive(Debug, Clone, Copy)]
pub struct Startup {
    /// From before `godwit run` is started to the first byte on its standard output, which is the guest's.
    pub first_byte: Duration,
    /// What the process holds right then.
    pub usage: Usage,
}

impl Startup {
    /// Starts one, and kills it.
    ///
    /// # Panics
    /// When it says nothing.
    #[must_use]
    pub fn measure() -> Self {
        // One for each: a killed VM leaves its state file behind.
        let host = Host::new();
        let arguments = ["run", "--kernel", "builtin", "--memory", "16M", "--cmdline", "payload=idle"];
        let mut command = host.command(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let begin = Instant::now();
        let mut child = command.spawn().expect("godwit starts");
        let mut stdout = child.stdout.take().expect("piped");
        let read = stdout.read_exact(&mut [0]);
        let first_byte = begin.elapsed();
        let usage = read.is_ok().then(|| Usage::of(child.id()));
        // It may have ended by itself, if it said nothing.
        let _ = child.kill();
        let _ = child.wait();
        Self { first_byte, usage: usage.expect("the guest says something") }
    }
}
