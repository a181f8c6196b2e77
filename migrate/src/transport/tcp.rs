//! TCP connections, tuned for a migration.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long one address may take to answer a connection attempt.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A peer whose host is gone answers neither data nor keep-alives; this long after, the link is lost.
const DEAD_PEER_AFTER: Duration = Duration::from_secs(10);

/// Connects to `address` (`HOST:PORT`), trying each of its addresses.
///
/// # Errors
/// None of them answers; the last reason.
pub(super) fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => {
                tune(&stream)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Sets what every connection of a migration needs: no delay for small messages, and a bound on how
/// long a vanished host goes unnoticed.
///
/// # Errors
/// The system refuses an option.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second * 2).with_interval(second * 2).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(DEAD_PEER_AFTER))
}
