//! Guests whose memory stays as it is: `payload=hash` of the test kernel.

use std::time::{Duration, Instant};

use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::hash::Fnv1a64;
use godwit_guest_images::report::{Report, parse_line};
use godwit_harness::{Error, Guest};

use crate::PATIENCE;

/// Where the working set of vCPU 0 is, once the guest has written every word of it (`words=512`).
///
/// # Errors
/// The guest does not say where.
///
/// # Panics
/// It does not write it in time.
#[track_caller]
pub fn written_region(guest: &mut Guest) -> Result<(u64, u64), Error> {
    let (start, len) = guest.expect_that("the working set", PATIENCE, |line| match parse_line(line) {
        Some(Report::Region { cpu: 0, start, len }) => Some((start, len)),
        _ => None,
    })?;
    let until = Instant::now() + PATIENCE;
    // Commands are answered while it still writes.
    while guest.memory(start..start + len)?.chunks(8).any(|word| word.iter().all(|byte| *byte == 0)) {
        assert!(Instant::now() < until, "the guest does not write all of its working set");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((start, len))
}

/// What the guest itself says of its memory.
///
/// # Errors
/// It does not answer.
#[track_caller]
pub fn digest_by_guest(guest: &mut Guest, start: u64, len: u64) -> Result<u64, Error> {
    guest.send(GuestCommand::Hash { start, len })?;
    guest.expect_that("a digest", PATIENCE, |line| match parse_line(line) {
        Some(Report::Hash { digest, .. }) => Some(digest),
        _ => None,
    })
}

/// The digest of memory as the API gives it.
///
/// # Errors
/// The API does not.
#[track_caller]
pub fn digest_from_outside(guest: &mut Guest, start: u64, len: u64) -> Result<u64, Error> {
    let mut digest = Fnv1a64::new();
    digest.update(&guest.memory(start..start + len)?);
    Ok(digest.finish())
}
