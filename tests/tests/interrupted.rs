//! Moves that are cut short, everywhere: at every message, at random moments, by the death of the
//! target, by its silence. Before COMMIT the guest runs on at the source; behind it the target alone
//! decides, and nobody guesses.

use std::time::Duration;

use godwit_api::{MigrationOutcome, VmState};
use godwit_tests::proxy::{Fate, Kind, Proxy, Way};
use godwit_tests::{
    DIRTY, Dice, Dirtying, Host, Mark, Moved, Moving, PATIENCE, VmProcess, alone, kvm, repetitions,
};

const RELAXED: [&str; 2] = ["--max-downtime", "200ms"];
const NAME: &str = "cut";
const END_WITHIN: Duration = Duration::from_secs(60);

/// A guest and where it is.
struct Scene {
    /// Where the guest is; its target is on another host, so that no state file can be read.
    here: Host,
    there: Host,
    vm: VmProcess,
    guest: Dirtying,
    target: VmProcess,
    proxy: Proxy,
}

/// Where the guest is after a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Source,
    Target,
}

impl Scene {
    fn new(target_on_same_host: bool) -> Self {
        let (here, there) = (Host::new(), Host::new());
        let vm = here.run(NAME, 4, "48M", DIRTY);
        let mut guest = Dirtying::new(4);
        guest.goes_on(&vm);
        let target = if target_on_same_host { here.receive() } else { there.receive() };
        let proxy = Proxy::to(target.address());
        Self { here, there, vm, guest, target, proxy }
    }

    fn start(&self) -> Moving {
        self.here.start_migration(NAME, &self.proxy.address(), &RELAXED)
    }

    /// Waits until nothing is undecided at the source any more: it runs, or it has handed over.
    fn decided(&mut self) -> Place {
        let state = self.vm.wait_state("decided", |state| {
            matches!(state, VmState::Running | VmState::HandedOver { .. } | VmState::Dead { .. })
        });
        if state == VmState::Running { Place::Source } else { Place::Target }
    }

    /// Asserts that the guest runs there and only there, and that no page of it is wrong.
    #[track_caller]
    fn runs_only(&mut self, place: Place) {
        match place {
            Place::Source => {
                self.guest.goes_on(&self.vm);
                if self.target.exited().is_none() {
                    assert_eq!(self.target.serial().bytes_since(Mark::START), 0, "it ran at the target, too");
                    assert_eq!(self.target.state(), VmState::Incoming);
                }
            }
            Place::Target => {
                // Everything that the source ever said comes before what the target says.
                self.guest.follow(&self.vm);
                let said = self.vm.serial().mark();
                self.guest.goes_on(&self.target);
                assert_eq!(self.vm.serial().bytes_since(said), 0, "it runs at the source, too");
            }
        }
    }

    /// A new target for the guest that stayed.
    fn new_target(&mut self) {
        self.target = self.there.receive();
        self.proxy = Proxy::to(self.target.address());
    }

    /// The guest is at the target: that is the source from now on.
    fn swap(&mut self) {
        assert_eq!(self.vm.wait_exit(), 0, "a source that has handed over ends with 0");
        std::mem::swap(&mut self.here, &mut self.there);
        let target = self.there.receive();
        self.proxy = Proxy::to(target.address());
        self.vm = std::mem::replace(&mut self.target, target);
    }

    /// The next move, without any trouble, succeeds.
    #[track_caller]
    fn next_move_succeeds(&mut self) {
        self.proxy.heal();
        let moved = self.start().finish(END_WITHIN);
        moved.assert(MigrationOutcome::Completed);
        self.runs_only(Place::Target);
        self.swap();
    }

