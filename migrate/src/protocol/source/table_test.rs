//! Every state × every event and message of the source.

use super::*;
use crate::protocol::codec::CodecError;
use crate::protocol::message::{Kind, Ping, Ready};
use crate::protocol::test_support::*;
use std::collections::BTreeSet;

/// `>` goes on (another state, or actions) · `.` taken, changes nothing · `x` refused as a bug of
/// the engine · `r` refused with a reason for people · `F` failed · `V` failed for the peer's
/// breach · `v` breach reported, decides nothing · `C` cancelled · `G` guest ended · `H` handed
/// over.
///
/// Columns: `CoS` copying, round 1 being sent; `CoD` sent; `CoA` acknowledged; `FiV` final state
/// being saved; `FiS` sent, pages under way; `FiH` so, and Ready is here; `FiE` all sent.
const TABLE: &str = "
                  Con Gre Mea Des Ope CoS CoD CoA Pau FiV FiS FiH FiE Doo Unc Han Fai Can End
Connected          >   x   x   x   x   x   x   x   x   x   x   x   x   x   x   .   .   .   .
Garbled            V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
LinkLost           F   F   F   F   F   F   F   F   F   F   F   F   F   >   .   .   .   .   .
Tick               .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
StreamsOpen        x   x   x   x   >   x   x   x   x   x   x   x   x   x   x   .   .   .   .
RoundSent          x   x   x   x   x   >   x   x   x   x   x   x   x   x   x   .   .   .   .
RoundSent-other    x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   .   .   .   .
AnotherRound       x   x   x   x   x   x   >   >   x   x   x   x   x   x   x   .   .   .   .
StopDecided        x   x   x   x   x   x   >   >   x   x   x   x   x   x   x   .   .   .   .
GuestPaused        x   x   x   x   x   x   x   x   >   x   x   x   x   x   x   .   >   >   .
FinalSaved         x   x   x   x   x   x   x   x   x   >   x   x   x   x   x   .   .   .   .
FinalSaved-other   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   .   .   .   .
FinalSent          x   x   x   x   x   x   x   x   x   x   >   >   x   x   x   .   .   .   .
FinalSent-other    x   x   x   x   x   x   x   x   x   x   >   F   x   x   x   .   .   .   .
Answer-aborted     x   x   x   x   x   x   x   x   x   x   x   x   x   F   F   .   .   .   .
Answer-running     x   x   x   x   x   x   x   x   x   x   x   x   x   H   H   .   .   .   .
Answer-unknown     x   x   x   x   x   x   x   x   x   x   x   x   x   .   .   .   .   .   .
Answer-epoch       x   x   x   x   x   x   x   x   x   x   x   x   x   v   v   .   .   .   .
Answer-session     x   x   x   x   x   x   x   x   x   x   x   x   x   v   v   .   .   .   .
Answer-receiver    x   x   x   x   x   x   x   x   x   x   x   x   x   v   v   .   .   .   .
Cancel             C   C   C   C   C   C   C   C   C   C   C   C   C   r   r   r   .   .   .
DeadlineReached    F   F   F   F   F   F   F   F   F   F   F   F   F   .   .   .   .   .   .
LocalFailure       F   F   F   F   F   F   F   F   F   F   F   F   F   .   .   .   .   .   .
GuestEnded         G   G   G   G   G   G   G   G   G   x   x   x   x   x   x   .   .   .   .
ResumeHere         r   r   r   r   r   r   r   r   r   r   r   r   r   r   F   r   r   r   r
Discard            r   r   r   r   r   r   r   r   r   r   r   r   r   r   H   r   r   r   r
m-Hello            V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Welcome          V   >   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Welcome-version  V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Welcome-features V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Refused          V   F   V   F   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Inquire          V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Verdict          V   V   V   V   V   V   V   V   V   F   F   F   F   F   F   .   .   .   .
m-Verdict-running  V   V   V   V   V   V   V   V   V   V   V   V   V   H   H   .   .   .   .
m-Verdict-unknown  V   V   V   V   V   V   V   V   V   V   V   V   V   .   .   .   .   .   .
m-Verdict-session  V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-StreamHello      V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-StreamWelcome    V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Ping             V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Pong             V   V   >   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Pong-other       V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Machine          V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Prepared         V   V   V   >   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-RoundEnd         V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-RoundAck         V   V   V   V   V   V   >   V   >   >   V   V   V   v   v   .   .   .   .
m-RoundAck-other   V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-FinalState       V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Ready            V   V   V   V   V   V   V   V   V   V   >   V   >   v   v   .   .   .   .
m-Ready-other      V   V   V   V   V   V   V   V   V   V   >   V   F   v   v   .   .   .   .
m-Commit           V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Running          V   V   V   V   V   V   V   V   V   V   V   V   V   H   H   .   v   v   v
m-Confirmed        V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   .   .   .   .
m-Running-epoch    V   V   V   V   V   V   V   V   V   V   V   V   V   v   v   v   v   v   v
m-Abort            F   F   F   F   F   F   F   F   F   F   F   F   F   v   v   .   .   .   .
";

