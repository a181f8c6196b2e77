//! The server with a made-up VM behind it, through the real client and over a real socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use godwit_api::client::{Client, ClientError, LogPolled, Polled};
use godwit_api::{
    ApiError, ErrorCode, GuestRange, MigrateRequest, MigrationEvent, MigrationMode, MigrationOutcome,
    MigrationPhase, MigrationProgress, MigrationResult, MigrationStatus, ResolveHow, UpgradeRequest,
    VcpuRegisters, VmInfo, VmRegisters, VmState,
};
use tokio::sync::mpsc;

use super::{ApiSocket, BindError, ConsoleAttachment, ConsoleLog, Control, ServerHandle, serve};

const GRACE: Duration = Duration::from_secs(5);

/// A VM that exists only here. What the test wants to see or feed is in its fields.
struct FakeVm {
    state: Mutex<VmState>,
    stopped: Mutex<Option<bool>>,
    /// Feeds the running migration.
    migration: Mutex<Option<mpsc::Sender<MigrationEvent>>>,
    console: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    typed: Arc<Mutex<Vec<u8>>>,
    panics: AtomicBool,
}

impl FakeVm {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(VmState::Running),
            stopped: Mutex::new(None),
            migration: Mutex::new(None),
            console: Mutex::new(None),
            typed: Arc::default(),
            panics: AtomicBool::new(false),
        })
    }

    fn change(&self, from: &VmState, to: VmState) -> Result<VmInfo, ApiError> {
        let mut state = self.state.lock().expect("lock");
        if *state != *from {
            return Err(ApiError::wrong_state(format!("it is {state}"), "wait"));
        }
        *state = to;
        drop(state);
        Ok(self.info())
    }

    fn feeder(&self) -> mpsc::Sender<MigrationEvent> {
        let feeder = self.migration.lock().expect("lock").take();
        feeder.expect("a migration was started")
    }
}

impl Control for FakeVm {
    fn info(&self) -> VmInfo {
        assert!(!self.panics.load(Ordering::Relaxed), "asked to panic");
        VmInfo {
            name: "fake".into(),
            state: self.state.lock().expect("lock").clone(),
            pid: std::process::id(),
            epoch: 3,
            cpus: Some(2),
            memory_bytes: Some(1 << 20),
            kernel: Some("builtin".into()),
            cmdline: None,
            started_at_unix_ms: 1,
            uptime_ms: 2,
            console_dropped_bytes: 0,
            api_socket: "/fake".into(),
            listen: None,
            migration: None,
            debugger: None,
            detail: None,
        }
    }
    fn pause(&self) -> Result<VmInfo, ApiError> {
        self.change(&VmState::Running, VmState::Paused)
    }
    fn resume(&self) -> Result<VmInfo, ApiError> {
        self.change(&VmState::Paused, VmState::Running)
    }
    fn stop(&self, force: bool) -> Result<(), ApiError> {
        *self.stopped.lock().expect("lock") = Some(force);
        Ok(())
    }
    fn migrate(&self, _: MigrateRequest) -> Result<mpsc::Receiver<MigrationEvent>, ApiError> {
        let (feeder, events) = mpsc::channel(1);
        let mut migration = self.migration.lock().expect("lock");
        if migration.is_some() {
            return Err(ApiError::new(ErrorCode::Busy, "one is going on", "wait"));
        }
        *migration = Some(feeder);
        Ok(events)
    }
    fn upgrade(&self, _: UpgradeRequest) -> Result<mpsc::Receiver<MigrationEvent>, ApiError> {
        self.migrate(MigrateRequest::to("unix:/upgraded"))
    }
    fn migration(&self) -> Option<MigrationStatus> {
        None
    }
    fn cancel(&self) -> Result<(), ApiError> {
        Err(ApiError::new(ErrorCode::TooLate, "handed over", "resolve it"))
    }
    fn resolve(&self, how: ResolveHow) -> Result<VmInfo, ApiError> {
        assert_eq!(how, ResolveHow::Discard);
        Ok(self.info())
    }
    fn memory(&self, range: GuestRange) -> Result<Vec<u8>, ApiError> {
        if range.address() >= 1 << 20 {
            return Err(ApiError::new(ErrorCode::BadRequest, format!("{range} is not RAM"), "ask for RAM"));
        }
        Ok((range.address()..range.address() + range.length()).map(|at| at.to_le_bytes()[0]).collect())
    }
    fn registers(&self) -> Result<VmRegisters, ApiError> {
        if *self.state.lock().expect("lock") == VmState::Running {
            Ok(VmRegisters { vcpus: vec![VcpuRegisters { vcpu: 7, ..VcpuRegisters::default() }] })
        } else {
            Err(ApiError::wrong_state("it is not here", "wait"))
        }
    }
    fn console(&self) -> Result<ConsoleAttachment, ApiError> {
        let (sender, output) = mpsc::channel(4);
        *self.console.lock().expect("lock") = Some(sender);
        let typed = Arc::clone(&self.typed);
        Ok(ConsoleAttachment {
            replay: b"earlier ".to_vec(),
            output,
            input: Box::new(move |bytes| typed.lock().expect("lock").extend_from_slice(bytes)),
        })
    }
    fn console_log(&self, from: u64, follow: bool) -> Result<ConsoleLog, ApiError> {
        let more = follow.then(|| {
            let (sender, more) = mpsc::channel(4);
            *self.console.lock().expect("lock") = Some(sender);
            more
        });
        Ok(ConsoleLog { from: from.max(3), bytes: b"\xff\0old".to_vec(), last: !follow, more })
    }
}