    /// Waits until the source says that nobody knows, and asserts all that must hold then.
    #[track_caller]
    fn at_the_door(&mut self) {
        let state = self.vm.wait_state("unconfirmed", |state| matches!(state, VmState::Unconfirmed { .. }));
        assert!(matches!(state, VmState::Unconfirmed { .. }));
        let listed = self.here.succeed(&["ps"]);
        assert!(listed.contains("handed over, unconfirmed"), "{listed}");
        let info = self.here.succeed(&["info", NAME]);
        assert!(info.contains("handed over, unconfirmed") && info.contains("godwit resolve"), "{info}");
        let refused = self.here.godwit(&["resume", NAME]);
        refused.assert_fails(1, &["handed over", "not confirmed", "resolve"]);
        self.here.godwit(&["stop", NAME]).assert_fails(1, &["resolve", "--force"]);
        Dirtying::assert_silent(&self.vm, Duration::from_millis(150));
    }
}

#[track_caller]
fn finish(moving: Moving, outcome: MigrationOutcome) -> Moved {
    let moved = moving.finish(END_WITHIN);
    moved.assert(outcome);
    if outcome != MigrationOutcome::Completed {
        assert!(!moved.reason().is_empty(), "{:?}", moved.result);
    }
    moved
}

/// What is said on the way of a move, in order.
const SAID: [(Way, Kind, u32); 15] = [
    (Way::ToTarget, Kind::Hello, 0),
    (Way::ToSource, Kind::Welcome, 0),
    (Way::ToTarget, Kind::Ping, 0),
    (Way::ToSource, Kind::Pong, 0),
    (Way::ToSource, Kind::Pong, 2),
    (Way::ToTarget, Kind::Machine, 0),
    (Way::ToSource, Kind::Prepared, 0),
    (Way::ToTarget, Kind::StreamHello, 0),
    (Way::ToSource, Kind::StreamWelcome, 0),
    (Way::ToTarget, Kind::RoundEnd, 0),
    (Way::ToSource, Kind::RoundAck, 0),
    (Way::ToTarget, Kind::FinalState, 0),
    (Way::ToSource, Kind::Ready, 0),
    (Way::ToTarget, Kind::Commit, 0),
    (Way::ToSource, Kind::Running, 0),
];

/// Where the guest must be when a move meets this fate at this message and the link heals later.
fn must_be_at(way: Way, kind: Kind, fate: Fate) -> Place {
    match (way, kind, fate) {
        (Way::ToTarget, Kind::Commit, Fate::CutAfter | Fate::CloseAfter)
        | (Way::ToSource, Kind::Running, _) => Place::Target,
        _ => Place::Source,
    }
}

fn cut_at_every_message(fates: &[Fate]) {
    let mut scene = Scene::new(false);
    let mut kinds = Vec::new();
    for (way, kind, nth) in SAID {
        for &fate in fates {
            let what = format!("{fate:?} {kind:?} {nth} {way:?}");
            eprintln!("{what}");
            scene.proxy.at(way, kind, nth, fate);
            let moving = scene.start();
            scene.proxy.wait_for_trouble(PATIENCE);
            // Long enough for both sides to see it; whoever is at the door asks in vain.
            let state = scene.vm.wait_state("not moving", |state| match state {
                VmState::Running => true,
                state => matches!(
                    state,
                    VmState::Unconfirmed { .. } | VmState::HandedOver { .. } | VmState::Dead { .. }
                ),
            });
            if matches!(state, VmState::Unconfirmed { .. }) {
                scene.at_the_door();
            }
            kinds.extend(scene.proxy.seen().iter().map(|seen| seen.kind));
            scene.proxy.heal();
            let moved = moving.finish(END_WITHIN);
            let place = scene.decided();
            assert_eq!(place, must_be_at(way, kind, fate), "{what}: {:?}", moved.result);
            let expected = match place {
                Place::Source => MigrationOutcome::Failed,
                Place::Target => MigrationOutcome::Completed,
            };
            moved.assert(expected);
            scene.runs_only(place);
            if place == Place::Target {
                scene.swap();
            }
        }
    }
    scene.next_move_succeeds();
    for (_, kind, _) in SAID {
        assert!(kinds.contains(&kind), "{kind:?} was never said");
    }
    scene.guest.verify(&mut scene.vm);
}

