//! What happens to a guest while it moves: cancelling, limits, input on its way, the blackout as seen
//! from outside.

use std::time::{Duration, Instant};

use godwit_api::{MigrationOutcome, VmState};
use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::report::{Report, parse_line};
use godwit_tests::{Dirtying, Host, Mark, PATIENCE, VmProcess, alone, kvm, repetitions, wait_for};

const RELAXED: [&str; 2] = ["--max-downtime", "200ms"];
/// 48 MiB that are not zero: four seconds over a link of 100 Mbit/s.
const SLOW_TO_MOVE: &str = "payload=dirty ws=1M rate=4M report=100ms cpu1.payload=hash cpu1.ws=48M";

#[test]
fn a_cancelled_move_ends_with_3_and_the_guest_runs_on() {
    if !kvm("a_cancelled_move_ends_with_3_and_the_guest_runs_on") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let vm = host.run("stay", 2, "128M", SLOW_TO_MOVE);
    let mut guest = Dirtying::new(1);
    guest.goes_on(&vm);
    let target = host.receive();
    for way in ["cancel", "signal"] {
        let moving = host.start_migration("stay", target.address(), &["--bandwidth", "100Mbit"]);
        wait_for("memory is being copied", PATIENCE, || {
            let progress = vm.info().migration?.progress?;
            (progress.sent_bytes > 0 && vm.info().migration?.result.is_none()).then_some(())
        });
        // Meanwhile there is no second one, and nobody else pauses it.
        let second = host.migrate("stay", target.address(), &[]);
        second.assert(MigrationOutcome::Failed);
        assert!(second.reason().contains("under way"), "{}", second.reason());
        host.godwit(&["pause", "stay"]).assert_fails(1, &["being migrated", "cancel"]);
        if way == "cancel" {
            host.succeed(&["cancel", "stay"]);
        } else {
            let pid = rustix::process::Pid::from_raw(i32::try_from(moving.pid()).expect("a pid"));
            rustix::process::kill_process(pid.expect("not 0"), rustix::process::Signal::INT)
                .expect("it runs");
        }
        moving.finish(PATIENCE).assert(MigrationOutcome::Cancelled);
        guest.goes_on(&vm);
        assert_eq!(vm.info().state, VmState::Running);
        host.godwit(&["cancel", "stay"]).assert_fails(1, &["no migration is under way"]);
    }
    wait_for("the target waits again", PATIENCE, || target.info().cpus.is_none().then_some(()));
    host.migrate("stay", target.address(), &RELAXED).assert(MigrationOutcome::Completed);
    guest.follow(&vm);
    guest.goes_on(&target);
}

#[test]
fn a_guest_faster_than_the_link_fails_with_the_reason_and_runs_on() {
    if !kvm("a_guest_faster_than_the_link_fails_with_the_reason_and_runs_on") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let mut vm = host.run("fast", 1, "64M", "payload=dirty ws=24M report=100ms");
    let mut guest = Dirtying::new(1);
    guest.goes_on(&vm);
    let target = host.receive();
    let options = ["--bandwidth", "200Mbit", "--timeout", "4s", "--max-downtime", "10ms"];
    let began = Instant::now();
    let moved = host.migrate("fast", target.address(), &options);
    moved.assert(MigrationOutcome::Failed);
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", moved.result);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", moved.result);
    assert!(moved.result.rounds >= 2, "{:?}", moved.result);
    for part in ["4 s", "dirt"] {
        assert!(moved.reason().contains(part), "{part:?} is not in: {}", moved.reason());
    }
    // The limit was kept.
    let bits_per_s = moved.result.bytes_sent as f64 * 8.0 / (moved.result.total_ms / 1000.0);
    assert!(bits_per_s < 240e6, "{bits_per_s} bit/s: {:?}", moved.result);
    guest.goes_on(&vm);
    guest.verify(&mut vm);
    assert_eq!(vm.info().state, VmState::Running);
    assert_eq!(target.info().state, VmState::Incoming);
}

#[test]
fn a_guest_that_ends_while_it_moves_ends_as_ever() {
    if !kvm("a_guest_that_ends_while_it_moves_ends_as_ever") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let target = host.receive();
    for (command, status) in [(GuestCommand::Quit, 0), (GuestCommand::Exit(3), 7), (GuestCommand::Crash, 4)] {
        let mut vm = host.run("ends", 2, "128M", SLOW_TO_MOVE);
        Dirtying::new(1).goes_on(&vm);
        let moving = host.start_migration("ends", target.address(), &["--bandwidth", "100Mbit"]);
        wait_for("memory is being copied", PATIENCE, || {
            (vm.info().migration?.progress?.sent_bytes > 0).then_some(())
        });
        vm.send(command);
        assert_eq!(vm.wait_exit(), status, "{command}");
        let moved = moving.finish(PATIENCE);
        // Who asked for the move may hear of the end before the result: both are said plainly.
        assert_ne!(moved.result.status, MigrationOutcome::Completed, "{command}");
        wait_for("the target waits again", PATIENCE, || target.info().cpus.is_none().then_some(()));
    }
    let mut vm = host.run("ends", 1, "64M", "payload=dirty ws=8M rate=4M report=100ms");
    host.migrate("ends", target.address(), &RELAXED).assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
}

