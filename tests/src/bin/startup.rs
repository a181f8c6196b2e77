//! Prints how long it takes from starting `godwit run` to the test kernel's first serial byte, and what the VMM
//! needs beside guest RAM: `cargo run --release -p godwit-tests --bin startup [RUNS]`.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use godwit_tests::{Host, Usage};

/// One start.
struct Run {
    first_byte_ms: f64,
    pss_kib: u64,
    private_kib: u64,
}

fn main() {
    let runs = std::env::args().nth(1).and_then(|runs| runs.parse().ok()).unwrap_or(20).clamp(1, 10_000);
    // The first one finds neither program nor kernel in the page cache.
    let _warm = start();
    let all: Vec<Run> = (0..runs).map(|_| start()).collect();
    println!("| {runs} runs, 1 vCPU, 16 MiB | median | min | max |");
    println!("|---|---|---|---|");
    let row = |what: &str, of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        println!("| {what} | {:.1} | {least:.1} | {most:.1} |", values[values.len() / 2]);
    };
    row("exec to the first serial byte, ms", |run| run.first_byte_ms);
    row("memory beside guest RAM (PSS), MiB", |run| mib(run.pss_kib));
    row("of that written and private, MiB", |run| mib(run.private_kib));
}

#[allow(clippy::cast_precision_loss, reason = "far from 2^53")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn start() -> Run {
    // One for each: a killed VM leaves its state file behind.
    let host = Host::new();
    let arguments =
        ["run", "--kernel", "builtin", "--memory", "16M", "--cmdline", "payload=idle", "--name", "s"];
    let mut command: Command = host.command(&arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn().expect("godwit starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut byte = [0];
    let read = stdout.read_exact(&mut byte);
    let first_byte = begin.elapsed();
    let usage = read.as_ref().ok().map(|()| Usage::of(child.id()));
    // It may have ended by itself, if it said nothing.
    let _ = child.kill();
    let _ = child.wait();
    read.expect("the guest says something");
    let usage = usage.expect("it was read");
    Run {
        first_byte_ms: first_byte.as_secs_f64() * 1000.0,
        pss_kib: usage.pss_kib,
        private_kib: usage.private_kib,
    }
}
