//! `godwit receive`: from options to a checked [`ReceiveConfig`].

use std::path::PathBuf;
use std::process::ExitCode;

use godwit_api::{TargetAddress, VmName};
use godwit_vmm::kvm::DirtyLogChoice;

use super::args::ReceiveArgs;
use super::failure::Failure;
use super::serial::Serial;
use crate::instance::Origin;

/// A receiver to start: everything in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiveConfig {
    /// Where to listen; TCP port 0 means any free one, which must be said.
    pub(crate) listen: TargetAddress,
    /// Where the serial port goes once the guest runs.
    pub(crate) serial: Serial,
    /// How dirtied pages are found when the guest moves on.
    pub(crate) dirty_log: DirtyLogChoice,
    /// A name until the VM arrives with its own; `incoming-PID` when absent.
    pub(crate) name: Option<VmName>,
    /// The API's socket; in the runtime directory when absent.
    pub(crate) api: Option<PathBuf>,
    /// Set when `godwit upgrade` started this process.
    pub(crate) takes_over: Option<TakesOver>,
}

/// The process that this one succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakesOver {
    /// The socket at which it waits.
    pub(crate) meeting: PathBuf,
    /// Its API's path, if it was given one.
    pub(crate) api: Option<PathBuf>,
    /// Where its guest comes from.
    pub(crate) origin: Origin,
}

pub(crate) fn receive(args: ReceiveArgs) -> Result<ExitCode, Failure> {
    Ok(crate::instance::receive(config(args)?).into())
}

fn config(args: ReceiveArgs) -> Result<ReceiveConfig, Failure> {
    let refused = |why: &str| Err(Failure::usage(format!("wrong usage: {why}")));
    if !args.disk.is_empty() || !args.net.is_empty() {
        return refused("disks and networks are not in this version yet; leave --disk and --net out");
    }
    if args.tls.is_some() {
        return refused("TLS is not in this version yet; use --insecure on a trusted network");
    }
    if !args.listen.is_local() && !args.insecure {
        return refused(
            "that address can be reached from other hosts, in plain text and without authentication; listen on tcp:127.0.0.1:PORT, or give --insecure if the network is trusted",
        );
    }
    let origin = if args.booted_here { Origin::Booted } else { Origin::Arrived };
    let takes_over = args.takes_over.map(|meeting| TakesOver { meeting, api: args.takes_api, origin });
    let dirty_log = args.dirty_log.into();
    Ok(ReceiveConfig {
        listen: args.listen,
        serial: args.serial,
        dirty_log,
        name: args.name,
        api: args.api,
        takes_over,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn configured(line: &str) -> Result<ReceiveConfig, Failure> {
        match Cli::try_parse_from(line.split(' ')).expect("clap accepts").command {
            Command::Receive(args) => config(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_this_host_is_heard_unless_asked_for() {
        configured("godwit receive --listen tcp:127.0.0.1:0").expect("valid");
        configured("godwit receive --listen tcp:0.0.0.0:7000 --insecure").expect("valid");
        configured("godwit receive --listen unix:/x").expect("valid");
        for line in [
            "godwit receive --listen tcp:0.0.0.0:7000",
            "godwit receive --listen tcp:127.0.0.1:1 --tls /x",
            "godwit receive --listen tcp:127.0.0.1:1 --disk a=b",
        ] {
            assert_eq!(configured(line).expect_err(line).status(), 2);
        }
    }
}