fn message(kind: Kind) -> SourceEvent {
    SourceEvent::Message(sample(kind))
}

fn round_sent(round: u32) -> SourceEvent {
    SourceEvent::RoundSent { round, batches_per_stream: vec![3, 4] }
}

fn lost() -> SourceEvent {
    SourceEvent::LinkLost { cause: "cut".into() }
}

fn foreign() -> VerdictReport {
    VerdictReport { session: crate::protocol::SessionId([1; 16]), ..verdict(Verdict::Aborted) }
}

fn in_column(column: &str) -> Source {
    let mut events = vec![SourceEvent::Connected, message(Kind::Welcome)];
    events.extend((1..=PINGS).map(|nonce| SourceEvent::Message(Message::Pong(Ping { nonce }))));
    let all_pings = events.len();
    events.extend([message(Kind::Prepared), SourceEvent::StreamsOpen, round_sent(1)]);
    let sent = events.len();
    let acked = [&events[..], &[message(Kind::RoundAck)]].concat();
    let stop = SourceEvent::StopDecided;
    let paused = SourceEvent::GuestPaused;
    let saved = SourceEvent::FinalSaved(final_state(2));
    let all_sent = SourceEvent::FinalSent { checksum: CHECKSUM };
    let sending = [&acked[..], &[stop.clone(), paused.clone(), saved]].concat();
    let door = [&sending[..], &[all_sent.clone(), message(Kind::Ready)]].concat();
    let events = match column {
        "Con" => vec![],
        "Gre" => events[..1].to_vec(),
        "Mea" => events[..2].to_vec(),
        "Des" => events[..all_pings].to_vec(),
        "Ope" => events[..sent - 2].to_vec(),
        "CoS" => events[..sent - 1].to_vec(),
        "CoD" => events,
        "CoA" => acked,
        "Pau" => [&events[..], &[stop]].concat(),
        "FiV" => [&events[..], &[stop, paused]].concat(),
        "FiS" => sending,
        "FiH" => [&sending[..], &[message(Kind::Ready)]].concat(),
        "FiE" => [&sending[..], &[all_sent]].concat(),
        "Doo" => door,
        "Unc" => [&door[..], &[lost()]].concat(),
        "Han" => [&door[..], &[message(Kind::Running)]].concat(),
        "Fai" => [&events[..], &[lost()]].concat(),
        "Can" => [&events[..], &[SourceEvent::Cancel]].concat(),
        "End" => [&events[..], &[SourceEvent::GuestEnded]].concat(),
        other => panic!("no column {other}"),
    };
    source_after(&events)
}

