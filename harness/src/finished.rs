//! Commands that are started and end by themselves.

use std::ffi::OsStr;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::output::Output;
use crate::wait_for;

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it said on standard error, which must be one line in the form of every failure.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn one_line(&self) -> &str {
        let mut lines = self.stderr.lines();
        let line = lines.next().and_then(|line| line.strip_prefix("godwit: "));
        let line = line.unwrap_or_else(|| panic!("no line that begins with `godwit: `: {self:?}"));
        assert_eq!(lines.next(), None, "more than one line: {self:?}");
        assert!(!line.trim().is_empty(), "an empty line: {self:?}");
        line
    }

    /// Asserts a failure: this exit status, nothing on standard output, one line with all these parts.
    ///
    /// # Panics
    /// When it is something else.
    pub fn assert_fails(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        let line = self.one_line();
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in: {line}");
        }
        assert_eq!(self.stdout, "", "{self:?}");
    }
}

/// A command under way; killed when dropped.
#[derive(Debug)]
pub struct Command {
    child: Child,
    stdout: Option<Output>,
    stderr: Output,
}

impl Command {
    /// Starts `command` with nothing on its standard input.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(mut command: std::process::Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Some(Output::collect("stdout", child.stdout.take().expect("piped"), None));
        let stderr = Output::collect("stderr", child.stderr.take().expect("piped"), None);
        Self { child, stdout, stderr }
    }

    /// As [`start`](Self::start), with a standard output that is never read.
    pub(crate) fn start_unread(mut command: std::process::Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = Output::collect("stderr", child.stderr.take().expect("piped"), None);
        if let Some(stdout) = &child.stdout {
            // As little as there can be, so that it is full soon.
            let _ = rustix::pipe::fcntl_setpipe_size(stdout, 4096);
        }
        // The child keeps its end of the pipe, so that it is full and not broken.
        Self { child, stdout: None, stderr }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says on standard error.
    #[must_use]
    pub fn messages(&self) -> &Output {
        &self.stderr
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn finish(mut self, within: Duration) -> Finished {
        let status = wait_for("the end of a command", within, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        let text = |output: &Output| {
            output.wait_end(within);
            output.text()
        };
        let stdout = self.stdout.as_ref().map(text).unwrap_or_default();
        Finished { status: status.code(), stdout, stderr: text(&self.stderr) }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with arguments, in the runtime directory given.
pub(crate) fn godwit_command(
    binary: &std::path::Path,
    runtime: &std::path::Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> std::process::Command {
    let mut command = std::process::Command::new(binary);
    command.args(arguments).env("GODWIT_RUNTIME_DIR", runtime).env_remove("RUST_LOG");
    command
}
