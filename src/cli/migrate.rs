//! `godwit migrate`: asks the VM process to move its guest, and watches.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use godwit_api::client::{Client, ClientError, EventStream, Polled};
use godwit_api::{
    MigrateRequest, MigrationEvent, MigrationMode, MigrationOutcome, MigrationResult, MigrationStatus,
    VmName, ms_from_us,
};

use super::args::{MigrateArgs, VmAddress};
use super::failure::Failure;
use super::output;
use super::progress::Display;
use super::signals;
use super::units::bytes_text;

/// How often Ctrl-C is looked for while nothing arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long the VM process is asked for the outcome when the connection broke.
const OUTCOME_WAIT: Duration = Duration::from_secs(5);

pub(crate) fn migrate(args: MigrateArgs) -> Result<ExitCode, Failure> {
    let json = args.json;
    let (vm, request) = request(args)?;
    let began = Instant::now();
    let mode = request.mode;
    let result = match start(&vm, &request) {
        Ok((client, events)) => watch(&client, events, &request, began)?,
        Err(NotStarted::Failed(why)) => made_up(MigrationOutcome::Failed, mode, began, why),
        Err(NotStarted::Unknown(client, why)) => ask_for_outcome(&client, &request, None, began, why),
    };
    show(&result, &request.target, json)
}

/// Why there is nothing to watch.
enum NotStarted {
    /// The VM process was not reached, or refused.
    Failed(String),
    /// The request was sent and not answered.
    Unknown(Client, String),
}

fn start(vm: &VmAddress, request: &MigrateRequest) -> Result<(Client, EventStream), NotStarted> {
    let client = vm.client().map_err(|failure| NotStarted::Failed(failure.message().to_owned()))?;
    signals::count_requests_to_leave().map_err(|failure| NotStarted::Failed(failure.message().to_owned()))?;
    // Whatever fails before the request is sent leaves no doubt behind.
    client.version().map_err(|error| NotStarted::Failed(error.to_string()))?;
    match client.migrate(request) {
        Ok(events) => Ok((client, events)),
        Err(
            error @ (ClientError::Timeout { .. } | ClientError::Io { .. } | ClientError::Malformed { .. }),
        ) => Err(NotStarted::Unknown(client, error.to_string())),
        Err(error) => Err(NotStarted::Failed(error.to_string())),
    }
}

/// Checks the options; what is wrong with them is usage.
fn request(args: MigrateArgs) -> Result<(VmAddress, MigrateRequest), Failure> {
    let refused = |why: String| Failure::usage(format!("wrong usage: {why}"));
    let (name, target) = match (args.vm_and_target.as_slice(), &args.api) {
        ([name, target], None) => {
            let name: VmName = name.parse().map_err(|error| refused(format!("{error}")))?;
            (Some(name), target.clone())
        }
        ([target], Some(_)) => (None, target.clone()),
        ([_], None) => {
            return Err(refused(
                "the VM or the target is missing; write `godwit migrate NAME tcp:HOST:PORT`, or --api SOCKET for NAME".into(),
            ));
        }
        _ => return Err(refused("both NAME and --api are given; leave one of them out".into())),
    };
    if args.recover {
        return Err(refused(
            "--recover is for post-copy, which is not in this version yet; leave it out".into(),
        ));
    }
    if args.tls.is_some() {
        return Err(refused("TLS is not in this version yet; use --insecure on a trusted network".into()));
    }
    // The VM's process has a working directory of its own.
    let target = match target.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        Some(path) => match std::path::absolute(path) {
            Ok(path) => format!("unix:{}", path.display()),
            Err(_) => target,
        },
        None => target,
    };
    let request = MigrateRequest {
        target,
        mode: args.mode.into(),
        max_downtime_us: u64::try_from(args.max_downtime.0.as_micros()).unwrap_or(u64::MAX),
        timeout_ms: u64::try_from(args.timeout.0.as_millis()).unwrap_or(u64::MAX),
        bandwidth_bits_per_s: args.bandwidth.map(|bandwidth| bandwidth.0),
        streams: args.streams,
        insecure: args.insecure,
    };
    request.validate().map_err(|invalid| refused(invalid.to_string()))?;
    Ok((VmAddress { name, api: args.api }, request))
}

