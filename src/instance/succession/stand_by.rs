//! What is left of a process whose guest runs on in a successor: its number, and its end.

use std::sync::mpsc::{Receiver, Sender};

use godwit_api::VmName;
use godwit_api::registry::RuntimeDir;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::super::exit::Exit;
use super::super::vm::Event;

/// Waits until the guest is over in whatever process has it by then, and ends as that one did. Signals
/// go on to it.
pub(crate) fn stand_by(
    name: &VmName,
    successor: u32,
    events: &Receiver<Event>,
    sender: Sender<Event>,
) -> Exit {
    let waiting = std::thread::Builder::new().name("stand-by".to_owned()).spawn(move || {
        let _ = sender.send(Event::Succeeded { exit: wait_for_the_last_child() });
    });
    if waiting.is_err() {
        // Nothing to wait with: the guest runs on all the same.
        return Exit::Done;
    }
    for event in events {
        match event {
            Event::Succeeded { exit } => return exit,
            Event::Signal => forward(name, successor),
            // All else was of the guest when it was here.
            _ => {}
        }
    }
    Exit::Done
}

/// A successor's own successor becomes this process's child when its parent ends: the last one to end
/// had the guest.
fn wait_for_the_last_child() -> Exit {
    let mut last = Exit::Done;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((_, status))) => last = exit_of(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            // No child is left.
            Err(_) => return last,
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match status.exit_status().and_then(|status| u8::try_from(status).ok()) {
        Some(status) => Exit::Inherited(status),
        None => Exit::VmmFailed,
    }
}

fn forward(name: &VmName, successor: u32) {
    let holder = RuntimeDir::open().and_then(|directory| directory.find(name)).map(|entry| entry.file.pid);
    let pid = i32::try_from(holder.unwrap_or(successor)).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now, which is what was wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
}
