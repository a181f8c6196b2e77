//! A process that runs a VM.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin};
use std::time::{Duration, Instant};

use godwit_api::client::Client;
use godwit_api::registry::RuntimeDir;
use godwit_api::{VmInfo, VmState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::output::{Mark, Next, Output};
use crate::usage::Usage;
use crate::{PATIENCE, wait_for};

/// `godwit run` or `godwit receive`; killed when dropped.
#[derive(Debug)]
pub struct VmProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    serial: Output,
    messages: Output,
    runtime: PathBuf,
    listen: String,
    ended: Option<Option<i32>>,
}

impl VmProcess {
    pub(crate) fn start(
        mut command: std::process::Command,
        runtime: PathBuf,
        tick: Option<u8>,
    ) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let serial = Output::collect("serial", child.stdout.take().expect("piped"), tick);
        let messages = Output::collect("messages", child.stderr.take().expect("piped"), None);
        let process = Self { child, stdin, serial, messages, runtime, listen: String::new(), ended: None };
        if let Some(stdin) = &process.stdin {
            // A guest that does not read must not hang the test.
            fcntl_setfl(stdin, fcntl_getfl(stdin)? | OFlags::NONBLOCK)?;
        }
        Ok(process)
    }

    /// Whether a receiver came to listen.
    pub(crate) fn comes_to_listen(&mut self, within: Duration) -> bool {
        let waiting = "waiting for a VM on ";
        let until = Instant::now() + within;
        let mut mark = Mark::START;
        while let Next::Line(line) = self.messages.next_line(&mut mark, until) {
            if let Some((_, address)) = line.split_once(waiting) {
                address.trim().clone_into(&mut self.listen);
                return true;
            }
        }
        false
    }

    /// Where a receiver listens: `tcp:HOST:PORT` or `unix:PATH`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the guest says.
    #[must_use]
    pub fn serial(&self) -> &Output {
        &self.serial
    }

    /// What the process says on standard error.
    #[must_use]
    pub fn messages(&self) -> &Output {
        &self.messages
    }

    /// What it holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Types a line into the guest.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn send(&mut self, line: impl Display) {
        self.type_bytes(format!("{line}\n").as_bytes());
    }

    /// Types into the guest.
    ///
    /// # Panics
    /// When the process is gone or does not read, or its standard input was closed.
    pub fn type_bytes(&mut self, bytes: &[u8]) {
        self.try_type(bytes, PATIENCE).expect("the process reads");
    }

    pub(crate) fn try_type(&mut self, bytes: &[u8], within: Duration) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let until = Instant::now() + within;
        let mut rest = bytes;
        while !rest.is_empty() {
            match stdin.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let left = Timespec::try_from(left).map_err(io::Error::other)?;
                    poll(&mut [PollFd::new(stdin, PollFlags::OUT)], Some(&left))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// A client of its API.
    ///
    /// # Panics
    /// When the registry does not know the process.
    #[must_use]
    pub fn client(&self) -> Client {
        let client = self.try_client();
        client.unwrap_or_else(|| panic!("no entry of process {}\n{}", self.pid(), self.messages.tail()))
    }

    /// A client of its API, once the registry knows the process.
    pub(crate) fn try_client(&self) -> Option<Client> {
        let pid = self.pid();
        let entries = RuntimeDir::at(&self.runtime).ok()?.list().ok()?.entries;
        let entry = entries.into_iter().find(|entry| entry.file.pid == pid)?;
        Some(Client::new(entry.file.api_socket))
    }

    /// What it says about itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn info(&self) -> VmInfo {
        self.client().info().unwrap_or_else(|error| panic!("{error}\n{}", self.messages.tail()))
    }

    /// Waits until its state is such, and returns it. A process that ends meanwhile counts as one
    /// that has handed over.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn wait_state(&mut self, what: &str, wanted: impl Fn(&VmState) -> bool) -> VmState {
        let mut last = None;
        let until = Instant::now() + PATIENCE;
        loop {
            let state = self.state();
            if wanted(&state) {
                return state;
            }
            last = Some(state).or(last);
            assert!(
                Instant::now() < until,
                "the state did not become {what}: {last:?}\n{}",
                self.messages.tail()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its state now; `Dead` when it has ended.
    pub fn state(&mut self) -> VmState {
        let dead = || VmState::Dead { was: "ended".to_owned() };
        if self.exited().is_some() {
            return dead();
        }
        match self.try_client().map(|client| client.info()) {
            Some(Ok(info)) => info.state,
            // It may be on its way out.
            _ => dead(),
        }
    }

    /// Its exit status, if it has ended: `None` inside for a signal.
    pub fn exited(&mut self) -> Option<Option<i32>> {
        if self.ended.is_none() {
            let status = self.child.try_wait().expect("a child can be waited for");
            self.ended = status.map(|status| status.code());
        }
        self.ended
    }

    /// Waits for its end, and returns its exit status.
    ///
    /// # Panics
    /// When it does not end in time, or a signal ended it.
    #[track_caller]
    pub fn wait_exit(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.exited() {
                break status;
            }
            assert!(
                Instant::now() < until,
                "process {} does not end\n{}\n{}\n{}",
                self.pid(),
                self.threads(),
                self.messages.tail(),
                self.serial.tail()
            );
            std::thread::sleep(Duration::from_millis(1));
        };
        self.wait_end();
        status.unwrap_or_else(|| panic!("a signal ended process {}\n{}", self.pid(), self.messages.tail()))
    }

    /// Waits until all that it said was read, once it has ended.
    pub(crate) fn wait_end(&self) {
        self.serial.wait_end(PATIENCE);
        self.messages.wait_end(PATIENCE);
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait() {
            self.ended = Some(status.code());
        }
    }

    /// Stops it in the middle of whatever it does.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        // Every thread, not only the one that took the signal.
        wait_for("every thread is stopped", PATIENCE, || self.all_threads_are_stopped().then_some(()));
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// What each thread does, for a person: name, state and CPU ticks, system call, and where in the
    /// kernel it waits.
    #[must_use]
    pub fn threads(&self) -> String {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else { return String::new() };
        let mut lines = vec!["--- threads".to_owned()];
        for task in tasks.flatten() {
            let read = |file: &str| {
                let text = std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
                text.trim().replace('\n', " < ")
            };
            let stat = read("stat");
            let fields: Vec<&str> =
                stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
            let field = |index: usize| fields.get(index).copied().unwrap_or("?");
            lines.push(format!(
                "{}: {} utime {} stime {} syscall [{}] {}",
                read("comm"),
                field(0),
                field(11),
                field(12),
                read("syscall"),
                read("stack")
            ));
        }
        lines.join("\n")
    }

    fn all_threads_are_stopped(&self) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else { return true };
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in parentheses.
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
        })
    }
}

impl Drop for VmProcess {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
        }
    }
}
