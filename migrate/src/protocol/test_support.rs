//! What the tests of this module share: one sample of everything, and machines brought to any
//! state by the events that lead there.

use super::message::*;
use super::source::{Source, SourceAction, SourceConfig, SourceEvent};
use super::target::{Target, TargetAction, TargetConfig, TargetEvent};
use super::text::{Blob, Text, VmName};
use super::version::{Features, PROTOCOL_MAX, VersionRange};
use crate::ownership::Epoch;
use std::time::Duration;

pub(super) const RECEIVER: ReceiverId = ReceiverId([0xaa; 16]);
pub(super) const SESSION: SessionId = SessionId([0x55; 16]);
pub(super) const CHECKSUM: u64 = 0x0123_4567_89ab_cdef;
pub(super) const NOW: Duration = Duration::from_secs(1000);

pub(super) fn epoch() -> Epoch {
    Epoch::FIRST.next().expect("two epochs exist")
}

pub(super) fn text(text: &str) -> Text {
    Text::clip(text)
}

pub(super) fn source_config() -> SourceConfig {
    let name = VmName::new("guest-1").expect("a name");
    let description = Blob(vec![1, 2, 3]);
    SourceConfig { streams: 2, ..SourceConfig::new(name, epoch(), Duration::from_millis(10), description) }
}

pub(super) fn target_config() -> TargetConfig {
    TargetConfig::new(RECEIVER, SESSION, text("boot"), text("/run/godwit/guest-1.state"))
}

pub(super) fn verdict(verdict: Verdict) -> VerdictReport {
    VerdictReport { receiver_id: RECEIVER, session: SESSION, verdict }
}

pub(super) fn inquire() -> Inquire {
    Inquire { receiver_id: RECEIVER, session: SESSION, epoch: epoch() }
}

pub(super) fn final_state(final_round: u32) -> FinalState {
    FinalState { state: Blob(vec![7; 5]), final_round, batches_per_stream: vec![3, 4], paused_for_us: 250 }
}

pub(super) fn running() -> Running {
    Running { epoch: epoch(), restore_us: 300, door_us: 40 }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        version: PROTOCOL_MAX,
        features: Features::NONE,
        receiver_id: RECEIVER,
        session: SESSION,
        host_boot_id: text("boot"),
        state_file: text("/run/godwit/guest-1.state"),
    }
}

pub(super) fn hello() -> Hello {
    Hello {
        versions: VersionRange::OURS,
        features: Features::NONE,
        vm_name: VmName::new("guest-1").expect("a name"),
        epoch: epoch(),
        max_downtime_us: 10_000,
        ready_within_us: 100_000,
        streams: 2,
    }
}

/// One message of the kind, such as fits where it has its place: in round 1, with right ids.
pub(super) fn sample(kind: Kind) -> Message {
    match kind {
        Kind::Hello => Message::Hello(hello()),
        Kind::Welcome => Message::Welcome(welcome()),
        Kind::Refused => Message::Refused(RefusalReason::Busy),
        Kind::Inquire => Message::Inquire(inquire()),
        Kind::Verdict => Message::Verdict(verdict(Verdict::Aborted)),
        Kind::StreamHello => Message::StreamHello(StreamHello { session: SESSION, index: 1, streams: 2 }),
        Kind::StreamWelcome => Message::StreamWelcome(StreamWelcome { index: 1 }),
        Kind::Ping => Message::Ping(Ping { nonce: 1 }),
        Kind::Pong => Message::Pong(Ping { nonce: 1 }),
        Kind::Machine => Message::Machine(Machine { description: Blob(vec![1, 2, 3]) }),
        Kind::Prepared => Message::Prepared(Prepared { rehearsal_us: 800 }),
        Kind::RoundEnd => Message::RoundEnd(RoundEnd { round: 1, batches_per_stream: vec![3, 4] }),
        Kind::RoundAck => Message::RoundAck(RoundAck { round: 1, bytes: 4096 }),
        Kind::FinalState => Message::FinalState(final_state(1)),
        Kind::Ready => Message::Ready(Ready { checksum: CHECKSUM }),
        Kind::Commit => Message::Commit(Commit { epoch: epoch() }),
        Kind::Running => Message::Running(running()),
        Kind::Confirmed => Message::Confirmed(Confirmed { epoch: epoch() }),
        Kind::Abort => Message::Abort(Abort { reason: AbortReason::Cancelled }),
    }
}

/// A source that has taken these events, with its actions done.
pub(super) fn source_after(events: &[SourceEvent]) -> Source {
    let mut source = Source::new(source_config());
    for event in events {
        source.handle(NOW, event.clone()).unwrap_or_else(|e| panic!("{event:?}: {e}"));
        source_actions(&mut source);
    }
    source
}

pub(super) fn source_actions(source: &mut Source) -> Vec<SourceAction> {
    std::iter::from_fn(|| source.poll_action()).collect()
}

/// A target that has taken these events, with its actions done.
pub(super) fn target_after(events: &[TargetEvent]) -> Target {
    let mut target = Target::new(NOW, target_config());
    for event in events {
        target.handle(NOW, event.clone()).unwrap_or_else(|e| panic!("{event:?}: {e}"));
        target_actions(&mut target);
    }
    target
}

pub(super) fn target_actions(target: &mut Target) -> Vec<TargetAction> {
    std::iter::from_fn(|| target.poll_action()).collect()
}

/// A table as a person reads it: the first line names the columns, the first word of each other
/// line the row. Returns (row, column, cell) for every cell.
pub(super) fn cells(table: &'static str) -> Vec<(&'static str, &'static str, char)> {
    let mut lines = table.lines().filter(|line| !line.trim().is_empty());
    let columns: Vec<&str> = lines.next().expect("a heading").split_whitespace().collect();
    let mut cells = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let row = words.next().expect("a row name");
        let marks: Vec<&str> = words.collect();
        assert_eq!(marks.len(), columns.len(), "row {row}");
        for (column, mark) in columns.iter().zip(marks) {
            let mut chars = mark.chars();
            let cell = chars.next().expect("a mark");
            assert_eq!(chars.next(), None, "row {row}, column {column}");
            cells.push((row, *column, cell));
        }
    }
    cells
}
