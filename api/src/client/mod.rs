//! A client of one VM's API, over its unix socket, as blocking calls.
//!
//! Each call opens a connection of its own and runs a small runtime on the caller's thread, so a
//! [`Client`] may be used from several threads at once and holds nothing open between calls.

mod connection;
mod console;
mod error;
mod log;
mod migration;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{
    GuestRange, MigrateRequest, MigrationStatus, ResolveHow, ResolveRequest, StopRequest, UpgradeRequest,
    VersionInfo, VmInfo, VmRegisters,
};
use connection::Connection;

pub use console::ConsoleStream;
pub use error::ClientError;
pub use log::{CONSOLE_FROM_HEADER, CONSOLE_LAST_HEADER, ConsoleLog, LogPolled};
pub use migration::{EventStream, Polled};

/// The protocol's name in the console's `Upgrade` header.
pub const CONSOLE_PROTOCOL: &str = "godwit-console";

/// How long a call may take unless [`Client::with_timeout`] says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The largest answer in JSON that is read, and the longest line of a stream.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Talks to one VM process.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the process that listens on this socket. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: TIMEOUT_DEFAULT }
    }

    /// Changes how long a call may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /v1/vm`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn info(&self) -> Result<VmInfo, ClientError> {
        self.get("/v1/vm")
    }

    /// `GET /v1/version`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn version(&self) -> Result<VersionInfo, ClientError> {
        self.get("/v1/version")
    }

    /// `PUT /v1/vm/pause`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn pause(&self) -> Result<VmInfo, ClientError> {
        self.call(Method::PUT, "/v1/vm/pause", None::<&()>)
    }

    /// `PUT /v1/vm/resume`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn resume(&self) -> Result<VmInfo, ClientError> {
        self.call(Method::PUT, "/v1/vm/resume", None::<&()>)
    }

    /// `PUT /v1/vm/stop`: asks, and does not wait for the process to end.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn stop(&self, force: bool) -> Result<(), ClientError> {
        self.put("/v1/vm/stop", &StopRequest { force })
    }

    /// `POST /v1/vm/resolve`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn resolve(&self, how: ResolveHow) -> Result<VmInfo, ClientError> {
        self.post("/v1/vm/resolve", &ResolveRequest { how })
    }

    /// `GET /v1/vm/migration`: the migration that is going on, or the last one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn migration(&self) -> Result<MigrationStatus, ClientError> {
        self.get("/v1/vm/migration")
    }

    /// `DELETE /v1/vm/migration`: asks the running migration to stop.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn cancel(&self) -> Result<(), ClientError> {
        self.delete("/v1/vm/migration")
    }

    /// `POST /v1/vm/migrations`: starts a migration; its events are read from what is returned.
    ///
    /// # Errors
    /// See [`ClientError`]; none of them leaves a migration behind, except
    /// [`ClientError::Timeout`], after which [`Client::migration`] tells.
    pub fn migrate(&self, request: &MigrateRequest) -> Result<EventStream, ClientError> {
        EventStream::open(self, "/v1/vm/migrations", request)
    }

    /// `POST /v1/vm/upgrade`: lets the guest go on in a new process on this host; events as of
    /// [`Client::migrate`].
    ///
    /// # Errors
    /// See [`ClientError`]; as for [`Client::migrate`].
    pub fn upgrade(&self, request: &UpgradeRequest) -> Result<EventStream, ClientError> {
        EventStream::open(self, "/v1/vm/upgrade", request)
    }

    /// `GET /v1/vm/console`: attaches to the serial console.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn console(&self) -> Result<ConsoleStream, ClientError> {
        ConsoleStream::open(self)
    }

    /// `GET /v1/vm/registers`: of every vCPU. A running guest is stopped for a moment.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn registers(&self) -> Result<VmRegisters, ClientError> {
        self.get("/v1/vm/registers")
    }

    /// `GET /v1/vm/memory`: guest-physical memory. While the guest runs, its bytes are from different
    /// moments.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn memory(&self, range: GuestRange) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/vm/memory?address={:#x}&length={}", range.address(), range.length());
        let length = usize::try_from(range.length()).unwrap_or(usize::MAX);
        let bytes = self.answer(Method::GET, &path, None::<&()>, length)?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(self.malformed(format!("{} bytes instead of {length}", bytes.len())))
        }
    }

    /// `GET /v1/vm/console/log`: serial output from position `from` on, as far as it is still held, and
    /// with `follow` what comes after it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn console_log(&self, from: u64, follow: bool) -> Result<ConsoleLog, ClientError> {
        ConsoleLog::open(self, from, follow)
    }

    /// `GET` of any path.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>)
    }

    /// `PUT` of a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.call(Method::PUT, path, Some(body))
    }

    /// `POST` of a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.call(Method::POST, path, Some(body))
    }

    /// `DELETE` of any path.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::DELETE, path, None::<&()>)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let answer = self.answer(method, path, body, ANSWER_BYTES_MAX)?;
        // An answer without a body stands for "done".
        let json: &[u8] = if answer.is_empty() { b"null" } else { &answer };
        serde_json::from_slice(json).map_err(|error| self.malformed(error.to_string()))
    }

    fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let runtime = self.runtime()?;
        runtime.block_on(self.in_time(async {
            let mut connection = Connection::open(&self.socket).await?;
            let response = connection.send(method, path, body).await?;
            Ok(connection.whole_body(response, bytes_max).await?.into())
        }))
    }

    fn runtime(&self) -> Result<tokio::runtime::Runtime, ClientError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|source| ClientError::Io { socket: self.socket.clone(), source })
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::Timeout { socket: self.socket.clone(), after: self.timeout }),
        }
    }

    fn malformed(&self, what: String) -> ClientError {
        ClientError::Malformed { socket: self.socket.clone(), what }
    }
}
