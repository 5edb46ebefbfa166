//! The Internet of the demo: the scenes set up, mail sent, and what the daemon and the hosts say about it.

use aws_lc_rs::digest;
use hickory_proto::rr::RecordType;
use serde_json::Value;

use crate::scenes::{Became, Host, Published, SCENES, Scene, hosts};
use crate::support::client::message;
use crate::support::daemon::free_addresses;
use crate::support::dns::Fault;
use crate::support::eventually;
use crate::support::mx::Behaviour;
use crate::support::pki::{Kind, Leaf};
use crate::support::web::Page;
use crate::support::world::World;

/// Where bounces go.
const HOME: &str = "home.test";
const SENDER: &str = "you@home.test";

/// A message, as the daemon and the hosts saw it.
pub struct Seen {
    pub domain: &'static str,
    pub about: &'static str,
    pub expected: Became,
    pub became: Became,
    /// How, or why not: from the daemon's evidence.
    pub how: String,
    /// Whether any host of the domain saw MAIL FROM for this message.
    pub host_saw_envelope: bool,
}

/// See the file's header.
pub struct Internet {
    world: World,
    /// First host of each scene.
    first: Vec<usize>,
    page: String,
}

impl Internet {
    pub async fn start() -> Self {
        let domains: Vec<&str> = SCENES.iter().map(|scene| scene.domain).collect();
        let [http] = free_addresses();
        let extra = format!(
            "[tlsrpt]\nfrom = \"tlsrpt@{HOME}\"\norganization_name = \"Demo\"\n[admin]\nhttp = \"{http}\"\n"
        );
        let mut world = World::prepare(hosts(), &domains, &extra).await;
        world.dns.authentic(true);
        world.good_domain(HOME, 0);
        let mut first = Vec::new();
        let mut next = 1;
        for scene in SCENES {
            first.push(next);
            furnish(&world, scene, next);
            next += scene.hosts.len();
        }
        world.daemon.start().await;
        Self { world, first, page: format!("http://{http}/") }
    }

    /// A message to somebody in each domain; returns when each has had its first attempt.
    pub async fn send_to_all(&self) -> Vec<Seen> {
        let mut ids = Vec::new();
        for scene in SCENES {
            let to = format!("somebody@{}", scene.domain);
            ids.push(self.world.submit(SENDER, &[&to], &message(scene.domain)).await);
        }
        let mut seen = Vec::new();
        for (index, (scene, id)) in SCENES.iter().zip(&ids).enumerate() {
            seen.push(self.look(index, scene, id, scene.about, scene.expected, 0).await);
        }
        seen
    }

    /// A domain that had mail over proven TLS loses record, policy host and STARTTLS to an attacker.
    pub async fn attack(&self) -> Seen {
        let index = SCENES.iter().position(|scene| scene.domain == "enforce.test").expect("it is there");
        let (scene, world) = (&SCENES[index], &self.world);
        world.dns.remove("_mta-sts.enforce.test", RecordType::TXT);
        world.web.set("mta-sts.enforce.test", Page::policy("version: STSv1\nmode: none\nmax_age: 1\n"));
        let host = &world.farm.hosts[self.first[index]];
        host.down();
        host.behave(Behaviour::clear());
        host.up().await;
        let before = envelopes(world, self.first[index], 1);
        let id = world.submit(SENDER, &["somebody@enforce.test"], &message("attack")).await;
        let about = "the same domain, under attack: no record, mode none, no STARTTLS";
        self.look(index, scene, &id, about, Became::Waits, before).await
    }

    async fn look(
        &self,
        index: usize,
        scene: &Scene,
        id: &str,
        about: &'static str,
        expected: Became,
        before: usize,
    ) -> Seen {
        let world = &self.world;
        let attempt = eventually("a first attempt", || async move {
            let attempts = world.daemon.json(&["evidence", id]).await;
            attempts.into_iter().find(|attempt| !attempt["recipients"].is_null())
        })
        .await;
        let recipient = &attempt["recipients"][0];
        let became = match recipient["outcome"].as_str() {
            Some("delivered") => Became::Delivered,
            Some("deferred") => Became::Waits,
            _ => Became::Bounced,
        };
        let envelopes = envelopes(world, self.first[index], scene.hosts.len());
        Seen {
            domain: scene.domain,
            about,
            expected,
            became,
            how: how(&attempt, became),
            host_saw_envelope: envelopes > before,
        }
    }

