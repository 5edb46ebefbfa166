//! The composition root: opens the doors and the store, runs the stories, drains, reloads.
//!
//! ```text
//! start     admin socket and listeners bound, store opened (repairs told), READY
//! run       submission | delivery | gathering | reporting | admin, each a task with the same token
//! SIGHUP    configuration, certificates and users read again; a bad one changes nothing
//! SIGTERM   no new work, what is under way ends within 30 seconds, store closed; again: stop at once
//! ```
//!
//! Whatever is wrong at start is a [`ConfigError`]: one line, nothing left running. Called by `cli`.

mod handover;
mod hints;
mod reload;
mod storage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::reload::Channels;
use self::storage::Storage;
use crate::admin::transfer::Transfer;
use crate::admin::{self, About, AdminHandles, KeptHistory};
use crate::config::{ConfigError, Doors, Loaded, Settings, Sources, doors};
use crate::delivery::explain::Explainer;
use crate::delivery::gather::Gather;
use crate::delivery::giveup::GiveUp;
use crate::delivery::{self, Delivery};
use crate::mail::Domain;
use crate::metrics::Metrics;
use crate::net::https::ReqwestHttps;
use crate::net::tcp::TcpDialer;
use crate::net::{SystemClock, SystemRandomness, World};
use crate::reporting::Reporting;
use crate::store::Health;
use crate::submission::{self, Guarded, Sessions};

pub use self::reload::Level;

/// How long work under way may take to end after the first signal.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long the store may take to close when everything else has stopped.
const CLOSE_MAX: Duration = Duration::from_secs(20);
/// How often systemd is told how we are.
const STATUS_EVERY: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As asked: everything under way has ended and the store is closed.
    Drained,
    /// As asked, but work was cut off; the queue has it still.
    Cut,
    /// A story ended by itself; the log says which.
    Broken,
}

/// What a daemon is started from.
pub struct Start {
    /// For reading the configuration again.
    pub sources: Sources,
    /// The configuration.
    pub loaded: Loaded,
    /// The options made of it.
    pub settings: Settings,
    /// What the check had to tell; logged once the start has succeeded.
    pub notes: Vec<ConfigError>,
    /// Changes the log level at a reload.
    pub level: Box<Level>,
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// What keeps it from starting.
pub fn run(start: Start) -> Result<Ended, ConfigError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| start.loaded.error("server", format!("the runtime cannot be started: {error}")))?;
    let ended = runtime.block_on(async {
        let daemon = Daemon::start(start).await?;
        Ok(daemon.run().await)
    });
    // Blocking work that hangs (a dead disk) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// A started daemon.
struct Daemon {
    sources: Sources,
    loaded: Loaded,
    channels: Channels,
    level: Box<Level>,
    storage: Storage,
    history: KeptHistory,
    stories: JoinSet<&'static str>,
    shutdown: CancellationToken,
    signals: Signals,
}

/// What a signal asks for.
enum Asked {
    Reload,
    Stop(&'static str),
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
        }
    }

    /// The next request to stop; others are not heard any more.
    async fn stop(&mut self) -> &'static str {
        loop {
            if let Asked::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }
}

