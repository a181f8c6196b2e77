//! The dirty ring as the dirty log: every page that a guest writes while it moves arrives.

use godwit_api::MigrationOutcome;
use godwit_tests::{Dirtying, Host, alone, kvm, repetitions, skip};

const NAME: &str = "ringed";
/// Faster than the link below for one vCPU, and more than a ring holds (4096 pages) in no time: vCPUs stand
/// still because of full rings.
const FAST: &str = "payload=dirty ws=24M rate=150M report=100ms first=fast cpu1.pattern=random \
                    cpu2.pattern=hotcold cpu3.words=32";
const RELAXED: [&str; 2] = ["--max-downtime", "200ms"];

#[test]
fn a_guest_with_dirty_rings_moves_again_and_again() {
    let test = "a_guest_with_dirty_rings_moves_again_and_again";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let arguments = ["--dirty-log", "ring"];
    let probe = ["run", "--kernel=builtin", "--memory=16M", "--expect=godwit-guest: up", "--dirty-log=ring"];
    let probe = host.godwit(&probe);
    if probe.status != Some(0) {
        assert!(probe.stderr.contains("has no dirty ring"), "{probe:?}");
        return skip(test, "this host's KVM has no dirty ring");
    }

    let mut guest = Dirtying::new(4);
    let mut vm = host.run_with(NAME, 4, "160M", FAST, &arguments);
    guest.goes_on(&vm);
    for turn in 0..repetitions(4, 60) {
        // A ring on one side says nothing about the other; a move that fails leaves the log as it was.
        let target = host.receive_with(if turn % 3 == 2 { &[] } else { &arguments });
        if turn % 2 == 1 {
            let slow = ["--bandwidth", "50Mbit", "--timeout", "500ms", "--max-downtime", "1ms"];
            host.migrate(NAME, target.address(), &slow).assert(MigrationOutcome::Failed);
            guest.goes_on(&vm);
        }
        host.migrate(NAME, target.address(), &RELAXED).assert(MigrationOutcome::Completed);
        assert_eq!(vm.wait_exit(), 0);
        guest.follow(&vm);
        vm = target;
        guest.goes_on(&vm);
        guest.verify(&mut vm);
    }
    // It goes along when the process is renewed.
    host.succeed(&["upgrade", NAME]);
    guest.goes_on(&vm);
    let target = host.receive_with(&arguments);
    host.migrate(NAME, target.address(), &RELAXED).assert(MigrationOutcome::Completed);
    guest.follow(&vm);
    guest.goes_on(&target);
    assert_eq!(vm.wait_exit(), 0);
}
