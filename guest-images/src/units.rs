//! Numbers as people write them: `64M`, `0x1000`, `100us`.

/// A number in decimal or, after `0x`, in hexadecimal.
pub fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` would take a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// A number of bytes; `K`, `M` and `G` stand for 2^10, 2^20 and 2^30.
pub fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

/// A time in nanoseconds, from a number and one of `us`, `ms`, `s`.
pub fn duration_ns(text: &str) -> Option<u64> {
    let units = [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    units.iter().find_map(|&(unit, ns)| number(text.strip_suffix(unit)?)?.checked_mul(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("64M"), Some(64 << 20));
        assert_eq!(size("0x1000"), Some(4096));
        assert_eq!(size("3k"), Some(3072));
        for bad in ["", "M", "-1", "+1", "1T", "12 ", "99999999999G", "0x"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration_ns("100us"), Some(100_000));
        assert_eq!(duration_ns("5ms"), Some(5_000_000));
        assert_eq!(duration_ns("2s"), Some(2_000_000_000));
        for bad in ["", "1", "s", "1m", "-1s", "999999999999s"] {
            assert_eq!(duration_ns(bad), None, "{bad:?}");
        }
    }
}
