//! `godwit demo`: boots a guest, moves it live to a second process and on to a third, and watches it
//! from outside all the while.
//!
//! ```text
//!  this process ──spawns──▶ godwit run ──migration──▶ godwit receive ──migration──▶ godwit receive
//!       ▲                       │ serial                  │ serial                     │ serial
//!       └──── observer: one thread, one clock ◀───────────┴────────────────────────────┘
//! ```
//! It is nothing but a user of the product: it starts `godwit run` and `godwit receive`, talks to them
//! over their API and reads the guest's serial port. Guards end every process and remove every file,
//! however the demo ends; if it is killed (SIGKILL), the kernel still ends the processes.

mod error;
mod guest;
mod invitation;
mod journey;
mod patience;
mod report;
mod scratch;
mod screen;
mod vmm;

pub(crate) use error::DemoError;
pub(crate) use report::Report;
pub(crate) use screen::Screen;

use std::time::Instant;

use godwit_guest_images::observer::Observer;

use guest::Guest;
use journey::Hop;
use patience::Patience;
use scratch::Scratch;
use vmm::Launcher;

/// Where the guest boots, where it goes, and where it goes from there.
const PROCESSES: usize = 3;

/// Plays the whole demo; what it finds is in the report, what to do next as well.
///
/// # Errors
/// When anything did not happen as it should. Nothing is left behind then, either.
pub(crate) fn demo(screen: &mut dyn Screen) -> Result<Report, DemoError> {
    let began = Instant::now();
    let guest = Guest::for_this_host();
    screen.say("Boots a guest that never stops writing, and moves it live, twice.\n");

    // Dropped in reverse: the processes end before their directory goes.
    let scratch = Scratch::create()?;
    let (observer, pipes) = Observer::start(PROCESSES)
        .map_err(|source| DemoError::System { action: "watch the guest from outside", source })?;
    let mut launcher = Launcher::new(&scratch, pipes)?;
    let mut patience = Patience::new(screen);

    let mut here = guest.boot(&mut launcher, &observer, &mut patience)?;
    patience.screen().say(&format!("  guest runs in process {}: {}", here.pid(), guest.in_words()));

    let mut hops = Vec::new();
    for _ in 1..PROCESSES {
        let there = launcher.receive(&mut patience)?;
        let hop = Hop { guest: &guest, observer: &observer, from: here, to: there };
        let (outcome, arrived) = hop.travel(&mut patience)?;
        patience.screen().say(&format!("  moved to process {}: {}", arrived.pid(), outcome.found_in_words()));
        hops.push(outcome);
        here = arrived;
    }
    here.stop(&mut patience);
    Ok(Report::new(&guest, &hops, began.elapsed()))
}
