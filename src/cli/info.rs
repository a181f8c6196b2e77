//! `godwit info`: all that a VM process says about itself.

use std::process::ExitCode;

use godwit_api::{VmInfo, VmRegisters};
use serde::Serialize;

use super::args::InfoArgs;
use super::failure::Failure;
use super::output::{self, printable};
use super::units::{bytes_text, uptime_text};

/// The answer in JSON: all fields of one and the same object.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    info: &'a VmInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    registers: Option<VmRegisters>,
}

pub(crate) fn info(args: &InfoArgs) -> Result<ExitCode, Failure> {
    let client = args.vm.client()?;
    let info = client.info().map_err(Failure::failed)?;
    let registers = args.registers.then(|| client.registers()).transpose().map_err(Failure::failed)?;
    if args.json {
        output::json(&Shown { info: &info, registers })?;
    } else if let Some(registers) = registers {
        output::result(format!("{}\n{registers}", text(&info)))?;
    } else {
        output::result(text(&info))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line, after something was done to the VM.
pub(crate) fn show_state(info: &VmInfo, json: bool) -> Result<ExitCode, Failure> {
    if json {
        output::json(info)?;
    } else {
        output::result(format!("{}: {}", printable(&info.name), printable(&info.state.to_string())))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(info: &VmInfo) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("name", info.name.clone()),
        ("state", info.state.to_string()),
        ("pid", info.pid.to_string()),
        ("epoch", info.epoch.to_string()),
        ("uptime", uptime_text(info.uptime_ms)),
    ];
    lines.extend(info.cpus.map(|cpus| ("cpus", cpus.to_string())));
    lines.extend(info.memory_bytes.map(|bytes| ("memory", bytes_text(bytes))));
    lines.extend(info.kernel.clone().map(|kernel| ("kernel", kernel)));
    lines.extend(info.cmdline.clone().filter(|text| !text.is_empty()).map(|text| ("cmdline", text)));
    lines.extend(info.listen.clone().map(|listen| ("listens on", listen)));
    lines.extend(info.debugger.as_ref().map(|debugger| {
        let what = if debugger.attached { "is attached at" } else { "can attach at" };
        let missing = debugger.missing.as_ref().map(|missing| format!(" (without {missing})"));
        ("debugger", format!("{what} {}{}", debugger.address, missing.unwrap_or_default()))
    }));
    lines.push(("api", info.api_socket.display().to_string()));
    if info.console_dropped_bytes > 0 {
        let dropped = format!("{} dropped, as nobody read it", bytes_text(info.console_dropped_bytes));
        lines.push(("console", dropped));
    }
    if let Some(migration) = &info.migration {
        let outcome = migration.result.as_ref().map_or("going on", |result| result.status.as_str());
        let reason = migration.result.as_ref().and_then(|result| result.reason.as_deref());
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        lines.push(("migration", format!("to {}: {outcome}{reason}", migration.target)));
    }
    lines.extend(info.detail.clone().map(|detail| ("note", detail)));
    let shown: Vec<String> =
        lines.iter().map(|(label, value)| format!("{label:<11} {}", printable(value))).collect();
    shown.join("\n")
}
