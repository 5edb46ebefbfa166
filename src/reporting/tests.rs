//! The reports' story, day by day and restart by restart.

mod digests;
mod house;
mod kept_from;

use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;

use self::house::*;
use super::work::{Mode, NOTES_PER_DAY_MAX};
use super::*;
use crate::mail::TlsRequest;
use crate::net::https::PostOutcome;
use crate::store::{Filter, ReportEntry, RuaStatus};

fn refused() -> PostOutcome {
    PostOutcome::Refused("503 Service Unavailable".to_owned())
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

fn outcomes(lines: &[SendLine]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("{} {} {}", line.domain, line.rua.as_deref().unwrap_or("-"), line.outcome))
        .collect()
}

const NOON: &str = "2026-11-22T12:00:00Z";
const DURING: &str = "2026-11-21T12:00:00Z";

#[tokio::test]
async fn yesterdays_report_goes_once_to_every_target_with_one_report_id() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example, https://rua.example/tlsrpt");

    let lines = house.reporting.send(None, None, false).await;
    let queued = house.queued().await;
    assert_eq!(queued.len(), 1);
    let item = &queued[0].item;
    let id = item.id.queue_id;
    assert_eq!(
        outcomes(&lines),
        [
            format!("example.org mailto:a@rua.example queued as {id}"),
            "example.org https://rua.example/tlsrpt accepted".to_owned()
        ]
    );
    assert!(item.is_report);
    assert_eq!(item.expires_at, Some(at("2026-11-23T12:00:00Z")));
    assert_eq!(item.envelope.tls, TlsRequest::NotRequired);
    assert_eq!(item.envelope.reverse_path.to_string(), "<tlsrpt@sender.example>");
    assert_eq!(item.envelope.recipients[0].path.to_string(), "a@rua.example");

    let posts = house.https.posts.lock().unwrap().clone();
    let [(url, kind, body)] = &posts[..] else { panic!("{} posts", posts.len()) };
    assert_eq!((url.as_str(), kind.as_str()), ("https://rua.example/tlsrpt", "application/tlsrpt+gzip"));
    let entry = house.entry("example.org");
    assert_eq!(gunzip(body), entry.json);
    assert!(entry.json.contains("\"total-successful-session-count\":2"), "{}", entry.json);
    let mail = house.mail(id).await;
    assert_eq!(gunzip(&mail.parts[1].body), entry.json);
    assert!(mail.field("Subject").unwrap().contains(&format!("<{}>", entry.report_id)));
    assert!(mail.field("DKIM-Signature").is_some());

    let again = house.reporting.send(None, None, false).await;
    assert!(outcomes(&again).iter().all(|line| line.contains("not sent: already")), "{again:?}");
    assert_eq!((house.queued().await.len(), house.posts().len()), (1, 1));
}

#[tokio::test]
async fn an_endpoint_that_fails_is_tried_again_on_schedule_until_it_accepts() {
    let house = House::new("2026-11-22T00:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.answer(&[refused(), refused()]);
    assert_eq!(house.due("example.org").await, Some(at("2026-11-22T00:05:00Z")));
    // Before its time nothing is done.
    assert_eq!(house.due("example.org").await, Some(at("2026-11-22T00:05:00Z")));
    assert_eq!(house.posts().len(), 1);
    house.clock.set("2026-11-22T00:05:00Z");
    assert_eq!(house.due("example.org").await, Some(at("2026-11-22T00:20:00Z")));
    house.clock.set("2026-11-22T00:20:00Z");
    assert_eq!(house.due("example.org").await, None);
    let target = &house.entry("example.org").targets[0];
    assert_eq!((target.status.clone(), target.attempts), (RuaStatus::Accepted, 3));
    assert_eq!(target.last.as_deref(), Some("accepted with 201"));
    let posts = house.https.posts.lock().unwrap().clone();
    assert!(posts.iter().all(|(_, _, body)| *body == posts[0].2), "the same report each time");
}

#[tokio::test]
async fn after_24_hours_a_report_is_given_up() {
    let house = House::new("2026-11-22T00:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.answer(&vec![refused(); 100]);
    let mut tries = 0;
    let mut next = house.due("example.org").await;
    while let Some(due) = next {
        tries += 1;
        assert!(due <= at("2026-11-23T00:00:01Z"), "{due}");
        house.clock.set(&due.to_string());
        next = house.due("example.org").await;
    }
    assert!((10..=20).contains(&tries), "{tries}");
    let target = &house.entry("example.org").targets[0];
    assert_eq!(target.status, RuaStatus::GivenUp);
    assert_eq!(target.last.as_deref(), Some("503 Service Unavailable"));
}

#[tokio::test]
async fn a_target_that_fails_does_not_keep_the_other_waiting() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "https://down.example/,mailto:a@rua.example");
    house.answer(&[refused()]);
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert!(lines[0].contains("503 Service Unavailable; tried again at"), "{lines:?}");
    assert!(lines[1].contains("queued as"), "{lines:?}");
    assert_eq!(house.queued().await.len(), 1);
}

