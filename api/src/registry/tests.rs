//! Registry behaviour seen from outside, with this test process as the VM process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::types::{VmName, VmState};

struct Fixture {
    runtime: RuntimeDir,
    directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("directory");
    let runtime = RuntimeDir::at(directory.path().join("rt")).expect("opens");
    Fixture { runtime, directory }
}

fn name(name: &str) -> VmName {
    VmName::new(name).expect("valid name")
}

fn new(vm: &str, state: VmState) -> NewEntry {
    NewEntry { name: name(vm), state, epoch: 1, api_socket: None }
}

impl Fixture {
    /// The state file of another process, as that process would have written it.
    fn foreign(&self, vm: &str, pid: u32, change: impl FnOnce(&mut StateFile)) {
        let mut file = StateFile {
            format_version: FORMAT_VERSION,
            name: name(vm),
            pid,
            pid_start_time: super::process::start_time(pid).unwrap_or(1),
            boot_id: super::process::boot_id().expect("boot id"),
            pid_namespace: super::process::pid_namespace(),
            receiver: None,
            state: VmState::Running,
            epoch: 1,
            api_socket: self.runtime.socket_path(&name(vm), pid),
            started_at_unix_ms: 1,
            sessions: Default::default(),
        };
        change(&mut file);
        file.write(&self.runtime.state_path(&name(vm), pid)).expect("writes");
    }

    fn files(&self) -> Vec<String> {
        let mut files: Vec<String> = fs::read_dir(self.runtime.path())
            .expect("lists")
            .map(|item| item.expect("item").file_name().to_string_lossy().into_owned())
            .filter(|file| file != ".lock")
            .collect();
        files.sort();
        files
    }
}

/// A live process that is not this one.
fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

#[test]
fn an_entry_is_found_updated_renamed_and_removed() {
    let fixture = fixture();
    let pid = std::process::id();
    let mut registration = fixture.runtime.register(new("web", VmState::Running)).expect("registers");
    registration.update(|file| file.epoch = 9).expect("updates");
    let found = fixture.runtime.find(&name("web")).expect("found");
    assert_eq!((found.file.epoch, found.file.pid), (9, pid));
    assert_eq!(found.file.api_socket, fixture.runtime.path().join(format!("web.{pid}.sock")));

    registration.rename(name("db")).expect("renames");
    assert!(matches!(fixture.runtime.find(&name("web")), Err(RegistryError::NotFound { .. })));
    assert_eq!(fixture.runtime.find(&name("db")).expect("found").file, *registration.file());
    assert_eq!(fixture.files(), [format!("db.{pid}.json")]);
    registration.remove().expect("removes");
    assert_eq!(fixture.files(), Vec::<String>::new());
}

#[test]
fn an_update_can_not_change_whose_entry_it_is() {
    let fixture = fixture();
    let mut registration = fixture.runtime.register(new("web", VmState::Running)).expect("registers");
    registration.update(|file| file.pid = 1).expect("updates");
    assert_eq!(registration.file().pid, std::process::id());
}

#[test]
fn a_live_owners_name_is_refused_to_owners_and_open_to_receivers() {
    for state in [
        VmState::Running,
        VmState::Paused,
        VmState::Unconfirmed { to: "t".into(), epoch: 2 },
        VmState::Crashed { reason: "r".into() },
    ] {
        let fixture = fixture();
        fixture.foreign("web", parent(), |file| file.state = state.clone());
        let refused = fixture.runtime.register(new("web", VmState::Running)).expect_err("refused");
        assert!(matches!(refused, RegistryError::NameTaken { pid, .. } if pid == parent()));
        let mut receiver = fixture.runtime.register(new("web", VmState::Incoming)).expect("allowed");
        // COMMIT is never refused because of a name.
        receiver.update(|file| file.state = VmState::Running).expect("runs");
    }
    let fixture = fixture();
    fixture.foreign("web", parent(), |file| file.state = VmState::HandedOver { to: "t".into() });
    fixture.runtime.register(new("web", VmState::Running)).expect("the guest has left");
}

#[test]
fn a_receiver_may_take_its_vms_name_and_an_owner_may_not() {
    let fixture = fixture();
    fixture.foreign("web", parent(), |_| {});
    let mut receiver = fixture.runtime.register(new("incoming-1", VmState::Incoming)).expect("registers");
    receiver.rename(name("web")).expect("as its source is here");
    let found = fixture.runtime.find(&name("web")).expect("found");
    assert_eq!(found.file.pid, parent(), "the owner comes first");
    receiver.rename(name("other")).expect("renames");
    receiver.update(|file| file.state = VmState::Running).expect("updates");
    assert!(matches!(receiver.rename(name("web")), Err(RegistryError::NameTaken { .. })));
    assert_eq!(receiver.file().name, name("other"));
}

#[test]
fn unconfirmed_comes_before_incoming_and_can_be_asked_for() {
    let fixture = fixture();
    let unconfirmed = VmState::Unconfirmed { to: "t".into(), epoch: 2 };
    fixture.foreign("web", parent(), |file| file.state = unconfirmed.clone());
    let mut here = fixture.runtime.register(new("web", VmState::Incoming)).expect("registers");
    assert_eq!(fixture.runtime.find(&name("web")).expect("found").file.pid, parent());
    here.update(|file| file.state = VmState::Running).expect("updates");
    assert_eq!(fixture.runtime.find(&name("web")).expect("found").file.pid, std::process::id());
    let resolvable = |state: &VmState| matches!(state, VmState::Unconfirmed { .. });
    let found = fixture.runtime.find_among(&name("web"), resolvable).expect("found");
    assert_eq!(found.file.pid, parent());
}