#[test]
fn a_link_cut_at_every_message_decides_as_it_must() {
    if !kvm("a_link_cut_at_every_message_decides_as_it_must") {
        return;
    }
    let _alone = alone();
    cut_at_every_message(&[Fate::CutBefore, Fate::CutInside, Fate::CutAfter]);
}

/// A tunnel or balancer that ends closes both connections as if each peer had; that must decide
/// nothing else than a broken link does.
#[test]
fn a_link_closed_in_good_order_decides_as_a_broken_one() {
    if !kvm("a_link_closed_in_good_order_decides_as_a_broken_one") {
        return;
    }
    let _alone = alone();
    cut_at_every_message(&[Fate::CloseAfter]);
}

#[test]
fn a_damaged_message_fails_the_move_and_harms_nothing() {
    if !kvm("a_damaged_message_fails_the_move_and_harms_nothing") {
        return;
    }
    let _alone = alone();
    let mut scene = Scene::new(false);
    for (way, kind, nth) in SAID.into_iter().filter(|(_, kind, _)| *kind != Kind::Running) {
        eprintln!("damaged {kind:?}");
        scene.proxy.at(way, kind, nth, Fate::Damage);
        let moved = scene.start().finish(END_WITHIN);
        moved.assert(MigrationOutcome::Failed);
        assert_eq!(scene.decided(), Place::Source);
        scene.runs_only(Place::Source);
        scene.proxy.heal();
    }
    scene.next_move_succeeds();
    // A damaged Running says nothing: the answer to an inquiry does.
    scene.proxy.at(Way::ToSource, Kind::Running, 0, Fate::Damage);
    finish(scene.start(), MigrationOutcome::Completed);
    scene.runs_only(Place::Target);
    scene.swap();
    scene.guest.verify(&mut scene.vm);
}

#[test]
fn a_link_cut_at_random_loses_nothing() {
    let test = "a_link_cut_at_random_loses_nothing";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let mut dice = Dice::announced(test);
    let mut scene = Scene::new(false);
    let mut places = Vec::new();
    for _ in 0..20 {
        // A whole move is about 16 MiB of working sets and a little more.
        scene.proxy.cut_after_bytes(dice.below(18 << 20));
        let moving = scene.start();
        // It may be over before the link is cut.
        let cut = wait_for_cut_or_end(&mut scene);
        if matches!(scene.vm.state(), VmState::Unconfirmed { .. }) {
            scene.at_the_door();
        }
        scene.proxy.heal();
        let moved = moving.finish(END_WITHIN);
        let place = scene.decided();
        eprintln!("cut: {cut}, {:?}, {place:?}", moved.result.status);
        scene.runs_only(place);
        match place {
            Place::Source => {
                moved.assert(MigrationOutcome::Failed);
                scene.next_move_succeeds();
            }
            Place::Target => {
                moved.assert(MigrationOutcome::Completed);
                scene.swap();
            }
        }
        places.push(place);
    }
    assert!(places.contains(&Place::Source), "no cut came in time: {places:?}");
    scene.guest.verify(&mut scene.vm);
}

/// Waits until the link was cut and the source knows, or until the move is over.
fn wait_for_cut_or_end(scene: &mut Scene) -> bool {
    godwit_tests::wait_for("a cut, or the end of the move", PATIENCE, || {
        if scene.proxy.trouble_within(Duration::from_millis(5)) {
            return Some(true);
        }
        scene.vm.exited().is_some().then_some(false)
    })
}

