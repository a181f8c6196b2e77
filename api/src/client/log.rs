//! The serial output for who only reads, as it arrives.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method};

use super::connection::{Connection, broken};
use super::{Client, ClientError};

/// The answer's header with the position of its first byte.
pub const CONSOLE_FROM_HEADER: &str = "godwit-console-from";
/// The answer's header that says whether anything can come after what it carries.
pub const CONSOLE_LAST_HEADER: &str = "godwit-console-last";

/// Serial output from a position on, without gaps.
pub struct ConsoleLog {
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// Keeps the connection alive.
    _connection: Connection,
    body: Incoming,
    from: u64,
    last: bool,
}

/// What [`ConsoleLog::poll`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPolled {
    /// More bytes.
    Bytes(Vec<u8>),
    /// Nothing within the given time.
    Waiting,
    /// That is all: of what was there, or before a gap, or of this guest. Asking anew tells.
    Ended,
}

impl std::fmt::Debug for ConsoleLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleLog")
            .field("from", &self.from)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl ConsoleLog {
    pub(super) fn open(client: &Client, from: u64, follow: bool) -> Result<Self, ClientError> {
        let path = format!("/v1/vm/console/log?from={from}&follow={follow}");
        let runtime = client.runtime()?;
        let (connection, response) = runtime.block_on(client.in_time(async {
            let mut connection = Connection::open(&client.socket).await?;
            let response = connection.send(Method::GET, &path, None::<&()>).await?;
            Ok((connection, response))
        }))?;
        let from = header(client, response.headers(), CONSOLE_FROM_HEADER)?;
        let last = header(client, response.headers(), CONSOLE_LAST_HEADER)?;
        Ok(Self {
            client: client.clone(),
            runtime,
            _connection: connection,
            body: response.into_body(),
            from,
            last,
        })
    }

    /// The position of the first byte. Later than what was asked for: the bytes between were overwritten.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Whether nothing can come after these bytes: the guest is gone.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// The next bytes, waiting at most `wait` for them.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn poll(&mut self, wait: Duration) -> Result<LogPolled, ClientError> {
        loop {
            let body = &mut self.body;
            let frame = self.runtime.block_on(async { tokio::time::timeout(wait, body.frame()).await });
            match frame {
                Err(_) => return Ok(LogPolled::Waiting),
                Ok(None) => return Ok(LogPolled::Ended),
                Ok(Some(Err(error))) => return Err(broken(&self.client.socket, &error)),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) {
                        return Ok(LogPolled::Bytes(data.to_vec()));
                    }
                }
            }
        }
    }
}

fn header<T: std::str::FromStr>(client: &Client, headers: &HeaderMap, name: &str) -> Result<T, ClientError> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .ok_or_else(|| client.malformed(format!("the header {name} is missing or malformed")))
}
