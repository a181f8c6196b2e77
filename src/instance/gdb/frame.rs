//! Cuts what gdb sends into packets, before `gdbstub` sees a byte of it. Pure.
//!
//! A packet is `$…#` and two digits; a lone 0x03 is an interrupt. What is between packets is dropped. What
//! no gdb would send is refused here: then the connection ends.

/// Bytes of the longest packet, which gdb is told.
pub(super) const PACKET_BYTES_MAX: usize = 16 << 10;
/// Of memory, two digits a byte fit into a packet.
const MEMORY_BYTES_MAX: u64 = (PACKET_BYTES_MAX / 2) as u64;
/// Ctrl-C.
const INTERRUPT: u8 = 0x03;
/// gdb did not understand an answer. On a reliable connection it always does.
const NOT_UNDERSTOOD: u8 = b'-';

/// What no gdb would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("a packet is longer than {PACKET_BYTES_MAX} bytes")]
    TooLong,
    #[error("a packet asks for more memory than fits into an answer")]
    TooMuchMemory,
    #[error("an answer was not understood")]
    NotUnderstood,
}

/// Gathers one packet after the other.
#[derive(Debug, Default)]
pub(super) struct Framer {
    packet: Vec<u8>,
    digits_left: Option<u8>,
}

impl Framer {
    /// Takes one byte; a whole packet, if that was its last one.
    pub(super) fn push(&mut self, byte: u8) -> Result<Option<Vec<u8>>, Nonsense> {
        if self.packet.is_empty() {
            return match byte {
                b'$' => {
                    self.packet.push(byte);
                    Ok(None)
                }
                INTERRUPT => Ok(Some(vec![INTERRUPT])),
                NOT_UNDERSTOOD => Err(Nonsense::NotUnderstood),
                _ => Ok(None),
            };
        }
        self.packet.push(byte);
        match &mut self.digits_left {
            None if byte == b'#' => self.digits_left = Some(2),
            None => {}
            Some(left) => {
                *left -= 1;
                if *left == 0 {
                    self.digits_left = None;
                    let packet = std::mem::take(&mut self.packet);
                    return if asks_for_too_much(&packet) {
                        Err(Nonsense::TooMuchMemory)
                    } else {
                        Ok(Some(packet))
                    };
                }
            }
        }
        if self.packet.len() >= PACKET_BYTES_MAX { Err(Nonsense::TooLong) } else { Ok(None) }
    }
}

/// `m ADDRESS,LENGTH`: `gdbstub` walks any length, in pieces whose addresses may overflow.
fn asks_for_too_much(packet: &[u8]) -> bool {
    let Some(body) = packet.strip_prefix(b"$m") else { return false };
    let digits = |bytes: &[u8]| u64::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
    let body = body.split(|byte| *byte == b'#').next().unwrap_or(body);
    let length = body.iter().position(|byte| *byte == b',').and_then(|comma| digits(&body[comma + 1..]));
    length.is_none_or(|length| length > MEMORY_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Nonsense> {
        let mut framer = Framer::default();
        let packets: Result<Vec<_>, _> = bytes.iter().map(|byte| framer.push(*byte)).collect();
        Ok(packets?.into_iter().flatten().collect())
    }

    #[test]
    fn packets_are_cut_out_of_noise() {
        let packets = pushed(b"+GET / HTTP/1.1\r\n$qSupported:x#00+\x03$g#67$m0,10#0").unwrap();
        assert_eq!(packets, [&b"$qSupported:x#00"[..], b"\x03", b"$g#67"]);
        assert_eq!(pushed(b"$X1,3:\x03##00").unwrap(), [b"$X1,3:\x03##0"], "binary data is escaped by gdb");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(pushed(&[b'$'; PACKET_BYTES_MAX]), Err(Nonsense::TooLong));
        assert_eq!(pushed(b"$m0,ffffffffffffffff#00"), Err(Nonsense::TooMuchMemory));
        assert_eq!(pushed(b"$mffffffffffffffff,2001#00"), Err(Nonsense::TooMuchMemory));
        assert_eq!(pushed(b"$m0#00"), Err(Nonsense::TooMuchMemory));
        assert_eq!(pushed(b"+-"), Err(Nonsense::NotUnderstood));
        assert!(pushed(b"$mffffffffffffffff,2000#00").is_ok());
    }
}
