//! Moves a running virtual machine.
