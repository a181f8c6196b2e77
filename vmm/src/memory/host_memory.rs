//! How much memory the host can still give, from `/proc/meminfo`.

/// Bytes that new programs can use without pushing others out (`MemAvailable + SwapFree`),
/// or `None` where the kernel does not say.
pub(super) fn available_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(meminfo: &str) -> Option<u64> {
    let kib = |key: &str| {
        let line = meminfo.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let total_kib = kib("MemAvailable:")?.checked_add(kib("SwapFree:").unwrap_or(0))?;
    total_kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sums_available_and_swap() {
        let text = "MemTotal: 100 kB\nMemAvailable:  50 kB\nSwapFree: 7 kB\n";
        assert_eq!(parse(text), Some(57 * 1024));
        assert_eq!(parse("MemTotal: 1 kB\n"), None);
        assert_eq!(parse("MemAvailable: x kB\n"), None);
    }
}
