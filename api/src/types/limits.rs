//! The bounds of what a person may ask for. The command line and the API server check the same
//! ones, so that neither accepts what the other refuses.

use std::ops::RangeInclusive;

/// Longest blackout that may be asked for or accepted, in microseconds.
pub const MAX_DOWNTIME_US: RangeInclusive<u64> = 100..=60_000_000;
/// What `--max-downtime` is when nobody says otherwise: 10 ms.
pub const MAX_DOWNTIME_DEFAULT_US: u64 = 10_000;

/// How long a migration may take, in milliseconds: up to a day.
pub const TIMEOUT_MS: RangeInclusive<u64> = 100..=86_400_000;
/// What `--timeout` is when nobody says otherwise: 60 s.
pub const TIMEOUT_DEFAULT_MS: u64 = 60_000;

/// Bandwidth limit in bits a second: 1 Mbit/s to 1 Tbit/s.
pub const BANDWIDTH_BITS_PER_S: RangeInclusive<u64> = 1_000_000..=1_000_000_000_000;

/// Data streams of one migration.
pub const STREAMS: RangeInclusive<u32> = 1..=64;

/// Virtual CPUs of one VM.
pub const CPUS: RangeInclusive<u32> = 1..=64;

/// Smallest guest memory: 1 MiB.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Guest memory is a multiple of this.
pub const PAGE_BYTES: u64 = 4096;

/// Longest name of a VM, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// Most guest memory that one request reads: 16 MiB.
pub const MEMORY_READ_BYTES_MAX: u64 = 16 << 20;
