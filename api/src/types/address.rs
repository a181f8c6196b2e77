//! Where a receiver listens and where a migration goes: `tcp:HOST:PORT` or `unix:PATH`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An address of the migration protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetAddress {
    /// `tcp:HOST:PORT`; an IPv6 host is written in brackets.
    Tcp {
        /// Name or IP address, without brackets.
        host: String,
        /// The port; 0 lets a receiver choose a free one.
        port: u16,
    },
    /// `unix:PATH`.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
}

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `tcp:` nor `unix:`.
    #[error("{address:?} starts with neither tcp: nor unix:; write tcp:HOST:PORT")]
    UnknownScheme {
        /// What was given.
        address: String,
    },
    /// No port, or not a number up to 65535.
    #[error("{address:?} has no valid port; write tcp:HOST:PORT with a port up to 65535")]
    BadPort {
        /// What was given.
        address: String,
    },
    /// No host, or one that can't be a host.
    #[error("{address:?} has no valid host; write tcp:HOST:PORT, an IPv6 address in brackets")]
    BadHost {
        /// What was given.
        address: String,
    },
    /// `unix:` without a path.
    #[error("{address:?} has no path; write unix:PATH")]
    EmptyPath {
        /// What was given.
        address: String,
    },
}

impl TargetAddress {
    /// Whether everything sent there stays on this host. A host *name* other than `localhost`
    /// counts as remote: what it resolves to may change between this check and the connection.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl FromStr for TargetAddress {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        let given = || address.to_owned();
        if let Some(path) = address.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(AddressError::EmptyPath { address: given() });
            }
            return Ok(Self::Unix { path: path.into() });
        }
        let Some(rest) = address.strip_prefix("tcp:") else {
            return Err(AddressError::UnknownScheme { address: given() });
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| AddressError::BadPort { address: given() })?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AddressError::BadPort { address: given() });
        }
        let port = port.parse::<u16>().map_err(|_| AddressError::BadPort { address: given() })?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let valid = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.len() <= 253
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if !valid {
            return Err(AddressError::BadHost { address: given() });
        }
        Ok(Self::Tcp { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Result<TargetAddress, AddressError> {
        address.parse()
    }

    #[test]
    fn well_formed_addresses_survive_the_round_trip() {
        for address in [
            "tcp:127.0.0.1:7000",
            "tcp:host-2.example:1",
            "tcp:[::1]:65535",
            "tcp:localhost:0",
            "unix:/run/x.sock",
        ] {
            assert_eq!(parse(address).expect(address).to_string(), address);
        }
    }

    #[test]
    fn malformed_addresses_say_what_is_wrong() {
        type Expected = fn(&AddressError) -> bool;
        let cases: [(&str, Expected); 10] = [
            ("", |e| matches!(e, AddressError::UnknownScheme { .. })),
            ("127.0.0.1:7000", |e| matches!(e, AddressError::UnknownScheme { .. })),
            ("tcp:host", |e| matches!(e, AddressError::BadPort { .. })),
            ("tcp:host:", |e| matches!(e, AddressError::BadPort { .. })),
            ("tcp:host:+7", |e| matches!(e, AddressError::BadPort { .. })),
            ("tcp:host:65536", |e| matches!(e, AddressError::BadPort { .. })),
            ("tcp::7000", |e| matches!(e, AddressError::BadHost { .. })),
            ("tcp:::1:7000", |e| matches!(e, AddressError::BadHost { .. })),
            ("tcp:a b:7000", |e| matches!(e, AddressError::BadHost { .. })),
            ("unix:", |e| matches!(e, AddressError::EmptyPath { .. })),
        ];
        for (address, expected) in cases {
            let error = parse(address).expect_err(address);
            assert!(expected(&error), "{address:?} gave {error:?}");
        }
    }

    #[test]
    fn only_what_surely_stays_on_this_host_is_local() {
        for local in ["tcp:127.0.0.1:1", "tcp:127.9.9.9:1", "tcp:[::1]:1", "tcp:LocalHost:1"] {
            assert!(parse(local).expect(local).is_local(), "{local}");
        }
        for remote in ["tcp:0.0.0.0:1", "tcp:[::]:1", "tcp:10.0.0.1:1", "tcp:myself:1"] {
            assert!(!parse(remote).expect(remote).is_local(), "{remote}");
        }
    }
}
