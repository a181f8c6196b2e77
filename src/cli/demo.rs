//! `godwit demo`: the first thing that a person tries.

use std::process::ExitCode;

use godwit_api::MigrationProgress;
use serde::Serialize;

use super::args::DemoArgs;
use super::failure::Failure;
use super::output;
use super::progress::Display;
use super::signals;
use crate::demo::{Report, Screen};

pub(crate) fn demo(args: DemoArgs) -> Result<ExitCode, Failure> {
    match args.what.as_deref() {
        None => play(args.json),
        Some("cluster") => Err(Failure::usage(
            "the cluster demo is not in this version yet; `godwit demo` moves one guest between two processes",
        )),
        Some(other) => {
            Err(Failure::usage(format!("wrong usage: there is no demo called {other:?}; run `godwit demo`")))
        }
    }
}

fn play(json: bool) -> Result<ExitCode, Failure> {
    signals::count_requests_to_leave()?;
    let mut terminal = Terminal { json, progress: None };
    let played = crate::demo::demo(&mut terminal);
    terminal.progress_ends();
    match played {
        Ok(report) => show(&report, json),
        Err(error) => {
            let reason = error.to_string();
            if json {
                output::json(&NoReport { status: "failed", reason: &reason })?;
            }
            Err(Failure::failed(reason))
        }
    }
}

fn show(report: &Report, json: bool) -> Result<ExitCode, Failure> {
    if json {
        output::json(report)?;
    } else {
        output::result(report.text())?;
    }
    match report.mismatches() {
        0 => Ok(crate::instance::Exit::Done.into()),
        wrong => Err(Failure::failed(format!(
            "the guest found {wrong} pages that were not as it had left them: a bug of godwit or of this host's KVM; report it with the table above"
        ))),
    }
}

/// What `--json` ends with when there is nothing to report.
#[derive(Serialize)]
struct NoReport<'a> {
    status: &'static str,
    reason: &'a str,
}

/// The story goes to stdout, unless that is for JSON.
struct Terminal {
    json: bool,
    progress: Option<Display>,
}

impl Screen for Terminal {
    fn say(&mut self, text: &str) {
        self.progress_ends();
        if self.json {
            text.lines().filter(|line| !line.is_empty()).for_each(|line| output::message(line.trim_start()));
        } else {
            // If nobody reads it any more, the end of the demo will say so.
            let _ = output::result(text);
        }
    }

    fn progress(&mut self, progress: &MigrationProgress) {
        self.progress.get_or_insert_with(Display::new).show(progress);
    }

    fn progress_ends(&mut self) {
        if let Some(display) = self.progress.take() {
            display.finish();
        }
    }

    fn asked_to_leave(&self) -> bool {
        signals::requests_to_leave() > 0
    }
}