    /// The notices that came home: subject and what they say about status.
    pub async fn bounces(&self, seen: &[Seen]) -> Vec<(String, String)> {
        let count = seen.iter().filter(|seen| seen.became == Became::Bounced).count();
        let arrivals = self.world.arrivals(0, count).await;
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().to_owned()
        };
        let told = arrivals.iter().map(|arrival| {
            let text = arrival.text();
            let status =
                format!("{} for {}", field(&text, "Status:"), field(&text, "Final-Recipient: rfc822;"));
            (field(&text, "Subject:"), status)
        });
        told.collect()
    }

    /// Today's report so far of each domain that has one.
    pub async fn reports(&self) -> Vec<(&'static str, Value)> {
        let mut reports = Vec::new();
        for scene in SCENES {
            let report = self.world.daemon.json(&["report", "preview", scene.domain]).await;
            reports.extend(report.into_iter().map(|report| (scene.domain, report)));
        }
        reports
    }

    /// Says how to look around, and waits for Ctrl-C.
    pub async fn stay(&mut self) {
        let config = self.world.daemon.path("stsrelay.toml");
        let config = config.display();
        println!("\nEverything goes on running until Ctrl-C. In another terminal:");
        for verb in [
            "queue list",
            "explain somebody@stripped.test --connect",
            "policy list",
            "evidence --recipient-domain dane.test",
            "report preview testing.test",
        ] {
            println!("  cargo run -q --example demo -- {verb} --config {config}");
        }
        println!(
            "Submit more mail to {} (any SMTP client). Status page: {}",
            self.world.daemon.smarthost, self.page
        );
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for Ctrl-C: {error}");
        }
        let _ = self.world.daemon.stop().await;
    }
}

/// MAIL commands that reached these hosts.
fn envelopes(world: &World, first: usize, count: usize) -> usize {
    let hosts = world.farm.hosts[first..first + count].iter();
    hosts.map(|host| host.log().commands.iter().filter(|line| line.starts_with("MAIL")).count()).sum()
}

/// One sentence about an attempt: what TLS there was and what was demanded, or what failed.
fn how(attempt: &Value, became: Became) -> String {
    let recipient = &attempt["recipients"][0];
    let text = recipient["text"].as_str().unwrap_or_default();
    if became != Became::Delivered {
        return text.to_owned();
    }
    let by = recipient["host"].as_u64().and_then(|by| usize::try_from(by).ok()).unwrap_or_default();
    let host = &attempt["hosts"][by];
    let mx = host["mx"].as_str().unwrap_or_default();
    let rule = host["rule"].as_str().unwrap_or_default();
    let Some(version) = host["tls"]["version"].as_str() else {
        return format!("to {mx} in clear text: it has no TLS, and nothing demands it");
    };
    let proven = host["tls"]["pkix"].as_str() == Some("valid");
    match host["requirement"].as_str().unwrap_or_default() {
        "pkix" => format!("to {mx} over {version}, its certificate proven, as {rule} demands"),
        "dane" => format!("to {mx} over {version}, its key proven by the TLSA record, as {rule} demands"),
        _ if proven => format!("to {mx} over {version}; nothing is demanded ({rule})"),
        _ => format!("to {mx} over {version}, its certificate not proven; nothing is demanded ({rule})"),
    }
}

fn furnish(world: &World, scene: &Scene, first: usize) {
    let domain = scene.domain;
    world.dns.txt(&format!("_smtp._tls.{domain}"), &format!("v=TLSRPTv1; rua=mailto:tls@{domain}"));
    for (nth, host) in scene.hosts.iter().enumerate() {
        let mx = format!("mx{}.{domain}", nth + 1);
        world.route(domain, 10 * (nth as u16 + 1), &mx, first + nth);
        let leaf = |names: &[&str], kind| world.pki.leaf(names, kind);
        let shown: Option<Leaf> = match host {
            Host::Sound | Host::KnowsNobody => Some(leaf(&[&mx], Kind::Good)),
            Host::Expired => Some(leaf(&[&mx], Kind::Expired)),
            Host::WrongName => Some(leaf(&["www.elsewhere.test"], Kind::Good)),
            Host::SelfSigned => Some(leaf(&[&mx], Kind::SelfSigned)),
            Host::Clear => None,
        };
        let mut behaviour =
            shown.as_ref().map_or_else(Behaviour::clear, |leaf| Behaviour::with(leaf.server_config()));
        if *host == Host::KnowsNobody {
            behaviour = behaviour.answering("RCPT TO:<somebody@", "550 5.1.1 nobody of that name here");
        }
        world.farm.hosts[first + nth].behave(behaviour);
        let owner = format!("_{}._tcp.{mx}", world.farm.port);
        let published = match scene.published {
            Published::Tlsa => shown.map(|leaf| leaf.spki()),
            Published::TlsaOfOthers => Some(leaf(&[&mx], Kind::Good).spki()),
            _ => None,
        };
        if let Some(key) = published {
            world.dns.tlsa(&owner, [3, 1, 1], digest::digest(&digest::SHA256, &key).as_ref());
        }
        if scene.published == Published::TlsaBogus {
            world.dns.fault(&owner, RecordType::TLSA, Some(Fault::Bogus));
        }
    }
    match scene.published {
        Published::Sts(mode) => world.publish(domain, "1", mode, &[&format!("*.{domain}")], 604_800),
        Published::StsForOthers => {
            world.publish(domain, "1", "enforce", &["mail.home.hijacked.test"], 604_800)
        }
        Published::Nothing | Published::Tlsa | Published::TlsaOfOthers | Published::TlsaBogus => {}
    }
}
