//! The main loop of a VM process: hears what happens and decides when and how the process ends.
//!
//! Whatever asks for the end (the guest's own, a person, a signal, `--expect`) waits for a migration that
//! is under way to be decided first: until then it is not known whose the guest is. A guest that is
//! handed over, unconfirmed, may be the only copy; nothing but a person's explicit word ends that.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use godwit_api::VmState;
use godwit_vmm::machine::MachineConfig;
use godwit_vmm::saved_state::{MachineDescriptionV1, OnResetV1};
use godwit_vmm::vcpu::{CrashReport, GuestEnd, VcpuRegisters};

use super::ending::{Ending, Why, of_guest};
use super::exit::Exit;
use super::inspect::shown;
use super::kernel::{BUILTIN, KernelFiles};
use super::process::{StartError, boot, say};
use super::succession::Successor;
use super::vm::{Event, Origin, Vm};
use super::watch::Verdict;

/// How long the last lines of a guest that ended are looked at.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(5);

/// Whether `--expect` or `--reject` watches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    Off,
    On,
}

/// What asks for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The guest is over.
    Guest,
    /// A person, a signal, a verdict.
    Outside,
}

pub(super) struct MainLoop<'p> {
    vm: &'p Arc<Vm>,
    events: &'p Receiver<Event>,
    watch: Watch,
    /// How the process will end once it is known whose the guest is.
    leaving: Option<Exit>,
    /// What asked for that, or for the end before it.
    why: Why,
    crash: Option<String>,
}

impl<'p> MainLoop<'p> {
    pub(super) fn new(vm: &'p Arc<Vm>, events: &'p Receiver<Event>, watch: Watch) -> Self {
        let why = Why::Failed("nothing is left that could tell of the guest".to_owned());
        Self { vm, events, watch, leaving: None, why, crash: None }
    }

    /// Waits until the process has to end.
    pub(super) fn run(mut self) -> Ending {
        for event in self.events {
            if let Some(exit) = self.take(event) {
                return Ending { exit, why: self.why, crash: self.crash };
            }
        }
        Ending { exit: Exit::VmmFailed, why: self.why, crash: self.crash }
    }

    fn take(&mut self, event: Event) -> Option<Exit> {
        match event {
            Event::GuestEnded { generation, .. } | Event::CrashKernel { generation }
                if generation != self.vm.status().generation =>
            {
                None
            }
            Event::GuestEnded { end, .. } => {
                self.why = Why::Guest(of_guest(&end));
                let exit = self.guest_ended(end)?;
                let exit = self.after_last_lines(exit);
                self.leave(exit, Cause::Guest)
            }
            Event::CrashKernel { .. } => {
                say("the guest reported a panic (pvpanic), and its crash kernel takes over");
                None
            }
            Event::Stop { force: true } => {
                self.why = Why::Asked("`godwit stop --force`");
                Some(Exit::Done)
            }
            Event::Stop { force: false } => {
                self.why = Why::Asked("`godwit stop`");
                self.leave(Exit::Done, Cause::Outside)
            }
            Event::Signal if self.is_unconfirmed() => {
                say("the guest is handed over, unconfirmed, and this may be the only copy: decide with \
                     `godwit resolve`, or throw this copy away with `godwit stop --force`");
                None
            }
            Event::Signal => {
                self.why = Why::Asked("a signal");
                self.leave(Exit::Done, Cause::Outside)
            }
            Event::Watched(verdict) => {
                self.why = Why::Lines(verdict.clone());
                self.leave(on_verdict(verdict, Exit::Done), Cause::Outside)
            }
            Event::HandedOver { to } => {
                let name = self.vm.status().registration.file().name.clone();
                match self.vm.status().successor.as_ref().map(Successor::pid) {
                    Some(pid) => {
                        say(&format!("{name} goes on in process {pid}; this one stands by until it ends"))
                    }
                    None => say(&format!("{name} was handed over to {to}")),
                }
                // What its lines have shown stays shown.
                let shown = self.leaving.take().filter(|exit| *exit == Exit::Expectation);
                if shown.is_none() {
                    self.why = Why::HandedOver { to };
                }
                Some(shown.unwrap_or(Exit::Done))
            }
            Event::MigrationEnded => self.leaving.take(),
            Event::Unconfirmed => {
                if self.leaving.take().is_some() {
                    say(
                        "not ended: the guest is handed over, unconfirmed; decide with `godwit resolve` first",
                    );
                }
                None
            }
            Event::ReceiverEnded { error: Some(what) } | Event::VmmFailed { what } => {
                say(&what);
                self.why = Why::Failed(what);
                Some(Exit::VmmFailed)
            }
            // It can come only when this loop has ended.
            Event::Succeeded { .. } => None,
            Event::ReceiverEnded { error: None } => {
                let exit = self.leaving.take()?;
                if self.vm.status().state == VmState::Incoming {
                    return Some(exit);
                }
                say("not ended: the guest has just arrived; ask again to stop it");
                None
            }
        }
    }