#[tokio::test]
async fn without_a_record_nothing_is_sent_and_the_data_is_let_go() {
    let house = House::new(NOON);
    for (name, txt) in [
        ("none.example", Txt::None),
        ("other.example", Txt::Record("v=spf1 -all".into())),
        ("bad.example", Txt::Record("v=TLSRPTv1; rua=ftp://x/".into())),
    ] {
        house.session(name, DURING);
        house.publish(name, txt);
    }
    house.session("nx.example", DURING);
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    for (line, why) in lines.iter().zip([
        "bad.example - not sent: bad v=TLSRPTv1 record",
        "none.example - not sent: no TXT record at _smtp._tls.none.example",
        "nx.example - not sent: no TXT record",
        "other.example - not sent: no v=TLSRPTv1 record",
    ]) {
        assert!(line.starts_with(why), "{line}");
    }
    assert!(house.queued().await.is_empty() && house.posts().is_empty());
    let entry = house.entry("none.example");
    assert!(entry.targets.is_empty() && entry.json.is_empty());
    assert_eq!(entry.note.as_deref(), Some("no TXT record at _smtp._tls.none.example"));

    assert_eq!(house.due("none.example").await, None);
    house.record("none.example", "https://rua.example/");
    assert_eq!(house.due("none.example").await, None, "what is let go is let go");
    assert!(house.posts().is_empty());
    let asked = house.reporting.send(None, Some(domain("none.example")), false).await;
    assert_eq!(outcomes(&asked), ["none.example https://rua.example/ accepted"]);
}

// With more than one thread, so that work done aside is an await point too.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn wherever_the_process_dies_each_target_gets_the_report_and_the_mail_is_queued_once() {
    for nth in 0.. {
        let house = House::new(NOON);
        house.session("example.org", DURING);
        house.record("example.org", "mailto:a@rua.example,https://rua.example/");
        let (of, on) = (domain("example.org"), day("2026-11-21"));
        let ended = cut_at(nth, house.reporting.work(on, &of, Mode::Due)).await;
        let house = house.restart().await;
        assert_eq!(house.due("example.org").await, None, "cut at {nth}");
        let queued = house.queued().await;
        assert_eq!(queued.len(), 1, "cut at {nth}");
        let entry = house.entry("example.org");
        let mail = house.mail(queued[0].item.id.queue_id).await;
        assert_eq!(gunzip(&mail.parts[1].body), entry.json, "cut at {nth}");
        // A post whose answer was not kept is repeated: the same report under the same id.
        let posts = house.https.posts.lock().unwrap().clone();
        assert!((1..=2).contains(&posts.len()), "cut at {nth}: {} posts", posts.len());
        assert!(posts.iter().all(|(_, _, body)| gunzip(body) == entry.json), "cut at {nth}");
        if ended {
            assert!(nth >= 5, "{nth} await points");
            break;
        }
    }
}

#[tokio::test]
async fn a_lookup_that_fails_is_tried_again_and_given_up_after_24_hours() {
    let house = House::new("2026-11-22T00:00:00Z");
    for name in ["slow.example", "dead.example"] {
        house.session(name, DURING);
        house.publish(name, Txt::Fails);
    }
    let mut next = house.due("dead.example").await;
    let first = house.due("slow.example").await.unwrap();
    let waiting = house.entry("slow.example");
    assert_eq!(waiting.targets[0].rua, "dns:_smtp._tls.slow.example?type=TXT");
    assert!(waiting.targets[0].last.as_deref().unwrap().contains("SERVFAIL"));

    house.clock.set(&first.to_string());
    house.record("slow.example", "mailto:a@rua.example");
    assert_eq!(house.due("slow.example").await, None);
    assert_eq!(house.entry("slow.example").report_id, waiting.report_id);
    assert_eq!(house.queued().await.len(), 1);

    while let Some(due) = next {
        house.clock.set(&due.to_string());
        next = house.due("dead.example").await;
    }
    let entry = house.entry("dead.example");
    assert_eq!(entry.targets[0].status, RuaStatus::GivenUp);
    assert!(entry.note.unwrap().contains("24 hours"));
    assert_eq!(house.queued().await.len(), 1);
}

