//! What the command line accepts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use godwit_api::{MigrationMode, TargetAddress, VmName};

use super::dirty_log::DirtyLogArg;
use super::run::RunOptions;
use super::serial::Serial;
use super::units::{Bandwidth, Span};

/// Launches virtual machines on KVM and moves them live between hosts
#[derive(Debug, Parser)]
#[command(
    name = "godwit",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here: godwit demo\n\nVMs are found by name in $GODWIT_RUNTIME_DIR, else /run/godwit (root) or $XDG_RUNTIME_DIR/godwit.\nEvery failure is one line on stderr and a non-zero exit status."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, each handled by the file of its name.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a guest, move it live, and show the blackout
    Demo(DemoArgs),
    /// Run a VM in this process
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// Wait for one VM to arrive, then run it in this process
    #[command(after_help = RECEIVE_HELP)]
    Receive(ReceiveArgs),
    /// Move a running VM to a waiting `godwit receive`
    #[command(after_help = MIGRATE_HELP)]
    Migrate(MigrateArgs),
    /// Let a VM go on in a new process of this binary, unnoticed
    #[command(after_help = UPGRADE_HELP)]
    Upgrade(UpgradeArgs),
    /// Stop a migration that is going on; the guest runs on here
    Cancel(VmArgs),
    /// Decide a hand-over that nobody confirmed, after looking at the target
    #[command(after_help = RESOLVE_HELP)]
    Resolve(ResolveArgs),
    /// List the VMs of this host
    Ps(PsArgs),
    /// Show all about one VM
    Info(InfoArgs),
    /// Write a piece of a VM's memory to stdout, as it is
    #[command(after_help = MEMORY_HELP)]
    Memory(MemoryArgs),
    /// Pause a VM
    Pause(VmArgs),
    /// Resume a paused VM
    Resume(VmArgs),
    /// Stop a VM and end its process
    Stop(StopArgs),
    /// Attach to a VM's serial console; Ctrl-] leaves
    Console(ConsoleArgs),
    /// Show what a VM wrote to its serial port lately
    #[command(after_help = LOGS_HELP)]
    Logs(LogsArgs),
    /// Show what the VMs of this host use, live; q leaves
    #[command(after_help = TOP_HELP)]
    Top(TopArgs),
    /// Write a shell's completion script to stdout
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Write the manual: its main page to stdout, or a page for each command into a directory
    Man(ManArgs),
}

const RUN_HELP: &str = "\
Examples:
  godwit run --kernel builtin --cmdline 'payload=dirty'
  godwit run --kernel vmlinux --initrd initrd.img --cmdline 'console=ttyS0' --cpus 2 --memory 1G --name web
  godwit run --kernel vmlinux --expect 'all tests passed' --reject panic --timeout 30s --junit report.xml
  godwit run --kernel vmlinux --gdb tcp:127.0.0.1:1234    (then: gdb vmlinux -ex 'target remote :1234')
  godwit run vm.toml --name web-2       (keys as the options without --; options given here win)

Exit status: 0 powered off, stopped or handed over · 1 bad input or start failed · 2 usage
  3 guest reset with --on-reset exit · 4 guest crashed · 5 --expect not seen or --reject seen · 6 VMM failure";

const RECEIVE_HELP: &str = "\
Examples:
  godwit receive --listen tcp:127.0.0.1:7000
  godwit receive --listen tcp:0.0.0.0:7000 --insecure --serial file:guest.log

Exit status: as of `godwit run`";

const MIGRATE_HELP: &str = "\
Examples:
  godwit migrate web tcp:127.0.0.1:7000
  godwit migrate web tcp:10.0.0.2:7000 --insecure --max-downtime 5ms --bandwidth 1Gbit --json
  godwit migrate --api /run/godwit/web.42.sock tcp:127.0.0.1:7000

The first Ctrl-C cancels and waits for the outcome; the second stops watching.
Exit status: 0 completed · 1 failed, guest runs on here · 2 usage · 3 cancelled · 4 handed over, unconfirmed";

const UPGRADE_HELP: &str = "\
Examples:
  godwit upgrade web
  godwit upgrade web --binary /opt/godwit-0.2/bin/godwit --json

