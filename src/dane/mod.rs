//! DANE for SMTP (RFC 6698, 7671, 7672): what records say, which names count, whether a chain proves it.
//!
//! Pure: records, names, certificates and `now` come in. `delivery::gather` looks the records up,
//! `tlspolicy` decides what they demand of a host, `net::tls` asks [`verify`](verify()) of each session.
//!
//! Never uses usages 0 and 1 (RFC 7672 §3.1.3), never the system's trust anchors, never a record that
//! is not DNSSEC-secure: the answer types keep those apart.

pub mod names;
pub mod tlsa;
pub mod verify;
pub mod x509;

pub use names::{reference_names, tlsa_name};
pub use tlsa::{Tlsa, TlsaAnswer, usable};
pub use verify::{Mismatch, verify};
