//! Which kind of dirty log a VM has.

use clap::ValueEnum;
use godwit_vmm::kvm::DirtyLogChoice;
use serde::Deserialize;

/// The value of `--dirty-log`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DirtyLogArg {
    /// A bit for each page of the guest
    #[default]
    Bitmap,
    /// A ring for each vCPU, emptied when it is full (Linux 5.18 or newer)
    Ring,
}

impl DirtyLogArg {
    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bitmap => "bitmap",
            Self::Ring => "ring",
        }
    }
}

impl From<DirtyLogArg> for DirtyLogChoice {
    fn from(given: DirtyLogArg) -> Self {
        match given {
            DirtyLogArg::Bitmap => Self::Bitmap,
            DirtyLogArg::Ring => Self::Ring,
        }
    }
}

impl From<DirtyLogChoice> for DirtyLogArg {
    fn from(choice: DirtyLogChoice) -> Self {
        match choice {
            DirtyLogChoice::Bitmap => Self::Bitmap,
            DirtyLogChoice::Ring => Self::Ring,
        }
    }
}
