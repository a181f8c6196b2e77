//! Where a Multiboot kernel belongs: its header's addresses come before those of its ELF header. Pure.

use crate::boot::elf::{Kernel, Segment};
use crate::boot::error::BootError;

/// The header's own addresses, all physical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::boot) struct AddressFields {
    /// Where in the file the header was found.
    pub(in crate::boot) header_offset: usize,
    pub(in crate::boot) header: u32,
    pub(in crate::boot) load: u32,
    /// 0: the end of the file.
    pub(in crate::boot) load_end: u32,
    /// 0: there is none.
    pub(in crate::boot) bss_end: u32,
    /// Where to enter; Multiboot 2 has it elsewhere.
    pub(in crate::boot) entry: Option<u32>,
}

/// What goes where, and where it is entered.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::boot) struct Placed<'a> {
    pub(in crate::boot) segments: Vec<Segment<'a>>,
    pub(in crate::boot) entry: u32,
}

/// Finds out what goes where; `entry` comes before any other entry point.
pub(in crate::boot) fn place<'a>(
    file: &'a [u8],
    elf: Option<&Kernel<'a>>,
    addresses: Option<&AddressFields>,
    entry: Option<u32>,
) -> Result<Placed<'a>, BootError> {
    let damaged = |what| BootError::DamagedMultiboot { what };
    let (segments, own_entry) = match (addresses, elf) {
        (Some(addresses), _) => {
            (vec![segment(file, addresses).map_err(damaged)?], addresses.entry.map(u64::from))
        }
        (None, Some(elf)) => (elf.segments.clone(), Some(elf.entry)),
        (None, None) => return Err(damaged("it is no ELF file, and its header has no addresses")),
    };
    let entry = entry.map(u64::from).or(own_entry).ok_or(damaged("it has no entry point"))?;
    let inside =
        segments.iter().any(|s| entry >= s.guest_address && entry - s.guest_address < s.memory_bytes);
    match u32::try_from(entry) {
        Ok(entry) if inside => Ok(Placed { segments, entry }),
        _ => Err(BootError::EntryOutside { entry }),
    }
}

fn segment<'a>(file: &'a [u8], fields: &AddressFields) -> Result<Segment<'a>, &'static str> {
    let before = fields.header.checked_sub(fields.load).ok_or("its load address is above its header's")?;
    let before = usize::try_from(before).expect("32 bits");
    let begin =
        fields.header_offset.checked_sub(before).ok_or("its load address is before the file's begin")?;
    let data = &file[begin..];
    let data = match fields.load_end {
        0 => data,
        end => {
            let bytes = end.checked_sub(fields.load).ok_or("its load address is above its end")?;
            let bytes = usize::try_from(bytes).expect("32 bits");
            data.get(..bytes).ok_or("it loads more than the file has: is the file complete?")?
        }
    };
    let loaded = data.len() as u64;
    let memory_bytes = match fields.bss_end {
        0 => loaded,
        end => u64::from(end).checked_sub(fields.load.into()).ok_or("its bss ends before it begins")?,
    };
    if memory_bytes < loaded {
        return Err("its bss ends within what is loaded");
    }
    Ok(Segment { guest_address: fields.load.into(), data, memory_bytes })
}
