//! `godwit resolve`: a person's decision about a hand-over that nobody confirmed.

use std::process::ExitCode;

use godwit_api::{ResolveHow, VmState};

use super::args::ResolveArgs;
use super::failure::Failure;
use super::info::show_state;

pub(crate) fn resolve(args: &ResolveArgs) -> Result<ExitCode, Failure> {
    let how = if args.how.resume_here { ResolveHow::ResumeHere } else { ResolveHow::Discard };
    // The target may run on this host under the same name: the unconfirmed one is meant.
    let client = args.vm.client_among(|state| matches!(state, VmState::Unconfirmed { .. }))?;
    let info = client.resolve(how).map_err(Failure::failed)?;
    show_state(&info, args.json)
}
