//! Frames in a stream of bytes, without a look into them.

use godwit_migrate::protocol::Kind;
use godwit_migrate::protocol::codec::HEADER_BYTES;

use super::Way;

/// A frame that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which way it goes.
    pub way: Way,
    /// Its kind.
    pub kind: Kind,
    /// How many of its kind went this way before, since the `Hello` of this attempt.
    pub nth: u32,
    /// Its bytes, header included.
    pub bytes: usize,
}

/// Kind and length of the frame that begins here, once its header is there.
///
/// # Panics
/// When it is no frame: source and target must not say anything else on such a connection.
pub(super) fn header(bytes: &[u8]) -> Option<(Kind, usize)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let [b'G', b'W', number, _, l0, l1, l2, l3, ..] = *header else { panic!("not a frame: {header:02x?}") };
    let kind = Kind::from_number(number).unwrap_or_else(|| panic!("not a kind: {number}"));
    let payload = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).expect("a length in memory");
    Some((kind, HEADER_BYTES + payload))
}
