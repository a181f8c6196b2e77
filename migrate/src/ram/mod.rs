//! Guest memory on its way: which stream carries which pages, which of them are zero, batches out and
//! batches in.

mod receive;
mod round;
mod send;
mod shard;
mod zero;

pub use receive::{ReceiveStreamError, StreamReceiver, StreamRoundEnd};
pub use round::{Pass, RoundWork};
pub use send::{SendError, StreamSender, TransferCounters};
pub use shard::{CHUNK_PAGES, Shard};
