//! From `NAME` or `--api F` to a client of that VM's API.

use std::path::PathBuf;

use godwit_api::client::Client;
use godwit_api::registry::{RegistryError, RuntimeDir};
use godwit_api::{VmName, VmState};

use super::args::VmAddress;
use super::failure::Failure;

impl VmAddress {
    /// The VM that is meant.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.client_among(|_| true)
    }

    /// The VM that is meant, among those in a fitting state; falls back to any other of that name,
    /// so that the VM itself says why it can't.
    pub(crate) fn client_among(&self, wanted: impl Fn(&VmState) -> bool) -> Result<Client, Failure> {
        let socket = match (&self.api, &self.name) {
            (Some(socket), None) => socket.clone(),
            (None, Some(name)) => socket_of(name, wanted)?,
            // clap lets exactly one through.
            _ => return Err(Failure::usage("which VM? give its NAME or --api SOCKET")),
        };
        Ok(Client::new(socket))
    }
}

fn socket_of(name: &VmName, wanted: impl Fn(&VmState) -> bool) -> Result<PathBuf, Failure> {
    let directory = RuntimeDir::open().map_err(Failure::failed)?;
    let entry = match directory.find_among(name, wanted) {
        Ok(entry) => entry,
        Err(RegistryError::NotFound { .. } | RegistryError::Dead { .. }) => {
            directory.find(name).map_err(Failure::failed)?
        }
        Err(error) => return Err(Failure::failed(error)),
    };
    Ok(entry.file.api_socket)
}