fn in_row(row: &str) -> SourceEvent {
    let older = crate::ownership::Epoch::FIRST;
    let said = |v: VerdictReport| SourceEvent::Message(Message::Verdict(v));
    match row {
        "Connected" => SourceEvent::Connected,
        "Garbled" => SourceEvent::Garbled(CodecError::UnknownKind { number: 99 }),
        "LinkLost" => lost(),
        "Tick" => SourceEvent::Tick,
        "StreamsOpen" => SourceEvent::StreamsOpen,
        "RoundSent" => round_sent(1),
        "RoundSent-other" => round_sent(2),
        "AnotherRound" => SourceEvent::AnotherRoundDecided,
        "StopDecided" => SourceEvent::StopDecided,
        "GuestPaused" => SourceEvent::GuestPaused,
        "FinalSaved" => SourceEvent::FinalSaved(final_state(2)),
        "FinalSaved-other" => SourceEvent::FinalSaved(final_state(1)),
        "FinalSent" => SourceEvent::FinalSent { checksum: CHECKSUM },
        "FinalSent-other" => SourceEvent::FinalSent { checksum: 1 },
        "Answer-aborted" => SourceEvent::Verdict(verdict(Verdict::Aborted)),
        "Answer-running" => SourceEvent::Verdict(verdict(Verdict::Running { epoch: epoch() })),
        "Answer-unknown" => SourceEvent::Verdict(verdict(Verdict::Unknown)),
        "Answer-epoch" => SourceEvent::Verdict(verdict(Verdict::Running { epoch: older })),
        "Answer-session" => SourceEvent::Verdict(foreign()),
        "Answer-receiver" => SourceEvent::Verdict(VerdictReport {
            receiver_id: crate::protocol::ReceiverId([1; 16]),
            ..verdict(Verdict::Aborted)
        }),
        "Cancel" => SourceEvent::Cancel,
        "DeadlineReached" => SourceEvent::DeadlineReached { what: "slow".into() },
        "LocalFailure" => SourceEvent::LocalFailure { what: "disk".into() },
        "GuestEnded" => SourceEvent::GuestEnded,
        "ResumeHere" => SourceEvent::Resolve(Resolution::ResumeHere),
        "Discard" => SourceEvent::Resolve(Resolution::Discard),
        "m-Welcome-version" => SourceEvent::Message(Message::Welcome(crate::protocol::Welcome {
            version: crate::protocol::Version(9),
            ..welcome()
        })),
        "m-Welcome-features" => SourceEvent::Message(Message::Welcome(crate::protocol::Welcome {
            features: crate::protocol::Features::from_bits(1),
            ..welcome()
        })),
        "m-Verdict-running" => said(verdict(Verdict::Running { epoch: epoch() })),
        "m-Verdict-unknown" => said(verdict(Verdict::Unknown)),
        "m-Verdict-session" => said(foreign()),
        "m-Pong-other" => SourceEvent::Message(Message::Pong(Ping { nonce: 9 })),
        "m-RoundAck-other" => {
            let (round, bytes) = (2, 0);
            SourceEvent::Message(Message::RoundAck(crate::protocol::RoundAck { round, bytes }))
        }
        "m-Ready-other" => SourceEvent::Message(Message::Ready(Ready { checksum: 1 })),
        "m-Running-epoch" => {
            let running = crate::protocol::Running { epoch: older, ..running() };
            SourceEvent::Message(Message::Running(running))
        }
        other => {
            let kind = Kind::ALL.iter().find(|kind| other == format!("m-{kind:?}"));
            message(*kind.unwrap_or_else(|| panic!("no row {other}")))
        }
    }
}

fn outcome(
    before: &Source,
    result: &Result<(), EventRefused>,
    actions: &[SourceAction],
    after: &Source,
) -> char {
    let same = before.state == after.state && actions.is_empty();
    let reported = actions.iter().any(|action| matches!(action, SourceAction::ReportViolation(_)));
    match (result, &after.state) {
        (Err(EventRefused::Unexpected { .. }), _) if same => 'x',
        (Err(_), _) if same => 'r',
        (Err(_), _) => panic!("refused and changed"),
        (Ok(()), _) if same => '.',
        (Ok(()), _) if reported => 'v',
        (Ok(()), after) if *after == before.state => '>',
        (Ok(()), SourceState::Failed { reason: FailureReason::Violation(_) }) => 'V',
        (Ok(()), SourceState::Failed { .. }) => 'F',
        (Ok(()), SourceState::Cancelled) => 'C',
        (Ok(()), SourceState::GuestEnded) => 'G',
        (Ok(()), SourceState::HandedOver { .. }) => 'H',
        (Ok(()), _) => '>',
    }
}

