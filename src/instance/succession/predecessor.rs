//! The old process, as the new one sees it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use godwit_api::VmState;

use super::super::console::{Opening, OutputError, Outputs};
use super::super::http::ApiSocket;
use super::super::vm::{Event, Vm};
use crate::cli::Serial;

/// More than a terminal or a pipe holds that somebody types into.
const TYPED_BYTES_MAX: u64 = 1 << 20;

/// A process that hands its guest, its serial port and its API's path over to this one.
#[derive(Debug)]
pub(crate) struct Predecessor {
    link: UnixStream,
    /// The path that was given for the API, if any.
    api: Option<PathBuf>,
}

impl Predecessor {
    /// Tells the process at `meeting` that this one can receive.
    pub(crate) fn meet(meeting: &Path, api: Option<PathBuf>) -> std::io::Result<Self> {
        Ok(Self { link: UnixStream::connect(meeting)?, api })
    }

    /// The path of its API, which will be this process's.
    pub(crate) fn api(&self) -> Option<PathBuf> {
        self.api.clone()
    }

    /// Waits until it has let go of the serial port, then opens it here. Until then the guest's output
    /// waits in the console's ring.
    pub(crate) fn succeed(
        self,
        vm: &Arc<Vm>,
        socket: &ApiSocket,
        serial: &Serial,
    ) -> Result<Outputs, OutputError> {
        let mut typed = Vec::new();
        // Whatever ends it, the other side has ended or closed: then this is all there is.
        let _ = self.link.take(TYPED_BYTES_MAX).read_to_end(&mut typed);
        if vm.status().state == VmState::Incoming {
            // It ended and no guest has come; one that is just arriving stays, the main loop sees to that.
            let _ = vm.events.send(Event::Stop { force: false });
            return Ok(Outputs::none(&vm.console));
        }
        if let Some(path) = &self.api
            && let Err(error) = take_path(vm, socket, path)
        {
            tracing::warn!(%error, path = %path.display(), "the API could not move to the path that was given for it");
        }
        Outputs::start(serial, Opening::Continued { typed }, &vm.console, vm.typist())
    }
}

fn take_path(vm: &Vm, socket: &ApiSocket, path: &Path) -> Result<(), String> {
    socket.move_to(path).map_err(|error| error.to_string())?;
    vm.change(|status| {
        status
            .registration
            .update(|file| file.api_socket = path.to_owned())
            .map_err(|error| error.to_string())
    })
}