#[tokio::test]
async fn a_restart_before_the_targets_were_tried_goes_on_with_them() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "https://a.example/,mailto:a@rua.example");
    house.answer(&[refused()]);
    house.reporting.send(None, None, false).await;
    // As it was kept before anything was sent.
    let mut entry = house.entry("example.org");
    for target in &mut entry.targets {
        *target = entry::waiting(target.rua.clone(), at(NOON));
    }
    let queued = house.queued().await;
    house.queue.admin(&Filter::default(), crate::store::AdminAction::Delete, at(NOON)).await.unwrap();
    house.reports.put(entry.clone()).await.unwrap();
    assert_eq!(queued.len(), 1);

    let house = house.restart().await;
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.posts().len(), 2);
    assert_eq!(house.queued().await.len(), 1);
    assert_eq!(house.entry("example.org").report_id, entry.report_id);
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.queued().await.len(), 1);
}

/// Queues one report, then puts its entry back to the moment before the hand-over was confirmed.
async fn cut_short(house: &House) -> (QueueId, ReportEntry) {
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example");
    house.reporting.send(None, None, false).await;
    let mut entry = house.entry("example.org");
    let RuaStatus::Queued(id) = entry.targets[0].status else { panic!("{entry:?}") };
    entry.targets[0].last = None;
    entry.targets[0].attempts = 0;
    house.reports.put(entry.clone()).await.unwrap();
    (id, entry)
}

#[tokio::test]
async fn a_restart_after_the_mail_was_queued_does_not_queue_it_again() {
    let house = House::new(NOON);
    let (id, _) = cut_short(&house).await;
    let house = house.restart().await;
    assert_eq!(house.due("example.org").await, None);
    let queued = house.queued().await;
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].item.id.queue_id, id);
    let target = &house.entry("example.org").targets[0];
    assert_eq!(target.status, RuaStatus::Queued(id));
    assert!(target.last.as_deref().unwrap().contains("handed to the queue"), "{target:?}");
}

#[tokio::test]
async fn a_restart_before_the_mail_was_queued_queues_it_once() {
    let house = House::new(NOON);
    let (id, _) = cut_short(&house).await;
    house.queue.admin(&Filter::default(), crate::store::AdminAction::Delete, at(NOON)).await.unwrap();
    let house = house.restart().await;
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.due("example.org").await, None);
    let queued = house.queued().await;
    assert_eq!(queued.len(), 1);
    assert_ne!(queued[0].item.id.queue_id, id);
}

#[tokio::test]
async fn another_report_under_the_same_queue_id_is_not_taken_for_ours() {
    let house = House::new(NOON);
    let (id, mut entry) = cut_short(&house).await;
    entry.report_id = "20261121.other.example.org@sender.example".to_owned();
    entry.json = entry.json.replace(&house.entry("example.org").report_id, &entry.report_id);
    house.reports.put(entry).await.unwrap();
    assert_eq!(house.due("example.org").await, None);
    let ids: Vec<_> = house.queued().await.iter().map(|entry| entry.item.id.queue_id).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&id));
}

#[tokio::test]
async fn an_unfinished_day_is_sent_as_it_is_and_whole_after_midnight() {
    let house = House::new("2026-11-21T13:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    let today = Some(day("2026-11-21"));
    assert_eq!(house.reporting.send(None, None, false).await, [], "yesterday has no results");
    let lines = house.reporting.send(today, None, false).await;
    assert_eq!(outcomes(&lines), ["example.org https://rua.example/ accepted"]);
    let partial = house.entry("example.org");
    assert!(partial.json.contains("\"end-datetime\":\"2026-11-21T13:00:00Z\""), "{}", partial.json);

    house.session("example.org", "2026-11-21T23:59:59.999Z");
    house.session("example.org", "2026-11-22T00:00:00Z");
    house.clock.set("2026-11-22T00:00:00Z");
    assert_eq!(house.due("example.org").await, None);
    let whole = house.entry("example.org");
    assert_ne!(whole.report_id, partial.report_id);
    assert!(whole.json.contains("\"end-datetime\":\"2026-11-21T23:59:59Z\""), "{}", whole.json);
    assert!(whole.json.contains("\"total-successful-session-count\":2"), "{}", whole.json);
    assert_eq!(house.posts().len(), 2);
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.posts().len(), 2);
}