/// What holds whatever the cell says.
fn check_rules(before: &Source, actions: &[SourceAction], after: &Source, cell: &str) {
    let count = |wanted: fn(&SourceAction) -> bool| actions.iter().filter(|a| wanted(a)).count();
    let resumes = count(|a| *a == SourceAction::ResumeGuest);
    let commits = count(|a| matches!(a, SourceAction::Send(Message::Commit(_))));
    let aborts = count(|a| matches!(a, SourceAction::Send(Message::Abort(_))));
    let finishes = count(|a| matches!(a, SourceAction::Finish(_)));
    let (was, is) = (before.state.stage(), after.state.stage());

    let ended = was != Stage::Over && is == Stage::Over;
    assert_eq!(finishes, usize::from(ended), "{cell}: one end, told once");
    let entered_door = was != Stage::Door && is == Stage::Door;
    assert_eq!(commits, usize::from(entered_door), "{cell}: COMMIT leads to the door, nothing else");
    if commits > 0 {
        assert!(matches!(actions.last(), Some(SourceAction::Send(Message::Commit(_)))), "{cell}");
    }
    if resumes > 0 {
        assert_eq!(after.standing(), SourceStanding::Owner, "{cell}: only the owner resumes");
    }
    let comes_back = ended && after.standing() == SourceStanding::Owner;
    if comes_back && matches!(was, Stage::Paused | Stage::Door) {
        assert_eq!(resumes, 1, "{cell}: a paused guest goes on");
        assert_eq!(actions[0], SourceAction::ResumeGuest, "{cell}: and first of all");
    }
    if comes_back && matches!(was, Stage::Before | Stage::Unlinked) {
        assert_eq!(resumes, 0, "{cell}: a running guest is left alone");
    }
    if matches!(was, Stage::Unlinked | Stage::Door | Stage::Over) {
        assert_eq!(aborts, 0, "{cell}: nobody to tell, or nothing to abort");
    }
}

