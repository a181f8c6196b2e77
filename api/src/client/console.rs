//! The serial console: the API's connection, upgraded to raw bytes.

use std::io;
use std::os::unix::net::UnixStream;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;

use super::connection::{Connection, broken};
use super::{CONSOLE_PROTOCOL, Client, ClientError};

/// Both directions of a VM's serial console.
#[derive(Debug)]
pub struct ConsoleStream {
    /// Output that arrived together with the upgrade: comes before what `stream` gives.
    pub received: Vec<u8>,
    /// The connection, in blocking mode.
    pub stream: UnixStream,
}

impl ConsoleStream {
    pub(super) fn open(client: &Client) -> Result<Self, ClientError> {
        let request = Request::get("/v1/vm/console")
            .header(header::HOST, "godwit")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, CONSOLE_PROTOCOL)
            .body(Full::new(Bytes::new()))
            .map_err(|error| client.malformed(error.to_string()))?;
        let io_error = |source: io::Error| ClientError::Io { socket: client.socket.clone(), source };
        let runtime = client.runtime()?;
        runtime.block_on(client.in_time(async {
            let mut connection = Connection::open(&client.socket).await?;
            let response = connection.send_request(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(client.malformed("the console was not upgraded".into()));
            }
            let upgraded =
                hyper::upgrade::on(response).await.map_err(|error| broken(&client.socket, &error))?;
            let parts = upgraded
                .downcast::<TokioIo<tokio::net::UnixStream>>()
                .map_err(|_| client.malformed("the console is not a unix socket".into()))?;
            let stream = parts.io.into_inner().into_std().map_err(io_error)?;
            stream.set_nonblocking(false).map_err(io_error)?;
            Ok(Self { received: parts.read_buf.to_vec(), stream })
        }))
    }
}
