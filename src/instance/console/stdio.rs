//! Standard input as the guest's keyboard: raw while it is a terminal, until `Ctrl-]`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::outputs::Typist;
use crate::instance::process::say;

/// `Ctrl-]`.
const LEAVE: u8 = 0x1d;

/// Standard input in raw mode. Dropping it restores what it was.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    restorer: Restorer,
}

/// Restores the terminal, once.
#[derive(Debug, Clone)]
pub(crate) struct Restorer {
    before: Box<Termios>,
    restored: Arc<AtomicBool>,
}

impl RawTerminal {
    /// Switches standard input to raw mode, if it is a terminal.
    pub(crate) fn of_stdin() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // Output is still text of ours as well: keep the carriage return that goes with each new line.
        raw.output_modes = before.output_modes;
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        let restorer = Restorer { before: Box::new(before), restored: Arc::new(AtomicBool::new(false)) };
        Some(Self { restorer })
    }

    pub(crate) fn restorer(&self) -> Restorer {
        self.restorer.clone()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restorer.restore();
    }
}

impl Restorer {
    fn restore(&self) {
        if !self.restored.swap(true, Ordering::SeqCst) {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
        }
    }
}

/// Types what comes from standard input. Its end does not stop the guest; `Ctrl-]` on a terminal gives
/// the terminal back and leaves the guest running.
pub(super) fn read_stdin(typist: &Typist, terminal: Option<Restorer>) {
    let mut bytes = [0; 4096];
    loop {
        let count = match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        };
        let typed = &bytes[..count];
        match terminal.as_ref().and_then(|t| Some((t, typed.iter().position(|byte| *byte == LEAVE)?))) {
            None => typist(typed),
            Some((terminal, at)) => {
                typist(&typed[..at]);
                terminal.restore();
                say("the guest runs on without this keyboard; Ctrl-C ends it");
                return;
            }
        }
    }
}
