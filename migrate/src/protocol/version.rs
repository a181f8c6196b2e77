//! Which protocol the two sides speak.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The oldest version that this build speaks.
pub const PROTOCOL_MIN: Version = Version(1);
/// The newest version that this build speaks.
pub const PROTOCOL_MAX: Version = Version(1);

/// The versions that one side speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest.
    pub min: Version,
    /// The newest.
    pub max: Version,
}

impl VersionRange {
    /// What this build speaks.
    pub const OURS: VersionRange = VersionRange { min: PROTOCOL_MIN, max: PROTOCOL_MAX };

    /// Whether `version` is one of these.
    pub fn contains(self, version: Version) -> bool {
        self.min <= version && version <= self.max
    }

    /// The newest version that both speak.
    pub fn common(self, other: VersionRange) -> Option<Version> {
        let newest = self.max.min(other.max);
        (self.contains(newest) && other.contains(newest)).then_some(newest)
    }
}

/// The newest version that this build and a peer with this offer both speak.
pub fn negotiate(offer_min: Version, offer_max: Version) -> Option<Version> {
    VersionRange::OURS.common(VersionRange { min: offer_min, max: offer_max })
}

/// What a side can do beyond the version's common ground, one bit each.
///
/// Bits 0 to 31 are optional: a peer that does not know one leaves it out of its answer. Bits 32
/// to 63 are mandatory: a peer that does not know one must refuse, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features(u64);

impl Features {
    /// None.
    pub const NONE: Features = Features(0);
    /// Those that this build knows. None are defined yet.
    pub const KNOWN: Features = Features(0);
    /// The half whose bits must be understood.
    pub const MANDATORY: Features = Features(0xffff_ffff_0000_0000);

    /// The features with these bits.
    pub const fn from_bits(bits: u64) -> Features {
        Features(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// What a side that knows `known` may use of this offer, or the number of the lowest
    /// mandatory bit that it does not know.
    pub fn accept(self, known: Features) -> Result<Features, u32> {
        let unknown_mandatory = self.0 & Features::MANDATORY.0 & !known.0;
        if unknown_mandatory == 0 {
            Ok(Features(self.0 & known.0))
        } else {
            Err(unknown_mandatory.trailing_zeros())
        }
    }
}
