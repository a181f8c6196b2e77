//! Waits for one gdb after the other.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_api::{DebuggerInfo, TargetAddress};
use godwit_vmm::machine::{DebugSupport, MachineError};
use rustix::event::{PollFd, PollFlags, poll};

use super::answers::Answers;
use super::attach::{After, attach};
use super::guest::Guest;
use super::incoming::{Incoming, IncomingError};
use super::mailbox::{Mailbox, Note};
use super::port::{Port, Stream};
use super::session::{self, Ended};
use crate::instance::exit::Exit;
use crate::instance::process::say;
use crate::instance::vm::{Event, Vm};

/// Why a VM cannot be debugged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebuggerError {
    /// The address cannot be had.
    #[error(
        "cannot wait for gdb on {address}: {source}; give --gdb another address, or tcp:127.0.0.1:0 for a free port"
    )]
    Bind { address: TargetAddress, source: io::Error },
    /// This host cannot debug.
    #[error("this host's KVM cannot debug guests (KVM_SET_GUEST_DEBUG stops none); leave --gdb out")]
    NotPossible,
    /// This host cannot run a guest.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No thread or file descriptor.
    #[error("cannot wait for gdb: {0}")]
    System(#[from] io::Error),
}

/// How long a connection may say nothing before the next one gets its turn.
const GREETING_WITHIN: Duration = Duration::from_secs(5);

/// A port that waits for gdb, not served yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    port: Port,
    mailbox: Arc<Mailbox>,
    support: DebugSupport,
}

/// The thread that serves gdb.
#[derive(Debug)]
pub(crate) struct Server {
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

impl Waiting {
    /// Takes the address, and makes `vm` one that can be debugged.
    pub(crate) fn bind(vm: &Vm, address: &TargetAddress) -> Result<Self, DebuggerError> {
        let port =
            Port::bind(address).map_err(|source| DebuggerError::Bind { address: address.clone(), source })?;
        let support = DebugSupport::find_out()?;
        if support == DebugSupport::default() {
            return Err(DebuggerError::NotPossible);
        }
        let mailbox = Arc::new(Mailbox::new()?);
        let info = DebuggerInfo { address: port.address(), attached: false, missing: support.missing() };
        vm.offer_to_debugger(Arc::clone(&mailbox), info);
        Ok(Self { port, mailbox, support })
    }

    /// Serves gdb from now on.
    pub(crate) fn serve(self, vm: &Arc<Vm>) -> Result<Server, DebuggerError> {
        let Self { port, mailbox, support } = self;
        let address = port.address();
        let (vm, thread_mailbox) = (Arc::clone(vm), Arc::clone(&mailbox));
        let thread = std::thread::Builder::new()
            .name("gdb".to_owned())
            .spawn(move || serve(&vm, &port, &thread_mailbox, support))?;
        if let Some(missing) = support.missing() {
            say(&format!(
                "this host's KVM cannot stop a guest for gdb everywhere; what does not work: {missing}"
            ));
        }
        say(&format!("waiting for gdb on {address}"));
        Ok(Server { mailbox, thread })
    }
}

impl Server {
    /// The VM is over: gdb hears of it, and nobody is waited for any more.
    pub(crate) fn finish(self, exit: Exit) {
        self.mailbox.put(Note::Over(exit));
        // Nothing there waits for gdb for ever.
        let _ = self.thread.join();
    }
}

fn serve(vm: &Arc<Vm>, port: &Port, mailbox: &Arc<Mailbox>, support: DebugSupport) {
    while !mailbox.is_over() {
        if let Err(error) = wait(port, mailbox) {
            return say(&format!("gdb cannot be waited for any more: {error}"));
        }
        // Left over by the last session, and nothing to the next.
        while mailbox.take().is_some() {}
        let Ok(stream) = port.accept() else { continue };
        // A bug in there must cost a session, not the guest.
        let served = catch_unwind(AssertUnwindSafe(|| serve_one(vm, stream, port, mailbox, support)));
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => say(&format!("gdb was let go: {error}")),
            Err(_) => say("gdb was let go: serving it failed, see the message before this one"),
        }
    }
}

fn wait(port: &Port, mailbox: &Mailbox) -> io::Result<()> {
    let mut fds = [
        PollFd::from_borrowed_fd(port.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(mailbox.wake(), PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What one connection can fail with.
type ServeResult = Result<(), Box<dyn std::error::Error>>;

fn serve_one(
    vm: &Arc<Vm>,
    stream: Stream,
    port: &Port,
    mailbox: &Arc<Mailbox>,
    support: DebugSupport,
) -> ServeResult {
    let answers = Answers::new(stream.try_clone()?);
    let mut incoming = Incoming::new(stream, mailbox, port);
    let greeting = match incoming.greeting(GREETING_WITHIN) {
        Ok(Some(greeting)) => greeting,
        Ok(None) | Err(IncomingError::Nonsense(_)) => {
            tracing::debug!("a connection to gdb's port was not from a gdb");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let before = attach(vm)?;
    let mut guest = Guest::new(Arc::clone(vm), Arc::clone(mailbox), support, before);
    match session::serve(&mut guest, answers, &mut incoming, greeting)? {
        Ended::Detached => guest.after = After::Runs,
        Ended::Killed => {
            guest.after = After::Stands;
            let _ = vm.events.send(Event::Stop { force: false });
        }
        Ended::Over => guest.after = After::Stands,
        Ended::Lost => {}
    }
    Ok(())
}
