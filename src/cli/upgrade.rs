//! `godwit upgrade`: lets a guest go on in a new process of this (or another) binary.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use godwit_api::client::{Client, ClientError, Polled};
use godwit_api::{MigrationEvent, MigrationOutcome, MigrationResult, UpgradeRequest, VersionInfo, VmInfo};
use serde::Serialize;

use super::args::{UpgradeArgs, VmAddress};
use super::failure::Failure;
use super::output::{self, printable};

/// Starting a process and waiting until it can receive takes its time on a busy host.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the new process may take to be found under the VM's name.
const FOUND_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What `--json` shows.
#[derive(Serialize)]
struct Upgraded<'a> {
    #[serde(flatten)]
    result: &'a MigrationResult,
    from_pid: u32,
    to_pid: Option<u32>,
    from_version: &'a str,
    to_version: Option<&'a str>,
}

pub(crate) fn upgrade(args: &UpgradeArgs) -> Result<ExitCode, Failure> {
    let client = args.vm.client()?.with_timeout(REQUEST_TIMEOUT);
    let before = client.info().map_err(Failure::failed)?;
    let from = client.version().map_err(Failure::failed)?;
    let request = UpgradeRequest { binary: Some(binary(args)?), ..UpgradeRequest::default() };
    let result = run(&client, &request)?;
    let after = match result.status {
        MigrationOutcome::Completed => find_successor(&args.vm, &before),
        _ => None,
    };
    show(args.json, &result, (&before, &from), after.as_ref())
}

/// The binary that was given, else this one: whoever installed a new godwit runs the new one.
fn binary(args: &UpgradeArgs) -> Result<PathBuf, Failure> {
    let path = args.binary.clone().map_or_else(std::env::current_exe, std::path::absolute);
    path.map_err(|error| {
        Failure::failed(format!("can't tell which binary to go on in: {error}; give --binary FILE"))
    })
}

fn run(client: &Client, request: &UpgradeRequest) -> Result<MigrationResult, Failure> {
    let mut events = client.upgrade(request).map_err(Failure::failed)?;
    loop {
        match events.poll(REQUEST_TIMEOUT).map_err(Failure::failed)? {
            Polled::Event(MigrationEvent::Result(result)) => return Ok(result),
            Polled::Event(MigrationEvent::Progress(_)) | Polled::Waiting => {}
            Polled::Ended => {
                return Err(Failure::failed(
                    "the VM process ended its answer before the result; see `godwit ps` for where the guest is",
                ));
            }
        }
    }
}

/// The guest's new process, once it answers where the old one did.
fn find_successor(vm: &VmAddress, before: &VmInfo) -> Option<(VmInfo, VersionInfo)> {
    let until = Instant::now() + FOUND_WITHIN;
    loop {
        let found = vm.client().ok().and_then(|client| {
            let info = client.info().ok().filter(|info| info.pid != before.pid)?;
            let version: Result<VersionInfo, ClientError> = client.version();
            Some((info, version.ok()?))
        });
        if found.is_some() || Instant::now() >= until {
            return found;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn show(
    json: bool,
    result: &MigrationResult,
    (before, from): (&VmInfo, &VersionInfo),
    after: Option<&(VmInfo, VersionInfo)>,
) -> Result<ExitCode, Failure> {
    let status = match result.status {
        MigrationOutcome::Completed => 0,
        MigrationOutcome::Failed => 1,
        MigrationOutcome::Cancelled => 3,
        MigrationOutcome::Unconfirmed => 4,
    };
    let name = printable(&before.name);
    if json {
        output::json(&Upgraded {
            result,
            from_pid: before.pid,
            to_pid: after.map(|(info, _)| info.pid),
            from_version: &from.version,
            to_version: after.map(|(_, version)| version.version.as_str()),
        })?;
        return Ok(ExitCode::from(status));
    }
    let reason = result.reason.as_deref().unwrap_or("no reason given");
    match (result.status, after) {
        (MigrationOutcome::Completed, Some((info, to))) => {
            let blackout = result.downtime_ms.map_or_else(|| "unknown".into(), |ms| format!("{ms:.3} ms"));
            output::result(format!(
                "{name}: goes on in process {} ({} → {}) · blackout {blackout}",
                info.pid, from.version, to.version
            ))?;
        }
        (MigrationOutcome::Completed, None) => {
            output::message(format!(
                "{name} was handed over, but its new process is not found; see `godwit ps`"
            ));
        }
        (MigrationOutcome::Unconfirmed, _) => output::message(format!(
            "{name} is handed over, unconfirmed: {reason}; find out where it runs, then `godwit resolve`"
        )),
        _ => output::message(format!("{name} was not upgraded and runs on as before: {reason}")),
    }
    Ok(ExitCode::from(status))
}
