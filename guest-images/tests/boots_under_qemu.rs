//! The test kernel under QEMU's software CPU, which is a full x86-64 in every ring: what the kernel
//! does there, it does on hardware. Skipped by name where QEMU is not installed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use godwit_guest_images::TEST_KERNEL;
use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::hash::fnv1a64;
use godwit_guest_images::report::{BEAT, Progress, Report, is_beat, parse_line};

const QEMU: &str = "qemu-system-x86_64";

/// The software CPU is slow, and the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A guest; killed when dropped.
struct Guest {
    qemu: Child,
    /// What it says, without line ends.
    lines: Receiver<String>,
    /// Whether it sends beats, and how many came.
    beats: Option<usize>,
    /// Holds the kernel's file.
    _folder: tempfile::TempDir,
}

impl Guest {
    /// Boots with `cmdline`; `None`, and says so, without QEMU.
    fn boot(test: &str, cpus: u32, cmdline: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        std::fs::write(&kernel, TEST_KERNEL).unwrap();
        let qemu = Command::new(QEMU)
            .args(["-M", "microvm", "-accel", "tcg", "-cpu", "max", "-m", "64", "-smp", &cpus.to_string()])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .arg("-kernel")
            .arg(&kernel)
            .args(["-append", cmdline])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        match qemu {
            Ok(mut qemu) => {
                let lines = read_lines(qemu.stdout.take().unwrap());
                let beats = cmdline.contains("beat=").then_some(0);
                Some(Self { qemu, lines, beats, _folder: folder })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: {test} ({QEMU} is not installed)");
                None
            }
            Err(error) => panic!("{QEMU}: {error}"),
        }
    }

    fn send(&mut self, command: GuestCommand<'_>) {
        writeln!(self.qemu.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    /// Reads lines until `wanted` has something to say of one.
    fn expect<T>(&mut self, what: &str, wanted: impl Fn(Report<'_>) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("the guest did not say: {what} ({error})"));
            if let Some(beats) = &mut self.beats {
                *beats += line.bytes().filter(|&byte| is_beat(byte)).count();
                line.retain(|character| character != char::from(BEAT));
            }
            let report = parse_line(&line).unwrap_or_else(|| panic!("not a line of the kernel: {line:?}"));
            if let Some(found) = wanted(report) {
                return found;
            }
        }
    }

    fn wait(mut self) -> ExitStatus {
        self.qemu.wait().unwrap()
    }
}

/// Reads on its own thread, so that a silent guest does not hang the test.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

#[test]
fn every_vcpu_dirties_and_verifies_its_memory() {
    for pattern in ["seq", "random", "hotcold"] {
        let cmdline = format!("payload=dirty ws=1M rate=20M report=50ms beat=1ms words=5 pattern={pattern}");
        let Some(mut guest) = Guest::boot("every_vcpu_dirties_and_verifies_its_memory", 2, &cmdline) else {
            return;
        };
        guest.expect("up", |report| {
            matches!(report, Report::Up { cpus: 2, payload: "dirty", .. }).then_some(())
        });
        for cpu in 0..2 {
            let progress = guest.expect("a second pass", |report| match report {
                Report::Progress(progress) if progress.cpu == cpu && progress.pass >= 2 => Some(progress),
                _ => None,
            });
            assert!(matches!(progress, Progress { mismatches: 0, .. }), "{progress:?}");
        }
        guest.send(GuestCommand::Verify);
        let mut verified = [false; 2];
        while verified != [true; 2] {
            let (cpu, pages, mismatches) = guest.expect("verified", |report| match report {
                Report::Verified { cpu, pages, mismatches } => Some((cpu, pages, mismatches)),
                _ => None,
            });
            assert_eq!((pages, mismatches), (256, 0), "cpu{cpu}, {pattern}");
            verified[usize::try_from(cpu).unwrap()] = true;
        }
        assert!(guest.beats > Some(0));
    }
}

#[test]
fn an_idle_guest_answers_commands_and_ends_as_told() {
    let Some(mut guest) = Guest::boot("an_idle_guest_answers_commands_and_ends_as_told", 1, "") else {
        return;
    };
    guest.expect("up", |report| matches!(report, Report::Up { cpus: 1, .. }).then_some(()));
    guest.send(GuestCommand::Ping);
    guest.expect("pong", |report| (report == Report::Pong).then_some(()));
    guest.send(GuestCommand::Echo("a.b"));
    guest.expect("echo", |report| (report == Report::Echo("a.b")).then_some(()));
    // Far above the kernel nothing was ever written.
    guest.send(GuestCommand::Hash { start: 32 << 20, len: 8192 });
    let digest = guest.expect("hash", |report| match report {
        Report::Hash { start: 0x200_0000, len: 8192, digest } => Some(digest),
        _ => None,
    });
    assert_eq!(digest, fnv1a64(&[0; 8192]));
    guest.send(GuestCommand::Exit(5));
    assert_eq!(guest.wait().code(), Some(5 << 1 | 1));
}

#[test]
fn a_command_line_that_makes_no_sense_ends_the_guest_with_the_reason() {
    let test = "a_command_line_that_makes_no_sense_ends_the_guest_with_the_reason";
    for (cmdline, reason) in
        [("colour=red", "unknown key in \"colour=red\""), ("payload=dirty ws=1G", "cpu0 wants ws=1073741824")]
    {
        let Some(mut guest) = Guest::boot(test, 1, cmdline) else { return };
        guest.expect(reason, |report| match report {
            Report::Error(text) if text.contains(reason) => Some(()),
            _ => None,
        });
        assert_eq!(guest.wait().code(), Some(0x10 << 1 | 1));
    }
}
