//! The world of a round: name server, policy host, MX hosts; every domain under an MTA-STS policy in
//! enforce mode.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;

use crate::place::{self, DOMAINS, HOSTS};
use crate::sink::{self, Arrived, Host};
use crate::support::dns::Dns;
use crate::support::pki::{Kind, Pki};
use crate::support::web::{Page, Web};

/// Longest wait for mail to arrive.
const ARRIVAL_WITHIN: Duration = Duration::from_secs(900);

/// See the file's header.
pub struct World {
    pub pki: Pki,
    pub dns: Dns,
    pub web: Web,
    pub smtp_port: u16,
    pub hosts: Vec<Host>,
    pub arrived: Arc<Arrived>,
}

/// What was asked of the world so far.
#[derive(Clone, Copy)]
pub struct Asked {
    pub handshakes: u64,
    pub questions: u64,
}

impl World {
    /// Everything but the MX hosts is up; `messages` numbers are counted. With `standard_ports` DNS,
    /// HTTPS and SMTP are where every mail server looks for them; only in a network namespace of its
    /// own can that be done.
    pub async fn new(messages: u64, standard_ports: bool) -> Self {
        let pki = Pki::new();
        let local =
            |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, if standard_ports { port } else { 0 }));
        let dns = Dns::start_at(local(53)).await;
        dns.ttl(300);
        let policy_hosts: Vec<String> =
            (0..DOMAINS).map(|number| format!("mta-sts.{}", place::domain(number))).collect();
        let names: Vec<&str> = policy_hosts.iter().map(String::as_str).collect();
        let web = Web::start_at(local(443), pki.leaf(&names, Kind::Good).server_config()).await;
        for number in 0..DOMAINS {
            let (domain, mx) = (place::domain(number), place::mx(place::host(number)));
            let policy_host = &policy_hosts[number as usize];
            dns.mx(&domain, 10, &mx);
            dns.txt(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;");
            dns.address(policy_host, web.address.ip());
            let text = format!("version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n");
            web.set(policy_host, Page::policy(&text));
        }
        let addresses: Vec<Ipv4Addr> = (0..HOSTS).map(place::address).collect();
        let smtp_port =
            if standard_ports { 25 } else { sink::common_port(&addresses).expect("loopback has ports") };
        let arrived = Arrived::new(messages);
        let mut hosts = Vec::new();
        for host in 0..HOSTS {
            let mx = place::mx(host);
            let address = place::address(host);
            dns.address(&mx, address.into());
            let tls = TlsAcceptor::from(pki.leaf(&[&mx], Kind::Good).server_config());
            hosts.push(Host::new((address, smtp_port).into(), tls, arrived.clone()));
        }
        Self { pki, dns, web, smtp_port, hosts, arrived }
    }

    /// The MX hosts take connections.
    pub async fn up(&mut self) {
        for host in &mut self.hosts {
            host.up().await.expect("its address is free");
        }
    }

    pub fn asked(&self) -> Asked {
        Asked {
            handshakes: self.arrived.handshakes.load(Ordering::Relaxed),
            questions: self.dns.questions() as u64,
        }
    }

    /// Waits until so many different messages have arrived, and says when.
    pub async fn arrive(&self, distinct: u64) -> Instant {
        let deadline = Instant::now() + ARRIVAL_WITHIN;
        while self.arrived.distinct() < distinct && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Instant::now()
    }
}
