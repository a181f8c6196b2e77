//! Reads what is to be booted.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use godwit_guest_images::TEST_KERNEL;
use godwit_vmm::boot::BootImage;
use godwit_vmm::saved_state::MachineDescriptionV1;

/// The name of our own kernel.
pub(crate) const BUILTIN: &str = "builtin";
/// Larger than any kernel or initrd that makes sense: a file of another kind is not read to its end.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// A kernel with its initrd and command line, in memory.
pub(crate) struct KernelFiles {
    kernel: Option<Vec<u8>>,
    initrd: Option<Vec<u8>>,
    cmdline: String,
}

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    /// The file cannot be read.
    #[error("cannot read the {what} {}: {source}; check the path", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
}

impl KernelFiles {
    pub(crate) fn read(kernel: &str, initrd: Option<&str>, cmdline: &str) -> Result<Self, KernelError> {
        let kernel = (kernel != BUILTIN).then(|| read("kernel", kernel)).transpose()?;
        let initrd = initrd.map(|path| read("initrd", path)).transpose()?;
        Ok(Self { kernel, initrd, cmdline: cmdline.to_owned() })
    }

    /// What a machine that resets itself was booted from.
    pub(crate) fn of(description: &MachineDescriptionV1) -> Result<Self, KernelError> {
        Self::read(&description.kernel, description.initrd.as_deref(), &description.cmdline)
    }

    pub(crate) fn image(&self) -> BootImage<'_> {
        BootImage {
            kernel: self.kernel.as_deref().unwrap_or(TEST_KERNEL),
            initrd: self.initrd.as_deref(),
            cmdline: &self.cmdline,
        }
    }
}

fn read(what: &'static str, path: &str) -> Result<Vec<u8>, KernelError> {
    let failed = |source| KernelError::Read { what, path: path.into(), source };
    let mut bytes = Vec::new();
    // A pipe in its place must not block us.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
