//! `godwit top`: what the VMs of this host use, live.
//!
//! `sample` reads `/proc`, `usage` is the arithmetic between two samples, `view` the table, `screen` the
//! terminal. What a VM is doing comes from its process, as for `godwit ps`.

mod sample;
mod screen;
mod usage;
mod view;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use godwit_api::registry::{Entry, RuntimeDir};

use super::args::TopArgs;
use super::failure::Failure;
use super::output::{self, Reader};
use super::{ps, signals};
use sample::Sample;
use screen::Screen;
use view::Row;

/// The intervals that make sense: below, the kernel's clock ticks are too coarse.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// How often a signal is looked for while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A process, and when it started: later ones may get its pid.
type Process = (u32, u64);

pub(crate) fn top(args: &TopArgs) -> Result<ExitCode, Failure> {
    let interval = args.interval.0;
    if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        return Err(Failure::usage("wrong usage: --interval is out of range; give 100ms to 1h"));
    }
    let directory = RuntimeDir::open().map_err(Failure::failed)?;
    signals::count_requests_to_leave()?;
    let mut before = BTreeMap::new();
    if args.once {
        look(&directory, &mut before)?;
        wait(interval, None);
        show(&look(&directory, &mut before)?, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.json || !std::io::stdout().is_terminal() {
        look(&directory, &mut before)?;
        while wait(interval, None) == Waited::Over {
            if show(&look(&directory, &mut before)?, args.json)? == Reader::Gone {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let screen = Screen::enter()?;
    loop {
        let reader = screen.draw(&view::page(&look(&directory, &mut before)?))?;
        if reader == Reader::Gone || wait(interval, Some(&screen)) == Waited::AskedToLeave {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// All VM processes as they are now, compared with what `before` has of them; `before` becomes now.
fn look(directory: &RuntimeDir, before: &mut BTreeMap<Process, Sample>) -> Result<Vec<Row>, Failure> {
    let mut entries = directory.list().map_err(Failure::failed)?.entries;
    entries.retain(|entry| !entry.is_dead());
    let samples: Vec<Result<Sample, String>> = entries.iter().map(take_sample).collect();
    let answers = ps::ask_all(&entries);
    let mut now = BTreeMap::new();
    let mut rows = Vec::with_capacity(entries.len());
    for ((entry, sample), answer) in entries.iter().zip(samples).zip(answers) {
        let process = (entry.file.pid, entry.file.pid_start_time);
        let cpu = sample.as_ref().ok().and_then(|now| usage::between(before.get(&process)?, now));
        rows.push(Row::new(entry, answer, &sample, cpu));
        if let Ok(sample) = sample {
            now.insert(process, sample);
        }
    }
    *before = now;
    Ok(rows)
}

fn take_sample(entry: &Entry) -> Result<Sample, String> {
    let file = &entry.file;
    if file.pid_namespace != sample::pid_namespace() {
        return Err("its process is in another pid namespace (a container): look from there".into());
    }
    Sample::take(file.pid, file.pid_start_time)
}

fn show(rows: &[Row], json: bool) -> Result<Reader, Failure> {
    let mut text = if json {
        serde_json::to_string(rows).map_err(|error| {
            Failure::failed(format!("can't show the answer as JSON: {error}; report this"))
        })?
    } else {
        view::page(rows).join("\n")
    };
    text.push('\n');
    output::bytes(text.as_bytes())
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Over,
    AskedToLeave,
}

fn wait(interval: Duration, keys: Option<&Screen>) -> Waited {
    let until = Instant::now() + interval;
    loop {
        if signals::requests_to_leave() > 0 {
            return Waited::AskedToLeave;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Waited::Over;
        }
        let step = left.min(LOOK_EVERY);
        match keys {
            Some(screen) if screen.leaves_within(step) => return Waited::AskedToLeave,
            Some(_) => {}
            None => std::thread::sleep(step),
        }
    }
}
