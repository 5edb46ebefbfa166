//! Story 1, mail in: listeners, SMTP sessions, AUTH, and the way of a message into the queue.
//!
//! ```text
//! serve::serve       TcpStream + permit
//!  -> session        bytes <-> samotop's SmtpContext        -> transaction
//!  -> intake         Received field, fix-ups, limits        -> Envelope + Body
//!  -> Queue::enqueue `250` only after it said Ok            (invariant I1)
//! ```
//!
//! Nobody relays who is neither in a trusted network nor authenticated, by AUTH or by a certificate. Nothing received before a
//! TLS handshake survives it (invariant I5). Only `session` names samotop.
//! See also: [`crate::smtp::command`] (the grammar), [`crate::smtp::body`] (DATA content).

pub mod auth;
mod bind;
mod certificates;
mod chatter;
pub mod intake;
mod lockout;
mod options;
mod places;
mod proxy;
mod quota;
mod received;
mod sasl;
mod scram;
mod senders;
mod serve;
mod session;
mod users;

pub use auth::{hash_password, scram_accepts, scram_password};
pub use bind::bind;
pub use certificates::{CertificateUser, Certificates, Fingerprint, SubjectName};
pub use intake::Guarded;
pub use lockout::LockoutOptions;
pub use options::{ClientCertificates, ListenerAuth, ListenerOptions, ListenerTls, Options, ReceivedClient};
pub use quota::{Rule, Rules};
pub use sasl::Mechanism;
pub use senders::{Sender, Senders};
pub use serve::{Sessions, serve};
pub use users::{Users, watch_users};
