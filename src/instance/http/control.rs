//! What the API asks of the VM process that it belongs to.

use godwit_api::{
    ApiError, GuestRange, MigrateRequest, MigrationEvent, MigrationStatus, ResolveHow, UpgradeRequest,
    VmInfo, VmRegisters,
};
use tokio::sync::mpsc;

/// The VM process as the API sees it.
///
/// The calls may block for a short time (they run on a blocking thread), several at once. Each
/// refusal is an [`ApiError`] that says what, why, and what to do next.
pub(crate) trait Control: Send + Sync + 'static {
    /// All there is to know right now. Must not wait for a migration or for a vCPU.
    fn info(&self) -> VmInfo;

    /// Pauses the guest; does nothing if it is paused. Returns when no vCPU runs.
    ///
    /// # Errors
    /// When the state does not allow it.
    fn pause(&self) -> Result<VmInfo, ApiError>;

    /// Resumes the guest; does nothing if it runs.
    ///
    /// # Errors
    /// When the state does not allow it: above all for a handed-over, unconfirmed guest.
    fn resume(&self) -> Result<VmInfo, ApiError>;

    /// Asks the process to stop the guest and end. Returns before it has.
    ///
    /// # Errors
    /// When the state asks for a decision first and `force` is not given.
    fn stop(&self, force: bool) -> Result<(), ApiError>;

    /// Starts a migration, and returns when it has been accepted. `request` has been validated.
    ///
    /// Progress is sent as it comes, one [`MigrationEvent::Result`] at the end, then the channel
    /// is closed. The receiver is always drained, so a bounded channel never stalls the engine
    /// for longer than the API thread takes to wake up. A receiver that is gone must not stop the
    /// migration.
    ///
    /// # Errors
    /// When the state does not allow it or another migration is going on.
    fn migrate(&self, request: MigrateRequest) -> Result<mpsc::Receiver<MigrationEvent>, ApiError>;

    /// Starts a new process for the guest and begins to hand it over. `request` has been validated. The
    /// events are as of [`migrate`](Self::migrate).
    ///
    /// # Errors
    /// As for `migrate`, and when no process can be started. The guest runs on here then.
    fn upgrade(&self, request: UpgradeRequest) -> Result<mpsc::Receiver<MigrationEvent>, ApiError>;

    /// The migration that is going on, or the last one.
    fn migration(&self) -> Option<MigrationStatus>;

    /// Asks the running migration to stop. Returns at once; the migration's result says whether
    /// it was in time.
    ///
    /// # Errors
    /// `too_late` when COMMIT was sent, `not_found` when nothing is going on.
    fn cancel(&self) -> Result<(), ApiError>;

    /// Ends an unconfirmed hand-over.
    ///
    /// # Errors
    /// `wrong_state` for every other state.
    fn resolve(&self, how: ResolveHow) -> Result<VmInfo, ApiError>;

    /// Guest-physical memory; bytes of different moments while the guest runs.
    ///
    /// # Errors
    /// When the range is not RAM, or the state does not allow it: above all while a migration is under way.
    fn memory(&self, range: GuestRange) -> Result<Vec<u8>, ApiError>;

    /// The registers of every vCPU, at one moment.
    ///
    /// # Errors
    /// When the state does not allow it: above all while a migration is under way.
    fn registers(&self) -> Result<VmRegisters, ApiError>;

    /// Attaches to the serial console.
    ///
    /// # Errors
    /// When the VM has no console that can be attached to.
    fn console(&self) -> Result<ConsoleAttachment, ApiError>;

    /// What is still there of the serial output from position `from` on, and with `follow` what comes.
    ///
    /// # Errors
    /// When it can't be followed.
    fn console_log(&self, from: u64, follow: bool) -> Result<ConsoleLog, ApiError>;
}

/// What the guest wrote, from a position on.
#[derive(Debug)]
pub(crate) struct ConsoleLog {
    /// Where `bytes` begin: later than what was asked for, if that has been overwritten.
    pub(crate) from: u64,
    /// What is there.
    pub(crate) bytes: Vec<u8>,
    /// Nothing will come after `bytes`: the guest is gone.
    pub(crate) last: bool,
    /// What follows `bytes` without a gap, if that was asked for: closed before a gap, after a silence, and
    /// when the guest is gone.
    pub(crate) more: Option<mpsc::Receiver<Vec<u8>>>,
}

/// Types bytes into the guest.
pub(crate) type ConsoleInput = Box<dyn Fn(&[u8]) + Send>;

/// Both directions of the serial console, for one reader.
pub(crate) struct ConsoleAttachment {
    /// What the guest wrote lately: taken together with the subscription, so that nothing is
    /// missing and nothing comes twice between it and `output`.
    pub(crate) replay: Vec<u8>,
    /// What it writes from now on. Bounded: a full channel means a slow reader, and drops. Closed
    /// when the guest is gone.
    pub(crate) output: mpsc::Receiver<Vec<u8>>,
    /// Types into the guest. May block for a short time when the guest does not read.
    pub(crate) input: ConsoleInput,
}

impl std::fmt::Debug for ConsoleAttachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleAttachment").field("replay_bytes", &self.replay.len()).finish_non_exhaustive()
    }
}