fn watch(
    client: &Client,
    mut events: EventStream,
    request: &MigrateRequest,
    began: Instant,
) -> Result<MigrationResult, Failure> {
    let started = client.migration().ok();
    let mut display = Display::new();
    let mut asked_to_leave = 0;
    let lost = loop {
        let asked_now = signals::requests_to_leave();
        if asked_now > 1 {
            display.finish();
            let why = "stopped watching; the migration goes on by itself: see `godwit info`";
            return Ok(made_up(MigrationOutcome::Unconfirmed, request.mode, began, why.into()));
        }
        if asked_now > asked_to_leave {
            asked_to_leave = asked_now;
            match client.cancel() {
                Ok(()) => display.say("cancelling; once more to stop watching"),
                Err(error) => display.say(&format!("can't cancel: {error}")),
            }
        }
        match events.poll(POLL_INTERVAL) {
            Ok(Polled::Event(MigrationEvent::Progress(progress))) => display.show(&progress),
            Ok(Polled::Event(MigrationEvent::Result(result))) => {
                display.finish();
                return Ok(result);
            }
            Ok(Polled::Waiting) => {}
            Ok(Polled::Ended) => break "the VM process ended the answer before the result".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    display.finish();
    Ok(ask_for_outcome(client, request, started, began, lost))
}

/// The stream is gone: the VM process may still know. If it does not, nobody here may say that the
/// guest runs on, so the outcome is unconfirmed.
fn ask_for_outcome(
    client: &Client,
    request: &MigrateRequest,
    started: Option<MigrationStatus>,
    began: Instant,
    lost: String,
) -> MigrationResult {
    let deadline = Instant::now() + OUTCOME_WAIT;
    let client = client.clone().with_timeout(Duration::from_secs(1));
    // An earlier migration's result is not this one's.
    let ours = |status: &MigrationStatus| {
        status.target == request.target
            && started.as_ref().is_some_and(|started| started.started_at_unix_ms == status.started_at_unix_ms)
    };
    while Instant::now() < deadline {
        match client.migration() {
            Ok(status) if ours(&status) => {
                if let Some(result) = status.result {
                    return result;
                }
            }
            Ok(_)
            | Err(ClientError::Api(_) | ClientError::NoSuchSocket { .. } | ClientError::Refused { .. }) => {
                break;
            }
            Err(_) => {}
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let why = format!("{lost}; how the migration ends is not known here: see `godwit ps` on both hosts");
    made_up(MigrationOutcome::Unconfirmed, request.mode, began, why)
}

/// A result that the VM process did not give.
fn made_up(status: MigrationOutcome, mode: MigrationMode, began: Instant, reason: String) -> MigrationResult {
    MigrationResult {
        status,
        mode,
        total_ms: ms_from_us(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)),
        downtime_ms: (status == MigrationOutcome::Failed).then_some(0.0),
        rounds: 0,
        bytes_sent: 0,
        pages_sent: 0,
        zero_pages: 0,
        reason: Some(reason),
    }
}

fn show(result: &MigrationResult, target: &str, json: bool) -> Result<ExitCode, Failure> {
    let reason = result.reason.as_deref().unwrap_or("no reason given");
    match result.status {
        MigrationOutcome::Completed if !json => {
            let downtime = result.downtime_ms.map_or_else(|| "unknown".into(), |ms| format!("{ms:.3} ms"));
            output::result(format!(
                "completed: runs at {target} · blackout {downtime} · total {:.1} ms · {} rounds · {} sent, {} pages and {} zero pages",
                result.total_ms,
                result.rounds,
                bytes_text(result.bytes_sent),
                result.pages_sent,
                result.zero_pages,
            ))?;
        }
        MigrationOutcome::Completed => {}
        MigrationOutcome::Failed => output::message(format!("the migration to {target} failed: {reason}")),
        MigrationOutcome::Cancelled => {
            output::message(format!("the migration to {target} was cancelled; the guest runs on here"));
        }
        MigrationOutcome::Unconfirmed => output::message(format!(
            "the migration to {target} is unconfirmed: {reason}; look at the target, then `godwit resolve`"
        )),
    }
    if json {
        output::json(result)?;
    }
    Ok(ExitCode::from(status_of(result.status)))
}

const fn status_of(outcome: MigrationOutcome) -> u8 {
    match outcome {
        MigrationOutcome::Completed => 0,
        MigrationOutcome::Failed => 1,
        MigrationOutcome::Cancelled => 3,
        MigrationOutcome::Unconfirmed => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn asked(line: &str) -> Result<(VmAddress, MigrateRequest), Failure> {
        match Cli::try_parse_from(line.split(' ')).expect("clap accepts").command {
            Command::Migrate(args) => request(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_the_request() {
        let (vm, request) = asked(
            "godwit migrate web tcp:127.0.0.1:7000 --max-downtime 1.5ms --timeout 2s --bandwidth 1Gbit --streams 4 --mode precopy",
        )
        .expect("valid");
        assert_eq!(vm.name.expect("name").as_str(), "web");
        assert_eq!((request.max_downtime_us, request.timeout_ms), (1500, 2000));
        assert_eq!((request.bandwidth_bits_per_s, request.streams), (Some(1_000_000_000), Some(4)));
        let (vm, request) = asked("godwit migrate --api /x tcp:127.0.0.1:7000").expect("valid");
        assert_eq!(vm.api.expect("socket").to_str(), Some("/x"));
        assert_eq!(request, MigrateRequest::to("tcp:127.0.0.1:7000"));
    }

    #[test]
    fn what_is_wrong_or_not_there_yet_is_usage() {
        for line in [
            "godwit migrate web",
            "godwit migrate tcp:127.0.0.1:1",
            "godwit migrate web tcp:127.0.0.1:1 --api /x",
            "godwit migrate web unix:",
            "godwit migrate web tcp:10.0.0.1:1",
            "godwit migrate web tcp:127.0.0.1:1 --mode postcopy",
            "godwit migrate web tcp:127.0.0.1:1 --recover",
            "godwit migrate web tcp:127.0.0.1:1 --tls /x",
            "godwit migrate web tcp:127.0.0.1:1 --streams 65",
            "godwit migrate web tcp:127.0.0.1:1 --max-downtime 0ms",
            "godwit migrate web tcp:127.0.0.1:1 --timeout 48h",
            "godwit migrate web tcp:127.0.0.1:1 --bandwidth 1bit",
        ] {
            assert_eq!(asked(line).expect_err(line).status(), 2, "{line}");
        }
    }

    #[test]
    fn exit_statuses_are_the_contracts() {
        use MigrationOutcome::{Cancelled, Completed, Failed, Unconfirmed};
        assert_eq!([Completed, Failed, Cancelled, Unconfirmed].map(status_of), [0, 1, 3, 4]);
    }
}
