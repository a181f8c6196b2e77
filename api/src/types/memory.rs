//! A range of guest-physical addresses, to be looked at.

use std::fmt;

use super::InvalidInput;
use super::limits::MEMORY_READ_BYTES_MAX;

/// Guest-physical addresses `address .. address + length`: not empty, no more than one answer carries, and
/// not beyond the last address there is. Whether it is RAM, the VM tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestRange {
    address: u64,
    length: u64,
}

impl GuestRange {
    /// A range.
    ///
    /// # Errors
    /// It is empty, too long for one request, or wraps around.
    pub fn new(address: u64, length: u64) -> Result<Self, InvalidInput> {
        if !(1..=MEMORY_READ_BYTES_MAX).contains(&length) {
            return Err(InvalidInput::new(
                "length",
                format!("{length} bytes are out of range"),
                format!("give 1 to {MEMORY_READ_BYTES_MAX}, and read more in pieces"),
            ));
        }
        if address.checked_add(length).is_none() {
            return Err(InvalidInput::new(
                "address",
                format!("{address:#x}..+{length:#x} goes beyond the last address there is"),
                "give a range within the guest's RAM",
            ));
        }
        Ok(Self { address, length })
    }

    /// A range from two numbers as people write them.
    ///
    /// # Errors
    /// One is no number, or as for [`new`](Self::new).
    pub fn parse(address: &str, length: &str) -> Result<Self, InvalidInput> {
        Self::new(number("address", address)?, number("length", length)?)
    }

    /// Its first byte.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.address
    }

    /// Its bytes.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.length
    }
}

impl fmt::Display for GuestRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..+{:#x}", self.address, self.length)
    }
}

/// A number in decimal, or in hexadecimal after `0x`.
fn number(field: &'static str, text: &str) -> Result<u64, InvalidInput> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The standard library takes a sign, too.
    let parsed = if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() };
    parsed.ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        InvalidInput::new(field, format!("{shown:?} is no number of 64 bits"), "write it like 4096 or 0x1000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        let range = GuestRange::parse("0x100000", "4096").expect("a range");
        assert_eq!((range.address(), range.length()), (1 << 20, 4096));
        assert_eq!(range.to_string(), "0x100000..+0x1000");
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_field() {
        for (address, length, field) in [
            ("", "1", "address"),
            ("0x", "1", "address"),
            ("+1", "1", "address"),
            ("-1", "1", "address"),
            ("0x1_0", "1", "address"),
            ("0x10000000000000000", "1", "address"),
            ("ffff", "1", "address"),
            ("0", "1k", "length"),
            ("0", "0", "length"),
            ("0", "16777217", "length"),
            ("0xffffffffffffffff", "1", "address"),
        ] {
            let refused = GuestRange::parse(address, length).expect_err(address);
            assert_eq!(refused.field, field, "{address} {length}: {refused}");
        }
        assert!(GuestRange::parse("0", "16777216").is_ok());
    }
}
