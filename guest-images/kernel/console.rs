//! The serial commands, which vCPU 0 serves whatever else it does.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cmdline::Payload;
use crate::command::Command;
use crate::hash::Fnv1a64;
use crate::machine::Machine;
use crate::periodic::Periodic;
use crate::power;
use crate::pulse::Pulse;
use crate::report::{PREFIX, Report};
use crate::ring0;
use crate::serial;

/// Each look at the port leaves the guest, so there are few of them.
const POLL_NS: u64 = 1_000_000;

/// After a byte the next is near: until then every turn looks.
const HURRY_NS: u64 = 2_000_000;

const LINE_MAX: usize = 200;

/// Hashed between two ticks.
const CHUNK_BYTES: u64 = 4096;

/// What vCPU 0 asks of the others: a bit for each.
pub struct Request(AtomicU64);

impl Request {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn ask(&self, cpus: u64) {
        self.0.fetch_or(cpus, Ordering::Relaxed);
    }

    /// Whether `cpu` was asked since it last looked.
    #[inline]
    pub fn take(&self, cpu: usize) -> bool {
        // The plain load first: it leaves the cache line shared.
        let bit = 1 << cpu;
        self.0.load(Ordering::Relaxed) & bit != 0 && self.0.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }
}

/// A report line now.
pub static STATS: Request = Request::new();

/// Check all pages now.
pub static VERIFY: Request = Request::new();

/// A command line in the making.
pub struct Console {
    line: [u8; LINE_MAX],
    length: usize,
    poll: Periodic,
    last_byte: u64,
    hurry: u64,
}

impl Console {
    /// No input yet.
    pub fn new(machine: &Machine, now: u64) -> Self {
        let interval = machine.tsc.ticks(POLL_NS);
        let hurry = machine.tsc.ticks(HURRY_NS);
        let poll = Periodic::new(now, interval, interval);
        Self { line: [0; LINE_MAX], length: 0, poll, last_byte: now.wrapping_sub(hurry), hurry }
    }

    /// Looks for input, if it is time to, and carries out what is complete.
    #[inline]
    pub fn poll(&mut self, pulse: &mut Pulse, machine: &Machine, now: u64) {
        if self.poll.due(now) || self.in_hurry(now) {
            self.read(pulse, machine);
        }
    }

    /// Whether more input is to be expected at once.
    #[inline]
    pub fn in_hurry(&self, now: u64) -> bool {
        now.wrapping_sub(self.last_byte) < self.hurry
    }

    /// Takes in all input there is.
    fn read(&mut self, pulse: &mut Pulse, machine: &Machine) {
        while let Some(byte) = serial::receive() {
            self.last_byte = pulse.tick();
            match byte {
                b'\n' | b'\r' => {
                    self.carry_out(pulse, machine);
                    self.length = 0;
                }
                // What is too long is cut, and then is no command.
                _ if self.length < LINE_MAX => {
                    self.line[self.length] = byte;
                    self.length += 1;
                }
                _ => {}
            }
        }
    }

    fn carry_out(&self, pulse: &mut Pulse, machine: &Machine) {
        let Ok(line) = core::str::from_utf8(&self.line[..self.length]) else {
            return serial::line(pulse, Report::Error("command: not UTF-8"));
        };
        if line.trim_ascii().is_empty() {
            return;
        }
        match Command::parse(line) {
            None => {
                serial::line(pulse, format_args!("{PREFIX}error command: unknown or malformed \"{line}\""))
            }
            Some(Command::Hash { start, len }) => hash(pulse, machine, start, len),
            Some(Command::Verify) => VERIFY.ask(dirtying(machine)),
            Some(Command::Stats) => STATS.ask(dirtying(machine)),
            Some(Command::Ping) => serial::line(pulse, Report::Pong),
            Some(Command::Echo(text)) => serial::line(pulse, Report::Echo(text)),
            Some(Command::Quit) => power::power_off(machine.tsc),
            Some(Command::Reset) => power::reset(machine.tsc),
            Some(Command::Crash) => ring0::crash(),
            Some(Command::Pvpanic(value)) => {
                serial::line(pulse, Report::Pvpanic { supported: power::panic_events().into() });
                power::report_panic(value);
            }
            Some(Command::Exit(value)) => {
                power::exit(value);
                machine.tsc.delay(100_000_000);
                serial::line(pulse, Report::Error("exit: nothing is at port 0xf4"));
            }
        }
    }
}

fn dirtying(machine: &Machine) -> u64 {
    let cpus = machine.config.cpus.iter().enumerate();
    let dirtying = cpus.filter(|(_, options)| options.payload == Payload::Dirty);
    dirtying.fold(0, |bits, (cpu, _)| bits | 1 << cpu) & machine.online
}

fn hash(pulse: &mut Pulse, machine: &Machine, start: u64, len: u64) {
    let Some(end) = start.checked_add(len).filter(|&end| is_memory(machine, start, end)) else {
        return serial::line(pulse, Report::Error("hash: the range is not all usable memory"));
    };
    let mut digest = Fnv1a64::new();
    let mut address = start;
    while address < end {
        let chunk_end = end.min(address + CHUNK_BYTES);
        while address < chunk_end {
            // SAFETY: mapped memory. Volatile, as another vCPU may be writing it.
            digest.push(unsafe { (address as *const u8).read_volatile() });
            address += 1;
        }
        pulse.tick();
    }
    serial::line(pulse, Report::Hash { start, len, digest: digest.finish() });
}

/// Whether the memory map lists every byte as usable.
fn is_memory(machine: &Machine, mut start: u64, end: u64) -> bool {
    while start < end {
        match machine.usable.runs().iter().find(|run| (run.start..run.end).contains(&start)) {
            Some(run) => start = run.end,
            None => return false,
        }
    }
    true
}