    /// Ends the process with this status, once that decides nothing about a guest that moves.
    fn leave(&mut self, exit: Exit, cause: Cause) -> Option<Exit> {
        let status = self.vm.status();
        if let Some(remote) = status.migration.as_ref().and_then(|m| m.remote.as_ref()) {
            match cause {
                Cause::Guest => remote.guest_ended(),
                Cause::Outside => remote.cancel(),
            }
            drop(status);
            self.leaving = Some(exit);
            return None;
        }
        if status.state == VmState::Incoming
            && let Some(receiver) = &status.receiver
        {
            receiver.stop();
            drop(status);
            self.leaving = Some(exit);
            return None;
        }
        drop(status);
        if cause == Cause::Outside {
            self.vm.enter(VmState::Stopping);
        }
        Some(exit)
    }

    fn is_unconfirmed(&self) -> bool {
        matches!(self.vm.status().state, VmState::Unconfirmed { .. })
    }

    /// Lets `--expect` and `--reject` have a look at what the guest said last: they decide first.
    fn after_last_lines(&self, exit: Exit) -> Exit {
        if self.watch == Watch::Off {
            return exit;
        }
        self.vm.forget_machine();
        self.vm.console.close();
        let until = Instant::now() + LAST_LINES_WITHIN;
        while let Ok(event) = self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if let Event::Watched(verdict) = event {
                return on_verdict(verdict, exit);
            }
        }
        exit
    }

    fn guest_ended(&mut self, end: GuestEnd) -> Option<Exit> {
        match end {
            GuestEnd::PoweredOff => Some(Exit::Done),
            GuestEnd::DebugExit(value) => Some(Exit::DebugExit(value)),
            GuestEnd::Crashed(report) => {
                // Before the state says that there is nothing to look at any more.
                let registers = self.registers_after(&report);
                self.vm.enter(VmState::Crashed { reason: report.reason.clone() });
                let crash = crash_text(&report, &registers);
                say(&format!("the guest crashed: {crash}"));
                self.crash = Some(crash);
                Some(Exit::Crashed)
            }
            GuestEnd::Reset => {
                let description = self.vm.status().description.clone();
                match description {
                    Some(description) if description.on_reset == OnResetV1::Reboot => {
                        self.reboot(&description)
                    }
                    _ => Some(Exit::Reset),
                }
            }
        }
    }

    /// Those of every vCPU; only those of the one that crashed while the guest is being moved.
    fn registers_after(&self, crash: &CrashReport) -> String {
        match (self.vm.registers(), &crash.registers) {
            (Ok(all), _) => all.to_string(),
            (Err(_), Some(one)) => shown(one).to_string(),
            (Err(error), None) => format!("  registers could not be read: {error}"),
        }
    }

    /// Boots the same kernel again in a fresh machine.
    fn reboot(&self, description: &MachineDescriptionV1) -> Option<Exit> {
        // The paths of a guest that arrived were chosen by whoever sent it: it gets no file of this host.
        let own_kernel = description.kernel == BUILTIN && description.initrd.is_none();
        if self.vm.status().origin == Origin::Arrived && !own_kernel {
            say(&format!(
                "the guest reset itself, and its kernel {} was given on another host: boot it there, or with `godwit run` here",
                description.kernel
            ));
            return Some(Exit::Reset);
        }
        // The old machine first: there need not be memory for two.
        self.vm.forget_machine();
        let config = MachineConfig {
            vcpus: description.vcpus,
            memory_bytes: description.memory_bytes,
            kernel_name: description.kernel.clone(),
            initrd_name: description.initrd.clone(),
            cmdline: description.cmdline.clone(),
            dirty_log: self.vm.launch().dirty_log,
            on_reset: description.on_reset,
            console: self.vm.console.clone(),
        };
        let booted = KernelFiles::of(description)
            .map_err(StartError::from)
            .and_then(|files| boot(self.vm, &config, &files));
        match booted {
            Ok(()) => None,
            Err(error) => {
                say(&format!("the guest reset itself and cannot be booted again here: {error}"));
                Some(Exit::Reset)
            }
        }
    }
}

/// A crash, for a person: what happened, the code where it did, and registers.
fn crash_text(report: &CrashReport, registers: &str) -> String {
    let mut text = format!("vCPU {}: {}\n", report.vcpu, report.reason);
    if report.registers.as_ref().is_some_and(VcpuRegisters::were_reset) {
        text += "  (this CPU's KVM resets a vCPU upon a triple fault: its registers are those of a reset)\n";
    }
    if let Some(code) = &report.code {
        text += &format!("  code={code}\n");
    }
    text + registers
}

/// The exit status that a verdict makes of `otherwise`.
fn on_verdict(verdict: Verdict, otherwise: Exit) -> Exit {
    match verdict {
        Verdict::Met => Exit::Done,
        Verdict::Quiet => otherwise,
        Verdict::Rejected { line } => {
            say(&format!("the guest printed what it must not (--reject {line:?})"));
            Exit::Expectation
        }
        Verdict::Missing { lines } => {
            say(&format!("the guest did not print in time (--expect): {}", lines.join(", ")));
            Exit::Expectation
        }
    }
}
