//! The lines that the test kernel writes to its serial port.
//!
//! The kernel writes them with `Display`, a test reads them back with [`parse_line`]: one source, so
//! that the two cannot drift apart.

use core::fmt;

/// What every line of the kernel begins with.
pub const PREFIX: &str = "godwit-guest: ";

/// The byte of a beat. It occurs in no line while beats are on, so all of them can be dropped.
pub const BEAT: u8 = b'.';

/// Stands for [`BEAT`] in a line that would have it.
pub const BEAT_STAND_IN: u8 = b'_';

/// A line of the kernel, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// The first line: the kernel runs.
    Up {
        /// vCPUs that run.
        cpus: u64,
        /// Bytes of usable memory in the memory map.
        mem: u64,
        /// The payload of vCPU 0.
        payload: &'a str,
        /// Frequency of the time stamp counter.
        tsc_khz: u64,
        /// How the kernel knows it: `cpuid`, `kvmclock`, `pit`, or `guess`.
        tsc_from: &'a str,
    },
    /// A run of memory that is in the working set of a vCPU.
    Region {
        /// The vCPU.
        cpu: u64,
        /// Guest-physical address of its first byte.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// What a dirtying vCPU has done so far.
    Progress(Progress),
    /// The first page of a vCPU that was not as it was last written.
    Mismatch(Mismatch),
    /// The answer to `verify` for one vCPU.
    Verified {
        /// The vCPU.
        cpu: u64,
        /// Pages checked.
        pages: u64,
        /// Pages that were not as last written.
        mismatches: u64,
    },
    /// The answer to `hash`.
    Hash {
        /// First byte.
        start: u64,
        /// Bytes.
        len: u64,
        /// Their FNV-1a digest.
        digest: u64,
    },
    /// The answer to `ping`.
    Pong,
    /// The first answer to `pvpanic`.
    Pvpanic {
        /// The events that the device supports, or 0xff where there is none.
        supported: u64,
    },
    /// The answer to `echo`.
    Echo(&'a str),
    /// Something is wrong; at boot the kernel then ends, in answer to a command it goes on.
    Error(&'a str),
    /// A CPU exception that the kernel did not expect; it then crashes.
    Exception {
        /// The vCPU.
        cpu: u64,
        /// Its number, 14 for a page fault.
        vector: u64,
        /// Its error code, or 0.
        error: u64,
        /// Where.
        rip: u64,
        /// The address of a page fault.
        cr2: u64,
    },
    /// The kernel has a bug, and crashes.
    Panic(&'a str),
}

/// What a dirtying vCPU has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The vCPU.
    pub cpu: u64,
    /// How many times every page of the working set was written.
    pub pass: u64,
    /// Pages written.
    pub pages: u64,
    /// Pages that were not as last written when their turn came.
    pub mismatches: u64,
    /// Longest time in which the vCPU did nothing since its last report, in microseconds.
    pub gap_us: u64,
    /// Longest such time ever.
    pub gap_max_us: u64,
}

/// A page that was not as it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The vCPU.
    pub cpu: u64,
    /// Its page number in the working set.
    pub page: u64,
    /// Guest-physical address of the wrong word.
    pub address: u64,
    /// The generation that the page should hold.
    pub generation: u64,
    /// The word that it should hold.
    pub expected: u64,
    /// The word that it holds.
    pub found: u64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        match *self {
            Self::Up { cpus, mem, payload, tsc_khz, tsc_from } => {
                write!(f, "up cpus={cpus} mem={mem} payload={payload} tsc_khz={tsc_khz} tsc_from={tsc_from}")
            }
            Self::Region { cpu, start, len } => write!(f, "region cpu={cpu} start={start:#x} len={len:#x}"),
            Self::Progress(Progress { cpu, pass, pages, mismatches, gap_us, gap_max_us }) => write!(
                f,
                "cpu={cpu} pass={pass} pages={pages} mismatches={mismatches} gap_us={gap_us} gap_max_us={gap_max_us}"
            ),
            Self::Mismatch(Mismatch { cpu, page, address, generation, expected, found }) => write!(
                f,
                "mismatch cpu={cpu} page={page} address={address:#x} generation={generation} \
                 expected={expected:#018x} found={found:#018x}"
            ),
            Self::Verified { cpu, pages, mismatches } => {
                write!(f, "verified cpu={cpu} pages={pages} mismatches={mismatches}")
            }
            Self::Hash { start, len, digest } => write!(f, "hash {start:#x} {len:#x} {digest:016x}"),
            Self::Pong => f.write_str("pong"),
            Self::Pvpanic { supported } => write!(f, "pvpanic supported={supported:#x}"),
            Self::Echo(text) => write!(f, "echo {text}"),
            Self::Error(text) => write!(f, "error {text}"),
            Self::Exception { cpu, vector, error, rip, cr2 } => {
                write!(f, "exception cpu={cpu} vector={vector} error={error:#x} rip={rip:#x} cr2={cr2:#x}")
            }
            Self::Panic(text) => write!(f, "panic {text}"),
        }
    }
}

