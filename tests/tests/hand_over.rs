//! A guest's memory handed over between processes of one host, over a unix socket.

use std::time::Duration;

use godwit_api::{MigrationOutcome, VmState};
use godwit_tests::{DIRTY, Dice, Dirtying, Host, VmProcess, alone, kvm, repetitions};

const NAME: &str = "handed";
const RELAXED: [&str; 2] = ["--max-downtime", "200ms"];
/// A hand-over with nothing in its way takes less than this, so moments below it are inside of one.
const DURING: Duration = Duration::from_millis(60);
const END_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn many_hand_overs_in_a_row_copy_nothing_and_lose_nothing() {
    if !kvm("many_hand_overs_in_a_row_copy_nothing_and_lose_nothing") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let mut guest = Dirtying::new(4);
    let mut vm = host.run(NAME, 4, "64M", DIRTY);
    guest.goes_on(&vm);
    let times = repetitions(20, 500);
    for _ in 0..times {
        let target = host.receive_here("next.sock");
        let moved = host.migrate(NAME, target.address(), &RELAXED);
        moved.assert(MigrationOutcome::Completed);
        assert_eq!((moved.result.bytes_sent, moved.result.pages_sent), (0, 0), "nothing is copied");
        assert_eq!(vm.wait_exit(), 0);
        guest.follow(&vm);
        vm = target;
        guest.goes_on(&vm);
    }
    assert_eq!(vm.info().epoch, 1 + times as u64);
    guest.verify(&mut vm);
    // Its memory is an ordinary guest's: it can be copied, too.
    let target = host.receive();
    host.migrate(NAME, target.address(), &RELAXED).assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
    guest.follow(&vm);
    vm = target;
    guest.goes_on(&vm);
    guest.verify(&mut vm);
    host.succeed(&["stop", NAME]);
    assert_eq!(vm.wait_exit(), 0);
    host.assert_nothing_left();
    assert!(!host.files().join("next.sock").exists(), "the socket goes with its receiver");
}

/// A host with a guest of its own, for a kill.
fn scene() -> (Host, VmProcess, Dirtying) {
    let host = Host::new();
    let mut guest = Dirtying::new(4);
    let vm = host.run(NAME, 4, "64M", DIRTY);
    guest.goes_on(&vm);
    (host, vm, guest)
}

#[test]
fn a_target_killed_at_random_leaves_the_door_decided() {
    let test = "a_target_killed_at_random_leaves_the_door_decided";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let mut dice = Dice::announced(test);
    let (mut host, mut vm, mut guest) = scene();
    for _ in 0..repetitions(8, 20) {
        let mut target = host.receive_here("next.sock");
        let moving = host.start_migration(NAME, target.address(), &RELAXED);
        std::thread::sleep(dice.moment(DURING));
        target.kill();
        let moved = moving.finish(END_WITHIN);
        match moved.result.status {
            // The pidfd and the started word tell: it never ran there, so it goes on here.
            MigrationOutcome::Failed => {
                guest.goes_on(&vm);
                assert_eq!(vm.info().state, VmState::Running);
            }
            // It was taken over, and its owner was killed: this guest's life is over.
            MigrationOutcome::Completed => {
                assert_eq!(vm.wait_exit(), 0);
                (host, vm, guest) = scene();
            }
            other => panic!("{other:?} is undecided: {:?}", moved.result),
        }
    }
    // And the next one succeeds.
    let target = host.receive_here("next.sock");
    host.migrate(NAME, target.address(), &RELAXED).assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
    guest.follow(&vm);
    vm = target;
    guest.goes_on(&vm);
    guest.verify(&mut vm);
}

#[test]
fn a_source_killed_at_random_leaves_one_copy_or_none() {
    let test = "a_source_killed_at_random_leaves_one_copy_or_none";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let mut dice = Dice::announced(test);
    for _ in 0..repetitions(8, 20) {
        let (host, mut vm, mut guest) = scene();
        let mut target = host.receive_here("next.sock");
        let moving = host.start_migration(NAME, target.address(), &RELAXED);
        std::thread::sleep(dice.moment(DURING));
        vm.kill();
        drop(moving.finish(END_WITHIN));
        // Either COMMIT was on its way, and the guest goes on there with all that it had, or the target
        // waits as if nothing had been.
        let state = target.wait_state("a decision", |state| match state {
            VmState::Running => true,
            VmState::Incoming => target_waits(&host),
            _ => false,
        });
        if state == VmState::Running {
            guest.follow(&vm);
            guest.goes_on(&target);
            guest.verify(&mut target);
        }
    }
}

/// Whether the receiver has given the attempt up: it takes another guest.
fn target_waits(host: &Host) -> bool {
    host.entries().iter().all(|entry| entry.is_dead() || entry.file.state == VmState::Incoming)
}