#[tokio::test]
async fn again_repeats_the_same_report() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.session("other.example", DURING);
    house.record("example.org", "mailto:a@rua.example,https://rua.example/");
    let only = || Some(domain("example.org"));
    house.reporting.send(None, only(), false).await;
    let first = house.entry("example.org");
    let lines = outcomes(&house.reporting.send(None, only(), true).await);
    assert!(lines[0].contains("queued as") && lines[1].contains("accepted"), "{lines:?}");
    assert_eq!(house.queued().await.len(), 2);
    let second = house.entry("example.org");
    assert_eq!((second.report_id, second.json), (first.report_id, first.json));
    assert!(house.reports.get(day("2026-11-21"), &domain("other.example")).is_none());
    let nobody = house.reporting.send(None, Some(domain("nobody.example")), false).await;
    assert_eq!(outcomes(&nobody), ["nobody.example - not sent: no results for this domain on this day"]);
}

#[tokio::test]
async fn an_operator_need_not_wait_for_the_schedule() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.answer(&[refused()]);
    house.reporting.send(None, None, false).await;
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert_eq!(lines, ["example.org https://rua.example/ accepted"]);
}

#[tokio::test]
async fn a_report_being_sent_is_not_sent_twice_at_once() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example");
    let (one, two) =
        tokio::join!(house.reporting.send(None, None, false), house.reporting.send(None, None, false));
    assert_eq!(house.queued().await.len(), 1, "{one:?} {two:?}");
}

