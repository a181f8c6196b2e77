//! Every state × every event and message of the target.

use super::*;
use crate::ownership::Epoch;
use crate::protocol::codec::CodecError;
use crate::protocol::message::{Commit, Confirmed, Kind, RefusalReason, RoundEnd, SessionId};
use crate::protocol::test_support::*;
use std::collections::BTreeSet;

/// `>` goes on (another state, or actions) · `.` taken, changes nothing · `x` refused as a bug of
/// the engine · `r` refused with a reason for people · `A` aborted for good · `V` so, for the
/// peer's breach · `v` breach reported, decides nothing · `R` runs the guest.
///
/// Columns: `Re0` receiving, no round ended; `Re1` round 1 ended; `ReA` and applied; `Rs1`
/// restoring, round 1 not applied; `RsA` applied.
const TABLE: &str = "
                  AwH AwM Bui AwS Re0 Re1 ReA Rs1 RsA AwC Rec Run Abo
Garbled            V   V   V   V   V   V   V   V   V   V   v   v   .
LinkLost           A   A   A   A   A   A   A   A   A   A   .   .   .
Tick               .   .   .   .   .   .   .   .   .   .   .   .   .
Built              x   x   >   x   x   x   x   x   x   x   x   x   .
BuildFailed        x   x   A   x   x   x   x   x   x   x   x   x   .
StreamsOpen        x   x   x   >   x   x   x   x   x   x   x   x   .
RoundApplied       x   x   x   x   x   >   x   >   x   x   x   x   .
RoundApplied-other x   x   x   x   x   x   x   x   x   x   x   x   .
Restored           x   x   x   x   x   x   x   x   >   x   x   x   .
RestoreFailed      x   x   x   x   x   x   x   A   A   x   x   x   .
LocalFailure       A   A   A   A   A   A   A   A   A   A   r   r   .
Inquiry            A   A   A   A   A   A   A   A   A   A   >   >   >
Inquiry-epoch      A   >   >   >   >   >   >   >   >   >   >   >   >
Inquiry-session    >   >   >   >   >   >   >   >   >   >   >   >   >
Inquiry-receiver   >   >   >   >   >   >   >   >   >   >   >   >   >
RunningRecorded    x   x   x   x   x   x   x   x   x   x   R   x   x
RecordFailed       x   x   x   x   x   x   x   x   x   x   A   x   x
m-Hello            >   V   V   V   V   V   V   V   V   V   v   v   .
m-Hello-version    A   V   V   V   V   V   V   V   V   V   v   v   .
m-Hello-feature    A   V   V   V   V   V   V   V   V   V   v   v   .
m-Welcome          V   V   V   V   V   V   V   V   V   V   v   v   .
m-Refused          V   V   V   V   V   V   V   V   V   V   v   v   .
m-Inquire          V   V   V   V   V   V   V   V   V   V   v   v   .
m-Verdict          V   V   V   V   V   V   V   V   V   V   v   v   .
m-StreamHello      V   V   V   V   V   V   V   V   V   V   v   v   .
m-StreamWelcome    V   V   V   V   V   V   V   V   V   V   v   v   .
m-Ping             V   >   >   >   >   >   >   >   >   >   v   v   .
m-Pong             V   V   V   V   V   V   V   V   V   V   v   v   .
m-Machine          V   >   V   V   V   V   V   V   V   V   v   v   .
m-Prepared         V   V   V   V   V   V   V   V   V   V   v   v   .
m-RoundEnd         V   V   V   V   >   V   V   V   V   V   v   v   .
m-RoundEnd-2       V   V   V   V   V   >   >   V   V   V   v   v   .
m-RoundEnd-streams V   V   V   V   V   V   V   V   V   V   v   v   .
m-RoundAck         V   V   V   V   V   V   V   V   V   V   v   v   .
m-FinalState       V   V   V   V   >   V   V   V   V   V   v   v   .
m-FinalState-2     V   V   V   V   V   >   >   V   V   V   v   v   .
m-Ready            V   V   V   V   V   V   V   V   V   V   v   v   .
m-Commit           V   V   V   V   V   V   V   V   V   >   v   v   >
m-Commit-epoch     V   V   V   V   V   V   V   V   V   V   v   v   >
m-Running          V   V   V   V   V   V   V   V   V   V   v   v   .
m-Confirmed        V   V   V   V   V   V   V   V   V   V   v   >   .
m-Confirmed-epoch  V   V   V   V   V   V   V   V   V   V   v   v   .
m-Abort            A   A   A   A   A   A   A   A   A   A   v   v   .
";

fn message(kind: Kind) -> TargetEvent {
    TargetEvent::Message(sample(kind))
}

fn inquiry(inquire: Inquire) -> TargetEvent {
    TargetEvent::Inquiry { from: InquirerId(1), inquire }
}

