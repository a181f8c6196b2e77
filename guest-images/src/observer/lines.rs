//! The guest's lines, picked out from between its beats. Pure.

use crate::report::is_beat;

/// A line of the guest is some hundred bytes; what is longer is none.
const LINE_BYTES_MAX: usize = 4096;

/// Takes serial output as it comes.
#[derive(Debug, Default)]
pub struct Lines {
    unfinished: Vec<u8>,
    whole: Vec<String>,
}

impl Lines {
    /// Takes bytes; says whether beats were among them.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let mut beats = false;
        for byte in bytes {
            match byte {
                byte if is_beat(*byte) => beats = true,
                b'\n' => {
                    self.whole.push(String::from_utf8_lossy(&self.unfinished).into_owned());
                    self.unfinished.clear();
                }
                byte if self.unfinished.len() < LINE_BYTES_MAX => self.unfinished.push(*byte),
                _ => {}
            }
        }
        beats
    }

    /// All whole lines so far.
    #[must_use]
    pub fn whole(&self) -> &[String] {
        &self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_come_in_the_middle_of_a_line() {
        let mut lines = Lines::default();
        assert!(lines.take(b"..godwit-guest: p.o"));
        assert!(!lines.take(b"ng\r"));
        assert!(lines.whole().is_empty());
        assert!(!lines.take(b"\nnext"));
        assert_eq!(lines.whole(), ["godwit-guest: pong\r"]);
    }

    #[test]
    fn noise_without_an_end_is_not_kept() {
        let mut lines = Lines::default();
        lines.take(&vec![b'x'; 2 * LINE_BYTES_MAX]);
        lines.take(b"\n");
        assert_eq!(lines.whole()[0].len(), LINE_BYTES_MAX);
    }
}
