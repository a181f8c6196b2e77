//! Frames on the control connection.
//!
//! ```text
//! 0        2      3       4            8           12
//! ┌────────┬──────┬───────┬────────────┬───────────┬──────────────────┐
//! │ "GW"   │ kind │ flags │ length     │ crc32     │ payload          │
//! │        │ u8   │ u8 =0 │ u32 LE     │ u32 LE    │ postcard         │
//! └────────┴──────┴───────┴────────────┴───────────┴──────────────────┘
//!            the checksum covers kind, flags, length and payload
//! ```
//! The frame itself is frozen over all versions of the protocol. A length is checked against the
//! limit of its kind before a byte of the payload is kept.

use super::message::{Kind, Message, OutOfBounds};
use thiserror::Error;

/// The first two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"GW";
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;
/// The payload's buffer grows by at most this much ahead of what has arrived.
const GROWTH_BYTES: usize = 64 << 10;

/// What arrived is not a frame of this protocol, or a message that may not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// Some other program is at the other end.
    #[error("the other end is not a Godwit peer (it began with {found:02x?}): check address and port")]
    NotAGodwitPeer {
        /// The two bytes where the magic should be.
        found: [u8; 2],
    },
    /// A kind that this build does not know.
    #[error("unknown message kind {number}: the other end may be of another version")]
    UnknownKind {
        /// Its number.
        number: u8,
    },
    /// A kind that is not allowed on a connection that just opened.
    #[error("{kind:?} on a connection that has not introduced itself: the peer broke the protocol")]
    NotIntroduced {
        /// The kind.
        kind: Kind,
    },
    /// Flags must be 0.
    #[error("unknown frame flags {flags:#04x}: the other end may be of another version")]
    UnknownFlags {
        /// The flags.
        flags: u8,
    },
    /// Longer than any message of its kind.
    #[error("{kind:?} of {length_bytes} bytes; at most {limit_bytes} are allowed")]
    TooLong {
        /// The kind.
        kind: Kind,
        /// How long it is, or claims to be.
        length_bytes: u64,
        /// The longest payload of that kind.
        limit_bytes: usize,
    },
    /// The frame was damaged on its way.
    #[error("{kind:?} was damaged on its way (checksum differs): start the migration again")]
    BadChecksum {
        /// The kind that it claims to be.
        kind: Kind,
    },
    /// The payload is not an encoding of its kind.
    #[error("malformed {kind:?}: {why}")]
    Malformed {
        /// The kind.
        kind: Kind,
        /// What the decoder said.
        why: String,
    },
    /// The payload is longer than its message.
    #[error("{kind:?} has {bytes} bytes too many: the other end may be of another version")]
    TrailingBytes {
        /// The kind.
        kind: Kind,
        /// How many.
        bytes: usize,
    },
    /// A field is out of its bounds.
    #[error("{kind:?}: {source}")]
    OutOfBounds {
        /// The kind.
        kind: Kind,
        /// Which field, and what is allowed.
        source: OutOfBounds,
    },
}

/// Appends the frame of `message` to `out`. On an error `out` is as it was.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let kind = message.kind();
    message.validate().map_err(|source| CodecError::OutOfBounds { kind, source })?;
    let mut frame = message.write_payload(vec![0; HEADER_BYTES]).map_err(|e| malformed(kind, &e))?;
    let length = frame.len() - HEADER_BYTES;
    let length = check_length(kind, u64::try_from(length).unwrap_or(u64::MAX))?;
    let mut header = FrameHeader { kind, length, crc32: 0 };
    header.crc32 = header.checksum(&frame[HEADER_BYTES..]);
    frame[..HEADER_BYTES].copy_from_slice(&header.encode());
    out.append(&mut frame);
    Ok(())
}

fn malformed(kind: Kind, why: &postcard::Error) -> CodecError {
    CodecError::Malformed { kind, why: why.to_string() }
}

/// The length as the frame carries it, if the kind allows it.
fn check_length(kind: Kind, length_bytes: u64) -> Result<u32, CodecError> {
    let limit_bytes = kind.payload_bytes_max();
    u32::try_from(length_bytes)
        .ok()
        .filter(|&length| usize::try_from(length).is_ok_and(|length| length <= limit_bytes))
        .ok_or(CodecError::TooLong { kind, length_bytes, limit_bytes })
}

#[derive(Debug, Clone, Copy)]
struct FrameHeader {
    kind: Kind,
    length: u32,
    crc32: u32,
}

impl FrameHeader {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.kind.number();
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.crc32.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; HEADER_BYTES], expects: Expects) -> Result<FrameHeader, CodecError> {
        let [m0, m1, number, flags, l0, l1, l2, l3, c0, c1, c2, c3] = bytes;
        if [m0, m1] != MAGIC {
            return Err(CodecError::NotAGodwitPeer { found: [m0, m1] });
        }
        let kind = Kind::from_number(number).ok_or(CodecError::UnknownKind { number })?;
        if flags != 0 {
            return Err(CodecError::UnknownFlags { flags });
        }
        if expects == Expects::Introduction && !kind.opens_a_connection() {
            return Err(CodecError::NotIntroduced { kind });
        }
        let length = check_length(kind, u32::from_le_bytes([l0, l1, l2, l3]).into())?;
        Ok(FrameHeader { kind, length, crc32: u32::from_le_bytes([c0, c1, c2, c3]) })
    }

    fn checksum(self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.encode()[2..8]);
        hasher.update(payload);
        hasher.finalize()
    }
}

