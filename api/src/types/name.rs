//! A VM's name: it is part of file names, so its alphabet is small.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limits::NAME_CHARS_MAX;

/// A checked name: a letter or digit, then up to 63 letters, digits, `.`, `_` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty; give 1 to {NAME_CHARS_MAX} letters, digits, '.', '_' or '-'")]
    Empty,
    /// Too long.
    #[error("the name has {chars} characters; give at most {NAME_CHARS_MAX}")]
    TooLong {
        /// How many it has.
        chars: usize,
    },
    /// The first character is neither letter nor digit.
    #[error("the name starts with {found:?}; start it with a letter or digit")]
    BadStart {
        /// The character.
        found: char,
    },
    /// A character that file names and shells would trip over.
    #[error("the name contains {found:?}; use only letters, digits, '.', '_' and '-'")]
    BadCharacter {
        /// The character.
        found: char,
    },
}

impl VmName {
    /// Checks a name.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let first = name.chars().next().ok_or(NameError::Empty)?;
        let chars = name.chars().count();
        if chars > NAME_CHARS_MAX {
            return Err(NameError::TooLong { chars });
        }
        if !first.is_ascii_alphanumeric() {
            return Err(NameError::BadStart { found: first });
        }
        let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match name.chars().find(|c| !allowed(c)) {
            Some(found) => Err(NameError::BadCharacter { found }),
            None => Ok(Self(name)),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for VmName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for VmName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_kept_as_they_are() {
        for name in ["a", "web-1", "0", "db.eu_west", &"x".repeat(64)] {
            assert_eq!(VmName::new(name).expect(name).as_str(), name);
        }
    }

    #[test]
    fn names_that_could_leave_the_directory_or_hide_are_refused() {
        assert_eq!(VmName::new(""), Err(NameError::Empty));
        assert_eq!(VmName::new("x".repeat(65)), Err(NameError::TooLong { chars: 65 }));
        for name in [".hidden", "-flag", "_x", "/etc"] {
            assert!(matches!(VmName::new(name), Err(NameError::BadStart { .. })));
        }
        for name in ["a/b", "a b", "a\0", "a\n", "grün"] {
            assert!(matches!(VmName::new(name), Err(NameError::BadCharacter { .. })));
        }
    }

    #[test]
    fn a_bad_name_does_not_get_in_through_json() {
        assert!(serde_json::from_str::<VmName>(r#""../x""#).is_err());
    }
}
