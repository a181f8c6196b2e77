//! Finds out what of debugging works on this host, by trying it in a machine of its own.
//!
//! Capabilities do not tell: a KVM that emulates one ring and runs the other natively may stop a guest in one
//! and hand the exception to the guest in the other, where it does harm. So four short programs run in either
//! ring, before any guest does.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::error::MachineError;
use super::states::PausedMachine;
use crate::devices::ConsoleSink;
use crate::saved_state::{RegistersV1, SegmentV1, SystemRegistersV1, TableV1};
use crate::vcpu::debug::{
    DebugControls, DebugPoint, DebugRegisters, DebugSink, DebugStop, PointKind, Watched,
};

/// A program that neither stops nor crashes is given up after this.
const TRIAL_WITHIN: Duration = Duration::from_millis(500);

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
/// Present, writable, for ring 3 too; in the last level a page of 2 MiB.
const TABLE: u64 = 7;
const PAGE: u64 = 0x87;
const CODE: u64 = 0x8000;
const DATA: u64 = 0x9000;
const STACK: u64 = 0xa000;
/// `nop`; `mov [rbx], rax`; `ud2`, which without any handler is a crash.
const PROGRAM: [u8; 6] = [0x90, 0x48, 0x89, 0x03, 0x0f, 0x0b];
const STORE: u64 = CODE + 1;
const AFTER_STORE: u64 = CODE + 4;
const INT3: u8 = 0xcc;

/// In which rings something works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rings {
    /// In ring 0.
    pub kernel: bool,
    /// In ring 3.
    pub user: bool,
}

impl Rings {
    /// In both rings.
    #[must_use]
    pub fn everywhere(self) -> bool {
        self.kernel && self.user
    }

    /// In one of them at least.
    #[must_use]
    pub fn anywhere(self) -> bool {
        self.kernel || self.user
    }
}

/// What of debugging works on this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DebugSupport {
    /// One instruction at a time.
    pub step: Rings,
    /// The CPU's own breakpoints.
    pub execute: Rings,
    /// Watchpoints.
    pub watch: Rings,
    /// `int3` in memory.
    pub breakpoint: Rings,
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
enum Trial {
    Step,
    Execute,
    Watch,
    Breakpoint,
}

impl DebugSupport {
    /// Tries everything. Takes a few milliseconds where all works, more where it does not.
    ///
    /// # Errors
    /// This host cannot run a machine at all.
    pub fn find_out() -> Result<Self, MachineError> {
        let mut bench = Bench { machine: None };
        Ok(Self {
            step: bench.rings(Trial::Step)?,
            execute: bench.rings(Trial::Execute)?,
            watch: bench.rings(Trial::Watch)?,
            breakpoint: bench.rings(Trial::Breakpoint)?,
        })
    }

    /// What does not work, in a person's words; `None` if all works.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let missing = [
            ("steps", self.step),
            ("breakpoints of the CPU", self.execute),
            ("watchpoints", self.watch),
            ("breakpoints in memory", self.breakpoint),
        ];
        let named: Vec<String> = missing
            .into_iter()
            .filter_map(|(what, rings)| match rings {
                Rings { kernel: true, user: true } => None,
                Rings { kernel: true, user: false } => Some(format!("{what} in ring 3")),
                Rings { kernel: false, user: true } => Some(format!("{what} in ring 0")),
                Rings { kernel: false, user: false } => Some(what.to_owned()),
            })
            .collect();
        (!named.is_empty()).then(|| named.join(", "))
    }
}

/// The machine of the trials; a new one after a program went wrong.
struct Bench {
    machine: Option<PausedMachine>,
}

impl Bench {
    fn rings(&mut self, trial: Trial) -> Result<Rings, MachineError> {
        Ok(Rings { kernel: self.works(trial, 0)?, user: self.works(trial, 3)? })
    }