#[test]
fn a_target_killed_at_random_loses_nothing() {
    let test = "a_target_killed_at_random_loses_nothing";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let mut dice = Dice::announced(test);
    let mut scene = Scene::new(false);
    for point in 0..repetitions(12, 20) {
        // Killed before COMMIT, wherever the move is by then.
        let stop_before = dice.below(18 << 20);
        scene.proxy.at(Way::ToTarget, Kind::Commit, 0, Fate::StallBefore);
        let before = scene.proxy.forwarded();
        let moving = scene.start();
        godwit_tests::wait_for("so many bytes, or COMMIT", PATIENCE, || {
            let enough = scene.proxy.forwarded() - before >= stop_before;
            (enough || scene.proxy.trouble_within(Duration::ZERO)).then_some(())
        });
        scene.target.kill();
        let door = scene.proxy.trouble_within(Duration::ZERO);
        eprintln!(
            "point {point}: killed after {} bytes, at the door: {door}",
            scene.proxy.forwarded() - before
        );
        if door {
            // COMMIT was said: the source does not guess, whatever became of it.
            scene.proxy.cut();
            let moved = finish(moving, MigrationOutcome::Unconfirmed);
            assert!(moved.finished.stderr.contains("godwit resolve"), "{}", moved.finished.stderr);
            scene.at_the_door();
            scene.here.succeed(&["resolve", NAME, "--resume-here"]);
        } else {
            let moved = finish(moving, MigrationOutcome::Failed);
            assert!(moved.result.pages_sent < 48 << 8, "{:?}", moved.result);
        }
        assert_eq!(scene.decided(), Place::Source);
        scene.runs_only(Place::Source);
        scene.new_target();
        scene.next_move_succeeds();
    }
    scene.guest.verify(&mut scene.vm);
}

#[test]
fn unconfirmed_is_ended_by_discarding_or_by_resuming() {
    if !kvm("unconfirmed_is_ended_by_discarding_or_by_resuming") {
        return;
    }
    let _alone = alone();
    let mut scene = Scene::new(false);
    // The target runs, and the source will never hear of it: a person looks, and discards.
    scene.proxy.at(Way::ToTarget, Kind::Commit, 0, Fate::CutAfter);
    let moving = scene.start();
    scene.proxy.wait_for_trouble(PATIENCE);
    scene.at_the_door();
    finish(moving, MigrationOutcome::Unconfirmed);
    scene.runs_only(Place::Target);
    scene.here.succeed(&["resolve", NAME, "--discard"]);
    assert_eq!(scene.vm.wait_exit(), 0);
    scene.here.assert_nothing_left();
    scene.guest.goes_on(&scene.target);
    scene.swap();

    // The target got COMMIT and was killed: a person knows that it is gone, and resumes.
    scene.proxy.at(Way::ToTarget, Kind::Commit, 0, Fate::CutBefore);
    let moving = scene.start();
    scene.proxy.wait_for_trouble(PATIENCE);
    scene.target.kill();
    scene.at_the_door();
    finish(moving, MigrationOutcome::Unconfirmed);
    scene.here.succeed(&["resolve", NAME, "--resume-here"]);
    assert_eq!(scene.decided(), Place::Source);
    scene.guest.goes_on(&scene.vm);
    // There is nothing more to resolve.
    let again = scene.here.godwit(&["resolve", NAME, "--discard"]);
    again.assert_fails(1, &["nothing to resolve"]);
    scene.new_target();
    scene.next_move_succeeds();
    scene.guest.verify(&mut scene.vm);
}

#[test]
fn a_person_who_resumes_by_mistake_is_corrected_by_the_target() {
    if !kvm("a_person_who_resumes_by_mistake_is_corrected_by_the_target") {
        return;
    }
    let _alone = alone();
    let mut scene = Scene::new(false);
    scene.proxy.at(Way::ToTarget, Kind::Commit, 0, Fate::CutAfter);
    let moving = scene.start();
    scene.proxy.wait_for_trouble(PATIENCE);
    scene.at_the_door();
    // The link is back, and the target can be asked before anything is believed.
    scene.proxy.heal();
    let resolved = scene.here.godwit(&["resolve", NAME, "--resume-here"]);
    assert_ne!(resolved.status, Some(0), "{resolved:?}");
    finish(moving, MigrationOutcome::Completed);
    assert_eq!(scene.decided(), Place::Target);
    scene.runs_only(Place::Target);
    scene.swap();
    scene.guest.verify(&mut scene.vm);
}

