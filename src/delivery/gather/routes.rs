//! Routes and addresses: DNS answers to hosts, or to failures with their codes.
//!
//! Never decides what a failing host means for the message: the walk over hosts does.

use std::net::IpAddr;

use super::super::static_route::{Hop, Target};
use super::{Gather, Heed, HostAnswers, Inner, NextHop};
use crate::dane::{self, TlsaAnswer};
use crate::mail::{Destination, Domain, EnhancedStatus, Failure, Permanence, Scope};
use crate::net::dns::{Lookup, LookupFailure};
use crate::route::{DnssecStatus, MxFacts, MxHost, Route};

/// Addresses of one host tried at most; more would only lengthen an attempt.
pub(super) const ADDRESSES_MAX: usize = 16;

impl Gather {
    /// Where mail goes that takes this hop (RFC 5321 §5.1).
    ///
    /// # Errors
    /// A failure of scope `Domain`: transient 4.4.3 when DNS does not answer; permanent 5.1.2 when
    /// the domain does not exist, 5.1.10 for a null MX, 5.4.4 when no MX names a host, 5.4.6 when
    /// all that is left is ourselves. On a static route all of them are transient.
    pub async fn route(&self, hop: &Hop) -> Result<NextHop, Failure> {
        self.routed(hop).await.map_err(|failure| hop.failing(failure))
    }

    async fn routed(&self, hop: &Hop) -> Result<NextHop, Failure> {
        let options = self.inner.options();
        let domain = match &hop.target {
            Target::Address(ip) if options.is_own(*ip, hop.port) => {
                let literal = Destination::Literal(*ip);
                return Err(loops_back(format!("{literal} is an address of this relay")));
            }
            Target::Address(ip) => return Ok(NextHop::Literal(*ip)),
            Target::Host(host) if options.is_own_name(host, hop.port) => {
                return Err(loops_back(format!("{host} is this relay")));
            }
            // RFC 7672 §2.2.2: a host that no MX record names. The operator does, which needs no DNSSEC.
            Target::Host(host) => {
                let hosts = vec![MxHost { name: host.clone(), preference: 0 }];
                let status = DnssecStatus::Secure;
                return Ok(NextHop::Route(Route { hosts, status, expanded: None, implicit: true }));
            }
            Target::MxOf(domain) => domain,
        };
        let inner = &self.inner;
        let known = match inner.options().dane {
            true => inner.watched_mx(domain).await,
            false => inner.mx.ask(domain, || inner.dns.mx(domain)).await,
        };
        let records: Vec<(u16, &str)>;
        let mut expanded = None;
        let (facts, status) = match &known.lookup {
            Lookup::Found(answer) => {
                expanded = (answer.name != *domain).then(|| answer.name.clone());
                records = answer.records.iter().map(|mx| (mx.preference, mx.exchange.as_str())).collect();
                (MxFacts::Records(&records), answer.status)
            }
            Lookup::NoData(status) => (MxFacts::NoRecords, *status),
            Lookup::NxDomain(status) => (MxFacts::NoDomain, *status),
            // RFC 5321 §5.1, RFC 7672 §2.1.2: a failed MX lookup delays the mail.
            Lookup::Failed(failure) => return Err(inner.blamed(dns_failure(Scope::Domain, failure)).await),
        };
        check_status(|| domain.to_string(), "MX", status)
            .map_err(|failure| dns_failure(Scope::Domain, &failure))?;
        Route::build(domain, facts, status, &options.own_names, &mut inner.random.generator())
            .map(|route| NextHop::Route(Route { expanded, ..route }))
            .map_err(|error| error.failure(domain))
    }

    /// The addresses of a host in the order to try, not yet held against the address guard (the
    /// dialling door does that), and what its TLSA records say.
    ///
    /// # Errors
    /// A failure of scope `Host`: transient 4.4.3 when DNS does not answer, permanent 5.4.4 when the
    /// host has no address (whether that is final depends on the other hosts: the caller decides).
    /// Of scope `Domain`, permanent 5.4.6, when the host is ourselves: hosts of the same or a worse
    /// preference must not be tried either. On a static route all of them are transient.
    pub async fn host(&self, host: &MxHost, hop: &Hop, heed: Heed) -> Result<HostAnswers, Failure> {
        self.answers(&host.name, hop, heed).await.map_err(|failure| hop.failing(failure))
    }

