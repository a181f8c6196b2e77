//! A migration's events, read as they arrive.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde::Serialize;

use super::connection::{Connection, broken};
use super::{ANSWER_BYTES_MAX, Client, ClientError};
use crate::types::MigrationEvent;

/// The answer to a migration request. Dropping it does not stop the migration.
pub struct EventStream {
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// Keeps the connection alive.
    _connection: Connection,
    body: Incoming,
    received: Vec<u8>,
}

/// What [`EventStream::poll`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Polled {
    /// The next event.
    Event(MigrationEvent),
    /// Nothing within the given time.
    Waiting,
    /// The stream is over. Without a [`MigrationEvent::Result`] before it nobody knows from here
    /// how the migration ended.
    Ended,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("socket", &self.client.socket).finish_non_exhaustive()
    }
}

impl EventStream {
    pub(super) fn open(client: &Client, path: &str, request: &impl Serialize) -> Result<Self, ClientError> {
        let runtime = client.runtime()?;
        let (connection, response) = runtime.block_on(client.in_time(async {
            let mut connection = Connection::open(&client.socket).await?;
            let response = connection.send(Method::POST, path, Some(request)).await?;
            Ok((connection, response))
        }))?;
        Ok(Self {
            client: client.clone(),
            runtime,
            _connection: connection,
            body: response.into_body(),
            received: Vec::new(),
        })
    }

    /// The next event, waiting at most `wait` for it.
    ///
    /// # Errors
    /// When the connection breaks or carries something else.
    pub fn poll(&mut self, wait: Duration) -> Result<Polled, ClientError> {
        loop {
            if let Some(event) = self.take_line()? {
                return Ok(Polled::Event(event));
            }
            let body = &mut self.body;
            let frame = self.runtime.block_on(async { tokio::time::timeout(wait, body.frame()).await });
            match frame {
                Err(_) => return Ok(Polled::Waiting),
                Ok(None) if self.received.is_empty() => return Ok(Polled::Ended),
                Ok(None) => return Err(self.client.malformed("its last line is cut".into())),
                Ok(Some(Err(error))) => return Err(broken(&self.client.socket, &error)),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.received.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Result<Option<MigrationEvent>, ClientError> {
        let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else {
            if self.received.len() > ANSWER_BYTES_MAX {
                let what = format!("a line is longer than {ANSWER_BYTES_MAX} bytes");
                return Err(self.client.malformed(what));
            }
            return Ok(None);
        };
        let event = serde_json::from_slice(&self.received[..end])
            .map_err(|error| self.client.malformed(error.to_string()))?;
        self.received.drain(..=end);
        Ok(Some(event))
    }
}
