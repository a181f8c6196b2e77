//! What a source keeps of a target that shares its guest's memory: the `started` word, and the target's
//! process. Together they decide the door exactly, even when the target was killed in the middle of it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ownership::{Epoch, RecordedState};
use crate::transport::{Link, StartedWord};

/// A hand-over of memory on one host.
#[derive(Debug)]
pub(super) struct HandOver {
    word: StartedWord,
    target: OwnedFd,
}

impl HandOver {
    /// With the process at the other end of `link`.
    pub(super) fn with(link: &Link) -> std::io::Result<Self> {
        Ok(Self { word: StartedWord::create()?, target: link.peer_process()? })
    }

    pub(super) fn word(&self) -> &StartedWord {
        &self.word
    }

    /// What the target left behind, once its process is surely gone. Of a live target only the target
    /// itself may be asked: it may be about to write.
    pub(super) fn record_of_dead_target(&self) -> Option<RecordedState> {
        let mut fds = [PollFd::from_borrowed_fd(self.target.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if !matches!(poll(&mut fds, Some(&now)), Ok(1..)) {
            return None;
        }
        Some(
            self.word
                .started()
                .map_or(RecordedState::NotRunning, |epoch: Epoch| RecordedState::Running { epoch }),
        )
    }
}
