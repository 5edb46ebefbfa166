//! Explains mail to one destination: the same questions an attempt asks, with nothing sent.
//!
//! Uses what deliveries use: the daemon's resolver, policy cache, local rules, address guard and TLS.
//! With `connect`, goes with each host as far as MAIL would be said, and never says it. Never changes
//! the queue and counts no session; a policy is fetched (and a failing fetch counted) as for mail.
//! Called by `admin::answer`.

mod address;
mod conclude;
mod connect;
pub mod facts;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch;

use self::conclude::conclude;
use self::facts::{
    AddressFacts, AppliedFacts, Asked, Explanation, HeldFacts, HostExplained, LocalFacts, Pause, PolicyFacts,
    RecordFacts, ReportFacts, RouteFacts, Trouble, VerdictFacts,
};
use super::attempt::{ADDRESSES_MAX, HOSTS_MAX};
use super::gather::{self, Gather, Heed, NextHop, StsState};
use super::known::{self, Known};
use super::static_route::{Hop, Target};
use super::traffic::Traffic;
use super::{Options, frozen, judge, tally};
use crate::mail::{Destination, Domain, Failure, Scope, TlsRequest};
use crate::net::World;
use crate::net::dns::{Lookup, Validation};
use crate::net::guard::AddressGuard;
use crate::route::{DnssecStatus, MxHost, Route};
use crate::store::{Policies, Queue};
use crate::sts::record;
use crate::tlspolicy::{self, Course, HostFacts, LocalRule, Override, Requirement, TlsPlan, Verdict};

/// What explaining needs. Cheap to clone.
#[derive(Clone)]
pub struct Explainer {
    /// The doors.
    pub world: World,
    /// The daemon's own gatherer, with its caches.
    pub gather: Gather,
    /// The policy cache.
    pub policies: Policies,
    /// Held against every address before it is shown as usable.
    pub guard: AddressGuard,
    /// Of delivery, as they are now.
    pub delivery: watch::Receiver<Arc<Options>>,
    /// Of gathering, as they are now.
    pub gathering: watch::Receiver<Arc<gather::Options>>,
    /// Which destinations an operator has frozen.
    pub queue: Queue,
    /// Which destinations wait for their hosts.
    pub traffic: Traffic,
}

/// What is asked, and as what.
#[derive(Clone, Copy)]
struct Asking<'a> {
    destination: &'a Destination,
    hop: &'a Hop,
    connect: bool,
    options: &'a Options,
}

/// What is to be told of a host.
struct Look {
    verdict: Verdict,
    addresses: Result<Vec<IpAddr>, Failure>,
    /// Beyond the hosts of one attempt.
    out_of_reach: bool,
    connect: bool,
}

/// A host, how it is decided, and why it could not be used (as far as that is known).
struct Explained {
    host: HostExplained,
    failures: Vec<Failure>,
    /// RFC 5321 §5.1: the host is ourselves, and the walk ends here.
    ends_walk: bool,
}

impl Explainer {
    /// Explains mail to `destination` now; with `connect`, connects to its hosts.
    pub async fn explain(&self, destination: Destination, connect: bool) -> Explanation {
        let options = self.delivery.borrow().clone();
        let hop = self.gather.hop(&destination);
        let asking = Asking { destination: &destination, hop: &hop, connect, options: &options };
        let mut explained = match hop.policy_domain() {
            Some(domain) => self.explain_domain(domain, &asking).await,
            None => self.explain_address(&asking).await,
        };
        self.pause(&mut explained);
        explained
    }

    /// Attempts ask the same before they begin: no host is looked at while a pause lasts.
    fn pause(&self, explained: &mut Explanation) {
        let now = self.world.clock.now();
        if let Some(freeze) = self.queue.frozen(&explained.destination, now) {
            let failure = frozen::failure(&explained.destination, &freeze);
            explained.conclusion = conclude(Some(&failure), &[], explained.connected);
            explained.pause = Some(Pause { until: freeze.until, text: failure.text });
        } else if let Some(held) = self.traffic.held(&explained.destination, now) {
            explained.pause = Some(Pause { until: Some(held.until), text: held.text });
        }
    }

    /// The local rule for mail to a domain, before its hosts are looked at.
    pub fn local_rule(&self, domain: &Domain) -> LocalFacts {
        let course = Course { recipient: Some(domain), next_hop: Some(domain), ..Course::default() };
        local_facts(&self.delivery.borrow().overrides, &course, self.world.clock.now())
    }