#[test]
fn two_alike_are_ambiguous_and_both_are_named() {
    let fixture = fixture();
    fixture.foreign("web", parent(), |file| file.state = VmState::Incoming);
    let _here = fixture.runtime.register(new("web", VmState::Incoming)).expect("registers");
    let error = fixture.runtime.find(&name("web")).expect_err("ambiguous");
    let text = error.to_string();
    assert!(text.contains(&parent().to_string()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
}

#[test]
fn a_reused_pid_and_a_former_boot_are_dead() {
    let fixture = fixture();
    fixture.foreign("reused", parent(), |file| file.pid_start_time += 1);
    fixture.foreign("rebooted", parent(), |file| file.boot_id = "another".into());
    let listing = fixture.runtime.list().expect("lists");
    assert!(listing.entries.iter().all(Entry::is_dead), "{listing:?}");
    assert!(matches!(
        fixture.runtime.find(&name("reused")),
        Err(RegistryError::Dead { was, .. }) if was == "running"
    ));
    // Any registration removes what a former boot left; a dead name goes when it is used again.
    let socket = fixture.runtime.socket_path(&name("reused"), parent());
    fs::write(&socket, "").expect("writes");
    let first = fixture.runtime.register(new("x", VmState::Running)).expect("registers");
    assert!(!fixture.files().iter().any(|file| file.starts_with("rebooted")));
    assert!(fixture.files().iter().any(|file| file.starts_with("reused")));
    first.remove().expect("removes");
    let _again = fixture.runtime.register(new("reused", VmState::Running)).expect("registers");
    assert!(!socket.exists());
    assert_eq!(fixture.files(), [format!("reused.{}.json", std::process::id())]);
}

#[test]
fn pruning_leaves_an_api_socket_outside_the_directory_alone() {
    let fixture = fixture();
    let outside: PathBuf = fixture.directory.path().join("mine.sock");
    fs::write(&outside, "").expect("writes");
    fixture.foreign("web", parent(), |file| {
        file.pid_start_time += 1;
        file.api_socket.clone_from(&outside);
    });
    let _again = fixture.runtime.register(new("web", VmState::Running)).expect("registers");
    assert!(outside.exists());
}

#[test]
fn garbage_is_reported_by_name_and_harms_nobody() {
    let fixture = fixture();
    let put = |file: &str, content: &[u8]| {
        fs::write(fixture.runtime.path().join(file), content).expect("writes");
    };
    put("cut.1.json", b"{\"format_version\":1,");
    put("newer.1.json", b"{\"format_version\":2}");
    put("empty.1.json", b"");
    put("huge.1.json", &vec![b' '; 70_000]);
    put("binary.1.json", &[0xff, 0, 1]);
    put("notes.txt", b"mine");
    fs::create_dir(fixture.runtime.path().join("dir.1.json")).expect("creates");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fixture.runtime.path().join("pipe.1.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("pipe");
    let _here = fixture.runtime.register(new("web", VmState::Running)).expect("registers");
    let pid = std::process::id();
    let own = fixture.runtime.path().join(format!("web.{pid}.json"));
    fs::copy(own, fixture.runtime.path().join("copy.1.json")).expect("copies");

    let listing = fixture.runtime.list().expect("lists");
    assert_eq!(listing.entries.len(), 1);
    let names: Vec<String> = listing
        .unreadable
        .iter()
        .map(|file| file.path.file_name().expect("name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names,
        ["binary", "copy", "cut", "dir", "empty", "huge", "newer", "pipe"].map(|n| format!("{n}.1.json"))
    );
    assert!(listing.unreadable[6].why.contains("another version"));
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let open = directory.path().join("open");
    fs::create_dir(&open).expect("creates");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("opens it up");
    assert!(matches!(RuntimeDir::at(&open), Err(RegistryError::Untrusted { .. })));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).expect("links");
    assert!(matches!(RuntimeDir::at(&link), Err(RegistryError::Untrusted { .. })));
    let made = directory.path().join("made");
    RuntimeDir::at(&made).expect("creates");
    assert_eq!(fs::metadata(&made).expect("exists").permissions().mode() & 0o777, 0o700);
}

#[test]
fn free_names_are_free_and_valid() {
    let fixture = fixture();
    let first = fixture.runtime.free_name().expect("name");
    let entry = NewEntry { name: first.clone(), ..new("x", VmState::Running) };
    let _taken = fixture.runtime.register(entry).expect("registers");
    assert_ne!(fixture.runtime.free_name().expect("name"), first);
}

#[test]
fn of_many_that_want_a_name_at_once_the_lock_lets_each_see_a_whole_directory() {
    let fixture = fixture();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let runtime = &fixture.runtime;
            scope.spawn(move || {
                for _ in 0..20 {
                    let vm = format!("vm{number}");
                    let mut entry = runtime.register(new(&vm, VmState::Running)).expect("registers");
                    entry.update(|file| file.epoch += 1).expect("updates");
                    let listing = runtime.list().expect("lists");
                    assert_eq!(listing.unreadable, []);
                    entry.remove().expect("removes");
                }
            });
        }
    });
    assert_eq!(fixture.files(), Vec::<String>::new());
}
