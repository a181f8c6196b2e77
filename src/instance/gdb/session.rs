//! One gdb, from its first packet to its last.

use std::io;

use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason};

use super::answers::Answers;
use super::frame::PACKET_BYTES_MAX;
use super::guest::{Guest, tid_of};
use super::incoming::{Incoming, IncomingError, Next};
use super::mailbox::Note;
use crate::instance::exit::Exit;

type Machine<'a> = GdbStubStateMachine<'a, Guest, Answers>;

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// gdb has let the guest go.
    Detached,
    /// gdb wants the VM to end.
    Killed,
    /// gdb is gone without a word.
    Lost,
    /// The VM is over.
    Over,
}

/// Why a session broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error("what came is not gdb's protocol: {0}")]
    Protocol(#[from] GdbStubError<std::convert::Infallible, io::Error>),
}

/// Serves gdb until it leaves or the VM is over.
pub(super) fn serve(
    guest: &mut Guest,
    answers: Answers,
    incoming: &mut Incoming<'_>,
    greeting: Vec<u8>,
) -> Result<Ended, SessionError> {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let stub = GdbStub::builder(answers).with_packet_buffer(&mut buffer).build().map_err(|_| too_small())?;
    let mut gdb = stub.run_state_machine(guest)?;
    let mut packet = Some(greeting);
    loop {
        let next = match packet.take() {
            Some(packet) => Next::Packet(packet),
            None => incoming.next()?,
        };
        gdb = match next {
            Next::Gone => return Ok(Ended::Lost),
            Next::Packet(packet) => feed(gdb, guest, &packet)?,
            Next::Note(note) => match heed(gdb, guest, note)? {
                Some(gdb) => gdb,
                None => return Ok(Ended::Over),
            },
        };
        if let GdbStubStateMachine::Disconnected(gdb) = gdb {
            return Ok(match gdb.get_reason() {
                DisconnectReason::Disconnect => Ended::Detached,
                DisconnectReason::Kill => Ended::Killed,
                DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_) => Ended::Over,
            });
        }
    }
}

fn too_small() -> IncomingError {
    IncomingError::Connection(io::Error::other("the packet buffer is too small"))
}

/// One packet.
fn feed<'a>(mut gdb: Machine<'a>, guest: &mut Guest, packet: &[u8]) -> Result<Machine<'a>, SessionError> {
    for byte in packet {
        gdb = match gdb {
            GdbStubStateMachine::Idle(gdb) => gdb.incoming_data(guest, *byte)?,
            GdbStubStateMachine::Running(gdb) => gdb.incoming_data(guest, *byte)?,
            other => other,
        };
        if let GdbStubStateMachine::CtrlCInterrupt(interrupted) = gdb {
            let reason = guest.halt(None).map_or_else(
                || MultiThreadStopReason::SignalWithThread {
                    tid: tid_of(guest.current),
                    signal: Signal::SIGINT,
                },
                |(vcpu, stop)| guest.reason(vcpu, stop),
            );
            gdb = interrupted.interrupt_handled(guest, Some(reason))?;
        }
    }
    Ok(gdb)
}

/// One note; `None` when the VM is over and gdb knows as much as it can.
fn heed<'a>(gdb: Machine<'a>, guest: &mut Guest, note: Note) -> Result<Option<Machine<'a>>, SessionError> {
    if note == Note::Rebooted {
        guest.has_rebooted();
    }
    let GdbStubStateMachine::Running(mut gdb) = gdb else {
        // gdb believes that the guest stands, and can be told nothing before it resumes it.
        return Ok(if matches!(note, Note::Over(_)) { None } else { Some(gdb) });
    };
    let reason = match note {
        Note::Stopped { vcpu, stop } => match guest.halt(Some((vcpu, stop))) {
            Some((vcpu, stop)) => guest.reason(vcpu, stop),
            None => return Ok(Some(gdb.into())),
        },
        Note::CannotStep { vcpu } => {
            let connection = gdb.borrow_conn();
            connection.say(
                "godwit: this host's KVM cannot step this code (see `godwit info`); nothing was run\n",
            )?;
            // No trap, or gdb would believe that the step was made.
            MultiThreadStopReason::SignalWithThread { tid: tid_of(vcpu), signal: Signal::SIGEMT }
        }
        Note::Rebooted => {
            MultiThreadStopReason::SignalWithThread { tid: tid_of(guest.current), signal: Signal::SIGTRAP }
        }
        Note::Over(Exit::Crashed | Exit::VmmFailed) => MultiThreadStopReason::Terminated(Signal::SIGABRT),
        Note::Over(exit) => MultiThreadStopReason::Exited(exit.status()),
    };
    Ok(Some(gdb.report_stop(guest, reason)?))
}
