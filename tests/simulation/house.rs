//! The relay's configuration: written, and changed while the relay runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use stsrelay::config::{Settings, Sources, settings};
use stsrelay::{delivery, reporting, submission};
use tokio::sync::watch;

use crate::bounds::{AGE_SECONDS, IDLE_SECONDS, MESSAGES_PER_CONNECTION, PER_HOST, POOLED_PER_HOST};
use crate::internet::{Rule, own_leaf};
use crate::sim::{Sim, epoch};

/// More than any message waits in the simulation, and less than two.
const LIFETIME: Duration = Duration::from_secs(36 * 3600);

/// What a reload may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    pub rules: Vec<Rule>,
    /// Attempts at a time to one domain.
    pub concurrency: u32,
    /// The relay cannot read it.
    pub broken: bool,
}

impl Variant {
    /// Without local rules.
    pub fn plain() -> Self {
        Self { rules: Vec::new(), concurrency: 6, broken: false }
    }
}

pub struct House {
    pub root: PathBuf,
    pub roots: PathBuf,
    channels: Mutex<Option<Channels>>,
}

/// The ways options reach a running relay.
pub struct Channels {
    pub submission: watch::Sender<Arc<submission::Options>>,
    pub delivery: watch::Sender<Arc<delivery::Options>>,
    pub gather: watch::Sender<Arc<delivery::gather::Options>>,
    pub reporting: watch::Sender<Arc<reporting::Options>>,
}

impl House {
    pub fn new(sim: &Sim, root: &Path, root_pem: &str) -> Self {
        let roots = root.join("roots.pem");
        std::fs::write(&roots, root_pem).unwrap();
        let leaf = own_leaf();
        std::fs::write(root.join("chain.pem"), leaf.certificate_pem()).unwrap();
        std::fs::write(root.join("key.pem"), leaf.key_pem()).unwrap();
        let house = Self { root: root.to_owned(), roots, channels: Mutex::default() };
        std::fs::create_dir_all(house.data()).unwrap();
        house.write(sim, &Variant::plain());
        house
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Writes the configuration; it holds from the next start or reload on.
    pub fn write(&self, sim: &Sim, variant: &Variant) {
        let data = self.data().display().to_string();
        let root = self.root.display();
        let concurrency = variant.concurrency;
        let mut text = format!(
            r#"
[server]
hostname = "relay.example"
data_dir = "{data}"
[tls]
certificate_file = "{root}/chain.pem"
key_file = "{root}/key.pem"
[[listener]]
name = "plain"
listen = ["127.0.0.1:2525"]
trusted_networks = ["127.0.0.0/8"]
[[listener]]
name = "secure"
listen = ["127.0.0.1:4650"]
tls = "implicit"
trusted_networks = ["127.0.0.0/8"]
[delivery]
concurrency = 40
concurrency_per_destination = {concurrency}
concurrency_per_host = {PER_HOST}
[delivery.pool]
idle_time = "{IDLE_SECONDS}s"
age = "{AGE_SECONDS}s"
messages = {MESSAGES_PER_CONNECTION}
connections = 12
connections_per_host = {POOLED_PER_HOST}
[tlsrpt]
organization_name = "Simulation"
contact_info = "postmaster@relay.example"
from = "tlsrpt@relay.example"
"#
        );
        let net = sim.net();
        for rule in &variant.rules {
            let (zone, require) = (&net.zones[rule.zone].name, rule.require);
            write!(text, "[[policy.override]]\ndomain = \"{zone}\"\nrequire = \"{require}\"\n").unwrap();
            if let Some(until) = rule.until {
                writeln!(text, "until = \"{}\"", epoch() + SignedDuration::from_millis(until)).unwrap();
            }
        }
        if variant.broken {
            text.push_str("[[policy.override]]\nrequire = \"what\"\n");
        }
        std::fs::write(self.root.join("stsrelay.toml"), text).unwrap();
    }

    fn read(&self) -> Result<Settings, String> {
        let sources = Sources { file: Some(self.root.join("stsrelay.toml")), ..Sources::default() };
        let loaded = sources.load().map_err(|error| error.to_string())?;
        let mut settings = settings(&loaded).map_err(|errors| format!("{errors:?}"))?;
        settings.delivery.retry.lifetime = LIFETIME;
        Ok(settings)
    }

    /// At a start.
    pub fn settings(&self) -> Settings {
        self.read().unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn started(&self, channels: Channels) {
        *self.channels.lock().unwrap() = Some(channels);
    }

    /// The running relay is told to read its configuration again: all of it holds, or nothing changes.
    pub fn reload(&self, sim: &Sim, variant: &Variant) {
        self.write(sim, variant);
        let read = self.read();
        assert_eq!(read.is_err(), variant.broken, "{:?}", read.err());
        if let (Ok(settings), Some(channels)) = (read, &*self.channels.lock().unwrap()) {
            channels.submission.send_replace(Arc::new(settings.submission));
            channels.delivery.send_replace(Arc::new(settings.delivery));
            channels.gather.send_replace(Arc::new(settings.gather));
            channels.reporting.send_replace(Arc::new(settings.reporting));
            sim.holds(&variant.rules);
        } else {
            // As it was: whoever starts it next has put that right.
            let rules = sim.net().rules.last().map(|(_, rules)| rules.clone()).unwrap_or_default();
            self.write(sim, &Variant { rules, ..Variant::plain() });
        }
        sim.book().counts.reloads += 1;
    }

    /// What a process that ended may leave of its index: nothing, or less than it wrote.
    pub fn harm_index(&self, sim: &Sim) {
        let dir = self.data().join("queue").join("index");
        let kind = sim.roll(6);
        let share = sim.roll(100);
        if !dir.exists() || kind > 2 {
            return;
        }
        sim.note(format_args!("the queue index is harmed: {kind}, {share}"));
        sim.book().counts.indexes_harmed += 1;
        let file = dir.join("db");
        match std::fs::metadata(&file) {
            Ok(metadata) if kind > 0 => {
                let left = metadata.len() * share / 100;
                std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(left).unwrap();
            }
            _ => std::fs::remove_dir_all(&dir).unwrap(),
        }
    }
}
