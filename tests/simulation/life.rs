//! One life of the relay: the real stories over the simulated doors, from start to end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use stsrelay::delivery::gather::Gather;
use stsrelay::delivery::{self, Delivery};
use stsrelay::mail::Domain;
use stsrelay::metrics::Metrics;
use stsrelay::net::World;
use stsrelay::net::tls::{ClientOptions, ClientTls};
use stsrelay::reporting::Reporting;
use stsrelay::store::ground::{Ground, Limits, Loops};
use stsrelay::store::{Health, Policies, Queue, Reports, Results};
use stsrelay::submission::Sessions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bounds;
use crate::doors::Doors;
use crate::house::{Channels, House};
use crate::scenario::trouble_for_ever;
use crate::senders::send_for_ever;
use crate::sim::{Chance, Sim, WallClock, epoch};
use crate::spells::{self, Changed};

/// Housekeeping of the queue; every half second would be most of the work of a simulation.
const ROUND: Duration = Duration::from_secs(120);
/// Small, so that segments come and go.
const SEGMENT_BYTES: u64 = 96 << 10;
const RESERVE_BYTES: u64 = 128 << 10;
/// Senders of a busy life; a quiet one has one.
const SENDERS: u64 = 3;
/// Mean seconds between two sessions of one.
const SENDING_EVERY: u64 = 1800;

/// What a life is to be.
pub struct Plan {
    pub length: Duration,
    pub clean: bool,
    /// With senders and troubles; without, it ends when the queue is empty.
    pub troubled: bool,
    /// With much mail and many troubles; most lives have little of both, and days go by quickly.
    pub busy: bool,
    /// Differs between lives.
    pub seed: u64,
    /// Differs between boots.
    pub boot: u64,
    /// Whether a queue index is made where there is none.
    pub index: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Closed in order.
    Closed,
    /// In the midst of things.
    Crashed,
    /// It did not start.
    NotStarted,
    /// Nothing is left to deliver, or its time is over; with the items left.
    Empty(usize),
}

/// Runs one life to its end.
pub fn live(sim: &Arc<Sim>, house: &Arc<House>, plan: &Plan) -> Ended {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let ended = runtime.block_on(async {
        sim.time.begin();
        // How the last process ended is not news any more.
        let _ = sim.disk.died.notified().now_or_never();
        sim.disk.restart();
        // Whoever would have ended it is gone with the last life.
        sim.net().dns_down = false;
        sim.set_dead(false);
        let ended = within(sim, house, plan).await;
        // From here on nothing reaches the disk or anybody outside.
        sim.disk.stop();
        sim.set_dead(true);
        sim.time.end();
        ended
    });
    drop(runtime);
    ended
}

