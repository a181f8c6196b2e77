//! Sizes, bandwidths and durations, as people write and read them. Pure.
//!
//! Sizes count in powers of 1024 (`2G` is 2 GiB), bandwidths in decimal bits (`1Gbit` is
//! 1 000 000 000 bits a second), as networks do.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A number of bytes: `4096`, `512K`, `2G`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub(crate) struct Size(pub(crate) u64);

/// Bits a second: `100Mbit`, `1Gbit`, `2.5Gbit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bandwidth(pub(crate) u64);

/// A duration: `250us`, `10ms`, `1.5s`, `2min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

/// In a file a size may be a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

/// Why a quantity is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    /// No number in front.
    #[error("{given:?} does not start with a number; write it like {example}")]
    NoNumber {
        /// What was given.
        given: String,
        /// What it should look like.
        example: &'static str,
    },
    /// A unit that is not known here, or none where one is needed.
    #[error("{given:?} has no unit known here ({known}); write it like {example}")]
    UnknownUnit {
        /// What was given.
        given: String,
        /// The units.
        known: &'static str,
        /// What it should look like.
        example: &'static str,
    },
    /// Too large, or a fraction of the smallest unit.
    #[error("{given:?} can't be represented; write a whole number of a smaller unit, like {example}")]
    NotRepresentable {
        /// What was given.
        given: String,
        /// What it should look like.
        example: &'static str,
    },
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(given: &str) -> Result<Self, UnitError> {
        const EXAMPLE: &str = "512M or 2G";
        quantity(given, EXAMPLE, "K, M, G, T", |unit| {
            Some(match unit {
                "" | "b" => 1,
                "k" | "kib" => 1 << 10,
                "m" | "mib" => 1 << 20,
                "g" | "gib" => 1 << 30,
                "t" | "tib" => 1 << 40,
                _ => return None,
            })
        })
        .map(Self)
    }
}

impl TryFrom<NumberOrText> for Size {
    type Error = UnitError;

    fn try_from(given: NumberOrText) -> Result<Self, UnitError> {
        match given {
            NumberOrText::Number(bytes) => Ok(Self(bytes)),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Bandwidth {
    type Err = UnitError;

    fn from_str(given: &str) -> Result<Self, UnitError> {
        quantity(given, "100Mbit or 1Gbit", "bit, Kbit, Mbit, Gbit, Tbit", |unit| {
            Some(match unit.strip_suffix("/s").unwrap_or(unit) {
                "bit" => 1,
                "kbit" => 1_000,
                "mbit" => 1_000_000,
                "gbit" => 1_000_000_000,
                "tbit" => 1_000_000_000_000,
                _ => return None,
            })
        })
        .map(Self)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(given: &str) -> Result<Self, UnitError> {
        quantity(given, "10ms or 60s", "us, ms, s, min, h", |unit| {
            Some(match unit {
                "us" | "µs" => 1,
                "ms" => 1_000,
                "s" => 1_000_000,
                "min" => 60_000_000,
                "h" => 3_600_000_000,
                _ => return None,
            })
        })
        .map(|us| Self(Duration::from_micros(us)))
    }
}

impl TryFrom<String> for Span {
    type Error = UnitError;

    fn try_from(given: String) -> Result<Self, UnitError> {
        given.parse()
    }
}

/// `12.5unit` in the smallest unit, exactly: a fraction is allowed as long as it comes out whole.
fn quantity(
    given: &str,
    example: &'static str,
    known: &'static str,
    multiplier: impl Fn(&str) -> Option<u64>,
) -> Result<u64, UnitError> {
    let owned = || given.to_owned();
    let text = given.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let has_number = !whole.is_empty() && !fraction.contains('.') && !number.ends_with('.');
    if !has_number {
        return Err(UnitError::NoNumber { given: owned(), example });
    }
    let Some(multiplier) = multiplier(unit.trim().to_lowercase().as_str()) else {
        return Err(UnitError::UnknownUnit { given: owned(), known, example });
    };
    let exact = || {
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let scaled = digits.checked_mul(u128::from(multiplier))?;
        (scaled % scale == 0).then(|| u64::try_from(scaled / scale).ok())?
    };
    exact().ok_or_else(|| UnitError::NotRepresentable { given: owned(), example })
}

/// Bytes for people: `512 MiB`, `1.5 GiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// A rate for people, in decimal bits as networks count.
pub(crate) fn rate_text(bytes_per_s: u64) -> String {
    scaled(bytes_per_s.saturating_mul(8), 1000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// Microseconds for people: `870 µs`, `9.9 ms`, `1.5 s`.
pub(crate) fn us_text(us: u64) -> String {
    scaled(us, 1000, &["µs", "ms", "s"])
}

/// One decimal while the number is small; the last unit takes whatever is left.
fn scaled(value: u64, base: u64, units: &[&str]) -> String {
    let mut divisor: u64 = 1;
    let mut index = 0;
    while value / divisor >= base && index + 1 < units.len() {
        divisor = divisor.saturating_mul(base);
        index += 1;
    }
    let unit = units.get(index).copied().unwrap_or_default();
    let whole = value / divisor;
    let tenth = u128::from(value % divisor) * 10 / u128::from(divisor);
    if whole >= 100 || tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

/// How long something has been running: `42s`, `3m 05s`, `2h 07m`, `9d 04h`.
pub(crate) fn uptime_text(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m {:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_powers_of_1024() {
        for (text, bytes) in [
            ("4096", 4096),
            ("2G", 2 << 30),
            ("512m", 512 << 20),
            ("1.5K", 1536),
            ("1TiB", 1 << 40),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in
            ["", "G", "-1G", "2X", "2Gbit", "1..5G", "1.G", "0.3", "99999999999999999999", "20000000T", "1e9"]
        {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bandwidths_are_decimal_bits_and_need_a_unit() {
        assert_eq!("1Gbit".parse(), Ok(Bandwidth(1_000_000_000)));
        assert_eq!("2.5gbit/s".parse(), Ok(Bandwidth(2_500_000_000)));
        assert_eq!("100Mbit".parse(), Ok(Bandwidth(100_000_000)));
        for bad in ["1000", "1G", "1GB", "Mbit"] {
            assert!(bad.parse::<Bandwidth>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!("10ms".parse(), Ok(Span(Duration::from_millis(10))));
        assert_eq!("1.5s".parse(), Ok(Span(Duration::from_millis(1500))));
        assert_eq!("2min".parse(), Ok(Span(Duration::from_secs(120))));
        for bad in ["10", "1.5us", "10 parsecs", "s", "99999999999999999h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn people_read_short_numbers() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(1536 << 20), "1.5 GiB");
        assert_eq!(bytes_text(u64::MAX), "16383 PiB");
        assert_eq!(rate_text(125_000_000), "1 Gbit/s");
        assert_eq!(us_text(9_900), "9.9 ms");
        assert_eq!(us_text(1_999_999_999), "1999 s");
        assert_eq!(uptime_text(59_999), "59s");
        assert_eq!(uptime_text(185_000), "3m 05s");
        assert_eq!(uptime_text(86_400_000 * 9), "9d 00h");
    }
}
