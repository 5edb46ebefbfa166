//! stsrelay: an outbound mail relay that enforces MTA-STS, loses nothing and reports by TLS-RPT.

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dane;
pub mod delivery;
pub mod dsn;
pub mod mail;
pub mod net;
pub mod queue;
pub mod reporting;
pub mod route;
pub mod smtp;
pub mod store;
pub mod sts;
pub mod submission;
pub mod tlspolicy;
pub mod tlsrpt;
