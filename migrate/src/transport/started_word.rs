//! The `started` word: eight bytes in memory that source and target of a hand-over on one host share.
//!
//! The target writes the epoch there after COMMIT and before the guest's first instruction. A source
//! whose target has died (its pidfd says so) reads it and knows exactly whether the guest ever ran there.
//! `unsafe`: maps the memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::ownership::Epoch;

const BYTES: usize = 4096;

/// The word, mapped.
#[derive(Debug)]
pub struct StartedWord {
    fd: OwnedFd,
    word: NonNull<AtomicU64>,
}

// SAFETY: the word is only reached as an atomic, which any thread may use.
unsafe impl Send for StartedWord {}
// SAFETY: as above.
unsafe impl Sync for StartedWord {}

impl StartedWord {
    /// A new word: not started.
    ///
    /// # Errors
    /// The system refuses the memory.
    pub fn create() -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("godwit-started", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, BYTES as u64)?;
        rustix::fs::fcntl_add_seals(&fd, seals())?;
        Self::map(fd)
    }

    /// The word of another process.
    ///
    /// # Errors
    /// What was handed over is not such a word, or cannot be mapped.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let not_one =
            || io::Error::new(io::ErrorKind::InvalidData, "what was handed over is no started word");
        let bytes = rustix::fs::fstat(&fd)?.st_size;
        // A size that could shrink would turn every access into a SIGBUS.
        let sealed = rustix::fs::fcntl_get_seals(&fd).map_err(|_| not_one())?.contains(seals());
        if usize::try_from(bytes) != Ok(BYTES) || !sealed {
            return Err(not_one());
        }
        Self::map(fd)
    }

    /// For handing it over.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Says that the guest is about to run, with this epoch.
    pub fn mark(&self, epoch: Epoch) {
        self.word().store(epoch.get(), Ordering::SeqCst);
    }

    /// With which epoch the guest was started, if it was.
    #[must_use]
    pub fn started(&self) -> Option<Epoch> {
        Epoch::new(self.word().load(Ordering::SeqCst))
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping is a page long, aligned to one, and lives until `self` is dropped; whoever
        // shares it can only change the number.
        unsafe { self.word.as_ref() }
    }

    fn map(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; the file is a page long and can
        // never shrink.
        let at = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        }?;
        let word = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { fd, word })
    }
}

impl Drop for StartedWord {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.word.as_ptr().cast(), BYTES) };
    }
}

fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_marks_the_other_reads() {
        let ours = StartedWord::create().unwrap();
        let theirs = StartedWord::adopt(ours.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(ours.started(), None);
        theirs.mark(Epoch::FIRST);
        assert_eq!(ours.started(), Some(Epoch::FIRST));
    }

    #[test]
    fn other_files_are_no_words() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(StartedWord::adopt(null.into()).is_err());
        let unsealed = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, BYTES as u64).unwrap();
        assert!(StartedWord::adopt(unsealed).is_err());
    }
}