fn applied(round: u32) -> TargetEvent {
    TargetEvent::RoundApplied { round, bytes: 9 }
}

fn lost() -> TargetEvent {
    TargetEvent::LinkLost { cause: "cut".into() }
}

fn round_end(round: u32, streams: usize) -> TargetEvent {
    TargetEvent::Message(Message::RoundEnd(RoundEnd { round, batches_per_stream: vec![1; streams] }))
}

fn in_column(column: &str) -> Target {
    let rehearsal = Duration::from_micros(800);
    let took = Duration::from_micros(300);
    let last = TargetEvent::Message(Message::FinalState(final_state(2)));
    let restored = TargetEvent::Restored { checksum: CHECKSUM, took };
    let way = [
        message(Kind::Hello),
        message(Kind::Machine),
        TargetEvent::Built { rehearsal },
        TargetEvent::StreamsOpen,
        round_end(1, 2),
        applied(1),
        last.clone(),
        restored,
        message(Kind::Commit),
        TargetEvent::RunningRecorded,
    ];
    let events = match column {
        "AwH" => vec![],
        "AwM" => way[..1].to_vec(),
        "Bui" => way[..2].to_vec(),
        "AwS" => way[..3].to_vec(),
        "Re0" => way[..4].to_vec(),
        "Re1" => way[..5].to_vec(),
        "ReA" => way[..6].to_vec(),
        "Rs1" => [&way[..5], &[last]].concat(),
        "RsA" => way[..7].to_vec(),
        "AwC" => way[..8].to_vec(),
        "Rec" => way[..9].to_vec(),
        "Run" => way.to_vec(),
        "Abo" => [&way[..8], &[lost()]].concat(),
        other => panic!("no column {other}"),
    };
    target_after(&events)
}

fn in_row(row: &str) -> TargetEvent {
    let took = Duration::from_micros(300);
    let what = || "disk".to_owned();
    match row {
        "Garbled" => TargetEvent::Garbled(CodecError::UnknownKind { number: 99 }),
        "LinkLost" => lost(),
        "Tick" => TargetEvent::Tick,
        "Built" => TargetEvent::Built { rehearsal: took },
        "BuildFailed" => TargetEvent::BuildFailed(RefusalReason::Busy),
        "StreamsOpen" => TargetEvent::StreamsOpen,
        "RoundApplied" => applied(1),
        "RoundApplied-other" => applied(2),
        "Restored" => TargetEvent::Restored { checksum: CHECKSUM, took },
        "RestoreFailed" => TargetEvent::RestoreFailed { what: what() },
        "LocalFailure" => TargetEvent::LocalFailure { what: what() },
        "Inquiry" => inquiry(inquire()),
        "Inquiry-epoch" => inquiry(Inquire { epoch: Epoch::FIRST, ..inquire() }),
        "Inquiry-session" => inquiry(Inquire { session: SessionId([1; 16]), ..inquire() }),
        "Inquiry-receiver" => inquiry(Inquire { receiver_id: ReceiverId([1; 16]), ..inquire() }),
        "RunningRecorded" => TargetEvent::RunningRecorded,
        "RecordFailed" => TargetEvent::RecordFailed { what: what() },
        "m-Hello-version" => {
            let version = crate::protocol::Version(9);
            let versions = crate::protocol::VersionRange { min: version, max: version };
            TargetEvent::Message(Message::Hello(crate::protocol::Hello { versions, ..hello() }))
        }
        "m-Hello-feature" => {
            let features = crate::protocol::Features::from_bits(1 << 40);
            TargetEvent::Message(Message::Hello(crate::protocol::Hello { features, ..hello() }))
        }
        "m-RoundEnd-2" => round_end(2, 2),
        "m-RoundEnd-streams" => round_end(1, 3),
        "m-FinalState-2" => TargetEvent::Message(Message::FinalState(final_state(2))),
        "m-Confirmed-epoch" => TargetEvent::Message(Message::Confirmed(Confirmed { epoch: Epoch::FIRST })),
        "m-Commit-epoch" => TargetEvent::Message(Message::Commit(Commit { epoch: Epoch::FIRST })),
        other => {
            let kind = Kind::ALL.iter().find(|kind| other == format!("m-{kind:?}"));
            message(*kind.unwrap_or_else(|| panic!("no row {other}")))
        }
    }
}