#[test]
fn memory_is_the_same_on_both_sides() {
    if !kvm("memory_is_the_same_on_both_sides") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let mut vm = host.run("same", 2, "64M", "payload=hash ws=16M pattern=random words=512");
    let region = |vm: &VmProcess| {
        vm.serial().wait(Mark::START, "the region of vCPU 0", PATIENCE, |line| match parse_line(line) {
            Some(Report::Region { cpu: 0, start, len }) => Some((start, len)),
            _ => None,
        })
    };
    let (start, len) = region(&vm);
    let digest = |vm: &mut VmProcess, start: u64, len: u64| {
        let mark = vm.serial().mark();
        vm.send(GuestCommand::Hash { start, len });
        vm.serial().wait(mark, "a digest", Duration::from_secs(60), |line| match parse_line(line) {
            Some(Report::Hash { digest, .. }) => Some(digest),
            _ => None,
        })
    };
    // What was written, and what never was.
    let ranges = [(start, len), (start + len / 2, 4096), (60 << 20, 1 << 20)];
    // vCPU 0 answers once its own part is written, the other's is not looked at.
    let before = ranges.map(|(start, len)| digest(&mut vm, start, len));
    assert_ne!(before[1], before[2]);
    for _ in 0..2 {
        let mut target = host.receive();
        let moved = host.migrate("same", target.address(), &RELAXED);
        moved.assert(MigrationOutcome::Completed);
        assert!(moved.result.pages_sent >= 32 << 8, "two working sets: {:?}", moved.result);
        assert_eq!(vm.wait_exit(), 0);
        assert_eq!(ranges.map(|(start, len)| digest(&mut target, start, len)), before);
        vm = target;
    }
}

#[test]
fn input_on_its_way_is_not_lost() {
    if !kvm("input_on_its_way_is_not_lost") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let mut vm = host.run("typed", 1, "32M", "payload=idle");
    for turn in 0..repetitions(5, 20) {
        let target = host.receive();
        // What fits into the port's FIFO, typed while the guest can't read, stays there as it moves.
        let moving = host.start_migration("typed", target.address(), &RELAXED);
        let text = format!("turn {turn}");
        vm.send(GuestCommand::Echo(&text));
        let expected = format!("godwit-guest: echo {text}");
        moving.finish(PATIENCE).assert(MigrationOutcome::Completed);
        assert_eq!(vm.wait_exit(), 0);
        wait_for("the echo, on one side or across both", PATIENCE, || {
            // The line may have begun at the source and end at the target.
            let said = vm.serial().text() + &target.serial().text();
            said.contains(&expected).then_some(())
        });
        vm = target;
    }
}

/// The longest time without a beat between two moments.
fn longest_gap(beats: &[Instant], from: Instant, to: Instant) -> Duration {
    let within = beats.iter().filter(|at| (from..=to).contains(at));
    let times: Vec<Instant> = std::iter::once(from).chain(within.copied()).chain([to]).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[test]
fn the_blackout_is_what_the_result_says() {
    if !kvm("the_blackout_is_what_the_result_says") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let cmdline = "payload=dirty ws=8M rate=16M report=500ms beat=500us";
    let mut vm = host.run("seen", 1, "64M", cmdline);
    let mut guest = Dirtying::new(1);
    let mut own = Duration::ZERO;
    for _ in 0..3 {
        guest.goes_on(&vm);
        let target = host.receive();
        let quiet_from = Instant::now();
        let quiet = Duration::from_millis(400);
        wait_for("a while to compare with", PATIENCE, || (quiet_from.elapsed() > quiet).then_some(()));
        own = own.max(longest_gap(&vm.serial().ticks(), quiet_from, quiet_from + quiet));
        let from = Instant::now();
        let moved = host.migrate("seen", target.address(), &["--max-downtime", "50ms"]);
        moved.assert(MigrationOutcome::Completed);
        assert_eq!(vm.wait_exit(), 0);
        guest.follow(&vm);
        guest.goes_on(&target);
        let to = Instant::now();
        let last_here = vm.serial().ticks().into_iter().max().expect("beats");
        let first_there = target.serial().ticks().into_iter().min().expect("beats");
        assert!(first_there > last_here, "it spoke on both sides at once");
        let blackout = first_there - last_here;
        let said = Duration::from_secs_f64(moved.result.downtime_ms.expect("known") / 1000.0);
        println!("blackout: seen {blackout:?}, said {said:?}, longest gap before {own:?}");
        let slack = own * 10 + Duration::from_millis(30);
        assert!(blackout <= Duration::from_millis(150) + slack, "{blackout:?}, own gap {own:?}");
        assert!(said <= blackout + slack, "said {said:?}, seen {blackout:?}, own gap {own:?}");
        assert!(blackout <= said + slack, "said {said:?}, seen {blackout:?}, own gap {own:?}");
        let all: Vec<Instant> = [vm.serial().ticks(), target.serial().ticks()].concat();
        let longest = longest_gap(&all, from, to);
        assert!(longest <= blackout + slack * 2, "a longer gap than the blackout: {longest:?}");
        vm = target;
    }
}
