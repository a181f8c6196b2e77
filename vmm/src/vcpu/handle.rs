//! What the rest of the machine holds of a vCPU: commands in, events out, and the gate where parked
//! vCPUs are counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::debug::{DebugCommand, DebugState};
use super::error::VcpuError;
use super::exit::GuestEnd;
use super::new::NewVcpu;
use super::registers::VcpuRegisters;
use super::state::TscAt;
use super::thread::VcpuThread;
use crate::devices::PortBus;
use crate::kvm::{DirtyLog, KickSignal};
use crate::memory::GuestRam;
use crate::saved_state::VcpuV1;

/// What a vCPU reports on its own.
#[derive(Debug)]
pub enum VcpuEvent {
    /// The guest is over; this vCPU has parked, the others still run.
    Ended(GuestEnd),
    /// The guest panicked, and its crash kernel takes over; it runs on.
    CrashKernel,
}

pub(super) enum Command {
    Run,
    Save { host_tsc: u64, reply: Sender<Result<VcpuV1, VcpuError>> },
    Restore { saved: Box<VcpuV1>, clock: TscAt, reply: Sender<Result<(), VcpuError>> },
    Registers { reply: Sender<Result<VcpuRegisters, VcpuError>> },
    TellGuestItWasPaused,
    WarmUp { reply: Sender<Result<(), VcpuError>> },
    Debug(DebugCommand),
}

/// Counts the vCPUs that are in the guest (or on their way in or out).
#[derive(Debug, Default)]
pub struct RunGate {
    inside: Mutex<Inside>,
    changed: Condvar,
    guest_ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Inside {
    running: u32,
    /// When the first of them was about to execute, since all were parked the last time.
    first_entry: Option<Instant>,
}

impl RunGate {
    fn enter(&self) {
        let mut inside = self.lock();
        if inside.running == 0 {
            inside.first_entry = None;
        }
        inside.running += 1;
    }

    /// Said by a vCPU right before it executes.
    pub(super) fn note_entry(&self) {
        let mut inside = self.lock();
        if inside.first_entry.is_none() {
            inside.first_entry = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Waits until the first vCPU is about to execute, and says when that was.
    pub fn wait_first_entry(&self, within: Duration) -> Option<Instant> {
        let (inside, _) = self
            .changed
            .wait_timeout_while(self.lock(), within, |inside| inside.first_entry.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        inside.first_entry
    }

    /// Said by a vCPU whose guest is over, before it leaves.
    pub(super) fn note_end(&self) {
        self.guest_ended.store(true, Ordering::SeqCst);
    }

    /// Whether the guest is over. Sure once all vCPUs are parked.
    pub fn guest_ended(&self) -> bool {
        self.guest_ended.load(Ordering::SeqCst)
    }

    pub(super) fn leave(&self) {
        self.lock().running -= 1;
        self.changed.notify_all();
    }

    /// Waits until no vCPU is in the guest.
    pub fn wait_all_parked(&self) {
        let _none = self
            .changed
            .wait_while(self.lock(), |inside| inside.running > 0)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// Waits until no vCPU is in the guest, up to `within`.
    pub fn wait_all_parked_within(&self, within: Duration) {
        let _none_or_late = self
            .changed
            .wait_timeout_while(self.lock(), within, |inside| inside.running > 0)
            .unwrap_or_else(PoisonError::into_inner);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a vCPU's thread and its handle share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) kick: KickSignal,
    pub(super) park_requested: AtomicBool,
}

/// What a vCPU shares with the rest of its machine.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) bus: Arc<PortBus>,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) dirty_log: Arc<DirtyLog>,
    pub(crate) gate: Arc<RunGate>,
}

/// One vCPU, parked until it is told to run. Dropping it ends its thread.
#[derive(Debug)]
pub struct VcpuHandle {
    index: u32,
    shared: Arc<Shared>,
    gate: Arc<RunGate>,
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuHandle {
    pub(crate) fn spawn(
        new: NewVcpu,
        around: Surroundings,
        events: Sender<VcpuEvent>,
    ) -> Result<Self, VcpuError> {
        let NewVcpu { vcpu, context } = new;
        let index = context.index;
        let gate = Arc::clone(&around.gate);
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::channel();
        let thread = VcpuThread {
            vcpu,
            context,
            around,
            shared: Arc::clone(&shared),
            events,
            restored: Vec::new(),
            debug: DebugState::default(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || thread.serve(&receiver))
            .map_err(|source| VcpuError::Spawn { index, source })?;
        Ok(Self { index, shared, gate, commands: Some(commands), thread: Some(thread) })
    }

    /// Lets the vCPU into the guest.
    ///
    /// # Errors
    /// Its thread is gone.
    pub fn run(&self) -> Result<(), VcpuError> {
        self.shared.park_requested.store(false, Ordering::SeqCst);
        self.gate.enter();
        self.send(Command::Run).inspect_err(|_| self.gate.leave())
    }

    /// Asks the vCPU to leave the guest; [`RunGate::wait_all_parked`] tells when it has.
    pub fn request_park(&self) {
        self.shared.park_requested.store(true, Ordering::SeqCst);
        self.shared.kick.kick();
    }

    /// Begins to read the parked vCPU's state.
    pub(crate) fn save(&self, host_tsc: u64) -> Result<Receiver<Result<VcpuV1, VcpuError>>, VcpuError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Save { host_tsc, reply })?;
        Ok(answer)
    }

    /// Begins to write the parked vCPU's state.
    pub(crate) fn restore(
        &self,
        saved: VcpuV1,
        clock: TscAt,
    ) -> Result<Receiver<Result<(), VcpuError>>, VcpuError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Restore { saved: Box::new(saved), clock, reply })?;
        Ok(answer)
    }

    /// Begins to enter and leave KVM without executing anything.
    pub(crate) fn warm_up(&self) -> Result<Receiver<Result<(), VcpuError>>, VcpuError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::WarmUp { reply })?;
        Ok(answer)
    }

    /// Begins to read the parked vCPU's registers.
    pub(crate) fn registers(&self) -> Result<Receiver<Result<VcpuRegisters, VcpuError>>, VcpuError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Registers { reply })?;
        Ok(answer)
    }

    /// Before it runs again, tells the guest that it was paused, so that its watchdogs keep calm.
    pub(crate) fn tell_guest_it_was_paused(&self) -> Result<(), VcpuError> {
        self.send(Command::TellGuestItWasPaused)
    }

    /// Asks the parked vCPU for something, and waits for its answer.
    pub(super) fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, VcpuError> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply))?;
        answer.recv().map_err(|_| self.gone())
    }

    /// The error for a thread that does not answer any more.
    pub(crate) fn gone(&self) -> VcpuError {
        VcpuError::ThreadGone { index: self.index }
    }

    fn send(&self, command: Command) -> Result<(), VcpuError> {
        let sender = self.commands.as_ref().ok_or_else(|| self.gone())?;
        sender.send(command).map_err(|_| self.gone())
    }
}

impl Drop for VcpuHandle {
    fn drop(&mut self) {
        self.request_park();
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened; there is nothing more to do about it here.
            let _ = thread.join();
        }
    }
}
