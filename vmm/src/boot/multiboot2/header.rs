//! Finds a Multiboot 2 header in a file, and reads what its tags ask for. Pure.

use super::info;
use crate::boot::bytes::{get16, get32};
use crate::boot::error::BootError;
use crate::boot::multiboot::AddressFields;

const MAGIC: u32 = 0xe852_50d6;
const ARCHITECTURE_I386: u32 = 0;
/// The header lies within the first so many bytes.
const SEARCHED_BYTES: usize = 32768;
const ALIGNMENT: usize = 8;
const HEADER_BYTES: usize = 16;
/// A tag's flag: it may be ignored.
const OPTIONAL: u16 = 1;
/// "From the file's begin", for a load address.
const FROM_BEGIN: u32 = u32::MAX;

/// What a kernel asks for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::boot) struct Header {
    pub(super) addresses: Option<AddressFields>,
    pub(super) entry: Option<u32>,
    /// It wants to know how its screen looks.
    pub(super) video: bool,
}

/// `None` is a file without one.
pub(in crate::boot) fn find(file: &[u8]) -> Result<Option<Header>, BootError> {
    let searched = &file[..file.len().min(SEARCHED_BYTES)];
    let found = (0..searched.len()).step_by(ALIGNMENT).find_map(|at| Some((at, header_bytes(searched, at)?)));
    found.map(|(at, bytes)| read(file, at, bytes)).transpose()
}

/// Its length, if there is a header.
fn header_bytes(file: &[u8], at: usize) -> Option<usize> {
    let [magic, architecture, bytes, checksum] = [0, 4, 8, 12].map(|field| get32(file, at + field));
    let (magic, architecture, bytes) = (magic?, architecture?, bytes?);
    let sum = magic.wrapping_add(architecture).wrapping_add(bytes).wrapping_add(checksum?);
    let is_header = magic == MAGIC && architecture == ARCHITECTURE_I386 && sum == 0;
    is_header.then(|| usize::try_from(bytes).ok()).flatten()
}

fn read(file: &[u8], at: usize, bytes: usize) -> Result<Header, BootError> {
    let damaged = |what| BootError::DamagedMultiboot { what };
    let short = damaged("its header is cut short");
    let whole = file.get(at..).and_then(|rest| rest.get(..bytes)).filter(|_| bytes <= SEARCHED_BYTES);
    let mut tags = whole.and_then(|header| header.get(HEADER_BYTES..)).ok_or(short)?;
    let mut header = Header::default();
    loop {
        let (Some(kind), Some(flags), Some(size)) = (get16(tags, 0), get16(tags, 2), get32(tags, 4)) else {
            return Err(damaged("its header's tags have no end"));
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let tag = tags.get(8..size).ok_or(damaged("a tag of its header is cut short"))?;
        if kind == 0 {
            return Ok(header);
        }
        if !header.take(kind, tag, at)? && flags & OPTIONAL == 0 {
            return Err(BootError::MultibootNeeds { what: format!("what its header's tag {kind} means") });
        }
        tags = tags.get(size.next_multiple_of(8)..).unwrap_or(&[]);
    }
}

impl Header {
    /// Whether the tag's wish is granted.
    fn take(&mut self, kind: u16, tag: &[u8], header_offset: usize) -> Result<bool, BootError> {
        let field = |index: usize| {
            let short = BootError::DamagedMultiboot { what: "a tag of its header is too short" };
            get32(tag, index * 4).ok_or(short)
        };
        match kind {
            // Information that must be there.
            1 => {
                let mut wanted = tag.chunks_exact(4).filter_map(|kind| get32(kind, 0));
                let missing = wanted.find(|kind| !info::KINDS.contains(kind));
                self.video |= tag.chunks_exact(4).any(|kind| get32(kind, 0) == Some(info::FRAMEBUFFER));
                return Ok(missing.is_none());
            }
            2 => {
                let (header, load) = (field(0)?, field(1)?);
                let from_begin = header.wrapping_sub(u32::try_from(header_offset).unwrap_or(0));
                let load = if load == FROM_BEGIN { from_begin } else { load };
                self.addresses = Some(AddressFields {
                    header_offset,
                    header,
                    load,
                    load_end: field(2)?,
                    bss_end: field(3)?,
                    entry: None,
                });
            }
            3 => self.entry = Some(field(0)?),
            // How a console and a screen should be: advice, and text is what there is.
            4 | 5 => self.video = true,
            // Modules on pages: ours are. EFI: this is none, so its entries are not used. Relocatable: it
            // is loaded where it was linked to.
            6..=10 => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}
