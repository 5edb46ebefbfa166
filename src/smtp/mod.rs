//! The SMTP wire in both directions (RFC 5321), sans-io: bytes and facts in, actions and words out.
//!
//! Server side: [`command`], [`body`]. Client side: [`decoder`], [`extensions`], [`client`].

pub mod body;
pub mod client;
pub mod command;
pub mod decoder;
pub mod extensions;
