//! The words for how the daemon is. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::Health;

/// What the daemon is, and how it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The release.
    pub version: String,
    /// `server.hostname`
    pub hostname: String,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// Seconds since then.
    pub uptime: u64,
    /// Whether it takes mail.
    pub ready: bool,
    /// Why not.
    pub not_ready: Option<String>,
    /// Of the store: `fine`, or why no message is accepted.
    pub health: String,
    /// `works`, or what is the matter with DNSSEC validation and so with DANE.
    pub dnssec: String,
    /// Where mail is taken.
    pub listeners: Vec<ListenerStatus>,
}

/// A socket of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Of the listener.
    pub name: String,
    /// Address and port.
    pub address: String,
}

/// `fine`, or why no message is accepted.
pub fn health_text(health: &Health) -> String {
    health.trouble().unwrap_or_else(|| "fine".to_owned())
}
