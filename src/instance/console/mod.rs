//! The guest's serial port on our side: output to any number of readers, input from any number of
//! typists.

mod follow;
mod hub;
mod outputs;
mod ring;
mod stdio;

pub(crate) use follow::follow;
pub(crate) use hub::{Console, Output, Part};
pub(crate) use outputs::{Opening, OutputError, Outputs, Typist};
