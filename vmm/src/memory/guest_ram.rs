//! Guest RAM in one memfd, mapped shared.
//!
//! A memfd so that the same memory can be handed to another process or served by userfaultfd.
//! The guest changes this memory at any time, so it is never seen as a Rust reference: small
//! accesses go through `vm-memory`, bulk access through raw addresses that only system calls and
//! [`GuestRam::copy_out`] touch.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
use rustix::mm::Advice;
use thiserror::Error;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, mmap::MmapRegionBuilder,
};

use super::host_memory;
use super::layout::{LayoutError, RamLayout};
use crate::PAGE_SIZE;

/// What can go wrong with guest RAM.
#[derive(Debug, Error)]
pub enum RamError {
    /// The size itself is impossible.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The host has less free memory than the guest wants.
    #[error(
        "the guest wants {wanted_bytes} bytes of memory, the host has {available_bytes} free: \
         give it less with --memory, or free some"
    )]
    HostLacksMemory {
        /// What the guest wants.
        wanted_bytes: u64,
        /// What the host can give.
        available_bytes: u64,
    },
    /// The memfd could not be made or mapped.
    #[error("cannot {what} {bytes} bytes of guest memory: {source}")]
    Map {
        /// The step that failed.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// Memory that was handed over is not this guest's.
    #[error("the memory that was handed over is not {bytes} bytes of guest RAM: {what}")]
    NotThisRam {
        /// What it should be.
        bytes: u64,
        /// Why it is not.
        what: &'static str,
    },
    /// An address range that is not RAM of this guest.
    #[error("guest addresses {guest_address:#x}..+{bytes:#x} are not RAM of this guest")]
    NotRam {
        /// Its first byte.
        guest_address: u64,
        /// Its length.
        bytes: u64,
    },
    /// The host could not provide the pages behind a range.
    #[error("the host cannot provide memory for guest pages {first_page:#x}..+{pages}: {source}")]
    Populate {
        /// First guest page.
        first_page: u64,
        /// How many.
        pages: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// Asking the memfd which pages exist failed.
    #[error("cannot tell which guest pages exist: {0}")]
    Extents(#[source] io::Error),
}

/// RAM of one guest. Cheap to share between threads behind an `Arc`.
#[derive(Debug)]
pub struct GuestRam {
    layout: RamLayout,
    file: Arc<File>,
    memory: GuestMemoryMmap<()>,
    /// Host address of each range's first byte, by range index.
    host_bases: Vec<usize>,
}

impl GuestRam {
    /// Allocates RAM of this layout. The pages themselves come when they are touched first.
    ///
    /// # Errors
    /// The host lacks the memory, or refuses the file or mapping.
    pub fn allocate(layout: RamLayout) -> Result<Self, RamError> {
        let bytes = layout.bytes();
        if let Some(available_bytes) = host_memory::available_bytes()
            && bytes > available_bytes
        {
            return Err(RamError::HostLacksMemory { wanted_bytes: bytes, available_bytes });
        }
        let map = |what| move |source: io::Error| RamError::Map { what, bytes, source };
        let fd = rustix::fs::memfd_create("godwit-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|e| map("create a memfd for")(e.into()))?;
        rustix::fs::ftruncate(&fd, bytes).map_err(|e| map("size the memfd for")(e.into()))?;
        // So that a process that this memory is handed to can rely on its size.
        rustix::fs::fcntl_add_seals(&fd, size_seals()).map_err(|e| map("seal the memfd of")(e.into()))?;
        Self::map(layout, File::from(fd))
    }

    /// Takes over RAM that another process allocated and handed over, with all that is in it.
    ///
    /// # Errors
    /// It is not a memfd of this size whose size can never change, or cannot be mapped.
    pub fn adopt(layout: RamLayout, fd: OwnedFd) -> Result<Self, RamError> {
        let bytes = layout.bytes();
        let refused = |what| RamError::NotThisRam { bytes, what };
        let file = File::from(fd);
        let found = file.metadata().map_err(|_| refused("its size cannot be told"))?.len();
        if found != bytes {
            return Err(refused("it has another size"));
        }
        // Without these, whoever handed it over could shrink it under us: every access would be a SIGBUS.
        match rustix::fs::fcntl_get_seals(&file) {
            Ok(seals) if seals.contains(size_seals()) => Self::map(layout, file),
            Ok(_) => Err(refused("its size is not sealed")),
            Err(_) => Err(refused("it is not a memfd")),
        }
    }

    fn map(layout: RamLayout, file: File) -> Result<Self, RamError> {
        let bytes = layout.bytes();
        let map = |what| move |source: io::Error| RamError::Map { what, bytes, source };
        let file = Arc::new(file);
        let mut regions = Vec::new();
        let mut host_bases = Vec::new();
        for range in layout.ranges() {
            let region = map_range(&file, range.file_offset, range.bytes).map_err(map("map"))?;
            host_bases.push(region.as_ptr() as usize);
            let region = GuestRegionMmap::new(region, GuestAddress(range.guest_base))
                .ok_or_else(|| map("place")(io::Error::other("address overflow")))?;
            regions.push(region);
        }
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|e| map("place")(io::Error::other(e)))?;
        Ok(Self { layout, file, memory, host_bases })
    }

    /// Where the RAM lies.
    #[must_use]
    pub fn layout(&self) -> &RamLayout {
        &self.layout
    }

    /// The RAM as `vm-memory` sees it, for small accesses.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    /// The memfd.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Host address of the first byte of range `index`.
    #[must_use]
    pub fn host_base(&self, index: usize) -> usize {
        self.host_bases[index]
    }

    /// Writes `data` at `guest_address`.
    ///
    /// # Errors
    /// Some of it is not RAM.
    pub fn write(&self, guest_address: u64, data: &[u8]) -> Result<(), RamError> {
        self.memory
            .write_slice(data, GuestAddress(guest_address))
            .map_err(|_| RamError::NotRam { guest_address, bytes: data.len() as u64 })
    }

    /// Reads into `data` from `guest_address`.
    ///
    /// # Errors
    /// Some of it is not RAM.
    pub fn read(&self, guest_address: u64, data: &mut [u8]) -> Result<(), RamError> {
        self.memory
            .read_slice(data, GuestAddress(guest_address))
            .map_err(|_| RamError::NotRam { guest_address, bytes: data.len() as u64 })
    }

    /// Host address of guest page `first_page`, which with the next `pages - 1` is RAM in one range.
    ///
    /// # Errors
    /// The pages are not RAM, or lie in two ranges.
    pub fn host_address(&self, first_page: u64, pages: u64) -> Result<usize, RamError> {
        let (index, range) = self.layout.range_of_pages(first_page, pages).ok_or({
            RamError::NotRam {
                guest_address: first_page.saturating_mul(PAGE_SIZE),
                bytes: pages.saturating_mul(PAGE_SIZE),
            }
        })?;
        let offset = (first_page - range.first_page()) * PAGE_SIZE;
        Ok(self.host_bases[index] + to_usize(offset))
    }

    /// Copies whole pages from `first_page` on into `out`. The guest may be writing them at the same
    /// time: then what is copied is torn, and the dirty log says so.
    ///
    /// # Errors
    /// The pages are not RAM.
    pub fn copy_out(&self, first_page: u64, out: &mut [u8]) -> Result<(), RamError> {
        let pages = out.len() as u64 / PAGE_SIZE;
        let host = self.host_address(first_page, pages)?;
        // SAFETY: `host_address` checked that all these pages are RAM of one mapping that lives as
        // long as `self`, and `out` is our own. The source may change under the copy (the guest is
        // another CPU to us): the bytes are only ever treated as bytes, never as a typed value.
        unsafe {
            std::ptr::copy_nonoverlapping(host as *const u8, out.as_mut_ptr(), out.len());
        }
        Ok(())
    }

    /// Makes the host provide writable memory behind these pages now, so that no one waits for it later.
    ///
    /// # Errors
    /// The pages are not RAM or the host is out of memory.
    pub fn populate(&self, first_page: u64, pages: u64) -> Result<(), RamError> {
        let host = self.host_address(first_page, pages)?;
        // SAFETY: the range lies within one of our own mappings; this advice allocates pages and
        // changes no content.
        let done = unsafe {
            rustix::mm::madvise(host as *mut _, to_usize(pages * PAGE_SIZE), Advice::LinuxPopulateWrite)
        };
        match done {
            Ok(()) => Ok(()),
            // Before Linux 5.14 there is no such advice: the pages come at first touch, as ever.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(e) => Err(RamError::Populate { first_page, pages, source: e.into() }),
        }
    }

    /// Maps every page that has memory behind it into this process, so that no one waits for that later.
    /// Changes nothing in them.
    ///
    /// # Errors
    /// The memfd does not tell which pages there are, or the host is out of memory.
    pub fn map_existing(&self) -> Result<(), RamError> {
        let mut extents = Vec::new();
        for range in self.layout.ranges() {
            self.extents(range.first_page(), range.pages(), &mut extents)?;
            for &(first_page, pages) in &extents {
                self.populate(first_page, pages)?;
            }
        }
        Ok(())
    }

    /// Makes these pages zero, and keeps memory behind them.
    ///
    /// # Errors
    /// The pages are not RAM.
    pub fn zero(&self, first_page: u64, pages: u64) -> Result<(), RamError> {
        let host = self.host_address(first_page, pages)?;
        // SAFETY: checked above: these pages are RAM of one mapping that lives as long as `self`.
        unsafe { std::ptr::write_bytes(host as *mut u8, 0, to_usize(pages * PAGE_SIZE)) };
        Ok(())
    }

    /// Parts of `first_page .. first_page + pages` that have memory behind them; the rest was never
    /// touched by anyone, so it reads as zero. Asking does not touch anything.
    ///
    /// # Errors
    /// The pages are not RAM, or the memfd does not tell.
    pub fn extents(&self, first_page: u64, pages: u64, out: &mut Vec<(u64, u64)>) -> Result<(), RamError> {
        out.clear();
        let (_, range) = self.layout.range_of_pages(first_page, pages).ok_or(RamError::NotRam {
            guest_address: first_page.saturating_mul(PAGE_SIZE),
            bytes: pages.saturating_mul(PAGE_SIZE),
        })?;
        let to_page = |offset: u64| (offset - range.file_offset) / PAGE_SIZE + range.first_page();
        let mut at = range.file_offset + (first_page - range.first_page()) * PAGE_SIZE;
        let end = at + pages * PAGE_SIZE;
        // `SEEK_DATA` and `SEEK_HOLE` move the file position, which nothing else of ours uses, and
        // whose races are harmless: each call gives its own offset.
        while at < end {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(e) => return Err(RamError::Extents(e.into())),
            };
            if data >= end {
                return Ok(());
            }
            let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(data))
                .map_err(|e| RamError::Extents(e.into()))?
                .min(end);
            out.push((to_page(data), (hole - data).div_ceil(PAGE_SIZE)));
            at = hole;
        }
        Ok(())
    }
}

