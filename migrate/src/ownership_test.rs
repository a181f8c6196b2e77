use crate::ownership::*;
use crate::protocol::Verdict;

#[test]
fn epochs_begin_at_one_and_end() {
    assert_eq!(Epoch::new(0), None);
    assert_eq!(Epoch::FIRST.get(), 1);
    assert_eq!(Epoch::FIRST.next(), Epoch::new(2));
    assert_eq!(Epoch::new(u64::MAX).and_then(Epoch::next), None);
}

#[test]
fn every_pair_of_standings() {
    use MayRun::{AtTheDoor, Nobody, SourceOnly, TargetOnly};
    use OwnershipBroken::{Lost, Twice};
    let targets =
        [TargetStanding::NotYet, TargetStanding::Never, TargetStanding::Owner, TargetStanding::OwnerGone];
    for (source, expected) in [
        (SourceStanding::Owner, [Ok(SourceOnly), Ok(SourceOnly), Err(Twice), Err(Twice)]),
        (SourceStanding::Waiting, [Ok(AtTheDoor), Ok(AtTheDoor), Ok(TargetOnly), Ok(AtTheDoor)]),
        (SourceStanding::Released, [Err(Lost), Err(Lost), Ok(TargetOnly), Ok(Nobody)]),
        (SourceStanding::Gone, [Ok(Nobody), Ok(Nobody), Ok(TargetOnly), Ok(Nobody)]),
    ] {
        for (target, expected) in targets.into_iter().zip(expected) {
            assert_eq!(who_may_run(source, target), expected, "{source:?}, {target:?}");
        }
    }
}

#[test]
fn the_file_of_the_dead_decides_its_own_epoch_only() {
    let epoch = Epoch::new(7).expect("not zero");
    let running = RecordedState::Running { epoch };
    assert_eq!(running.verdict_of_the_dead(epoch), Some(Verdict::Running { epoch }));
    assert_eq!(running.verdict_of_the_dead(Epoch::FIRST), None);
    let not_running = RecordedState::NotRunning;
    assert_eq!(not_running.verdict_of_the_dead(epoch), Some(Verdict::Aborted));
}