#[tokio::test]
async fn a_preview_shows_today_so_far_and_sends_nothing() {
    let house = House::new("2026-11-21T13:00:00Z");
    house.session("example.org", DURING);
    house.session("example.org", "2026-11-20T12:00:00Z");
    let json = house.reporting.preview(&domain("example.org")).unwrap();
    assert!(json.contains("\"total-successful-session-count\":1"), "{json}");
    assert!(json.contains("\"end-datetime\":\"2026-11-21T13:00:00Z\""), "{json}");
    assert_eq!(house.reporting.preview(&domain("nobody.example")), None);
    assert!(house.reports.list().is_empty() && house.dns.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn switched_off_nothing_is_sent() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example");
    house.options.send_modify(|options| Arc::make_mut(options).enabled = false);
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert_eq!(lines, ["example.org - not sent: TLS reports are switched off (tlsrpt.enabled)"]);
    assert!(house.queued().await.is_empty());
}

#[tokio::test]
async fn one_target_gets_a_thousand_reports_a_day_and_notes_are_few() {
    let house = House::new(NOON);
    let today = day("2026-11-21");
    for _ in 0..1000 {
        assert!(house.reporting.may_send(today, "https://rua.example/", 1000));
    }
    assert!(!house.reporting.may_send(today, "https://rua.example/", 1000));
    assert!(house.reporting.may_send(today, "https://other.example/", 1000));
    assert!((0..NOTES_PER_DAY_MAX).all(|_| house.reporting.may_note(today)));
    assert!(!house.reporting.may_note(today));

    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert!(lines[0].contains("withheld: 1000 reports of this day"), "{lines:?}");
    assert!(house.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn reports_start_after_midnight_within_the_delay_and_the_story_ends_on_request() {
    let still = StillClock::new();
    let house = House::paused("2026-11-21T22:00:00Z");
    house.options.send_modify(|options| Arc::make_mut(options).start_delay = 2 * HOUR);
    for n in 0..20 {
        house.session(&format!("d{n}.example"), DURING);
        house.record(&format!("d{n}.example"), "https://rua.example/");
    }
    house.session("tomorrow.example", "2026-11-22T00:00:00Z");
    house.record("tomorrow.example", "https://rua.example/");
    // Slow enough for some of twenty within two hours to meet.
    *house.https.slow.lock().unwrap() = Duration::from_secs(600);
    let shutdown = CancellationToken::new();
    let story = tokio::spawn(house.reporting.clone().run(shutdown.clone()));

    still.pass(2 * HOUR - Duration::from_secs(1)).await;
    assert!(house.posts().is_empty(), "the day is not over");
    assert!(house.dns.asked.lock().unwrap().is_empty());
    still.pass(HOUR).await;
    until("the first of them", async || {
        // What other threads bring late still has its time to take.
        still.pass(Duration::from_secs(1)).await;
        !house.posts().is_empty()
    })
    .await;
    assert!(house.posts().len() < 20, "spread over the whole delay");
    still.pass(HOUR + Duration::from_secs(120)).await;
    until("twenty reports", async || {
        still.pass(Duration::from_secs(1)).await;
        house.reports.list().iter().filter(|entry| entry::next_due(entry).is_none()).count() == 20
    })
    .await;
    assert_eq!(house.posts().len(), 20);
    let most_open = house.https.open.lock().unwrap().1;
    assert!((2..=CONCURRENCY).contains(&most_open), "bounded, and more than one at a time: {most_open}");
    assert!(house.reports.get(day("2026-11-22"), &domain("tomorrow.example")).is_none());
    *house.https.slow.lock().unwrap() = Duration::from_secs(1);

    // Nothing is sent twice, however long the story goes on; the next day's report follows.
    still.pass(23 * HOUR).await;
    until("the next day's report", async || {
        still.pass(Duration::from_secs(60)).await;
        house.posts().len() == 21
    })
    .await;
    shutdown.cancel();
    drop(still);
    story.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn days_left_over_from_before_a_restart_are_sent_and_settled_ones_are_not() {
    let still = StillClock::new();
    let house = House::paused(NOON);
    house.session("old.example", "2026-11-10T12:00:00Z");
    house.session("sent.example", DURING);
    house.session("waits.example", DURING);
    house.record("old.example", "https://old.example/");
    house.record("sent.example", "https://sent.example/");
    house.record("waits.example", "https://waits.example/");
    house.reporting.send(None, Some(domain("sent.example")), false).await;
    house.answer(&[refused()]);
    house.reporting.send(None, Some(domain("waits.example")), false).await;
    let house = house.restart().await;

    let shutdown = CancellationToken::new();
    let story = tokio::spawn(house.reporting.clone().run(shutdown.clone()));
    until("old and waiting reports", async || {
        still.pass(Duration::from_secs(60)).await;
        house.reports.list().len() == 3
            && house.reports.list().iter().all(|entry| entry::next_due(entry).is_none())
    })
    .await;
    let mut posts = house.posts();
    posts.sort();
    assert_eq!(
        posts,
        ["https://old.example/", "https://sent.example/", "https://waits.example/", "https://waits.example/"]
    );

    // A month on everything is forgotten.
    still.pass(2 * HOUR).await;
    house.clock.set("2026-12-23T12:00:00Z");
    until("forgetting", async || {
        still.pass(Duration::from_secs(60)).await;
        house.reports.list().is_empty() && house.results.days().is_empty()
    })
    .await;
    shutdown.cancel();
    drop(still);
    story.await.unwrap();
    assert_eq!(house.posts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_send_leaves_over_is_gone_on_with_and_switching_on_needs_no_restart() {
    let still = StillClock::new();
    let house = House::paused("2026-11-21T13:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.session("late.example", "2026-11-20T12:00:00Z");
    house.record("late.example", "https://late.example/");
    house.options.send_modify(|options| Arc::make_mut(options).enabled = false);
    let shutdown = CancellationToken::new();
    let story = tokio::spawn(house.reporting.clone().run(shutdown.clone()));
    still.pass(HOUR).await;
    assert!(house.posts().is_empty());
    house.options.send_modify(|options| Arc::make_mut(options).enabled = true);
    until("the day before", async || house.posts() == ["https://late.example/"]).await;

    house.answer(&[refused()]);
    house.reporting.send(Some(day("2026-11-21")), Some(domain("example.org")), false).await;
    assert_eq!(house.posts().len(), 2);
    until("another try", async || {
        still.pass(Duration::from_secs(60)).await;
        house.posts().len() == 3
    })
    .await;
    shutdown.cancel();
    drop(still);
    story.await.unwrap();
}

#[test]
fn lines_are_told_in_words_and_in_json() {
    let line = SendLine {
        domain: domain("example.org"),
        rua: Some("https://rua.example/".to_owned()),
        outcome: SendOutcome::Deferred { next: at(NOON), why: "503".to_owned() },
    };
    assert_eq!(line.outcome.to_string(), "503; tried again at 2026-11-22T12:00:00Z");
    assert_eq!(
        serde_json::to_string(&line).unwrap(),
        r#"{"domain":"example.org","rua":"https://rua.example/","outcome":"deferred","next":"2026-11-22T12:00:00Z","why":"503"}"#
    );
}
