//! What the integration tests of the `godwit` binary share beside [`godwit_harness`], most of which is found
//! here under the same names.
//!
//! ```text
//!  Host, boot ▶ the harness, for the binary under test and the test kernel
//!  Dirtying ──▶ what a guest that writes memory says of itself, followed from process to process
//!  Proxy ─────▶ between source and target: sees every message, cuts, stalls, damages
//!  Dice, need ▶ random numbers that can be had again; what a test needs of the machine
//! ```
//!
//! | variable | effect |
//! |---|---|
//! | `GODWIT_BIN` | the binary to test, instead of the one that is built from this workspace |
//! | `GODWIT_SOAK=1` | as many repetitions as the acceptance asks for |
//! | `GODWIT_SEED=N` | the random numbers of an earlier run |

mod binary;
mod dice;
mod guest;
mod host;
mod need;
pub mod proxy;
mod startup;
mod still;

pub use binary::godwit;
pub use dice::Dice;
pub use godwit_harness::{
    Command, Finished, Line, Mark, Moved, Moving, Output, PATIENCE, Usage, VmProcess, wait_for,
};
pub use guest::{DIRTY, Dirtying, watch_mismatches};
pub use host::{Host, boot};
pub use need::{alone, kvm, repetitions, root, skip, soak};
pub use startup::Startup;
pub use still::{digest_by_guest, digest_from_outside, written_region};
