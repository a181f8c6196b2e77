//! Reads an ELF kernel, 32 or 64 bit: what it loads where, and its entries. Pure: bytes in, plan out.

use object::elf::{
    EM_386, EM_X86_64, ET_EXEC, FileHeader32, FileHeader64, Machine, NoteType, PT_INTERP, PT_LOAD, PT_NOTE,
};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, FileKind};

use super::error::BootError;

/// The note's name and type (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: (&[u8], NoteType) = (b"Xen", NoteType(18));
/// More segments than any kernel has: bounds the work on a hostile file.
const SEGMENTS_MAX: usize = 256;

/// A piece of the file that goes to guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) guest_address: u64,
    pub(super) data: &'a [u8],
    /// Size in memory; what `data` does not fill is zero.
    pub(super) memory_bytes: u64,
}

/// What there is to load, and where it can be entered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kernel<'a> {
    pub(super) segments: Vec<Segment<'a>>,
    /// Whether the file is a 64-bit one.
    pub(super) class64: bool,
    /// The header's entry point as a physical address.
    pub(super) entry: u64,
    /// The entry that its PVH note names.
    pub(super) pvh_entry: Option<u32>,
    /// Whether it is linked to fixed addresses and needs no program interpreter: no program of an
    /// operating system is both.
    pub(super) stands_alone: bool,
}

impl Kernel<'_> {
    /// Whether the address lies in what is loaded.
    pub(super) fn loads(&self, address: u64) -> bool {
        self.segments.iter().any(|s| holds(s.guest_address, s.memory_bytes, address))
    }
}

/// `None` is a file of another kind.
pub(super) fn parse(file: &[u8]) -> Result<Option<Kernel<'_>>, BootError> {
    match FileKind::parse(file) {
        Ok(FileKind::Elf64) => parse_as::<FileHeader64<Endianness>>(file, true, EM_X86_64).map(Some),
        Ok(FileKind::Elf32) => parse_as::<FileHeader32<Endianness>>(file, false, EM_386).map(Some),
        _ => Ok(None),
    }
}

fn parse_as<Elf: FileHeader<Endian = Endianness>>(
    file: &[u8],
    class64: bool,
    machine: Machine,
) -> Result<Kernel<'_>, BootError> {
    let damaged = |e: object::Error| BootError::DamagedElf { what: e.to_string() };
    let header = Elf::parse(file).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    // A 32-bit file may also name the 64-bit machine (x32), and some small kernels do.
    let machines = [machine, EM_386, EM_X86_64];
    if endian != Endianness::Little || !machines.contains(&header.e_machine(endian)) {
        return Err(BootError::WrongArchitecture);
    }
    let headers = header.program_headers(endian, file).map_err(damaged)?;
    if headers.len() > SEGMENTS_MAX {
        return Err(BootError::DamagedElf { what: "it has more than 256 program headers".to_owned() });
    }
    let mut kernel = Kernel {
        segments: Vec::new(),
        class64,
        entry: header.e_entry(endian).into(),
        pvh_entry: None,
        stands_alone: header.e_type(endian) == ET_EXEC,
    };
    // Where the entry point is if it is a virtual address.
    let mut entry_of_virtual = None;
    for header in headers {
        match header.p_type(endian) {
            PT_LOAD => {
                let Some(segment) = segment::<Elf>(header, endian, file)? else { continue };
                let start: u64 = header.p_vaddr(endian).into();
                if holds(start, segment.memory_bytes, kernel.entry) {
                    entry_of_virtual = segment.guest_address.checked_add(kernel.entry - start);
                }
                kernel.segments.push(segment);
            }
            PT_NOTE => {
                if let Some(notes) = header.notes(endian, file).map_err(damaged)? {
                    kernel.pvh_entry = kernel.pvh_entry.or(pvh_entry::<Elf>(notes, endian)?);
                }
            }
            PT_INTERP => kernel.stands_alone = false,
            _ => {}
        }
    }
    if !kernel.loads(kernel.entry) {
        kernel.entry = entry_of_virtual.unwrap_or(kernel.entry);
    }
    Ok(kernel)
}

fn holds(start: u64, bytes: u64, address: u64) -> bool {
    address >= start && address - start < bytes
}

fn segment<'a, Elf: FileHeader<Endian = Endianness>>(
    header: &Elf::ProgramHeader,
    endian: Endianness,
    file: &'a [u8],
) -> Result<Option<Segment<'a>>, BootError> {
    let memory_bytes: u64 = header.p_memsz(endian).into();
    if memory_bytes == 0 {
        return Ok(None);
    }
    let data = header.data(endian, file).map_err(|()| BootError::DamagedElf {
        what: "a segment reaches beyond the end of the file: is the file complete?".to_owned(),
    })?;
    if data.len() as u64 > memory_bytes {
        return Err(BootError::DamagedElf {
            what: "a segment is larger in the file than in memory".to_owned(),
        });
    }
    Ok(Some(Segment { guest_address: header.p_paddr(endian).into(), data, memory_bytes }))
}

fn pvh_entry<Elf: FileHeader<Endian = Endianness>>(
    mut notes: NoteIterator<'_, Elf>,
    endian: Endianness,
) -> Result<Option<u32>, BootError> {
    while let Some(note) = notes.next().map_err(|e| BootError::DamagedElf { what: e.to_string() })? {
        if (note.name(), note.n_type(endian)) != PVH_NOTE {
            continue;
        }
        // 4 bytes, or 8 in a 64-bit kernel; either way it is a 32-bit address.
        let entry = match note.desc() {
            desc if desc.len() == 4 => desc.try_into().map(u32::from_le_bytes).ok(),
            desc if desc.len() == 8 => {
                desc.try_into().map(u64::from_le_bytes).ok().and_then(|e| e.try_into().ok())
            }
            _ => None,
        };
        return entry.map(Some).ok_or_else(|| BootError::DamagedElf {
            what: "its PVH note does not hold a 32-bit address".to_owned(),
        });
    }
    Ok(None)
}
