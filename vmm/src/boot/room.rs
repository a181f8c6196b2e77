//! The guest's memory while a kernel is put into it: what is written goes where room is.

use super::elf::Segment;
use super::error::BootError;
use super::memory_map::{LOW_RAM_END, ONE_MIB};
use super::placement::Placement;
use crate::memory::{GuestRam, RamLayout};

/// Guest RAM, and what of it is taken.
#[derive(Debug)]
pub(super) struct Room<'a> {
    ram: &'a GuestRam,
    placement: Placement,
    low_end: u64,
}

impl<'a> Room<'a> {
    pub(super) fn new(ram: &'a GuestRam) -> Self {
        let mut placement = Placement::new();
        // The firmware's area of a PC is RAM here, but the kernel is told that it is not.
        placement.take(LOW_RAM_END, ONE_MIB - LOW_RAM_END);
        Self { ram, placement, low_end: ram.layout().low().guest_end() }
    }

    /// Writes the pieces of a kernel, and takes their room.
    pub(super) fn load(&mut self, segments: &[Segment<'_>]) -> Result<(), BootError> {
        for segment in segments {
            let (guest_address, bytes) = (segment.guest_address, segment.memory_bytes);
            if !self.is_ram(guest_address, bytes) {
                return Err(BootError::KernelOutsideRam { guest_address, bytes });
            }
            // Memory is fresh, so the part that the file does not fill is zero already.
            self.ram.write(guest_address, segment.data)?;
            self.placement.take(guest_address, bytes);
        }
        Ok(())
    }

    /// Writes into room that was taken.
    pub(super) fn write(&self, guest_address: u64, bytes: &[u8]) -> Result<(), BootError> {
        Ok(self.ram.write(guest_address, bytes)?)
    }

    /// Writes a text and its final zero into room that was taken.
    pub(super) fn write_text(&self, guest_address: u64, text: &str) -> Result<(), BootError> {
        self.write(guest_address, text.as_bytes())?;
        self.write(guest_address + text.len() as u64, &[0])
    }

    /// What the guest's RAM looks like.
    pub(super) fn layout(&self) -> &RamLayout {
        self.ram.layout()
    }

    /// Whether all of this is RAM.
    pub(super) fn is_ram(&self, guest_address: u64, bytes: u64) -> bool {
        let Some(end) = guest_address.checked_add(bytes) else { return false };
        let ranges = self.ram.layout().ranges();
        ranges.iter().any(|r| guest_address >= r.guest_base && end <= r.guest_end())
    }

    /// Takes room for something small: below the kernel if there is some, where every boot loader puts it.
    pub(super) fn lowest(&mut self, what: &'static str, bytes: u64) -> Result<u64, BootError> {
        self.placement.lowest(0, self.low_end, bytes).ok_or(BootError::NoRoom { what, bytes })
    }

    /// Writes the initrd as high as possible, since kernels grow upwards behind their image; at most up
    /// to `end`. Gives its address and size.
    pub(super) fn initrd(&mut self, initrd: &[u8], end: u64) -> Result<(u64, u64), BootError> {
        let bytes = initrd.len() as u64;
        let address = self.placement.highest(end.min(self.low_end), bytes);
        let address = address.ok_or(BootError::NoRoom { what: "the initrd", bytes })?;
        self.ram.write(address, initrd)?;
        Ok((address, bytes))
    }

    /// Where low RAM ends.
    pub(super) fn low_end(&self) -> u64 {
        self.low_end
    }
}
