//! QEMU's monitor: one JSON object a line. Source: QEMU's QMP specification.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::run::wait_for;

const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A connection to a monitor.
#[derive(Debug)]
pub(crate) struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects as soon as QEMU listens.
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = wait_for("QEMU's monitor", || UnixStream::connect(socket).ok())?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut qmp = Self { lines: BufReader::new(stream) };
        qmp.read()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it answers. Events that come before the answer are dropped.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        self.send(command, arguments)?;
        loop {
            let mut said = self.read()?;
            if let Some(error) = said.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(answer) = said.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Waits for a migration event with that status; one that says `failed` ends the wait.
    pub(crate) fn wait_migration(&mut self, wanted: &str) -> anyhow::Result<()> {
        loop {
            let said = self.read()?;
            if said["event"] != "MIGRATION" {
                continue;
            }
            match said["data"]["status"].as_str() {
                Some(status) if status == wanted => return Ok(()),
                Some("failed") => bail!("QEMU's migration failed"),
                _ => {}
            }
        }
    }

    fn send(&mut self, command: &str, arguments: &Value) -> anyhow::Result<()> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{request}").context("talking to QEMU")
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).context("listening to QEMU")?;
        if read == 0 {
            bail!("QEMU has ended");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU says {line:?}"))
    }
}
