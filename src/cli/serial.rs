//! Where the guest's serial port goes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// The value of `--serial`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Serial {
    /// stdin and stdout of this process.
    #[default]
    Stdio,
    /// Nowhere; `godwit console` still attaches.
    None,
    /// Output to a file.
    File(PathBuf),
    /// Both directions over a listening unix socket.
    Unix(PathBuf),
}

/// Why a serial port's destination is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no place for the serial port; write stdio, none, file:PATH or unix:PATH")]
pub(crate) struct SerialError {
    given: String,
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(given: &str) -> Result<Self, SerialError> {
        let path = |prefix: &str| given.strip_prefix(prefix).filter(|path| !path.is_empty());
        match given {
            "stdio" => Ok(Self::Stdio),
            "none" => Ok(Self::None),
            _ => path("file:")
                .map(|path| Self::File(path.into()))
                .or_else(|| path("unix:").map(|path| Self::Unix(path.into())))
                .ok_or_else(|| SerialError { given: given.to_owned() }),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::None => f.write_str("none"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Serial {
    type Error = SerialError;

    fn try_from(given: String) -> Result<Self, SerialError> {
        given.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_places_and_nothing_else() {
        assert_eq!("stdio".parse(), Ok(Serial::Stdio));
        assert_eq!("none".parse(), Ok(Serial::None));
        assert_eq!("file:/a:b".parse(), Ok(Serial::File("/a:b".into())));
        assert_eq!("unix:x".parse(), Ok(Serial::Unix("x".into())));
        for bad in ["", "file:", "unix:", "tty", "/dev/null"] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
        for place in ["stdio", "none", "file:/a:b", "unix:x"] {
            assert_eq!(place.parse::<Serial>().map(|serial| serial.to_string()), Ok(place.to_owned()));
        }
    }
}
