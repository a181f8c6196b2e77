//! The table. Pure.

use std::fmt;
use std::time::Duration;

use crate::cell::Cell;
use crate::run::Run;
use crate::statistics::Summary;
use crate::system::System;

/// All of a benchmark.
pub(crate) struct Report<'a> {
    pub(crate) cells: &'a [CellReport],
    pub(crate) machine: Vec<String>,
    pub(crate) runs: usize,
    pub(crate) warm_up: usize,
    pub(crate) qualifying_runs: usize,
    pub(crate) took: Duration,
}

/// What was seen in one cell.
#[derive(Debug)]
pub(crate) struct CellReport {
    title: &'static str,
    max_downtime: Duration,
    systems: Vec<SystemReport>,
}

#[derive(Debug)]
struct SystemReport {
    name: String,
    settings: String,
    blackout: Summary<Duration>,
    longest_gap: Summary<Duration>,
    total: Summary<Duration>,
    gap_before: Summary<Duration>,
    cpu: Summary<Duration>,
    peak_memory_kib: Summary<u64>,
}

impl CellReport {
    pub(crate) fn new<'a>(
        cell: &'static Cell,
        systems: impl Iterator<Item = (&'a dyn System, Vec<Run>)>,
    ) -> Self {
        let of = |(system, runs): (&dyn System, Vec<Run>)| SystemReport {
            name: system.name(),
            settings: system.settings(),
            blackout: Summary::of(runs.iter().map(|run| run.blackout)),
            longest_gap: Summary::of(runs.iter().map(|run| run.longest_gap)),
            total: Summary::of(runs.iter().map(|run| run.total)),
            gap_before: Summary::of(runs.iter().map(|run| run.gap_before)),
            cpu: Summary::of(runs.iter().map(|run| run.cpu)),
            peak_memory_kib: Summary::of(runs.iter().map(|run| run.peak_memory_kib)),
        };
        Self { title: cell.title, max_downtime: cell.max_downtime, systems: systems.map(of).collect() }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Live migration, side by side\n")?;
        writeln!(
            f,
            "Made by `cargo run --release -p godwit-tests --bin bench -- --out FILE` in {} min.",
            self.took.as_secs().div_ceil(60)
        )?;
        writeln!(
            f,
            "Median [least – most] of {} runs each, after {} that are not counted; the systems take turns, run by run.\n",
            self.runs, self.warm_up
        )?;
        for line in &self.machine {
            writeln!(f, "- {line}")?;
        }
        writeln!(
            f,
            "\n| guest and way | system | blackout | longest gap of the move | total | gap without a move | CPU beside vCPUs | peak memory of both |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for cell in self.cells {
            for (nth, system) in cell.systems.iter().enumerate() {
                let title = if nth == 0 { cell.title } else { "" };
                writeln!(
                    f,
                    "| {title} | {} | {} | {} | {} | {} | {} | {} |",
                    system.name,
                    durations(&system.blackout),
                    durations(&system.longest_gap),
                    durations(&system.total),
                    durations(&system.gap_before),
                    durations(&system.cpu),
                    format_args!("{} MiB", system.peak_memory_kib.median >> 10),
                )?;
            }
            if let [ours, others @ ..] = cell.systems.as_slice() {
                for other in others {
                    writeln!(
                        f,
                        "| | **{} ÷ {}** | **{}** | **{}** | **{}** | | {} | {} |",
                        ours.name,
                        other.name,
                        ratio(ours.blackout.median.as_secs_f64(), other.blackout.median.as_secs_f64()),
                        ratio(ours.longest_gap.median.as_secs_f64(), other.longest_gap.median.as_secs_f64()),
                        ratio(ours.total.median.as_secs_f64(), other.total.median.as_secs_f64()),
                        ratio(ours.cpu.median.as_secs_f64(), other.cpu.median.as_secs_f64()),
                        ratio(kib(ours.peak_memory_kib.median), kib(other.peak_memory_kib.median)),
                    )?;
                }
            }
        }
        writeln!(f, "\n## Settings\n")?;
        for cell in self.cells {
            for system in &cell.systems {
                writeln!(
                    f,
                    "- {}: {}: {}{}",
                    cell.title,
                    system.name,
                    system.settings,
                    if system.settings == "defaults" {
                        format!(", --max-downtime {}ms", cell.max_downtime.as_millis())
                    } else {
                        String::new()
                    }
                )?;
            }
        }
        writeln!(
            f,
            "\nQEMU's are the best of those that `tests/src/bin/bench/qemu.rs` lists, by median blackout over {} runs each in this cell.",
            self.qualifying_runs
        )?;
        writeln!(f, "\n## What the figures are\n")?;
        f.write_str(EXPLANATION)
    }
}

const EXPLANATION: &str = "\
- *Blackout*: from the last byte that the guest sends at the source to the first at the target, read from
  outside. The guest sends a byte every 100 µs.
- *Longest gap of the move*: the longest silence from the request to 0.1 s after the guest's arrival; besides the
  blackout that is whatever holds the guest up while its memory is copied.
- *Total*: from the request (HTTP or QMP) to the system's word that it is done.
- *Gap without a move*: the longest silence in the half second before, seen by the same observer.
- *CPU beside vCPUs*: both processes, from the request to the first byte at the target, in steps of 10 ms.
- *Peak memory of both*: resident, guest RAM included. Memory that both processes map counts twice.
- After each move of a writing guest the guest itself has checked every page; a wrong one ends the
  benchmark without a table.
";

/// `1.23 ms [1.01 – 4.56]`, or in seconds.
fn durations(summary: &Summary<Duration>) -> String {
    let (unit, per_second) = if summary.median < Duration::from_secs(1) { ("ms", 1e3) } else { ("s", 1.0) };
    let number = |duration: Duration| {
        let value = duration.as_secs_f64() * per_second;
        if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
    };
    format!("{} {unit} [{} – {}]", number(summary.median), number(summary.least), number(summary.most))
}

fn ratio(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 { format!("{:.2}", ours / theirs) } else { "–".to_owned() }
}

fn kib(kib: u64) -> f64 {
    Duration::from_millis(kib).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_or_so() {
        let of = |figures: [u64; 3]| durations(&Summary::of(figures.map(Duration::from_micros)));
        assert_eq!(of([1234, 900, 45_678]), "1.23 ms [0.90 – 46]");
        assert_eq!(of([2_000_000, 1_500_000, 3_000_000]), "2.00 s [1.50 – 3.00]");
        assert_eq!(ratio(1.0, 3.0), "0.33");
        assert_eq!(ratio(1.0, 0.0), "–");
    }
}