impl Daemon {
    async fn start(start: Start) -> Result<Self, ConfigError> {
        let Start { sources, loaded, settings, notes, level } = start;
        let signals =
            Signals::new().map_err(|error| loaded.error("server", format!("no signals: {error}")))?;
        let Settings { submission, server_tls, delivery, gather, reporting, queue, evidence, room, http } =
            settings;
        // Everything that another process may hold comes before anything is changed.
        let admin_socket =
            admin::bind(&loaded.config.admin.socket).map_err(|text| loaded.error("admin.socket", text))?;
        let (inherited, units) = handover::passed().wanted(&submission.listeners);
        let listeners = submission::bind(&submission, inherited)
            .map_err(|text| loaded.error("listener", text.strip_prefix("listener ").unwrap_or(&text)))?;
        let http = match http {
            Some(options) => {
                let bound = admin::bind_http(&options.address).await;
                Some((bound.map_err(|text| loaded.error("admin.http", text))?, options))
            }
            None => None,
        };
        let metrics = Metrics::new();
        let storage = Storage::open(&loaded, queue, metrics.clone()).await?;
        storage.queue.limit_evidence(evidence);
        storage.queue.limit_room(room);
        // Now, for what the doors log: an error above is the only line that is printed.
        let doors = doors(&loaded).map_err(|errors| {
            errors.into_iter().next().unwrap_or_else(|| loaded.error("dns", "the doors cannot be opened"))
        })?;
        let guard = doors.guard.clone();
        let world = world(doors).map_err(|text| loaded.error("mta_sts", text))?;

        let shutdown = CancellationToken::new();
        let (channels, receivers) = Channels::new(submission, server_tls, delivery, gather, reporting);
        let gatherer = Gather::new(
            world.clone(),
            storage.policies.clone(),
            storage.results.clone(),
            receivers.gather.clone(),
        );
        let reporter = Reporting::new(
            world.clone(),
            storage.queue.clone(),
            storage.results.clone(),
            storage.reports.clone(),
            receivers.reporting,
        )
        .with_metrics(metrics.clone());
        let deliverer = Delivery::new(
            world.clone(),
            gatherer.clone(),
            storage.queue.clone(),
            storage.results.clone(),
            receivers.delivery.clone(),
        )
        .with_suppressions(storage.suppressions.clone())
        .with_metrics(metrics.clone())
        .with_report_targets(storage.reports.targets().clone());
        let history = open_history(&loaded, &metrics, &world);
        let addresses: Vec<(String, SocketAddr)> = listeners
            .iter()
            .flat_map(|(listener, sockets)| {
                sockets.iter().filter_map(|s| Some((listener.name.clone(), s.local_addr().ok()?)))
            })
            .collect();
        let about = About {
            hostname: receivers.delivery.borrow().hostname.clone(),
            started_at: world.clock.now(),
            listeners: addresses.clone(),
        };
        let handles = AdminHandles {
            about: Arc::new(about),
            shutdown: shutdown.clone(),
            traffic: deliverer.traffic(),
            clock: Arc::clone(&world.clock),
            queue: storage.queue.clone(),
            giving_up: GiveUp {
                world: world.clone(),
                queue: storage.queue.clone(),
                options: receivers.delivery.clone(),
            },
            policies: storage.policies.clone(),
            gather: gatherer.clone(),
            reports: storage.reports.clone(),
            suppressions: storage.suppressions.clone(),
            metrics: metrics.clone(),
            history: history.clone(),
            server_tls: receivers.server_tls.clone(),
            reporting: reporter.clone(),
            transfer: Arc::new(Transfer::new(
                Arc::clone(&world.clock),
                storage.queue.clone(),
                storage.moves.clone(),
            )),
            explainer: Explainer {
                world: world.clone(),
                gather: gatherer.clone(),
                policies: storage.policies.clone(),
                guard,
                delivery: receivers.delivery.clone(),
                gathering: receivers.gather,
                queue: storage.queue.clone(),
                traffic: deliverer.traffic(),
            },
        };
        let keys = reporter.clone();
        let inbox = Guarded { queue: storage.queue.clone(), suppressions: storage.suppressions.clone() };
        for note in notes {
            info!("configuration: {note}");
        }
        for (name, address) in &addresses {
            info!(listener = %name, %address, "listening");
        }

        let users = submission::watch_users(receivers.submission.clone(), shutdown.clone());
        handover::keep(listeners.iter().flat_map(|(_, sockets)| sockets), &units);
        let sessions = Sessions::new(
            receivers.submission,
            receivers.server_tls,
            inbox,
            Arc::clone(&world.clock),
            Arc::new({
                let gatherer = gatherer.clone();
                move |domain: &Domain| gatherer.prefetch(domain)
            }),
            shutdown.clone(),
        )
        .with_metrics(metrics);

        let mut stories = JoinSet::new();
        let mut story = |name: &'static str, work: futures_util::future::BoxFuture<'static, ()>| {
            stories.spawn(async move {
                work.await;
                name
            });
        };
        if let Some((listener, options)) = http {
            info!(address = %options.address, "metrics, health and the API over HTTP");
            let (handles, token) = (handles.clone(), shutdown.clone());
            story("http", Box::pin(admin::serve_http(listener, handles, options, token)));
        }
        story("admin", Box::pin(admin::serve(admin_socket, handles, shutdown.clone())));
        story("history", Box::pin(history.clone().run(shutdown.clone())));
        let refresher = gatherer.clone();
        let token = shutdown.clone();
        story("policy refresh", Box::pin(async move { refresher.run_refresher(token).await }));
        let watcher = gatherer.clone();
        let token = shutdown.clone();
        story("validator watch", Box::pin(async move { watcher.run_validator_watch(token).await }));
        story("delivery", Box::pin(delivery::run(deliverer, shutdown.clone())));
        let digests = reporter.clone().run_digests(storage.policies.clone(), shutdown.clone());
        story("digests", Box::pin(digests));
        story("reporting", Box::pin(reporter.run(shutdown.clone())));
        story("users file", Box::pin(users));
        story("submission", Box::pin(submission::serve(listeners, sessions)));

        // It asks DNS for a few seconds, and nothing waits for it.
        tokio::spawn(async move {
            for warning in keys.check_keys().await {
                warn!("{warning}");
            }
        });
        notify(&[NotifyState::Ready, NotifyState::Status("accepting mail")]);
        info!(hostname = %hostname(&loaded), version = env!("CARGO_PKG_VERSION"), "ready");
        hints::print(&loaded, &addresses);
        Ok(Self { sources, loaded, channels, level, storage, history, stories, shutdown, signals })
    }

