//! The relay's doors to the simulated Internet: DNS, HTTPS, dialling.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use stsrelay::dane::Tlsa;
use stsrelay::mail::Domain;
use stsrelay::net::dns::{Answer, Dns, Lookup, LookupFailure, MxRecord};
use stsrelay::net::https::{FetchError, Https, PostOutcome};
use stsrelay::net::tcp::{Connection, Dial};
use stsrelay::route::DnssecStatus;
use stsrelay::sts::freshness::{FetchFault, TroubleKind};
use tokio::time::sleep;

use crate::internet::{Answers, Manner, Told, Web};
use crate::sim::{Net, Sim};
use crate::{mx, tally};

/// Octets on their way; more than any handshake or dialogue has, so that no timing hangs on them.
const PIPE_BYTES: usize = 1 << 18;

pub struct Doors(pub Arc<Sim>);

fn status(signed: bool) -> DnssecStatus {
    if signed { DnssecStatus::Secure } else { DnssecStatus::Insecure }
}

impl Doors {
    /// Asks a name server: `Err` is what it says instead of an answer.
    async fn ask<T>(
        &self,
        name: &Domain,
        kind: &'static str,
        manner: impl Fn(&Net) -> Answers,
    ) -> Result<Duration, Lookup<T>> {
        let (took, ttl) = (self.0.roll(60), self.0.roll(240));
        sleep(Duration::from_millis(5 + took)).await;
        let (down, answers) = {
            let net = self.0.net();
            (net.dns_down, manner(&net))
        };
        let failed = |bogus, text: &str| {
            Err(Lookup::Failed(LookupFailure { name: name.to_string(), kind, bogus, text: text.to_owned() }))
        };
        match answers {
            _ if down => failed(false, "no server answers"),
            Answers::Fine => Ok(Duration::from_secs(60 + ttl)),
            Answers::Servfail => failed(false, "SERVFAIL"),
            Answers::Bogus => failed(true, "bogus"),
            Answers::Silent => {
                sleep(Duration::from_secs(3600)).await;
                failed(false, "timed out")
            }
        }
    }
}

fn found<T>(name: &Domain, records: Vec<T>, signed: bool, ttl: Duration) -> Lookup<T> {
    if records.is_empty() {
        return Lookup::NoData(status(signed));
    }
    Lookup::Found(Answer { records, status: status(signed), name: name.clone(), ttl })
}

impl Dns for Doors {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>> {
        Box::pin(async move {
            let manner = |net: &Net| net.zone(domain).map_or(Answers::Fine, |zone| zone.answers);
            let ttl = match self.ask(domain, "MX", manner).await {
                Ok(ttl) => ttl,
                Err(failed) => return failed,
            };
            let net = self.0.net();
            let Some(zone) = net.zone(domain) else { return Lookup::NxDomain(DnssecStatus::Insecure) };
            let record = |(preference, host): &(u16, usize)| MxRecord {
                preference: *preference,
                exchange: net.hosts[*host].name.to_string(),
            };
            found(domain, zone.mx.iter().map(record).collect(), zone.signed, ttl)
        })
    }

    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        Box::pin(async move {
            let text = name.as_str();
            let below = |label: &str| text.strip_prefix(label).map(crate::internet::domain);
            let (of, is_policy) = match (below("_mta-sts."), below("_smtp._tls.")) {
                (Some(of), _) => (of, true),
                (_, Some(of)) => (of, false),
                _ => return Lookup::NxDomain(DnssecStatus::Insecure),
            };
            let manner = |net: &Net| net.zone(&of).map_or(Answers::Fine, |zone| zone.answers);
            let ttl = match self.ask(name, "TXT", manner).await {
                Ok(ttl) => ttl,
                Err(failed) => return failed,
            };
            let net = self.0.net();
            let Some(zone) = net.zone(&of) else { return Lookup::NxDomain(DnssecStatus::Insecure) };
            let record = match (&zone.policy, &zone.rua) {
                (Some(policy), _) if is_policy && !zone.txt_lost => {
                    Some(format!("v=STSv1; id={};", policy.id))
                }
                (_, Some(rua)) if !is_policy => Some(format!("v=TLSRPTv1; rua={rua}")),
                _ => None,
            };
            found(name, record.into_iter().map(String::into_bytes).collect(), zone.signed, ttl)
        })
    }

    fn tlsa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Tlsa>> {
        Box::pin(async move {
            let Some(of) = name.as_str().strip_prefix("_25._tcp.").map(crate::internet::domain) else {
                return Lookup::NxDomain(DnssecStatus::Insecure);
            };
            let manner = |net: &Net| net.host(&of).map_or(Answers::Fine, |host| host.tlsa_answers);
            let ttl = match self.ask(name, "TLSA", manner).await {
                Ok(ttl) => ttl,
                Err(failed) => return failed,
            };
            let net = self.0.net();
            let Some(host) = net.host(&of) else { return Lookup::NxDomain(DnssecStatus::Insecure) };
            let keys = host.tlsa.last().map(|(_, keys)| keys.clone()).unwrap_or_default();
            found(name, keys.iter().map(|key| host.records[*key].clone()).collect(), host.signed, ttl)
        })
    }

    fn addresses<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<IpAddr>> {
        Box::pin(async move {
            let ttl = match self.ask(name, "A", |_| Answers::Fine).await {
                Ok(ttl) => ttl,
                Err(failed) => return failed,
            };
            let net = self.0.net();
            let Some(host) = net.host(name) else { return Lookup::NxDomain(DnssecStatus::Insecure) };
            found(name, vec![IpAddr::from(host.ip)], host.signed, ttl)
        })
    }
}

