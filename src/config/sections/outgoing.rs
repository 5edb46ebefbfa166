//! How mail goes out: `[delivery]` and `[[route]]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::source::SourceAddress;
use super::super::value::{Size, Span};
use crate::delivery::pace::Rate;
use crate::delivery::pool;
use crate::delivery::static_route::{HopTls, NextHopName, RouteFor};
use crate::mail::Pattern;
use crate::queue::RetryOptions;
use crate::smtp::client::Timeouts as ClientTimeouts;
use crate::store::suppressions::SuppressionAnswer;
use crate::tlspolicy::LocalRule;

/// `[delivery]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Port of MX hosts.
    pub smtp_port: u16,
    /// Addresses to send from; empty: the system decides.
    pub source_addresses: Vec<SourceAddress>,
    /// Attempts at the same time.
    pub concurrency: usize,
    /// Attempts at the same time to one destination.
    pub concurrency_per_destination: usize,
    /// Attempts at the same time to one host address.
    pub concurrency_per_host: usize,
    /// Waits after the first, second, ... failed attempt; the last one repeats.
    pub retry: Vec<Span>,
    /// Then a message is given up and bounced.
    pub lifetime: Span,
    /// Then the sender is warned, once.
    pub delay_warning: Span,
    /// Content by BDAT where a host offers CHUNKING (RFC 3030).
    pub chunking: bool,
    /// Octets per second that a host must take of a message's content, on average.
    pub minimum_rate: Size,
    // Before the tables, so that an empty list shows under `[delivery]`.
    /// Limits for some destinations.
    pub destination: Vec<DestinationSection>,
    /// Recipients that do not exist.
    pub suppression: Suppression,
    /// How long to wait for MX hosts.
    pub timeouts: Timeouts,
    /// How long open connections are kept for the next message.
    pub pool: Pool,
}

/// `[delivery.pool]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Time without use.
    pub idle_time: Span,
    /// Age from which a connection is not used again.
    pub age: Span,
    /// Messages on one connection.
    pub messages: u32,
    /// Idle connections in all.
    pub connections: usize,
    /// Idle connections to one host.
    pub connections_per_host: usize,
}

/// `[[delivery.destination]]`: `domain` or `mx`, and at least one limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationSection {
    /// Each recipient domain with this name, or below it.
    pub domain: Option<Pattern>,
    /// All MX hosts with this name, or below it, together.
    pub mx: Option<Pattern>,
    /// Attempts at the same time.
    pub concurrency: Option<usize>,
    /// Attempts a unit of time.
    pub rate: Option<Rate>,
    /// Messages on one connection.
    pub messages_per_connection: Option<u32>,
}

/// `[delivery.suppression]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Suppression {
    /// Remember recipients whose mail system says that they do not exist.
    pub enabled: bool,
    /// Hard bounces after which a recipient is on the list.
    pub after: u32,
    /// How long it stays there, from the last bounce.
    pub keep: Span,
    /// What becomes of mail to it.
    pub answer: SuppressionAnswer,
}

/// `[delivery.timeouts]` (RFC 5321 §4.5.3.2)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP connection.
    pub connect: Span,
    /// 220 greeting.
    pub greeting: Span,
    /// EHLO, STARTTLS with its handshake, MAIL, RSET.
    pub command: Span,
    /// RCPT.
    pub rcpt: Span,
    /// DATA.
    pub data: Span,
    /// Each block of content.
    pub body: Span,
    /// Reply to the final dot.
    pub dot: Span,
}

/// `[[route]]`: a configured next hop for some mail, or for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSection {
    /// Recipient domains: one, all below a name, or `*` for all mail.
    pub domain: RouteFor,
    /// Where it goes.
    pub next_hop: NextHopName,
    /// How TLS begins there.
    #[serde(default)]
    pub tls: HopTls,
    /// What the next hop must show.
    #[serde(default)]
    pub require: Option<LocalRule>,
    /// With what we log in.
    #[serde(default)]
    pub username: Option<String>,
    /// The password to it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

impl Default for Delivery {
    fn default() -> Self {
        let retry = RetryOptions::default();
        Self {
            smtp_port: 25,
            source_addresses: Vec::new(),
            concurrency: 500,
            concurrency_per_destination: 20,
            concurrency_per_host: 50,
            retry: retry.retry.into_iter().map(Span).collect(),
            lifetime: Span(retry.lifetime),
            delay_warning: Span(retry.delay_warning),
            chunking: true,
            minimum_rate: Size(ClientTimeouts::default().octets_per_second),
            suppression: Suppression::default(),
            timeouts: Timeouts::default(),
            destination: Vec::new(),
            pool: Pool::default(),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        let of = pool::Options::default();
        Self {
            idle_time: Span(of.idle_time),
            age: Span(of.age),
            messages: of.messages,
            connections: of.connections,
            connections_per_host: of.connections_per_host,
        }
    }
}

impl Default for Suppression {
    fn default() -> Self {
        let month = std::time::Duration::from_secs(30 * 86_400);
        Self { enabled: false, after: 2, keep: Span(month), answer: SuppressionAnswer::Refuse }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let of = ClientTimeouts::default();
        Self {
            connect: Span(of.connect),
            greeting: Span(of.greeting),
            command: Span(of.command),
            rcpt: Span(of.rcpt),
            data: Span(of.data),
            body: Span(of.body),
            dot: Span(of.dot),
        }
    }
}
