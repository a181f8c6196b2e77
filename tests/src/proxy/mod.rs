//! A man in the middle: real connections between source and target that the test can break.
//!
//! ```text
//!  source ──▶ Proxy ──▶ target      each connection of a migration goes through, and is known by its
//!                                   first frame: control, data stream, inquiry
//! ```
//! Frames of control connections, and the introductions of all others, are shown to a rule that says
//! what becomes of them. What follows on a data stream is only counted.

mod frame;
mod pump;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use frame::Seen;
pub use godwit_migrate::protocol::Kind;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the source.
    ToTarget,
    /// From the target.
    ToSource,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Forward,
    /// The link is cut, and the frame is lost.
    CutBefore,
    /// The frame arrives, then the link is cut.
    CutAfter,
    /// Half of it arrives, then the link is cut.
    CutInside,
    /// As `CutAfter`, but as a tunnel that ends would do it: the connections are closed in good order.
    CloseAfter,
    /// A byte of it is another one when it arrives.
    Damage,
    /// It and all that follows waits, both ways, until [`Proxy::heal`].
    StallBefore,
    /// It arrives; all that follows waits, both ways, until [`Proxy::heal`].
    StallAfter,
    /// It arrives later.
    Delay(Duration),
}

type Rule = Box<dyn FnMut(&Seen) -> Fate + Send>;

/// A link between a source and a target; gone when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
}

/// What the proxy's threads share.
pub(crate) struct Link {
    rule: Mutex<Rule>,
    state: Mutex<State>,
    changed: Condvar,
    forwarded: AtomicU64,
    cut_at_bytes: AtomicU64,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    stalled: bool,
    /// Both ends of every connection under way.
    connections: Vec<TcpStream>,
    seen: Vec<(Instant, Seen)>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Proxy {
    /// A link to `target` (`tcp:HOST:PORT`) that does nothing but carry.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn to(target: &str) -> Self {
        let target: SocketAddr =
            target.strip_prefix("tcp:").and_then(|t| t.parse().ok()).expect("tcp:IP:PORT");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this host");
        let address = listener.local_addr().expect("it is bound");
        let link = Arc::new(Link {
            rule: Mutex::new(Box::new(|_| Fate::Forward)),
            state: Mutex::default(),
            changed: Condvar::new(),
            forwarded: AtomicU64::new(0),
            cut_at_bytes: AtomicU64::new(u64::MAX),
            closed: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&link);
        std::thread::spawn(move || {
            for source in listener.incoming() {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(source) = source {
                    pump::carry(&accepting, source, target);
                }
            }
        });
        Self { address, link }
    }

    /// Where the source connects to: `tcp:HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("tcp:{}", self.address)
    }

    /// From now on this decides what becomes of frames.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Fate + Send + 'static) {
        *self.link.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// The `nth` frame (from 0) of this kind that goes this way meets this fate; all others go on.
    pub fn at(&self, way: Way, kind: Kind, nth: u32, fate: Fate) {
        self.rule(
            move |seen| {
                if seen.way == way && seen.kind == kind && seen.nth == nth { fate } else { Fate::Forward }
            },
        );
    }

    /// Cuts once so many more bytes were forwarded.
    pub fn cut_after_bytes(&self, bytes: u64) {
        let at = self.forwarded().saturating_add(bytes);
        self.link.cut_at_bytes.store(at, Ordering::SeqCst);
    }

    /// Bytes forwarded so far, both ways.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.link.forwarded.load(Ordering::SeqCst)
    }

    /// Breaks every connection; new ones break as well until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.link.cut(pump::Ending::Broken);
    }

    /// Carries nothing until [`heal`](Self::heal), and breaks nothing.
    pub fn stall(&self) {
        self.link.state().stalled = true;
    }

    /// Waits until a rule (or the count of bytes) has cut or stalled the link.
    ///
    /// # Panics
    /// When that does not happen in time.
    #[track_caller]
    pub fn wait_for_trouble(&self, within: Duration) {
        assert!(self.trouble_within(within), "the link was not cut: {:?}", self.seen());
    }

    /// Whether a rule (or the count of bytes) cuts or stalls the link within the time.
    #[must_use]
    pub fn trouble_within(&self, within: Duration) -> bool {
        let state = self.link.state();
        let wait = self.link.changed.wait_timeout_while(state, within, |s| !s.down && !s.stalled);
        !wait.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The link is as good as new, and has no rule.
    pub fn heal(&self) {
        self.rule(|_| Fate::Forward);
        self.link.cut_at_bytes.store(u64::MAX, Ordering::SeqCst);
        let mut state = self.link.state();
        state.down = false;
        state.stalled = false;
        drop(state);
        self.link.changed.notify_all();
    }

    /// The frames of the last attempt, from its `Hello` on.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.link.state().seen.iter().map(|(_, seen)| *seen).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.closed.store(true, Ordering::SeqCst);
        self.link.cut(pump::Ending::Broken);
        // Wakes the thread that accepts; it ends then.
        let _ = TcpStream::connect(self.address);
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