    async fn run(mut self) -> Ended {
        let mut status = interval(STATUS_EVERY);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Told at half the time systemd asks for, and only while the threads that serve do.
        let watchdog = sd_notify::watchdog_enabled().map(|every| every / 2);
        let mut pulse = interval(watchdog.unwrap_or(STATUS_EVERY));
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = Health::Fine;
        let broken = loop {
            tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::Reload => self.reload().await,
                    Asked::Stop(signal) => {
                        info!(signal, "stopping: no new work is taken");
                        break false;
                    }
                },
                _ = status.tick() => self.tell_status(&mut health),
                _ = pulse.tick() => if let Some(within) = watchdog && is_alive(within / 2).await {
                    notify(&[NotifyState::Watchdog]);
                },
                Some(ended) = self.stories.join_next() => {
                    tell_broken(&ended);
                    break true;
                }
            }
        };
        let cut = !self.drain().await;
        match (broken, cut) {
            (true, _) => Ended::Broken,
            (false, true) => Ended::Cut,
            (false, false) => Ended::Drained,
        }
    }

    /// Ends all stories and closes the store; whether everything under way could end.
    async fn drain(mut self) -> bool {
        notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        self.shutdown.cancel();
        let stories = &mut self.stories;
        let all = timeout(DRAIN_MAX, async {
            while let Some(ended) = stories.join_next().await {
                if let Err(error) = ended {
                    error!(%error, "a story broke while draining");
                }
            }
        });
        let drained = tokio::select! {
            ended = all => ended.is_ok(),
            signal = self.signals.stop() => {
                warn!(signal, "second signal: stopping at once; what was under way is tried again");
                return false;
            }
        };
        if !drained {
            warn!("not everything ended in {} seconds; it is tried again", DRAIN_MAX.as_secs());
            self.stories.shutdown().await;
        }
        let close = async {
            self.history.close().await;
            self.storage.close().await;
        };
        let closed = tokio::select! {
            closed = timeout(CLOSE_MAX, close) => closed.is_ok(),
            _ = self.signals.stop() => false,
        };
        if closed {
            info!("stopped");
        } else {
            warn!("the store was not closed in time; it is repaired at the next start");
        }
        drained && closed
    }

    async fn reload(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
        let sources = self.sources.clone();
        // Files are read: not on a thread that serves.
        let read = tokio::task::spawn_blocking(move || reload::read(&sources)).await;
        match read {
            Ok(Ok((loaded, settings))) => {
                self.storage.queue.limit_room(settings.room);
                reload::apply(&self.channels, &self.level, &self.loaded, &loaded, settings);
                self.loaded = *loaded;
            }
            Ok(Err(errors)) => {
                for error in errors {
                    error!("reload: {error}");
                }
                error!("reload: the configuration was not changed; the old one stays in force");
            }
            Err(error) => error!(%error, "reload failed; the old configuration stays in force"),
        }
        // The status of before is still the truth, and a reload that failed says so in the log.
        notify(&[NotifyState::Ready]);
    }

    /// Tells systemd the totals, and the log when accepting stops or resumes.
    fn tell_status(&self, last: &mut Health) {
        let stats = self.storage.queue.stats();
        let health = self.storage.queue.health();
        let totals = format!("{} active, {} deferred, {} held", stats.active, stats.deferred, stats.held);
        let state = match health.trouble() {
            None => "accepting mail".to_owned(),
            Some(trouble) => format!("not accepting mail, {trouble}"),
        };
        notify(&[NotifyState::Status(&format!("{state}; {totals}"))]);
        // The same trouble with other numbers is no news.
        if std::mem::discriminant(&health) != std::mem::discriminant(last) {
            match &health {
                Health::Fine => info!("accepting mail again"),
                Health::Low(text) => warn!(cause = %text, "not accepting mail: there is no room for more"),
                Health::Full(text) => error!(cause = %text, "not accepting mail: the disk is full"),
                Health::ReadOnly(text) => {
                    error!(cause = %text, "not accepting or delivering mail: the disk is read-only");
                }
                Health::Failed(text) => {
                    error!(cause = %text, "not accepting mail: storage failed; restart when it is repaired");
                }
            }
            *last = health;
        }
    }
}

