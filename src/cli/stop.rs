//! `godwit stop`: asks, then waits until the process is gone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use godwit_api::client::ClientError;
use serde::Serialize;

use super::args::StopArgs;
use super::failure::Failure;
use super::output::{self, printable};

/// How long a process may take to end.
const END_WAIT: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Stopped<'a> {
    name: &'a str,
    pid: u32,
    stopped: bool,
}

pub(crate) fn stop(args: &StopArgs) -> Result<ExitCode, Failure> {
    let client = args.vm.client()?;
    let before = client.info().map_err(Failure::failed)?;
    client.stop(args.force).map_err(Failure::failed)?;
    let deadline = Instant::now() + END_WAIT;
    let client = client.with_timeout(Duration::from_secs(1));
    while Instant::now() < deadline {
        match client.info() {
            Err(ClientError::NoSuchSocket { .. } | ClientError::Refused { .. }) => {
                return stopped(&before.name, before.pid, args.json);
            }
            // A new process may have taken the socket's place.
            Ok(now) if now.pid != before.pid => return stopped(&before.name, before.pid, args.json),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(Failure::failed(format!(
        "{} was asked to stop and has not ended within {} s; look at process {}",
        before.name,
        END_WAIT.as_secs(),
        before.pid
    )))
}

fn stopped(name: &str, pid: u32, json: bool) -> Result<ExitCode, Failure> {
    if json {
        output::json(&Stopped { name, pid, stopped: true })?;
    } else {
        output::result(format!("{}: stopped", printable(name)))?;
    }
    Ok(ExitCode::SUCCESS)
}
