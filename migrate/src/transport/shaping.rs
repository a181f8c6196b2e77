//! A limit on the bytes per second of all data streams together, and the place where a given-up
//! migration stops its streams.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ram::SendError;

/// Bytes that may go out at once after a silence, as time at the limit.
const BURST: Duration = Duration::from_millis(20);

/// Shared by all streams of one migration.
#[derive(Debug)]
pub struct Shaper {
    state: Mutex<State>,
    stopped: Condvar,
    bytes_per_s: Option<u64>,
}

#[derive(Debug)]
struct State {
    /// When the bytes that were let through so far are paid for.
    paid_at: Instant,
    stop: bool,
}

impl Shaper {
    /// With this limit, or without one.
    #[must_use]
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self {
            state: Mutex::new(State { paid_at: Instant::now(), stop: false }),
            stopped: Condvar::new(),
            bytes_per_s,
        }
    }

    /// Waits until `bytes` more may go out.
    ///
    /// # Errors
    /// The migration is given up.
    pub fn wait_for(&self, bytes: u64) -> Result<(), SendError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes_per_s) = self.bytes_per_s {
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            state.paid_at = state.paid_at.max(earliest) + cost(bytes, bytes_per_s);
            let until = state.paid_at;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if state.stop || left.is_zero() {
                    break;
                }
                (state, _) = self.stopped.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if state.stop { Err(SendError::Stopped) } else { Ok(()) }
    }

    /// Whether the migration was given up.
    ///
    /// # Errors
    /// It was.
    pub fn check_stopped(&self) -> Result<(), SendError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stop { Err(SendError::Stopped) } else { Ok(()) }
    }

    /// Gives the migration up: whoever waits here goes on with an error.
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.stopped.notify_all();
    }
}

fn cost(bytes: u64, bytes_per_s: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept() {
        let shaper = Shaper::new(Some(10 << 20));
        let begin = Instant::now();
        for _ in 0..20 {
            shaper.wait_for(100 << 10).unwrap();
        }
        // 2000 KiB at 10 MiB/s are 195 ms, less the burst.
        assert!(begin.elapsed() >= Duration::from_millis(170), "{:?}", begin.elapsed());
    }

    #[test]
    fn giving_up_wakes_who_waits() {
        let shaper = std::sync::Arc::new(Shaper::new(Some(1000)));
        let waiter = std::thread::spawn({
            let shaper = std::sync::Arc::clone(&shaper);
            move || shaper.wait_for(1_000_000)
        });
        shaper.stop();
        assert!(matches!(waiter.join().unwrap(), Err(SendError::Stopped)));
        assert!(matches!(Shaper::new(None).wait_for(u64::MAX), Ok(())));
    }
}
