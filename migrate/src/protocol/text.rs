//! Bounded texts and byte strings: what a peer sends is refused, not cut, when it is too long.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use thiserror::Error;

/// The longest [`Text`], in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// The longest [`VmName`], in bytes.
pub const VM_NAME_BYTES_MAX: usize = 64;

/// A text that is not fit to be sent or shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    /// Too long.
    #[error("text of {bytes} bytes; at most {TEXT_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It would reach a person's terminal.
    #[error("text holds a control character")]
    ControlCharacter,
    /// Names become file names.
    #[error(
        "{name:?} is not a VM name: use 1 to {VM_NAME_BYTES_MAX} of a-z A-Z 0-9 . _ - and begin with a letter or digit"
    )]
    NotAName {
        /// The text, cut to what is needed to recognise it.
        name: String,
    },
}

/// A short text for people: at most [`TEXT_BYTES_MAX`] bytes, without control characters, since
/// it is printed on the terminal of the other side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(String);

impl Text {
    /// Makes a text of whatever is given: cut at the limit, control characters replaced.
    pub fn clip(text: &str) -> Text {
        let mut clipped = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
        for c in text.chars() {
            let c = if c.is_control() { ' ' } else { c };
            if clipped.len() + c.len_utf8() > TEXT_BYTES_MAX {
                break;
            }
            clipped.push(c);
        }
        Text(clipped)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Text {
    type Error = TextError;

    fn try_from(text: String) -> Result<Text, TextError> {
        if text.len() > TEXT_BYTES_MAX {
            Err(TextError::TooLong { bytes: text.len() })
        } else if text.chars().any(char::is_control) {
            Err(TextError::ControlCharacter)
        } else {
            Ok(Text(text))
        }
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a VM. It becomes part of file names on the target, so nothing else is let in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

impl VmName {
    /// The name, if it is one.
    pub fn new(name: &str) -> Result<VmName, TextError> {
        let fits = (1..=VM_NAME_BYTES_MAX).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if fits {
            Ok(VmName(name.to_owned()))
        } else {
            Err(TextError::NotAName { name: name.chars().take(VM_NAME_BYTES_MAX).collect() })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VmName {
    type Error = TextError;

    fn try_from(name: String) -> Result<VmName, TextError> {
        VmName::new(&name)
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> String {
        name.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes that this protocol carries and does not look into. Copied in one piece, not byte by
/// byte, because the final state travels while the guest is paused.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
