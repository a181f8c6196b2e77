//! Prints how soon a guest speaks and what its VMM needs, as docs/startup.md has it:
//! `cargo run --release -p godwit-tests --bin startup [RUNS]`.

use godwit_tests::Startup;

fn main() {
    let runs = std::env::args().nth(1).and_then(|runs| runs.parse().ok()).unwrap_or(20).clamp(1, 10_000);
    // The first one finds neither program nor kernel in the page cache.
    let _warm = Startup::measure();
    let all: Vec<Startup> = (0..runs).map(|_| Startup::measure()).collect();
    println!("| {runs} runs, 1 vCPU, 16 MiB | median | least | most |");
    println!("|---|---|---|---|");
    let row = |what: &str, of: fn(&Startup) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        println!("| {what} | {:.1} | {least:.1} | {most:.1} |", values[values.len() / 2]);
    };
    row("exec of `godwit run` to the guest's first serial byte, ms", |run| {
        run.first_byte.as_secs_f64() * 1000.0
    });
    row("memory of the process beside guest RAM (PSS), MiB", |run| mib(run.usage.pss_kib));
    row("of that written and shared with nobody, MiB", |run| mib(run.usage.private_kib));
}

#[allow(clippy::cast_precision_loss, reason = "far from 2^53")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
