//! Reads from a socket straight into guest RAM. `unsafe`: hands the kernel addresses of guest pages.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::guest_ram::{GuestRam, RamError};
use crate::PAGE_SIZE;

/// Most pieces that one `readv` takes (`IOV_MAX`).
const PIECES_PER_CALL: usize = 1024;

/// Why pages could not be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The pages are not RAM of this guest.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The stream ended or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl GuestRam {
    /// Fills the pages of `runs` (`(first page, pages)`) from `stream`, in order, without a copy in
    /// between. Returns how many bytes that were. On an error some pages hold new bytes, some old.
    ///
    /// # Errors
    /// Pages are not RAM (then nothing was read), or the stream ends early.
    pub fn receive(&self, stream: impl AsFd, runs: &[(u64, u64)]) -> Result<u64, ReceiveError> {
        let mut pieces = Vec::with_capacity(runs.len());
        let mut total_bytes = 0;
        for &(first_page, pages) in runs {
            let bytes = pages * PAGE_SIZE;
            pieces.push(libc::iovec {
                iov_base: self.host_address(first_page, pages)? as *mut libc::c_void,
                iov_len: usize::try_from(bytes).unwrap_or(usize::MAX),
            });
            total_bytes += bytes;
        }
        let fd = stream.as_fd().as_raw_fd();
        let mut rest = &mut pieces[..];
        while !rest.is_empty() {
            let count = rest.len().min(PIECES_PER_CALL);
            // SAFETY: every piece was checked by `host_address` to lie within one of our mappings, which
            // live as long as `self`; the kernel writes bytes there, as the guest itself would.
            let read = unsafe {
                libc::readv(fd, rest.as_ptr(), libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX))
            };
            match usize::try_from(read) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(bytes) => rest = advance(rest, bytes),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(total_bytes)
    }
}

/// Drops the first `bytes` of `pieces`.
fn advance(mut pieces: &mut [libc::iovec], mut bytes: usize) -> &mut [libc::iovec] {
    while let Some(first) = pieces.first_mut() {
        if bytes < first.iov_len {
            first.iov_base = first.iov_base.wrapping_byte_add(bytes);
            first.iov_len -= bytes;
            break;
        }
        bytes -= first.iov_len;
        pieces = &mut pieces[1..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::memory::RamLayout;

    #[test]
    fn pages_arrive_in_the_order_of_the_runs() {
        let ram = GuestRam::allocate(RamLayout::new(8 << 20).unwrap()).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let sender = std::thread::spawn(move || {
            for value in 1..=3_u8 {
                // In odd pieces, so that reads end inside pages.
                for part in [vec![value; 1000], vec![value; 3096]] {
                    ours.write_all(&part).unwrap();
                }
            }
        });
        assert_eq!(ram.receive(&theirs, &[(7, 1), (100, 2)]).unwrap(), 3 * PAGE_SIZE);
        sender.join().unwrap();
        for (page, value) in [(7, 1), (100, 2), (101, 3)] {
            let mut bytes = [0; 4096];
            ram.copy_out(page, &mut bytes).unwrap();
            assert!(bytes.iter().all(|b| *b == value), "page {page}");
        }
        assert!(matches!(ram.receive(&theirs, &[(7, 1)]), Err(ReceiveError::Io(_))), "the stream has ended");
        assert!(matches!(ram.receive(&theirs, &[(5000, 1)]), Err(ReceiveError::Ram(_))));
    }
}
