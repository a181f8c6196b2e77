//! `godwit top`: what VMs use.

use std::io::Write;
use std::process::Stdio;

use godwit_tests::{DIRTY, Host, PATIENCE, VmProcess, kvm, root, wait_for};
use serde_json::Value;

const BUSY: &str = "payload=dirty ws=16M rate=0";
const LOOK: [&str; 5] = ["top", "--once", "--json", "--interval", "300ms"];

fn row(host: &Host, vm: &VmProcess) -> Value {
    let rows: Value = serde_json::from_str(&host.succeed(&LOOK)).expect("JSON");
    let rows = rows.as_array().expect("rows");
    rows.iter().find(|row| row["pid"] == vm.pid()).unwrap_or_else(|| panic!("not in {rows:?}")).clone()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"))
}

#[test]
fn a_busy_guest_and_an_idle_one_are_told_apart() {
    if !kvm("a_busy_guest_and_an_idle_one_are_told_apart") {
        return;
    }
    let host = Host::new();
    let idle = host.run("idle", 1, "64M", "payload=idle");
    let before = row(&host, &idle);
    assert_eq!((before["name"].as_str(), before["cpus"].as_u64()), (Some("idle"), Some(1)));
    assert_eq!(before["state"]["kind"], "running");
    assert_eq!(before["memory_bytes"], 64 << 20);
    assert_eq!(before["notes"], Value::Array(Vec::new()));

    let busy = host.run("busy", 1, "64M", BUSY);
    // Its working set must have been written once.
    let row_of_busy = wait_for("the working set is there", PATIENCE, || {
        let row = row(&host, &busy);
        (number(&row, "guest_ram_bytes") >= f64::from(16 << 20)).then_some(row)
    });
    assert!(number(&row_of_busy, "guest_ram_bytes") <= f64::from(64 << 20), "{row_of_busy}");
    assert!(number(&before, "guest_ram_bytes") < f64::from(8 << 20), "{before}");
    assert!(number(&row_of_busy, "vmm_private_bytes") > 0.0, "{row_of_busy}");
    let (cpu, vcpu, vmm) = (
        number(&row_of_busy, "cpu_percent"),
        number(&row_of_busy, "vcpu_percent"),
        number(&row_of_busy, "vmm_percent"),
    );
    assert!(vcpu > 5.0, "it does nothing else: {row_of_busy}");
    assert!((cpu - vcpu - vmm).abs() < 0.2, "{row_of_busy}");
    assert!(vcpu > 2.0 * number(&row(&host, &idle), "vcpu_percent"), "{row_of_busy}");
}

#[test]
fn the_table_has_a_row_for_each_vm() {
    if !kvm("the_table_has_a_row_for_each_vm") {
        return;
    }
    let host = Host::new();
    let none = host.succeed(&["top", "--once", "--interval", "100ms"]);
    assert!(none.starts_with("no VMs"), "{none}");
    let vm = host.run("web", 1, "32M", "payload=idle");
    let target = host.receive();
    let text = host.succeed(&["top", "--once", "--interval", "100ms"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].trim_start().starts_with("NAME") && lines[0].contains("VCPU%"), "{text}");
    let words = |pid: u32| {
        lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|w| w[2] == pid.to_string())
    };
    assert_eq!(words(vm.pid()).expect("a row")[..2], ["web", "running"]);
    assert_eq!(words(target.pid()).expect("a row")[1], "incoming");
    let refused = host.godwit(&["top", "--interval", "1ms"]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
}

#[test]
fn a_migration_under_way_is_shown() {
    if !kvm("a_migration_under_way_is_shown") {
        return;
    }
    let host = Host::new();
    let vm = host.run("web", 1, "64M", DIRTY);
    let (elsewhere, address) = {
        let other = Host::new();
        let target = other.receive();
        let address = target.address().to_owned();
        ((other, target), address)
    };
    let moving = host.start_migration("web", &address, &["--bandwidth", "8Mbit", "--max-downtime", "1ms"]);
    let row = wait_for("it is under way", PATIENCE, || {
        let row = row(&host, &vm);
        row["migration"]["progress"].is_object().then_some(row)
    });
    assert_eq!(row["migration"]["target"], address.as_str());
    host.succeed(&["cancel", "web"]);
    let moved = moving.finish(PATIENCE);
    assert_eq!(moved.result.status.as_str(), "cancelled", "{}", moved.reason());
    drop(elsewhere);
}

#[test]
fn on_a_terminal_it_is_redrawn_until_q() {
    if !kvm("on_a_terminal_it_is_redrawn_until_q") {
        return;
    }
    let host = Host::new();
    let _vm = host.run("web", 1, "32M", "payload=idle");
    let line = format!("{} top --interval 100ms", godwit_tests::godwit().display());
    // If it does not leave, the limit ends it, and the status says so.
    let mut terminal = std::process::Command::new("timeout")
        .args(["60", "script", "-qec", &line, "/dev/null"])
        .env("GODWIT_RUNTIME_DIR", host.runtime())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("timeout (of coreutils) starts");
    let mut keys = terminal.stdin.take().expect("piped");
    let mut screen = terminal.stdout.take().expect("piped");
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    let mut typed = false;
    loop {
        let count = std::io::Read::read(&mut screen, &mut buffer).expect("reads");
        if count == 0 {
            break;
        }
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
        // CPU is known from the second picture on.
        if !typed && shown.matches("\u{1b}[H").count() >= 3 {
            keys.write_all(b"xq").expect("types");
            typed = true;
        }
    }
    assert!(terminal.wait().expect("ends").success());
    assert!(shown.starts_with("\u{1b}[?1049h") && shown.trim_end().ends_with("\u{1b}[?1049l"), "{shown:?}");
    assert!(shown.contains("NAME") && shown.contains("web"), "{shown:?}");
}

#[test]
fn who_may_not_look_is_told_why() {
    if !kvm("who_may_not_look_is_told_why") || !root("who_may_not_look_is_told_why") {
        return;
    }
    let host = Host::new();
    let _vm = host.run("web", 1, "32M", "payload=idle");
    for path in [host.files().to_owned(), host.runtime()] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, permissions).expect("is ours");
    }
    // A copy that another user can start.
    let binary = host.files().join("godwit");
    std::fs::copy(godwit_tests::godwit(), &binary).expect("copies");
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary)
        .args(LOOK)
        .env("GODWIT_RUNTIME_DIR", host.runtime())
        .output()
        .expect("setpriv starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("belongs to another user"), "{said}");
}
