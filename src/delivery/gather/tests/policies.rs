//! Which policy applies while DNS, HTTPS, time and operators do their worst.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::{Options, PREFETCHES_MAX, StsState, fetch};
use super::world::{DAY, Host, domain, found, pass, policy_text, world};
use crate::mail::{Permanence, Scope};
use crate::net::dns::Lookup;
use crate::net::world::Clock;
use crate::route::DnssecStatus;
use crate::sts::freshness::TroubleKind;
use crate::tlspolicy::{LocalRule, Override, Whom};
use crate::tlsrpt::{PolicyType, ResultType};

const WEEK: u32 = 604_800;

#[tokio::test(start_paused = true)]
async fn the_first_message_waits_for_the_policy_and_others_share_the_fetch() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    let modes = futures_util::future::join_all((0..100).map(|_| world.mode())).await;
    assert!(modes.iter().all(|mode| mode == "enforce"));
    assert_eq!((world.fetches(), world.dns.questions()), (1, 1));
    assert_eq!(*world.dns.asked.lock().unwrap(), ["TXT _mta-sts.example.org"]);
    let state = world.sts().await;
    assert_eq!((state.id.as_deref(), state.trouble), (Some("1"), None));
}

#[tokio::test(start_paused = true)]
async fn without_exactly_one_good_record_nothing_is_fetched() {
    for txts in [&["v=spf1 -all"][..], &["v=STSv1; id=1;", "v=STSv1; id=2;"], &["v=STSv1; id=;"]] {
        let world = world();
        world.publish("1", "enforce", WEEK);
        world.publish_txt(txts);
        assert_eq!((world.mode().await.as_str(), world.fetches()), ("-", 0), "{txts:?}");
    }
    let world = world();
    assert_eq!((world.mode().await.as_str(), world.fetches()), ("-", 0));
}

