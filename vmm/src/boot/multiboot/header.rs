//! Finds a Multiboot 1 header in a file. Pure.

use super::AddressFields;
use crate::boot::bytes::get32;
use crate::boot::error::BootError;

const MAGIC: u32 = 0x1bad_b002;
/// The header lies within the first so many bytes.
const SEARCHED_BYTES: usize = 8192;
const ALIGNMENT: usize = 4;
/// Modules on pages, memory information: ours always are, and always is there.
const ALWAYS_TRUE: u32 = 0b11;
const VIDEO: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;
/// What a loader must know or refuse.
const REQUIREMENTS: u32 = 0xffff;

/// What a kernel asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::boot) struct Header {
    pub(super) addresses: Option<AddressFields>,
    /// It wants to know how its screen looks.
    pub(super) video: bool,
}

/// `None` is a file without one.
pub(in crate::boot) fn find(file: &[u8]) -> Result<Option<Header>, BootError> {
    let searched = &file[..file.len().min(SEARCHED_BYTES)];
    let found = (0..searched.len()).step_by(ALIGNMENT).find(|at| is_header(searched, *at));
    found.map(|at| read(file, at)).transpose()
}

fn is_header(file: &[u8], at: usize) -> bool {
    let [Some(magic), Some(flags), Some(checksum)] = [at, at + 4, at + 8].map(|at| get32(file, at)) else {
        return false;
    };
    magic == MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0
}

fn read(file: &[u8], at: usize) -> Result<Header, BootError> {
    let short = BootError::DamagedMultiboot { what: "its header is cut short" };
    let flags = get32(file, at + 4).ok_or(short)?;
    let unknown = flags & REQUIREMENTS & !(ALWAYS_TRUE | VIDEO);
    if unknown != 0 {
        return Err(BootError::MultibootNeeds { what: format!("what its header flags {unknown:#x} mean") });
    }
    let addresses = (flags & ADDRESSES != 0).then(|| {
        let field = |index: usize| {
            let short = BootError::DamagedMultiboot { what: "its header's addresses are cut short" };
            get32(file, at + 12 + 4 * index).ok_or(short)
        };
        Ok::<_, BootError>(AddressFields {
            header_offset: at,
            header: field(0)?,
            load: field(1)?,
            load_end: field(2)?,
            bss_end: field(3)?,
            entry: Some(field(4)?),
        })
    });
    Ok(Header { addresses: addresses.transpose()?, video: flags & VIDEO != 0 })
}
