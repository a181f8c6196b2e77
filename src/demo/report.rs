//! What the demo found: a table for people, an object for programs. Pure.

use std::time::Duration;

use godwit_api::ms_from_us;
use serde::Serialize;

use super::guest::Guest;
use super::invitation::Invitation;
use super::journey::Moved;

/// The whole demo.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `completed`: both moves were made and the guest's memory is as it should be; else `corrupted`.
    status: &'static str,
    total_ms: f64,
    mismatches: u64,
    guest: Guest,
    moves: Vec<MoveReport>,
    #[serde(skip)]
    invitation: Invitation,
}

/// One move.
#[derive(Debug, Clone, Serialize)]
struct MoveReport {
    total_ms: f64,
    /// The longest silence around the hand-over, as the observer heard it.
    blackout_outside_ms: f64,
    /// `downtime_ms` of the migration.
    blackout_engine_ms: Option<f64>,
    longest_gap_before_ms: f64,
    longest_gap_copying_ms: f64,
    rounds: u32,
    bytes_sent: u64,
    pages_sent: u64,
    zero_pages: u64,
    pages_checked: u64,
    mismatches: u64,
}

impl MoveReport {
    fn new(moved: &Moved) -> Self {
        let result = &moved.result;
        Self {
            total_ms: result.total_ms,
            blackout_outside_ms: ms(moved.blackout),
            blackout_engine_ms: result.downtime_ms,
            longest_gap_before_ms: ms(moved.gap_before),
            longest_gap_copying_ms: ms(moved.gap_copying),
            rounds: result.rounds,
            bytes_sent: result.bytes_sent,
            pages_sent: result.pages_sent,
            zero_pages: result.zero_pages,
            pages_checked: moved.found.pages,
            mismatches: moved.found.mismatches,
        }
    }
}

impl Report {
    pub(super) fn new(guest: &Guest, moved: &[Moved], took: Duration) -> Self {
        let moves: Vec<MoveReport> = moved.iter().map(MoveReport::new).collect();
        // Each count has all that the guest found until then.
        let mismatches = moves.iter().map(|made| made.mismatches).max().unwrap_or(0);
        let status = if mismatches == 0 { "completed" } else { "corrupted" };
        let invitation = Invitation::to_this_program();
        Self { status, total_ms: ms(took), mismatches, guest: guest.clone(), moves, invitation }
    }

    /// Pages that were not as the guest had left them.
    pub(crate) const fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// The table and what to try next.
    pub(crate) fn text(&self) -> String {
        format!("\n{}\n{}", table(&self.moves), self.invitation)
    }
}

fn ms(duration: Duration) -> f64 {
    ms_from_us(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// One row a figure, one column a move.
fn table(moves: &[MoveReport]) -> String {
    let heads = (1..).zip(moves).map(|(from, _)| format!("{from} → {}", from + 1)).collect();
    let row = |figure: &dyn Fn(&MoveReport) -> String| moves.iter().map(figure).collect();
    let rows: Vec<(&str, Vec<String>, &str)> = vec![
        ("process", heads, ""),
        ("whole move", row(&|m| ms_text(m.total_ms)), ""),
        (
            "blackout, seen from outside",
            row(&|m| ms_text(m.blackout_outside_ms)),
            "silence on its serial port",
        ),
        (
            "blackout, as the engine says",
            row(&|m| m.blackout_engine_ms.map_or_else(|| "unknown".to_owned(), ms_text)),
            "",
        ),
        ("longest gap before the move", row(&|m| ms_text(m.longest_gap_before_ms)), "this host's own noise"),
        ("longest gap while copying", row(&|m| ms_text(m.longest_gap_copying_ms)), ""),
        ("rounds", row(&|m| m.rounds.to_string()), ""),
        ("memory moved", row(&|m| format!("{} MiB", m.bytes_sent >> 20)), ""),
        ("pages sent", row(&|m| grouped(m.pages_sent)), ""),
        ("zero pages named", row(&|m| grouped(m.zero_pages)), ""),
        ("pages checked afterwards", row(&|m| grouped(m.pages_checked)), "by the guest itself"),
        ("mismatches", row(&|m| grouped(m.mismatches)), ""),
    ];
    rows.iter().map(|(label, cells, note)| line(label, cells, note)).collect()
}

fn line(label: &str, cells: &[String], note: &str) -> String {
    let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
    format!("{}\n", format!("  {label:<28}{cells}   {note}").trim_end())
}

/// Three digits or so: `0.4 ms`, `12.3 ms`, `812 ms`, `1.25 s`.
fn ms_text(ms: f64) -> String {
    match ms {
        ..99.95 => format!("{ms:.1} ms"),
        ..999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

/// `65 536`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(total_ms: f64, mismatches: u64) -> MoveReport {
        MoveReport {
            total_ms,
            blackout_outside_ms: 3.26,
            blackout_engine_ms: None,
            longest_gap_before_ms: 0.26,
            longest_gap_copying_ms: 0.5,
            rounds: 4,
            bytes_sent: 346 << 20,
            pages_sent: 88_742,
            zero_pages: 514,
            pages_checked: 65_536,
            mismatches,
        }
    }

    #[test]
    fn the_table_has_a_column_a_move() {
        let table = table(&[made(812.4, 0), made(1250.0, 7)]);
        for expected in [
            "  process                          1 → 2     2 → 3",
            "  whole move                      812 ms    1.25 s",
            "  blackout, seen from outside     3.3 ms    3.3 ms   silence on its serial port",
            "  blackout, as the engine says   unknown   unknown",
            "  pages sent                      88 742    88 742",
            "  mismatches                           0         7",
        ] {
            assert!(table.lines().any(|line| line == expected), "{expected:?} in\n{table}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= 90), "{table}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.04, 9.96, 99.96, 999.4, 999.6].map(ms_text),
            ["0.0 ms", "10.0 ms", "100 ms", "999 ms", "1.00 s"]
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
    }
}
