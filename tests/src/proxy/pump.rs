//! The threads that carry bytes: two for each connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use godwit_migrate::protocol::Kind;
use socket2::SockRef;

use super::frame::{Seen, header};
use super::{Fate, Link, Way};

/// How a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Both ends see a broken connection.
    Broken,
    /// Both ends see a connection that the other one closed.
    Orderly,
}

/// Nothing more is carried.
struct Over;

/// Carries a connection to the target, both ways, in threads of its own.
pub(super) fn carry(link: &Arc<Link>, source: TcpStream, target: SocketAddr) {
    if link.state().down {
        abort(&source);
        return;
    }
    let Ok(to) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else { return };
    let copies = [&source, &to].map(TcpStream::try_clone);
    let [Ok(source_copy), Ok(target_copy)] = copies else { return };
    for socket in [&source, &to] {
        let _ = socket.set_nodelay(true);
    }
    {
        let mut state = link.state();
        let kept = [&source, &to].map(TcpStream::try_clone);
        state.connections.extend(kept.into_iter().flatten());
    }
    let ways = [(Way::ToTarget, source, target_copy), (Way::ToSource, to, source_copy)];
    for (way, from, to) in ways {
        let link = Arc::clone(link);
        std::thread::spawn(move || Pump { link, way, from, to }.run());
    }
}

struct Pump {
    link: Arc<Link>,
    way: Way,
    from: TcpStream,
    to: TcpStream,
}

impl Pump {
    fn run(mut self) {
        let _ = self.frames();
        // The end of one direction is passed on. Where the link was cut there is no such end: nobody
        // may take it for a peer that has closed in good order.
        let state = self.link.state();
        if !state.down {
            let _ = self.to.shutdown(Shutdown::Write);
        }
    }

    /// Carries frame by frame, or, behind the introduction of a data stream, byte by byte.
    fn frames(&mut self) -> Result<(), Over> {
        let mut bytes = Vec::new();
        loop {
            let (kind, length) = loop {
                if let Some(header) = header(&bytes) {
                    break header;
                }
                self.read(&mut bytes)?;
            };
            while bytes.len() < length {
                self.read(&mut bytes)?;
            }
            let rest = bytes.split_off(length);
            self.frame(kind, &mut bytes)?;
            bytes = rest;
            if matches!(kind, Kind::StreamHello | Kind::StreamWelcome) {
                return self.raw(bytes);
            }
        }
    }

    fn raw(&mut self, mut bytes: Vec<u8>) -> Result<(), Over> {
        loop {
            self.forward(&bytes)?;
            bytes.clear();
            self.read(&mut bytes)?;
        }
    }

    fn read(&mut self, bytes: &mut Vec<u8>) -> Result<(), Over> {
        let mut buffer = [0; 64 << 10];
        match self.from.read(&mut buffer) {
            Ok(0) | Err(_) => Err(Over),
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    fn frame(&mut self, kind: Kind, bytes: &mut [u8]) -> Result<(), Over> {
        let seen = {
            let mut state = self.link.state();
            if kind == Kind::Hello {
                // Another attempt: what comes late from the one before does not count.
                state.seen.clear();
            }
            let alike = |seen: &Seen| seen.way == self.way && seen.kind == kind;
            let nth = state.seen.iter().filter(|(_, seen)| alike(seen)).count();
            let nth = u32::try_from(nth).unwrap_or(u32::MAX);
            let seen = Seen { way: self.way, kind, nth, bytes: bytes.len() };
            state.seen.push((Instant::now(), seen));
            seen
        };
        let fate = (self.link.rule.lock().unwrap_or_else(PoisonError::into_inner))(&seen);
        match fate {
            Fate::Forward => self.forward(bytes),
            Fate::CutBefore => self.cut(Ending::Broken),
            Fate::CutAfter => self.last(bytes, Ending::Broken),
            Fate::CutInside => self.last(&bytes[..bytes.len() / 2], Ending::Broken),
            Fate::CloseAfter => self.last(bytes, Ending::Orderly),
            Fate::Damage => {
                let last = bytes.len() - 1;
                bytes[last] ^= 0x10;
                self.forward(bytes)
            }
            Fate::StallBefore => {
                self.stall();
                self.forward(bytes)
            }
            Fate::StallAfter => {
                self.forward(bytes)?;
                self.stall();
                Ok(())
            }
            Fate::Delay(time) => {
                std::thread::sleep(time);
                self.forward(bytes)
            }
        }
    }

    fn cut(&self, ending: Ending) -> Result<(), Over> {
        self.link.cut(ending);
        Err(Over)
    }

    /// These bytes arrive, and nothing after them: no answer to them is faster than the cut.
    fn last(&mut self, bytes: &[u8], ending: Ending) -> Result<(), Over> {
        self.link.state().stalled = true;
        let _ = self.to.write_all(bytes);
        self.cut(ending)
    }

    fn stall(&self) {
        self.link.state().stalled = true;
        self.link.changed.notify_all();
    }

    fn forward(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let state = self.link.state();
        let stalled = |state: &mut super::State| state.stalled && !state.down;
        let state = self.link.changed.wait_while(state, stalled).unwrap_or_else(PoisonError::into_inner);
        if state.down {
            return Err(Over);
        }
        drop(state);
        self.to.write_all(bytes).map_err(|_| Over)?;
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let forwarded = self.link.forwarded.fetch_add(count, Ordering::SeqCst) + count;
        if forwarded >= self.link.cut_at_bytes.load(Ordering::SeqCst) {
            return self.cut(Ending::Broken);
        }
        Ok(())
    }
}

impl Link {
    /// Ends all connections, and takes none until it is healed.
    pub(super) fn cut(&self, ending: Ending) {
        let mut state = self.state();
        state.down = true;
        for connection in state.connections.drain(..) {
            match ending {
                Ending::Broken => abort(&connection),
                Ending::Orderly => {
                    let _ = connection.shutdown(Shutdown::Both);
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Lets the peer see a broken connection, not an orderly end: what was sent has been delivered, as
/// this never leaves the host.
fn abort(connection: &TcpStream) {
    // A socket that is disconnected this way sends a reset at once, whoever else still holds it.
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
    let _ = rustix::net::connect_unspec(connection);
    let _ = connection.shutdown(Shutdown::Both);
}
