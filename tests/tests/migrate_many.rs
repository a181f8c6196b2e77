//! One guest, moved again and again: its memory stays what it was, and no process that it was in
//! grows with the number of moves behind it.

use godwit_api::{MigrationOutcome, VmState};
use godwit_tests::{DIRTY, Dirtying, Host, Usage, VmProcess, alone, kvm, repetitions, skip, wait_for};

const RELAXED: [&str; 2] = ["--max-downtime", "200ms"];
/// Allocators keep what they had: a little more or less private memory says nothing.
const NOISE_KIB: u64 = 1536;
/// The API's pool keeps a thread or two for some seconds after a call.
const POOLED_THREADS: u64 = 2;
/// What arenas for threads may come to.
const ARENAS_KIB: u64 = 12 << 10;

/// What a process holds once nothing of a migration is under way.
fn settled(vm: &VmProcess) -> Usage {
    let mut last = vm.usage();
    let mut same = 0;
    wait_for("a process that settles", godwit_tests::PATIENCE, || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = vm.usage();
        same = if (now.fds, now.threads) == (last.fds, last.threads) { same + 1 } else { 0 };
        last = now;
        (same == 10).then_some(now)
    })
}

/// Moves `vm` to a new process, which it returns, and checks what the guest says there.
fn move_on(host: &Host, vm: &mut VmProcess, guest: &mut Dirtying) -> VmProcess {
    let target = host.receive();
    let moved = host.migrate("many", target.address(), &RELAXED);
    moved.assert(MigrationOutcome::Completed);
    assert!(moved.result.downtime_ms.is_some_and(|ms| ms > 0.0), "{:?}", moved.result);
    assert_eq!(vm.wait_exit(), 0, "a source ends when its guest is elsewhere");
    guest.follow(vm);
    guest.goes_on(&target);
    target
}

#[test]
fn many_moves_in_a_row_lose_nothing_and_leak_nothing() {
    let test = "many_moves_in_a_row_lose_nothing_and_leak_nothing";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let moves = repetitions(20, 200);
    let mut guest = Dirtying::new(4);
    let mut vm = host.run("many", 4, "64M", DIRTY);
    guest.goes_on(&vm);
    let mut usages = Vec::new();
    for _ in 0..moves {
        vm = move_on(&host, &mut vm, &mut guest);
        usages.push(settled(&vm));
    }
    guest.verify(&mut vm);
    assert_eq!(vm.info().epoch, 1 + moves as u64);
    println!("first {:?}, last {:?}", usages[0], usages[moves - 1]);
    // Each process is new: what the tenth holds more than the first came with the guest.
    let first = &usages[..3];
    let most = |of: fn(&Usage) -> u64| first.iter().map(of).max().expect("three");
    for (index, usage) in usages.iter().enumerate() {
        let seen = format!(
            "after {} moves: {usage:?}; the first three: {first:?}\n{:?}\n{:?}",
            index + 1,
            Usage::descriptors(vm.pid()),
            Usage::thread_names(vm.pid())
        );
        assert!(usage.fds as u64 <= most(|u| u.fds as u64), "file descriptors {seen}");
        let threads = most(|u| u.threads as u64) + POOLED_THREADS;
        assert!(usage.threads as u64 <= threads, "threads {seen}");
        assert!(usage.private_kib <= most(|u| u.private_kib) + NOISE_KIB, "memory {seen}");
    }
    host.succeed(&["stop", "many"]);
    assert_eq!(vm.wait_exit(), 0);
    host.assert_nothing_left();
}

#[test]
fn a_chain_of_three_hosts_ends_where_it_began() {
    let test = "a_chain_of_three_hosts_ends_where_it_began";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let hosts = [Host::new(), Host::new(), Host::new()];
    let mut guest = Dirtying::new(4);
    let mut vm = hosts[0].run("chain", 4, "64M", DIRTY);
    guest.goes_on(&vm);
    let rounds = repetitions(2, 10);
    for (from, to) in [(0, 1), (1, 2), (2, 0)].repeat(rounds) {
        let target = hosts[to].receive();
        hosts[from].migrate("chain", target.address(), &RELAXED).assert(MigrationOutcome::Completed);
        assert_eq!(vm.wait_exit(), 0);
        hosts[from].assert_nothing_left();
        guest.follow(&vm);
        vm = target;
        guest.goes_on(&vm);
        assert_eq!(vm.info().state, VmState::Running);
    }
    guest.verify(&mut vm);
}

#[test]
fn failed_moves_leave_nothing_in_the_source_nor_in_the_target() {
    let test = "failed_moves_leave_nothing_in_the_source_nor_in_the_target";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    if cfg!(not(target_os = "linux")) {
        return skip(test, "needs /proc");
    }
    let host = Host::new();
    let mut guest = Dirtying::new(4);
    let mut vm = host.run("fails", 4, "64M", DIRTY);
    guest.goes_on(&vm);
    let target = host.receive();
    let proxy = godwit_tests::proxy::Proxy::to(target.address());
    let mut sources = Vec::new();
    let mut targets = Vec::new();
    // Cut in the middle of the last state: everything is built and every page was sent by then.
    for _ in 0..repetitions(20, 100) {
        use godwit_tests::proxy::{Fate, Kind, Way};
        proxy.at(Way::ToTarget, Kind::FinalState, 0, Fate::CutInside);
        host.migrate("fails", &proxy.address(), &RELAXED).assert(MigrationOutcome::Failed);
        proxy.heal();
        sources.push(settled(&vm));
        targets.push(settled(&target));
    }
    guest.goes_on(&vm);
    for (side, usages, process) in [("source", &sources, &vm), ("target", &targets, &target)] {
        println!("{side}: first {:?}, last {:?}", usages[0], usages[usages.len() - 1]);
        let seen = || {
            format!(
                "{side}: {usages:?}\n{:?}\n{:?}",
                Usage::descriptors(process.pid()),
                Usage::thread_names(process.pid())
            )
        };
        let (first, last) = (&usages[..3], &usages[usages.len() - 3..]);
        let least = |of: fn(&Usage) -> u64| last.iter().map(of).min().expect("three");
        let most = |of: fn(&Usage) -> u64| first.iter().map(of).max().expect("three");
        assert!(least(|u| u.fds as u64) <= most(|u| u.fds as u64), "file descriptors, {}", seen());
        let threads = most(|u| u.threads as u64) + POOLED_THREADS;
        assert!(least(|u| u.threads as u64) <= threads, "threads, {}", seen());
        // Each thread that comes and goes may get an arena of the allocator that was never used; they
        // are as many as the host's CPUs allow, and then it ends.
        assert!(least(|u| u.private_kib) <= most(|u| u.private_kib) + ARENAS_KIB, "memory, {}", seen());
        if usages.len() >= 100 {
            let half = usages[usages.len() / 2].private_kib;
            assert!(least(|u| u.private_kib) <= half + NOISE_KIB, "memory, {}", seen());
        }
    }
    // And the next one succeeds as if nothing had been.
    host.migrate("fails", &proxy.address(), &RELAXED).assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
    guest.follow(&vm);
    let mut target = target;
    guest.goes_on(&target);
    guest.verify(&mut target);
}