    fn works(&mut self, trial: Trial, ring: u8) -> Result<bool, MachineError> {
        let paused = match self.machine.take() {
            Some(paused) => paused,
            None => PausedMachine::bare(Arc::new(Silent))?,
        };
        if !paused.can_be_debugged() {
            return Ok(false);
        }
        let (told, stops) = mpsc::channel();
        if prepare(&paused, trial, ring, told).is_err() {
            return Ok(false);
        }
        let running = paused.resume()?;
        running.wait_all_parked(TRIAL_WITHIN);
        let paused = running.pause();
        let stop = stops.try_recv().ok();
        let rip = paused.vcpu_debug(0).and_then(|vcpu| vcpu.registers().ok()).map(|r| r.general.rip);
        let (expected, at) = match trial {
            Trial::Step => (DebugStop::Step, STORE),
            Trial::Execute => (DebugStop::Point(0), STORE),
            Trial::Watch => (DebugStop::Point(0), AFTER_STORE),
            Trial::Breakpoint => (DebugStop::Breakpoint, STORE),
        };
        let works = stop == Some(expected) && rip == Some(at) && !paused.guest_has_ended();
        tracing::debug!(
            ?trial,
            ring,
            works,
            ?stop,
            ?rip,
            ended = paused.guest_has_ended(),
            "debugging was tried"
        );
        if works {
            self.machine = Some(paused);
        }
        Ok(works)
    }
}

fn prepare(
    paused: &PausedMachine,
    trial: Trial,
    ring: u8,
    told: Sender<DebugStop>,
) -> Result<(), MachineError> {
    let ram = paused.machine().ram();
    for (at, entry) in [(PML4, PDPT | TABLE), (PDPT, DIRECTORY | TABLE), (DIRECTORY, PAGE)] {
        ram.write(at, &entry.to_le_bytes())?;
    }
    ram.write(CODE, &PROGRAM)?;
    let mut controls = DebugControls::default();
    match trial {
        Trial::Step => controls.step = true,
        Trial::Execute => controls.points[0] = DebugPoint::new(PointKind::Execute, STORE, 1),
        Trial::Watch => controls.points[0] = DebugPoint::new(PointKind::Write, DATA, 8),
        Trial::Breakpoint => {
            ram.write(STORE, &[INT3])?;
            controls.breakpoints = Arc::new([STORE].into());
        }
    }
    let Some(vcpu) = paused.vcpu_debug(0) else { return Ok(()) };
    let now = vcpu.registers()?;
    vcpu.set_registers(entry(ring, now))?;
    Ok(vcpu.watch(Some(Watched { controls, sink: Arc::new(Told(told.into())) }))?)
}

/// At the program, in 64-bit mode.
fn entry(ring: u8, now: DebugRegisters) -> DebugRegisters {
    let flat = SegmentV1 {
        limit: u32::MAX,
        present: 1,
        dpl: ring,
        s: 1,
        g: 1,
        selector: u16::from(ring),
        ..SegmentV1::default()
    };
    // Selectors as kernels have them: code 0x08 or 0x2b, data 0x10 or 0x23.
    let (code, data) = if ring == 0 { (0x08, 0x10) } else { (0x2b, 0x23) };
    let data = SegmentV1 { selector: data, kind: 0x3, db: 1, ..flat };
    let empty = TableV1 { base: 0, limit: 0 };
    let system = SystemRegistersV1 {
        cs: SegmentV1 { selector: code, kind: 0xb, l: 1, ..flat },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: SegmentV1 { limit: 0x67, selector: 0x18, kind: 0xb, present: 1, ..SegmentV1::default() },
        gdt: empty,
        idt: empty,
        // PG, NE, ET, MP, PE; PAE, OSFXSR; LMA, LME.
        cr0: 0x8000_0033,
        cr3: PML4,
        cr4: 0x220,
        efer: 0x500,
        ..now.system
    };
    let general = RegistersV1 { rip: CODE, rbx: DATA, rsp: STACK, rflags: 2, ..RegistersV1::default() };
    DebugRegisters { general, system, float: now.float }
}

#[derive(Debug)]
struct Told(std::sync::Mutex<Sender<DebugStop>>);

impl DebugSink for Told {
    fn stopped(&self, _vcpu: u32, stop: DebugStop) {
        // The trial may be over.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(stop);
    }
}

#[derive(Debug)]
struct Silent;

impl ConsoleSink for Silent {
    fn byte(&self, _byte: u8) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let both = Rings { kernel: true, user: true };
        let all = DebugSupport { step: both, execute: both, watch: both, breakpoint: both };
        assert_eq!(all.missing(), None);
        let some = DebugSupport { step: Rings { user: false, ..both }, watch: Rings::default(), ..all };
        assert_eq!(some.missing().unwrap(), "steps in ring 3, watchpoints");
    }
}
