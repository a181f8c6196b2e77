//! `godwit resume`.

use std::process::ExitCode;

use super::args::VmArgs;
use super::failure::Failure;
use super::info::show_state;

pub(crate) fn resume(args: &VmArgs) -> Result<ExitCode, Failure> {
    let info = args.vm.client()?.resume().map_err(Failure::failed)?;
    show_state(&info, args.json)
}