impl Https for Doors {
    fn fetch_policy<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            let sim = &self.0;
            let took = sim.roll(400);
            sleep(Duration::from_millis(50 + took)).await;
            let failed = |kind, fault, text: &str| Err(FetchError { kind, fault, text: text.to_owned() });
            let web = sim.net().zone(domain).map_or(Web::Refused, |zone| zone.web);
            match web {
                Web::Fine | Web::Unheard => {}
                Web::Refused => {
                    return failed(TroubleKind::Fetch, FetchFault::Unreachable, "connection refused");
                }
                Web::Silent => {
                    sleep(Duration::from_secs(120)).await;
                    return failed(TroubleKind::Fetch, FetchFault::Unreachable, "timed out");
                }
                Web::BadCertificate => {
                    return failed(TroubleKind::WebPki, FetchFault::Certificate, "certificate expired");
                }
                Web::Nonsense => return Ok(b"<html>".to_vec()),
            }
            let mut net = sim.net();
            let Net { hosts, zones, .. } = &mut *net;
            let zone = zones.iter_mut().find(|zone| zone.name == *domain);
            let Some((zone, text)) = zone.and_then(|zone| zone.policy_text(hosts).map(|text| (zone, text)))
            else {
                return failed(TroubleKind::Fetch, FetchFault::Status, "answered 404");
            };
            let policy = zone.policy.clone();
            if !sim.is_dead() {
                zone.told.push(Told { at: sim.time.now(), policy, jumped: 0 });
            }
            drop(net);
            sim.note(format_args!("policy of {domain} fetched: {}", text.replace("\r\n", " ")));
            Ok(text.into_bytes())
        })
    }

    fn post_report<'a>(
        &'a self,
        url: &'a str,
        _content_type: &'a str,
        body: Vec<u8>,
    ) -> BoxFuture<'a, PostOutcome> {
        Box::pin(async move {
            let sim = &self.0;
            let took = sim.roll(900);
            sleep(Duration::from_millis(100 + took)).await;
            let manner = {
                let net = sim.net();
                net.zones.iter().find(|zone| zone.rua.as_deref() == Some(url)).map(|zone| zone.endpoint)
            };
            match manner {
                Some(manner @ (Web::Fine | Web::Unheard)) => {
                    if !sim.is_dead() {
                        tally::report(sim, url, &body, manner == Web::Fine);
                    }
                    if manner == Web::Fine {
                        return PostOutcome::Accepted(201);
                    }
                    PostOutcome::Refused("the connection broke".to_owned())
                }
                Some(Web::Silent) => {
                    sleep(Duration::from_secs(60)).await;
                    PostOutcome::Refused("timed out".to_owned())
                }
                _ => PostOutcome::Refused("answered 503".to_owned()),
            }
        })
    }
}

impl Dial for Doors {
    fn dial(&self, to: SocketAddr, _host: &str, within: Duration) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let sim = &self.0;
            let took = sim.roll(80);
            sleep(Duration::from_millis(5 + took)).await;
            let found = {
                let net = sim.net();
                net.hosts
                    .iter()
                    .position(|host| IpAddr::from(host.ip) == to.ip())
                    .map(|at| (at, net.hosts[at].manner))
            };
            let Some((host, manner)) = found else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            match manner {
                Manner::Dead => return Err(io::ErrorKind::ConnectionRefused.into()),
                Manner::Blackhole => {
                    sleep(within).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                _ => {}
            }
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(mx::serve(Arc::clone(sim), host, far));
            Ok(Connection {
                stream: Box::new(near),
                local: Some(IpAddr::from([192, 0, 2, 200])),
                remote: to,
                hostname: None,
            })
        })
    }
}

impl Net {
    pub fn zone(&self, name: &Domain) -> Option<&crate::internet::Zone> {
        self.zones.iter().find(|zone| zone.name == *name)
    }

    pub fn host(&self, name: &Domain) -> Option<&crate::internet::Host> {
        self.hosts.iter().find(|host| host.name == *name)
    }
}
