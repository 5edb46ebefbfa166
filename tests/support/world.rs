//! The world with the daemon in it, and what most stories do there.

use serde_json::Value;

use super::client::{Client, queue_id};
use super::daemon::Daemon;
use super::dns::Dns;
use super::eventually;
use super::mx::{Arrival, Behaviour, Farm};
use super::pki::{Kind, Pki};
use super::web::{Page, Web};

/// The world and a daemon in it.
pub struct World {
    /// The CA everybody trusts.
    pub pki: Pki,
    /// The name server.
    pub dns: Dns,
    /// Policy host and report endpoint.
    pub web: Web,
    /// MX hosts.
    pub farm: Farm,
    /// The daemon.
    pub daemon: Daemon,
}

impl World {
    /// A world with `hosts` MX hosts without TLS, and policy hosts for `domains`; the daemon is
    /// configured and running. `extra` is a further configuration file.
    pub async fn start(hosts: u8, domains: &[&str], extra: &str) -> Self {
        let mut world = Self::prepare(hosts, domains, extra).await;
        world.daemon.start().await;
        world
    }

    /// The same with the daemon configured and not running.
    pub async fn prepare(hosts: u8, domains: &[&str], extra: &str) -> Self {
        Self::prepare_with(Farm::start(hosts).await, domains, extra).await
    }

    /// A world with one more host, the last one, at the IPv6 loopback address.
    pub async fn start_dual(hosts: u8, domains: &[&str], extra: &str) -> Self {
        let extra = format!("[network]\nallow_private_destinations = [\"127.0.0.0/8\", \"::1\"]\n{extra}");
        let mut world = Self::prepare_with(Farm::start_with(hosts, true).await, domains, &extra).await;
        world.daemon.start().await;
        world
    }

    async fn prepare_with(farm: Farm, domains: &[&str], extra: &str) -> Self {
        let pki = Pki::new();
        let dns = Dns::start().await;
        let mut names: Vec<String> = domains.iter().map(|domain| format!("mta-sts.{domain}")).collect();
        names.push("reports.world.test".to_owned());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let web = Web::start(pki.leaf(&names, Kind::Good).server_config()).await;
        for name in names {
            dns.address(name, web.address.ip());
        }
        let daemon = Daemon::configure(&pki, &dns, &web, farm.port, extra);
        Self { pki, dns, web, farm, daemon }
    }

    /// Publishes an MTA-STS policy.
    pub fn publish(&self, domain: &str, id: &str, mode: &str, mx: &[&str], max_age: u32) {
        let mx: String = mx.iter().map(|mx| format!("mx: {mx}\r\n")).collect();
        let text = format!("version: STSv1\r\nmode: {mode}\r\n{mx}max_age: {max_age}\r\n");
        self.web.set(&format!("mta-sts.{domain}"), Page::policy(&text));
        self.dns.set_txt(&format!("_mta-sts.{domain}"), &format!("v=STSv1; id={id};"));
    }

    /// Names an MX host of a domain: record, address, and the host's index in the farm.
    pub fn route(&self, domain: &str, preference: u16, mx: &str, host: usize) {
        self.dns.mx(domain, preference, mx);
        self.dns.address(mx, self.farm.hosts[host].ip);
    }

    /// A sane host with a certificate for these names, of this kind.
    pub fn secured(&self, names: &[&str], kind: Kind) -> Behaviour {
        Behaviour::with(self.pki.leaf(names, kind).server_config())
    }

    /// A domain with one sane MX host, `mx.DOMAIN`, without policy.
    pub fn good_domain(&self, domain: &str, host: usize) {
        let mx = format!("mx.{domain}");
        self.route(domain, 10, &mx, host);
        self.farm.hosts[host].behave(self.secured(&[&mx], Kind::Good));
    }

    /// Submits one message as a trusted host; gives its queue id.
    pub async fn submit(&self, from: &str, to: &[&str], content: &str) -> String {
        let mut client = Client::connect(self.daemon.smarthost).await;
        let reply = client.submit(from, to, content).await;
        client.say("QUIT").await;
        queue_id(&reply)
    }

    /// Waits until every item of a message is deferred; gives what `queue show --json` says of them.
    pub async fn deferred(&self, id: &str) -> Vec<Value> {
        eventually(&format!("{id} to be deferred"), || async move {
            let items = self.daemon.json(&["queue", "show", id]).await;
            let all = !items.is_empty() && items.iter().all(|item| item["state"] == "deferred");
            all.then_some(items)
        })
        .await
    }

    /// Retries everything until `done`; for a change that has to be noticed first, such as a record
    /// whose old answer is still in a cache.
    pub async fn retry_until(&self, what: &str, done: impl Fn() -> bool) {
        let done = &done;
        eventually(what, || async move {
            if !done() {
                self.daemon.ask(&["queue", "retry", "--all"]).await;
            }
            done().then_some(())
        })
        .await;
    }

    /// Waits until nothing is in the queue.
    pub async fn drained(&self) {
        eventually("the queue to be empty", || async move {
            self.daemon.json(&["queue", "list"]).await.is_empty().then_some(())
        })
        .await;
    }

    /// Waits until only one item is left, deferred, and it is of this message.
    pub async fn drained_but(&self, id: &str) {
        eventually(&format!("only one item of {id} to be left"), || async move {
            let items = self.daemon.json(&["queue", "list"]).await;
            let [item] = items.as_slice() else { return None };
            let ours = item["id"].as_str().is_some_and(|item| item.starts_with(id));
            (ours && item["state"] == "deferred").then_some(())
        })
        .await;
    }

    /// Waits until a host has accepted `count` messages; gives them.
    pub async fn arrivals(&self, host: usize, count: usize) -> Vec<Arrival> {
        eventually(&format!("{count} messages at host {host}"), || async move {
            let arrivals = self.farm.hosts[host].accepted();
            (arrivals.len() >= count).then_some(arrivals)
        })
        .await
    }
}
