//! SIGHUP: reads the configuration again and hands the new options to the stories.
//!
//! All or nothing: a configuration with errors changes nothing. What the doors and the store were
//! opened with stays as it is, and the log says so.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::load::leaves;
use crate::config::{ConfigError, Loaded, Settings, Sources, check, settings};
use crate::delivery::{self, gather};
use crate::net::tls::ServerTls;
use crate::net::{Clock as _, SystemClock};
use crate::{reporting, submission};

/// Sets the log level; the error says what is wrong with it.
pub type Level = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Read once, when the daemon starts: keys, and sections with all their keys.
const NEEDS_RESTART: [&str; 16] = [
    "server.data_dir",
    "server.node",
    "server.journal_segment",
    "limits.connections",
    "tls.extra_roots_file",
    "tls.use_system_roots",
    "tls.session_lifetime",
    "dns",
    "delivery.source_addresses",
    "mta_sts",
    "evidence.keep",
    "evidence.max_size",
    "network",
    "admin",
    "log.format",
    "listener",
];

/// The ways options reach the stories.
pub(super) struct Channels {
    submission: watch::Sender<Arc<submission::Options>>,
    server_tls: watch::Sender<Option<Arc<ServerTls>>>,
    delivery: watch::Sender<Arc<delivery::Options>>,
    gather: watch::Sender<Arc<gather::Options>>,
    reporting: watch::Sender<Arc<reporting::Options>>,
}

/// The stories' ends.
pub(super) struct Receivers {
    pub(super) submission: watch::Receiver<Arc<submission::Options>>,
    pub(super) server_tls: watch::Receiver<Option<Arc<ServerTls>>>,
    pub(super) delivery: watch::Receiver<Arc<delivery::Options>>,
    pub(super) gather: watch::Receiver<Arc<gather::Options>>,
    pub(super) reporting: watch::Receiver<Arc<reporting::Options>>,
}

impl Channels {
    pub(super) fn new(
        submission: submission::Options,
        server_tls: Option<ServerTls>,
        delivery: delivery::Options,
        gather: gather::Options,
        reporting: reporting::Options,
    ) -> (Self, Receivers) {
        let (submission_sender, submission) = watch::channel(Arc::new(submission));
        let (server_tls_sender, server_tls) = watch::channel(server_tls.map(Arc::new));
        let (delivery_sender, delivery) = watch::channel(Arc::new(delivery));
        let (gather_sender, gather) = watch::channel(Arc::new(gather));
        let (reporting_sender, reporting) = watch::channel(Arc::new(reporting));
        let senders = Self {
            submission: submission_sender,
            server_tls: server_tls_sender,
            delivery: delivery_sender,
            gather: gather_sender,
            reporting: reporting_sender,
        };
        (senders, Receivers { submission, server_tls, delivery, gather, reporting })
    }
}

/// Reads and checks everything anew. Blocking.
pub(super) fn read(sources: &Sources) -> Result<(Box<Loaded>, Settings), Vec<ConfigError>> {
    let loaded = sources.load().map_err(|error| vec![error])?;
    let found = check(&loaded, SystemClock.now());
    if !found.errors.is_empty() {
        return Err(found.errors);
    }
    for note in found.notes {
        info!("configuration: {note}");
    }
    let settings = settings(&loaded)?;
    Ok((Box::new(loaded), settings))
}

/// Hands out what may change while running, and tells what may not.
pub(super) fn apply(channels: &Channels, level: &Level, old: &Loaded, new: &Loaded, settings: Settings) {
    for key in needs_restart(old, new) {
        warn!(key, "reload: this change takes effect after a restart");
    }
    if let Err(text) = level(&new.config.log.level) {
        warn!("reload: log.level: {text}");
    }
    // Certificate before listeners: a listener that now offers TLS finds it.
    channels.server_tls.send_replace(settings.server_tls.map(Arc::new));
    channels.submission.send_replace(Arc::new(settings.submission));
    // Policies are asked for by the new rules before attempts go by them, so that none goes without.
    channels.gather.send_replace(Arc::new(settings.gather));
    channels.delivery.send_replace(Arc::new(settings.delivery));
    channels.reporting.send_replace(Arc::new(settings.reporting));
    info!("reloaded");
}

/// The changed keys that have no effect before a restart. Of a listener only its name and addresses.
fn needs_restart(old: &Loaded, new: &Loaded) -> Vec<String> {
    let (old, new) = (leaves(&old.config), leaves(&new.config));
    let fixed = |key: &str| {
        NEEDS_RESTART.iter().any(|fixed| {
            key.strip_prefix(fixed).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        }) && (!key.starts_with("listener") || key.ends_with("].name") || key.ends_with("].listen"))
    };
    let mut changed: Vec<String> = Vec::new();
    for (a, b) in [(&old, &new), (&new, &old)] {
        for leaf in a.iter().filter(|leaf| fixed(&leaf.0) && !b.contains(leaf)) {
            if !changed.contains(&leaf.0) {
                changed.push(leaf.0.clone());
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Loaded {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stsrelay.toml");
        std::fs::write(&file, text).unwrap();
        Sources { file: Some(file), ..Sources::default() }.load().unwrap()
    }

    #[test]
    fn changes_that_need_a_restart_are_told_by_key() {
        let old = loaded("");
        let listener = "[[listener]]\nname = \"smarthost\"\n";
        for (text, expected) in [
            (
                "[log]\nlevel = \"debug\"\n[delivery]\nretry = [\"1m\"]\n[policy]\nmta_sts = false"
                    .to_owned(),
                vec![],
            ),
            ("[server]\ndata_dir = \"/srv/x\"".to_owned(), vec!["server.data_dir"]),
            ("[dns]\nnameservers = [\"127.0.0.1:5353\"]".to_owned(), vec!["dns.nameservers"]),
            ("[limits]\nrecipients = 100\nconnections = 10".to_owned(), vec!["limits.connections"]),
            ("[limits]\nconnections_per_address = 10".to_owned(), vec![]),
            (
                format!("{listener}listen = [\"127.0.0.1:26\"]\nauth = \"required\""),
                vec!["listener[0].listen"],
            ),
            (format!("{listener}listen = [\"127.0.0.1:2525\", \"[::1]:2525\"]\ntls = \"starttls\""), vec![]),
        ] {
            assert_eq!(needs_restart(&old, &loaded(&text)), expected, "{text}");
        }
    }
}
