//! Many domains with policies and local rules of all kinds share hosts whose TLS changes all the time,
//! over pooled connections and resumed sessions: no message ever arrives over a connection that its
//! domain's policy forbids, what is explained is what is done, and the evidence says what the host saw.

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustls::ServerConfig;
use serde_json::Value;

use support::client::message;
use support::eventually;
use support::mx::{Arrival, Behaviour, StartTls};
use support::pki::Kind;
use support::world::World;

const HOSTS: usize = 3;
const ROUNDS: usize = 8;

/// What a connection must have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    Nothing,
    Tls,
    Proof,
}

/// A domain: its policy, whether that lists every host or only the first, and the local rule for it.
struct Domain {
    name: &'static str,
    mode: Option<&'static str>,
    all_listed: bool,
    rule: Option<&'static str>,
}

const fn domain(
    name: &'static str,
    mode: Option<&'static str>,
    all_listed: bool,
    rule: Option<&'static str>,
) -> Domain {
    Domain { name, mode, all_listed, rule }
}

const DOMAINS: [Domain; 10] = [
    domain("bare.test", None, true, None),
    domain("strict.test", Some("enforce"), true, None),
    domain("narrow.test", Some("enforce"), false, None),
    domain("trial.test", Some("testing"), true, None),
    domain("stray.test", Some("testing"), false, None),
    domain("ended.test", Some("none"), true, None),
    domain("free.test", Some("enforce"), false, Some("ignore-sts")),
    domain("verified.test", None, true, Some("verify")),
    domain("raised.test", Some("testing"), false, Some("verify")),
    domain("encrypted.test", Some("none"), true, Some("encrypt")),
];

impl Domain {
    /// What the host must show for a message; nothing will do where there is no answer. Written down
    /// anew, from RFC 8461 section 5 and RFC 8689 section 4.2.2, and not from the code.
    fn must(&self, host: usize, careless: bool) -> Option<Must> {
        match self.rule {
            Some("verify") => return Some(Must::Proof),
            Some("encrypt") => return Some(Must::Tls),
            Some("ignore-sts") => return Some(Must::Nothing),
            _ => {}
        }
        match self.mode {
            Some("enforce") if !careless && (self.all_listed || host == 0) => Some(Must::Proof),
            Some("enforce") if !careless => None,
            _ => Some(Must::Nothing),
        }
    }
}

fn mx(host: usize) -> String {
    format!("mx{host}.shared.test")
}

/// The certificates that hosts may show, by the address of their configuration: which host they prove.
struct Shown {
    kept: Vec<Arc<ServerConfig>>,
    proves: HashMap<usize, usize>,
}

impl Shown {
    fn behaviour(&mut self, world: &World, host: usize, random: &mut StdRng) -> Behaviour {
        let name = mx(host);
        let (names, kind) = match random.random_range(0..8) {
            0 => return Behaviour::clear(),
            1 => return Behaviour { starttls: StartTls::Refused, ..Behaviour::clear() },
            2 => return Behaviour { starttls: StartTls::Garbage, ..Behaviour::clear() },
            3 => (vec![name.as_str()], Kind::SelfSigned),
            4 => (vec![name.as_str()], Kind::Expired),
            5 => (vec!["mx9.shared.test", "strict.test"], Kind::Good),
            _ => (vec![name.as_str()], Kind::Good),
        };
        let config = world.pki.leaf(&names, kind).server_config();
        if names == [name.as_str()] && kind == Kind::Good {
            self.proves.insert(Arc::as_ptr(&config) as usize, host);
        }
        self.kept.push(Arc::clone(&config));
        Behaviour::with(config)
    }

    fn has_shown(&self, host: usize, arrival: &Arrival) -> Must {
        match arrival.shown {
            None => Must::Nothing,
            Some(config) if self.proves.get(&config) == Some(&host) => Must::Proof,
            Some(_) => Must::Tls,
        }
    }
}

