//! stsrelay: an outbound mail relay that is never talked out of encryption and never loses a message
//! it accepted.
//!
//! # One message, straight
//!
//! ```text
//! submission::serve            TcpStream + permit
//!  -> session                  bytes <-> samotop-core session        -> transaction
//!  -> intake                   paths parsed, body streamed; the policy is looked up from RCPT on
//!  -> store::Queue::enqueue    journal append, group fdatasync, one item per recipient domain
//!                                                                    [I1: the 250 is said here]
//! delivery::run
//!  -> store::Queue::claim_due  leased, fenced claims                 -> QueueItem
//!  -> turns, traffic           a place for it, or set aside while its hosts are left alone
//!  -> delivery::attempt
//!      -> gather::hop          static routes                         -> Hop
//!      -> gather::sts          cache, TXT id, HTTPS fetch, freshness -> StsState
//!      -> gather::route        MX, implicit MX, null MX              -> Route
//!      for each host, in the order of RFC 5321 §5.1:
//!      -> gather::host         addresses, then TLSA records, unless
//!                              our own validator is at fault         -> HostAnswers
//!      -> tlspolicy::decide    facts                                 -> Verdict
//!      -> pool, or net::tcp::eyeballs                                -> connection
//!      -> conversation         drives smtp::client::Session          -> what TLS showed, how it ended
//!      -> judge                consequences                          -> outcomes, next host
//!      -> tally                what TLS showed                       -> store::Results      [I8]
//!  -> QueueItem::settle        outcomes, now                         -> Settlement
//!  -> notice, dsn::compose     only for failures, delays, `relayed`  -> new messages
//!  -> store::Queue::settle     states and notices in one durable step                       [I2]
//!
//! reporting::run (daily)
//!  -> store::Results           a day's tallies -> tlsrpt::Report -> JSON
//!  -> https POST, or DKIM-signed mail through the same queue
//!  -> store::targets           what failed there before; told by the posts and by delivery
//! ```
//!
//! # Who may import whom
//!
//! A row imports only rows below it. The stories (submission, delivery, reporting) never call each
//! other; they meet in `store`. Modules never see `config`; it makes their `Options`. `tests/map.rs`
//! holds this table true.
//!
//! ```text
//! main
//! cli
//! daemon
//! config
//! admin
//! submission | delivery | reporting
//! store | net
//! smtp
//! tlspolicy | queue | dsn
//! route | sts | dane | tlsrpt
//! mail | metrics
//! ```
//!
//! `mail`, `smtp`, `route`, `sts`, `dane`, `tlsrpt`, `dsn`, `tlspolicy`, `queue` and
//! `submission::lockout`, `sasl`, `senders`, `certificates`, `delivery::judge`, `hosts`, `pace`, `static_route`, `turns`, `limits`, `throttle` and `net::dns::validation` are pure: no clock, no disk, no network; bytes, facts and `now` come in.
//! samotop is named in `submission` alone, sled and rustix in `store`, hickory in `net::dns`, reqwest in
//! `net::https`, axum, hyper and maud in `admin`, prometheus-client in `metrics`, mail-auth in `reporting`, mail-parser and rawzip in `tlsrpt`.
//!
//! # Invariants
//!
//! - **I1** `250` after end-of-data only when body and envelope are on stable storage.
//! - **I2** An item leaves the queue only when every recipient is delivered, or failed with its bounce
//!   durable in the same step.
//! - **I3** A null reverse-path is never bounced.
//! - **I4** No MAIL FROM before the [`tlspolicy::TlsPlan`] is met.
//! - **I5** Nothing received before the handshake survives STARTTLS, in or out.
//! - **I6** Failing a policy is transient; before expiry makes it permanent, the STS id is looked up
//!   again (RFC 8461 §5.1).
//! - **I7** STS never overrides a failing DANE validation (RFC 8461 §2); a failed lookup never
//!   downgrades; DNS alone never lengthens a policy's life.
//! - **I8** TLS-RPT never delays or fails a delivery; report mail ignores TLS failures and is not itself
//!   counted (RFC 8460 §5).
//! - **I9** Delivery is at-least-once; only the window between the final dot and its reply, or a crash
//!   before that reply is recorded, may duplicate, and the log says so.
//! - **I10** A pooled connection or resumed TLS session carries a message only if what was verified on it
//!   satisfies that message's plan.
//!
//! # The outside is passed in
//!
//! Clock, chance, DNS, HTTPS, dialling and TLS are the doors of [`net::World`]; the daemon hands the real
//! ones to the stories, tests hand in their own.

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dane;
pub mod delivery;
pub mod dsn;
pub mod mail;
pub mod metrics;
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
