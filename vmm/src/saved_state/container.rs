//! The container of saved state: magic, sections, checksum. Pure.
//!
//! ```text
//! magic 8 │ container version u32 │ section count u32 │ section … │ crc32 of all before
//! section: name [u8; 16], zero-padded ASCII │ version u16 │ kind u16 │ length u32 │ payload
//! ```
//! All numbers little-endian. A reader skips optional sections that it does not know and refuses
//! mandatory ones by name. What is read is hostile: lengths are checked against what is there, and
//! nothing is allocated from a length alone.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

const MAGIC: [u8; 8] = *b"GODWITST";
const CONTAINER_VERSION: u32 = 1;
const NAME_BYTES: usize = 16;
const SECTION_HEADER_BYTES: usize = NAME_BYTES + 2 + 2 + 4;
/// More sections than any machine of ours has (64 vCPUs and a handful of devices).
const SECTIONS_MAX: u32 = 1024;

/// Why saved state could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ContainerError {
    /// Not saved state at all.
    #[error("this is not saved machine state (wrong magic)")]
    Magic,
    /// A container of another version.
    #[error(
        "saved machine state has container version {found}, this godwit reads {CONTAINER_VERSION}: use the same version on both sides"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// Bytes changed or are missing.
    #[error("saved machine state is damaged: {what}")]
    Damaged {
        /// What does not fit.
        what: &'static str,
    },
    /// A section that must be understood and is not.
    #[error(
        "saved machine state needs section '{name}' version {version}, which this godwit does not know: use a newer one on this side"
    )]
    Unknown {
        /// The section's name.
        name: String,
        /// The section's version.
        version: u16,
    },
    /// A section that must be there and is not.
    #[error("saved machine state lacks section '{name}'")]
    Missing {
        /// The section's name.
        name: &'static str,
    },
    /// A section's payload does not decode.
    #[error("section '{name}' of saved machine state is malformed")]
    Malformed {
        /// The section's name.
        name: String,
    },
}

/// Whether a reader may skip a section that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Without it the guest would not be the same.
    Mandatory,
    /// A hint.
    Optional,
}

/// One section as read.
#[derive(Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// The version of its payload.
    pub version: u16,
    /// Whether it may be skipped.
    pub kind: SectionKind,
    payload: &'a [u8],
}

impl Section<'_> {
    /// Decodes the payload; every byte of it must be used.
    ///
    /// # Errors
    /// It does not decode as `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ContainerError> {
        let malformed = || ContainerError::Malformed { name: self.name.to_owned() };
        let (value, rest) = postcard::take_from_bytes(self.payload).map_err(|_| malformed())?;
        if rest.is_empty() { Ok(value) } else { Err(malformed()) }
    }

    /// What to do with a section that the reader does not know.
    ///
    /// # Errors
    /// It is mandatory.
    pub fn skip(&self) -> Result<(), ContainerError> {
        match self.kind {
            SectionKind::Optional => Ok(()),
            SectionKind::Mandatory => {
                Err(ContainerError::Unknown { name: self.name.to_owned(), version: self.version })
            }
        }
    }
}

/// Writes a container; `fill` adds the sections.
#[must_use]
pub fn write_container(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer { bytes: Vec::with_capacity(16 << 10), sections: 0 };
    writer.bytes.extend_from_slice(&MAGIC);
    writer.bytes.extend_from_slice(&CONTAINER_VERSION.to_le_bytes());
    writer.bytes.extend_from_slice(&0_u32.to_le_bytes());
    fill(&mut writer);
    let Writer { mut bytes, sections } = writer;
    bytes[12..16].copy_from_slice(&sections.to_le_bytes());
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Collects sections for [`write_container`].
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    sections: u32,
}

impl Writer {
    /// Adds a mandatory section. `name` is at most 16 ASCII bytes.
    pub fn mandatory(&mut self, name: &'static str, version: u16, payload: &impl Serialize) {
        self.section(name, version, 1, payload);
    }

    /// Adds a section that a reader may skip. `name` is at most 16 ASCII bytes.
    pub fn optional(&mut self, name: &'static str, version: u16, payload: &impl Serialize) {
        self.section(name, version, 0, payload);
    }

    fn section(&mut self, name: &'static str, version: u16, kind: u16, payload: &impl Serialize) {
        let payload = postcard::to_stdvec(payload).expect("our structs serialize to memory");
        let mut padded = [0; NAME_BYTES];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(&padded);
        self.bytes.extend_from_slice(&version.to_le_bytes());
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        let length = u32::try_from(payload.len()).expect("a section is far below 4 GiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&payload);
        self.sections += 1;
    }
}

/// Reads a container and gives its sections in order.
///
/// # Errors
/// It is not one, of another version, or damaged.
pub fn read_container(bytes: &[u8]) -> Result<Vec<Section<'_>>, ContainerError> {
    let damaged = |what| ContainerError::Damaged { what };
    if !bytes.starts_with(&MAGIC) {
        return Err(ContainerError::Magic);
    }
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(damaged("it is cut short"))?;
    let mut rest = body.get(MAGIC.len()..).ok_or(damaged("it is cut short"))?;
    let found = u32::from_le_bytes(take(&mut rest).ok_or(damaged("it is cut short"))?);
    if found != CONTAINER_VERSION {
        return Err(ContainerError::Version { found });
    }
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(damaged("its checksum is wrong"));
    }
    let count = u32::from_le_bytes(take(&mut rest).ok_or(damaged("it is cut short"))?);
    if count > SECTIONS_MAX {
        return Err(damaged("it claims too many sections"));
    }
    let mut sections = Vec::new();
    for _ in 0..count {
        sections.push(read_section(&mut rest).ok_or(damaged("a section is cut short or misnamed"))?);
    }
    if !rest.is_empty() {
        return Err(damaged("bytes follow the last section"));
    }
    Ok(sections)
}

fn read_section<'a>(rest: &mut &'a [u8]) -> Option<Section<'a>> {
    let (header, after) = rest.split_at_checked(SECTION_HEADER_BYTES)?;
    let (name, mut fields) = header.split_at(NAME_BYTES);
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let version = u16::from_le_bytes(take(&mut fields)?);
    let kind = match u16::from_le_bytes(take(&mut fields)?) {
        0 => SectionKind::Optional,
        1 => SectionKind::Mandatory,
        _ => return None,
    };
    let length = usize::try_from(u32::from_le_bytes(take(&mut fields)?)).ok()?;
    let (payload, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(Section { name, version, kind, payload })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        write_container(|w| {
            w.mandatory("one", 1, &42_u32);
            w.optional("two", 7, &"text");
        })
    }

    #[test]
    fn round_trip() {
        let bytes = sample();
        let sections = read_container(&bytes).unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!((sections[0].name, sections[0].version), ("one", 1));
        assert_eq!(sections[0].decode::<u32>(), Ok(42));
        assert!(sections[1].skip().is_ok());
        assert_eq!(sections[0].skip(), Err(ContainerError::Unknown { name: "one".to_owned(), version: 1 }));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(read_container(&bytes[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read_container(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_that_lie_are_damage_not_panics() {
        let mut bytes = sample();
        let at = 16 + NAME_BYTES + 4;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let body = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(read_container(&bytes), Err(ContainerError::Damaged { .. })));
    }

    #[test]
    fn payloads_with_leftovers_are_malformed() {
        let bytes = write_container(|w| w.mandatory("one", 1, &(1_u32, 2_u32)));
        let sections = read_container(&bytes).unwrap();
        assert!(matches!(sections[0].decode::<u32>(), Err(ContainerError::Malformed { .. })));
    }
}