/// Whether the threads that serve take up new work, within this time.
async fn is_alive(within: Duration) -> bool {
    timeout(within, tokio::spawn(async {})).await.is_ok()
}

fn tell_broken(ended: &Result<&'static str, tokio::task::JoinError>) {
    match ended {
        Ok(story) => error!(story, "ended by itself; stopping"),
        Err(error) => error!(%error, "a story broke; stopping"),
    }
}

/// What the status page plots; files are read, so not on a thread that serves.
fn open_history(loaded: &Loaded, metrics: &Metrics, world: &World) -> KeptHistory {
    let folder = loaded.config.server.data_dir.clone();
    let (metrics, clock) = (metrics.clone(), Arc::clone(&world.clock));
    let open = move || KeptHistory::open(&folder, metrics, clock);
    tokio::task::block_in_place(open)
}

fn hostname(loaded: &Loaded) -> String {
    loaded.config.server.hostname.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn world(doors: Doors) -> Result<World, String> {
    let dns = Arc::new(doors.dns);
    let roots = doors.client_tls.roots();
    let https = ReqwestHttps::new(doors.https, dns.clone(), doors.guard.clone(), roots)?;
    Ok(World {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandomness),
        dns,
        https: Arc::new(https),
        dial: Arc::new(TcpDialer::new(doors.tcp, doors.guard)),
        tls: doors.client_tls,
    })
}

/// Without systemd there is nobody to tell.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_gives_us_the_time_we_take_to_stop() {
        let unit = include_str!("../systemd/stsrelay.service");
        let seconds = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s'));
        let given = Duration::from_secs(seconds.expect("it is set").parse().expect("in seconds"));
        assert!(DRAIN_MAX + CLOSE_MAX < given, "killed while draining or closing");
    }
}
