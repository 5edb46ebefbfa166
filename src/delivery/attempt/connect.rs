//! From a host's addresses to an open session: dialling, greeting, EHLO and the handshake, and what is
//! counted of them.
//!
//! All addresses belong to the same host name and are held to the same plan; which of them answers
//! first changes nothing about what must be proven. Called by `attempt` where the pool has nothing.

use std::net::{IpAddr, SocketAddr};

use tracing::{debug, warn};

use super::super::Delivery;
use super::super::conversation::{Conversation, Counted, Manner, TlsSeen};
use super::super::judge;
use super::super::tally::{self, Ends};
use super::walk::Walk;
use super::{ADDRESSES_MAX, Used};
use crate::mail::{Domain, TlsRequest};
use crate::net::tcp::Connection;
use crate::net::tcp::eyeballs::{Race, interleave};
use crate::smtp::client::{Credentials, SessionEnd, TlsUse};
use crate::tlspolicy::{SkipReason, TlsPlan};

/// Why a connection could not be used.
enum Opening {
    /// A resumed session led nowhere; a full handshake may do. Neither counted nor told.
    Resumption,
    /// TLS failed; an opportunistic walk may try in clear.
    Tls(Box<Counted>),
    /// Anything else: next address.
    Host,
}

impl Delivery {
    /// Tries the addresses of a host until a session could be used.
    pub(super) async fn try_addresses(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        plan: &TlsPlan,
        addresses: &[IpAddr],
    ) {
        let port = walk.hop.port;
        let addresses: Vec<SocketAddr> = interleave(addresses)
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .filter(|address| !self.leaves_alone(walk, host, *address))
            .take(ADDRESSES_MAX)
            .collect();
        let Some(first) = addresses.first() else { return };
        walk.tried = true;
        walk.turn.goes_to(first.ip(), host);
        let mut unseen = addresses.clone();
        self.race(walk, host, plan, addresses, &mut unseen).await;
        for address in unseen {
            self.traffic.unseen(address);
        }
    }

    /// Takes out of `unseen` what it has heard of.
    async fn race(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        plan: &TlsPlan,
        addresses: Vec<SocketAddr>,
        unseen: &mut Vec<SocketAddr>,
    ) {
        let mut race = Race::new(&*self.world.dial, host, addresses, walk.options.timeouts.connect);
        while !walk.is_over() {
            let raced = race.next().await;
            for (address, error) in raced.failed {
                unseen.retain(|unseen| *unseen != address);
                self.remember_dial(walk, host, address, &error);
                not_connected(walk, host, plan, address, &error);
            }
            let Some(connection) = raced.won else { return };
            unseen.retain(|unseen| *unseen != connection.remote);
            if self.try_connection(walk, host, plan, connection).await {
                return;
            }
        }
    }

    /// Whether the session that began on this connection, or after it in clear, could be used.
    async fn try_connection(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        plan: &TlsPlan,
        connection: Connection,
    ) -> bool {
        let address = connection.remote;
        let tls_use = walk.hop.tls_use(plan);
        let mut opened = self.open(walk, host, plan, connection, tls_use).await;
        if matches!(opened, Err(Opening::Resumption)) {
            // What was kept for this plan is forgotten by now, so this happens once.
            opened = self.dial_again(walk, host, plan, address, tls_use).await;
        }
        if tls_use == TlsUse::IfOffered {
            opened = match opened {
                Err(Opening::Tls(failed)) => {
                    // RFC 7435: opportunistic, so in clear rather than not at all; on a new connection.
                    // What decides is how it goes in clear: no TLS is no failure here.
                    walk.failures.pop();
                    let mut opened = self.dial_again(walk, host, plan, address, TlsUse::Never).await;
                    if let Ok(conversation) = &mut opened {
                        conversation.take_place_of(*failed);
                    }
                    opened
                }
                opened => opened,
            };
        }
        let Ok(conversation) = opened else { return false };
        if let Used::BdatUnknown = self.use_connection(walk, host, plan, conversation, false).await {
            // The host is remembered, so it gets DATA now and this happens once.
            match self.dial_again(walk, host, plan, address, tls_use).await {
                Ok(conversation) => self.use_connection(walk, host, plan, conversation, false).await,
                Err(_) => return false,
            };
        }
        true
    }

    async fn dial_again(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        plan: &TlsPlan,
        address: SocketAddr,
        tls_use: TlsUse,
    ) -> Result<Conversation, Opening> {
        match self.world.dial.dial(address, host, walk.options.timeouts.connect).await {
            Ok(connection) => self.open(walk, host, plan, connection, tls_use).await,
            Err(error) => {
                self.remember_dial(walk, host, address, &error);
                not_connected(walk, host, plan, address, &error);
                Err(Opening::Host)
            }
        }
    }

