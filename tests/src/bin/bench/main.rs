//! Measures live migration side by side with QEMU, and writes a table.
//!
//! ```text
//! cargo run --release -p godwit-tests --bin bench -- --out docs/benchmark.md
//! ```
//! How it keeps itself honest:
//! - The systems take turns, run by run, on the same kernel with the same working set, so that whatever
//!   else the host does meets both.
//! - Blackout is what an observer of the guest's serial port sees: the guest sends a byte every 100 µs,
//!   one thread reads both processes' output with one clock. What a system says of itself is not asked.
//! - The same observer's longest gap in the half second before the migration stands beside it: what this host
//!   does to a guest that nobody moves.
//! - QEMU gets the settings that serve it best: several are tried in each cell first, and the table says
//!   which were chosen.
//! - Memory is warm on both sides: the host's memory is touched once before the first run, runs for
//!   warming up are not counted, and the guest has written its whole working set before it moves.
//! - After each move the guest checks every page; a run with a wrong page ends the benchmark.

mod cell;
mod godwit;
mod machine;
mod process;
mod qemu;
mod qmp;
mod report;
mod run;
mod statistics;
mod system;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;

use cell::Cell;
use report::{CellReport, Report};
use run::{Run, measure};
use system::System;

/// Runs that are made to choose among a system's settings.
const QUALIFYING_RUNS: usize = 2;
/// More than both processes of a run hold together.
const WARM_BYTES: u64 = 5 << 30;

/// Measures live migration side by side with QEMU
#[derive(Debug, Parser)]
struct Options {
    /// Counted runs of each system in each cell
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Runs before them that are not counted
    #[arg(long, default_value_t = 2)]
    warm_up: usize,
    /// Only these cells (repeatable): idle, slow, fast, hand-over
    #[arg(long = "cell", value_name = "NAME")]
    cells: Vec<String>,
    /// Where to write the table [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The godwit binary [default: built from this workspace]
    #[arg(long, value_name = "FILE")]
    godwit: Option<PathBuf>,
    /// Without QEMU: only godwit's own figures
    #[arg(long)]
    alone: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        bail!("a benchmark of a debug build says nothing; run it with --release");
    }
    let cells = chosen(&options.cells)?;
    let godwit = options.godwit.clone().unwrap_or_else(|| godwit_tests::godwit().to_owned());
    let kernel = tempfile::Builder::new().prefix("godwit-bench").tempdir()?;
    let kernel_file = kernel.path().join("kernel");
    std::fs::write(&kernel_file, godwit_guest_images::TEST_KERNEL)?;

    eprintln!("warming {} GiB of this host's memory", WARM_BYTES >> 30);
    machine::warm_memory(WARM_BYTES)?;
    let started = Instant::now();
    let mut reports = Vec::new();
    for cell in cells {
        let ours: Box<dyn System> = Box::new(godwit::Godwit::new(&godwit, &kernel_file));
        let mut systems = vec![ours];
        if !options.alone {
            systems.push(qualify(cell, qemu::candidates(cell, &kernel_file)?)?);
        }
        reports.push(compare(cell, systems, &options)?);
    }
    let text = Report {
        cells: &reports,
        machine: machine::describe(&godwit)?,
        runs: options.runs,
        warm_up: options.warm_up,
        qualifying_runs: QUALIFYING_RUNS,
        took: started.elapsed(),
    }
    .to_string();
    match &options.out {
        Some(path) => std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?,
        None => print!("{text}"),
    }
    Ok(())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Cell>> {
    if names.is_empty() {
        return Ok(cell::CELLS.iter().collect());
    }
    let find = |name: &String| {
        let known: Vec<&str> = cell::CELLS.iter().map(|cell| cell.name).collect();
        cell::CELLS
            .iter()
            .find(|cell| cell.name == *name)
            .with_context(|| format!("no cell {name:?}; there are: {}", known.join(", ")))
    };
    names.iter().map(find).collect()
}

/// Finds the candidate with the shortest median blackout.
fn qualify(cell: &Cell, candidates: Vec<Box<dyn System>>) -> anyhow::Result<Box<dyn System>> {
    let mut seen: Vec<Vec<Run>> = candidates.iter().map(|_| Vec::new()).collect();
    // In turns as well: the first candidate must not have a colder host than the last.
    for nth in 0..=QUALIFYING_RUNS {
        for (candidate, runs) in candidates.iter().zip(&mut seen) {
            let run = measure(candidate.as_ref(), cell)?;
            if nth > 0 {
                runs.push(run);
            }
        }
    }
    let mut best = None;
    for (candidate, runs) in candidates.into_iter().zip(&seen) {
        let blackout = statistics::Summary::of(runs.iter().map(|run| run.blackout)).median;
        eprintln!("{}: {} with {}: {blackout:?}", cell.name, candidate.name(), candidate.settings());
        if best.as_ref().is_none_or(|(shortest, _)| blackout < *shortest) {
            best = Some((blackout, candidate));
        }
    }
    best.map(|(_, candidate)| candidate).context("there are candidates for each cell")
}

fn compare(
    cell: &'static Cell,
    systems: Vec<Box<dyn System>>,
    options: &Options,
) -> anyhow::Result<CellReport> {
    let mut runs: Vec<Vec<Run>> = systems.iter().map(|_| Vec::new()).collect();
    for nth in 0..options.warm_up + options.runs {
        for (system, runs) in systems.iter().zip(&mut runs) {
            let run = measure(system.as_ref(), cell)
                .with_context(|| format!("run {nth} of {} in cell {}", system.name(), cell.name))?;
            eprintln!(
                "{} {nth}: {} blackout {:?} total {:?} (gap before {:?})",
                cell.name,
                system.name(),
                run.blackout,
                run.total,
                run.gap_before
            );
            if nth >= options.warm_up {
                runs.push(run);
            }
        }
    }
    Ok(CellReport::new(cell, systems.iter().map(AsRef::as_ref).zip(runs)))
}
