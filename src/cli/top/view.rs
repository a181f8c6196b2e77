//! What `godwit top` shows of one VM, as a row of a table or as JSON. Pure.

use comfy_table::{ContentArrangement, Table, presets};
use godwit_api::registry::Entry;
use godwit_api::{MigrationProgress, VmInfo, VmState};
use serde::Serialize;

use super::sample::Sample;
use super::usage::CpuUse;
use crate::cli::output::printable;
use crate::cli::progress;
use crate::cli::units::bytes_text;

/// One VM.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    state: VmState,
    pid: u32,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    /// Not known at the first look at a process.
    #[serde(flatten)]
    cpu: Option<CpuUse>,
    guest_ram_bytes: Option<u64>,
    vmm_private_bytes: Option<u64>,
    migration: Option<Moving>,
    /// Why something is not known.
    notes: Vec<String>,
}

/// A migration under way.
#[derive(Debug, Serialize)]
struct Moving {
    target: String,
    progress: Option<MigrationProgress>,
}

impl Row {
    pub(super) fn new(
        entry: &Entry,
        answer: Result<VmInfo, String>,
        sample: &Result<Sample, String>,
        cpu: Option<CpuUse>,
    ) -> Self {
        let mut notes: Vec<String> = Vec::new();
        notes.extend(answer.as_ref().err().cloned());
        notes.extend(match sample {
            Ok(sample) => sample.note.clone(),
            Err(why) => Some(why.clone()),
        });
        let sample = sample.as_ref().ok();
        let info = answer.ok();
        let migration = info.as_ref().and_then(|info| info.migration.as_ref());
        let moving = migration.filter(|migration| migration.result.is_none()).map(|migration| Moving {
            target: migration.target.clone(),
            progress: migration.progress.clone(),
        });
        Self {
            name: info.as_ref().map_or_else(|| entry.file.name.to_string(), |info| info.name.clone()),
            state: info.as_ref().map_or_else(|| entry.file.state.clone(), |info| info.state.clone()),
            pid: entry.file.pid,
            cpus: info.as_ref().and_then(|info| info.cpus),
            memory_bytes: info.as_ref().and_then(|info| info.memory_bytes),
            cpu,
            guest_ram_bytes: sample.and_then(|sample| sample.guest_ram_bytes),
            vmm_private_bytes: sample.and_then(|sample| sample.private_bytes),
            migration: moving,
            notes,
        }
    }

    fn cells(&self) -> [String; 10] {
        let percent = |part: fn(&CpuUse) -> f64| {
            self.cpu.as_ref().map_or_else(unknown, |cpu| format!("{:.1}", part(cpu)))
        };
        let bytes = |bytes: Option<u64>| bytes.map_or_else(unknown, bytes_text);
        let moving = self.migration.as_ref().map(|moving| {
            let progress = moving.progress.as_ref().map_or_else(|| "starting".to_owned(), progress::text);
            format!("to {}: {progress}", moving.target)
        });
        [
            printable(&self.name),
            printable(&self.state.to_string()),
            self.pid.to_string(),
            percent(|cpu| cpu.process),
            percent(|cpu| cpu.vcpus),
            percent(|cpu| cpu.vmm),
            bytes(self.guest_ram_bytes),
            bytes(self.memory_bytes),
            bytes(self.vmm_private_bytes),
            printable(&moving.unwrap_or_default()),
        ]
    }
}

fn unknown() -> String {
    "-".to_owned()
}

/// The table and, below it, why something in it is not known.
pub(super) fn page(rows: &[Row]) -> Vec<String> {
    if rows.is_empty() {
        return vec!["no VMs; start one with `godwit run --kernel builtin`, or see `godwit demo`".to_owned()];
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["NAME", "STATE", "PID", "CPU%", "VCPU%", "VMM%", "RAM", "OF", "OWN", "MIGRATION"]);
    for row in rows {
        table.add_row(row.cells());
    }
    let mut lines: Vec<String> = table.trim_fmt().lines().map(str::to_owned).collect();
    for row in rows {
        lines.extend(row.notes.iter().map(|note| format!("{}: {}", printable(&row.name), printable(note))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cpu: Option<CpuUse>) -> Row {
        Row {
            name: "web".into(),
            state: VmState::Running,
            pid: 7,
            cpus: Some(2),
            memory_bytes: Some(256 << 20),
            cpu,
            guest_ram_bytes: Some(64 << 20),
            vmm_private_bytes: None,
            migration: Some(Moving { target: "tcp:h:1".into(), progress: None }),
            notes: vec!["a\u{1b}[31mb".into()],
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_a_note() {
        let lines = page(&[row(None)]);
        assert_eq!(lines.len(), 3, "{lines:?}");
        let cells: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(cells[..6], ["web", "running", "7", "-", "-", "-"]);
        assert!(lines[1].ends_with("to tcp:h:1: starting"), "{lines:?}");
        assert!(lines[2].starts_with("web: a") && !lines[2].contains('\u{1b}'), "{lines:?}");
    }

    #[test]
    fn json_has_the_figures_side_by_side() {
        let cpu = CpuUse { process: 150.0, vcpus: 100.0, vmm: 50.0 };
        let json = serde_json::to_value(row(Some(cpu))).expect("serialises");
        assert_eq!((&json["cpu_percent"], &json["vmm_percent"]), (&150.0.into(), &50.0.into()));
        assert_eq!(json["state"]["kind"], "running");
        assert_eq!(serde_json::to_value(row(None)).expect("serialises").get("cpu_percent"), None);
    }
}