/// Reads one line of the kernel, with or without its line end; beats must be out already
/// (see [`is_beat`]). `None` for a line that is none of its.
///
/// ```
/// use godwit_guest_images::report::{Report, parse_line};
/// assert_eq!(parse_line("godwit-guest: pong\n"), Some(Report::Pong));
/// ```
pub fn parse_line(line: &str) -> Option<Report<'_>> {
    let body = line.trim_end_matches(['\r', '\n']).strip_prefix(PREFIX)?;
    let (first, rest) = body.split_once(' ').unwrap_or((body, ""));
    let mut fields = Fields(rest);
    let report = match first {
        "up" => Report::Up {
            cpus: fields.number("cpus")?,
            mem: fields.number("mem")?,
            payload: fields.value("payload")?,
            tsc_khz: fields.number("tsc_khz")?,
            tsc_from: fields.value("tsc_from")?,
        },
        "region" => Report::Region {
            cpu: fields.number("cpu")?,
            start: fields.number("start")?,
            len: fields.number("len")?,
        },
        "mismatch" => Report::Mismatch(Mismatch {
            cpu: fields.number("cpu")?,
            page: fields.number("page")?,
            address: fields.number("address")?,
            generation: fields.number("generation")?,
            expected: fields.number("expected")?,
            found: fields.number("found")?,
        }),
        "verified" => Report::Verified {
            cpu: fields.number("cpu")?,
            pages: fields.number("pages")?,
            mismatches: fields.number("mismatches")?,
        },
        "hash" => Report::Hash {
            start: crate::units::number(fields.word()?)?,
            len: crate::units::number(fields.word()?)?,
            digest: u64::from_str_radix(fields.word()?, 16).ok()?,
        },
        "exception" => Report::Exception {
            cpu: fields.number("cpu")?,
            vector: fields.number("vector")?,
            error: fields.number("error")?,
            rip: fields.number("rip")?,
            cr2: fields.number("cr2")?,
        },
        "pong" => Report::Pong,
        "pvpanic" => Report::Pvpanic { supported: fields.number("supported")? },
        "echo" => return Some(Report::Echo(rest)),
        "error" => return Some(Report::Error(rest)),
        "panic" => return Some(Report::Panic(rest)),
        _ => {
            fields = Fields(body);
            Report::Progress(Progress {
                cpu: fields.number("cpu")?,
                pass: fields.number("pass")?,
                pages: fields.number("pages")?,
                mismatches: fields.number("mismatches")?,
                gap_us: fields.number("gap_us")?,
                gap_max_us: fields.number("gap_max_us")?,
            })
        }
    };
    fields.0.is_empty().then_some(report)
}

/// Whether a byte from the serial port of a kernel with `beat=` on its command line is a beat, and
/// so part of no line.
pub const fn is_beat(byte: u8) -> bool {
    byte == BEAT
}

/// The words of a line that are still to be read.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn word(&mut self) -> Option<&'a str> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn value(&mut self, key: &str) -> Option<&'a str> {
        self.word()?.strip_prefix(key)?.strip_prefix('=')
    }

    fn number(&mut self, key: &str) -> Option<u64> {
        crate::units::number(self.value(key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for report in [
            Report::Up { cpus: 4, mem: 1 << 28, payload: "dirty", tsc_khz: 2_000_000, tsc_from: "cpuid" },
            Report::Region { cpu: 1, start: 0x40_0000, len: 4096 },
            Report::Progress(Progress {
                cpu: 63,
                pass: 12,
                pages: 123_456,
                mismatches: 0,
                gap_us: 7,
                gap_max_us: u64::MAX,
            }),
            Report::Mismatch(Mismatch {
                cpu: 0,
                page: 5,
                address: 0x5000,
                generation: 3,
                expected: 0x0123_4567_89ab_cdef,
                found: 0,
            }),
            Report::Verified { cpu: 2, pages: 100, mismatches: 1 },
            Report::Hash { start: 0x10_0000, len: 0, digest: 0xabc },
            Report::Pong,
            Report::Pvpanic { supported: 3 },
            Report::Echo("two  words"),
            Report::Error("what: why"),
            Report::Exception { cpu: 0, vector: 14, error: 2, rip: 0x20_0000, cr2: 0xdead_beef },
            Report::Panic("at once"),
        ] {
            let line = report.to_string();
            assert_eq!(parse_line(&line), Some(report));
            assert_eq!(parse_line(&format!("{line}\r\n")), Some(report));
            assert!(!line.bytes().any(is_beat), "{line}");
        }
    }

    #[test]
    fn other_lines_are_none_of_ours() {
        for line in [
            "",
            "Linux version 6",
            "godwit-guest: cpu=0 pass=1",
            "godwit-guest: pong pong",
            "godwit-guest: region cpu=x start=0x1 len=0x1",
            "godwit-guest: hash 0x1 0x1",
        ] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }
}