    async fn open(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        plan: &TlsPlan,
        connection: Connection,
        tls_use: TlsUse,
    ) -> Result<Conversation, Opening> {
        let address = connection.remote;
        walk.turn.goes_to(address.ip(), host);
        begin_record(walk, host, plan, address);
        let (mut conversation, opened) = Conversation::open(
            connection,
            self.world.tls.clone(),
            plan,
            &Manner { tls: tls_use, credentials: walk.hop.credentials(), ehlo_name: &walk.options.hostname },
            walk.options.timeouts.clone(),
        )
        .await;
        if opened.is_err() && conversation.resumption_failed {
            debug!(mx = host, %address, "resumption failed");
            return Err(Opening::Resumption);
        }
        self.count(walk, plan, &mut conversation);
        let version = match &conversation.seen {
            TlsSeen::Established(facts) => facts.version,
            _ => "none",
        };
        self.metrics.tls_session(version, &plan.rule.to_string(), opened.is_ok());
        self.remember_opening(walk, host, address, plan, opened.as_ref().err());
        let Err(end) = opened else { return Ok(conversation) };
        debug!(mx = host, %address, end = ?end, "session failed");
        walk.record.tls = conversation.tls_text();
        if let (SessionEnd::Auth(failure), Some(route)) = (&end, &walk.hop.via) {
            let username = walk.hop.credentials().map(Credentials::username);
            warn!(host, %address, username, %route, ?failure, "login at the next hop of a route failed");
        }
        let failure = walk.hop.failing(judge::session_failure(&end, host, plan.demands()));
        let failure = match walk.request {
            TlsRequest::Required => judge::under_requiretls(failure, &end),
            TlsRequest::None | TlsRequest::NotRequired => failure,
        };
        walk.trail.failed(host, plan, Some(&conversation), &failure.text);
        walk.failures.push((None, failure));
        let by_tls = matches!(end, SessionEnd::Tls(_)) || matches!(conversation.seen, TlsSeen::Failed(_));
        Err(if by_tls { Opening::Tls(Box::new(conversation.into_counted())) } else { Opening::Host })
    }

    /// Counts a host that a policy forbids: the session an attempt would have had (RFC 8460 §4.4,
    /// "attempted sessions").
    pub(super) fn count_passed_over(&self, walk: &mut Walk<'_>, host: &Domain, reason: &SkipReason) {
        let Some(report_domain) = &walk.report_domain else { return };
        if walk.passed_over.contains(host) {
            return;
        }
        let mut results = tally::of_skip(report_domain, host, reason);
        if walk.options.count_for_mx_hosts {
            results.extend(tally::for_mx_hosts(&results));
        }
        walk.passed_over.push(host.clone());
        self.record_results(results);
    }

    /// Counts a session for TLS-RPT, once per connection and report domain, under each policy that
    /// applies (RFC 8460 §4: sessions, not mails).
    pub(super) fn count(&self, walk: &Walk<'_>, plan: &TlsPlan, conversation: &mut Conversation) {
        let Some(report_domain) = &walk.report_domain else { return };
        if conversation.seen == TlsSeen::NotReached || !conversation.first_use_by(report_domain) {
            return;
        }
        let ends = Ends {
            local: conversation.local,
            remote: Some(conversation.remote.ip()),
            helo: conversation.server_name().map(str::to_owned),
        };
        let mut results = tally::of_session(report_domain, plan, &conversation.seen, &ends);
        if walk.options.count_for_mx_hosts {
            // Mail to many domains may ride on the session; to the host it is one.
            let of_hosts = tally::for_mx_hosts(&results);
            results.extend(of_hosts.into_iter().filter(|of| conversation.first_use_by(&of.report_domain)));
        }
        self.record_results(results);
    }
}

fn begin_record(walk: &mut Walk<'_>, host: &str, plan: &TlsPlan, address: SocketAddr) {
    walk.record.host = Some(host.to_owned());
    walk.record.address = Some(address.ip());
    walk.record.rule = plan.rule.to_string();
    walk.record.tls = None;
    walk.record.verified = None;
}

fn not_connected(
    walk: &mut Walk<'_>,
    host: &str,
    plan: &TlsPlan,
    address: SocketAddr,
    error: &std::io::Error,
) {
    begin_record(walk, host, plan, address);
    let text = format!("connection to {address} failed: {error}");
    debug!(mx = host, %address, %error, "connection failed");
    walk.trail.failed(host, plan, None, &text);
    walk.failures.push((None, judge::dial_failure(&text, host)));
}