    async fn answers(&self, host: &Domain, hop: &Hop, heed: Heed) -> Result<HostAnswers, Failure> {
        let (inner, port) = (&self.inner, hop.port);
        let mut found = inner.host(host, port, heed).await?;
        if !inner.heeds(heed) {
            return Ok(found.answers);
        }
        let watched = inner.watched_name(host, port);
        if inner.is_less_than_known(&watched, &found.answers.tlsa) {
            match inner.doubt(host).await {
                Some(doubt) => found.answers.tlsa = TlsaAnswer::Failed(doubt),
                None => {
                    // What was asked for before validation was seen to work is no proof.
                    inner.forget_host(host, &found.end, port);
                    found = inner.host(host, port, heed).await?;
                }
            }
        }
        inner.watch_tlsa(&watched, hop.policy_domain(), &found.answers.tlsa, found.status);
        Ok(found.answers)
    }
}

/// A host as looked up.
struct Found {
    answers: HostAnswers,
    /// Of its addresses.
    status: DnssecStatus,
    /// The end of its CNAME chain.
    end: Domain,
}

impl Inner {
    fn heeds(&self, heed: Heed) -> bool {
        matches!(heed, Heed::Dane | Heed::DaneAfresh) && self.options().dane
    }

    /// By which TLSA records are watched: each port has its own, and what one has is nothing the other lost.
    fn watched_name(&self, host: &Domain, port: u16) -> Domain {
        match port == self.options().smtp_port {
            true => host.clone(),
            false => dane::tlsa_name(host, port).unwrap_or_else(|| host.clone()),
        }
    }

    async fn host(&self, name: &Domain, port: u16, heed: Heed) -> Result<Found, Failure> {
        let inner = self;
        let known = inner.hosts.ask(name, || inner.dns.addresses(name)).await;
        let answer = match &known.lookup {
            Lookup::Found(answer) => answer,
            Lookup::NoData(_) => return Err(no_address(name, "it has no A or AAAA record")),
            Lookup::NxDomain(_) => return Err(no_address(name, "it does not exist (NXDOMAIN)")),
            Lookup::Failed(failure) => {
                return Err(inner.blamed(at_host(name, dns_failure(Scope::Host, failure))).await);
            }
        };
        check_status(|| name.to_string(), "A and AAAA", answer.status)
            .map_err(|failure| at_host(name, dns_failure(Scope::Host, &failure)))?;
        let options = inner.options();
        // RFC 5321 §5.1: the relay finds itself in the list by address.
        if let Some(ip) = answer.records.iter().find(|ip| options.is_own(**ip, port)) {
            let what = format!("mx host {name} has the address {ip} of this relay");
            return Err(at_host(name, loops_back(what)));
        }
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(answer.records.len().min(ADDRESSES_MAX));
        for ip in &answer.records {
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(ip) {
                addresses.push(*ip);
            }
        }
        // RFC 7672 §2.2.2: addresses before TLSA, and TLSA only where they are secure.
        let (tlsa, tlsa_base) = match inner.heeds(heed) {
            true => inner.tlsa(name, port, answer, heed).await,
            false => (TlsaAnswer::Absent, name.clone()),
        };
        let tlsa = inner.blamed_tlsa(tlsa).await;
        let (status, end) = (answer.status, answer.name.clone());
        Ok(Found { answers: HostAnswers { addresses, tlsa, tlsa_base }, status, end })
    }
}

/// RFC 7672 §2.1.1: bogus and indeterminate answers are failures, not facts.
pub(super) fn check_status(
    name: impl FnOnce() -> String,
    kind: &'static str,
    status: DnssecStatus,
) -> Result<(), LookupFailure> {
    let (bogus, text) = match status {
        DnssecStatus::Secure | DnssecStatus::Insecure => return Ok(()),
        DnssecStatus::Bogus => (true, "DNSSEC validation failed"),
        DnssecStatus::Indeterminate => (false, "DNSSEC validation could not be completed"),
    };
    Err(LookupFailure { name: name(), kind, bogus, text: text.to_owned() })
}

pub(super) fn failure(scope: Scope, permanence: Permanence, status: EnhancedStatus, text: String) -> Failure {
    Failure { scope, permanence, status, text, host: None, reply: None, rule: None }
}

fn at_host(host: &Domain, failure: Failure) -> Failure {
    Failure { host: Some(host.to_string()), ..failure }
}

/// RFC 3463 §3.5: directory server failure, which DNS is.
fn dns_failure(scope: Scope, lookup: &LookupFailure) -> Failure {
    failure(scope, Permanence::Transient, EnhancedStatus::new(4, 4, 3), lookup.to_string())
}

fn loops_back(what: String) -> Failure {
    let text = format!("mail loops back: {what}");
    failure(Scope::Domain, Permanence::Permanent, EnhancedStatus::new(5, 4, 6), text)
}

fn no_address(host: &Domain, why: &str) -> Failure {
    let text = format!("mail host {host} cannot be reached: {why}");
    at_host(host, failure(Scope::Host, Permanence::Permanent, EnhancedStatus::new(5, 4, 4), text))
}