#[tokio::test(start_paused = true)]
async fn a_failing_first_fetch_lets_mail_go_is_counted_once_and_tried_every_five_minutes() {
    let world = world();
    world.publish_id("1");
    world.serve(Host::Fails(TroubleKind::WebPki));
    for _ in 0..29 {
        let state = world.sts().await;
        assert_eq!(state.policy, None);
        assert_eq!(state.trouble.map(|trouble| trouble.kind), Some(TroubleKind::WebPki));
        pass(10).await;
    }
    assert_eq!(world.fetches(), 1);
    let results = world.results();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].policy.policy_type, PolicyType::NoPolicyFound);
    assert_eq!(results[0].failures[0].result_type, ResultType::StsWebpkiInvalid);
    assert_eq!(results[0].report_domain, domain("example.org"));
    pass(15).await;
    world.serve(Host::Serves(policy_text("enforce", WEEK)));
    assert_eq!(world.mode().await, "enforce");
    assert_eq!(world.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_policy_is_no_policy_and_reported_as_such() {
    let world = world();
    world.publish_id("1");
    world.serve(Host::Serves("version: STSv1\nmode: enforce\nmx: bücher.test\nmax_age: 1\n".to_owned()));
    let state = world.sts().await;
    assert_eq!(state.policy, None);
    assert!(state.trouble.unwrap().text.contains("line 3"));
    let result = &world.results()[0];
    assert_eq!(result.failures[0].result_type, ResultType::StsPolicyInvalid);
    // RFC 8460 §4.5: as declared, errors and all.
    assert_eq!(result.policy.policy_type, PolicyType::Sts);
    assert_eq!(
        *result.policy.policy_string,
        ["version: STSv1", "mode: enforce", "mx: bücher.test", "max_age: 1"]
    );
    assert!(result.policy.mx_host.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_held_policy_survives_a_bumped_id_with_a_failing_fetch() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    let expires_at = world.entry().unwrap().held.as_ref().unwrap().expires_at();
    pass(60).await;
    world.publish_id("2");
    world.serve(Host::Fails(TroubleKind::Fetch));
    for _ in 0..20 {
        let state = world.sts().await;
        assert_eq!(state.policy.unwrap().mode.to_string(), "enforce");
        assert_eq!(state.id.as_deref(), Some("1"));
        assert!(state.trouble.is_some());
        pass(10).await;
    }
    assert_eq!(world.fetches(), 2);
    assert_eq!(world.entry().unwrap().held.as_ref().unwrap().expires_at(), expires_at);
    let results = world.results();
    assert_eq!((results.len(), results[0].policy.policy_type), (1, PolicyType::Sts));
    assert_eq!(*results[0].policy.mx_host, ["mx.example.org"]);
    // It works again: the new policy under the new id.
    world.serve(Host::Serves(policy_text("testing", WEEK)));
    pass(100).await;
    assert_eq!(world.mode().await, "testing");
    assert_eq!(world.entry().unwrap().held.as_ref().unwrap().id, "2");
}

#[tokio::test(start_paused = true)]
async fn a_held_policy_survives_a_removed_or_failing_record_and_a_restart_with_https_down() {
    let mut world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    world.serve(Host::Fails(TroubleKind::Fetch));
    world.remove_txt();
    pass(3600).await;
    assert_eq!(world.mode().await, "enforce");
    world.break_txt();
    pass(3600).await;
    assert_eq!(world.mode().await, "enforce");
    world.restart();
    assert_eq!(world.mode().await, "enforce");
    world.publish_txt(&["v=STSv1; id=1", "v=STSv1; id=2"]);
    world.restart();
    assert_eq!(world.mode().await, "enforce");
    assert_eq!(world.fetches(), 1);
    // To its end and not longer.
    pass(u64::from(WEEK)).await;
    assert_eq!(world.mode().await, "-");
}

#[tokio::test(start_paused = true)]
async fn a_dripping_policy_host_holds_mail_up_for_a_minute_at_most() {
    let world = world();
    world.publish_id("1");
    world.serve(Host::Drips);
    let started = tokio::time::Instant::now();
    let state = world.sts().await;
    assert!(started.elapsed() <= Duration::from_secs(61), "{:?}", started.elapsed());
    assert_eq!(state.policy, None);
    assert!(state.trouble.unwrap().text.contains("within 60 s"));
    assert_eq!(world.results().len(), 1);
    // And then not again for five minutes.
    let again = tokio::time::Instant::now();
    world.sts().await;
    assert!(again.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn with_a_policy_held_a_dripping_policy_host_hardly_delays_mail() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    pass(60).await;
    world.publish_id("2");
    world.serve(Host::Drips);
    let started = tokio::time::Instant::now();
    assert_eq!(world.mode().await, "enforce");
    assert!(started.elapsed() <= Duration::from_secs(11), "{:?}", started.elapsed());
    pass(60).await;
    assert_eq!(world.results().len(), 1, "the fetch goes on to its end and is counted");
}

#[tokio::test(start_paused = true)]
async fn only_the_record_of_the_policy_domain_itself_is_asked_as_an_a_label() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    for name in ["sub.example.org", "bücher.example"] {
        let state = world.gather.sts(&domain(name), Duration::ZERO).await.unwrap();
        assert_eq!(state, StsState::default());
    }
    let asked = world.dns.asked.lock().unwrap().clone();
    assert_eq!(asked, ["TXT _mta-sts.sub.example.org", "TXT _mta-sts.xn--bcher-kva.example"]);
    let longest = domain(&format!("{}.example", ["a".repeat(60).as_str(); 4].join(".")));
    assert_eq!(world.gather.sts(&longest, Duration::ZERO).await, Ok(StsState::default()));
    assert_eq!((world.dns.questions(), world.fetches()), (2, 0));
}

/// What is logged on this thread from here on.
fn log() -> (tracing::subscriber::DefaultGuard, Arc<std::sync::Mutex<Vec<u8>>>) {
    struct Writer(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Arc::<std::sync::Mutex<Vec<u8>>>::default();
    let writer = Arc::clone(&lines);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || Writer(Arc::clone(&writer)))
        .finish();
    (tracing::subscriber::set_default(subscriber), lines)
}

#[tokio::test(start_paused = true)]
async fn a_failing_refresh_warns_and_is_counted_unless_the_policy_is_none() {
    for (mode, heeded) in [("enforce", true), ("testing", true), ("none", false)] {
        let (_guard, lines) = log();
        let world = world();
        world.publish("1", mode, WEEK);
        assert_eq!(world.mode().await, mode);
        world.serve(Host::Fails(TroubleKind::Fetch));
        world.remove_txt();
        pass(2 * DAY).await;
        assert_eq!(world.mode().await, mode);
        pass(1).await;
        assert_eq!((world.fetches(), world.results().len()), (2, usize::from(heeded)), "{mode}");
        let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert_eq!(
            lines.contains("could not be refreshed") && lines.contains("example.org"),
            heeded,
            "{lines}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_gives_up_waiting_does_not_end_the_fetch() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    let hasty = tokio::time::timeout(Duration::from_millis(100), world.sts()).await;
    assert!(hasty.is_err());
    assert_eq!(world.mode().await, "enforce");
    assert_eq!(world.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_too_many_fetches_are_under_way_mail_is_deferred_and_not_sent_unprotected() {
    let world = world();
    for i in 0..fetch::FETCHES_MAX {
        // Two rounds of drips keep all permits for two minutes.
        for name in [format!("a{i}.example"), format!("b{i}.example")] {
            let txt = domain(&name).prefixed("_mta-sts").unwrap();
            let record = found(&txt, vec![b"v=STSv1; id=1".to_vec()]);
            world.dns.txt.lock().unwrap().insert(txt, record);
            world.https.hosts.lock().unwrap().insert(domain(&name), Host::Drips);
            let gather = world.gather.clone();
            tokio::spawn(async move { gather.sts(&domain(&name), Duration::ZERO).await });
        }
    }
    pass(1).await;
    world.publish("1", "enforce", WEEK);
    let failure = world.gather.sts(&domain("example.org"), Duration::ZERO).await.unwrap_err();
    assert_eq!((failure.status.to_string().as_str(), failure.permanence), ("4.4.5", Permanence::Transient));
    pass(120).await;
    assert_eq!(world.mode().await, "enforce");
}

#[tokio::test(start_paused = true)]
async fn a_failing_record_lookup_defers_for_an_hour_and_is_then_counted_once_in_a_while() {
    let world = world();
    world.break_txt();
    let org = domain("example.org");
    let failure = world.gather.sts(&org, Duration::from_secs(3599)).await.unwrap_err();
    assert_eq!((failure.status.to_string().as_str(), failure.permanence), ("4.4.3", Permanence::Transient));
    assert_eq!(failure.scope, Scope::Domain);
    assert!(failure.text.contains("example.org") && failure.text.contains("SERVFAIL"), "{}", failure.text);
    assert_eq!(world.results(), []);
    for _ in 0..10 {
        let state = world.gather.sts(&org, Duration::from_secs(3600)).await.unwrap();
        assert_eq!(state.policy, None);
        assert!(state.trouble.unwrap().text.contains("SERVFAIL"));
        pass(10).await;
    }
    assert_eq!((world.results().len(), world.fetches()), (1, 0));
    // The record is back: nothing holds the fetch up.
    world.publish("1", "enforce", WEEK);
    pass(10).await;
    assert_eq!(world.mode().await, "enforce");
}

#[tokio::test(start_paused = true)]
async fn a_bogus_answer_about_the_record_is_no_answer() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    let name = domain("_mta-sts.example.org");
    for lookup in [Lookup::NxDomain(DnssecStatus::Bogus), Lookup::NoData(DnssecStatus::Indeterminate)] {
        world.dns.txt.lock().unwrap().insert(name.clone(), lookup);
        pass(100).await;
        assert_eq!(world.mode().await, "enforce");
        world.gather.forget(&domain("example.org")).await.unwrap();
        assert!(world.gather.sts(&domain("example.org"), Duration::ZERO).await.is_err());
        world.publish("1", "enforce", WEEK);
        pass(100).await;
        assert_eq!(world.mode().await, "enforce");
    }
}

#[tokio::test(start_paused = true)]
async fn max_age_zero_serves_the_message_that_asked_and_is_not_kept() {
    let world = world();
    world.publish("1", "enforce", 0);
    assert_eq!(world.mode().await, "enforce");
    assert!(world.entry().is_none());
    assert_eq!(world.mode().await, "enforce");
    assert_eq!(world.fetches(), 2);
    world.serve(Host::Fails(TroubleKind::Fetch));
    assert_eq!(world.mode().await, "-");
}

#[tokio::test(start_paused = true)]
async fn mode_none_replaces_enforce_at_once() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    world.publish("2", "none", 86_400);
    pass(60).await;
    assert_eq!(world.mode().await, "none");
    assert_eq!(world.entry().unwrap().held.as_ref().unwrap().policy.max_age, 86_400);
}

#[tokio::test(start_paused = true)]
async fn switched_off_or_overridden_nothing_is_asked() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    let before = Options::clone(&world.options.borrow());
    world.options.send_replace(Arc::new(Options { mta_sts: false, ..before.clone() }));
    assert_eq!(world.sts().await, StsState::default());
    let until = world.clock.now().checked_add(jiff::SignedDuration::from_secs(600)).unwrap();
    let rule = Override {
        whom: Whom::Domain(domain("example.org").into()),
        require: LocalRule::IgnoreSts,
        until: Some(until),
        reason: "ticket 4711".to_owned(),
    };
    world.options.send_replace(Arc::new(Options { overrides: vec![rule], ..before }));
    assert_eq!(world.sts().await, StsState::default());
    assert_eq!(world.gather.recheck(&domain("example.org")).await, StsState::default());
    world.gather.prefetch(&domain("example.org"));
    pass(1).await;
    assert_eq!((world.dns.questions(), world.fetches()), (0, 0));
    pass(600).await;
    assert_eq!(world.mode().await, "enforce");
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_makes_the_policy_ready_and_costs_nothing_twice() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    for _ in 0..50 {
        world.gather.prefetch(&domain("example.org"));
    }
    pass(1).await;
    assert!(world.entry().is_some());
    assert_eq!(world.mode().await, "enforce");
    assert_eq!((world.dns.questions(), world.fetches()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn prefetches_are_bounded() {
    let world = world();
    for i in 0..500 {
        world.gather.prefetch(&domain(&format!("d{i}.example")));
    }
    pass(1).await;
    assert_eq!(world.dns.questions(), PREFETCHES_MAX);
    world.gather.prefetch(&domain("more.example"));
    pass(1).await;
    assert_eq!(world.dns.questions(), PREFETCHES_MAX + 1);
}

#[tokio::test(start_paused = true)]
async fn before_a_bounce_record_and_policy_are_asked_anew_once_for_all() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    world.give_txt_a_ttl(3600);
    assert_eq!(world.mode().await, "enforce");
    pass(100).await;
    world.publish("2", "none", WEEK);
    assert_eq!(world.mode().await, "enforce"); // the record's answer is good for an hour
    let org = domain("example.org");
    let states = futures_util::future::join_all((0..20).map(|_| world.gather.recheck(&org))).await;
    assert!(states.iter().all(|state| state.id.as_deref() == Some("2")));
    let asked = world.dns.asked.lock().unwrap().clone();
    assert_eq!(asked, ["TXT _mta-sts.example.org", "fresh TXT _mta-sts.example.org"]);
    assert_eq!(world.fetches(), 2);
    for _ in 0..20 {
        world.gather.recheck(&org).await;
    }
    assert_eq!(world.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_recheck_fetches_with_an_unchanged_id_and_inside_the_back_off_and_never_loses_what_is_held() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    let org = domain("example.org");
    pass(100).await;
    assert_eq!(world.gather.recheck(&org).await.id.as_deref(), Some("1"));
    assert_eq!(world.fetches(), 2);
    for break_it in 0..3 {
        match break_it {
            0 => world.serve(Host::Fails(TroubleKind::Fetch)),
            1 => world.remove_txt(),
            _ => world.break_txt(),
        }
        pass(100).await;
        let state = world.gather.recheck(&org).await;
        assert_eq!(state.policy.unwrap().mode.to_string(), "enforce", "{break_it}");
        assert_eq!(world.fetches(), 3 + break_it);
        world.gather.recheck(&org).await;
        assert_eq!(world.fetches(), 3 + break_it);
    }
    // Nothing held and nothing published: nothing to fetch.
    world.gather.forget(&org).await.unwrap();
    assert_eq!(world.gather.recheck(&org).await.policy, None);
    assert_eq!(world.fetches(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_operator_can_refresh_and_forget() {
    let world = world();
    let org = domain("example.org");
    let refreshed = world.gather.refresh(&org).await;
    assert_eq!(refreshed.record, Err("_mta-sts.example.org: no v=STSv1 record".to_owned()));
    assert!(refreshed.fetch.is_none() && refreshed.entry.is_none());
    world.publish("1", "enforce", WEEK);
    pass(1).await;
    let refreshed = world.gather.refresh(&org).await;
    assert_eq!(refreshed.record.as_deref(), Ok("1"));
    assert!(refreshed.fetch.unwrap().is_ok());
    world.serve(Host::Fails(TroubleKind::Fetch));
    pass(1).await;
    let refreshed = world.gather.refresh(&org).await;
    assert!(refreshed.fetch.unwrap().is_err());
    assert!(refreshed.entry.unwrap().held.is_some());
    assert!(world.gather.forget(&org).await.unwrap());
    assert!(!world.gather.forget(&org).await.unwrap());
    assert_eq!(world.mode().await, "-");
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_makes_no_policy_immortal() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    world.clock.set_by(-365 * DAY as i64);
    assert_eq!(world.mode().await, "enforce");
    pass(1).await;
    assert_eq!(world.fetches(), 2); // refetched
    world.serve(Host::Fails(TroubleKind::Fetch));
    world.clock.set_by(-365 * DAY as i64);
    assert_eq!(world.mode().await, "enforce");
    pass(u64::from(WEEK) + 1).await;
    assert_eq!(world.mode().await, "-");
}

#[tokio::test(start_paused = true)]
async fn idle_domains_are_refetched_daily_also_without_a_record() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    world.remove_txt();
    let shutdown = CancellationToken::new();
    let refresher = tokio::spawn({
        let (gather, shutdown) = (world.gather.clone(), shutdown.clone());
        async move { gather.run_refresher(shutdown).await }
    });
    pass(30 * DAY).await;
    let fetches = world.fetches() - 1;
    assert!((30..=42).contains(&fetches), "{fetches}");
    let held = world.entry().unwrap().held.clone().unwrap();
    assert_eq!(held.id, "1");
    assert!(!held.is_expired(world.clock.now()));
    // Now it fails: spaced out, to the end of the policy's life and no longer.
    world.serve(Host::Fails(TroubleKind::Fetch));
    pass(DAY + 600).await;
    assert_eq!(world.entry().unwrap().held.as_ref(), Some(&held));
    assert!(world.entry().unwrap().trouble.is_some());
    let before = world.fetches();
    pass(5 * DAY).await;
    assert!((18..=40).contains(&(world.fetches() - before)), "{}", world.fetches() - before);
    assert_eq!(world.mode().await, "enforce");
    pass(9 * DAY).await;
    assert_eq!(world.mode().await, "-");
    assert!(world.entry().is_none(), "the dead entry is swept");
    shutdown.cancel();
    refresher.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_refresher_ends_at_once_even_while_a_fetch_drips() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    world.serve(Host::Drips);
    pass(2 * DAY).await;
    let shutdown = CancellationToken::new();
    let refresher = tokio::spawn({
        let (gather, shutdown) = (world.gather.clone(), shutdown.clone());
        async move { gather.run_refresher(shutdown).await }
    });
    pass(5).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_millis(10), refresher).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_due_in_the_background_of_mail_too_and_makes_nobody_wait() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    world.serve(Host::Drips);
    pass(2 * DAY).await;
    let started = tokio::time::Instant::now();
    assert_eq!(world.mode().await, "enforce");
    assert!(started.elapsed() < Duration::from_secs(1));
    pass(1).await;
    assert_eq!(world.fetches(), 2);
}
