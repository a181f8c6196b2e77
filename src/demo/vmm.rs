//! The processes of the demo: started, asked, and ended without fail.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use godwit_api::client::Client;

use super::DemoError;
use super::patience::Patience;
use super::scratch::Scratch;

/// How long a process may take to stop when asked kindly.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Starts this very program as the VMM of one guest.
pub(super) struct Launcher<'a> {
    program: PathBuf,
    scratch: &'a Scratch,
    /// For the standard output of the processes to come.
    pipes: std::vec::IntoIter<OwnedFd>,
    started: usize,
}

/// A `godwit run` or `godwit receive`. Dropping it kills and reaps it.
#[derive(Debug)]
pub(super) struct Vmm {
    command: &'static str,
    index: usize,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
    client: Client,
    listen: Option<String>,
}

impl<'a> Launcher<'a> {
    pub(super) fn new(scratch: &'a Scratch, pipes: Vec<OwnedFd>) -> Result<Self, DemoError> {
        let program = std::env::current_exe()
            .map_err(|source| DemoError::System { action: "find its own program file", source })?;
        Ok(Self { program, scratch, pipes: pipes.into_iter(), started: 0 })
    }

    /// Starts `godwit run` with these options, and waits until it answers.
    pub(super) fn run<S: AsRef<OsStr>>(
        &mut self,
        options: &[S],
        patience: &mut Patience<'_>,
    ) -> Result<Vmm, DemoError> {
        self.start("godwit run", |command| command.arg("run").args(options), patience)
    }

    /// Starts `godwit receive` on a free port of this host, and waits until it listens.
    pub(super) fn receive(&mut self, patience: &mut Patience<'_>) -> Result<Vmm, DemoError> {
        let listen = ["receive", "--listen", "tcp:127.0.0.1:0"];
        let mut vmm = self.start("godwit receive", |command| command.args(listen), patience)?;
        let listen = patience.wait_for("the second process to listen", || {
            vmm.must_be_alive()?;
            Ok(vmm.client.info()?.listen)
        })?;
        vmm.listen = Some(listen);
        Ok(vmm)
    }

    fn start(
        &mut self,
        name: &'static str,
        arguments: impl FnOnce(&mut Command) -> &mut Command,
        patience: &mut Patience<'_>,
    ) -> Result<Vmm, DemoError> {
        let failed = |source| DemoError::System { action: "start a process", source };
        let index = self.started;
        self.started += 1;
        let file = |kind: &str| self.scratch.path().join(format!("{index}.{kind}"));
        let (socket, log) = (file("sock"), file("log"));
        let stdout = self.pipes.next().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        let mut command = Command::new(&self.program);
        arguments(&mut command)
            .args(["--serial", "stdio", "--api"])
            .arg(&socket)
            .env("GODWIT_RUNTIME_DIR", self.scratch.path())
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(File::create(&log).map_err(failed)?)
            // Ctrl-C is for the demo alone, which then ends them.
            .process_group(0);
        end_with_this_thread(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        // The pipe's writing end is the process's alone, so that its end is seen.
        drop(command);
        let stdin = child.stdin.take();
        let mut vmm =
            Vmm { command: name, index, child, stdin, log, client: Client::new(socket), listen: None };
        patience.wait_for("a process to begin", || {
            if vmm.child.try_wait().ok().flatten().is_some() {
                return Err(DemoError::NotStarted { said: vmm.last_words() });
            }
            Ok(vmm.client.info().ok())
        })?;
        Ok(vmm)
    }
}

/// Nothing can be cleaned up by a demo that was killed: the kernel does this part.
fn end_with_this_thread(command: &mut Command) {
    let set = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes
    // no lock.
    unsafe { command.pre_exec(set) };
}

impl Vmm {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Which of the observer's pipes is its output.
    pub(super) const fn index(&self) -> usize {
        self.index
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Where it waits for a guest.
    pub(super) fn listens_on(&self) -> &str {
        self.listen.as_deref().unwrap_or_default()
    }

    /// Types a line into the guest.
    pub(super) fn type_line(&mut self, line: &str) -> Result<(), DemoError> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .map_err(|source| DemoError::System { action: "type into the guest", source })
    }

    /// Fails, with its last words, if it has ended.
    pub(super) fn must_be_alive(&mut self) -> Result<(), DemoError> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(DemoError::Ended { command: self.command, status, said: self.last_words() }),
        }
    }

    /// Waits until it has ended as a process does that has handed its guest over.
    pub(super) fn must_end(mut self, patience: &mut Patience<'_>) -> Result<(), DemoError> {
        let status = patience.wait_for("the source to end", || {
            self.child.try_wait().map_err(|source| DemoError::System { action: "wait for a process", source })
        })?;
        if status.success() {
            return Ok(());
        }
        let status = status.to_string();
        Err(DemoError::Ended { command: self.command, status, said: self.last_words() })
    }

    /// Asks it to stop; if it does not, dropping it is less kind.
    pub(super) fn stop(mut self, patience: &mut Patience<'_>) {
        let until = Instant::now() + STOP_WITHIN;
        if self.client.stop(true).is_ok() {
            let _killed_then = patience.wait_for("the guest to stop", || {
                Ok((self.ended()?.is_some() || Instant::now() >= until).then_some(()))
            });
        }
    }

    fn ended(&mut self) -> Result<Option<String>, DemoError> {
        let status = self.child.try_wait();
        let status = status.map_err(|source| DemoError::System { action: "look at a process", source })?;
        Ok(status.map(|status| status.to_string()))
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        last_line(&String::from_utf8_lossy(&log)).unwrap_or("it said nothing; report this").to_owned()
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line that the program itself said, without its name.
fn last_line(log: &str) -> Option<&str> {
    let said = log.lines().rev().find_map(|line| line.strip_prefix("godwit: "));
    said.or_else(|| log.lines().rev().find(|line| !line.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_programs_own() {
        assert_eq!(last_line("godwit: a\ngodwit: no /dev/kvm\nWARN noise\n"), Some("no /dev/kvm"));
        assert_eq!(last_line("thread panicked\n\n"), Some("thread panicked"));
        assert_eq!(last_line(""), None);
    }
}