The new process is a child of the old one and gets its standard streams, serial port and API path. The
old one gives all its memory back and stands by: it ends when the guest does, with its status.
Clients of a --serial unix: socket have to connect again.
Exit status: 0 goes on in the new process · 1 failed, runs on as before · 2 usage · 3 cancelled
  4 handed over, unconfirmed";

const RESOLVE_HELP: &str = "\
Look at the target first. If it runs the guest, discard this copy; only if it does not and never
will, resume here. The wrong answer makes the guest run twice or throws it away.";

const MEMORY_HELP: &str = "\
ADDRESS is guest-physical. While the guest runs, bytes are from different moments: pause it before.

Examples:
  godwit memory web 0x100000 4096 | xxd | less
  godwit memory --api /run/godwit/web.42.sock 1048576 16M > piece";

const LOGS_HELP: &str = "\
The VM process holds the last 256 KiB. What is no longer held, or is overwritten before it is read, is
said on stderr; stdout carries the guest's bytes and nothing else.

Examples:
  godwit logs web --lines 20
  godwit logs web --follow | grep panic";

const TOP_HELP: &str = "\
CPU is in per cent of one CPU: the whole process, of that the guest's vCPUs and the VMM's own threads.
RAM is the guest memory that exists, of what the guest has; OWN is the VMM's private memory besides.

Examples:
  godwit top
  godwit top --once --json";

const COMPLETIONS_HELP: &str = "\
Examples:
  godwit completions bash > ~/.local/share/bash-completion/completions/godwit
  godwit completions zsh > \"${fpath[1]}/_godwit\"
  godwit completions fish > ~/.config/fish/completions/godwit.fish";

