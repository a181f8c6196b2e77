//! A migration's progress: a bar on a terminal, a line a second elsewhere. All of it on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use godwit_api::MigrationProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use super::units::{bytes_text, rate_text, us_text};

/// Between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Shows progress as it arrives.
pub(crate) enum Display {
    /// A bar that is redrawn.
    Bar(ProgressBar),
    /// Lines for a log.
    Lines {
        /// When the last one was written.
        last: Option<Instant>,
    },
}

impl Display {
    /// The display that suits where stderr goes.
    pub(crate) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None };
        }
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:16} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    pub(crate) fn show(&mut self, progress: &MigrationProgress) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(progress.memory_total_bytes.max(1));
                bar.set_position(progress.memory_total_bytes.saturating_sub(progress.memory_left_bytes));
                bar.set_message(text(progress));
            }
            Self::Lines { last } => {
                if last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
                    *last = Some(Instant::now());
                    output::message(text(progress));
                }
            }
        }
    }

    /// A message that must not be overdrawn.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| output::message(text)),
            Self::Lines { .. } => output::message(text),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// How far it is, in one line.
pub(crate) fn text(progress: &MigrationProgress) -> String {
    let blackout =
        progress.predicted_blackout_us.map(|us| format!(" · blackout ≈ {}", us_text(us))).unwrap_or_default();
    let round = if progress.round > 0 { format!(" · round {}", progress.round) } else { String::new() };
    if progress.round == 0 {
        return progress.phase.label().to_owned();
    }
    // Not known before a round has ended.
    let dirtied = match progress.dirty_rate_bytes_per_s {
        0 => String::new(),
        rate => format!(" · dirtied {}", rate_text(rate)),
    };
    format!(
        "{}{round} · {} left of {} · {}{dirtied}{blackout}",
        progress.phase.label(),
        bytes_text(progress.memory_left_bytes),
        bytes_text(progress.memory_total_bytes),
        rate_text(progress.rate_bytes_per_s),
    )
}
