//! Shared code of the integration tests.
