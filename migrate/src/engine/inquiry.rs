//! Asks the target who owns the guest, again and again with growing pauses, until the asker is told to
//! stop. Only the target's word counts; silence says nothing.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::source::Input;
use crate::protocol::{Inquire, Message, SourceEvent, VerdictReport};
use crate::transport::{Address, ControlError, ControlReader, ControlWriter};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A thread that asks. Dropping it ends it.
pub(super) struct Inquirer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inquirer {
    /// Begins to ask `address`; each answer comes as a `Verdict`.
    pub(super) fn start(address: Address, inquire: Inquire, inputs: Sender<Input>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("inquirer".to_owned()).spawn(move || {
            let mut pause = FIRST_PAUSE;
            loop {
                match ask(&address, inquire) {
                    Ok(report) => {
                        if inputs.send(Input::Event(SourceEvent::Verdict(report))).is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::debug!(%error, "the target does not answer the inquiry"),
                }
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Inquirer {
    fn drop(&mut self) {
        self.stop = None;
        // It may be in the middle of asking, for as long as that may take; it holds nothing of ours.
        drop(self.thread.take());
    }
}

/// Asks once.
pub(super) fn ask(address: &Address, inquire: Inquire) -> Result<VerdictReport, ControlError> {
    let link = address.connect()?;
    link.set_read_timeout(Some(ANSWER_WITHIN))?;
    ControlWriter::new(&link).write(&Message::Inquire(inquire))?;
    match ControlReader::of_stranger(&link).read()? {
        Message::Verdict(report) => Ok(report),
        other => Err(std::io::Error::other(format!("it answered {:?}", other.kind())).into()),
    }
}