fn outcome(
    before: &Target,
    result: &Result<(), EventRefused>,
    actions: &[TargetAction],
    after: &Target,
) -> char {
    let same = before.state == after.state && actions.is_empty();
    let reported = actions.iter().any(|action| matches!(action, TargetAction::ReportViolation(_)));
    match (result, &after.state) {
        (Err(EventRefused::Unexpected { .. }), _) if same => 'x',
        (Err(_), _) if same => 'r',
        (Err(_), _) => panic!("refused and changed"),
        (Ok(()), _) if same => '.',
        (Ok(()), _) if reported => 'v',
        (Ok(()), after) if *after == before.state => '>',
        (Ok(()), TargetState::Aborted { reason: DiscardReason::Violation(_) }) => 'V',
        (Ok(()), TargetState::Aborted { .. }) => 'A',
        (Ok(()), TargetState::Running { .. }) => 'R',
        (Ok(()), _) => '>',
    }
}

/// What holds whatever the cell says.
fn check_rules(before: &Target, actions: &[TargetAction], after: &Target, cell: &str) {
    let count = |wanted: fn(&TargetAction) -> bool| actions.iter().filter(|a| wanted(a)).count();
    let runs = count(|a| matches!(a, TargetAction::RunGuest { .. }));
    let records = count(|a| matches!(a, TargetAction::RecordRunning { .. }));
    let discards = count(|a| matches!(a, TargetAction::Discard { .. }));
    let (was, is) = (before.standing(), after.standing());

    let began = was != TargetStanding::Owner && is == TargetStanding::Owner;
    assert_eq!(runs, usize::from(began), "{cell}: it runs when it becomes the owner");
    if began {
        assert_eq!(before.state.name(), "Recording", "{cell}: and has recorded it");
    }
    let recording = before.state.name() != "Recording" && after.state.name() == "Recording";
    assert_eq!(records, usize::from(recording), "{cell}");
    if recording {
        assert_eq!(before.state.name(), "AwaitCommit", "{cell}: the only way to the door");
    }
    let ended = was != TargetStanding::Never && is == TargetStanding::Never;
    assert_eq!(discards, usize::from(ended), "{cell}: one end, told once");
    if was == TargetStanding::Never {
        assert_eq!(is, TargetStanding::Never, "{cell}: for good");
    }
    if was == TargetStanding::Owner {
        assert_eq!(is, TargetStanding::Owner, "{cell}: nobody takes it away");
    }
    // At the door an end is told as a verdict: COMMIT may be on its way.
    if ended && matches!(before.state.name(), "AwaitCommit" | "Recording") {
        let told =
            actions.iter().filter(|a| **a == TargetAction::Send(Message::Verdict(verdict(Verdict::Aborted))));
        assert_eq!(told.count(), 1, "{cell}");
    }
    for action in actions {
        if let TargetAction::AnswerInquiry { report, .. } = action {
            let ours = (report.receiver_id, report.session) == (RECEIVER, SESSION);
            let fits = match report.verdict {
                Verdict::Running { .. } => ours && is == TargetStanding::Owner,
                Verdict::Aborted => !ours || is == TargetStanding::Never,
                Verdict::Unknown => true,
            };
            assert!(fits, "{cell}: {report:?} in {}", after.state.name());
        }
    }
}

