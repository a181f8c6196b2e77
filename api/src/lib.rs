//! Wire types and client of the API.
