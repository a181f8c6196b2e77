//! The source's data streams: a thread each, which sends its share of every round.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_vmm::kvm::DirtyLog;
use godwit_vmm::memory::GuestRam;

use super::source::Input;
use crate::protocol::{Message, RefusalReason, SessionId, StreamHello, StreamWelcome};
use crate::ram::{RoundWork, SendError, Shard, StreamSender, TransferCounters};
use crate::transport::{Address, ControlError, ControlReader, ControlWriter, Link, Shaper};

/// How long the target may take to welcome a data stream.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// What one stream has done with its share of a round.
#[derive(Debug)]
pub(super) struct StreamDone {
    pub(super) stream: u16,
    pub(super) round: u32,
    pub(super) result: Result<Sent, SendError>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) batches: u64,
    pub(super) digest: u64,
}

/// All data streams of a source.
pub(super) struct Streams {
    workers: Vec<Worker>,
    shaper: Arc<Shaper>,
}

struct Worker {
    jobs: Option<Sender<Arc<RoundWork>>>,
    link: Link,
    thread: Option<JoinHandle<()>>,
}

/// What the streams read and how they count.
#[derive(Clone)]
pub(super) struct StreamContext {
    pub(super) ram: Arc<GuestRam>,
    pub(super) dirty_log: Arc<DirtyLog>,
    pub(super) shaper: Arc<Shaper>,
    pub(super) counters: Arc<TransferCounters>,
}

/// Opens data connections, each welcomed by the target. Blocks.
pub(super) fn open(address: &Address, session: SessionId, streams: u16) -> Result<Vec<Link>, String> {
    (0..streams)
        .map(|index| {
            let hello = StreamHello { session, index, streams };
            open_one(address, hello).map_err(|why| format!("data stream {index}: {why}"))
        })
        .collect()
}

fn open_one(address: &Address, hello: StreamHello) -> Result<Link, String> {
    let text = |e: ControlError| e.to_string();
    let io_text = |e: io::Error| e.to_string();
    let link = address.connect().map_err(io_text)?;
    link.set_read_timeout(Some(WELCOME_WITHIN)).map_err(io_text)?;
    ControlWriter::new(&link).write(&Message::StreamHello(hello)).map_err(text)?;
    match ControlReader::of_stranger(&link).read().map_err(text)? {
        Message::StreamWelcome(StreamWelcome { index }) if index == hello.index => Ok(link),
        Message::Refused(reason @ RefusalReason::NoSuchSession) => Err(reason.to_string()),
        other => Err(format!("the target answered {:?} instead of a welcome", other.kind())),
    }
}

impl Streams {
    /// Starts a thread for each connection.
    pub(super) fn start(
        links: Vec<Link>,
        context: &StreamContext,
        inputs: &Sender<Input>,
    ) -> io::Result<Self> {
        let streams = u16::try_from(links.len()).unwrap_or(u16::MAX);
        let workers = (0..streams)
            .zip(links)
            .map(|(stream, link)| {
                Worker::start(Shard { stream, streams }, link, context.clone(), inputs.clone())
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { workers, shaper: Arc::clone(&context.shaper) })
    }

    /// Sends a round on all streams at once; each answers with [`StreamDone`].
    pub(super) fn send(&self, work: &Arc<RoundWork>) {
        for jobs in self.workers.iter().filter_map(|worker| worker.jobs.as_ref()) {
            // A worker that is gone has told why.
            let _ = jobs.send(Arc::clone(work));
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shaper.stop();
        for worker in &mut self.workers {
            worker.jobs = None;
            // Wakes a worker that waits for a peer that takes nothing. Already closed is fine.
            worker.link.shutdown(Shutdown::Both);
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Worker {
    fn start(shard: Shard, link: Link, context: StreamContext, inputs: Sender<Input>) -> io::Result<Self> {
        let (jobs, work) = mpsc::channel();
        let sending = link.try_clone()?;
        let thread = std::thread::Builder::new()
            .name(format!("send{}", shard.stream))
            .spawn(move || serve(shard, sending, context, &work, &inputs))?;
        Ok(Self { jobs: Some(jobs), link, thread: Some(thread) })
    }
}

fn serve(
    shard: Shard,
    link: Link,
    context: StreamContext,
    work: &Receiver<Arc<RoundWork>>,
    inputs: &Sender<Input>,
) {
    let StreamContext { ram, dirty_log, shaper, counters } = context;
    let mut sender = StreamSender::new(link, shard, ram, dirty_log, shaper, counters);
    for work in work {
        let result = sender.send_round(&work).map(|batches| Sent { batches, digest: sender.digest() });
        let failed = result.is_err();
        let done = StreamDone { stream: shard.stream, round: work.round, result };
        if inputs.send(Input::StreamDone(done)).is_err() || failed {
            return;
        }
    }
}