async fn within(sim: &Arc<Sim>, house: &Arc<House>, plan: &Plan) -> Ended {
    let began = Instant::now();
    let settings = house.settings();
    let clock = Arc::new(WallClock(Arc::clone(sim)));
    let now = || epoch() + jiff::SignedDuration::from_millis(sim.time.wall());
    let ground = Ground {
        disk: Arc::new(sim.disk.clone()),
        loops: Loops::Tasks,
        boot: format!("boot {}", plan.boot),
        limits: Limits { segment_bytes: SEGMENT_BYTES, reserve_bytes: RESERVE_BYTES, round: ROUND },
        index: plan.index,
        nonce: [7; 16],
        metrics: Metrics::new(),
    };
    let data = house.data();
    let opened = (|| {
        let (queue, mut told) = Queue::open_over(&ground, &settings.queue, now())?;
        let (policies, more) = Policies::open_over(&ground, &data)?;
        told.extend(more);
        let (results, more) = Results::open_over(&ground, &data)?;
        told.extend(more);
        let (reports, more) = Reports::open_over(&ground, &data)?;
        told.extend(more);
        Ok::<_, stsrelay::store::QueueError>((queue, policies, results, reports, told))
    })();
    let (queue, policies, results, reports, told) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let error = error.to_string().replace(&house.root.display().to_string(), "");
            sim.note(format_args!("the relay does not start: {error}"));
            return Ended::NotStarted;
        }
    };
    for told in told.into_iter().filter(|_| !plan.index) {
        // How far an index came hangs on the machine's own time.
        sim.note(format_args!("repaired: {}", told.replace(&house.root.display().to_string(), "")));
    }
    let options = ClientOptions { use_system_roots: false, extra_roots_file: Some(house.roots.clone()) };
    let doors = Arc::new(Doors(Arc::clone(sim)));
    let world = World {
        clock: clock.clone(),
        random: Arc::new(Chance::new(plan.seed)),
        dns: doors.clone(),
        https: doors.clone(),
        dial: doors,
        tls: ClientTls::with_clock(&options, clock.clone()).unwrap(),
    };
    let (submission, submission_now) = watch::channel(Arc::new(settings.submission));
    let (_tls, tls) = watch::channel(settings.server_tls.map(Arc::new));
    let (delivery_sender, delivery_now) = watch::channel(Arc::new(settings.delivery));
    let (gather_sender, gather_now) = watch::channel(Arc::new(settings.gather));
    let (reporting_sender, reporting_now) = watch::channel(Arc::new(settings.reporting));
    let listeners = submission_now.borrow().listeners.clone();
    house.started(Channels {
        submission,
        delivery: delivery_sender,
        gather: gather_sender,
        reporting: reporting_sender,
    });
    spells::look(sim, Changed::All);
    let shutdown = CancellationToken::new();
    let gather = Gather::new(world.clone(), policies.clone(), results.clone(), gather_now);
    let reporter =
        Reporting::new(world.clone(), queue.clone(), results.clone(), reports.clone(), reporting_now);
    let deliverer =
        Delivery::new(world.clone(), gather.clone(), queue.clone(), results.clone(), delivery_now);
    let prefetcher = gather.clone();
    let sessions = Arc::new(Sessions::new(
        submission_now,
        tls,
        queue.clone(),
        clock,
        Arc::new(move |domain: &Domain| prefetcher.prefetch(domain)),
        shutdown.clone(),
    ));
    let mut stories = JoinSet::new();
    let token = shutdown.clone();
    stories.spawn(async move { gather.run_refresher(token).await });
    stories.spawn(delivery::run(deliverer, shutdown.clone()));
    stories.spawn(reporter.run(shutdown.clone()));
    let mut outside = JoinSet::new();
    if plan.troubled {
        outside.spawn(trouble_for_ever(Arc::clone(sim), Arc::clone(house), plan.busy));
        for _ in 0..if plan.busy { SENDERS } else { 1 } {
            let (sim, sessions, listeners) = (Arc::clone(sim), Arc::clone(&sessions), listeners.clone());
            outside.spawn(send_for_ever(sim, sessions, listeners, SENDING_EVERY));
        }
    }
    loop {
        tokio::select! {
            biased;
            () = sim.disk.died.notified() => return Ended::Crashed,
            broken = stories.join_next() => {
                sim.violation(format_args!("a story ended by itself: {broken:?}"));
                return Ended::Crashed;
            }
            () = sleep(Duration::from_secs(600)) => {}
        }
        bounds::look(sim, &queue, &policies, &results).await;
        let stats = queue.stats();
        let left = (stats.active + stats.deferred) as usize;
        if !plan.troubled && (left == 0 || began.elapsed() >= plan.length) {
            return Ended::Empty(left);
        }
        // Whoever runs the relay restarts it when its disk is sound again.
        let failed = matches!(queue.health(), Health::Failed(_)) && sim.once_in(3);
        if failed || began.elapsed() >= plan.length {
            break;
        }
    }
    if !plan.clean {
        return Ended::Crashed;
    }
    sim.note("the relay is asked to stop");
    shutdown.cancel();
    let all = async {
        while stories.join_next().await.is_some() {}
        results.flush().await;
        queue.close().await;
    };
    let closed = timeout(Duration::from_secs(60), all).await.is_ok() && !sim.is_dead();
    drop((policies, reports));
    if closed { Ended::Closed } else { Ended::Crashed }
}
