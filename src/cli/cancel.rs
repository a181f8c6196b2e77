//! `godwit cancel`: asks, then waits for what became of the migration.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use godwit_api::MigrationOutcome;

use super::args::VmArgs;
use super::failure::Failure;
use super::output;

/// How long the outcome may take.
const OUTCOME_WAIT: Duration = Duration::from_secs(30);

pub(crate) fn cancel(args: &VmArgs) -> Result<ExitCode, Failure> {
    let client = args.vm.client()?;
    client.cancel().map_err(Failure::failed)?;
    let deadline = Instant::now() + OUTCOME_WAIT;
    while Instant::now() < deadline {
        let status = client.migration().map_err(Failure::failed)?;
        let Some(result) = &status.result else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        if args.json {
            output::json(result)?;
        }
        return match result.status {
            MigrationOutcome::Cancelled => {
                if !args.json {
                    output::result(format!(
                        "the migration to {} is cancelled; the guest runs on here",
                        status.target
                    ))?;
                }
                Ok(ExitCode::SUCCESS)
            }
            other => Err(Failure::failed(format!(
                "cancelled too late: the migration to {} ended as {}; see `godwit ps`",
                status.target,
                other.as_str()
            ))),
        };
    }
    Err(Failure::failed("the migration was asked to stop and has not ended yet; see `godwit info`"))
}