#[test]
fn every_state_and_event() {
    let mut wrong = Vec::new();
    for (row, column, expected) in cells(TABLE) {
        let before = in_column(column);
        let mut after = before.clone();
        let result = after.handle(NOW, in_row(row));
        let actions = target_actions(&mut after);
        let cell = format!("{row} in {column}");
        check_rules(&before, &actions, &after, &cell);
        let found = outcome(&before, &result, &actions, &after);
        if found != expected {
            wrong.push(format!("{cell}: {found} where {expected} is expected ({result:?}, {actions:?})"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A new variant does not compile here until it is numbered, and then fails below until the
/// table has it.
fn event_number(event: &TargetEvent) -> usize {
    match event {
        TargetEvent::Message(_) => 0,
        TargetEvent::Garbled(_) => 1,
        TargetEvent::LinkLost { .. } => 2,
        TargetEvent::Tick => 3,
        TargetEvent::Built { .. } => 4,
        TargetEvent::BuildFailed(_) => 5,
        TargetEvent::StreamsOpen => 6,
        TargetEvent::RoundApplied { .. } => 7,
        TargetEvent::Restored { .. } => 8,
        TargetEvent::RestoreFailed { .. } => 9,
        TargetEvent::LocalFailure { .. } => 10,
        TargetEvent::Inquiry { .. } => 11,
        TargetEvent::RunningRecorded => 12,
        TargetEvent::RecordFailed { .. } => 13,
    }
}

fn state_number(state: &TargetState) -> usize {
    match state {
        TargetState::AwaitHello { .. } => 0,
        TargetState::AwaitMachine { .. } => 1,
        TargetState::Building { .. } => 2,
        TargetState::AwaitStreams { .. } => 3,
        TargetState::Receiving { .. } => 4,
        TargetState::Restoring { .. } => 5,
        TargetState::AwaitCommit { .. } => 6,
        TargetState::Recording { .. } => 7,
        TargetState::Running { .. } => 8,
        TargetState::Aborted { .. } => 9,
    }
}

#[test]
fn the_table_has_every_state_event_and_message() {
    let cells = cells(TABLE);
    let rows: BTreeSet<&str> = cells.iter().map(|(row, _, _)| *row).collect();
    let columns: BTreeSet<&str> = cells.iter().map(|(_, column, _)| *column).collect();
    assert_eq!(rows.len() * columns.len(), cells.len(), "no row or column twice");
    for kind in Kind::ALL {
        assert!(rows.contains(format!("m-{kind:?}").as_str()), "{kind:?}");
    }
    let events: BTreeSet<usize> = rows.iter().map(|row| event_number(&in_row(row))).collect();
    assert_eq!(events, (0..14).collect());
    let states: BTreeSet<usize> =
        columns.iter().map(|column| state_number(in_column(column).state())).collect();
    assert_eq!(states, (0..10).collect());
}

fn answers(target: &mut Target, event: TargetEvent) -> Vec<Verdict> {
    target.handle(NOW, event).expect("taken");
    target_actions(target)
        .into_iter()
        .filter_map(|action| match action {
            TargetAction::AnswerInquiry { report, .. } => Some(report.verdict),
            _ => None,
        })
        .collect()
}

#[test]
fn inquiries_are_answered_with_the_truth() {
    let running = Verdict::Running { epoch: epoch() };
    for (column, row, expected) in [
        ("AwC", "Inquiry", vec![Verdict::Aborted]),
        ("AwC", "Inquiry-epoch", vec![Verdict::Unknown]),
        ("AwC", "Inquiry-session", vec![Verdict::Aborted]),
        ("AwC", "Inquiry-receiver", vec![Verdict::Unknown]),
        ("Rec", "Inquiry", vec![]),
        ("Run", "Inquiry", vec![running]),
        ("Run", "Inquiry-epoch", vec![Verdict::Unknown]),
        ("Run", "Inquiry-session", vec![Verdict::Aborted]),
        ("Run", "Inquiry-receiver", vec![Verdict::Unknown]),
        ("Abo", "Inquiry", vec![Verdict::Aborted]),
    ] {
        let mut target = in_column(column);
        assert_eq!(answers(&mut target, in_row(row)), expected, "{row} in {column}");
    }
}

#[test]
fn inquiries_during_recording_are_answered_by_the_decision() {
    for (event, expected) in [
        (TargetEvent::RunningRecorded, Verdict::Running { epoch: epoch() }),
        (in_row("RecordFailed"), Verdict::Aborted),
    ] {
        let mut target = in_column("Rec");
        for _ in 0..INQUIRERS_MAX {
            assert_eq!(answers(&mut target, in_row("Inquiry")), []);
        }
        assert_eq!(answers(&mut target, in_row("Inquiry")), [Verdict::Unknown]);
        assert_eq!(answers(&mut target, event), vec![expected; INQUIRERS_MAX]);
    }
}

#[test]
fn commit_that_comes_too_late_is_told_aborted() {
    let mut target = in_column("AwC");
    let until = target.poll_timeout().expect("a limit");
    target.handle(until, message(Kind::Commit)).expect("taken");
    let actions = target_actions(&mut target);
    let told = TargetAction::Send(Message::Verdict(verdict(Verdict::Aborted)));
    assert!(actions.contains(&told));
    assert!(!actions.iter().any(|a| matches!(a, TargetAction::RecordRunning { .. })));
    assert_eq!(target.standing(), TargetStanding::Never);
}

#[test]
fn a_silent_connection_is_closed() {
    let mut target = in_column("AwH");
    let until = target.poll_timeout().expect("a limit");
    target.handle(until, TargetEvent::Tick).expect("taken");
    assert!(matches!(
        target_actions(&mut target)[..],
        [TargetAction::Discard { reason: DiscardReason::HelloTooLate { .. } }]
    ));
}

#[test]
fn rounds_that_pile_up_are_a_breach() {
    let mut target = in_column("Re0");
    for round in 1..=ROUNDS_UNAPPLIED_MAX {
        target.handle(NOW, round_end(round, 2)).expect("taken");
        assert_eq!(target.state().name(), "Receiving");
    }
    target.handle(NOW, round_end(ROUNDS_UNAPPLIED_MAX + 1, 2)).expect("taken");
    assert_eq!(target.state().name(), "Aborted");
}

#[test]
fn a_receiver_without_a_session_knows_its_own() {
    assert_eq!(verdict_without_session(RECEIVER, &inquire()).verdict, Verdict::Aborted);
    let other = ReceiverId([1; 16]);
    assert_eq!(verdict_without_session(other, &inquire()).verdict, Verdict::Unknown);
}
