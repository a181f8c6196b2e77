//! The serial output from a position on, for who counts for itself what it missed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::hub::Console;

/// Parts that may wait for a client, each at most as large as the ring.
const PARTS_WAITING_MAX: usize = 2;
/// How often the thread looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many looks in vain end it: that a client has left shows only when something is sent to it.
const SILENT_LOOKS_MAX: u32 = 10;

/// Everything from `position` on without a gap. Closed when the guest is gone, after some seconds of
/// silence, and before a gap. The client then asks anew, and so learns which it was.
pub(crate) fn follow(console: &Arc<Console>, mut position: u64) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, parts) = mpsc::channel(PARTS_WAITING_MAX);
    let console = Arc::clone(console);
    std::thread::Builder::new().name("console".to_owned()).spawn(move || {
        let mut silent_looks = 0;
        while silent_looks < SILENT_LOOKS_MAX {
            let part = console.part(position, LOOK_EVERY);
            if part.from != position || sender.is_closed() {
                return;
            }
            position += part.bytes.len() as u64;
            silent_looks = if part.bytes.is_empty() { silent_looks + 1 } else { 0 };
            let taken = part.bytes.is_empty() || sender.blocking_send(part.bytes).is_ok();
            if !taken || part.last {
                return;
            }
        }
    })?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use godwit_vmm::devices::ConsoleSink;

    use super::*;

    fn all(mut parts: mpsc::Receiver<Vec<u8>>) -> Vec<u8> {
        std::iter::from_fn(|| parts.blocking_recv()).flatten().collect()
    }

    #[test]
    fn it_ends_with_the_guest() {
        let console = Console::new();
        b"past".iter().for_each(|byte| console.byte(*byte));
        let parts = follow(&console, 2).unwrap();
        b" and present".iter().for_each(|byte| console.byte(*byte));
        console.close();
        assert_eq!(all(parts), b"st and present");
    }

    #[test]
    fn before_a_gap_it_ends_and_what_came_until_then_is_whole() {
        let console = Console::new();
        let parts = follow(&console, 0).unwrap();
        // Nobody takes anything: it can hold so many parts, and the ring is overwritten many times.
        let written = 10_000_000_u64;
        for position in 0..written {
            console.byte(pattern(position));
        }
        let seen = all(parts);
        assert!((seen.len() as u64) < written, "there was a gap");
        assert!(
            seen.iter().zip(0..).all(|(byte, position)| *byte == pattern(position)),
            "and none before it"
        );
        assert!(
            console.part(seen.len() as u64, Duration::ZERO).from > seen.len() as u64,
            "asking anew tells"
        );
    }

    fn pattern(position: u64) -> u8 {
        u8::try_from(position % 251).unwrap()
    }
}
