//! The runtime directory.
