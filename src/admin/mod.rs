//! The admin socket: what the command line asks the daemon.
//!
//! A Unix socket of mode 0660: whoever may open it may do everything. `protocol` is what is said,
//! `socket` makes the listener, `serve` answers, `client` asks. `http` serves metrics, health and the same
//! answers as JSON, `page` shows them in a browser with plots of `history`. Never changes anything but through the stories' own doors.

mod answer;
pub mod client;
mod history;
mod http;
mod page;
pub mod protocol;
mod queue;
mod reports;
mod serve;
mod snapshot;
mod socket;
pub mod transfer;

pub use answer::{About, AdminHandles};
pub use history::keep::KeptHistory;
pub use http::{HttpAddress, HttpListener, HttpOptions, bind_http, serve_http};
pub use serve::serve;
pub use socket::{AdminSocket, bind};
