//! DANE knowledge (RFC 6698, 7671, 7672).
//!
//! The record and answer types that `tlspolicy` decides on. Lookup and authentication arrive with
//! DANE itself; until then every answer is [`TlsaAnswer::Absent`].

pub mod tlsa;

pub use tlsa::{Tlsa, TlsaAnswer};