struct Served {
    vm: Arc<FakeVm>,
    client: Client,
    handle: ServerHandle,
    directory: tempfile::TempDir,
}

fn served() -> Served {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vm.sock");
    let vm = FakeVm::new();
    let socket = ApiSocket::bind(&path).expect("binds");
    let control: Arc<dyn Control> = vm.clone();
    Served {
        vm,
        client: Client::new(path).with_timeout(Duration::from_secs(5)),
        handle: serve(Arc::new(socket), control).expect("serves"),
        directory,
    }
}

fn progress(round: u32) -> MigrationEvent {
    MigrationEvent::Progress(MigrationProgress {
        phase: MigrationPhase::Precopy,
        round,
        memory_left_bytes: 1,
        memory_total_bytes: 2,
        sent_bytes: 3,
        rate_bytes_per_s: 4,
        dirty_rate_bytes_per_s: 5,
        predicted_blackout_us: Some(6),
        elapsed_ms: 7,
    })
}

fn completed() -> MigrationEvent {
    MigrationEvent::Result(MigrationResult {
        status: MigrationOutcome::Completed,
        mode: MigrationMode::Auto,
        total_ms: 12.5,
        downtime_ms: Some(0.987),
        rounds: 2,
        bytes_sent: 3,
        pages_sent: 4,
        zero_pages: 5,
        reason: None,
    })
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> ApiError {
    match outcome {
        Err(ClientError::Api(error)) => error,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Sends raw bytes and reads until the server closes.
fn raw(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connects");
    stream.set_read_timeout(Some(GRACE)).expect("timeout");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

#[test]
fn memory_and_registers_are_what_the_vm_gives() {
    let served = served();
    // More than any answer in JSON may be, and more answers than there may be at a time.
    let range = GuestRange::new(3, 16 << 20).expect("a range");
    for _ in 0..10 {
        let bytes = served.client.memory(range).expect("memory");
        assert_eq!((bytes.len(), &bytes[..3]), (16 << 20, &[3, 4, 5][..]));
    }
    let answer = raw(served.client.socket(), &get("/v1/vm/memory?address=0x41&length=3"));
    assert!(answer.contains("content-type: application/octet-stream"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nABC"), "{answer}");
    assert_eq!(served.client.registers().expect("registers").vcpus[0].vcpu, 7);
    served.client.pause().expect("pause");
    assert_eq!(refusal(served.client.registers()).code, ErrorCode::WrongState);
    let beyond = GuestRange::new(1 << 20, 1).expect("a range");
    assert_eq!(refusal(served.client.memory(beyond)).code, ErrorCode::BadRequest);
}

#[test]
fn calls_reach_the_vm_and_refusals_come_back_typed() {
    let served = served();
    assert_eq!(served.client.info().expect("info"), served.vm.info());
    assert_eq!(served.client.pause().expect("pause").state, VmState::Paused);
    let refused = refusal(served.client.pause());
    assert_eq!(refused.code, ErrorCode::WrongState);
    assert_eq!(refused.message, "it is paused");
    assert_eq!(served.client.resume().expect("resume").state, VmState::Running);
    served.client.resolve(ResolveHow::Discard).expect("resolve");
    served.client.stop(true).expect("stop");
    assert_eq!(*served.vm.stopped.lock().expect("lock"), Some(true));
    assert_eq!(refusal(served.client.cancel()).code, ErrorCode::TooLate);
    assert_eq!(refusal(served.client.migration()).code, ErrorCode::NotFound);
    assert_eq!(served.client.version().expect("version").program, "godwit");
}

#[test]
fn bad_requests_are_refused_before_the_vm_sees_them() {
    let served = served();
    let socket = served.client.socket();
    for (request, status) in [
        (post("/v1/vm/migrations", "{"), "400"),
        (post("/v1/vm/migrations", "{}"), "400"),
        (post("/v1/vm/migrations", r#"{"target":"tcp:127.0.0.1:1","x":1}"#), "400"),
        (post("/v1/vm/migrations", r#"{"target":"tcp:127.0.0.1:1","streams":0}"#), "400"),
        (post("/v1/vm/migrations", r#"{"target":"unix:/x","mode":"postcopy"}"#), "501"),
        (post("/v1/vm/resolve", r#"{"how":"guess"}"#), "400"),
        (post("/v1/vm/migrations", &" ".repeat(70_000)), "413"),
        (post("/v1/vm", ""), "405"),
        (get("/v1/vm/memory"), "400"),
        (get("/v1/vm/memory?address=0"), "400"),
        (get("/v1/vm/memory?address=here&length=1"), "400"),
        (get("/v1/vm/memory?address=0&length=16777217"), "400"),
        (get("/v1/vm/memory?address=0&length=0"), "400"),
        (get("/v1/vm/memory?address=0xffffffffffffffff&length=2"), "400"),
        (get("/v1/vm/memory?address=0&length=1&stride=2"), "400"),
        (get("/v1/vm/memory?address=0x100000&length=1"), "400"),
        (post("/v1/vm/memory?address=0&length=1", ""), "405"),
        (post("/nothing", ""), "404"),
        ("GET /v1/vm/console HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(), "400"),
    ] {
        let answer = raw(socket, &request);
        let head = request.lines().next().unwrap_or_default();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
        assert!(answer.contains(r#""next":"#), "{head} has no advice: {answer}");
    }
    assert!(served.vm.migration.lock().expect("lock").is_none());
    raw(socket, "garbage\r\n\r\n");
    served.client.info().expect("garbage does no harm");
}

#[test]
fn a_body_is_optional_where_all_its_fields_are() {
    let served = served();
    let request = "PUT /v1/vm/stop HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(raw(served.client.socket(), request).starts_with("HTTP/1.1 202"));
    assert_eq!(*served.vm.stopped.lock().expect("lock"), Some(false));
}

#[test]
fn a_panic_behind_the_api_is_an_answer_and_not_the_end() {
    let served = served();
    served.vm.panics.store(true, Ordering::Relaxed);
    assert_eq!(refusal(served.client.info()).code, ErrorCode::Internal);
    served.vm.panics.store(false, Ordering::Relaxed);
    served.client.info().expect("still there");
}

#[test]
fn a_migration_streams_progress_and_ends_with_the_result() {
    let served = served();
    let mut events = served.client.migrate(&MigrateRequest::to("tcp:127.0.0.1:7000")).expect("accepted");
    assert_eq!(events.poll(Duration::from_millis(20)).expect("poll"), Polled::Waiting);
    let feeder = served.vm.feeder();
    feeder.blocking_send(progress(1)).expect("feeds");
    assert_eq!(events.poll(GRACE).expect("poll"), Polled::Event(progress(1)));
    feeder.blocking_send(completed()).expect("feeds");
    drop(feeder);
    assert_eq!(events.poll(GRACE).expect("poll"), Polled::Event(completed()));
    assert_eq!(events.poll(GRACE).expect("poll"), Polled::Ended);
}

#[test]
fn shutdown_waits_for_a_migrations_result() {
    let Served { vm, client, handle, directory: _directory } = served();
    let mut events = client.migrate(&MigrateRequest::to("tcp:127.0.0.1:7000")).expect("accepted");
    let feeder = vm.feeder();
    let ending = std::thread::spawn(move || handle.shutdown(GRACE));
    std::thread::sleep(Duration::from_millis(100));
    assert!(!ending.is_finished(), "the answer is still open");
    assert!(matches!(client.info(), Err(ClientError::NoSuchSocket { .. })));
    feeder.blocking_send(completed()).expect("feeds");
    drop(feeder);
    assert_eq!(events.poll(GRACE).expect("poll"), Polled::Event(completed()));
    assert_eq!(events.poll(GRACE).expect("poll"), Polled::Ended);
    ending.join().expect("ends");
}

#[test]
fn shutdown_does_not_wait_for_idle_or_silent_clients() {
    let Served { vm: _vm, client, handle, directory: _directory } = served();
    let _idle = UnixStream::connect(client.socket()).expect("connects");
    let _unread = client.migrate(&MigrateRequest::to("tcp:127.0.0.1:7000")).expect("accepted");
    let began = Instant::now();
    handle.shutdown(Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_client_that_leaves_does_not_stall_the_migration() {
    let served = served();
    let request = MigrateRequest::to("tcp:127.0.0.1:7000");
    drop(served.client.migrate(&request).expect("accepted"));
    let feeder = served.vm.feeder();
    // Far more than fits into every queue on the way.
    for round in 0..1000 {
        feeder.blocking_send(progress(round)).expect("the channel is drained");
    }
    feeder.blocking_send(completed()).expect("and the result taken");
}

#[test]
fn a_client_that_does_not_read_loses_progress_but_not_the_result() {
    let served = served();
    let request = MigrateRequest::to("tcp:127.0.0.1:7000");
    let mut events = served.client.migrate(&request).expect("accepted");
    let feeder = served.vm.feeder();
    for round in 0..20_000 {
        feeder.blocking_send(progress(round)).expect("the channel is drained");
    }
    feeder.blocking_send(completed()).expect("feeds");
    drop(feeder);
    let mut seen = 0;
    loop {
        match events.poll(GRACE).expect("poll") {
            Polled::Event(MigrationEvent::Progress(_)) => seen += 1,
            Polled::Event(result) => break assert_eq!(result, completed()),
            other => panic!("{other:?} after {seen} events"),
        }
    }
    assert!(seen < 20_000, "nothing was dropped: this test shows nothing");
}

#[test]
fn the_console_replays_then_carries_both_directions() {
    let served = served();
    let mut console = served.client.console().expect("attaches");
    let guest = served.vm.console.lock().expect("lock").take().expect("attached");
    console.stream.write_all(b"typed").expect("types");
    // End of input is not the end of output.
    console.stream.shutdown(std::net::Shutdown::Write).expect("half-closes");
    std::thread::sleep(Duration::from_millis(50));
    guest.blocking_send(b"later".to_vec()).expect("still attached");
    drop(guest);
    let mut all = console.received;
    console.stream.read_to_end(&mut all).expect("reads to the guest's end");
    assert_eq!(all, b"earlier later");
    assert_eq!(*served.vm.typed.lock().expect("lock"), b"typed");
}

#[test]
fn a_console_that_is_closed_is_let_go_though_the_guest_is_silent() {
    let served = served();
    let console = served.client.console().expect("attaches");
    let guest = served.vm.console.lock().expect("lock").take().expect("attached");
    drop(console);
    let deadline = Instant::now() + GRACE;
    while !guest.is_closed() {
        assert!(Instant::now() < deadline, "the attachment leaks");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_document_lists_every_route_and_every_reference_in_it_resolves() {
    let served = served();
    let document: serde_json::Value = served.client.get("/openapi.json").expect("document");
    for path in [
        "/v1/vm",
        "/v1/vm/pause",
        "/v1/vm/resume",
        "/v1/vm/stop",
        "/v1/vm/resolve",
        "/v1/vm/migrations",
        "/v1/vm/migration",
        "/v1/vm/console",
        "/v1/vm/memory",
        "/v1/vm/registers",
        "/v1/version",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is missing");
    }
    let text = document.to_string();
    let mut references = 0;
    for rest in text.split("\"#/").skip(1) {
        let pointer = format!("/{}", rest.split('"').next().unwrap_or_default());
        assert!(document.pointer(&pointer).is_some(), "{pointer} is missing");
        references += 1;
    }
    assert!(references > 10);
}

#[test]
fn the_socket_is_its_owners_and_goes_away() {
    let Served { vm: _vm, client, handle, directory } = served();
    let path = client.socket().to_owned();
    let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    handle.shutdown(GRACE);
    assert_eq!(std::fs::read_dir(directory.path()).expect("lists").count(), 0);
}

#[test]
fn a_live_socket_is_respected_a_stale_one_replaced() {
    let served = served();
    let path = served.client.socket();
    assert!(matches!(ApiSocket::bind(path), Err(BindError::InUse { .. })));
    served.client.info().expect("unharmed");

    let stale = served.directory.path().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("binds"));
    assert!(stale.exists());
    let bound = ApiSocket::bind(&stale).expect("replaced");
    // Somebody else's later file at the same path is not removed.
    std::fs::remove_file(&stale).expect("removes");
    std::fs::write(&stale, "mine").expect("writes");
    drop(bound);
    assert!(stale.exists());
    assert!(matches!(ApiSocket::bind(&stale), Err(BindError::NotASocket { .. })));
    let long = served.directory.path().join("x".repeat(120));
    assert!(matches!(ApiSocket::bind(&long), Err(BindError::PathTooLong { .. })));
    let nowhere = served.directory.path().join("no/such/dir.sock");
    assert!(matches!(ApiSocket::bind(&nowhere), Err(BindError::Io { .. })));
}

#[test]
fn the_log_carries_raw_bytes_with_their_position() {
    let served = served();
    let wait = Duration::from_secs(20);
    let mut log = served.client.console_log(0, false).expect("answers");
    assert_eq!((log.from(), log.is_last()), (3, true));
    assert_eq!(log.poll(wait).expect("reads"), LogPolled::Bytes(b"\xff\0old".to_vec()));
    assert_eq!(log.poll(wait).expect("reads"), LogPolled::Ended);

    let mut log = served.client.console_log(9, true).expect("answers");
    assert_eq!((log.from(), log.is_last()), (9, false));
    assert_eq!(log.poll(wait).expect("reads"), LogPolled::Bytes(b"\xff\0old".to_vec()));
    assert_eq!(log.poll(Duration::from_millis(1)).expect("reads"), LogPolled::Waiting);
    let feeder = served.vm.console.lock().expect("lock").take().expect("followed");
    feeder.blocking_send(b"new".to_vec()).expect("followed");
    assert_eq!(log.poll(wait).expect("reads"), LogPolled::Bytes(b"new".to_vec()));
    drop(feeder);
    assert_eq!(log.poll(wait).expect("reads"), LogPolled::Ended);

    match served.client.get::<()>("/v1/vm/console/log?from=soon") {
        Err(ClientError::Api(error)) => assert_eq!(error.code, ErrorCode::BadRequest),
        other => panic!("{other:?}"),
    }
}