/// Seals that keep a memfd's size as it is.
fn size_seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

fn map_range(file: &Arc<File>, offset: u64, bytes: u64) -> Result<MmapRegion<()>, io::Error> {
    let file = file.try_clone()?;
    MmapRegionBuilder::new(to_usize(bytes))
        .with_file_offset(FileOffset::new(file, offset))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        // NORESERVE: the guest's size is a promise to the guest, not memory taken from the host yet.
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(io::Error::other)
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("guest RAM fits the address space (x86_64)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(mib: u64) -> GuestRam {
        GuestRam::allocate(RamLayout::new(mib << 20).unwrap()).unwrap()
    }

    #[test]
    fn only_touched_pages_are_extents() {
        let ram = ram(8);
        let mut extents = Vec::new();
        ram.extents(0, 2048, &mut extents).unwrap();
        assert_eq!(extents, []);
        ram.write(5 * PAGE_SIZE + 17, b"x").unwrap();
        ram.write(9 * PAGE_SIZE - 1, b"yz").unwrap();
        ram.extents(0, 2048, &mut extents).unwrap();
        assert_eq!(extents, [(5, 1), (8, 2)]);
        ram.extents(9, 100, &mut extents).unwrap();
        assert_eq!(extents, [(9, 1)]);
    }

    #[test]
    fn populate_makes_extents_and_zero_clears() {
        let ram = ram(8);
        ram.populate(16, 4).unwrap();
        let mut extents = Vec::new();
        ram.extents(0, 2048, &mut extents).unwrap();
        assert_eq!(extents, [(16, 4)]);
        ram.write(17 * PAGE_SIZE, b"data").unwrap();
        ram.zero(17, 1).unwrap();
        let mut page = [1; 4096];
        ram.copy_out(17, &mut page).unwrap();
        assert!(page.iter().all(|b| *b == 0));
    }

    #[test]
    fn memory_that_is_handed_over_keeps_what_is_in_it() {
        let ours = ram(8);
        ours.write(5 * PAGE_SIZE, b"kept").unwrap();
        let fd = ours.file().try_clone_to_owned().unwrap();
        let theirs = GuestRam::adopt(ours.layout().clone(), fd).unwrap();
        let mut bytes = [0; 4];
        theirs.read(5 * PAGE_SIZE, &mut bytes).unwrap();
        assert_eq!(&bytes, b"kept");
    }

    #[test]
    fn memory_that_could_be_pulled_away_is_refused() {
        let layout = RamLayout::new(8 << 20).unwrap();
        let adopt = |fd: OwnedFd| GuestRam::adopt(layout.clone(), fd);
        let other_size = ram(16).file().try_clone_to_owned().unwrap();
        assert!(matches!(adopt(other_size), Err(RamError::NotThisRam { .. })));
        let unsealed = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, 8 << 20).unwrap();
        assert!(matches!(adopt(unsealed), Err(RamError::NotThisRam { .. })));
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(adopt(file.into()), Err(RamError::NotThisRam { .. })));
    }

    #[test]
    fn what_is_not_ram_is_refused() {
        let ram = ram(8);
        assert!(matches!(ram.host_address(2047, 2), Err(RamError::NotRam { .. })));
        assert!(matches!(ram.populate(u64::MAX, 1), Err(RamError::NotRam { .. })));
        assert!(matches!(ram.write(8 << 20, b"x"), Err(RamError::NotRam { .. })));
    }

    #[test]
    fn more_than_the_host_has_is_refused() {
        let layout = RamLayout::new(1 << 44).unwrap();
        assert!(matches!(GuestRam::allocate(layout), Err(RamError::HostLacksMemory { .. })));
    }
}