/// What a connection may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// Only the small messages by which peers introduce themselves.
    Introduction,
    /// Everything.
    Session,
}

#[derive(Debug, Clone)]
enum Progress {
    Header { have: usize },
    Payload { header: FrameHeader },
    Broken(CodecError),
}

/// Turns bytes into messages, one frame at a time, and holds never more than one.
///
/// ```text
/// while !bytes.is_empty() {
///     let taken = decoder.push(bytes)?;
///     bytes = &bytes[taken..];
///     if let Some(message) = decoder.next()? { … }
/// }
/// ```
/// After an error the stream has no frame boundary any more: every later call returns the same.
#[derive(Debug, Clone)]
pub struct Decoder {
    expects: Expects,
    progress: Progress,
    header: [u8; HEADER_BYTES],
    payload: Vec<u8>,
}

impl Decoder {
    /// For a connection that just opened: it takes small messages only, so that a stranger
    /// can't make this side hold megabytes.
    pub fn for_introduction() -> Decoder {
        Decoder {
            expects: Expects::Introduction,
            progress: Progress::Header { have: 0 },
            header: [0; HEADER_BYTES],
            payload: Vec::new(),
        }
    }

    /// For a connection between peers that know each other.
    pub fn for_session() -> Decoder {
        Decoder { expects: Expects::Session, ..Decoder::for_introduction() }
    }

    /// From here on the peer is known: every kind is taken.
    pub fn introduced(&mut self) {
        self.expects = Expects::Session;
    }

    /// How many bytes are missing until [`next`](Decoder::next) can say more. Never 0, except
    /// when a whole frame waits to be taken, or after an error.
    pub fn wants_bytes(&self) -> usize {
        match &self.progress {
            Progress::Header { have } => HEADER_BYTES - have,
            Progress::Payload { header } => header.bytes().saturating_sub(self.payload.len()),
            Progress::Broken(_) => 0,
        }
    }

    /// Whether the connection may end here: no frame has begun.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.progress, Progress::Header { have: 0 })
    }

    /// How much memory the frame under way takes.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.payload.capacity()
    }

    /// Takes bytes up to the end of the present frame, and returns how many it took.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, CodecError> {
        let mut taken = 0;
        if let Progress::Header { have } = self.progress {
            taken = bytes.len().min(HEADER_BYTES - have);
            self.header[have..have + taken].copy_from_slice(&bytes[..taken]);
            self.progress = Progress::Header { have: have + taken };
            self.look_at_header(have + taken)?;
        }
        match &self.progress {
            Progress::Header { .. } => Ok(taken),
            Progress::Broken(error) => Err(error.clone()),
            Progress::Payload { header } => {
                let missing = header.bytes().saturating_sub(self.payload.len());
                let more = &bytes[taken..];
                let more = &more[..more.len().min(missing)];
                if self.payload.capacity() - self.payload.len() < more.len() {
                    // The claimed length is not believed: memory follows what has arrived.
                    let ahead = self.payload.len().max(GROWTH_BYTES).max(more.len());
                    self.payload.reserve_exact(ahead.min(missing));
                }
                self.payload.extend_from_slice(more);
                Ok(taken + more.len())
            }
        }
    }

    /// The message, once its frame is whole.
    #[expect(clippy::should_implement_trait, reason = "fallible, and not an end when None")]
    pub fn next(&mut self) -> Result<Option<Message>, CodecError> {
        let header = match &self.progress {
            Progress::Header { .. } => return Ok(None),
            Progress::Broken(error) => return Err(error.clone()),
            Progress::Payload { header } => *header,
        };
        if self.payload.len() < header.bytes() {
            return Ok(None);
        }
        let payload = std::mem::take(&mut self.payload);
        match read(header, &payload) {
            Ok(message) => {
                self.progress = Progress::Header { have: 0 };
                Ok(Some(message))
            }
            Err(error) => Err(self.break_off(error)),
        }
    }

    fn look_at_header(&mut self, have: usize) -> Result<(), CodecError> {
        // A wrong peer is told apart by its first two bytes: it may never send twelve.
        let found = [self.header[0], self.header[1]];
        if have >= 2 && found != MAGIC {
            return Err(self.break_off(CodecError::NotAGodwitPeer { found }));
        }
        if have == HEADER_BYTES {
            match FrameHeader::decode(self.header, self.expects) {
                Ok(header) => self.progress = Progress::Payload { header },
                Err(error) => return Err(self.break_off(error)),
            }
        }
        Ok(())
    }

    fn break_off(&mut self, error: CodecError) -> CodecError {
        self.payload = Vec::new();
        self.progress = Progress::Broken(error.clone());
        error
    }
}

impl FrameHeader {
    /// The payload's length. It was checked against a limit that fits.
    fn bytes(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }
}

fn read(header: FrameHeader, payload: &[u8]) -> Result<Message, CodecError> {
    let kind = header.kind;
    if header.checksum(payload) != header.crc32 {
        return Err(CodecError::BadChecksum { kind });
    }
    let (message, left_over) = Message::read_payload(kind, payload).map_err(|e| malformed(kind, &e))?;
    if left_over > 0 {
        return Err(CodecError::TrailingBytes { kind, bytes: left_over });
    }
    message.validate().map_err(|source| CodecError::OutOfBounds { kind, source })?;
    Ok(message)
}