#[test]
fn every_state_and_event() {
    let mut wrong = Vec::new();
    for (row, column, expected) in cells(TABLE) {
        let before = in_column(column);
        let mut after = before.clone();
        let result = after.handle(NOW, in_row(row));
        let actions = source_actions(&mut after);
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
fn event_number(event: &SourceEvent) -> usize {
    match event {
        SourceEvent::Connected => 0,
        SourceEvent::Message(_) => 1,
        SourceEvent::Garbled(_) => 2,
        SourceEvent::LinkLost { .. } => 3,
        SourceEvent::Tick => 4,
        SourceEvent::StreamsOpen => 5,
        SourceEvent::RoundSent { .. } => 6,
        SourceEvent::AnotherRoundDecided => 7,
        SourceEvent::StopDecided => 8,
        SourceEvent::GuestPaused => 9,
        SourceEvent::FinalSaved(_) => 10,
        SourceEvent::FinalSent { .. } => 11,
        SourceEvent::Verdict(_) => 12,
        SourceEvent::Cancel => 13,
        SourceEvent::DeadlineReached { .. } => 14,
        SourceEvent::GuestEnded => 15,
        SourceEvent::LocalFailure { .. } => 16,
        SourceEvent::Resolve(_) => 17,
    }
}

fn state_number(state: &SourceState) -> usize {
    match state {
        SourceState::Connecting => 0,
        SourceState::Greeting { .. } => 1,
        SourceState::Measuring { .. } => 2,
        SourceState::Describing { .. } => 3,
        SourceState::OpeningStreams { .. } => 4,
        SourceState::Copying { .. } => 5,
        SourceState::Pausing { .. } => 6,
        SourceState::Finalizing { .. } => 7,
        SourceState::AtDoor { .. } => 8,
        SourceState::Unconfirmed { .. } => 9,
        SourceState::HandedOver { .. } => 10,
        SourceState::Failed { .. } => 11,
        SourceState::Cancelled => 12,
        SourceState::GuestEnded => 13,
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
    assert_eq!(events, (0..18).collect());
    let states: BTreeSet<usize> =
        columns.iter().map(|column| state_number(in_column(column).state())).collect();
    assert_eq!(states, (0..14).collect());
}

#[test]
fn limits_count_before_what_comes_after_them() {
    let late = Duration::from_secs(5000);
    for (column, event, expected) in [
        ("Gre", in_row("m-Welcome"), "Failed"),
        ("Mea", in_row("m-Pong"), "Failed"),
        ("FiE", in_row("m-Ready"), "Failed"),
        ("FiH", in_row("FinalSent"), "Failed"),
        ("Doo", SourceEvent::Tick, "Unconfirmed"),
        ("Doo", in_row("m-Running"), "HandedOver"),
        ("CoA", SourceEvent::Tick, "Copying"),
        ("Unc", SourceEvent::Tick, "Unconfirmed"),
    ] {
        let mut source = in_column(column);
        source.handle(late, event.clone()).expect("taken");
        assert_eq!(source.state().name(), expected, "{event:?} in {column}");
    }
}

#[test]
fn ready_is_awaited_for_exactly_its_time() {
    let limit = NOW + Duration::from_millis(100);
    let source = in_column("FiE");
    assert_eq!(source.poll_timeout(), Some(limit));
    let just_before = limit - Duration::from_nanos(1);
    let mut in_time = source.clone();
    in_time.handle(just_before, in_row("m-Ready")).expect("taken");
    assert_eq!(in_time.state().name(), "AtDoor");
    let mut too_late = source;
    too_late.handle(limit, in_row("m-Ready")).expect("taken");
    assert!(matches!(too_late.state(), SourceState::Failed { reason: FailureReason::ReadyTooLate { .. } }));
    let mut config = source_config();
    config.max_downtime = Duration::from_millis(300);
    assert_eq!(config.ready_within(), Duration::from_millis(900));
}

#[test]
fn the_door_is_asked_about_once() {
    let mut source = in_column("Doo");
    source.handle(NOW, lost()).expect("taken");
    let actions = source_actions(&mut source);
    assert!(matches!(actions[0], SourceAction::EnterUnconfirmed { .. }));
    assert_eq!(actions[1..], [SourceAction::Inquire(inquire())]);
    for event in [lost(), SourceEvent::Tick, in_row("Answer-unknown")] {
        source.handle(NOW, event).expect("taken");
        assert_eq!(source_actions(&mut source), []);
    }
}

#[test]
fn rounds_wait_for_acknowledgements_in_the_end() {
    let mut source = in_column("CoD");
    for round in 2..=ROUNDS_UNACKED_MAX {
        source.handle(NOW, SourceEvent::AnotherRoundDecided).expect("few enough");
        source.handle(NOW, round_sent(round)).expect("started");
    }
    let refused = source.handle(NOW, SourceEvent::AnotherRoundDecided);
    assert!(matches!(refused, Err(EventRefused::TooManyRounds { .. })));
    source.handle(NOW, message(Kind::RoundAck)).expect("taken");
    source.handle(NOW, SourceEvent::AnotherRoundDecided).expect("few enough again");
}

#[test]
fn the_round_trip_is_the_shortest_of_all() {
    let mut source = Source::new(source_config());
    let mut now = NOW;
    source.handle(now, SourceEvent::Connected).expect("taken");
    source.handle(now, message(Kind::Welcome)).expect("taken");
    for (nonce, ms) in (1..=PINGS).zip([5, 3, 9, 4]) {
        now += Duration::from_millis(ms);
        let pong = SourceEvent::Message(Message::Pong(Ping { nonce }));
        source.handle(now, pong).expect("taken");
    }
    assert_eq!(source.round_trip(), Some(Duration::from_millis(3)));
    assert_eq!(source.state().name(), "Describing");
}
