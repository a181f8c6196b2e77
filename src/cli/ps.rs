//! `godwit ps`: the VMs of this host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use godwit_api::client::Client;
use godwit_api::registry::{Entry, RuntimeDir};
use godwit_api::{VmInfo, VmState};
use serde::Serialize;

use super::args::PsArgs;
use super::failure::Failure;
use super::output::{self, printable};
use super::units::{bytes_text, uptime_text};

/// How long one VM process may take to answer; all are asked at once.
const ANSWER_WAIT: Duration = Duration::from_millis(800);
/// Processes asked at the same time.
const ASKED_AT_ONCE: usize = 32;

/// One line: what the process says, else what its state file says.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    state: VmState,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    pid: u32,
    uptime_ms: Option<u64>,
    epoch: u64,
    /// A debugger is attached: it decides whether the guest runs.
    debugged: bool,
    api_socket: PathBuf,
    /// Why the process did not say it itself.
    no_answer: Option<String>,
}

pub(crate) fn ps(args: &PsArgs) -> Result<ExitCode, Failure> {
    let directory = RuntimeDir::open().map_err(Failure::failed)?;
    let listing = directory.list().map_err(Failure::failed)?;
    for skipped in &listing.unreadable {
        output::message(format!(
            "skipped {}: {}; remove it if nothing needs it",
            skipped.path.display(),
            skipped.why
        ));
    }
    let answers = ask_all(&listing.entries);
    let rows: Vec<Row> =
        listing.entries.iter().zip(answers).map(|(entry, answer)| row(entry, answer)).collect();
    if args.json {
        output::json(&rows)?;
    } else if rows.is_empty() {
        output::message(format!(
            "no VMs in {}; start one with `godwit run --kernel builtin`, or see `godwit demo`",
            directory.path().display()
        ));
    } else {
        output::result(table(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What each of these processes says about itself, or why it does not.
pub(super) fn ask_all(entries: &[Entry]) -> Vec<Result<VmInfo, String>> {
    entries.chunks(ASKED_AT_ONCE).flat_map(ask_at_once).collect()
}

fn ask_at_once(entries: &[Entry]) -> Vec<Result<VmInfo, String>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = entries
            .iter()
            .map(|entry| {
                let ask = move || {
                    Client::new(&entry.file.api_socket)
                        .with_timeout(ANSWER_WAIT)
                        .info()
                        .map_err(|error| error.to_string())
                };
                (entry, (!entry.is_dead()).then(|| scope.spawn(ask)))
            })
            .collect();
        let answered = asked.into_iter().map(|(entry, thread)| {
            let answer = match thread {
                None => Err("its process is gone".into()),
                Some(thread) => thread.join().unwrap_or_else(|_| Err("asking it failed".into())),
            };
            // Another process may answer on a socket that was taken over: then it is not this entry's VM.
            answer.and_then(|info: VmInfo| {
                if info.pid == entry.file.pid {
                    Ok(info)
                } else {
                    Err("another process has its socket".into())
                }
            })
        });
        answered.collect()
    })
}

fn row(entry: &Entry, answer: Result<VmInfo, String>) -> Row {
    let file = &entry.file;
    match answer {
        Ok(info) => Row {
            name: info.name,
            state: info.state,
            cpus: info.cpus,
            memory_bytes: info.memory_bytes,
            pid: info.pid,
            uptime_ms: Some(info.uptime_ms),
            epoch: info.epoch,
            debugged: info.debugger.is_some_and(|debugger| debugger.attached),
            api_socket: file.api_socket.clone(),
            no_answer: None,
        },
        Err(why) => Row {
            name: file.name.to_string(),
            state: file.state.clone(),
            cpus: None,
            memory_bytes: None,
            pid: file.pid,
            uptime_ms: None,
            epoch: file.epoch,
            debugged: false,
            api_socket: file.api_socket.clone(),
            no_answer: Some(why),
        },
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["NAME", "STATE", "CPUS", "MEMORY", "PID", "UPTIME", "EPOCH"]);
    for row in rows {
        let name = match row.state {
            VmState::Incoming => format!("{} (incoming)", row.name),
            _ => row.name.clone(),
        };
        let unknown = || "-".to_owned();
        let silent = row.no_answer.is_some() && !matches!(row.state, VmState::Dead { .. });
        let remark = match (silent, row.debugged) {
            (true, _) => " (does not answer)",
            (false, true) => " (debugger)",
            (false, false) => "",
        };
        let state = format!("{}{remark}", row.state);
        table.add_row([
            printable(&name),
            printable(&state),
            row.cpus.map_or_else(unknown, |cpus| cpus.to_string()),
            row.memory_bytes.map_or_else(unknown, bytes_text),
            row.pid.to_string(),
            row.uptime_ms.map_or_else(unknown, uptime_text),
            row.epoch.to_string(),
        ]);
    }
    table.trim_fmt()
}