/// `NAME` or `--api F`: exactly one.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct VmAddress {
    /// The VM's name, as `godwit ps` shows it
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<VmName>,
    /// The VM's API socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) api: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    #[command(flatten)]
    pub(crate) vm: VmAddress,
    /// Answer as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    pub(crate) vm: VmAddress,
    /// The godwit binary to go on in [default: the one that runs this command]
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Answer as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) vm: VmAddress,
    /// Show the registers of every vCPU as well; stops a running guest for a moment
    #[arg(long)]
    pub(crate) registers: bool,
    /// Answer as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    /// The VM's name (left out with --api), the first byte, and how many, up to 16M
    #[arg(value_names = ["NAME", "ADDRESS", "LENGTH"], num_args = 2..=3, required = true)]
    pub(crate) vm_and_range: Vec<String>,
    /// The VM's API socket, instead of its NAME
    #[arg(long, value_name = "SOCKET")]
    pub(crate) api: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Answer as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    #[command(flatten)]
    pub(crate) vm: VmAddress,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) vm: VmAddress,
    /// Go on with what comes, until the guest is gone
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin with the last N lines [default: all that is held]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) lines: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Between two looks, 100ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: Span,
    /// Look for one interval, show that and end
    #[arg(long)]
    pub(crate) once: bool,
    /// A line of JSON for each look
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where the pages go, as godwit.1, godwit-run.1 and so on; created if need be
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) vm: VmAddress,
    /// Stop although a migration is going on or a hand-over is unconfirmed
    #[arg(long)]
    pub(crate) force: bool,
    /// Answer as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    pub(crate) vm: VmAddress,
    #[command(flatten)]
    pub(crate) how: ResolveHowArgs,
    /// Answer as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ResolveHowArgs {
    /// The target does not run the guest and never will: it goes on here
    #[arg(long)]
    pub(crate) resume_here: bool,
    /// The target runs the guest: throw this copy away
    #[arg(long)]
    pub(crate) discard: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// `cluster`: three hosts, one of them lost (not in this version yet)
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<String>,
    /// End with one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The VM as a TOML file; options given here win over it
    #[arg(value_name = "VM.TOML")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: RunOptions,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// Where to listen: tcp:HOST:PORT, or unix:PATH to take a guest of this host over without copying it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: TargetAddress,
    /// Listen beyond this host in plain text: whoever reaches the port can send a VM
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Certificates for mutual TLS (not in this version yet)
    #[arg(long, value_name = "DIR", conflicts_with = "insecure")]
    pub(crate) tls: Option<PathBuf>,
    /// Where the guest's serial port goes: stdio, none, file:PATH or unix:PATH
    #[arg(long, value_name = "WHERE", default_value = "stdio", help_heading = "Devices")]
    pub(crate) serial: Serial,
    /// How the pages that the guest writes are found when it moves on
    #[arg(long, value_name = "KIND", default_value = "bitmap", help_heading = "Devices")]
    pub(crate) dirty_log: DirtyLogArg,
    /// A disk the VM brings, by its identity (not in this version yet)
    #[arg(long, value_name = "ID=FILE", help_heading = "Devices")]
    pub(crate) disk: Vec<String>,
    /// A network the VM brings, by its identity (not in this version yet)
    #[arg(long, value_name = "ID=…", help_heading = "Devices")]
    pub(crate) net: Vec<String>,
    /// The VM's name here, instead of the one it arrives with [default until then: incoming-PID]
    #[arg(long, help_heading = "Identity")]
    pub(crate) name: Option<VmName>,
    /// Where to put the API socket [default: in the runtime directory]
    #[arg(long, value_name = "SOCKET", help_heading = "Identity")]
    pub(crate) api: Option<PathBuf>,
    /// For `godwit upgrade` alone: the process to succeed waits at this socket
    #[arg(long, value_name = "SOCKET", hide = true)]
    pub(crate) takes_over: Option<PathBuf>,
    /// For `godwit upgrade` alone: the API's path of the process to succeed
    #[arg(long, value_name = "SOCKET", hide = true, requires = "takes_over")]
    pub(crate) takes_api: Option<PathBuf>,
    /// For `godwit upgrade` alone: the guest's kernel may be read again from its path
    #[arg(long, hide = true, requires = "takes_over")]
    pub(crate) booted_here: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The VM's name (left out with --api), then the target: tcp:HOST:PORT, or unix:PATH on this host
    #[arg(value_names = ["NAME", "TARGET"], num_args = 1..=2, required = true)]
    pub(crate) vm_and_target: Vec<String>,
    /// The VM's API socket, instead of its NAME
    #[arg(long, value_name = "SOCKET")]
    pub(crate) api: Option<PathBuf>,
    /// How memory moves
    #[arg(long, value_enum, default_value_t = ModeArg::Auto, help_heading = "Migration")]
    pub(crate) mode: ModeArg,
    /// The longest blackout that is acceptable
    #[arg(long, value_name = "DURATION", default_value = "10ms", help_heading = "Migration")]
    pub(crate) max_downtime: Span,
    /// When to give up; the guest then runs on here
    #[arg(long, value_name = "DURATION", default_value = "60s", help_heading = "Migration")]
    pub(crate) timeout: Span,
    /// The most that may be sent, in decimal bits: 100Mbit, 1Gbit
    #[arg(long, value_name = "RATE", help_heading = "Migration")]
    pub(crate) bandwidth: Option<Bandwidth>,
    /// Data connections, 1 to 64 [default: chosen by the engine]
    #[arg(long, value_name = "N", help_heading = "Migration")]
    pub(crate) streams: Option<u32>,
    /// Send the guest's memory in plain text over a network
    #[arg(long, help_heading = "Trust")]
    pub(crate) insecure: bool,
    /// Certificates for mutual TLS (not in this version yet)
    #[arg(long, value_name = "DIR", conflicts_with = "insecure", help_heading = "Trust")]
    pub(crate) tls: Option<PathBuf>,
    /// Go on with a post-copy that lost its link (not in this version yet)
    #[arg(long, help_heading = "Migration")]
    pub(crate) recover: bool,
    /// End with one line of JSON on stdout, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Whatever meets --max-downtime within --timeout
    Auto,
    /// Rounds of copying while the guest runs, then a short blackout
    Precopy,
    /// The guest runs at the target before its memory is there (not in this version yet)
    Postcopy,
}

impl From<ModeArg> for MigrationMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::Precopy => Self::Precopy,
            ModeArg::Postcopy => Self::Postcopy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