    async fn explain_domain(&self, domain: &Domain, asking: &Asking<'_>) -> Explanation {
        let Asking { destination, hop, connect, options } = *asking;
        let (sts, route, mx, txt) = tokio::join!(
            self.gather.sts(domain, Duration::ZERO),
            self.gather.route(hop),
            self.mx(hop),
            self.txt(domain),
        );
        let now = self.world.clock.now();
        let (state, unknown) = match sts {
            Ok(state) => (state, None),
            Err(failure) => (StsState::default(), Some(failure)),
        };
        let (route, route_failure) = match route {
            Ok(NextHop::Route(route)) => (Some(route), None),
            Ok(NextHop::Literal(_)) => (None, None),
            Err(failure) => (None, Some(failure)),
        };
        let local = local_facts(&options.overrides, &known::course(destination, hop, None), now);
        let explained = match &route {
            Some(route) => self.explain_hosts(domain, route, &state, asking).await,
            None => Vec::new(),
        };
        let first_failure = unknown.as_ref().or(route_failure.as_ref());
        Explanation {
            at: now,
            conclusion: conclude(first_failure, &explained, connect),
            pause: None,
            validator: self.validator().await,
            route: RouteFacts::of(hop),
            implicit_mx: mx.is_some() && route.as_ref().is_some_and(|route| route.implicit),
            mx,
            route_trouble: route_failure.as_ref().map(Trouble::from),
            record: Some(record_facts(&txt)),
            policy: Some(self.policy_facts(domain, &state, unknown.as_ref(), now)),
            local,
            hosts: explained.into_iter().map(|explained| explained.host).collect(),
            connected: connect,
            destination: destination.clone(),
        }
    }

    /// What is the matter with our own DNSSEC validation.
    async fn validator(&self) -> Option<String> {
        match self.gather.validation().await {
            Validation::Works => None,
            trouble => Some(format!("validation {trouble}")),
        }
    }

    /// The MX records of a hop that has some.
    async fn mx(&self, hop: &Hop) -> Option<Asked> {
        let Target::MxOf(domain) = &hop.target else { return None };
        let mx = self.world.dns.mx(domain).await;
        Some(Asked::new(&mx, |mx| format!("{} {}", mx.preference, shown_exchange(&mx.exchange))))
    }

    async fn txt(&self, domain: &Domain) -> Lookup<Vec<u8>> {
        match domain.prefixed("_mta-sts") {
            Ok(name) => self.world.dns.txt(&name).await,
            // A name too long for DNS does not exist.
            Err(_) => Lookup::NxDomain(DnssecStatus::Insecure),
        }
    }

    fn policy_facts(
        &self,
        domain: &Domain,
        state: &StsState,
        unknown: Option<&Failure>,
        now: Timestamp,
    ) -> PolicyFacts {
        let entry = self.policies.get(domain);
        let entry = entry.as_deref();
        let trouble = state.trouble.as_ref().or_else(|| entry.and_then(|entry| entry.trouble.as_ref()));
        PolicyFacts {
            switched_off: !self.gathering.borrow().mta_sts,
            applies: state.policy.as_ref().map(|policy| AppliedFacts::new(policy, state.id.as_deref())),
            held: entry.and_then(|entry| entry.live(now)).map(HeldFacts::from),
            fetch_trouble: trouble.map(facts::FetchFacts::from),
            unknown: unknown.map(Trouble::from),
        }
    }

    async fn explain_hosts(
        &self,
        domain: &Domain,
        route: &Route,
        state: &StsState,
        asking: &Asking<'_>,
    ) -> Vec<Explained> {
        let Asking { destination: recipient, hop, connect, options } = *asking;
        let found = join_all(route.hosts.iter().map(|host| self.gather.host(host, hop, Heed::Dane))).await;
        let request = TlsRequest::None;
        let (overrides, now) = (options.overrides.as_slice(), self.world.clock.now());
        let known = Known { recipient, hop, domain, route, sts: state, request, overrides, options, now };
        let of_domain = local_facts(overrides, &known::course(recipient, hop, None), now);
        // As in an attempt: hosts that are skipped do not count.
        let mut tried = 0;
        let hosts = route.hosts.iter().zip(found).map(|(host, found)| {
            let facts = known.of(host, &found);
            let verdict = tlspolicy::decide(&facts);
            let out_of_reach = tried >= HOSTS_MAX;
            tried += usize::from(matches!(verdict, Verdict::Use(_)));
            let addresses = found.map(|found| found.addresses);
            let local = local_facts(overrides, &known::course(recipient, hop, Some(&host.name)), now);
            let local = (local != of_domain).then_some(local);
            async move {
                let look = Look { verdict, addresses, out_of_reach, connect };
                let mut explained = self.explain_host(domain, host, &facts, look, asking).await;
                explained.host.local = local;
                let required = HostFacts { request: TlsRequest::Required, ..facts.clone() };
                explained.host.requiretls = Some(VerdictFacts::of(&tlspolicy::decide(&required)));
                explained.host.tlsa = Some(facts::TlsaFacts::from(&facts.tlsa));
                explained
            }
        });
        join_all(hosts).await
    }

