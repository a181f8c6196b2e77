//! Where the serial port goes: standard output, a file, or clients of a unix socket.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::hub::{Console, Output, Reader};
use super::stdio::{RawTerminal, StdinReader};
use crate::cli::Serial;

/// How long the end of the process waits for a reader that takes its time.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// How often a thread looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Types bytes into the guest; returns once they are taken or the guest is over or elsewhere, and says how
/// many were taken.
pub(crate) type Typist = Arc<dyn Fn(&[u8]) -> usize + Send + Sync>;

/// Whether there was a serial port before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// No: a file that is there already is emptied.
    Fresh,
    /// It was another process's: a file is continued, and this was typed there and not taken.
    Continued { typed: Vec<u8> },
}

/// Why the serial port cannot go where it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The file cannot be written.
    #[error("cannot write the serial port to {}: {source}; check that its directory exists and is yours", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The socket cannot be had.
    #[error("cannot offer the serial port on {}: {source}; choose another path, or remove what is there", path.display())]
    Socket { path: PathBuf, source: io::Error },
    /// No thread.
    #[error("cannot start a thread for the serial port: {0}")]
    Thread(#[source] io::Error),
}

/// The threads that carry serial output. [`finish`](Self::finish) lets them end in order.
#[derive(Debug)]
pub(crate) struct Outputs {
    console: Arc<Console>,
    /// The one output that everything must reach before the process ends, and how far it is.
    main: Option<(JoinHandle<()>, Arc<AtomicU64>)>,
    listener: Option<(UnixStream, JoinHandle<()>, PathBuf)>,
    stdin: Option<StdinReader>,
    _terminal: Option<RawTerminal>,
}

impl Outputs {
    /// Carries nothing.
    pub(crate) fn none(console: &Arc<Console>) -> Self {
        Self { console: Arc::clone(console), main: None, listener: None, stdin: None, _terminal: None }
    }

    /// Begins to carry `console` to where `serial` says, and input back through `typist`.
    pub(crate) fn start(
        serial: &Serial,
        opening: Opening,
        console: &Arc<Console>,
        typist: Typist,
    ) -> Result<Self, OutputError> {
        let mut outputs = Self::none(console);
        match serial {
            Serial::None => {}
            Serial::Stdio => {
                outputs._terminal = RawTerminal::of_stdin();
                outputs.main = Some(carry(console.reader(), StdoutUnbuffered)?);
                let raw = outputs._terminal.as_ref().map(RawTerminal::restorer);
                let typed = match opening {
                    Opening::Fresh => Vec::new(),
                    Opening::Continued { typed } => typed,
                };
                outputs.stdin = Some(StdinReader::start(typist, raw, typed)?);
            }
            Serial::File(path) => {
                let file = OpenOptions::new()
                    .create(true)
                    .write(true)
                    .truncate(opening == Opening::Fresh)
                    .append(opening != Opening::Fresh)
                    .open(path)
                    .map_err(|source| OutputError::File { path: path.clone(), source })?;
                outputs.main = Some(carry(console.reader(), file)?);
            }
            Serial::Unix(path) => outputs.listener = Some(listen(path, console, typist)?),
        }
        Ok(outputs)
    }

    /// The guest goes on in another process: as [`finish`](Self::finish), and gives back what was read
    /// from standard input that it has not taken.
    pub(crate) fn finish_here(mut self) -> Vec<u8> {
        let typed = self.stdin.take().map(StdinReader::stop).unwrap_or_default();
        self.finish();
        typed
    }

    /// The guest is gone: carries what is left, but does not wait for a reader that stopped reading.
    pub(crate) fn finish(mut self) {
        self.console.close();
        if let Some((thread, progress)) = self.main.take() {
            let mut last = (progress.load(Ordering::SeqCst), Instant::now());
            while !thread.is_finished() && last.1.elapsed() < DRAIN_WITHIN {
                std::thread::park_timeout(Duration::from_millis(1));
                let now = progress.load(Ordering::SeqCst);
                if now != last.0 {
                    last = (now, Instant::now());
                }
            }
            if !thread.is_finished() {
                let left = self.console.written().saturating_sub(last.0);
                tracing::warn!(bytes = left, "nobody reads the serial output; the last bytes are dropped");
            }
        }
        if let Some((stop, thread, path)) = self.listener.take() {
            drop(stop);
            let _ = thread.join();
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Standard output without Rust's line buffer: every byte goes out when the guest writes it.
struct StdoutUnbuffered;

impl Write for StdoutUnbuffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn carry(
    mut reader: Reader,
    mut to: impl Write + Send + 'static,
) -> Result<(JoinHandle<()>, Arc<AtomicU64>), OutputError> {
    let progress = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&progress);
    let thread = spawn("serial-out", move || {
        loop {
            match reader.read(LOOK_EVERY) {
                Output::Bytes(bytes) => {
                    if let Err(error) = to.write_all(&bytes) {
                        // The reader has gone; the guest does not care.
                        tracing::debug!(%error, "serial output ends");
                        return;
                    }
                    counter.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                }
                Output::Nothing => {}
                Output::End => return,
            }
        }
    })?;
    Ok((thread, progress))
}

fn listen(
    path: &Path,
    console: &Arc<Console>,
    typist: Typist,
) -> Result<(UnixStream, JoinHandle<()>, PathBuf), OutputError> {
    let socket = |source| OutputError::Socket { path: path.to_owned(), source };
    let listener = UnixListener::bind(path).map_err(socket)?;
    listener.set_nonblocking(true).map_err(socket)?;
    let (stop, stopped) = UnixStream::pair().map_err(socket)?;
    let console = Arc::clone(console);
    let thread = spawn("serial-listen", move || {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
            ];
            if !matches!(poll(&mut fds, None), Ok(_) | Err(rustix::io::Errno::INTR)) {
                return;
            }
            if !fds[1].revents().is_empty() {
                return;
            }
            if let Ok((client, _)) = listener.accept()
                && let Err(error) = serve_client(client, &console, &typist)
            {
                tracing::warn!(%error, "a client of the serial socket could not be served");
            }
        }
    })?;
    Ok((stop, thread, path.to_owned()))
}

fn serve_client(client: UnixStream, console: &Arc<Console>, typist: &Typist) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let mut input = client.try_clone()?;
    let typist = Arc::clone(typist);
    let (replay, mut reader) = console.attach();
    std::thread::Builder::new().name("serial-in".to_owned()).spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = input.read(&mut bytes) {
            typist(&bytes[..count]);
        }
    })?;
    std::thread::Builder::new().name("serial-client".to_owned()).spawn(move || {
        let mut client = client;
        let mut bytes = replay;
        loop {
            if client.write_all(&bytes).is_err() {
                return;
            }
            bytes = match reader.read(LOOK_EVERY) {
                Output::Bytes(bytes) => bytes,
                Output::Nothing => Vec::new(),
                Output::End => return,
            };
        }
    })?;
    Ok(())
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, OutputError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(OutputError::Thread)
}
