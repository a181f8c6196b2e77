//! One connection, one request.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

use super::{ANSWER_BYTES_MAX, ClientError};
use crate::types::ApiError;

pub(super) struct Connection {
    socket: PathBuf,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn open(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).await.map_err(|source| {
            let socket = socket.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => ClientError::NoSuchSocket { socket },
                io::ErrorKind::ConnectionRefused => ClientError::Refused { socket },
                io::ErrorKind::PermissionDenied => ClientError::PermissionDenied { socket },
                _ => ClientError::Io { socket, source },
            }
        })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(socket, &error))?;
        // What breaks the connection is reported to the request that waits on it.
        tokio::spawn(connection.with_upgrades());
        Ok(Self { socket: socket.to_owned(), sender })
    }

    /// Sends a request; an answer that is neither success nor an upgrade comes back as the error
    /// that it carries.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "godwit");
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|error| self.malformed(error.to_string()))?
            }
            None => Vec::new(),
        };
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|error| self.malformed(error.to_string()))?;
        self.send_request(request).await
    }

    pub(super) async fn send_request(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let response =
            self.sender.send_request(request).await.map_err(|error| broken(&self.socket, &error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = self.whole_body(response, ANSWER_BYTES_MAX).await?;
        let error: ApiError = serde_json::from_slice(&body)
            .map_err(|_| self.malformed(format!("status {status} without a reason")))?;
        Err(ClientError::Api(error))
    }

    pub(super) async fn whole_body(
        &self,
        response: Response<Incoming>,
        bytes_max: usize,
    ) -> Result<Bytes, ClientError> {
        match Limited::new(response.into_body(), bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(self.malformed(format!("it is longer than {bytes_max} bytes")))
            }
            Err(error) => Err(broken(&self.socket, error.as_ref())),
        }
    }

    fn malformed(&self, what: String) -> ClientError {
        ClientError::Malformed { socket: self.socket.clone(), what }
    }
}

/// A connection that ended too early, or that did not carry HTTP.
pub(super) fn broken(socket: &Path, error: &(dyn Error + 'static)) -> ClientError {
    let http = error.downcast_ref::<hyper::Error>();
    if http.is_some_and(hyper::Error::is_parse) {
        return ClientError::Malformed { socket: socket.to_owned(), what: error.to_string() };
    }
    ClientError::Io {
        socket: socket.to_owned(),
        source: io::Error::other(format!("the connection broke ({error})")),
    }
}