    async fn explain_host(
        &self,
        domain: &Domain,
        host: &MxHost,
        facts: &HostFacts,
        look: Look,
        asking: &Asking<'_>,
    ) -> Explained {
        let port = asking.hop.port;
        let Look { verdict, addresses, out_of_reach, connect } = look;
        let name = host.name.as_str();
        let mut explained = match &verdict {
            Verdict::Use(plan) => {
                let verdict = VerdictFacts::of_plan(plan);
                let mut explained = self.host(name, host.preference, verdict, addresses, port);
                explained.host.tls_rpt = ReportFacts::of_plan(plan);
                explained
            }
            Verdict::Skip(reason) => {
                let verdict = VerdictFacts::of_skip(reason);
                let mut explained = self.host(name, host.preference, verdict, addresses, port);
                explained.host.tls_rpt = ReportFacts::of_results(&tally::of_skip(domain, &host.name, reason));
                // An attempt does not even look at the addresses.
                explained.failures = vec![judge::skip_failure(reason, name)];
                explained.ends_walk = false;
                explained
            }
        };
        explained.host.listed = facts.sts.as_ref().map(|policy| policy.allows(&host.name));
        explained.host.out_of_reach = out_of_reach;
        if connect && !out_of_reach {
            match &verdict {
                Verdict::Use(plan) => {
                    self.connect(&mut explained, name, plan, Some(domain), asking).await;
                }
                Verdict::Skip(reason) => {
                    // Only to show what it has: whatever that is, no mail goes there.
                    let looking = TlsPlan {
                        require: Requirement::Opportunistic,
                        sni: host.name.clone(),
                        name: host.name.clone(),
                        mx_status: facts.mx_status,
                        report_on: Vec::new(),
                        rule: reason.rule,
                        local_text: None,
                    };
                    let failures = std::mem::take(&mut explained.failures);
                    self.connect(&mut explained, name, &looking, None, asking).await;
                    explained.failures = failures;
                }
            }
        }
        explained
    }

    fn host(
        &self,
        name: &str,
        preference: u16,
        verdict: VerdictFacts,
        addresses: Result<Vec<IpAddr>, Failure>,
        port: u16,
    ) -> Explained {
        let (addresses, failure) = match addresses {
            Ok(addresses) => (addresses, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        let addresses: Vec<AddressFacts> = addresses
            .into_iter()
            .map(|ip| AddressFacts { ip, refused: self.guard.check(ip).err() })
            .collect();
        let mut failures: Vec<Failure> = failure.iter().cloned().collect();
        let tried = || addresses.iter().take(ADDRESSES_MAX);
        // What dialling would say of each, when none is left.
        if tried().all(|address| address.refused.is_some()) {
            failures.extend(tried().filter_map(|address| {
                let to = SocketAddr::new(address.ip, port);
                let refused = address.refused.as_ref()?;
                Some(judge::dial_failure(&format!("connection to {to} failed: {refused}"), name))
            }));
        }
        Explained {
            ends_walk: failure.as_ref().is_some_and(|failure| failure.scope == Scope::Domain),
            host: HostExplained {
                host: name.to_owned(),
                preference,
                listed: None,
                address_trouble: failure.as_ref().map(Trouble::from),
                addresses,
                tlsa: None,
                local: None,
                verdict,
                requiretls: None,
                out_of_reach: false,
                tls_rpt: Vec::new(),
                tries: Vec::new(),
            },
            failures,
        }
    }
}

/// `.` is how a null MX is written (RFC 7505).
fn shown_exchange(exchange: &str) -> &str {
    if exchange.is_empty() { "." } else { exchange }
}

fn local_facts(overrides: &[Override], course: &Course<'_>, now: Timestamp) -> LocalFacts {
    // A route that demands nothing is no rule.
    let course = Course { route: course.route.filter(|own| own.require != LocalRule::None), ..*course };
    let rule = tlspolicy::local_rule_on(overrides, &course, now);
    rule.map(|rule| LocalFacts {
        rule: rule.require,
        whom: Some(rule.whom.to_string()),
        until: rule.until,
        reason: Some(rule.reason.clone()).filter(|reason| !reason.is_empty()),
    })
    .unwrap_or_default()
}

fn record_facts(txt: &Lookup<Vec<u8>>) -> RecordFacts {
    let asked = Asked::new(txt, |text| String::from_utf8_lossy(text).into_owned());
    let parsed = match txt {
        Lookup::Found(answer) => record::parse(&answer.records),
        Lookup::NoData(_) | Lookup::NxDomain(_) => Err(record::RecordError::Absent),
        Lookup::Failed(_) => return RecordFacts { asked, id: None, unusable: None },
    };
    match parsed {
        Ok(record) => RecordFacts { asked, id: Some(record.id), unusable: None },
        Err(error) => RecordFacts { asked, id: None, unusable: Some(error.to_string()) },
    }
}

#[cfg(test)]
mod tests;