/// On one host the state file of a dead target tells what it decided.
#[test]
fn a_target_killed_at_the_door_on_the_same_host_has_left_its_word() {
    if !kvm("a_target_killed_at_the_door_on_the_same_host_has_left_its_word") {
        return;
    }
    let _alone = alone();
    let mut scene = Scene::new(true);
    scene.proxy.at(Way::ToTarget, Kind::Commit, 0, Fate::StallBefore);
    let moving = scene.start();
    scene.proxy.wait_for_trouble(PATIENCE);
    scene.target.kill();
    let moved = finish(moving, MigrationOutcome::Failed);
    assert_eq!(scene.decided(), Place::Source, "{:?}", moved.result);
    scene.runs_only(Place::Source);
    scene.target = scene.here.receive();
    scene.proxy = Proxy::to(scene.target.address());
    let moved = scene.start().finish(END_WITHIN);
    moved.assert(MigrationOutcome::Completed);
    scene.runs_only(Place::Target);
    assert_eq!(scene.vm.wait_exit(), 0);
}

#[test]
fn a_silent_target_fails_before_the_door_and_is_waited_for_behind_it() {
    if !kvm("a_silent_target_fails_before_the_door_and_is_waited_for_behind_it") {
        return;
    }
    let _alone = alone();
    let mut scene = Scene::new(false);
    // Silence while memory is copied: the time limit ends it.
    for (way, kind) in [
        (Way::ToTarget, Kind::Hello),
        (Way::ToTarget, Kind::Machine),
        (Way::ToTarget, Kind::RoundEnd),
        (Way::ToTarget, Kind::FinalState),
    ] {
        scene.proxy.at(way, kind, 0, Fate::StallBefore);
        let options = ["--max-downtime", "200ms", "--timeout", "3s"];
        let moving = scene.here.start_migration(NAME, &scene.proxy.address(), &options);
        scene.proxy.wait_for_trouble(PATIENCE);
        scene.target.freeze();
        let moved = finish(moving, MigrationOutcome::Failed);
        eprintln!("{kind:?}: {}", moved.reason());
        assert!(moved.result.total_ms < 10_000.0, "{:?}", moved.result);
        scene.target.thaw();
        scene.proxy.cut();
        scene.proxy.heal();
        assert_eq!(scene.decided(), Place::Source);
        scene.runs_only(Place::Source);
        wait_until_free(&mut scene);
    }
    scene.next_move_succeeds();
    scene.guest.verify(&mut scene.vm);
}

/// The target may take a moment to see that its source is gone.
fn wait_until_free(scene: &mut Scene) {
    let pid = scene.target.pid();
    let free = || scene.target.info().cpus.is_none();
    godwit_tests::wait_for(&format!("receiver {pid} waits again"), PATIENCE, || free().then_some(()));
}

#[test]
fn a_target_frozen_at_the_door_completes_when_it_goes_on() {
    if !kvm("a_target_frozen_at_the_door_completes_when_it_goes_on") {
        return;
    }
    let _alone = alone();
    let mut scene = Scene::new(false);
    scene.proxy.at(Way::ToTarget, Kind::Commit, 0, Fate::StallBefore);
    let moving = scene.start();
    scene.proxy.wait_for_trouble(PATIENCE);
    scene.target.freeze();
    // COMMIT is delivered into the socket of a process that does not run.
    scene.proxy.heal();
    scene.at_the_door();
    finish(moving, MigrationOutcome::Unconfirmed);
    Dirtying::assert_silent(&scene.target, Duration::from_millis(300));
    scene.target.thaw();
    assert_eq!(scene.vm.wait_exit(), 0, "it learns by itself that the target runs");
    scene.runs_only(Place::Target);
    scene.swap();
    scene.guest.verify(&mut scene.vm);
}
