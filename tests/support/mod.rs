//! A small Internet in the test process: name server, policy host and report endpoint, MX hosts, a
//! test CA, and the real daemon in front of them. All on loopback, ports from the kernel; everything
//! stops when dropped.

#![allow(dead_code, reason = "each test file uses its own part of the world")]

pub mod client;
pub mod daemon;
pub mod dns;
pub mod http;
pub mod mx;
pub mod pki;
#[path = "../../src/mail/mime/reader.rs"]
pub mod reader;
pub mod schema;
pub mod web;
pub mod world;

use std::future::Future;
use std::time::Duration;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `look` gives something, and panics with what was waited for when it never does.
pub async fn eventually<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