async fn story(seed: u64, pool: &str) {
    let rules: String = DOMAINS
        .iter()
        .filter_map(|domain| Some((domain.name, domain.rule?)))
        .map(|(name, rule)| format!("[[policy.override]]\ndomain = \"{name}\"\nrequire = \"{rule}\"\n"))
        .collect();
    let names: Vec<&str> = DOMAINS.iter().map(|domain| domain.name).collect();
    let extra = format!("[delivery.pool]\nidle_time = \"{pool}\"\n{rules}");
    let world = World::start(HOSTS as u8, &names, &extra).await;
    let all: Vec<String> = (0..HOSTS).map(mx).collect();
    for domain in &DOMAINS {
        for (host, mx) in all.iter().enumerate() {
            world.route(domain.name, 10, mx, host);
        }
        let listed: Vec<&str> =
            all.iter().take(if domain.all_listed { HOSTS } else { 1 }).map(String::as_str).collect();
        if let Some(mode) = domain.mode {
            world.publish(domain.name, "1", mode, &listed, 86_400);
        }
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut shown = Shown { kept: Vec::new(), proves: HashMap::new() };
    // By the text of the message: its domain, whether it is careless, its queue id.
    let mut sent: HashMap<String, (usize, bool, String)> = HashMap::new();
    for round in 0..ROUNDS {
        for (host, mx) in world.farm.hosts.iter().enumerate() {
            mx.behave(shown.behaviour(&world, host, &mut random));
        }
        let careless = round % 3 == 2;
        for (index, domain) in DOMAINS.iter().enumerate() {
            let text = format!("story-{seed}-{round}-{index}-end");
            let header = if careless { "TLS-Required: No\r\n" } else { "" };
            let content = format!("{header}{}", message(&text));
            let id = world.submit("a@home.test", &[&format!("b@{}", domain.name)], &content).await;
            sent.insert(text, (index, careless, id));
        }
        eventually("every message to be tried", || async {
            let items = world.daemon.json(&["queue", "list"]).await;
            items.iter().all(|item| item["state"] == "deferred").then_some(())
        })
        .await;
    }
    let mut arrived = 0;
    for (host, mx) in world.farm.hosts.iter().enumerate() {
        for arrival in mx.accepted() {
            let text = arrival.text();
            let (text, (index, careless, id)) =
                sent.iter().find(|(word, _)| text.contains(*word)).expect("one of ours");
            let domain = &DOMAINS[*index];
            let showed = shown.has_shown(host, &arrival);
            let must = domain.must(host, *careless);
            let enough = match must {
                None => false,
                Some(Must::Nothing) => true,
                Some(Must::Tls) => showed != Must::Nothing,
                Some(Must::Proof) => showed == Must::Proof,
            };
            assert!(enough, "seed {seed}: {text} for {} at host {host} over {showed:?}", domain.name);
            arrived += 1;
            if random.random_range(0..4) == 0 {
                let evidence = world.daemon.json(&["evidence", id]).await.pop().expect("evidence");
                tells_the_truth(&evidence, &all[host], must, showed);
            }
        }
    }
    assert!(arrived > 20, "seed {seed}: only {arrived} messages arrived");
    let held = world.daemon.json(&["queue", "list"]).await.len();
    assert_eq!(arrived + held, sent.len(), "seed {seed}: none is lost, none came twice");
    for domain in &DOMAINS {
        let explained = world.daemon.json(&["explain", domain.name]).await.remove(0);
        for (host, name) in all.iter().enumerate() {
            let hosts = explained["hosts"].as_array().expect("hosts");
            let told = hosts.iter().find(|host| host["host"] == **name).expect("the host");
            let wanted = match domain.must(host, false) {
                None => Value::Null,
                Some(Must::Nothing) => "nothing".into(),
                Some(Must::Tls) => "tls".into(),
                Some(Must::Proof) => "pkix".into(),
            };
            assert_eq!(told["verdict"]["require"], wanted, "{} {told}", domain.name);
        }
    }
}

/// The evidence of a message, beside what the host that took it saw.
fn tells_the_truth(evidence: &Value, mx: &str, must: Option<Must>, showed: Must) {
    let taken = evidence["recipients"][0]["host"].as_u64().expect("a host took it");
    let host = &evidence["hosts"][taken as usize];
    assert_eq!(host["mx"], mx, "{evidence}");
    assert_eq!(host.get("tls").is_some(), showed != Must::Nothing, "{evidence}");
    if let Some(tls) = host.get("tls") {
        assert_eq!(tls["pkix"] == "valid", showed == Must::Proof, "{evidence}");
    }
    let demanded = match must {
        Some(Must::Proof) => "pkix",
        Some(Must::Tls) => "encrypt",
        _ => "opportunistic",
    };
    assert_eq!(host["requirement"], demanded, "{evidence}");
    assert_eq!(host["verdict"], if demanded == "opportunistic" { "allowed" } else { "met" }, "{evidence}");
}

#[tokio::test]
async fn nothing_forbidden_travels_over_connections_that_are_used_again() {
    story(1, "20s").await;
}

#[tokio::test]
async fn nothing_forbidden_travels_over_resumed_sessions() {
    story(2, "0s").await;
}
